"""Moves what was committed from the write-ahead log into the database file, beside the commits."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

_PAGE_BYTES = 4096
_PAGES_PER_ROW = 2
"""About how many pages a changed row costs besides its data: its share of a leaf, and its entries in the indexes."""


class Checkpoints:
    """Copies the log in a thread of its own, and cuts it off when it grew too long all the same.

    The log begins anew only when all of it was copied and nobody reads it: under steady load that may never happen by
    itself, as writers are not held up. `failed` is told why the log could not be copied.

    Before SQLite 3.51.3 a checkpoint that begins when all is copied, just as a commit begins the log anew, may lose
    what is committed (https://sqlite.org/wal.html#walresetbug). So one begins only after a commit that began after the
    last; and none at all where others may do the same, unless `alone`: SQLite copies the log when its last connection
    is closed.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        *,
        alone: bool = True,
        pages: int = 1000,
        max_log_bytes: int = 64 << 20,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._log_path = f"{path}-wal"
        self._connection = connection
        self._alone = alone
        self._pages = pages
        self._failed = failed
        self._max_log_bytes = max_log_bytes
        self._cut_at = max_log_bytes
        self._pages_written = 0
        self._connection_lock = threading.Lock()
        self._wake = threading.Event()
        self._copied = False
        self._last_failure = ""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="convgrpc-checkpoints", daemon=True)
        self._thread.start()

    def committed(self, rows: int, size: int) -> None:
        """Notes that so many rows, with so many bytes of data, were committed.

        The writer calls this between two commits, so that nothing is written while the log is cut off.
        """
        if self._copied:
            # This commit may have begun before the copy ended, and be in it.
            self._copied = False
            self._pages_written = 0
            return
        self._pages_written += max(1, rows * _PAGES_PER_ROW + size // _PAGE_BYTES)
        if self._pages_written < self._pages:
            return
        self._pages_written = 0
        log_bytes = self._log_bytes()
        if log_bytes <= self._cut_at:
            self._wake.set()
        elif self._checkpoint("TRUNCATE"):
            self._cut_at = self._max_log_bytes
        else:
            # Another process reads what is in the log. Trying again at every turn would hold up all writes.
            self._cut_at = log_bytes + self._max_log_bytes

    def copy(self) -> None:
        """Copies what can be copied now, in the caller's thread."""
        self._checkpoint("PASSIVE")

    def close(self) -> None:
        """Ends the thread and empties the log."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._checkpoint("TRUNCATE")
        self._connection.close()

    def _log_bytes(self) -> int:
        try:
            return os.path.getsize(self._log_path)
        except OSError:
            _log.exception("The write-ahead log is not where it was")
            return 0

    def _run(self) -> None:
        # Whatever woke it during a checkpoint is forgotten, but that it shall end.
        while not self._closing:
            self._wake.wait()
            if self._closing:
                return
            self._checkpoint("PASSIVE")
            self._copied = True
            self._wake.clear()

    def _checkpoint(self, mode: str) -> bool:
        if not self._alone:
            return False
        with self._connection_lock:
            try:
                (busy, _, _) = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            except sqlite3.Error as error:
                if str(error) != self._last_failure:
                    _log.exception("A checkpoint failed: %s", error)
                self._last_failure = str(error)
                self._failed(error)
                return False
            self._last_failure = ""
        return not busy
