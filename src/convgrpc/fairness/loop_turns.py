"""Turns on the event loop that projects share fairly."""

import asyncio
import time
from collections import deque

_BUDGET_S = 0.003
"""Seconds of work that a project may do in one iteration of the event loop. The last turn may go beyond that."""
_MANY = 8
"""How many tasks of a project must wait for the loop to pause after their turns."""
_MAX_PAUSE_S = 0.05


class LoopTurns:
    """Gives each project about three milliseconds of work in an iteration of the event loop.

    A task waits for its turn before work, and its turn lasts until it waits for something. However many tasks of one
    project wait, those of another go on after about three milliseconds, or after one piece of work that is longer.

    While many tasks of a project wait, the project pauses after its turns, for twice as long as these took. grpc.aio
    accepts calls one by one, and needs several iterations for each: in the pause it accepts those of other projects.
    """

    def __init__(self) -> None:
        self._projects: dict[str, _Project] = {}
        # The project that has its turn, since when (`time.perf_counter()`).
        self._current: _Project | None = None
        self._since = 0.0
        self._scheduled: asyncio.Handle | None = None

    async def turn(self, project: str) -> None:
        """Waits for a turn. The first turn comes at once."""
        found = self._projects.get(project)
        if found is None:
            found = self._projects[project] = _Project()
            self._wake()
        else:
            self._stop_clock()
            if found.must_wait:
                future = asyncio.get_running_loop().create_future()
                found.waiting.append(future)
                await future
        self._stop_clock()
        self._current, self._since = found, time.perf_counter()
        found.turns += 1

    def _wake(self) -> None:
        """Has `_next` called in the next iteration, also while all other projects pause."""
        if isinstance(self._scheduled, asyncio.TimerHandle):
            self._scheduled.cancel()
            self._scheduled = None
        if self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_soon(self._next)

    def _stop_clock(self) -> None:
        """Notes how long the last turn took, up to now."""
        if self._current:
            self._current.spent += time.perf_counter() - self._since
            self._current = None

    def _next(self) -> None:
        """Begins an iteration: gives each project its next turns."""
        self._stop_clock()
        self._scheduled = None
        now = time.perf_counter()
        for name, project in list(self._projects.items()):
            if not project.begin(now):
                del self._projects[name]
        pause = min((project.paused_until - now for project in self._projects.values()), default=0.0)
        if pause > 0:
            self._scheduled = asyncio.get_running_loop().call_later(pause, self._next)
        elif self._projects:
            self._wake()


class _Project:
    """The turns of a project in this iteration: how many, and how many seconds they took; and the tasks that wait."""

    def __init__(self) -> None:
        self.turns = 0
        self.spent = 0.0
        self.paused_until = 0.0
        self.waiting: deque[asyncio.Future[None]] = deque()

    @property
    def must_wait(self) -> bool:
        return bool(self.waiting) or self.spent > _BUDGET_S or self.paused_until > time.perf_counter()

    def begin(self, now: float) -> bool:
        """Gives as many turns as fit into an iteration, by the time that the last ones took.

        Returns False if none is wanted.
        """
        if self.paused_until > now:
            return True
        if len(self.waiting) > _MANY and self.spent > _BUDGET_S:
            self.paused_until = now + min(2 * self.spent, _MAX_PAUSE_S)
            self.turns, self.spent = 0, 0.0
            return True
        number = max(1, int(self.turns * _BUDGET_S / self.spent)) if self.spent else 1
        self.turns, self.spent = 0, 0.0
        given = 0
        while self.waiting and given < number:
            future = self.waiting.popleft()
            if not future.done():
                # Otherwise it was cancelled.
                future.set_result(None)
                given += 1
        return given > 0
