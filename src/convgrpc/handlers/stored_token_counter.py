"""Counts tokens for the service: large texts in threads, and the same text only once.

What a stored item counts, in an encoding, never changes. It is remembered, so that a count reads only what is new.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Self, TypeVar

from convgrpc.errors import NotFound, copies_too_large, lineage_too_long
from convgrpc.fairness.loop_turns import LoopTurns
from convgrpc.fairness.threads import FairThreads
from convgrpc.handlers.accounts import Account
from convgrpc.handlers.context import Context
from convgrpc.handlers.count_memory import ITEM_WEIGHT, CountMemory, Key, KnownChain, KnownConversation
from convgrpc.handlers.input_context import InputContext
from convgrpc.handlers.token_counter import Fitting, TokenCounter
from convgrpc.storage.interface import Reference, ResponseItems, Store
from convgrpc.tokens.count import count, given_features, keeps_reasoning
from convgrpc.tokens.encodings import Encoding, load_copies
from convgrpc.tokens.extraction import FileBudget, WarmProcesses
from convgrpc.tokens.families import DEFAULT, Models, Resolved
from convgrpc.tokens.fitting import BudgetWindow
from convgrpc.tokens.history import History, weight
from convgrpc.tokens.items import ItemTokens, stored_features
from convgrpc.tokens.models_file import read_models
from convgrpc.tokens.reading import CallLimits, Reader, WouldWait
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ModelTokenCount, Truncation

_THREADS = 4
"""The threads that count. A project has at most half of them."""
_LARGE = 1 << 14
"""The most bytes that are read on the event loop, for which others wait half a millisecond."""
_LONG = 1000
"""The most items that are added up on the event loop."""
_LONG_TRUNCATION = 10
"""The most items of which some are left out on the event loop."""

_MAX_REFERENCED_BYTES = 32 << 20
_REFERENCES_AT_ONCE = 100
MAX_CHAIN = 10_000
"""The most responses, each following the one before it, that are counted."""
_SEGMENTS_AT_ONCE = 50
_NO_TIP = -1

_PAGE_ITEMS = 500
_PAGE_BYTES = 1 << 18
_TAIL_ITEMS = 50

R = TypeVar("R")
T = TypeVar("T")


def load_models(path: str) -> Models:
    """The table of models, with what a file adds if there is one. Raises `BadModelsFile`, which is a ValueError."""
    return read_models(path) if path else Models()


class StoredTokenCounter(TokenCounter):
    """Counts requests, and remembers the counts of up to `max_items` stored items, most of which are texts.

    `close` it: it has threads and a process.
    """

    def __init__(self, store: Store, models: Models, *, max_items: int) -> None:
        self._store = store
        self._models = models
        self._threads = FairThreads(_THREADS, "counting")
        self._turns = LoopTurns()
        self._processes = WarmProcesses()
        self._encodings: dict[str, Encoding] = {}
        self._memory: CountMemory = CountMemory(max_items)

    def warm_up(self) -> None:
        """Loads what most requests need. This blocks for half a second. Raises `MissingRanks`."""
        load_copies(self._models.resolve(DEFAULT).family.encoding)

    def close(self) -> None:
        """Lets the threads end after the work that was begun, which ends soon."""
        self._threads.close()
        self._processes.close()

    async def count(
        self, request: CountInputTokensRequest, context: Context, before: InputContext
    ) -> list[ModelTokenCount]:
        given: dict[str, Sequence[ItemTokens]] = {}
        counts = []
        own = [request.model or DEFAULT] if request.HasField("model") or not request.models else []
        ids = list(dict.fromkeys(item.id for item in request.input.items.items if item.HasField("item_reference")))
        with _Call(context) as call:
            for name in [*own, *request.models]:
                model = self._models.resolve(name)
                encoding = await self._encoding(call, model.family.encoding)
                if encoding.name not in given:
                    # So that the models of a request do not depend on their order.
                    call.limits.files = FileBudget()
                referenced = await self._referenced(ids, call, encoding) if ids else {}
                async with self._history(call, before, encoding) as history:
                    is_much = context.size > _LARGE or _is_long(request, model, history)
                    work = partial(_count, request, model, history, referenced, given)
                    counted = await self._read(call, work, encoding, is_much=is_much)
                counted.model = name
                counts.append(counted)
        return counts

    async def fit(self, context: Context, conversation_id: str, model: str, tokens: int, *, max_bytes: int) -> Fitting:
        resolved = self._models.resolve(model or DEFAULT)
        with _Call(context) as call:
            encoding = await self._encoding(call, resolved.family.encoding)
            tail = BudgetWindow(resolved)
            has_more, position = True, None
            fetch = partial(self._store.read_after, context.project, conversation_id, descending=True)
            while has_more and tail.size <= max_bytes and await self._may_fit(call, tail, tokens):
                await self._turns.turn(context.project)
                growth = await fetch(position, limit=_TAIL_ITEMS, max_bytes=_LARGE)
                # The items are kept until the call ends.
                call.account.reserve_request_bytes(sum(map(len, growth.items)))
                for some in _slices(growth.items, _LARGE, len):
                    await self._read(call, partial(tail.add, some), encoding, is_much=_is_much(some))
                has_more, position = growth.has_more, growth.position
            is_longer = has_more
            # An output whose call was not read is kept only if the call is in an older item.
            unasked = tail.orphan_outputs()
            while has_more and unasked:
                await self._turns.turn(context.project)
                growth = await fetch(position, limit=_PAGE_ITEMS, max_bytes=_PAGE_BYTES)
                with _held(call.account, growth.items):
                    unasked -= await self._add_up(
                        call, partial(tail.scan_calls, growth.items), is_much=_is_much(growth.items)
                    )
                has_more, position = growth.has_more, growth.position
                call.limits.check()
            first = await self._add_up(call, partial(tail.fitting, tokens, max_bytes), is_much=len(tail.items) > _LONG)
        return Fitting(tail.items[first:], has_more=is_longer or first > 0)

    async def _may_fit(self, call: "_Call", tail: BudgetWindow, tokens: int) -> bool:
        return await self._add_up(call, partial(tail.may_fit, tokens), is_much=len(tail.items) > _LONG)

    async def _referenced(self, ids: Sequence[str], call: "_Call", encoding: Encoding) -> Mapping[str, ItemTokens]:
        """Returns the features of the stored items to which a request refers, by their ids."""
        found: dict[str, ItemTokens] = {}
        unknown: list[Reference] = []
        for start in range(0, len(ids), _REFERENCES_AT_ONCE):
            await self._turns.turn(call.project)
            references = await self._store.find_references(call.project, ids[start : start + _REFERENCES_AT_ONCE])
            for reference in references:
                known = self._memory.get(call.project, _item_key(reference, encoding))
                if isinstance(known, ItemTokens):
                    found[reference.item_id] = known
                else:
                    unknown.append(reference)
        size = sum(reference.size for reference in unknown)
        if size > _MAX_REFERENCED_BYTES:
            raise copies_too_large(_MAX_REFERENCED_BYTES, param="input")
        call.account.reserve_request_bytes(size)
        for some in _slices(unknown, _PAGE_BYTES, lambda reference: reference.size):
            items = await self._store.get_referenced(call.project, some)
            read = await self._read(call, partial(stored_features, items), encoding, is_much=_is_much(items))
            for reference, features in zip(some, read, strict=True):
                if not call.limits.is_partial:
                    total = ITEM_WEIGHT + weight(features)
                    self._memory.put(call.project, _item_key(reference, encoding), features, total)
                found[reference.item_id] = features
        call.account.release_request_bytes(size)
        return found

    def _history(self, call: "_Call", before: InputContext, encoding: Encoding) -> AbstractAsyncContextManager[History]:
        """All items that come before a request, for as long as nobody else adds to them."""
        if before.conversation_id is not None:
            return self._conversation(call, before.conversation_id, encoding)
        if before.response_id is not None:
            return self._chain(call, before.response_id, encoding)
        return nullcontext(History())

    @asynccontextmanager
    async def _conversation(self, call: "_Call", conversation_id: str, encoding: Encoding) -> AsyncIterator[History]:
        """The items of a conversation, from memory as far as they are known."""
        key = ("conversation", conversation_id, encoding.name)
        known = self._memory.get(call.project, key)
        if not isinstance(known, KnownConversation):
            known = KnownConversation()
            self._memory.put(call.project, key, known, known.weight)
        async with known.lock:
            weight = known.weight
            try:
                await self._read_growth(call, conversation_id, known, encoding)
            except NotFound:
                self._memory.forget(call.project, key)
                raise
            finally:
                # Unless it was forgotten meanwhile.
                if known.weight != weight and self._memory.get(call.project, key) is known:
                    self._memory.put(call.project, key, known, known.weight)
            try:
                yield known.history
            finally:
                if call.limits.is_partial:
                    known.start_again()

    async def _read_growth(
        self, call: "_Call", conversation_id: str, known: KnownConversation, encoding: Encoding
    ) -> None:
        """Reads what a conversation has got since it was counted."""
        has_more = True
        while has_more:
            growth = await self._store.read_after(
                call.project, conversation_id, known.position, limit=_PAGE_ITEMS, max_bytes=_PAGE_BYTES
            )
            if known.position and growth.removals != known.removals:
                known.start_again()
                continue
            # In one step, so that a call that ends here leaves a whole state.
            known.add(await self._read_stored(call, growth.items, encoding), growth)
            has_more = growth.has_more

    @asynccontextmanager
    async def _chain(self, call: "_Call", response_id: str, encoding: Encoding) -> AsyncIterator[History]:
        """The items of a response and of all that it follows, from memory as far as they are known."""
        while True:
            known, tip, newer = await self._find_chain(call, response_id, encoding)
            async with known.lock:
                if known.tip != tip:
                    # Another call changed the chain meanwhile.
                    continue
                if newer:
                    self._memory.forget(call.project, _chain_key(tip, encoding))
                    known.follow(newer)
                    self._remember(call, known, encoding)
                try:
                    is_current = await self._read_chain(call, known, encoding)
                except NotFound:
                    self._forget(call, known, encoding)
                    raise
                if is_current:
                    self._remember(call, known, encoding)
                    try:
                        yield known.history
                    finally:
                        if call.limits.is_partial:
                            self._forget(call, known, encoding)
                    return
                self._forget(call, known, encoding)

    async def _find_chain(
        self, call: "_Call", response_id: str, encoding: Encoding
    ) -> tuple[KnownChain, int, list[ResponseItems]]:
        """Finds the longest known part of a chain, its tip, and the segments that follow it, the newest first."""
        newer: list[ResponseItems] = []
        has_more = True
        while has_more:
            after = newer[-1] if newer else None
            lineage = await self._store.get_response_chain(
                call.project, response_id, after=after, limit=_SEGMENTS_AT_ONCE
            )
            for segment in lineage.segments:
                known = self._memory.get(call.project, _chain_key(segment.number, encoding))
                if isinstance(known, KnownChain):
                    _check_length(known.length + len(newer))
                    return known, segment.number, newer
                newer.append(segment)
            _check_length(len(newer))
            has_more = lineage.has_more
            await self._turns.turn(call.project)
        # Another call may have begun to read the same chain meanwhile.
        known = self._memory.get(call.project, _chain_key(newer[0].number, encoding))
        if not isinstance(known, KnownChain):
            known = KnownChain()
            known.follow(newer)
            self._remember(call, known, encoding)
        return known, known.tip, []

    def _remember(self, call: "_Call", known: KnownChain, encoding: Encoding) -> None:
        self._memory.put(call.project, _chain_key(known.tip, encoding), known, known.weight)

    def _forget(self, call: "_Call", known: KnownChain, encoding: Encoding) -> None:
        """Forgets a chain, and makes the calls that wait for it look for it again."""
        self._memory.forget(call.project, _chain_key(known.tip, encoding))
        known.tip = _NO_TIP

    async def _read_chain(self, call: "_Call", known: KnownChain, encoding: Encoding) -> bool:
        """Reads the segments that were not read yet. Returns False if items that were read have been removed since."""
        origin = known.origin
        if origin and origin.holder > 0 and origin not in known.unread:
            end = origin.last_position
            growth = await self._store.get_segment(call.project, origin, end, limit=1, max_bytes=_LARGE)
            if growth.removals != known.removals:
                return False
        while known.unread:
            if not await self._read_segments(call, known, encoding):
                return False
        return True

    async def _read_segments(self, call: "_Call", known: KnownChain, encoding: Encoding) -> bool:
        """Reads some of the segments that were not read yet, in the way of `_read_chain`."""
        await self._turns.turn(call.project)
        items: list[bytes] = []
        position, removals, done = known.position, known.removals, 0
        for segment in known.unread[: -_SEGMENTS_AT_ONCE - 1 : -1]:
            growth = await self._store.get_segment(
                call.project, segment, position, limit=_PAGE_ITEMS, max_bytes=_PAGE_BYTES
            )
            if segment is known.origin:
                if position and growth.removals != removals:
                    return False
                removals = growth.removals
            items += growth.items
            position = growth.position if growth.has_more else 0
            if growth.has_more:
                break
            done += 1
            if len(items) >= _PAGE_ITEMS or sum(map(len, items)) >= _PAGE_BYTES:
                break
        read = await self._read_stored(call, items, encoding)
        # In one step, so that a call that ends here leaves a whole state.
        known.add(read, done, position, removals)
        return True

    async def _read_stored(self, call: "_Call", items: Sequence[bytes], encoding: Encoding) -> list[ItemTokens]:
        if not items:
            return []
        with _held(call.account, items):
            return await self._read(call, partial(stored_features, items), encoding, is_much=_is_much(items))

    async def _read(self, call: "_Call", read: Callable[[Reader], R], encoding: Encoding, *, is_much: bool) -> R:
        """Reads in a thread what is much, or has files. The rest is read faster on the event loop, in turn with
        others.
        """
        if not is_much:
            await self._turns.turn(call.project)
            with suppress(WouldWait):
                return read(Reader(encoding, call.limits, may_wait=False))
        return await self._threads.run(call.project, partial(self._read_in_thread, call, read, encoding))

    def _read_in_thread(self, call: "_Call", read: Callable[[Reader], R], encoding: Encoding) -> R:
        other_thread = partial(self._threads.try_run, call.project)
        start = self._processes.take
        with Reader(encoding, call.limits, other_thread=other_thread, start_process=start) as reader:
            return read(reader)

    async def _encoding(self, call: "_Call", name: str) -> Encoding:
        if name not in self._encodings:
            self._encodings[name] = await self._threads.run(call.project, partial(_loaded, name))
        return self._encodings[name]

    async def _add_up(self, call: "_Call", work: Callable[[], R], *, is_much: bool) -> R:
        return await self._threads.run(call.project, work) if is_much else work()


class _Call:
    """A call, as a context. Its work in threads ends soon after the context."""

    def __init__(self, context: Context) -> None:
        self.project = context.project
        self.account = context.account
        self.limits = CallLimits(context.deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.limits.end()


def _loaded(name: str) -> Encoding:
    load_copies(name)
    return Encoding(name)


def _slices(things: Sequence[T], max_bytes: int, size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Yields as many things at a time as have no more than `max_bytes`. A larger thing comes alone."""
    first = total = 0
    for place, thing in enumerate(things):
        if total and total + size(thing) > max_bytes:
            yield things[first:place]
            first, total = place, 0
        total += size(thing)
    if things:
        yield things[first:]


