"""Times that run out, by one clock for all calls: a timer for each would cost more than reading an item does."""

import asyncio
import time
from types import TracebackType
from typing import Any, Self

_TICK = 0.02
"""Seconds between two looks at whose time is over."""


class DeadlineScheduler:
    """Ends what takes too long, by no more than a tick too late. It goes only while there is something to watch."""

    def __init__(self) -> None:
        self._running: dict[Deadline, None] = {}
        self._armed = False

    def within(self, seconds: float) -> "Deadline":
        """A context for as many seconds, like `asyncio.timeout`."""
        return Deadline(self, time.monotonic() + seconds)

    def begin(self, deadline: "Deadline") -> None:
        self._running[deadline] = None
        if not self._armed:
            self._armed = True
            self._wait()

    def end(self, deadline: "Deadline") -> None:
        self._running.pop(deadline, None)

    def _wait(self) -> None:
        asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        for deadline in [each for each in self._running if each.at <= now]:
            deadline.expire()
        self._armed = bool(self._running)
        if self._armed:
            self._wait()


class Deadline:
    """When a task must have left the context; it is cancelled then, and what leaves the context is TimeoutError."""

    __slots__ = ("_cancelling", "_clock", "_is_over", "_task", "at")

    def __init__(self, clock: DeadlineScheduler, at: float) -> None:
        self.at = at
        self._clock = clock
        self._is_over = False

    def expire(self) -> None:
        """Has it be over now. Doing it again does nothing."""
        self._clock.end(self)
        if not self._is_over:
            self._is_over = True
            self._task.cancel()

    def __enter__(self) -> Self:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task
        self._task = task
        self._cancelling = task.cancelling()
        self._clock.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clock.end(self)
        # Others may have cancelled the task as well.
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
