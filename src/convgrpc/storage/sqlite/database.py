"""The database file: created, migrated, opened or refused."""

import fcntl
import os
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

from sqlite_utils import Database

from convgrpc.storage.sqlite import database_health
from convgrpc.storage.sqlite.database_health import FileReplaced, identity
from convgrpc.storage.sqlite.migrations import APPLICATION_ID, MIGRATIONS, unknown_migrations
from convgrpc.storage.sqlite.reserve import Reserve, is_full

_CLAIMED = "another server is using it"


class UnusableDatabase(Exception):
    """The database cannot be used. The message is for the person who named the file."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"Cannot use the database {path}: {why}.")
        self.path = path
        self.why = why


class ServerLock:
    """Keeps other servers off a database until it is closed, however that happens.

    Programs that come and go, such as a backup, need no claim. The claim is on a file beside the database, as SQLite's
    own locks would be lost with it; the file stays, and means nothing by itself.
    """

    def __init__(self, path: Path) -> None:
        """Raises `UnusableDatabase`."""
        _check_place(path)
        _peek(path)
        self._path = path
        self._file = self._locked()

    def check(self) -> None:
        """Claims the database anew where somebody took the file away. Raises `FileReplaced` if another server was
        faster.
        """
        if identity(f"{self._path}-lock") == identity(self._file.fileno()):
            return
        try:
            claimed = self._locked()
        except UnusableDatabase as error:
            raise FileReplaced(error.why) from None
        self._file.close()
        self._file = claimed

    def close(self) -> None:
        self._file.close()

    def _locked(self) -> BinaryIO:
        with ExitStack() as on_failure:
            try:
                file = on_failure.enter_context(open(f"{self._path}-lock", "ab", opener=_private))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnusableDatabase(self._path, _CLAIMED) from None
            except OSError as error:
                raise UnusableDatabase(self._path, f"{self._path}-lock cannot be locked: {error.strerror}") from None
            on_failure.pop_all()
            return file


class Connection(sqlite3.Connection):
    """A connection to the database.

    `bytes_touched` is how many bytes of items it has stored, with `ITEM_COST` for each, swept, and read to answer
    repeated writes. What a write is sent tells little of that, as it may name items that are copied. It is never set
    back.
    """

    bytes_touched = 0


def connect(path: Path, synchronous: str, busy_timeout: float) -> Connection:
    """Opens a connection that begins and ends its transactions itself, and leaves checkpoints to others."""
    # The thread that uses a connection is not the one that opens it.
    connection = sqlite3.connect(
        path, timeout=busy_timeout, isolation_level=None, check_same_thread=False, factory=Connection
    )
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_database(
    path: Path, synchronous: str, busy_timeout: float, *, alone: bool = True, reserve: Reserve | None = None
) -> Connection:
    """Opens the database, and creates or migrates it if needed. A file that is refused is left as it was.

    If the disk is full, the reserve makes room for what SQLite needs to read. Raises `UnusableDatabase`.
    """
    _check_place(path)
    _peek(path)
    try:
        return _opened(path, synchronous, busy_timeout, alone=alone, reserve=reserve)
    except sqlite3.Error as error:
        if not (reserve and is_full(error) and reserve.path.exists()):
            raise UnusableDatabase(path, _reason(error)) from error
        reserve.spend()
    try:
        return _opened(path, synchronous, busy_timeout, alone=alone, reserve=reserve)
    except sqlite3.Error as error:
        raise UnusableDatabase(path, _reason(error)) from error


def _opened(
    path: Path, synchronous: str, busy_timeout: float, *, alone: bool, reserve: Reserve | None = None
) -> Connection:
    _create(path)
    with ExitStack() as on_failure:
        connection = connect(path, synchronous, busy_timeout)
        on_failure.callback(connection.close)
        _migrate(path, connection)
        _enter_wal(path, connection, busy_timeout)
        if alone:
            _copy_log(connection, reserve)
        on_failure.pop_all()
        return connection


def _copy_log(connection: Connection, reserve: Reserve | None) -> None:
    """Copies the log into the file, so that `_peek` sees the migrations of a later version there."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        if not (reserve and is_full(error)):
            raise
        # What is in the log can be read nevertheless.
        reserve.spend()


def _create(path: Path) -> None:
    # SQLite gives the files that it puts beside it the same mode.
    try:
        open(path, "xb", opener=_private).close()
    except FileExistsError:
        return
    except OSError:
        raise UnusableDatabase(path, "it cannot be opened") from None


def _private(path: str, flags: int) -> int:
    """Opens a file that, if it is made by this, nobody else may read."""
    return os.open(path, flags, 0o600)


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise UnusableDatabase(path, "its folder does not exist")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UnusableDatabase(path, "its folder cannot be written")
    if path.exists() and not path.is_file():
        raise UnusableDatabase(path, "it is not a file")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise UnusableDatabase(path, "it cannot be read and written")


def _peek(path: Path) -> None:
    """Refuses what is certainly not ours before it is opened in earnest.

    Opening in earnest writes: SQLite rolls back a journal, copies a write-ahead log into the file, and leaves files
    beside one that is corrupt. An immutable file is opened without any of this. While there is a journal or a log, it
    may look corrupt and not be, as when another process is creating it: that only `_migrate` can tell.
    """
    if not _has_content(path):
        return
    # In this order: what another process creates has no content before it has a journal.
    settled = not any(_has_content(Path(f"{path}{suffix}")) for suffix in ("-journal", "-wal"))
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            _check(path, connection)
    except sqlite3.Error as error:
        if settled:
            raise UnusableDatabase(path, _reason(error)) from error


def _has_content(path: Path) -> bool:
    # Another process may remove its journal at any moment.
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise UnusableDatabase(path, "it is a SQLite database of another program")
    elif unknown := unknown_migrations(Database(connection, execute_plugins=False)):
        raise UnusableDatabase(path, f"it was written by a newer convgrpc: {', '.join(unknown)}")


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    # `Migrations.apply` by itself finds out what is pending before it locks, so that two processes may both apply it.
    connection.execute("BEGIN IMMEDIATE")
    _check(path, connection)
    database = Database(connection, execute_plugins=False)
    if MIGRATIONS.pending(database):
        MIGRATIONS.apply(database)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _enter_wal(path: Path, connection: sqlite3.Connection, busy_timeout: float) -> None:
    # SQLite applies no busy timeout here, and another process may be doing the same.
    give_up = time.monotonic() + busy_timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if database_health.code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
    if mode != "wal":
        raise UnusableDatabase(path, "its file system does not allow a write-ahead log")


def _reason(error: sqlite3.Error) -> str:
    return database_health.describe(error) or str(error)
