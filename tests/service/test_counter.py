"""What the counter remembers is true, whoever gives up, and however many count at once."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from convgrpc import ids
from convgrpc.service.counting import _CONVERSATION_WEIGHT, Counter
from convgrpc.service.predecessors import Predecessor
from convgrpc.store import lookups
from convgrpc.store.protocol import NewConversation, NewItem, Origin
from convgrpc.store.sqlite import SqliteStore
from convgrpc.tokens.families import Models
from convgrpc.v1.content_pb2 import ContentPart, InputText, Json
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import AdditionalTools, ConversationItem, Message, Role
from convgrpc.v1.tool_pb2 import FunctionTool, Tool

PROJECT = "default"
EMPTY = 2
EACH = 5
"""What a request of nothing counts, and one more message of one word."""


class Counted:
    """A counter over a store of its own."""

    def __init__(self, store: SqliteStore, max_items: int) -> None:
        self.store = store
        self.counter = Counter(store, Models(), max_items=max_items)

    async def conversation(self, *items: ConversationItem) -> str:
        conversation = ids.conversation_id()
        for item in items:
            item.id = ids.item_id("msg", conversation, time.time())
        new = [NewItem(item.id, item.SerializeToString(), Origin.MINTED) for item in items]
        await self.store.create_conversation(PROJECT, NewConversation(conversation, b"", {}), new, None)
        return conversation

    async def count(self, conversation: str | None, request: CountInputTokensRequest | None = None) -> int:
        asked = request or CountInputTokensRequest()
        (counted,) = await self.counter.count(asked, PROJECT, Predecessor(conversation, None), time.monotonic() + 60)
        return counted.input_tokens


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    counted = Counted(SqliteStore.open(tmp_path / "a.db"), max_items=10_000)
    with closing(counted.counter):
        yield counted
        asyncio.run(counted.store.close())


def said(text: str = "fern") -> ConversationItem:
    return ConversationItem(
        message=Message(role=Role.ROLE_USER, content=[ContentPart(input_text=InputText(text=text))])
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The items that were read from the store."""
    read: list[bytes] = []
    find = lookups.find_growth

    def noted(*arguments: Any, **options: Any) -> Any:
        growth = find(*arguments, **options)
        read.extend(growth.items)
        return growth

    monkeypatch.setattr("convgrpc.store.sqlite.find_growth", noted)
    return read


def test_a_count_that_is_given_up_anywhere_leaves_what_is_true(counted: Counted) -> None:
    """After any number of turns of the event loop."""

    async def check() -> None:
        for turns in range(12):
            conversation = await counted.conversation(*(said() for _ in range(450)))
            task = asyncio.create_task(counted.count(conversation))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await counted.count(conversation) == EMPTY + 450 * EACH

    asyncio.run(check())


def test_many_who_count_at_once_read_once(counted: Counted, read: list[bytes]) -> None:
    """Also what nobody counted before."""

    async def check() -> None:
        conversation = await counted.conversation(*(said() for _ in range(450)))
        assert set(await asyncio.gather(*(counted.count(conversation) for _ in range(10)))) == {EMPTY + 450 * EACH}
        assert len(read) == 450

    asyncio.run(check())


def test_conversations_of_nothing_are_forgotten_too(tmp_path: Path) -> None:
    """They are remembered at the cost of some items."""

    async def check() -> None:
        for _ in range(30):
            assert await few.count(await few.conversation()) == EMPTY
        assert len(few.counter._conversations._known) == 10
        await few.store.close()

    few = Counted(SqliteStore.open(tmp_path / "a.db"), max_items=10 * _CONVERSATION_WEIGHT)
    with closing(few.counter):
        asyncio.run(check())


DOUBLING = (
    '{"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {'
    + ", ".join(
        f'"d{n}": {{"type": "object", "properties": {{"a": {{"$ref": "#/$defs/d{n + 1}"}}, '
        f'"b": {{"$ref": "#/$defs/d{n + 1}"}}}}}}'
        for n in range(11)
    )
    + ', "d11": {"type": "string"}}}'
)
"""Little, of which much is made."""


@pytest.mark.parametrize("where", ["tools", "input", "stored"])
def test_little_that_grows_large_is_counted_beside_the_event_loop(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever it comes from."""
    tool = Tool(function=FunctionTool(name="f", parameters=Json(text=DOUBLING)))
    item = ConversationItem(additional_tools=AdditionalTools(role=Role.ROLE_DEVELOPER, tools=[tool]))
    request = CountInputTokensRequest()
    if where == "tools":
        request.tools.append(tool)
    elif where == "input":
        request.input.items.items.append(item)
    aside = 0
    run = counted.counter._aside

    async def noted(work: Any) -> Any:
        nonlocal aside
        aside += 1
        return await run(work)

    async def check() -> None:
        await counted.count(None)
        conversation = await counted.conversation(item) if where == "stored" else None
        monkeypatch.setattr(counted.counter, "_aside", noted)
        assert await counted.count(conversation, request) > 2**11
        assert aside == 1
        assert await counted.count(None) == EMPTY
        assert aside == 1

    asyncio.run(check())
