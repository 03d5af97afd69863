"""The token counts of stored items that are kept in memory."""

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from convgrpc.fairness.cache import FairCache
from convgrpc.storage.interface import ItemSlice, ResponseItems
from convgrpc.tokens.history import History
from convgrpc.tokens.items import ItemTokens

Key: TypeAlias = tuple[str, str | int, str]
"""A kind of thing, its id or number, and an encoding."""

HISTORY_WEIGHT = 40
"""The memory of an empty history, in items of a history."""
ITEM_WEIGHT = 8
"""The memory of an item that is kept alone."""


class KnownConversation:
    """The items of a conversation up to a position of the store's. Hold the lock while it is read or used."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.start_again()

    def start_again(self) -> None:
        self.history = History()
        self.position = 0
        self.removals = 0

    @property
    def weight(self) -> int:
        return HISTORY_WEIGHT + self.history.items.weight

    def add(self, items: Sequence[ItemTokens], growth: ItemSlice) -> None:
        """Adds items that were read of what the conversation has got since."""
        self.history.items.extend(items)
        self.position, self.removals = growth.position, growth.removals


class KnownChain:
    """The items of a response and of all that it follows, as far as they were read.

    Hold the lock while it is read or used.

    `tip` is the number of the response. `unread` are the segments that were not read yet, the newest first, and
    `position` is how far the last of them was read.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.history = History()
        self.tip = 0
        self.length = 0
        self.origin: ResponseItems | None = None
        self.removals = 0
        self.unread: list[ResponseItems] = []
        self.position = 0

    @property
    def weight(self) -> int:
        return HISTORY_WEIGHT + self.history.items.weight + 2 * len(self.unread)

    def follow(self, newer: Sequence[ResponseItems]) -> None:
        """Makes the newest of some segments the tip. They follow those that are known."""
        if not newer:
            return
        self.unread[:0] = newer
        self.tip = newer[0].number
        self.length += len(newer)
        self.origin = self.origin or newer[-1]

    def add(self, items: Sequence[ItemTokens], done: int, position: int, removals: int) -> None:
        """Adds items that were read: of `done` segments the last, and of the next one those up to a position."""
        self.history.items.extend(items)
        del self.unread[len(self.unread) - done :]
        self.position, self.removals = position, removals


CountMemory: TypeAlias = FairCache[KnownConversation | KnownChain | ItemTokens]
"""The counts of conversations, of chains of responses, and of referenced items. Weights are in items."""
