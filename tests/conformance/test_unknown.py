"""Kinds and keys from the future, under `--unknown keep`."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import grpc
import httpx
import openai
import pytest

from convgrpc.contract.decoder import decode
from convgrpc.contract.faults import Path
from convgrpc.contract.item_policy import ItemPolicy
from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.content_pb2 import ContentPart
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest, ListItemsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.input_tokens_service_pb2_grpc import InputTokensServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall, ItemStatus, Message, Role

NEW_KIND = {"type": "telepathy", "id": "tel_1", "thought": {"b": 1, "a": 9007199254740993123}, "sure": True}
NEW_KEYS = {
    "id": "fc_mine",
    "type": "function_call",
    "mood": "calm",
    "call_id": "c",
    "name": "f",
    "arguments": "{}",
    "caller": {"type": "direct", "since": 5},
}
NEW_PART = {"role": "user", "id": "msg_mine", "content": [{"type": "smell", "smell": "roses"}]}


@pytest.fixture
def keeping(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, unknown="keep")) as server:
        yield server


@pytest.fixture
def client(keeping: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{keeping.http}/v1") as client:
        yield client


def items_of(client: httpx.Client) -> str:
    return f"/conversations/{client.post('/conversations', json={}).json()['id']}/items"


KNOWN_CALL = {"id": "fc_mine", "type": "function_call", "status": "completed"}
AS_STORED = {
    "kind": (NEW_KIND, NEW_KIND),
    "keys": (
        NEW_KEYS,
        {
            **KNOWN_CALL,
            "call_id": "c",
            "name": "f",
            "arguments": "{}",
            "caller": {"type": "direct", "since": 5},
            "mood": "calm",
        },
    ),
    "part": (NEW_PART, {"id": "msg_mine", "type": "message", "status": "completed", **NEW_PART}),
    "part among others": (
        {"role": "user", "content": [{"type": "smell", "smell": "roses"}, {"type": "input_text", "text": "x", "q": 1}]},
        {
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "smell", "smell": "roses"}, {"type": "input_text", "text": "x", "q": 1}],
        },
    ),
    "shorthand": (
        {"role": "user", "content": "x", "mood": {"digits": 12345678901234567890123}},
        {
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "x"}],
            "mood": {"digits": 12345678901234567890123},
        },
    ),
    "error": (
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [], "error": {"type": "odd", "x": 1}},
        {"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "s", "tools": [], "error": {"type": "odd", "x": 1}},
    ),
}


@pytest.mark.parametrize(("item", "expected"), AS_STORED.values(), ids=AS_STORED)
def test_unknown_keys_are_merged_into_the_item_as_it_is_known(
    client: httpx.Client, item: dict[str, Any], expected: dict[str, Any]
) -> None:
    """An item of an unknown kind is kept as it is. Every digit survives."""
    items = items_of(client)
    created = client.post(items, json={"items": [item]}).json()["data"][0]
    assert created == {"id": created["id"], **expected}
    assert created["id"] == item.get("id", created["id"])
    for answer in (client.get(items).json()["data"][0], client.get(f"{items}/{created['id']}").json()):
        assert json.dumps(answer) == json.dumps(created)


def test_item_that_is_read_may_be_sent_again(client: httpx.Client) -> None:
    """Nothing is lost, and nothing is added."""
    items, others = items_of(client), items_of(client)
    client.post(items, json={"items": [item for item, _ in AS_STORED.values()]}).raise_for_status()
    read = client.get(items, params={"order": "asc"}).json()["data"]
    assert client.post(others, json={"items": read}).json()["data"] == read


def test_unknown_key_that_is_null_is_not_kept(client: httpx.Client) -> None:
    item = {"role": "user", "content": "x", "mood": None}
    assert "mood" not in client.post(items_of(client), json={"items": [item]}).json()["data"][0]


def test_sdk_reads_items_with_unknown_keys(client: httpx.Client) -> None:
    """Under strict validation, as the keys that it needs are there."""
    sdk = openai.OpenAI(base_url=str(client.base_url), api_key="unused", _strict_response_validation=True)
    made = sdk.conversations.create(items=[NEW_KEYS])  # type: ignore[list-item]
    (item,) = sdk.conversations.items.list(made.id).data
    assert item.type == "function_call"
    assert (item.status, item.name) == ("completed", "f")
    assert item.model_extra == {"mood": "calm"}


def test_nulls_in_an_unknown_part_are_kept(client: httpx.Client) -> None:
    part = {"type": "smell", "smell": None, "of": {"flower": None}}
    created = client.post(items_of(client), json={"items": [{**NEW_PART, "content": [part]}]}).json()["data"][0]
    assert created["content"] == [part]


KEEPING = Path.root(ItemPolicy(keep_unknown=True, need_ids=False))
PLAIN = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "roses"}]}
NEW_SEARCH = {"type": "file_search_call", "id": "fs_1", "queries": ["roses"], "status": "completed", "mood": "calm"}
PARTLY_KNOWN: dict[str, dict[str, Any]] = {
    "kind": NEW_KIND,
    "keys": {**PLAIN, "id": "msg_mine", "mood": "calm " * 50},
    "part": NEW_PART,
    "search": NEW_SEARCH,
}


@pytest.mark.parametrize("item", PARTLY_KNOWN.values(), ids=list(PARTLY_KNOWN))
def test_what_is_known_in_part_counts_as_an_estimate(
    client: httpx.Client, keeping: Running, item: dict[str, Any]
) -> None:
    """The same in a conversation and in a request, with an id and without."""
    items = items_of(client)
    client.post(items, json={"items": [item]}).raise_for_status()
    without_id = {key: value for key, value in item.items() if key != "id"}
    asked: list[tuple[dict[str, Any], Any]] = [
        ({"input": [item]}, item["id"]),
        ({"conversation": items.split("/")[2]}, item["id"]),
        ({"input": [without_id]}, ANY),
    ]
    counts = []
    with grpc.insecure_channel(str(keeping.grpc)) as channel:
        stub = InputTokensServiceStub(channel)
        for body, place in asked:
            request = decode(CountInputTokensRequest, {"model": "gpt-5", **body}, KEEPING)
            (count,) = stub.CountInputTokens(request).counts
            assert [each.places for each in count.estimates] == [[place]]
            counts.append(count.input_tokens)
    assert len(set(counts)) == 1


def test_unknown_keys_do_not_count_and_unknown_parts_do(client: httpx.Client) -> None:
    def count(item: dict[str, Any]) -> int:
        body = {"model": "gpt-5", "input": [item]}
        return int(client.post("/responses/input_tokens", json=body).json()["input_tokens"])

    assert count(PARTLY_KNOWN["keys"]) == count(PLAIN)
    longer = {**NEW_PART, "content": [{"type": "smell", "smell": "roses " * 100}]}
    assert count(longer) > count(NEW_PART) + 90
    search = {key: value for key, value in NEW_SEARCH.items() if key != "mood"}
    assert count(NEW_SEARCH) == count(search)


def test_an_unknown_kind_gets_an_id_where_it_has_none(client: httpx.Client) -> None:
    """So that it can be retrieved and deleted."""
    items = items_of(client)
    created = client.post(items, json={"items": [{"type": "telepathy"}]}).json()["data"][0]
    assert created == {"id": created["id"], "type": "telepathy"}
    assert created["id"].startswith("item_")
    assert client.get(f"{items}/{created['id']}").json() == created
    assert client.delete(f"{items}/{created['id']}").status_code == 200


def test_grpc_sees_what_is_known_and_the_source(client: httpx.Client, keeping: Running) -> None:
    """An item whose keys are new in part is typed in part; it may be sent back as it is."""
    items = items_of(client)
    client.post(items, json={"items": [NEW_KEYS, NEW_KIND]})
    with grpc.insecure_channel(str(keeping.grpc)) as channel:
        stub = ConversationsServiceStub(channel)
        kind, keys = stub.ListItems(ListItemsRequest(conversation_id=items.split("/")[2])).data
        assert kind.WhichOneof("kind") is None
        assert json.loads(kind.source_json) == NEW_KIND
        assert (keys.function_call.name, keys.function_call.status) == ("f", ItemStatus.ITEM_STATUS_COMPLETED)
        assert json.loads(keys.source_json) == NEW_KEYS
        other = items_of(client)
        stub.CreateItems(CreateItemsRequest(conversation_id=other.split("/")[2], items=[keys, kind]))
    again = client.get(other, params={"order": "asc"}).json()["data"]
    assert again == [AS_STORED["keys"][1], NEW_KIND]


def test_what_the_contract_does_know_is_checked_all_the_same(client: httpx.Client) -> None:
    """A wrong value is no future."""
    items = items_of(client)
    for item, param in (
        ({**NEW_KEYS, "name": 5}, "items[0].name"),
        ({**NEW_KEYS, "status": "alien"}, "items[0].status"),
        ({**NEW_KEYS, "id": "msg_1"}, "items[0].id"),
        ({**NEW_KIND, "id": "a b"}, "items[0].id"),
        ({"type": 7}, "items[0]"),
        ({"type": "novel", "id": 5}, "items[0].id"),
    ):
        assert client.post(items, json={"items": [item]}).json()["error"]["param"] == param
    assert client.post("/conversations", json={"unknown": 1}).json()["error"]["param"] == "unknown"
    assert client.get(items).json()["data"] == []


def test_an_item_cannot_pass_for_a_source_by_rest(client: httpx.Client) -> None:
    """`source_json` is no key of the API: it is kept like any other that is unknown."""
    items = items_of(client)
    item = {"id": "msg_1", "role": "user", "content": [], "source_json": "{}"}
    got = client.post(items, json={"items": [item]}).json()["data"]
    assert got == [{**item, "type": "message", "status": "completed"}]


# Sources that a message does not come from: of another kind, and with a part that is not in the message.
OTHERS = [
    ('{"id":"fc_1","type":"novel","mood":1}', ConversationItem(id="fc_1", function_call=FunctionCall(call_id="c"))),
    (
        '{"id":"msg_1","type":"message","role":"user","content":[]}',
        ConversationItem(id="msg_1", message=Message(role=Role.ROLE_USER, content=[ContentPart()])),
    ),
    (
        '{"id":"fc_1","type":"function_call","call_id":"c","name":"g","arguments":"","mood":1}',
        ConversationItem(id="fc_1", function_call=FunctionCall(call_id="c", name="f")),
    ),
    ('{"id":"msg_1","type":"message","role":"user","content":[],"mood":1}', ConversationItem(id="msg_1")),
]


@pytest.mark.parametrize(("source", "item"), OTHERS, ids=["kind", "part", "name", "known kind"])
def test_source_of_another_item_is_refused(
    client: httpx.Client, keeping: Running, source: str, item: ConversationItem
) -> None:
    items = items_of(client)
    with grpc.insecure_channel(str(keeping.grpc)) as channel:
        sent = ConversationItem()
        sent.CopyFrom(item)
        sent.source_json = source
        request = CreateItemsRequest(conversation_id=items.split("/")[2], items=[sent])
        with pytest.raises(grpc.RpcError) as refusal:
            ConversationsServiceStub(channel).CreateItems(request)
        assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert client.get(items).json()["data"] == []


SOURCES = ["", "x", "5", "[]", '{"a":', '{"id":"msg_other","type":"novel"}', '{"type":"message","role":5,"novel":1}']


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_is_the_text_of_an_object(client: httpx.Client, keeping: Running, source: str) -> None:
    """Sent by gRPC, it is checked."""
    items = items_of(client)
    with grpc.insecure_channel(str(keeping.grpc)) as channel:
        stub = ConversationsServiceStub(channel)
        item = ConversationItem(source_json=source)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.CreateItems(CreateItemsRequest(conversation_id=items.split("/")[2], items=[item]))
        assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "'items[0]" in str(refusal.value.details())


def test_it_is_refused_unless_the_server_keeps_it(http: httpx.Client, stub: ConversationsServiceStub) -> None:
    """By REST and by gRPC."""
    items = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}/items"
    for item, param in ((NEW_KIND, "items[0]"), (NEW_KEYS, "items[0].mood"), (NEW_PART, "items[0].content[0].type")):
        assert http.post(items, json={"items": [item]}).json()["error"]["param"] == param
    source = ConversationItem(source_json="{}")
    with pytest.raises(grpc.RpcError) as refusal:
        stub.CreateItems(CreateItemsRequest(conversation_id=items.split("/")[3], items=[source]))
    assert refusal.value.details() == "Unknown parameter: 'items[0].source_json'."


def test_many_unknown_keys_in_a_large_item_are_found_at_once(client: httpx.Client) -> None:
    """The item is looked at once, however many there are."""
    parts: list[dict[str, Any]] = [{"type": "input_text", "text": ""} for _ in range(5_000)]
    parts[-1] |= {f"key_{number}": number for number in range(500)}
    item = {"id": "msg_1", "role": "user", "content": parts}
    got = client.post(items_of(client), json={"items": [item]}).json()["data"]
    assert got == [{**item, "type": "message", "status": "completed"}]
