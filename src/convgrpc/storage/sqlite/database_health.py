"""What goes wrong with the database: named in words, and noted where it is seen, for those who ask how the database
is.
"""

import logging
import os
import sqlite3
import time
from pathlib import Path

_log = logging.getLogger(__name__)

FULL = "the disk is full"
TOO_SLOW = "the disk is too slow"
_SILENCE = 60.0
"""Seconds for which the same is not said again."""

_NAMES = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "it is corrupt",
    sqlite3.SQLITE_BUSY: "another process is using it",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}
# The index of the log is made as large as it must be before it is used.
_EXTENDED_NAMES = {sqlite3.SQLITE_IOERR_SHMSIZE: FULL}
_DAMAGES = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
# What was written is not there, or the disk cannot read it: that does not pass, but need not keep others from writing.
_UNREADABLE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}
_FILES = {"": "the file", "-wal": "the write-ahead log", "-shm": "the index of the write-ahead log"}


class FileReplaced(Exception):
    """The database is not where it was: whatever is written would be found by nobody."""


def code(error: BaseException) -> int:
    """The primary result code of SQLite, or 0 for an error that is none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def describe(error: BaseException) -> str | None:
    """What is wrong with the database, in words for anybody; None where it is the statement that is wrong."""
    if isinstance(error, FileReplaced):
        return str(error)
    return _EXTENDED_NAMES.get(getattr(error, "sqlite_errorcode", 0)) or _NAMES.get(code(error))


class DatabaseHealth:
    """What was seen to be wrong with the database. Any thread may note and ask.

    `failure` is why it could not be written, or could not be read at all; whoever sees that it can be again sets it
    back. `corrupt` is for good: something that was stored could not be read.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self.corrupt: str | None = None
        # Of what was said of reads, when.
        self._said: dict[str, float] = {}

    def record(self, error: Exception) -> None:
        """Notes an error, unless it is one of a single statement."""
        extended = getattr(error, "sqlite_errorcode", 0)
        if code(error) in _DAMAGES or extended in _UNREADABLE:
            if self.corrupt is None:
                _log.error(
                    "The database is damaged: %s; 'PRAGMA integrity_check' in sqlite3 tells where",
                    getattr(error, "sqlite_errorname", ""),
                )
            self.corrupt = describe(error)
        elif named := describe(error):
            self.failure = named

    def record_read(self, error: sqlite3.Error) -> None:
        """Notes an error of a read, and logs it, but not again and again: callers try as often as they like."""
        named, now = getattr(error, "sqlite_errorname", type(error).__name__), time.monotonic()
        if now > self._said.get(named, float("-inf")) + _SILENCE:
            self._said[named] = now
            _log.error("A read failed: %s (%s)", error, named, exc_info=error)
        self.record(error)


class DatabaseFiles:
    """The files of an open database: where they are, and whether they are still those that were opened."""

    def __init__(self, path: Path) -> None:
        self._opened = {f"{path}{suffix}": (identity(f"{path}{suffix}"), what) for suffix, what in _FILES.items()}

    def check(self) -> None:
        """Raises `FileReplaced` when a file was deleted, moved or replaced."""
        for path, (opened, what) in self._opened.items():
            found = identity(path)
            if found != opened:
                raise FileReplaced(f"{what} was {'replaced' if found else 'deleted or moved away'}")


def identity(file: str | int) -> tuple[int, int] | None:
    """What tells a file, given by its path or its descriptor, from others; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
