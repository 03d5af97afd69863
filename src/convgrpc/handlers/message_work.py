"""Work on messages, which takes longer the larger they are."""

from collections.abc import Callable
from typing import TypeVar

from convgrpc.fairness.loop_turns import LoopTurns
from convgrpc.fairness.threads import FairThreads

LARGE = 1 << 16
"""The most bytes of an answer that is worked on on the event loop."""
LARGE_REQUEST = 1 << 13
"""The most bytes of a request that is worked on on the event loop. It may have two thousand empty parts, which take 10
milliseconds.
"""
_SMALL = 1 << 10
"""The most bytes of a message that waits for no turn."""
_LARGEST = 1 << 20

R = TypeVar("R")


class MessageWork:
    """Does work on small messages on the event loop, and on large ones in threads, in turn with other projects."""

    def __init__(self) -> None:
        self._turns = LoopTurns()
        self._threads = FairThreads(2, "large-messages")
        # The largest have one thread of their own: while a message is decoded it takes many times its size, and others
        # must not wait for it.
        self._thread = FairThreads(1, "largest-messages")

    async def do(self, project: str, size: int, work: Callable[[], R], *, large: int = LARGE) -> R:
        """Does work on a message of so many bytes. Messages of more than `large` bytes are worked on in threads."""
        if size > large:
            threads = self._threads if size <= _LARGEST else self._thread
            return await threads.run(project, work)
        if size > _SMALL:
            await self._turns.turn(project)
        return work()
