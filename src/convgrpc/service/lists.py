"""Lists of items that were given, to be given again for as long as the conversation is as it was."""

from collections import OrderedDict
from typing import NamedTuple

from convgrpc.contract.stored import StoredList
from convgrpc.service.chain import LARGE
from convgrpc.store.protocol import Version

_MOST, _LARGEST = 4 << 20, LARGE
"""How many bytes of lists are kept, and of which size one may be: those that are written on the event loop. Each is
there up to three times: as its items, and as what each transport sends, where JSON may be six times as long.
"""
_LIST_BYTES = 5 << 10
"""What each takes beside."""


class Asked(NamedTuple):
    """Which items are asked for, and of which project."""

    project: str
    conversation_id: str
    after: str | None
    limit: int
    descending: bool


class Given(NamedTuple):
    """A list, and the version of the conversation of which it is."""

    version: Version
    items: StoredList


class Lists:
    """The lists that were asked for last."""

    def __init__(self) -> None:
        self._given: OrderedDict[Asked, Given] = OrderedDict()
        self._size = 0

    def find(self, asked: Asked) -> Given | None:
        """What was given last time. It may be out of date."""
        given = self._given.get(asked)
        if given:
            self._given.move_to_end(asked)
        return given

    def keep(self, asked: Asked, given: Given) -> None:
        if earlier := self._given.pop(asked, None):
            self._size -= _size(earlier)
        if given.items.ByteSize() > _LARGEST:
            return
        self._given[asked] = given
        self._size += _size(given)
        while self._size > _MOST:
            _, oldest = self._given.popitem(last=False)
            self._size -= _size(oldest)


def _size(given: Given) -> int:
    return _LIST_BYTES + given.items.ByteSize()
