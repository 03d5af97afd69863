"""The README: its commands run and print what it shows, and its tables are those of the code."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import google.api.annotations_pb2
import grpc
import httpx
import openai
import pytest
from google.rpc.code_pb2 import Code

from convgrpc.contract import options, validator
from convgrpc.contract.methods import methods
from convgrpc.errors import REPORTS
from convgrpc.settings import Address, Settings
from convgrpc.tokens.families import FAMILIES, Models
from convgrpc.tokens.models_file import read_models
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest, ListItemsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# These need a Docker engine, or would run the tests within the tests.
NOT_RUN = {"Docker", "Development"}
TIMEOUT = 60


class Block(NamedTuple):
    """A fenced block: its section, its language, its text, and the text of the block that shows its output."""

    section: str
    language: str
    text: str
    output: tuple[str, str] | None


def _blocks() -> Iterator[Block]:
    section = ""
    pending: Block | None = None
    for heading, language, text in re.findall(r"^#+ ([^\n]+)$|^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        if language in ("text", "json"):
            assert pending, f"an output without a command in '{section}'"
            yield pending._replace(output=(language, text))
            pending = None
            continue
        if pending:
            yield pending
        section = heading or section
        pending = Block(section, language, text, None) if language else None
    if pending:
        yield pending


BLOCKS = list(_blocks())
STARTER = "scripts/serve\n"
MODELS_FILE = "toml"
TEST = "def test_"
RUN = [
    block
    for block in BLOCKS
    if block.section not in NOT_RUN
    and block.text != STARTER
    and block.language != MODELS_FILE
    and not block.text.startswith(TEST)
]


def _table(section: str) -> list[list[str]]:
    """The rows of the first table of a section, without its head; cells without backticks."""
    text = README.split(f"\n## {section}\n")[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert rows
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].replace("`", "").splitlines()]
    return cells[2:]


class Served(NamedTuple):
    """A server that the command line started: what it printed, and where it is."""

    line: str
    grpc: str
    http: str

    def local(self, text: str) -> str:
        """A text of the README, for this server rather than one on the default addresses."""
        return text.replace(str(Settings.grpc), self.grpc).replace(str(Settings.http), self.http)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of commands: the tools of the tests are found, proxies and the caller's settings are not."""
    home = tmp_path_factory.mktemp("home")
    generator = ROOT / ".venv" / "generate" / "bin" / "python"
    if generator.exists():
        protoc = home / "protoc"
        protoc.write_text(f'#!/bin/sh\nexec {shlex.quote(str(generator))} -m grpc_tools.protoc "$@"\n')
        protoc.chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("CONVGRPC_", "OPENAI_"))
    }
    path = [str(home), str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    return {**kept, "HOME": str(home), "PATH": os.pathsep.join(path)}


@pytest.fixture(scope="module")
def served(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on free ports, started by `convgrpc serve` and its environment variables, and stopped by SIGTERM."""
    addresses = {"CONVGRPC_GRPC": "127.0.0.1:0", "CONVGRPC_HTTP": "127.0.0.1:0"}
    with subprocess.Popen(
        [sys.executable, "-m", "convgrpc", "serve"],
        cwd=tmp_path_factory.mktemp("server"),
        env=environment | addresses,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        try:
            yield Served(line, *re.findall(r"127\.0\.0\.1:\d+", line))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{served.http}/v1", timeout=TIMEOUT, trust_env=False) as client:
        yield client


def _settled(text: str) -> str:
    """A text without what differs from run to run: ids and times."""
    return re.sub(r"\b1\d{9}\b", "1000000000", re.sub(r"_(?:[0-9a-f]{48}|…)", "_<id>", text)).strip()


def _name(block: Block) -> str:
    return f"{block.section} {block.text.split(maxsplit=1)[0]}"


def test_start(served: Served) -> None:
    """A server that was started prints one line: its version, its addresses and its database."""
    (block,) = (block for block in BLOCKS if block.text == STARTER)
    assert (ROOT / "scripts" / "serve").stat().st_mode & 0o111
    assert block.output
    assert served.local(block.output[1]) == served.line


@pytest.mark.parametrize("block", RUN, ids=_name)
def test_command(block: Block, served: Served, environment: dict[str, str], tmp_path: Path) -> None:
    """A command succeeds, in a folder that has the protos, and prints what the README shows."""
    runners = {"python": [sys.executable, "-W", "error", "-c"], "sh": ["/bin/sh", "-eu", "-c"]}
    if block.language == "sh":
        tool = block.text.split(maxsplit=1)[0]
        if not shutil.which(tool, path=environment["PATH"]):
            pytest.skip(f"{tool} is not installed")
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    (tmp_path / "googleapis").symlink_to(Path(google.api.annotations_pb2.__file__).parents[2])
    done = subprocess.run(
        [*runners[block.language], served.local(block.text)],
        check=False,
        cwd=tmp_path,
        env=environment | {"CONVGRPC_GRPC": served.grpc},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    if block.output is None:
        assert not done.stdout
        return
    language, shown = block.output
    printed, expected = _settled(done.stdout), _settled(shown)
    if language == "json":
        assert json.loads(printed) == json.loads(expected)
    else:
        assert printed == expected


def test_tests_of_other_projects(tmp_path: Path) -> None:
    """The test that the README shows passes, in a folder of its own."""
    (block,) = (block for block in BLOCKS if block.text.startswith(TEST))
    (tmp_path / "test_hello.py").write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "convgrpc.testing"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert "1 passed" in done.stdout, done.stdout


def test_every_way_in_is_shown() -> None:
    """The README starts with the SDK, curl, grpcurl, buf curl, the Python client, and how to generate stubs."""
    first = [(block.section, block.text.split(maxsplit=1)[0]) for block in BLOCKS]
    assert first[:11] == [
        ("Start", "scripts/serve"),
        ("Start", "curl"),
        ("The openai SDK", "from"),
        ("curl", "curl"),
        ("grpcurl and buf curl", "grpcurl"),
        ("grpcurl and buf curl", "buf"),
        ("Python client", "from"),
        ("Python client", "import"),
        ("Python client", "import"),
        ("Python client", "def"),
        ("Stubs", "protoc"),
    ]


def test_rpcs() -> None:
    """The table of RPCs has those of the contract, with their routes, and names methods that the SDK has."""
    files = (conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2)
    contract = methods(service for file in files for service in file.DESCRIPTOR.services_by_name.values())
    rows = _table("RPCs")
    assert [row[:2] for row in rows] == [[method.name, f"{method.verb} {method.template}"] for method in contract]
    client = openai.OpenAI(base_url="http://127.0.0.1", api_key="unused")
    assert all(callable(attrgetter(row[2])(client)) for row in rows if row[1].split("/")[2] != "x")


def test_items() -> None:
    """The table of kinds has those of the contract, with their prefixes, and says which need an id."""
    required: dict[str, bool] = {}
    prefixes: dict[str, str] = {}
    for kinds, rule in _table("Items"):
        for kind, prefix in re.findall(r"(\w+)(?: \((\w+)\))?", kinds):
            required[kind], prefixes[kind] = rule.startswith("must be sent"), prefix
    members = ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields
    contract = {field.name: options.kind(field) or options.Kind() for field in members}
    assert f"one of {len(contract)} kinds" in README
    assert required == {name: kind.id_required for name, kind in contract.items()}
    assert prefixes == {name: kind.id_prefix for name, kind in contract.items()}


def test_errors() -> None:
    """The table of errors has every way in which the contract reports one."""
    reports = {(str(report.http), Code.Name(report.grpc), report.type) for report in REPORTS.values() if report.http}
    assert {tuple(row[:3]) for row in _table("Errors")} == reports


def test_families() -> None:
    """The table of families has all of them, and models that belong to them."""
    rows = _table("Counting tokens")
    assert sorted(family for family, _, _ in rows) == sorted(FAMILIES)
    for family, encoding, names in rows:
        for name in names.split(", "):
            model = Models().resolve(name)
            assert (model.family.name, model.family.encoding, model.known) == (family, encoding, True), name


def test_file_of_models(tmp_path: Path) -> None:
    """The file of models that the README shows is one."""
    (block,) = (block for block in BLOCKS if block.language == MODELS_FILE)
    (tmp_path / "models.toml").write_text(block.text)
    model = read_models(tmp_path / "models.toml").resolve("acme-1")
    assert (model.family.name, model.family.request, model.context_window) == ("acme", 5, 64_000)


def test_settings() -> None:
    """The table of settings has each field of the settings: its flag, environment variable, default and help."""
    expected = []
    for setting in fields(Settings):
        flag, default = setting.name.replace("_", "-"), str(setting.default)
        flags = f"--{flag}"
        if setting.type is bool:
            flags, default = f"--{flag}, --no-{flag}", flag if setting.default else f"no-{flag}"
        expected.append([flags, f"CONVGRPC_{setting.name.upper()}", default, setting.metadata["help"]])
    assert _table("Settings") == expected


def test_settings_are_those_of_the_command(environment: dict[str, str]) -> None:
    """`convgrpc serve --help` has the flags, environment variables and defaults of the table, and no others."""
    command = [sys.executable, "-m", "convgrpc", "serve", "--help"]
    help_text = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=TIMEOUT
    ).stdout
    entries = [" ".join(entry.split()) for entry in re.split(r"\n  (?=-)", help_text)[1:-1]]
    rows = _table("Settings")
    assert len(entries) == len(rows)
    for entry, (flags, variable, default, meaning) in zip(entries, rows, strict=True):
        assert entry.startswith(flags.replace(", ", " / "))
        # Click breaks lines after hyphens too.
        shown = default or '""'
        assert f"{meaning} [env var: {variable}; default: {shown}" in entry.replace("- ", "-")


def _message(text: str, **values: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **values}


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def _listed(schema: Any) -> dict[str, Any]:
    tools = [{"name": "t", "input_schema": schema}]
    return {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": tools}


# The row of the table, its number, and the body of a request for a conversation that goes one beyond.
EXCESSES: list[tuple[str, int, dict[str, Any]]] = [
    ("Items in a request", 20, {"items": [_message("a")] * 21}),
    ("Nesting", options.MAX_DEPTH, {"items": [_listed(_nested(options.MAX_DEPTH))]}),
    ("A string", validator.MAX_STRING_LENGTH, {"items": [_message("a" * (validator.MAX_STRING_LENGTH + 1))]}),
    (
        "An array or a map",
        validator.MAX_ARRAY_LENGTH,
        {
            "items": [
                {
                    "type": "file_search_call",
                    "id": "fs_1",
                    "status": "completed",
                    "queries": [""] * (validator.MAX_ARRAY_LENGTH + 1),
                }
            ]
        },
    ),
    ("Metadata, pairs", 16, {"metadata": {str(number): "" for number in range(17)}}),
    ("Metadata, a key", 64, {"metadata": {"k" * 65: ""}}),
    ("Metadata, a value", 512, {"metadata": {"k": "v" * 513}}),
    ("An id that is sent", 128, {"items": [_message("a", id=f"msg_{'1' * 125}")]}),
]


@pytest.mark.parametrize(("row", "limit", "body"), EXCESSES, ids=[row for row, _, _ in EXCESSES])
def test_limits(row: str, limit: int, body: dict[str, Any], http: httpx.Client) -> None:
    """What goes beyond a limit of the table is refused, and the error names the limit."""
    assert re.match(rf"{limit:,}\b", dict(_table("Limits"))[row])
    refusal = http.post("/conversations", json=body)
    assert refusal.status_code == 400
    assert re.search(rf"\b{limit}\b", refusal.json()["error"]["message"])


def test_limits_of_pages(http: httpx.Client) -> None:
    """A page holds as many items, and as many bytes, as the table says."""
    limits = dict(_table("Limits"))
    assert limits["Items in a page"].startswith("100; 20 ")
    assert limits["A page"].startswith("3,500,000 bytes")
    conversation = http.post("/conversations", json={"items": [_message("a")] * 20}).json()["id"]
    url = f"/conversations/{conversation}/items"
    http.post(url, json={"items": [_message("a")]})
    assert len(http.get(url).json()["data"]) == 20
    assert http.get(url, params={"limit": 100}).status_code == 200
    assert http.get(url, params={"limit": 101}).status_code == 400
    http.post(url, json={"items": [_message("a" * 1_100_000)] * 4})
    page = http.get(url).json()
    assert (len(page["data"]), page["has_more"]) == (3, True)


def test_limit_of_requests() -> None:
    """The table has the default size of a request, and all its rows are tested here."""
    rows = dict(_table("Limits"))
    assert rows["A request"] == f"{Settings.max_message_bytes:,} bytes, set by --max-message-bytes"
    assert list(rows) == [
        "A request",
        "Items in a request",
        "Items in a page",
        "A page",
        *[row for row, _, _ in EXCESSES[1:]],
    ]


def test_unknown_fields_are_kept(served: Served) -> None:
    """A field that the contract does not know comes back with the item that was sent with it."""
    unknown = b"\xc2\x3e\x03new"  # field 1000, a string
    item = ConversationItem(message=Message(role=Role.ROLE_USER, content=[ContentPart(input_text=InputText(text="a"))]))
    item.MergeFromString(unknown)
    with grpc.insecure_channel(served.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = ConversationsServiceStub(channel)
        conversation = stub.CreateConversation(CreateConversationRequest(items=[item]))
        page = stub.ListItems(ListItemsRequest(conversation_id=conversation.id))
    assert unknown in page.data[0].SerializeToString()


def test_default_addresses_are_shown() -> None:
    """The addresses in the commands are the default ones, so that they work as they stand."""
    shown = {Address.parse(address) for block in RUN for address in re.findall(r"127\.0\.0\.1:\d+", block.text)}
    assert shown == {Settings.grpc, Settings.http}
