"""The .proto files that are written for other languages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import Default

from convgrpc import protos
from convgrpc.v1 import conversations_service_pb2, error_reason_pb2, input_tokens_service_pb2, responses_service_pb2

ROOT = Path(__file__).parents[1]
GENERATOR = ROOT / ".venv" / "generate" / "bin" / "python"
LOADED = (conversations_service_pb2, error_reason_pb2, input_tokens_service_pb2, responses_service_pb2)
CONFIG = "convgrpc/v1/convgrpc_grpc_service_config.json"
BOTH_COMMANDS = pytest.mark.parametrize("command", [["convgrpc", "protos"], ["convgrpc.protos"]], ids=" ".join)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", *command, "--out", str(folder)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """protoc adds the default ones to what it writes here, and not to the code for Python."""
    fields, messages = list(file.extension), list(file.message_type)
    while messages:
        message = messages.pop()
        fields += message.field
        messages += message.nested_type
    for field in fields:
        field.ClearField("json_name")
    return file


@BOTH_COMMANDS
def test_the_command_writes_the_contract_and_what_it_imports(command: list[str], tmp_path: Path) -> None:
    done = run(command, tmp_path / "new" / "protos")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    contract = {path.relative_to(ROOT / "protos").as_posix() for path in (ROOT / "protos").rglob("*.proto")}
    google = {"api/annotations", "api/field_behavior", "api/http", "rpc/code", "rpc/error_details", "rpc/status"}
    assert written(tmp_path / "new" / "protos") == {*contract, *(f"google/{name}.proto" for name in google), CONFIG}
    config = json.loads((tmp_path / "new" / "protos" / CONFIG).read_text())
    assert config["methodConfig"][0]["retryPolicy"]


@pytest.mark.skipif(not GENERATOR.exists(), reason="protoc is not installed: scripts/environment generate does that")
def test_all_of_them_compile_alone_to_the_contract_that_is_served(tmp_path: Path) -> None:
    """With no other folder in protoc's path; each file's descriptor is that of the code that runs."""
    protos.write(tmp_path / "protos")
    names = sorted(written(tmp_path / "protos") - {CONFIG})
    descriptors = tmp_path / "descriptors.binpb"
    protoc = [
        str(GENERATOR),
        "-m",
        "grpc_tools.protoc",
        f"-I{tmp_path / 'protos'}",
        f"--descriptor_set_out={descriptors}",
    ]
    subprocess.run([*protoc, *names], check=True, cwd=tmp_path)
    files = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    compiled = {file.name: without_json_names(file) for file in files}
    assert sorted(compiled) == names
    assert {file.DESCRIPTOR.name for file in LOADED} <= set(names)
    for name in (name for name in names if name.startswith("convgrpc/")):
        served = FileDescriptorProto()
        Default().FindFileByName(name).CopyToProto(served)
        assert compiled[name] == served, name


def test_files_of_the_same_names_are_overwritten_and_others_stay(tmp_path: Path) -> None:
    item, other = tmp_path / "convgrpc" / "v1" / "item.proto", tmp_path / "convgrpc" / "v1" / "own.proto"
    item.parent.mkdir(parents=True)
    item.write_text("older")
    other.write_text("mine")
    protos.write(tmp_path)
    assert item.read_text() == (ROOT / "protos" / "convgrpc" / "v1" / "item.proto").read_text()
    assert other.read_text() == "mine"


@BOTH_COMMANDS
def test_a_path_that_is_no_folder_is_refused(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run(command, file)
    assert (done.returncode, done.stderr) == (1, f"convgrpc: {file}: Not a directory\n")


@BOTH_COMMANDS
@pytest.mark.parametrize("folder", [Path("/proc/protos")], ids=str)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here, where not even root can write")
def test_a_folder_that_cannot_be_made_is_refused(command: list[str], folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 1
    assert done.stderr.startswith(f"convgrpc: {folder}")
    assert len(done.stderr.splitlines()) == 1


def test_the_command_needs_no_more_than_the_base_install() -> None:
    """Nothing of the extras is loaded by `python -m convgrpc.protos`."""
    code = "import sys, convgrpc.protos; print([name for name in ('click', 'grpc_health', 'uvloop') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_generated_names_are_those_that_languages_expect() -> None:
    """Packages as in the language, and for Java no outer class that could be taken for a message."""
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        descriptor = FileDescriptorProto()
        file = Default().FindFileByName(path.relative_to(ROOT / "protos").as_posix())
        file.CopyToProto(descriptor)
        folder = descriptor.package.replace(".", "/")
        assert descriptor.options.go_package.startswith(f"convgrpc.dev/gen/go/{folder};"), path
        assert descriptor.options.java_package == f"dev.{descriptor.package}", path
        assert descriptor.options.java_multiple_files, path
        outer = "".join(word.capitalize() for word in path.stem.split("_")) + "Proto"
        assert descriptor.options.java_outer_classname == outer, path
        assert outer not in {*file.message_types_by_name, *file.enum_types_by_name}
