"""Looks how the database is, at little cost while all is well, and at that of a write while something is wrong."""

import asyncio
import sqlite3
import time
from collections.abc import Callable

from convgrpc.errors import ResourceExhausted, Unavailable
from convgrpc.storage.interface import HealthStatus
from convgrpc.storage.sqlite.checkpoints import Checkpoints
from convgrpc.storage.sqlite.database_health import FULL, TOO_SLOW, DatabaseFiles, DatabaseHealth, FileReplaced
from convgrpc.storage.sqlite.group_commit import STALLED, GroupCommitter
from convgrpc.storage.sqlite.reserve import Reserve

_IDLE = 30.0
"""Seconds without a commit after which one is made, to see whether that can be done."""


class HealthProbe:
    """Knows how the database is.

    `read` reads from it, and returns how many bytes of its file are free. It raises `Unavailable` if that cannot be
    done.
    """

    def __init__(
        self,
        files: DatabaseFiles,
        health: DatabaseHealth,
        writer: GroupCommitter,
        checkpoints: Checkpoints,
        read: Callable[[], int],
        reserve: Reserve | None,
    ) -> None:
        self._files = files
        self._health = health
        self._writer = writer
        self._checkpoints = checkpoints
        self._read = read
        self._reserve = reserve

    async def condition(self) -> HealthStatus:
        """How the database is now. What failed, or has not been done for long, is tried."""
        return HealthStatus(await self._trouble(), self._health.corrupt)

    async def _trouble(self) -> str | None:
        try:
            self._files.check()
        except FileReplaced as error:
            return str(error)
        if self._writer.stalled:
            return TOO_SLOW
        idle = time.monotonic() - self._writer.committed_at > _IDLE
        is_wanted = self._reserve is not None and self._reserve.is_wanted
        if idle or is_wanted or self._writer.was_slow or self._health.failure or self._health.corrupt:
            await self._try()
        # Where each takes too long, one that is done at last is no good news.
        return self._health.failure or (TOO_SLOW if self._writer.was_slow else None)

    async def _try(self) -> None:
        # Whatever still fails is noted again.
        before, self._health.failure = self._health.failure, None
        try:
            free_bytes = self._read()
            async with asyncio.timeout(STALLED):
                await self._writer.write(_touch, frees=True)
                if before:
                    await asyncio.to_thread(self._checkpoints.copy)
            if self._reserve and not await asyncio.to_thread(self._reserve.recover, free_bytes):
                self._health.failure = FULL
        except TimeoutError:
            self._health.failure = TOO_SLOW
        except ResourceExhausted:
            # Too much is waiting, which tells nothing.
            self._health.failure = before
        except Unavailable as error:
            # Also where single things are damaged, and this is all of it.
            self._health.failure = self._health.failure or self._health.corrupt or str(error)


def _touch(connection: sqlite3.Connection) -> None:
    """Writes what is there already: a page that is committed like any other."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")
