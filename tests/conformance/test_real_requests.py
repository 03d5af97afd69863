"""Requests that real clients send: the server answers them as the hosted API does, or as its settings say."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from convgrpc.settings import IdPolicy, Settings
from convgrpc.testing import served
from tests.conftest import FREE_PORT

CONFORMANCE = Path(__file__).parents[2].parent / "shared" / "conformance" / "refused.jsonl"
COUNT = "/v1/responses/input_tokens"

UUID = "0b6c3f0e-8a3e-4d7e-9f5a-3d2f6f1c7a10"


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Client]]:
    """A client of a server for each of the policies for ids."""
    with ExitStack() as stack:

        def client(ids: IdPolicy) -> httpx.Client:
            db = str(tmp_path_factory.mktemp(ids) / "convgrpc.db")
            server = stack.enter_context(served(Settings(db=db, grpc=FREE_PORT, http=FREE_PORT, ids=ids)))
            return stack.enter_context(httpx.Client(base_url=f"http://{server.http}", timeout=30))

        yield {ids: client(ids) for ids in get_args(IdPolicy)}


@pytest.fixture
def http(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["hosted"]


@pytest.fixture
def any_ids(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["any"]


def items_path(client: httpx.Client) -> str:
    return f"/v1/conversations/{client.post('/v1/conversations', json={}).json()['id']}/items"


def stored(client: httpx.Client, item: Any) -> dict[str, Any]:
    """An item as it comes back."""
    path = items_path(client)
    created = client.post(path, json={"items": [item]})
    assert created.status_code == 200, created.text
    (listed,) = client.get(path).json()["data"]
    assert [listed] == created.json()["data"]
    return dict(listed)


def holds(got: Any, sent: Any) -> bool:
    """Whether a value has all that was sent; null is the same as absent."""
    if sent is None:
        return True
    if isinstance(sent, dict):
        return all(holds(got.get(key), each) for key, each in sent.items())
    if isinstance(sent, list):
        return len(got) == len(sent) and all(map(holds, got, sent))
    return bool(got == sent)


def rows() -> list[Any]:
    if not CONFORMANCE.exists():
        return []
    with CONFORMANCE.open(encoding="utf-8") as lines:
        return [pytest.param(row := json.loads(line), id=row["id"]) for line in lines]


@pytest.mark.skipif(not CONFORMANCE.exists(), reason="the conformance collection is not there")
@pytest.mark.parametrize("row", rows())
def test_request_of_the_collection_is_answered_as_it_says(
    clients: dict[str, httpx.Client], row: dict[str, Any]
) -> None:
    client = clients["any" if row.get("flags") == ["--ids", "any"] else "hosted"]
    path = row["path"].replace("{conv}", items_path(client).split("/")[3])
    answer = client.request(row["method"], path, json=row["body"])
    assert answer.status_code == row["status"], answer.text
    if path.endswith("/items"):
        assert holds(answer.json()["data"], _without_text_content(row["body"]["items"]))
    if row["status"] == 400:
        assert answer.json()["error"]["code"] in row["right"].split()


def _without_text_content(items: list[Any]) -> list[Any]:
    """Items without content that is a string: it comes back as a list."""
    return [{key: each for key, each in item.items() if key != "content" or isinstance(each, list)} for item in items]


# Keys that the hosted API does not demand.


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "web_search_call", "id": "ws_1", "action": None},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "find_in_page", "url": None, "pattern": None}},
        {"type": "file_search_call", "id": "fs_1", "queries": []},
        {"type": "image_generation_call", "id": "ig_1", "status": None, "result": None},
        {"type": "computer_call", "id": "cu_1", "call_id": "c", "pending_safety_checks": None},
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "lsh_1", "output": "README.md"},
        {"type": "local_shell_call_output", "id": None, "call_id": "c", "output": "README.md"},
        {"type": "program_output", "id": "cm_1", "call_id": "c", "result": "1"},
        {
            "type": "apply_patch_call",
            "call_id": "c",
            "operation": {"type": "delete_file", "path": "a"},
        },
        {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "x", "status": None},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x", "status": "incomplete"},
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "docs", "tools": [], "error": "unreachable"},
        {
            "type": "mcp_list_tools",
            "id": "mcpl_1",
            "server_label": "docs",
            "tools": [],
            "error": {"type": "http_error"},
        },
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "server_label": "docs",
            "name": "search",
            "arguments": "{}",
            "error": {"type": "mcp_protocol_error", "code": None, "message": None},
        },
        {
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "x",
                    "annotations": [
                        {"type": "file_citation", "file_id": "file-1", "filename": None, "index": None},
                        {"type": "file_path", "file_id": "file-1", "index": None},
                        {"type": "url_citation", "url": "https://example.com", "title": None, "start_index": None},
                        {"type": "container_file_citation", "container_id": "c", "file_id": "f", "index": 3},
                    ],
                    "logprobs": [{"token": "x", "logprob": -0.5}],
                }
            ],
        },
    ],
    ids=lambda item: json.dumps(item)[:80],
)
def test_item_without_optional_keys_is_stored_and_counted(http: httpx.Client, item: Any) -> None:
    assert holds(stored(http, item), item)
    answer = http.post(COUNT, json={"model": "gpt-5", "input": [item]})
    assert answer.status_code == 200, answer.text


def test_keys_that_must_be_there_come_back_as_null(http: httpx.Client) -> None:
    """The reference marks them as required and nullable."""
    tools = [{"type": "function", "name": "f"}]
    error = {"type": "moderation", "message": "no"}
    for item, path in [
        ({"type": "tool_search_output", "tools": tools}, ("tools", 0)),
        ({"type": "additional_tools", "role": "developer", "tools": tools}, ("tools", 0)),
    ]:
        function = _at(stored(http, item), path)
        assert (function["parameters"], function["strict"]) == (None, None)
    failed = stored(http, {"type": "image_generation_call", "id": "ig_1", "error": error})
    assert failed["error"] == {**error, "code": None, "param": None}


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


# Unknown keys.


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/conversations", {"metadata": {}, "mood": None}),
        ("/v1/conversations", {"items": [{"role": "user", "content": "x", "mood": None}]}),
        (
            "/v1/conversations",
            {"items": [{"role": "user", "content": [{"type": "input_text", "text": "x", "mood": None}]}]},
        ),
        (COUNT, {"input": "x", "mood": None}),
        (COUNT, {"input": "x", "tools": [{"type": "function", "name": "f", "async_": None}]}),
        (COUNT, {"input": "x", "text": {"format": {"type": "text", "mood": None}}}),
        ("/v1/conversations?metadata[a]=b", {"metadata": None, "mood": None}),
    ],
    ids=str,
)
def test_unknown_key_is_ignored_if_it_is_null(http: httpx.Client, path: str, body: Any) -> None:
    assert http.post(path, json=body).status_code == 200
    refused = http.post(
        path, content=json.dumps(body).replace("null", "1"), headers={"content-type": "application/json"}
    )
    assert refused.json()["error"]["code"] == "unknown_parameter"


# Ids.


FOREIGN: list[dict[str, Any]] = [
    {"type": "message", "id": UUID, "role": "user", "content": "x"},
    {"type": "message", "id": "chatcmpl-1", "role": "assistant", "content": "x"},
    {"type": "reasoning", "id": "msg_1", "summary": []},
    {"type": "function_call", "id": "call|1/2+3==", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "web_search_call", "id": "gen-1:0", "status": "completed"},
]
WITHOUT_IDS: list[dict[str, Any]] = [
    {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "file_search_call", "status": "completed", "queries": ["q"]},
    {"type": "image_generation_call", "id": None, "status": "completed", "result": "aGk="},
    {"type": "code_interpreter_call", "status": "completed", "container_id": "cntr_1"},
    {"type": "computer_call", "call_id": "c", "action": {"type": "screenshot"}},
    {"type": "mcp_list_tools", "server_label": "s", "tools": []},
    {"type": "mcp_call", "server_label": "s", "name": "n", "arguments": "{}"},
    {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": []}},
    {"type": "local_shell_call_output", "output": "x"},
    {"type": "reasoning", "summary": []},
    {"type": "program", "call_id": "c", "code": "", "fingerprint": ""},
]


@pytest.mark.parametrize("item", FOREIGN, ids=lambda item: item["id"])
def test_id_of_another_engine_is_stored_if_any_id_is_accepted(any_ids: httpx.Client, item: dict[str, Any]) -> None:
    path = items_path(any_ids)
    any_ids.post(path, json={"items": [item]}).raise_for_status()
    encoded = httpx.QueryParams({"": item["id"]})
    one = any_ids.get(f"{path}/{str(encoded).removeprefix('=')}").json()
    assert (one["id"], one["type"]) == (item["id"], item["type"])


@pytest.mark.parametrize("item", FOREIGN, ids=lambda item: item["id"])
def test_id_of_another_engine_is_refused_by_default(http: httpx.Client, item: dict[str, Any]) -> None:
    error = http.post(items_path(http), json={"items": [item]}).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "items[0].id")


@pytest.mark.parametrize("item", WITHOUT_IDS, ids=lambda item: item["type"])
def test_missing_id_is_made_if_any_id_is_accepted(any_ids: httpx.Client, item: dict[str, Any]) -> None:
    got = stored(any_ids, item)
    assert got["id"]
    assert holds(got, item)


@pytest.mark.parametrize("item", WITHOUT_IDS, ids=lambda item: item["type"])
def test_no_kind_needs_an_id_in_a_count(http: httpx.Client, item: dict[str, Any]) -> None:
    answer = http.post(COUNT, json={"model": "gpt-5", "input": [item]})
    assert answer.status_code == 200, answer.text
    refused = http.post(items_path(http), json={"items": [item]})
    assert refused.status_code == 400


@pytest.mark.parametrize("ids", ["hosted", "any"])
def test_reference_needs_its_id(clients: dict[str, httpx.Client], ids: str) -> None:
    client = clients[ids]
    for path, key in ((items_path(client), "items"), (COUNT, "input")):
        error = client.post(path, json={key: [{"type": "item_reference"}]}).json()["error"]
        assert error["message"] == f"Missing required parameter: '{key}[0].id'."


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        *((identity, "invalid_value") for identity in ("", "a b", "é", ".", "..")),
        ("x" * 513, "string_above_max_length"),
    ],
)
def test_any_id_has_bounds(any_ids: httpx.Client, identity: str, code: str) -> None:
    item = {"id": identity, "role": "user", "content": "x"}
    assert any_ids.post(items_path(any_ids), json={"items": [item]}).json()["error"]["code"] == code


@pytest.mark.parametrize("length", [65, 1324, 4096])
def test_output_may_have_the_call_id_of_its_call(http: httpx.Client, length: int) -> None:
    call_id = "c" * length
    items = [
        {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": call_id, "output": "x"},
        {"type": "custom_tool_call", "call_id": call_id, "name": "f", "input": ""},
        {"type": "custom_tool_call_output", "call_id": call_id, "output": "x"},
        {"type": "computer_call", "id": "cu_1", "call_id": call_id},
        {"type": "computer_call_output", "call_id": call_id, "output": {"type": "computer_screenshot"}},
    ]
    answer = http.post(items_path(http), json={"items": items})
    assert [item["call_id"] for item in answer.json()["data"]] == [call_id] * 6


# URLs.


@pytest.mark.parametrize("query", ["beta=true", "api-version=2025-04-01-preview", "beta=true&api-version=preview"])
def test_version_in_the_query_is_accepted(http: httpx.Client, query: str) -> None:
    path = items_path(http)
    item = {"role": "user", "content": "x"}
    assert http.post(f"{COUNT}?{query}", json={"input": "x"}).status_code == 200
    assert http.post(f"{path}?{query}", json={"items": [item]}).status_code == 200
    assert http.get(f"{path}?{query}&limit=1").status_code == 200


def test_trailing_slash_finds_the_route(http: httpx.Client) -> None:
    made = http.post("/v1/conversations/", json={}).json()
    assert http.get(f"/v1/conversations/{made['id']}/").json() == made
    assert http.get("/openapi.json/").status_code == 200
    assert http.get(f"/v1/conversations/{made['id']}/items/?limit=1").json()["data"] == []
    assert http.post(f"{COUNT}/", json={"input": "x"}).status_code == 200


def test_root_says_what_the_server_is(http: httpx.Client) -> None:
    about = http.get("/").json()
    assert about["name"] == "convgrpc"
    assert "runs no model" in about["description"].lower()
    assert http.get(about["openapi"]).json()["info"]["version"] == about["version"]
    assert http.post("/", json={}).status_code == 405
