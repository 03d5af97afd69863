"""The cost of every RPC: what is charged to its project before the work is done, and which fields can cause work.

A new RPC, and a new field of a request, needs an entry here. `bytes of the request` are charged for all by the
transports, as they arrive.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message

from convgrpc.contract.decoder import decode
from convgrpc.contract.methods import Method, methods
from convgrpc.errors import ResourceExhausted, overloaded
from convgrpc.handlers import conversations, input_tokens, responses
from convgrpc.handlers.accounts import UNBOUNDED, Account
from convgrpc.handlers.context import Context
from convgrpc.handlers.conversations import ConversationsService
from convgrpc.handlers.input_tokens import InputTokensService
from convgrpc.handlers.message_work import MessageWork
from convgrpc.handlers.responses import ResponsesService
from convgrpc.handlers.stored_token_counter import StoredTokenCounter
from convgrpc.server.pipeline import bind_handlers
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.tokens.families import Models
from convgrpc.v1.conversations_service_pb2 import ConversationItemList, ConversationList, ListItemsRequest, TokenBudget
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem

METHODS = {each.name: each for each in methods([conversations.SERVICE, input_tokens.SERVICE, responses.SERVICE])}
LARGE = 1 << 20
"""The bytes of the stored item that requests name."""
TEXT = "fern " * (LARGE // 5)


class Names(NamedTuple):
    """Ids of stored things: a conversation with the large item, an empty one, the item, and a response that read the item."""

    conversation: str
    empty: str
    item: str
    response: str


Request = Callable[[Names], Mapping[str, Any] | Message]


class Cost(NamedTuple):
    """A request that names a large item, and what is charged for that: bytes held and reserved, in items.

    `names` are the fields that name something stored.
    """

    request: Request
    names: frozenset[str]
    held: int = 0
    reserved: int = 0


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def said(text: str = "moss") -> dict[str, str]:
    return {"type": "message", "role": "user", "content": text}


def reference(item: str) -> dict[str, str]:
    return {"type": "item_reference", "id": item}


CONVERSATION = names("conversation_id")

COSTS: Mapping[str, Cost] = {
    "CreateConversation": Cost(lambda ids: {"items": [reference(ids.item)]}, names("items"), held=1),
    "GetConversation": Cost(lambda ids: {"conversation_id": ids.conversation}, CONVERSATION),
    "UpdateConversation": Cost(lambda ids: {"conversation_id": ids.conversation, "metadata": {}}, CONVERSATION),
    "DeleteConversation": Cost(lambda ids: {"conversation_id": ids.conversation}, CONVERSATION),
    # At most 1,000 conversations are looked at for a page, some at a time.
    "ListConversations": Cost(lambda ids: {"metadata": {"a": "b"}}, names("after metadata limit")),
    "CreateItems": Cost(
        lambda ids: {"conversation_id": ids.empty, "items": [said(), reference(ids.item)]},
        names("conversation_id items expected_last_item_id"),
        held=1,
        reserved=1,
    ),
    "ListItems": Cost(
        lambda ids: {"conversation_id": ids.conversation}, names("conversation_id after limit budget"), reserved=1
    ),
    "GetItem": Cost(
        lambda ids: {"conversation_id": ids.conversation, "item_id": ids.item},
        names("conversation_id item_id"),
        reserved=1,
    ),
    "BatchGetItems": Cost(
        lambda ids: {"conversation_id": ids.conversation, "item_ids": [ids.item]},
        names("conversation_id item_ids"),
        reserved=1,
    ),
    "DeleteItem": Cost(
        lambda ids: {"conversation_id": ids.conversation, "item_id": ids.item}, names("conversation_id item_id")
    ),
    # The copies are counted towards the project's bytes. A fork has a commit of its own.
    "ForkConversation": Cost(lambda ids: {"conversation_id": ids.conversation}, names("conversation_id last_item_id")),
    # The messages of streams take their room one by one, in the transports. What is copied waits in the write queue,
    # by its bytes.
    "AppendItems": Cost(
        lambda ids: {"conversation_id": ids.conversation, "items": [said()]},
        names("conversation_id items expected_last_item_id"),
    ),
    "ExportItems": Cost(lambda ids: {"conversation_id": ids.conversation}, names("conversation_id after")),
    "WatchItems": Cost(lambda ids: {"conversation_id": ids.conversation}, names("conversation_id after")),
    "CountInputTokens": Cost(
        lambda ids: {"input": [reference(ids.item)]}, names("input conversation previous_response_id"), held=1
    ),
    "RecordResponse": Cost(
        lambda ids: {"input": [said()], "output": [reference(ids.item)]},
        names("input output conversation previous_response_id"),
        held=1,
    ),
    "GetResponse": Cost(lambda ids: {"response_id": ids.response}, names("response_id")),
    "DeleteResponse": Cost(lambda ids: {"response_id": ids.response}, names("response_id")),
}


def within_budget(ids: Names) -> Message:
    return ListItemsRequest(conversation_id=ids.conversation, budget=TokenBudget(input_tokens=10**6))


def for_two_models(ids: Names) -> Message:
    """Each encoding reads the item once."""
    request = decode(CountInputTokensRequest, {"input": [reference(ids.item)]})
    request.models.extend(["gpt-4o", "gpt-4"])
    return request


MORE: list[tuple[str, Request, int, int]] = [
    ("ListItems", within_budget, 1, 1),
    ("CountInputTokens", lambda ids: {"conversation": ids.conversation}, 1, 0),
    ("CountInputTokens", lambda ids: {"previous_response_id": ids.response}, 1, 0),
    ("CountInputTokens", for_two_models, 2, 0),
    ("RecordResponse", lambda ids: {"input": [reference(ids.item)], "output": [said()]}, 1, 0),
    # The same id with other content stands for the stored item too.
    (
        "CreateItems",
        lambda ids: {"conversation_id": ids.empty, "items": [{**said(), "id": ids.item}]},
        1,
        1,
    ),
]
"""Other ways to name stored bytes."""

OWN = names(
    """
    metadata request_id include limit order new_only model instructions tools tool_choice parallel_tool_calls reasoning
    text truncation personality models response_id
    """
)
"""Fields that name nothing stored: their cost is that of the request's own bytes."""


