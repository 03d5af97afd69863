"""The gRPC calls that are open: from their head until their answer is taken.

gRPC itself waits for ever for the rest of a request, and for a client that lets nothing of its answer through.
"""

import asyncio
import time
from collections.abc import Callable

from convgrpc import errors

MAX_WAITING = 256
"""How many calls may wait for their clients, before those go that have done so for more than a moment."""
MAX_EXEMPT = 128
"""How many calls may be open that need no key: of health, and of reflection."""
_MOMENT = 1.0
_GLANCE = 0.5
"""Seconds between two looks at who takes too long."""


class OpenCalls:
    """Those of one server; each is known by its task. A client has `seconds` to send a request, and to take its answer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._exempt: set[asyncio.Task[object]] = set()
        # Since when their clients are waited for, the longest first.
        self._waiting: dict[asyncio.Task[object], float] = {}

    def opened(self, left: Callable[[], None]) -> None:
        """Takes the call that runs for one whose request is on its way; `left` is called when it is over."""
        task = _current()
        self._waiting[task] = time.monotonic()
        task.add_done_callback(lambda task: self._closed(task, left))

    def opened_exempt(self) -> None:
        """Takes the call that runs for one that may last. Raises `ResourceExhausted` where there are too many of them."""
        if len(self._exempt) >= MAX_EXEMPT:
            raise errors.overloaded()
        task = _current()
        self._exempt.add(task)
        task.add_done_callback(self._exempt.discard)

    def works(self) -> None:
        """The request of the call that runs is there."""
        self._waiting.pop(_current(), None)

    def answered(self) -> None:
        """The call that runs has its answer, which is to be taken now."""
        self._waiting[_current()] = time.monotonic()

    async def watch(self) -> None:
        """Ends those whose clients take too long, until cancelled."""
        while True:
            await asyncio.sleep(_GLANCE)
            now = time.monotonic()
            late = [task for task, since in self._waiting.items() if since < now - self._seconds]
            too_many = len(self._waiting) - MAX_WAITING
            if too_many > len(late):
                slow = [task for task, since in self._waiting.items() if since < now - _MOMENT]
                late = slow[:too_many]
            for task in late:
                task.cancel()

    def _closed(self, task: asyncio.Task[object], left: Callable[[], None]) -> None:
        self._waiting.pop(task, None)
        left()


def _current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task
    return task
