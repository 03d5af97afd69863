"""Counts tokens for the service: beside the event loop where there is much to read, and the same text only once.

What a stored item counts, in an encoding, never changes: it is remembered, so that a conversation which was counted
before is counted by what it has got since.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeAlias, TypeVar

from convgrpc.errors import NotFound
from convgrpc.service.counts import Counts, Fitting
from convgrpc.service.predecessors import Predecessor
from convgrpc.store.protocol import Growth, Store
from convgrpc.tokens.count import count, given_features, keeps_reasoning
from convgrpc.tokens.encodings import Encoding, load_copies
from convgrpc.tokens.families import DEFAULT, Models, Resolved
from convgrpc.tokens.fitting import Tail
from convgrpc.tokens.history import History
from convgrpc.tokens.items import Features, stored_features
from convgrpc.tokens.models_file import read_models
from convgrpc.tokens.reading import Reader, WouldWait
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ModelTokenCount, Truncation

_WORKERS = 2
_LARGE = 1 << 14
"""How many bytes are read on the event loop: others wait half a millisecond for them."""
_LONG = 1000
"""How many items are added up on the event loop."""

_CONVERSATION_WEIGHT = 40
"""How many items take as much memory as what is around those of a conversation."""

_PAGE_ITEMS = 500
_PAGE_BYTES = 1 << 18
_TAIL_ITEMS = 50

R = TypeVar("R")
_Key: TypeAlias = tuple[str, str | int, str]
"""A project, the id of a conversation or the number of a response, and an encoding."""
_Fetch: TypeAlias = Callable[..., Awaitable[Growth]]


def load_models(path: str) -> Models:
    """The table of models, with what a file adds if there is one. Raises `BadModelsFile`, which is a ValueError."""
    return read_models(path) if path else Models()


class Counter(Counts):
    """Counts requests, remembering what up to `max_items` stored items count, most of which are texts.

    `close` it: it has threads.
    """

    def __init__(self, store: Store, models: Models, *, max_items: int) -> None:
        self._store = store
        self._models = models
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="counting")
        self._encodings: dict[str, Encoding] = {}
        self._conversations = _Conversations(max_items)

    def warm_up(self) -> None:
        """Loads what most requests need. This blocks for half a second. Raises `MissingRanks`."""
        self._workers.submit(load_copies, self._models.resolve(DEFAULT).family.encoding).result()

    def close(self) -> None:
        """Lets the threads end, once they are done with what they are at."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def count(
        self, request: CountInputTokensRequest, project: str, before: Predecessor, deadline: float
    ) -> list[ModelTokenCount]:
        given: dict[str, Sequence[Features]] = {}
        counts = []
        own = [request.model or DEFAULT] if request.HasField("model") or not request.models else []
        for name in [*own, *request.models]:
            model = self._models.resolve(name)
            encoding = await self._encoding(model.family.encoding)
            async with self._history(project, before, encoding, deadline) as history:
                is_much = request.ByteSize() > _LARGE or _additions(request, model, history) > _LONG
                work = partial(_count, request, model, history, given)
                counted = await self._read(work, encoding, deadline, is_much=is_much)
            counted.model = name
            counts.append(counted)
        return counts

    async def fit(
        self, project: str, conversation_id: str, model: str, tokens: int, deadline: float, *, max_bytes: int
    ) -> Fitting:
        resolved = self._models.resolve(model or DEFAULT)
        encoding = await self._encoding(resolved.family.encoding)
        tail = Tail(resolved)
        has_more, position = True, None
        fetch = partial(self._store.get_growth, project, conversation_id, descending=True)
        while has_more and tail.size <= max_bytes and await self._may_fit(tail, tokens):
            growth = await fetch(position, limit=_TAIL_ITEMS, max_bytes=_LARGE)
            for some in _slices(growth.items, _LARGE):
                await self._read(partial(tail.add, some), encoding, deadline, is_much=_is_much(some))
            has_more, position = growth.has_more, growth.position
        is_longer = has_more
        # Where an answer has no call among what was read, it decides whether there is one at all.
        unasked = tail.unasked()
        while has_more and unasked:
            growth = await fetch(position, limit=_PAGE_ITEMS, max_bytes=_PAGE_BYTES)
            unasked -= tail.look(growth.items)
            has_more, position = growth.has_more, growth.position
            await asyncio.sleep(0)
        work = partial(tail.fitting, tokens, max_bytes)
        first = await self._aside(work) if len(tail.items) > _LONG else work()
        return Fitting(tail.items[first:], has_more=is_longer or first > 0)

    async def _may_fit(self, tail: Tail, tokens: int) -> bool:
        work = partial(tail.may_fit, tokens)
        return await self._aside(work) if len(tail.items) > _LONG else work()

    @asynccontextmanager
    async def _history(
        self, project: str, before: Predecessor, encoding: Encoding, deadline: float
    ) -> AsyncIterator[History]:
        """All items that come before a request, for as long as nobody else adds to them."""
        if before.conversation_id is not None:
            fetch = partial(self._store.get_growth, project, before.conversation_id)
            async with self._caught_up(
                (project, before.conversation_id, encoding.name), fetch, encoding, deadline
            ) as known:
                yield known
            return
        history = History()
        if before.response_id is not None:
            for segment in await self._store.get_lineage(project, before.response_id):
                fetch = partial(self._store.get_segment, segment)
                async with self._caught_up(
                    (project, segment.number, encoding.name), fetch, encoding, deadline
                ) as known:
                    history.items.extend(known.items)
        yield history

    @asynccontextmanager
    async def _caught_up(self, key: _Key, fetch: _Fetch, encoding: Encoding, deadline: float) -> AsyncIterator[History]:
        """What is remembered of a conversation or a response, with what it has got since."""
        conversation = self._conversations.get(key)
        async with conversation.lock:
            try:
                await self._catch_up(conversation, fetch, encoding, deadline)
            except NotFound:
                self._conversations.forget(key)
                raise
            finally:
                self._conversations.weigh(key, conversation)
            yield conversation.history

    async def _catch_up(
        self, conversation: "_Conversation", fetch: _Fetch, encoding: Encoding, deadline: float
    ) -> None:
        has_more = True
        while has_more:
            growth = await fetch(conversation.position, limit=_PAGE_ITEMS, max_bytes=_PAGE_BYTES)
            if conversation.position and growth.removals != conversation.removals:
                conversation.start_again()
                continue
            some = partial(stored_features, growth.items)
            read = await self._read(some, encoding, deadline, is_much=_is_much(growth.items))
            # All at once: whoever gives up leaves behind what is true.
            conversation.add(read, growth)
            has_more = growth.has_more

    async def _read(self, read: Callable[[Reader], R], encoding: Encoding, deadline: float, *, is_much: bool) -> R:
        """Reads beside the event loop what is much, or has files; the rest is read faster on it, in turn with
        others.
        """
        if not is_much:
            await asyncio.sleep(0)
            with suppress(WouldWait):
                return read(Reader(encoding, deadline=deadline, may_wait=False))
        return await self._aside(lambda: read(Reader(encoding, deadline=deadline, threads=self._workers)))

    async def _encoding(self, name: str) -> Encoding:
        if name not in self._encodings:
            self._encodings[name] = await self._aside(partial(_loaded, name))
        return self._encodings[name]

    async def _aside(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)


