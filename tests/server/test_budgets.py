"""Listing the newest items that fit into a number of tokens."""

import random
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from convgrpc.contract.encoder import encode
from convgrpc.server.app import Running
from convgrpc.tokens import count_input_tokens
from convgrpc.v1.conversations_service_pb2 import ConversationItemList, ListItemsRequest, Order, TokenBudget
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub

MODEL = "gpt-5"
AT_ONCE = 20


class Client:
    """Stores by REST, and lists by gRPC."""

    def __init__(self, http: httpx.Client, stub: ConversationsServiceStub) -> None:
        self._http = http
        self._stub = stub

    def conversation(self, *items: dict[str, Any]) -> str:
        made: str = self._http.post("/v1/conversations", json={}).json()["id"]
        for start in range(0, len(items), AT_ONCE):
            sent = {"items": items[start : start + AT_ONCE]}
            assert self._http.post(f"/v1/conversations/{made}/items", json=sent).status_code == 200
        return made

    def all(self, conversation: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = self._http.get(
                f"/v1/conversations/{conversation}/items", params={"order": "asc", "limit": 100, **after}
            ).json()
            found += page["data"]
        return found

    def fitting(self, conversation: str, tokens: int, model: str = MODEL, **fields: Any) -> ConversationItemList:
        budget = TokenBudget(input_tokens=tokens, model=model)
        return self._stub.ListItems(ListItemsRequest(conversation_id=conversation, budget=budget, **fields))


@pytest.fixture
def client(server: Running, http: httpx.Client, channel: grpc.Channel) -> Client:
    return Client(http, ConversationsServiceStub(channel))


def said(role: str, words: int) -> dict[str, Any]:
    return {"role": role, "content": "fern " * words}


def called(call_id: str, words: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "grow", "arguments": "fern " * words}


def answered(call_id: str, words: int) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "fern " * words}


def tokens(items: list[dict[str, Any]], model: str = MODEL) -> int:
    return count_input_tokens({"model": model, "input": items}).input_tokens


def is_whole(items: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether no answer among the items has its call among the others."""
    asked = {item["call_id"] for item in others if item["type"] == "function_call"}
    return not any(item["type"] == "function_call_output" and item["call_id"] in asked for item in items)


def best(items: list[dict[str, Any]], budget: int, model: str = MODEL) -> list[dict[str, Any]]:
    """The most items from the newest on that are whole and fit, found by trying all."""
    return next(
        items[first:]
        for first in range(len(items) + 1)
        if is_whole(items[first:], items[:first]) and tokens(items[first:], model) <= budget
    )


def talk(source: random.Random, length: int) -> Iterator[dict[str, Any]]:
    """Messages, calls alone and together, answers at once and late, and some that never come."""
    waiting: list[str] = []
    for number in range(length):
        what = source.choice(["user", "assistant", "call", "call", "answer", "answer"])
        if what == "call":
            waiting.append(f"call_{number}")
            yield called(waiting[-1], source.randint(1, 9))
        elif what == "answer" and waiting:
            yield answered(waiting.pop(source.randrange(len(waiting))), source.randint(1, 9))
        else:
            yield said("user" if what == "user" else "assistant", source.randint(1, 30))


@pytest.mark.parametrize("model", [MODEL, "gpt-5.4", "gpt-4o"])
def test_as_many_fit_as_can(client: Client, model: str) -> None:
    """Counted as CountInputTokens does, with every call beside its answer."""
    source = random.Random(model)
    conversation = client.conversation(*talk(source, 60))
    items = client.all(conversation)
    for budget in [1, 2, 3, *(source.randint(4, tokens(items, model) + 9) for _ in range(9))]:
        page = client.fitting(conversation, budget, model, order=Order.ORDER_ASC)
        expected = best(items, budget, model) if budget > 3 else []
        assert [item.id for item in page.data] == [item["id"] for item in expected], budget
        assert page.has_more == (len(expected) < len(items))
        if expected:
            assert tokens([encode(item) for item in page.data], model) <= budget


def test_newest_come_first_unless_asked_otherwise(client: Client) -> None:
    conversation = client.conversation(said("user", 5), said("assistant", 5), said("user", 5))
    newest = client.fitting(conversation, 25)
    oldest = client.fitting(conversation, 25, order=Order.ORDER_ASC)
    assert len(newest.data) == 2
    assert [item.id for item in newest.data] == [item.id for item in reversed(oldest.data)]
    assert (newest.first_id, newest.last_id) == (newest.data[0].id, newest.data[1].id)


def test_a_long_conversation_is_read_only_as_far_as_it_fits(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several pages, those that the answer is in, and few more."""
    conversation = client.conversation(*(said("user", 40) for _ in range(400)))
    from convgrpc.storage.sqlite import queries

    read: list[bytes] = []
    find = queries.find_growth

    def noted(*arguments: Any, **options: Any) -> Any:
        growth = find(*arguments, **options)
        read.extend(growth.items)
        return growth

    monkeypatch.setattr("convgrpc.storage.sqlite.store.find_growth", noted)
    page = client.fitting(conversation, tokens([said("user", 40)] * 2))
    assert (len(page.data), page.has_more) == (2, True)
    assert len(read) <= 100


def test_what_a_command_printed_stays_beside_the_command(client: Client) -> None:
    """Its id tells which."""
    action = {"type": "exec", "command": ["ls"], "env": {}}
    call = {"type": "local_shell_call", "id": "lsh_1", "call_id": "lsh_x", "status": "completed", "action": action}
    output = {"type": "local_shell_call_output", "id": "lsh_x", "output": "fern " * 50}
    conversation = client.conversation(said("user", 200), call, output)
    assert len(client.fitting(conversation, tokens([output])).data) == 0
    assert len(client.fitting(conversation, tokens([call, output])).data) == 2


def test_an_answer_that_nothing_asked_for_is_listed(client: Client) -> None:
    """However much there is before it, of which some may be what it answers."""
    conversation = client.conversation(answered("call_none", 1), said("user", 1))
    assert len(client.fitting(conversation, 1_000).data) == 2
    long = [said("user", 40) for _ in range(200)]
    newest = [answered("call_late", 1), said("user", 1)]
    conversation = client.conversation(*long, *newest)
    assert len(client.fitting(conversation, tokens([*long[:1], *newest])).data) == 3
    conversation = client.conversation(called("call_late", 1), *long, *newest)
    assert len(client.fitting(conversation, tokens([*long[:1], *newest])).data) == 1


def test_a_large_answer_ends_where_a_page_would(client: Client) -> None:
    """What stubs can receive."""
    conversation = client.conversation(*({"role": "user", "content": "fern " * 300_000} for _ in range(3)))
    page = client.fitting(conversation, 10_000_000)
    assert (len(page.data), page.has_more) == (2, True)


@pytest.mark.parametrize("fields", [{"limit": 5}, {"after": "msg_1"}], ids=lambda fields: next(iter(fields)))
def test_a_budget_takes_the_place_of_a_page(client: Client, fields: dict[str, Any]) -> None:
    conversation = client.conversation(said("user", 1))
    with pytest.raises(grpc.RpcError) as refusal:
        client.fitting(conversation, 100, **fields)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"'budget' or '{next(iter(fields))}'" in str(refusal.value.details())


def test_a_budget_of_nothing_is_refused(client: Client) -> None:
    conversation = client.conversation(said("user", 1))
    with pytest.raises(grpc.RpcError) as refusal:
        client.fitting(conversation, 0)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_conversation_that_is_not_there_has_nothing_that_fits(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        client.fitting("conv_1", 100)
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