def test_every_rpc_has_a_cost() -> None:
    assert COSTS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_field_of_a_request_has_a_cost(method: Method) -> None:
    fields = {field.name for field in method.request.DESCRIPTOR.fields}
    unknown = fields - OWN - COSTS[method.name].names
    assert not unknown, f"say in COSTS what {unknown} can name, and what is charged for it"
    assert COSTS[method.name].names <= fields


class Charges(Account):
    """Notes what is charged, and refuses what is more than a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = self.reserved = 0

    def reserve_request_bytes(self, size: int) -> None:
        self._check(size)
        self.held += size

    def release_request_bytes(self, size: int) -> None:
        """Is not noted: what counts is that it was held."""

    def reserve_response_bytes(self, size: int) -> None:
        self._check(size)
        self.reserved += size

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise overloaded("bytes")


class Served:
    """The handlers of all RPCs over a store, with something stored."""

    def __init__(self, store: SqliteStore, counter: StoredTokenCounter) -> None:
        self.store = store
        self._handlers = {
            **bind_handlers(conversations.SERVICE, ConversationsService(store, counter, MessageWork())),
            **bind_handlers(input_tokens.SERVICE, InputTokensService(counter)),
            **bind_handlers(responses.SERVICE, ResponsesService(store, MessageWork())),
        }

    async def call(self, name: str, body: Mapping[str, Any] | Message, account: Account = UNBOUNDED) -> Any:
        method = METHODS[name]
        request = body if isinstance(body, Message) else decode(method.request, body)
        handle = self._handlers[method.path]
        context = Context("default", time.monotonic() + 60, request.ByteSize(), account)
        if method.takes_stream:
            batches = handle("default")
            batches.accept(batches.prepare(request))
            return await batches.run_batch(context.deadline)
        if method.returns_stream:
            async with aclosing(handle(request, context)) as replies:
                return await anext(replies)
        return await handle(request, context)

    async def items(self, conversation: str) -> list[ConversationItem]:
        listed = await self.call("ListItems", {"conversation_id": conversation})
        return list(ConversationItemList.FromString(listed.SerializeToString()).data)

    async def store_names(self) -> Names:
        full = await self.call("CreateConversation", {"items": [said(TEXT)]})
        empty = await self.call("CreateConversation", {})
        item = (await self.items(full.id))[0].id
        response = await self.call("RecordResponse", {"input": [reference(item)], "output": [said()]})
        return Names(full.id, empty.id, item, response.id)


def run(tmp_path: Path, scenario: Callable[[Served, Names], Awaitable[None]]) -> None:
    async def check() -> None:
        store = SqliteStore.open(tmp_path / "a.db")
        with closing(StoredTokenCounter(store, Models(), max_items=1000)) as counter:
            served = Served(store, counter)
            await scenario(served, await served.store_names())
        await store.close()

    asyncio.run(check())


def test_repeat_is_charged_for_what_it_answers(tmp_path: Path) -> None:
    """A repeated request answers what its references stood for at first, whatever they stand for now."""

    async def scenario(served: Served, ids: Names) -> None:
        async def append(conversation: str, item: Mapping[str, str], account: Account = UNBOUNDED, **keys: str) -> Any:
            request = {"conversation_id": conversation, "items": [item], **keys}
            return await served.call("CreateItems", request, account)

        third = await served.call("CreateConversation", {})
        await append(ids.conversation, {**said(TEXT), "id": "msg_own"})
        first = await append(ids.empty, reference("msg_own"), request_id="r")
        await append(third.id, {**said("moss"), "id": "msg_own"})
        with pytest.raises(ResourceExhausted):
            await append(ids.empty, reference("msg_own"), Charges(LARGE // 2), request_id="r")
        charges = Charges(2 * LARGE)
        repeated = await append(ids.empty, reference("msg_own"), charges, request_id="r")
        assert repeated.SerializeToString() == first.SerializeToString()
        assert (round(charges.held / LARGE), round(charges.reserved / LARGE)) == (1, 1)

    run(tmp_path, scenario)


ALL = [*((name, cost.request, cost.held, cost.reserved) for name, cost in COSTS.items()), *MORE]


@pytest.mark.parametrize(("name", "request_of", "held", "reserved"), ALL, ids=[each[0] for each in ALL])
def test_stored_bytes_are_charged(tmp_path: Path, name: str, request_of: Request, held: int, reserved: int) -> None:
    """The item that a request names is charged once, and once more if the answer has it."""

    async def scenario(served: Served, ids: Names) -> None:
        charges = Charges(2 * LARGE)
        await served.call(name, request_of(ids), charges)
        assert (round(charges.held / LARGE), round(charges.reserved / LARGE)) == (held, reserved)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("name", "request_of"), [each[:2] for each in ALL if any(each[2:])], ids=[each[0] for each in ALL if any(each[2:])]
)
def test_call_is_refused_where_there_is_no_room_and_nothing_is_stored(
    tmp_path: Path, name: str, request_of: Request
) -> None:
    async def scenario(served: Served, ids: Names) -> None:
        with pytest.raises(ResourceExhausted) as refused:
            await served.call(name, request_of(ids), Charges(LARGE // 2))
        assert refused.value.retry_after
        assert await served.items(ids.empty) == []
        listed = await served.call("ListConversations", {})
        assert len(ConversationList.FromString(listed.SerializeToString()).data) == 2

    run(tmp_path, scenario)
