"""Looks how the database is, at little cost while all is well, and at that of a write while something is wrong."""

import asyncio
import sqlite3
import time
from collections.abc import Callable

from convgrpc.errors import ResourceExhausted, Unavailable
from convgrpc.storage.interface import Condition
from convgrpc.storage.sqlite.checkpoints import Checkpoints
from convgrpc.storage.sqlite.database_health import FULL, TOO_SLOW, Displaced, Files, Troubles
from convgrpc.storage.sqlite.group_commit import STALLED, Writer
from convgrpc.storage.sqlite.reserve import Reserve

_IDLE = 30.0
"""Seconds without a commit after which one is made, to see whether that can be done."""


class Watch:
    """Knows how the database is.

    `read` reads from it, and returns how many bytes of its file are free. It raises `Unavailable` if that cannot be
    done.
    """

    def __init__(
        self,
        files: Files,
        troubles: Troubles,
        writer: Writer,
        checkpoints: Checkpoints,
        read: Callable[[], int],
        reserve: Reserve | None,
    ) -> None:
        self._files = files
        self._troubles = troubles
        self._writer = writer
        self._checkpoints = checkpoints
        self._read = read
        self._reserve = reserve

    async def condition(self) -> Condition:
        """How the database is now. What failed, or has not been done for long, is tried."""
        return Condition(await self._trouble(), self._troubles.damage)

    async def _trouble(self) -> str | None:
        try:
            self._files.check()
        except Displaced as error:
            return str(error)
        if self._writer.stalled:
            return TOO_SLOW
        idle = time.monotonic() - self._writer.committed_at > _IDLE
        is_wanted = self._reserve is not None and self._reserve.is_wanted
        if idle or is_wanted or self._writer.was_slow or self._troubles.failure or self._troubles.damage:
            await self._try()
        # Where each takes too long, one that is done at last is no good news.
        return self._troubles.failure or (TOO_SLOW if self._writer.was_slow else None)

    async def _try(self) -> None:
        # Whatever still fails is noted again.
        before, self._troubles.failure = self._troubles.failure, None
        try:
            free_bytes = self._read()
            async with asyncio.timeout(STALLED):
                await self._writer.write(_touch, frees=True)
                if before:
                    await asyncio.to_thread(self._checkpoints.copy)
            if self._reserve and not await asyncio.to_thread(self._reserve.recover, free_bytes):
                self._troubles.failure = FULL
        except TimeoutError:
            self._troubles.failure = TOO_SLOW
        except ResourceExhausted:
            # Too much is waiting, which tells nothing.
            self._troubles.failure = before
        except Unavailable as error:
            # Also where single things are damaged, and this is all of it.
            self._troubles.failure = self._troubles.failure or self._troubles.damage or str(error)


def _touch(connection: sqlite3.Connection) -> None:
    """Writes what is there already: a page that is committed like any other."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")
