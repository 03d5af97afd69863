"""Turns on the event loop that projects share fairly."""

import asyncio
from collections import deque


class LoopTurns:
    """Lets one task of each project go on in one iteration of the event loop.

    A task waits for its turn before work that takes up to a millisecond. However many tasks of one project wait, those
    of another project go on after one such piece of work.
    """

    def __init__(self) -> None:
        # The tasks that wait, the longest first, by the projects that had a turn in this iteration.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def turn(self, project: str) -> None:
        """Waits for a turn, which lasts until the task waits for something. The first turn comes at once."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(project)
        if waiting is None:
            if not self._waiting:
                loop.call_soon(self._next)
            self._waiting[project] = deque()
            return
        future = loop.create_future()
        waiting.append(future)
        await future

    def _next(self) -> None:
        """Begins an iteration: gives each project its next turn."""
        for project, waiting in list(self._waiting.items()):
            while waiting and waiting[0].done():
                # It was cancelled.
                waiting.popleft()
            if waiting:
                waiting.popleft().set_result(None)
            else:
                del self._waiting[project]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
