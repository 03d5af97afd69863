"""What conversations have, in batches, for those who export and those who watch them.

Those who watch one conversation share what is read of it and what is made of that: a thousand of them cost little more
than one. Nothing waits for one who is slow: it goes on reading from where it is.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, TypeAlias

from convgrpc.contract import wire
from convgrpc.contract.includes import hide
from convgrpc.fairness.cache import FairCache
from convgrpc.fairness.loop_turns import LoopTurns
from convgrpc.handlers.message_work import LARGE
from convgrpc.handlers.reply import Reply
from convgrpc.storage.interface import Store
from convgrpc.v1.conversations_service_pb2 import ConversationItemBatch
from convgrpc.v1.item_pb2 import ConversationItem

_MAX_ITEMS = 100
# So that a batch is made on the event loop: its cursor, and a few bytes for each item, come on top.
_MAX_BYTES = LARGE - 4096
_MAX_SHARED_BYTES = 8 << 20
_BATCH_BYTES = 1024
"""How many bytes count for a batch beside its items."""
_DATA = ConversationItemBatch.DESCRIPTOR.fields_by_name["data"]

Include: TypeAlias = frozenset[str] | None
"""The words by which a caller asked for fields that are shown on request alone; None where all are shown."""


class Part(NamedTuple):
    """What to read: the items of a conversation after a cursor or an item, with what is shown of them."""

    project: str
    conversation_id: str
    after: str | None
    include: Include


class _Batch(NamedTuple):
    reply: Reply
    position: int
    is_empty: bool
    has_more: bool


class Feeds:
    """Those of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[tuple[str, str], _Feed] = {}
        self._turns = LoopTurns()
        # The batches that were read for several who watch.
        self._recent: FairCache[_Batch] = FairCache(_MAX_SHARED_BYTES)

    async def export(self, part: Part) -> AsyncGenerator[Reply]:
        """What is there now."""
        position, last = await self._store.get_span(part.project, part.conversation_id, part.after)
        while position < last:
            await self._turns.turn(part.project)
            batch = await self._read(part, position, last)
            if batch.is_empty:
                return
            yield batch.reply
            position = batch.position

    async def watch(self, part: Part, *, new_only: bool) -> AsyncGenerator[Reply]:
        """What is there, unless new items alone are asked for, and then what comes, without end.

        The first message is there at once, and may be empty.
        """
        # Who listens before reading misses nothing.
        with self._feed(part) as feed:
            position, last = await self._store.get_span(part.project, part.conversation_id, part.after)
            if new_only and part.after is None:
                position = last
            has_begun = False
            while True:
                await self._turns.turn(part.project)
                number = feed.number
                batch = await self._shared(feed, part, position)
                if not (has_begun and batch.is_empty):
                    yield batch.reply
                has_begun, position = True, batch.position
                if not batch.has_more:
                    await feed.changed(number)

    @contextmanager
    def _feed(self, part: Part) -> Iterator["_Feed"]:
        key = part.project, part.conversation_id
        feed = self._feeds.get(key)
        if feed is None:
            feed = _Feed()
            feed.stack.enter_context(self._store.listening(*key, feed.tell))
            self._feeds[key] = feed
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                feed.stack.close()
                del self._feeds[key]

    async def _shared(self, feed: "_Feed", part: Part, position: int) -> _Batch:
        """What `_read` returns, or returned for another since the conversation changed."""
        if feed.watchers == 1:
            return await self._read(part, position)
        key = feed, feed.number, position, part.include
        batch = self._recent.get(part.project, key)
        if batch is None:
            batch = await self._read(part, position)
            self._recent.put(part.project, key, batch, _BATCH_BYTES + len(batch.reply.data))
        return batch

    async def _read(self, part: Part, position: int, last: int | None = None) -> _Batch:
        growth = await self._store.get_growth(
            part.project, part.conversation_id, position, last=last, limit=_MAX_ITEMS, max_bytes=_MAX_BYTES
        )
        items = growth.items if part.include is None else [_shown(data, part.include) for data in growth.items]
        cursor = self._store.cursor(part.conversation_id, growth.position)
        rest = ConversationItemBatch(cursor=cursor, has_more=growth.has_more)
        reply = Reply(wire.joined(_DATA, items) + rest.SerializeToString())
        return _Batch(reply, growth.position, not items, growth.has_more)


class _Feed:
    """A conversation that is watched. `number` is how many times it changed meanwhile."""

    def __init__(self) -> None:
        self.number = 0
        self.watchers = 0
        self.stack = ExitStack()
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        """Tells of a change."""
        self.number += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed(self, number: int) -> None:
        """Waits for a change after so many of them."""
        if self.number == number:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)


def _shown(data: bytes, include: Collection[str]) -> bytes:
    item = ConversationItem.FromString(data)
    hide(item, "kind", include)
    return item.SerializeToString()
