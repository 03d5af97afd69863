"""The wheel, in an environment that has nothing else: the base install is a client that works."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from convgrpc.server.app import Running

ROOT = Path(__file__).parents[1]
TIMEOUT = 180

PROGRAM = """
import asyncio, importlib.util, sys
from pathlib import Path

import convgrpc
from convgrpc import AsyncClient, Client, InvalidArgument, NotFound
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role

assert Path(convgrpc.__file__).is_relative_to(sys.prefix), convgrpc.__file__
for name in ("orjson", "click", "uvicorn", "uvloop", "httptools", "sqlite_utils", "tiktoken", "imagesize", "pytest"):
    assert importlib.util.find_spec(name) is None, name

part = ContentPart(input_text=InputText(text="two"))
tool = {"name": "sum", "input_schema": {"b": 2**70, "a": "\\u00e9"}}
listed = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "math", "tools": [tool]}
with Client(sys.argv[1]) as client:
    items = [{"role": "user", "content": "one"}, ConversationItem(message=Message(role=Role.ROLE_USER, content=[part]))]
    conversation = client.create_conversation(items=[*items, listed], metadata={"topic": "wheel"})
    page = list(client.iter_items(conversation.id, order="asc", limit=1))
    print(*(item.message.content[0].input_text.text for item in page[:2]))
    assert convgrpc.to_dict(page[2]) == listed
    for call in (lambda: client.get_conversation("conv_1"), lambda: client.list_items(conversation.id, limit=0)):
        try:
            call()
        except (NotFound, InvalidArgument) as error:
            print(type(error).__name__, error.param, bool(error.request_id))

async def main():
    async with AsyncClient(sys.argv[1]) as client:
        print(len([item async for item in client.iter_items(conversation.id)]))

asyncio.run(main())
"""


def run(*command: str | Path, **options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=options.get("cwd"),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )


def pip(*arguments: str | Path) -> None:
    """Runs pip; skips the test where there is no index to take packages from."""
    options = ("--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=10")
    done = run(sys.executable, "-m", "pip", *arguments, *options)
    if "Could not find a version that satisfies" in done.stderr and "connection" in done.stderr.lower():
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_what_is_read_at_run_time(wheel: Path) -> None:
    """Types, comments, the service config, ranks, the contract, and the entry points."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
        text = archive.read(entry_points).decode()
    for path in (
        "py.typed",
        "contract/comments.json",
        "client/service_config.json",
        "tokens/ranks/o200k_base.tiktoken",
        *(f"protos/{path.relative_to(ROOT / 'protos')}" for path in (ROOT / "protos").rglob("*.proto")),
    ):
        assert f"convgrpc/{path}" in names
    assert "convgrpc = convgrpc.cli.main:main" in text
    assert "convgrpc.testing = convgrpc.testing" in text
    assert [name for name in names if name.startswith("tests/")] == []


def test_the_base_install_is_a_client_that_works(wheel: Path, server: Running, tmp_path: Path) -> None:
    """Installed from the wheel alone, far from the source; nothing of the server's is there."""
    environment = tmp_path / "environment"
    assert run(sys.executable, "-m", "venv", "--without-pip", environment).returncode == 0
    python = environment / "bin" / "python"
    pip("--python", python, "install", wheel)
    done = run(python, "-W", "error", "-c", PROGRAM, str(server.grpc), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["one two", "NotFound None True", "InvalidArgument limit True", "3"]
    done = run(python, "-W", "error", "-m", "convgrpc.protos", "--out", tmp_path / "protos", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "protos" / "convgrpc" / "v1" / "item.proto").read_bytes()
