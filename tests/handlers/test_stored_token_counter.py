"""What the counter remembers is true, whoever gives up, and however many count at once."""

import asyncio
import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from convgrpc import ids
from convgrpc.errors import ResourceExhausted, overloaded
from convgrpc.handlers import stored_token_counter
from convgrpc.handlers.accounts import Account
from convgrpc.handlers.context import Context
from convgrpc.handlers.count_memory import HISTORY_WEIGHT
from convgrpc.handlers.input_context import InputContext
from convgrpc.handlers.stored_token_counter import _THREADS, StoredTokenCounter
from convgrpc.storage.interface import NewConversation, NewItem, NewResponse, Origin, Reference, ResponseItems
from convgrpc.storage.sqlite import queries
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.tokens.extraction import MAX_FILES, FileBudget
from convgrpc.tokens.families import Models
from convgrpc.v1.content_pb2 import ContentPart, InputFile, InputText, Json
from convgrpc.v1.input_tokens_service_pb2 import INPUT_PART_FILES, CountInputTokensRequest, Truncation
from convgrpc.v1.item_pb2 import AdditionalTools, ConversationItem, Message, Role
from convgrpc.v1.tool_pb2 import FunctionTool, Tool
from tests.tokens.test_files import pdf, shown

PROJECT = "default"
EMPTY = 2
EACH = 5
"""What a request of nothing counts, and one more message of one word."""


class Counted:
    """A counter over a store of its own."""

    def __init__(self, store: SqliteStore, max_items: int) -> None:
        self.store = store
        self.counter = StoredTokenCounter(store, Models(), max_items=max_items)

    async def conversation(self, *items: ConversationItem) -> str:
        conversation = ids.conversation_id()
        for item in items:
            item.id = ids.item_id("msg", conversation, time.time())
        new = [NewItem(item.id, item.SerializeToString(), Origin.MINTED) for item in items]
        await self.store.create_conversation(PROJECT, NewConversation(conversation, b"", {}), new, None)
        return conversation

    async def count(self, conversation: str | None, request: CountInputTokensRequest | None = None) -> int:
        asked = request or CountInputTokensRequest()
        context = Context(PROJECT, time.monotonic() + 60, asked.ByteSize())
        (counted,) = await self.counter.count(asked, context, InputContext(conversation, None))
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
    find = queries.find_growth

    def noted(*arguments: Any, **options: Any) -> Any:
        growth = find(*arguments, **options)
        read.extend(growth.items)
        return growth

    monkeypatch.setattr("convgrpc.storage.sqlite.store.find_growth", noted)
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
        assert len(few.counter._memory._projects[PROJECT].entries) == 10
        await few.store.close()

    few = Counted(SqliteStore.open(tmp_path / "a.db"), max_items=10 * HISTORY_WEIGHT)
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
    run = counted.counter._threads.run

    async def noted(project: str, work: Any) -> Any:
        nonlocal aside
        aside += 1
        return await run(project, work)

    async def check() -> None:
        await counted.count(None)
        conversation = await counted.conversation(item) if where == "stored" else None
        monkeypatch.setattr(counted.counter._threads, "run", noted)
        assert await counted.count(conversation, request) > 2**11
        assert aside == 1
        assert await counted.count(None) == EMPTY
        assert aside == 1

    asyncio.run(check())


def responses(number: int) -> list[NewResponse]:
    """As many responses, each with one message and following the one before it."""
    made = []
    for place in range(number):
        item = said()
        item.id = f"msg_{place}"
        items = [NewItem(item.id, item.SerializeToString(), Origin.MINTED)]
        made.append(NewResponse(f"resp_{place}", b"", f"resp_{place - 1}" if place else None, None, items, []))
    return made


