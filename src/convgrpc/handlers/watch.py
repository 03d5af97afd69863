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


class ReadSpec(NamedTuple):
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


class WatchHub:
    """Those of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subscriptions: dict[tuple[str, str], _Subscription] = {}
        self._turns = LoopTurns()
        # The batches that were read for several who watch.
        self._recent: FairCache[_Batch] = FairCache(_MAX_SHARED_BYTES)

    async def export(self, spec: ReadSpec) -> AsyncGenerator[Reply]:
        """What is there now."""
        position, last = await self._store.get_span(spec.project, spec.conversation_id, spec.after)
        while position < last:
            await self._turns.turn(spec.project)
            batch = await self._read(spec, position, last)
            if batch.is_empty:
                return
            yield batch.reply
            position = batch.position

    async def watch(self, spec: ReadSpec, *, new_only: bool) -> AsyncGenerator[Reply]:
        """What is there, unless new items alone are asked for, and then what comes, without end.

        The first message is there at once, and may be empty.
        """
        # Who listens before reading misses nothing.
        with self._subscribed(spec) as subscription:
            position, last = await self._store.get_span(spec.project, spec.conversation_id, spec.after)
            if new_only and spec.after is None:
                position = last
            has_begun = False
            while True:
                await self._turns.turn(spec.project)
                number = subscription.number
                batch = await self._shared(subscription, spec, position)
                if not (has_begun and batch.is_empty):
                    yield batch.reply
                has_begun, position = True, batch.position
                if not batch.has_more:
                    await subscription.wait_for_change(number)

    @contextmanager
    def _subscribed(self, spec: ReadSpec) -> Iterator["_Subscription"]:
        key = spec.project, spec.conversation_id
        subscription = self._subscriptions.get(key)
        if subscription is None:
            subscription = _Subscription()
            subscription.stack.enter_context(self._store.subscribe(*key, subscription.notify))
            self._subscriptions[key] = subscription
        subscription.watchers += 1
        try:
            yield subscription
        finally:
            subscription.watchers -= 1
            if not subscription.watchers:
                subscription.stack.close()
                del self._subscriptions[key]

    async def _shared(self, subscription: "_Subscription", spec: ReadSpec, position: int) -> _Batch:
        """What `_read` returns, or returned for another since the conversation changed."""
        if subscription.watchers == 1:
            return await self._read(spec, position)
        key = subscription, subscription.number, position, spec.include
        batch = self._recent.get(spec.project, key)
        if batch is None:
            batch = await self._read(spec, position)
            self._recent.put(spec.project, key, batch, _BATCH_BYTES + len(batch.reply.data))
        return batch

    async def _read(self, spec: ReadSpec, position: int, last: int | None = None) -> _Batch:
        growth = await self._store.read_after(
            spec.project, spec.conversation_id, position, last=last, limit=_MAX_ITEMS, max_bytes=_MAX_BYTES
        )
        items = growth.items if spec.include is None else [_shown(data, spec.include) for data in growth.items]
        cursor = self._store.cursor(spec.conversation_id, growth.position)
        rest = ConversationItemBatch(cursor=cursor, has_more=growth.has_more)
        reply = Reply(wire.joined(_DATA, items) + rest.SerializeToString())
        return _Batch(reply, growth.position, not items, growth.has_more)


class _Subscription:
    """A conversation that is watched. `number` is how many times it changed meanwhile."""

    def __init__(self) -> None:
        self.number = 0
        self.watchers = 0
        self.stack = ExitStack()
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Tells of a change."""
        self.number += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for_change(self, number: int) -> None:
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