@contextmanager
def _held(account: Account, items: Sequence[bytes]) -> Iterator[None]:
    """Charges a call for stored items while the context lasts, if they are many bytes. Raises `ResourceExhausted`."""
    size = sum(map(len, items))
    size = size if size > _PAGE_BYTES else 0
    account.reserve_request_bytes(size)
    try:
        yield
    finally:
        account.release_request_bytes(size)


def _item_key(reference: Reference, encoding: Encoding) -> Key:
    return "item", reference.position, encoding.name


def _chain_key(tip: int, encoding: Encoding) -> Key:
    return "chain", tip, encoding.name


def _check_length(length: int) -> None:
    if length > MAX_CHAIN:
        raise lineage_too_long(MAX_CHAIN)


def _is_much(items: Sequence[bytes]) -> bool:
    return sum(map(len, items)) > _LARGE


def _is_long(request: CountInputTokensRequest, model: Resolved, history: History) -> bool:
    """Tells whether adding up items takes long. Truncation adds up some items many times."""
    if request.truncation == Truncation.TRUNCATION_AUTO:
        return len(history.items) + len(request.input.items.items) > _LONG_TRUNCATION
    return history.lag(model, keeps_reasoning(request, model)) > _LONG


def _count(
    request: CountInputTokensRequest,
    model: Resolved,
    history: History,
    referenced: Mapping[str, ItemTokens],
    given: dict[str, Sequence[ItemTokens]],
    reader: Reader,
) -> ModelTokenCount:
    """Counts a request, reading its own items unless they are in `given`, by the names of encodings."""
    encoding = reader.encoding.name
    if encoding not in given:
        given[encoding] = given_features(request, reader, referenced)
    return count(request, model, reader, history, given[encoding])
