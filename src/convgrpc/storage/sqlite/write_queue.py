"""The writes that wait: how many may, and whose turn it is."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from convgrpc.errors import overloaded
from convgrpc.storage.sqlite.change_notifier import Topic
from convgrpc.storage.sqlite.database import Connection

MAX_BATCH_WRITES = 512
MAX_BATCH_BYTES = 1 << 20
"""How many bytes the writes of a commit are sent, and how many they then move, but for the last."""
ITEM_COST = 512
"""How many bytes each item counts for beside its own: 2,000 references to tiny items take 80 milliseconds."""
_MAX_WRITES_PER_PROJECT_ROUND = 64
"""How many writes a project has done before it is another's turn."""


class Write(NamedTuple):
    """A write. `frees` tells that it makes room, so that it may use the reserve while the disk is full."""

    project: str
    work: Callable[[Connection], Any]
    size: int
    deadline: float | None
    topics: Collection[Topic]
    # Gets what `work` returned, or the exception that `GroupCommitter.write` raises. The thread that writes reads it,
    # and the loop sets it.
    outcome: asyncio.Future[Any]
    frees: bool = False


class FairWriteQueue:
    """Writes in the order in which they came, but that projects take turns.

    Of what may wait a project has no more than it leaves to others, so that one which writes all it can takes half, and
    another finds room still. `size` is how many bytes wait. It may be used by one thread at a time.
    """

    def __init__(self, max_writes: int, max_bytes: int) -> None:
        self._max_writes = max_writes
        self._max_bytes = max_bytes
        # Those of the projects that have any, by their turns.
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        # As they were when something was taken out last.
        self._turns: list[str] = []
        # The projects of the last batch, while nothing of them waits.
        self._served: set[str] = set()
        self._count = 0
        self.size = 0

    def __len__(self) -> int:
        return self._count

    def add(self, write: Write) -> None:
        """Has a write wait, or raises `ResourceExhausted`."""
        known = self._queues.get(write.project)
        queue = known or _Queue()
        many = len(queue.writes) + 1 > self._max_writes - self._count
        # One that is too large for the bound must be able to pass, before others.
        large = write.size and self.size and queue.size + write.size > self._max_bytes - self.size
        if many or large:
            raise overloaded("writes")
        queue.writes.append(write)
        self._queues[write.project] = queue
        self._count_in(queue, write)
        if known is None and write.project not in self._served:
            # It waits for one batch less than the projects that were in the last one.
            for project in [each for each in self._queues if each in self._served]:
                self._queues.move_to_end(project)

    def take(self) -> list[Write]:
        """Takes out what shall be committed next, of what there is. A project without a part in it is first then."""
        batch: list[Write] = []
        self._turns = list(self._queues)
        turns = deque(self._queues.items())
        # A write of any size must be able to pass.
        room = max(MAX_BATCH_BYTES, turns[0][1].writes[0].size)
        while turns and len(batch) < MAX_BATCH_WRITES:
            project, queue = turns.popleft()
            taken, size = queue.take(min(_MAX_WRITES_PER_PROJECT_ROUND, MAX_BATCH_WRITES - len(batch)), room)
            batch += taken
            room -= size
            self.size -= size
            if not queue.writes:
                del self._queues[project]
            elif taken:
                self._queues.move_to_end(project)
                turns.append((project, queue))
        self._count -= len(batch)
        self._served = {write.project for write in batch}
        return batch

    def put_back(self, writes: Sequence[Write], *, done: Collection[str]) -> None:
        """Has writes wait again that were taken out last, before all others of their projects. The turns are as before,
        but that projects of which something was `done` have had theirs.
        """
        self._served = set(done)
        for write in reversed(writes):
            queue = self._queues.setdefault(write.project, _Queue())
            queue.writes.appendleft(write)
            self._count_in(queue, write)
        for project in reversed(self._turns):
            if project in self._queues and project not in done:
                self._queues.move_to_end(project, last=False)
        for project in self._turns:
            if project in self._queues and project in done:
                self._queues.move_to_end(project)

    def _count_in(self, queue: "_Queue", write: Write) -> None:
        self._count += 1
        self.size += write.size
        queue.size += write.size


class _Queue:
    """The writes of a project, and how many bytes wait with them."""

    def __init__(self) -> None:
        self.writes: deque[Write] = deque()
        self.size = 0

    def take(self, most: int, room: int) -> tuple[list[Write], int]:
        """Takes out so many writes at most, and no more bytes than there is room for; returns how many these are."""
        taken: list[Write] = []
        size = 0
        while self.writes and len(taken) < most and size + self.writes[0].size <= room:
            taken.append(self.writes.popleft())
            size += taken[-1].size
        self.size -= size
        return taken, size
