"""A contract with one more kind of item, served by the same Python."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 60

MEMBER = """
    // probe is a kind that only this test knows.
    Probe probe = 900 [(convgrpc.options.v1.kind) = {id_prefix: "prb" id_required: true}];
    // configuration_update"""

MESSAGES = """
// Probe looks at something.
message Probe {
  // status is how far the probe is.
  ItemStatus status = 1 [(convgrpc.options.v1.field) = {default: "completed"}];
  // target is what it looks at.
  string target = 2 [(google.api.field_behavior) = REQUIRED];
  // reading is what it saw.
  optional string reading = 3 [(convgrpc.options.v1.field) = {nullable: true include: "probe.reading"}];
  // finding is what it made of that.
  ProbeFinding finding = 4;
}

// ProbeFinding is what a probe made of what it saw.
message ProbeFinding {
  // finding is one of them.
  oneof finding {
    option (convgrpc.options.v1.union) = {tag: "type"};
    // normal is nothing to report.
    ProbeNormal normal = 1;
    // alarm is something.
    ProbeAlarm alarm = 2;
  }
}

// ProbeNormal is nothing to report.
message ProbeNormal {}

// ProbeAlarm is something to report.
message ProbeAlarm {
  // levels are how loud it is.
  repeated int64 levels = 1 [(google.api.field_behavior) = REQUIRED];
}
"""

INCLUDE = """
  // INCLUDE_PROBE_READING asks for what probes saw.
  INCLUDE_PROBE_READING = 900 [(convgrpc.options.v1.json_value) = "probe.reading"];
}
"""

GRPC_CLIENT = """
import sys, grpc
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest, ListItemsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Probe, ProbeAlarm, ProbeFinding

address, conversation_id = sys.argv[1:]
item = ConversationItem(id="prb_grpc", probe=Probe(target="t", finding=ProbeFinding(alarm=ProbeAlarm(levels=[3]))))
with grpc.insecure_channel(address) as channel:
    stub = ConversationsServiceStub(channel)
    created = stub.CreateItems(CreateItemsRequest(conversation_id=conversation_id, items=[item])).data[0]
    assert created.probe.finding.alarm.levels == [3], created
    assert created.probe.status, created
    listed = stub.ListItems(ListItemsRequest(conversation_id=conversation_id)).data
    assert listed[0] == created, listed
    try:
        stub.CreateItems(CreateItemsRequest(conversation_id=conversation_id, items=[ConversationItem(probe=Probe())]))
    except grpc.RpcError as error:
        assert error.details() == "Missing required parameter: 'items[0].id'.", error
    else:
        raise AssertionError("an item without its id was accepted")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose contract has the new kind: the Python is the same, byte for byte."""
    root = tmp_path_factory.mktemp("new_kind")
    for folder in ("src", "protos", "scripts"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / ".venv").symlink_to(ROOT / ".venv")
    item = root / "protos/convgrpc/v1/item.proto"
    text = item.read_text()
    assert text.count("\n    // configuration_update") == 1
    item.write_text(text.replace("\n    // configuration_update", MEMBER) + MESSAGES)
    service = root / "protos/convgrpc/v1/conversations_service.proto"
    text = service.read_text().rstrip()
    assert text.endswith("}")
    service.write_text(text.removesuffix("}").rstrip() + INCLUDE)
    subprocess.run([root / "scripts/generate"], check=True, timeout=TIMEOUT, capture_output=True)
    return root / "src"


@contextmanager
def serving(package: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Serves from the copied package; gives the addresses of gRPC and REST."""
    command = [sys.executable, "-m", "convgrpc", "serve", "--db", str(folder / "a.db")]
    command += ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(package)) as process:
        try:
            assert process.stdout
            _, _, _, grpc_address, _, rest, *_ = process.stdout.readline().replace(",", "").split()
            yield grpc_address, rest
        finally:
            process.kill()


def environment(package: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(package)}


def test_a_new_kind_needs_nothing_but_its_lines_in_the_contract(package: Path, tmp_path: Path) -> None:
    """Its prefix, required id, default, include value, nullable field and nested union work by REST and by gRPC."""
    with serving(package, tmp_path) as (address, rest), httpx.Client(base_url=rest) as http:
        conversation = http.post("/conversations", json={}).json()["id"]
        items = f"/conversations/{conversation}/items"
        probe = {"type": "probe", "id": "prb_1", "target": "door", "finding": {"type": "alarm", "levels": []}}
        created = http.post(items, json={"items": [probe]}, params={"include[]": "probe.reading"}).json()["data"]
        assert created == [{**probe, "status": "completed", "reading": None}]
        assert http.get(items).json()["data"] == created
        assert http.get(f"{items}/prb_1").json() == created[0]

        def refusal(**change: object) -> tuple[str, str]:
            item = {key: value for key, value in {**probe, **change}.items() if value is not None}
            error = http.post(items, json={"items": [item]}).json()["error"]
            return error["param"], error["code"]

        assert refusal(id=None) == ("items[0].id", "missing_required_parameter")
        assert refusal(id="msg_1") == ("items[0].id", "invalid_value")
        assert refusal(id="prb_2", target=None) == ("items[0].target", "missing_required_parameter")
        assert refusal(id="prb_2", finding={"type": "other"}) == ("items[0].finding.type", "invalid_value")
        assert refusal(id="prb_2", other=1) == ("items[0].other", "unknown_parameter")
        command = [sys.executable, "-c", GRPC_CLIENT, address, conversation]
        subprocess.run(command, check=True, timeout=TIMEOUT, env=environment(package))
        assert http.get(items).json()["data"][0]["finding"] == {"type": "alarm", "levels": [3]}
