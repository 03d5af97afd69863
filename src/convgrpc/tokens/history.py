"""What is remembered of items that were read, of which there may be very many."""

import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from convgrpc.tokens.families import Resolved
from convgrpc.tokens.images import Rule
from convgrpc.tokens.items import ItemTokens, Turn
from convgrpc.tokens.tally import TokenAccumulator

_TURNS = tuple(Turn)
_TURN_BITS = 4
_USUAL = ItemTokens(Turn.USER, 0, "")[3:]
_UNUSUAL_WEIGHT = 7


class History:
    """Items that come before a request's own, in one encoding, and what they come to for each family of models.

    Items are only ever added. Several threads may ask for a tally.
    """

    def __init__(self) -> None:
        self.items = Items()
        self._lock = threading.Lock()
        self._tallies: dict[_Key, tuple[TokenAccumulator, int]] = {}

    def lag(self, model: Resolved, keeps_reasoning: bool) -> int:
        """How many items `tally` would have to add."""
        _, counted = self._tallies.get(_key(model, keeps_reasoning), (None, 0))
        return len(self.items) - counted

    def tally(
        self, model: Resolved, keeps_reasoning: bool, check: Callable[[], None] = lambda: None
    ) -> TokenAccumulator:
        """Returns the sum of all items. Only those are added that are new since the last time.

        `check` is called now and then, and may raise to give up.
        """
        key = _key(model, keeps_reasoning)
        with self._lock:
            # Whatever fails below leaves nothing behind that was added up in part.
            known = self._tallies.pop(key) if key in self._tallies else None
            tally, counted = known or (TokenAccumulator(model, keeps_reasoning), 0)
            length = len(self.items)
            tally.add_all(self.items.between(counted, length), check)
            self._tallies[key] = tally, length
            return tally.copy()


_Key: TypeAlias = tuple[str, Rule, bool]


def _key(model: Resolved, keeps_reasoning: bool) -> _Key:
    return model.family.name, model.images, keeps_reasoning


def weight(item: ItemTokens) -> int:
    """Returns how much memory an item takes, in items of a text and no more."""
    is_usual = item[3:] == _USUAL
    return 1 if is_usual else _UNUSUAL_WEIGHT + len(item.images) + len(item.files) + len(item.loaded)


class Items:
    """The features of items, oldest first. Of those that are a text and no more, they are kept in some 70 bytes each.

    `weight` says how much memory all take, in those.
    """

    def __init__(self) -> None:
        self.weight = 0
        self._usual = array("Q")
        self._unusual: dict[int, ItemTokens] = {}
        self._places = bytearray()
        self._ends = array("Q")

    def __len__(self) -> int:
        return len(self._usual)

    def __iter__(self) -> Iterator[ItemTokens]:
        return self.between(0, len(self))

    def __getitem__(self, number: int) -> ItemTokens:
        if item := self._unusual.get(number):
            return item
        start = self._ends[number - 1] if number else 0
        packed, place = self._usual[number], self._places[start : self._ends[number]].decode()
        return ItemTokens(_TURNS[packed % (1 << _TURN_BITS)], packed >> _TURN_BITS, place)

    def between(self, start: int, end: int) -> Iterator[ItemTokens]:
        return map(self.__getitem__, range(start, end))

    def extend(self, items: Iterable[ItemTokens]) -> None:
        for item in items:
            self.weight += weight(item)
            if item[3:] == _USUAL:
                self._places += item.place.encode()
            else:
                self._unusual[len(self)] = item
            self._ends.append(len(self._places))
            # At last: by this an item is known, maybe to other threads.
            self._usual.append(item.tokens << _TURN_BITS | item.turn)
