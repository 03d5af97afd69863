"""A cache that projects share fairly."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class FairCache(Generic[V]):
    """Keeps values up to a total weight.

    Past it, one of the projects with the most (their weights differ by less than a factor of two) loses the value that
    it used least recently.
    """

    def __init__(self, max_weight: int) -> None:
        self._max_weight = max_weight
        self._projects: dict[str, _Kept[V]] = {}
        # The projects by the size of their weight, so that those with the most are found at once.
        self._by_size: dict[int, OrderedDict[str, None]] = {}
        self.weight = 0

    def get(self, project: str, key: Hashable) -> V | None:
        """Returns a value, which becomes the one that was used last."""
        kept = self._projects.get(project)
        entry = kept.entries.get(key) if kept else None
        if not kept or not entry:
            return None
        kept.entries.move_to_end(key)
        return entry.value

    def put(self, project: str, key: Hashable, value: V, weight: int) -> None:
        """Keeps a value in place of the one before, as the one that was used last."""
        kept = self._projects.get(project)
        if kept is None:
            kept = self._projects[project] = _Kept()
        earlier = kept.entries.pop(key, None)
        kept.entries[key] = _Entry(value, weight)
        self._weigh(project, kept, weight - (earlier.weight if earlier else 0))
        while self.weight > self._max_weight:
            most = next(iter(self._by_size[max(self._by_size)]))
            self.forget(most, next(iter(self._projects[most].entries)))

    def forget(self, project: str, key: Hashable) -> None:
        kept = self._projects.get(project)
        entry = kept.entries.pop(key, None) if kept else None
        if kept and entry:
            self._weigh(project, kept, -entry.weight)
            if not kept.entries:
                del self._projects[project]

    def _weigh(self, project: str, kept: "_Kept[V]", more: int) -> None:
        self.weight += more
        kept.weight += more
        size = kept.weight.bit_length() if kept.entries else None
        if size == kept.size:
            return
        if kept.size is not None:
            del self._by_size[kept.size][project]
            if not self._by_size[kept.size]:
                del self._by_size[kept.size]
        kept.size = size
        if size is not None:
            self._by_size.setdefault(size, OrderedDict())[project] = None


class _Entry(NamedTuple, Generic[V]):
    value: V
    weight: int


class _Kept(Generic[V]):
    """The values of a project, the one that was used least recently first."""

    def __init__(self) -> None:
        self.entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self.weight = 0
        # The number of bits of the weight, while there are values.
        self.size: int | None = None
