"""Group commit: one thread writes, and commits together what waits together."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from convgrpc.errors import deadline_exceeded, store_unavailable
from convgrpc.storage.interface import Commit
from convgrpc.storage.sqlite import database_health
from convgrpc.storage.sqlite.change_notifier import Topic
from convgrpc.storage.sqlite.database import Connection
from convgrpc.storage.sqlite.write_queue import MAX_BATCH_BYTES, MAX_BATCH_WRITES, FairWriteQueue, Write

_log = logging.getLogger(__name__)

STALLED = 10.0
"""Seconds that a commit may take before writing counts as impossible."""
_MAX_BATCH_DELAY_S = 0.03
"""For how many seconds writes wait for others, at most."""
_POLL_S = 0.004
"""And for how many of them while none comes."""
_BUSY_TIMEOUT_AFTER_LOCK_S = 0.1
"""Seconds to wait for another process that has locked the database for long."""

T = TypeVar("T")


class PartiallyApplied(Exception):
    """A write failed when it had changed something."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class GroupCommitter:
    """Runs writes on one connection, those of a project in the order in which they came, and projects in turn.

    A commit costs as much as several writes, and it takes the interpreter from whatever brings more of them. So it
    waits, for a moment and while they come, until there are as many as there were at the last one and right after it.
    After a lone write it waits for none.

    `committed` is told after each commit how many rows were changed and how many bytes of data came with them,
    `observe` what it was, and `publish` what its writes were about. `tidy` does a little work, in its own transaction,
    when no write waits, and says whether to go on; it is asked at the start and after each commit. `check` may refuse a
    commit by raising, and `failed` is told what SQLite or it raised. When the disk is full, `make_room` is called, and
    while `is_full`, only writes that make room are done.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        busy_timeout: float = 5.0,
        committed: Callable[[int, int], None],
        tidy: Callable[[Connection], bool],
        observe: Callable[[Commit], None] = lambda commit: None,
        publish: Callable[[Iterable[Topic]], None] = lambda topics: None,
        check: Callable[[], None] = lambda: None,
        is_full: Callable[[], bool] = lambda: False,
        make_room: Callable[[], None] = lambda: None,
        failed: Callable[[Exception], None] = lambda error: None,
        max_writes: int = 1024,
        max_bytes: int = 64 << 20,
    ) -> None:
        self._connection = connection
        self._busy_timeout = self._patience = busy_timeout
        self._committed = committed
        self._tidy = tidy
        self._observe = observe
        self._publish = publish
        self._check = check
        self._is_full = is_full
        self._make_room = make_room
        self._failed = failed
        self._waiting = FairWriteQueue(max_writes, max_bytes)
        # How many writes are likely to come: those whose callers were just answered, and those that came meanwhile.
        self._expected = 1
        self._changed = threading.Condition()
        self._untidy = True
        self._closing = False
        self._last_failure = ""
        self._began = float("inf")
        self.committed_at = float("-inf")
        self._commit_seconds = 0.0
        self._rows_reported, self._moved_reported = connection.total_changes, connection.bytes_touched
        self._thread = threading.Thread(target=self._run, name="convgrpc-writer", daemon=True)
        self._thread.start()

    async def write(
        self,
        work: Callable[[Connection], T],
        *,
        size: int = 0,
        deadline: float | None = None,
        topics: Collection[Topic] = (),
        project: str = "",
        frees: bool = False,
    ) -> T:
        """Returns what `work` does in the writer's thread, once that is durable.

        When `work` raises, its changes are undone and no others; it may be done twice before it counts. `size` says how
        many bytes wait with it, and `topics` what it may change that others listen for. `frees` tells that it makes
        room, so that it is done while the disk is full. Raises `ResourceExhausted` when
        too much waits for `project` to have more of it, and `Unavailable` when nothing moves.
        """
        future = asyncio.get_running_loop().create_future()
        self._enqueue(Write(project, work, size, deadline, topics, future, frees))
        outcome: T | Exception = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def waiting(self) -> int:
        """How many writes wait for their turn."""
        return len(self._waiting)

    @property
    def stalled(self) -> bool:
        """Whether the disk takes too long for what it is at now."""
        return time.monotonic() - self._began > STALLED

    @property
    def was_slow(self) -> bool:
        """Whether it took too long for the last commit."""
        return self._commit_seconds > STALLED

    def close(self) -> None:
        """Finishes the writes that wait and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _enqueue(self, write: Write) -> None:
        with self._changed:
            if self._closing:
                raise store_unavailable()
            if self.stalled:
                raise store_unavailable(database_health.TOO_SLOW)
            self._waiting.add(write)
            if len(self._waiting) == 1 or self._is_enough():
                self._changed.notify()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._commit(batch)
            else:
                self._tidy_up()

    def _next_batch(self) -> list[Write] | None:
        """Takes up what waits, waiting for it if need be; nothing when it is time to tidy, None at the end."""
        with self._changed:
            while not (self._waiting or self._closing or self._untidy):
                self._changed.wait()
            if not self._waiting:
                return None if self._closing else []
            self._wait_for_batch()
            return self._waiting.take()

    def _wait_for_batch(self) -> None:
        """Waits for as many writes as are likely to come, for as long as they do."""
        end = time.monotonic() + _MAX_BATCH_DELAY_S
        came = 0
        while not self._is_enough() and came < len(self._waiting) and time.monotonic() < end:
            came = len(self._waiting)
            self._changed.wait(_POLL_S)

    def _is_enough(self) -> bool:
        return len(self._waiting) >= self._expected or self._waiting.size >= MAX_BATCH_BYTES

    def _commit(self, batch: Sequence[Write], *, is_retry: bool = False) -> None:
        if self._is_full():
            batch = self._only_freeing(batch)
        if batch:
            self._commit_all(batch, is_retry=is_retry)

    def _only_freeing(self, batch: Sequence[Write]) -> Sequence[Write]:
        """Refuses the writes that make no room, and returns the others."""
        refused = [write for write in batch if not write.frees]
        _deliver(refused, [store_unavailable(database_health.FULL) for _ in refused])
        return [write for write in batch if write.frees]

    def _commit_all(self, batch: Sequence[Write], *, is_retry: bool) -> None:
        began = self._began = written = time.monotonic()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = self._outcomes(batch)
            # As late as can be: what is acknowledged must be where others will look for it.
            self._check()
            written = time.monotonic()
            self._connection.execute("COMMIT")
            self._last_failure = ""
            self._wait_for_others(self._busy_timeout)
            self.committed_at = time.monotonic()
        except Exception as error:
            self._log_failure(error, len(batch))
            self._roll_back()
            if database_health.code(error) == sqlite3.SQLITE_BUSY:
                self._wait_for_others(_BUSY_TIMEOUT_AFTER_LOCK_S)
            self._failed(error)
            if database_health.describe(error) == database_health.FULL and not is_retry:
                self._make_room()
                self._began = float("inf")
                self._commit(batch, is_retry=True)
                return
            outcomes = [store_unavailable(database_health.describe(error)) for _ in batch]
        ended = time.monotonic()
        self._commit_seconds = ended - began
        done, rest = batch[: len(outcomes)], batch[len(outcomes) :]
        if rest:
            with self._changed:
                self._waiting.put_back(rest, done={write.project for write in done})
        # What was put back is enough by itself.
        self._expected = 1 if rest else min(len(done) + len(self._waiting), MAX_BATCH_WRITES)
        self._began = float("inf")
        # First, so that whoever has an answer finds the commit among what was observed.
        self._observe(Commit(len(done), self._commit_seconds, ended - written))
        _deliver(done, outcomes)
        self._publish(topic for write in done for topic in write.topics)
        self._report(sum(write.size for write in done))
        self._untidy = True

    def _outcomes(self, batch: Sequence[Write]) -> list[Any]:
        """Does the work of writes, each of which leaves no trace when it fails, until it is a lot that they moved: no
        more of them then than have an outcome.

        Nearly all that fail have changed nothing. Where one has, all are done again, each so that it can be undone
        alone, which costs two statements more for every write.
        """
        with suppress(PartiallyApplied):
            return self._until_full(self._outcome, batch)
        self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")
        return self._until_full(self._run_in_savepoint, batch)

    def _until_full(self, outcome: Callable[[Write], Any], batch: Sequence[Write]) -> list[Any]:
        outcomes: list[Any] = []
        full = self._connection.bytes_touched + MAX_BATCH_BYTES
        for write in batch:
            outcomes.append(outcome(write))
            if self._connection.bytes_touched > full:
                break
        return outcomes

    def _run_in_savepoint(self, write: Write) -> Any:
        self._connection.execute("SAVEPOINT write")
        try:
            outcome = self._outcome(write)
        except PartiallyApplied as failure:
            self._connection.execute("ROLLBACK TO write")
            outcome = self._reported(failure.error)
        self._connection.execute("RELEASE write")
        return outcome

    def _outcome(self, write: Write) -> Any:
        """Does the work of one write, or raises `PartiallyApplied`."""
        if write.outcome.cancelled():
            return None
        if write.deadline is not None and time.monotonic() > write.deadline:
            return deadline_exceeded()
        changes = self._connection.total_changes
        try:
            return write.work(self._connection)
        except Exception as error:
            # After some failures, such as a full disk, SQLite has ended the transaction with all that was in it.
            if not self._connection.in_transaction:
                raise
            if self._connection.total_changes != changes:
                raise PartiallyApplied(error) from error
            return self._reported(error)

    def _tidy_up(self) -> None:
        self._began = time.monotonic()
        if self._is_full():
            self._make_room()
        try:
            self._untidy = self._tidy(self._connection)
        except sqlite3.Error as error:
            self._roll_back()
            if database_health.describe(error) == database_health.FULL:
                self._failed(error)
                self._make_room()
            else:
                _log.exception("Tidying failed; it will be tried again after the next commit: %s", error)
            if database_health.code(error) == sqlite3.SQLITE_BUSY:
                self._wait_for_others(_BUSY_TIMEOUT_AFTER_LOCK_S)
            self._untidy = False
        self._report(0)

    def _reported(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            _log.error("A write failed: %s", error, exc_info=error)
            self._failed(error)
            return store_unavailable(database_health.describe(error))
        return error

    def _log_failure(self, error: Exception, writes: int) -> None:
        """Logs why a commit failed, once: callers try again and again."""
        said = _said(error)
        if said != self._last_failure:
            _log.error("A commit failed, and with it %d writes: %s", writes, said, exc_info=error)
        self._last_failure = said

    def _wait_for_others(self, seconds: float) -> None:
        """Sets how long a commit waits for other processes: once one was waited for in vain, callers are told soon."""
        if seconds != self._patience:
            self._patience = seconds
            self._connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.rollback()

    def _report(self, sent: int) -> None:
        rows, moved = self._connection.total_changes, self._connection.bytes_touched
        # This may take its time as well.
        self._began = time.monotonic()
        # What is sent becomes a part of what is moved, but where it is no item.
        self._committed(rows - self._rows_reported, max(sent, moved - self._moved_reported))
        self._began = float("inf")
        self._rows_reported, self._moved_reported = rows, moved


def _said(error: Exception) -> str:
    """What SQLite says, and its name for it; other exceptions may quote what a caller sent."""
    if isinstance(error, sqlite3.Error):
        return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    return database_health.describe(error) or type(error).__name__


def _deliver(batch: Sequence[Write], outcomes: Sequence[Any]) -> None:
    """Hands the outcomes over to the event loop, all at once.

    There may be two loops, when one ended while its writes waited and another took its place.
    """
    for loop in {write.outcome.get_loop() for write in batch}:
        # A loop that was closed has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, loop, batch, outcomes)


def _resolve(loop: asyncio.AbstractEventLoop, batch: Sequence[Write], outcomes: Sequence[Any]) -> None:
    for write, outcome in zip(batch, outcomes, strict=True):
        if write.outcome.get_loop() is loop and not write.outcome.done():
            write.outcome.set_result(outcome)
