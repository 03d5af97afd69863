"""Reads of many bytes, which would hold up the event loop."""

import queue
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TypeVar

from convgrpc.fairness.threads import FairThreads

INLINE = 256 << 10
"""The most bytes that one call reads on the event loop at once."""
ANY_SIZE = (1 << 63) - 1
_THREADS = 2

R = TypeVar("R")


class LargeRead(Exception):
    """What is read has too many bytes for the event loop."""


class LargeReads:
    """Threads that read, each with a connection of its own. Projects share them fairly. `close` it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._threads = FairThreads(_THREADS, "large-reads")
        self._connections: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._closing = ExitStack()
        for _ in range(_THREADS):
            self._connections.put(self._closing.enter_context(closing(connect())))

    async def run(self, project: str, read: Callable[[sqlite3.Connection], R]) -> R:
        """Reads in a thread, once it is the project's turn."""

        def work() -> R:
            connection = self._connections.get()
            try:
                return read(connection)
            finally:
                self._connections.put(connection)

        return await self._threads.run(project, work)

    def close(self) -> None:
        """Closes the connections, once the reads that were begun have ended."""
        self._threads.close()
        for _ in range(_THREADS):
            self._connections.get()
        self._closing.close()
