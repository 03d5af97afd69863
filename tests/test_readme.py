"""The README: its commands run and print what it shows, and its tables are those of the code."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import openai
import pytest
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from convgrpc.contract import json_text, options, validator
from convgrpc.contract.methods import methods
from convgrpc.errors import REPORTS
from convgrpc.handlers.stored_token_counter import MAX_CHAIN
from convgrpc.server.http.connections import MAX_HEAD_BYTES
from convgrpc.settings import Address, Settings
from convgrpc.storage.interface import MAX_COPIED_BYTES
from convgrpc.storage.sqlite import fork_conversation
from convgrpc.tokens.extraction import MAX_FILES, SECONDS
from convgrpc.tokens.families import FAMILIES, Models
from convgrpc.tokens.models_file import read_models
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import AppendItemsRequest, CreateConversationRequest, ListItemsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# These need a Docker engine, would run the tests within the tests, or measure.
NOT_RUN = {"Docker", "Development", "Overload", "Speed"}
TIMEOUT = 60

RUNNERS = {"python": [sys.executable, "-W", "error", "-c"], "sh": ["/bin/sh", "-eu", "-c"]}
# How a tool's own words about a call that fails begin.
FAILED = "ERROR:"
# What buf curl calls the flags of grpcurl.
PLAIN = ["--protocol", "grpc", "--http2-prior-knowledge"]
BUF_FLAGS = {"-rpc-header": "--header"}


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
# What a script cannot do without, and what is not there wherever a shell is.
NEEDS = {"scripts/stubs": "go"}
RARE = {"sqlite3"}
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
CALLS = [block for block in RUN if re.fullmatch(r"grpcurl -plaintext .*\w/\w+\n", block.text, re.DOTALL)]


def _fails(block: Block) -> bool:
    return block.output is not None and block.output[1].startswith(FAILED)


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
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("CONVGRPC_", "OPENAI_"))
    }
    path = [str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    return {**_settings_of_go(), **kept, "HOME": str(home), "PATH": os.pathsep.join(path)}


def _settings_of_go() -> dict[str, str]:
    """Where Go keeps its settings, and what it has fetched and compiled: in the caller's home, not in that of the
    tests.
    """
    if not shutil.which("go"):
        return {}
    command = ["go", "env", "-json", "GOENV", "GOPATH", "GOCACHE"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    return dict(json.loads(printed))


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
    """A text without what differs from run to run: ids, cursors and times."""
    named = re.sub(r"_(?:[0-9a-f]{48}|…)|(?<=cur)_[\w-]{22}", "_<id>", text)
    return re.sub(r"\b1\d{9}\b", "1000000000", named).strip()


def _name(block: Block) -> str:
    return f"{block.section} {block.text.split(maxsplit=1)[0]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that has the scripts."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


def _filled(text: str, printed: str) -> str:
    """A command with the ids that it leaves out: for each prefix, the last that was printed."""
    return re.sub(r"\b([a-z]+_)…", lambda gap: re.findall(rf"\b{gap[1]}[0-9a-f]{{48}}", printed)[-1], text)


class Reader(NamedTuple):
    """One who follows the README, in a folder and an environment, with a server."""

    served: Served
    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self.environment | {"CONVGRPC_GRPC": self.served.grpc},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def text(self, block: Block) -> str:
        """The text of a block for this server, with the ids that the blocks before it in its section print.

        Without the tool that the block begins with, the test is skipped.
        """
        first, printed = block.text.split(maxsplit=1)[0], ""
        for tool in {NEEDS.get(first, first)} | RARE.intersection(block.text.split()):
            if block.language == "sh" and not shutil.which(tool, path=self.environment["PATH"]):
                pytest.skip(f"{tool} is not installed")
        if "…" in block.text:
            for each in RUN[: RUN.index(block)]:
                if each.section == block.section:
                    printed += self.run(*RUNNERS["sh"], self.served.local(_filled(each.text, printed))).stdout
        return self.served.local(_filled(block.text, printed))


@pytest.fixture
def reader(served: Served, folder: Path, environment: dict[str, str]) -> Reader:
    return Reader(served, folder, environment)


def test_start(served: Served) -> None:
    """A server that was started prints one line: its version, its addresses and its database."""
    (block,) = (block for block in BLOCKS if block.text == STARTER)
    assert (ROOT / "scripts" / "serve").stat().st_mode & 0o111
    assert block.output
    assert served.local(block.output[1]) == served.line


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("block", RUN, ids=_name)
def test_command(block: Block, reader: Reader) -> None:
    """A command succeeds, in a folder that has the scripts, and prints what the README shows; or fails as it shows."""
    done = reader.run(*RUNNERS[block.language], reader.text(block))
    language, shown = block.output or ("text", "")
    if _fails(block):
        assert done.returncode != 0
        assert _words(done.stderr) == _words(shown)
        return
    assert done.returncode == 0, done.stderr
    printed, expected = _settled(done.stdout), _settled(shown)
    if language == "json":
        assert json.loads(printed) == json.loads(expected)
    else:
        assert printed == expected


def _in_buf(text: str) -> list[str]:
    """The `buf curl` command for that of a grpcurl call."""
    *flags, address, method = shlex.split(text.replace("\\\n", ""))[2:]
    return ["buf", "curl", *PLAIN, *(BUF_FLAGS.get(flag, flag) for flag in flags), f"http://{address}/{method}"]


@pytest.mark.parametrize("block", [block for block in CALLS if not _fails(block)], ids=_name)
def test_grpcurl_and_buf_curl_are_answered_the_same(block: Block, reader: Reader) -> None:
    """Each call that the README makes with grpcurl, made with buf curl, gives the same message."""
    with_grpcurl = reader.run(*RUNNERS["sh"], reader.text(block))
    with_buf = reader.run(*_in_buf(reader.text(block)))
    assert with_buf.returncode == 0, with_buf.stderr
    method = block.text.split()[-1].replace("/", ".")
    answer = GetMessageClass(descriptor_pool.Default().FindMethodByName(method).output_type)
    one, other = (json_format.Parse(_settled(done.stdout), answer()) for done in (with_grpcurl, with_buf))
    assert one == other
    assert one.ByteSize()


@pytest.mark.parametrize("block", [block for block in CALLS if _fails(block)], ids=_name)
def test_grpcurl_and_buf_curl_are_refused_the_same(block: Block, reader: Reader) -> None:
    """A call that the README shows to fail fails with the same status and details with buf curl."""
    text = reader.text(block)
    with_grpcurl = reader.run(*RUNNERS["sh"], text.replace("grpcurl", "grpcurl -format-error", 1))
    with_buf = json.loads(reader.run(*_in_buf(text)).stderr)
    details = [
        {"type_url": f"type.googleapis.com/{detail['type']}", "value": b64decode(f"{detail['value']}==")}
        for detail in with_buf["details"]
    ]
    status = Status(code=Code.Value(with_buf["code"].upper()), message=with_buf["message"], details=details)
    assert json_format.Parse(with_grpcurl.stderr, Status()) == status
    assert (with_grpcurl.returncode, len(details)) == (64 + status.code, 3)


def test_grpcurl_and_buf_curl_list_the_same_services(reader: Reader) -> None:
    (block,) = (block for block in RUN if block.text.endswith(" list\n"))
    listed = reader.run("buf", "curl", *PLAIN, "--list-services", f"http://{reader.served.grpc}")
    assert block.output
    assert listed.stdout == block.output[1]


def test_grpcurl_calls_are_found() -> None:
    """So that the tests above fail when the README spells them in another way."""
    tools = [block for block in RUN if "grpcurl -plaintext" in block.text]
    assert len(CALLS) == len(tools) - 2, "all but list and describe"
    assert [_fails(block) for block in CALLS].count(True) == 1


def test_tests_of_other_projects(tmp_path: Path) -> None:
    """The test that the README shows passes, in a folder of its own."""
    (block,) = (block for block in BLOCKS if block.text.startswith(TEST))
    (tmp_path / "test_hello.py").write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "convgrpc.testing"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert "1 passed" in done.stdout, done.stdout


def test_every_way_in_is_shown() -> None:
    """The README starts with the SDK, curl, the Python client, other languages, grpcurl, and buf curl."""
    first = [(block.section, block.text.split(maxsplit=1)[0]) for block in BLOCKS]
    assert first[:11] == [
        ("Start", "scripts/serve"),
        ("Start", "curl"),
        ("The openai SDK", "from"),
        ("curl", "curl"),
        ("Python client", "from"),
        ("Python client", "import"),
        ("Python client", "import"),
        ("Python client", "def"),
        ("Other languages", "convgrpc"),
        ("Other languages", "scripts/stubs"),
        ("grpcurl and buf curl", "grpcurl"),
    ]
    assert ("grpcurl and buf curl", "buf") in first


def test_other_languages() -> None:
    """The table of programs has those that are tested, and how each of them reads the details of an error."""
    text = README.split("\n### Other languages\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| \[.+\]\((.+)\) \| (.+) \|$", text, re.MULTILINE)
    folders = {path.parent.name for path in (ROOT / "tests" / "polyglot").glob("*/[Ll]ife.*")}
    assert {language.lower() for language, _, _ in rows} == folders
    for _, program, calls in rows:
        assert [call for call in re.findall(r"`(.+?)`", calls) if call not in (ROOT / program).read_text()] == []


def test_rpcs() -> None:
    """The table of RPCs has those of the contract, with their routes, and names methods that the SDK has."""
    files = (conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2)
    contract = methods(service for file in files for service in file.DESCRIPTOR.services_by_name.values())
    rows = _table("RPCs")
    routes = [f"{method.verb} {method.template}" if method.template else "gRPC alone" for method in contract]
    assert [row[:2] for row in rows] == [[method.name, route] for method, route in zip(contract, routes, strict=True)]
    client = openai.OpenAI(base_url="http://127.0.0.1", api_key="unused")
    assert all(
        callable(attrgetter(row[2])(client)) for row in rows if row[1].split("/")[1:2] == ["v1"] and "/x/" not in row[1]
    )


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
        flag, default = setting.name.replace("_", "-"), "none" if setting.default is None else str(setting.default)
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
        shown = "" if default == "none" else "; default: " + (default or '""')
        assert f"{meaning} [env var: {variable}{shown}" in entry.replace("- ", "-")


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
    ("Values in a request", json_text.MAX_VALUES, {"metadata": {"a": [0] * json_text.MAX_VALUES}}),
    ("Metadata, pairs", 16, {"metadata": {str(number): "" for number in range(17)}}),
    ("Metadata, a key", 64, {"metadata": {"k" * 65: ""}}),
    ("Metadata, a value", 512, {"metadata": {"k": "v" * 513}}),
    ("An id that is sent", 128, {"items": [_message("a", id=f"msg_{'1' * 125}")]}),
]


OF_STORED = {
    "Stored items that a request names by their ids": f"{MAX_COPIED_BYTES:,} bytes",
    "A chain of responses that is counted": f"{MAX_CHAIN:,} responses",
    "PDF, docx and xlsx files of a count": f"{MAX_FILES} that are read, in {SECONDS:g} seconds",
}
"""Limits of stored things, which the tests of counting and of copies reach."""


@pytest.mark.parametrize(("row", "limit", "body"), EXCESSES, ids=[row for row, _, _ in EXCESSES])
def test_limits(row: str, limit: int, body: dict[str, Any], http: httpx.Client) -> None:
    """What goes beyond a limit of the table is refused, and the error names the limit."""
    assert re.match(rf"{limit:,}\b", dict(_table("Limits"))[row])
    refusal = http.post("/conversations", json=body)
    assert refusal.status_code == (413 if "Values" in row else 400)
    assert re.search(rf"\b{limit}\b", refusal.json()["error"]["message"])


def test_limit_of_heads(http: httpx.Client) -> None:
    assert dict(_table("Limits"))["The head of a REST request"] == f"{MAX_HEAD_BYTES:,} bytes"
    assert http.get("/conversations/conv_1", headers={"x-a": "a" * (MAX_HEAD_BYTES - 1024)}).status_code == 404
    refusal = http.get("/conversations/conv_1", headers={"x-a": "a" * MAX_HEAD_BYTES})
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (413, "request_too_large")


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


def test_limit_of_forks() -> None:
    """And of streams of appends."""
    limits = dict(_table("Limits"))
    assert (
        limits["A fork"]
        == f"{fork_conversation.MAX_FORKED_ITEMS:,} items, and {fork_conversation.MAX_FORKED_BYTES:,} bytes of them"
    )
    items = options.field_options(AppendItemsRequest.DESCRIPTOR.fields_by_name["items"])
    assert f"; {items.max_items} on a stream of appends" in limits["Items in a request"]


def test_limit_of_requests() -> None:
    """The table has the default size of a request, and all its rows are tested here."""
    rows = dict(_table("Limits"))
    assert rows["A request"] == f"{Settings.max_message_bytes:,} bytes, set by --max-message-bytes"
    assert {row: rows[row] for row in OF_STORED} == OF_STORED
    assert list(rows) == [
        "A request",
        "Items in a request",
        "A fork",
        *OF_STORED,
        "Items in a page",
        "A page",
        *[row for row, _, _ in EXCESSES[1:5]],
        "The head of a REST request",
        *[row for row, _, _ in EXCESSES[5:]],
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


def _headings(document: Path) -> list[str]:
    """What links to the headings of a Markdown document end in."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "protos/README.md"])
def test_links(name: str) -> None:
    """Links within the repository lead to files that exist, and to headings in them of which there is one."""
    document = ROOT / name
    links = set(re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text()))
    for path, heading in links:
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not heading or _headings(target).count(heading) == 1, (path, heading)


def test_default_addresses_are_shown() -> None:
    """The addresses in the commands are the default ones, so that they work as they stand, or free ones."""
    shown = {Address.parse(address) for block in RUN for address in re.findall(r"127\.0\.0\.1:\d+", block.text)}
    assert shown == {Settings.grpc, Settings.http, Address("127.0.0.1", 0)}