def _loaded(name: str) -> Encoding:
    load_copies(name)
    return Encoding(name)


def _slices(items: Sequence[bytes], max_bytes: int) -> Iterator[Sequence[bytes]]:
    """Items, so many at a time as have no more than `max_bytes`; one that is larger comes alone."""
    first = size = 0
    for place, item in enumerate(items):
        if size and size + len(item) > max_bytes:
            yield items[first:place]
            first, size = place, 0
        size += len(item)
    if items:
        yield items[first:]


def _is_much(items: Sequence[bytes]) -> bool:
    return sum(map(len, items)) > _LARGE


def _additions(request: CountInputTokensRequest, model: Resolved, history: History) -> int:
    """How many stored items there are to add up, unless there is nothing to leave out."""
    if request.truncation == Truncation.TRUNCATION_AUTO:
        return len(history.items)
    return history.lag(model, keeps_reasoning(request, model))


def _count(
    request: CountInputTokensRequest,
    model: Resolved,
    history: History,
    given: dict[str, Sequence[Features]],
    reader: Reader,
) -> ModelTokenCount:
    """Counts a request, reading its own items unless they are in `given`, by the names of encodings."""
    encoding = reader.encoding.name
    if encoding not in given:
        given[encoding] = given_features(request, reader)
    return count(request, model, reader, history, given[encoding])


class _Conversation:
    """What is remembered of a conversation, up to a position of the store's."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.start_again()

    def start_again(self) -> None:
        self.history = History()
        self.position = 0
        self.removals = 0

    @property
    def weight(self) -> int:
        return _CONVERSATION_WEIGHT + self.history.items.weight

    def add(self, items: Sequence[Features], growth: Growth) -> None:
        """Remembers items which were read of what the conversation has got."""
        self.history.items.extend(items)
        self.position, self.removals = growth.position, growth.removals


class _Conversations:
    """The conversations that were counted last, as many as have `max_items` items together."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._known: OrderedDict[_Key, _Conversation] = OrderedDict()
        self._weights: dict[_Key, int] = {}
        self._total = 0

    def get(self, key: _Key) -> _Conversation:
        """What is known of a conversation, which becomes the last that was counted; the same for all who count it."""
        conversation = self._known.setdefault(key, _Conversation())
        self.weigh(key, conversation)
        return conversation

    def weigh(self, key: _Key, conversation: _Conversation) -> None:
        """Notes how much is known of a conversation, and forgets those counted long ago for which there is no room."""
        if self._known.get(key) is not conversation:
            return
        self._known.move_to_end(key)
        self._total += conversation.weight - self._weights.get(key, 0)
        self._weights[key] = conversation.weight
        while self._total > self._max_items and self._known:
            self.forget(next(iter(self._known)))

    def forget(self, key: _Key) -> None:
        if self._known.pop(key, None):
            self._total -= self._weights.pop(key)
