"""Caches ListItems pages by request and conversation version."""

from typing import NamedTuple

from convgrpc.contract.stored import RawList
from convgrpc.fairness.cache import FairCache
from convgrpc.handlers.message_work import LARGE
from convgrpc.storage.interface import Version

_MOST, _LARGEST = 4 << 20, LARGE
"""How many bytes of lists are kept, and of which size one may be: those that are written on the event loop. Each is
there up to three times: as its items, and as what each transport sends, where JSON may be six times as long.
"""
_LIST_BYTES = 5 << 10
"""What each takes beside."""


class PageKey(NamedTuple):
    """Which items are asked for, and of which project."""

    project: str
    conversation_id: str
    after: str | None
    limit: int
    descending: bool


class CachedPage(NamedTuple):
    """A list, and the version of the conversation of which it is."""

    version: Version
    items: RawList


class PageCache:
    """Caches the lists that were given last, by what was asked for. Projects share the cache fairly."""

    def __init__(self) -> None:
        self._given: FairCache[CachedPage] = FairCache(_MOST)

    def find(self, key: PageKey) -> CachedPage | None:
        """Returns the list that was given last time. It may be out of date."""
        return self._given.get(key.project, key)

    def keep(self, key: PageKey, cached: CachedPage) -> None:
        size = cached.items.ByteSize()
        if size > _LARGEST:
            self._given.forget(key.project, key)
        else:
            self._given.put(key.project, key, cached, _LIST_BYTES + size)