@pytest.fixture
def segments_read(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the responses whose items were read from the store."""
    read: list[str] = []
    get = counted.store.get_segment

    async def noted(project: str, segment: ResponseItems, *arguments: Any, **options: Any) -> Any:
        read.append(segment.response_id)
        return await get(project, segment, *arguments, **options)

    monkeypatch.setattr(counted.store, "get_segment", noted)
    return read


async def count_chain(counted: Counted, response: str) -> int:
    context = Context(PROJECT, time.monotonic() + 60, 0)
    (found,) = await counted.counter.count(CountInputTokensRequest(), context, InputContext(None, response))
    return found.input_tokens


def test_chain_reads_each_response_once(counted: Counted, segments_read: list[str]) -> None:
    """A chain that was counted goes on from its last response, and takes the memory of one history."""

    async def check() -> None:
        for each in responses(200):
            await counted.store.record_response(PROJECT, each, None)
        assert set(await asyncio.gather(*(count_chain(counted, "resp_149") for _ in range(5)))) == {EMPTY + 150 * EACH}
        assert segments_read == [f"resp_{place}" for place in range(150)]
        segments_read.clear()
        counts = await asyncio.gather(*(count_chain(counted, f"resp_{place}") for place in range(150, 200)))
        assert sorted(counts) == [EMPTY + number * EACH for number in range(151, 201)]
        assert len(segments_read) <= 50 + 200
        segments_read.clear()
        assert await count_chain(counted, "resp_199") == EMPTY + 200 * EACH
        assert segments_read == []

    asyncio.run(check())


def test_count_of_a_chain_given_up_anywhere_leaves_the_truth(counted: Counted) -> None:
    """The next count is right after any number of turns of the event loop."""

    async def check() -> None:
        for each in responses(300):
            await counted.store.record_response(PROJECT, each, None)
        for turns in range(30):
            tip = 100 + turns * 5
            task = asyncio.create_task(count_chain(counted, f"resp_{tip}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await count_chain(counted, f"resp_{tip}") == EMPTY + (tip + 1) * EACH

    asyncio.run(check())


def test_chain_longer_than_allowed_is_refused(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused whether it is known or not."""
    monkeypatch.setattr(stored_token_counter, "MAX_CHAIN", 3)

    async def check() -> None:
        for each in responses(5):
            await counted.store.record_response(PROJECT, each, None)
        for tip in ("resp_4", "resp_3"):
            with pytest.raises(ResourceExhausted) as refused:
                await count_chain(counted, tip)
            assert refused.value.param == "previous_response_id"
        assert await count_chain(counted, "resp_2") == EMPTY + 3 * EACH
        with pytest.raises(ResourceExhausted):
            await count_chain(counted, "resp_3")

    asyncio.run(check())


class Charged(Account):
    """An account that notes the most that was held at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = self.most = 0

    def reserve_request_bytes(self, size: int) -> None:
        if self.held + size > self.limit:
            raise overloaded("bytes")
        self.held += size
        self.most = max(self.most, self.held)

    def release_request_bytes(self, size: int) -> None:
        self.held -= size

    def reserve_response_bytes(self, size: int) -> None:
        raise AssertionError


def referring(*items: str) -> CountInputTokensRequest:
    request = CountInputTokensRequest()
    for item in items:
        request.input.items.items.add(id=item).item_reference.SetInParent()
    return request


def test_referenced_items_are_charged_and_read_once(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is charged before its items are read. A second count reads nothing, and is not charged."""
    reads: list[int] = []
    read = counted.store.get_referenced

    async def noted(project: str, references: Sequence[Reference]) -> list[bytes]:
        reads.append(len(references))
        return await read(project, references)

    monkeypatch.setattr(counted.store, "get_referenced", noted)

    async def count(request: CountInputTokensRequest, account: Charged) -> int:
        context = Context(PROJECT, time.monotonic() + 60, request.ByteSize(), account)
        (found,) = await counted.counter.count(request, context, InputContext(None, None))
        return found.input_tokens

    async def check() -> None:
        items = [said("fern " * 100_000), said(), said("moss")]
        await counted.conversation(*items)
        request = referring(*(item.id for item in items), items[1].id)
        with pytest.raises(ResourceExhausted):
            await count(request, Charged(500_000))
        assert reads == []
        account = Charged(510_000)
        total = await count(request, account)
        assert total > 100_000
        assert (account.held, account.most > 500_000, sum(reads)) == (0, True, 3)
        assert await count(request, Charged(0)) == total
        assert sum(reads) == 3

    asyncio.run(check())


def test_thread_is_free_soon_after_its_call_has_ended(counted: Counted) -> None:
    """A long text without spaces is counted in steps. A call that ends stops them in less than a fifth of the time."""

    async def count(size: int) -> float:
        request = CountInputTokensRequest()
        request.input.text = "ab" * (size // 2)
        began = time.monotonic()
        await counted.count(None, request)
        return time.monotonic() - began

    async def check() -> None:
        await count(1000)
        whole = await count(5_000_000)
        task = asyncio.create_task(count(5_000_000))
        while len(counted.counter._threads._free) == _THREADS:
            await asyncio.sleep(0.001)
        await asyncio.sleep(whole / 10)
        task.cancel()
        began = time.monotonic()
        with suppress(asyncio.CancelledError):
            await task
        while len(counted.counter._threads._free) < _THREADS:
            await asyncio.sleep(0.001)
        assert time.monotonic() - began < whole / 5

    asyncio.run(check())


def test_files_that_were_not_read_are_not_remembered(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later call reads what an earlier one had no budget for."""
    part = InputFile(filename="a.pdf", file_data=base64.b64encode(pdf(shown("fern"))).decode())

    def with_files(number: int) -> ConversationItem:
        return ConversationItem(
            message=Message(role=Role.ROLE_USER, content=[ContentPart(input_file=part) for _ in range(number)])
        )

    async def check() -> None:
        conversation = await counted.conversation(with_files(3))
        items = [with_files(3), said()]
        await counted.conversation(*items)
        request = referring(*(item.id for item in items))
        whole = await counted.count(await counted.conversation(with_files(3)))
        monkeypatch.setattr(FileBudget.__init__, "__defaults__", (2, 15.0))
        partial = await counted.count(conversation)
        partly_referred = await counted.count(None, request)
        monkeypatch.undo()
        assert partial < whole
        assert await counted.count(conversation) == whole
        assert await counted.count(None, request) > partly_referred

    asyncio.run(check())


def test_models_of_a_request_count_files_alike(counted: Counted) -> None:
    """Each encoding has the whole budget, so that the order of models does not matter."""
    part = InputFile(filename="a.pdf", file_data=base64.b64encode(pdf(shown("fern"))).decode())
    request = CountInputTokensRequest(models=["gpt-4o", "gpt-4.1", "gpt-4-turbo"])
    content = [ContentPart(input_file=part) for _ in range(MAX_FILES * 3 // 4)]
    request.input.items.items.add(message=Message(role=Role.ROLE_USER, content=content))

    async def check() -> None:
        context = Context(PROJECT, time.monotonic() + 60, request.ByteSize())
        counts = await counted.counter.count(request, context, InputContext(None, None))
        files = [{part.part: part.input_tokens for part in each.parts}[INPUT_PART_FILES] for each in counts]
        assert len(set(files)) == 1

    asyncio.run(check())


def test_truncation_of_many_items_leaves_the_event_loop(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It adds up some items many times."""
    aside = 0
    run = counted.counter._threads.run

    async def noted(project: str, work: Any) -> Any:
        nonlocal aside
        aside += 1
        return await run(project, work)

    async def check() -> None:
        conversation = await counted.conversation(*(said() for _ in range(20)))
        whole = await counted.count(conversation)
        monkeypatch.setattr(counted.counter._threads, "run", noted)
        request = CountInputTokensRequest(truncation=Truncation.TRUNCATION_AUTO)
        assert await counted.count(conversation, request) == whole
        assert aside == 1

    asyncio.run(check())
