import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from convgrpc.storage.sqlite.checkpoints import Checkpoints
from convgrpc.storage.sqlite.database import connect

ROW_BYTES = 100_000


class Log:
    """A database whose log grows as rows are written, and is copied by nothing but what is tested."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect(path, "FULL", 5)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE rows (filling BLOB)")

    def write(self) -> None:
        self.connection.execute("INSERT INTO rows VALUES (zeroblob(?))", (ROW_BYTES,))

    def size(self) -> int:
        return os.path.getsize(f"{self.path}-wal")

    def checkpoints(self, *, pages: int, max_log_bytes: int) -> Checkpoints:
        return Checkpoints(self.path, connect(self.path, "FULL", 0.05), pages=pages, max_log_bytes=max_log_bytes)

    def read_meanwhile(self) -> sqlite3.Connection:
        reader = sqlite3.connect(self.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchone()
        return reader


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "rows.db")
    with closing(made.connection):
        yield made


def test_log_is_looked_after_once_enough_was_written(log: Log) -> None:
    """Nothing is done before so many pages were written; large rows count for the pages they fill."""
    with closing(log.checkpoints(pages=100, max_log_bytes=0)) as checkpoints:
        for rows, size in ((50, 0), (1, 98 * 4096)):
            log.write()
            checkpoints.committed(rows - 1, size)
            assert log.size() > 0
            checkpoints.committed(1, 0)
            assert log.size() == 0


def test_log_is_copied_in_a_thread(log: Log) -> None:
    """A log that is not too long is copied into the database file and goes on."""
    with closing(log.checkpoints(pages=1, max_log_bytes=1 << 30)) as checkpoints:
        log.write()
        checkpoints.committed(1, ROW_BYTES)
        give_up = time.monotonic() + 60
        while log.path.stat().st_size < ROW_BYTES:
            assert time.monotonic() < give_up
        assert log.size() > ROW_BYTES


def test_checkpoint_begins_after_a_commit_that_began_after_the_last(log: Log) -> None:
    """Whose report comes second: the first one may be of a commit that was copied already."""
    tries: list[str] = []
    connection = connect(log.path, "FULL", 5)
    connection.set_trace_callback(tries.append)
    with closing(Checkpoints(log.path, connection, pages=1)) as checkpoints:
        for count in (1, 1, 2, 2, 3):
            log.write()
            checkpoints.committed(1, 0)
            give_up = time.monotonic() + (10 if len(tries) < count else 0.1)
            while time.monotonic() < give_up and not (checkpoints._copied and len(tries) == count):
                time.sleep(0.001)
            assert len(tries) == count


def test_log_does_not_outgrow_its_bound(log: Log) -> None:
    """However fast the writer is, the log is cut off once it is too long."""
    bound = 10 * ROW_BYTES
    with closing(log.checkpoints(pages=25, max_log_bytes=bound)) as checkpoints:
        for _ in range(100):
            log.write()
            checkpoints.committed(1, ROW_BYTES)
            assert log.size() < bound + 3 * ROW_BYTES


def test_reader_that_needs_the_log_holds_up_few_commits(log: Log) -> None:
    """While another process reads what is in the log, cutting it off is tried now and then only, and done at last."""
    tries: list[str] = []
    bound = 10 * ROW_BYTES
    connection = connect(log.path, "FULL", 0.001)
    connection.set_trace_callback(tries.append)
    with closing(Checkpoints(log.path, connection, pages=25, max_log_bytes=bound)) as checkpoints:
        log.write()
        with closing(log.read_meanwhile()):
            for _ in range(50):
                log.write()
                checkpoints.committed(1, ROW_BYTES)
        assert 1 <= tries.count("PRAGMA wal_checkpoint(TRUNCATE)") <= 5
        for _ in range(20):
            log.write()
            checkpoints.committed(1, ROW_BYTES)
        assert log.size() < bound + 3 * ROW_BYTES


def test_close_empties_the_log(log: Log) -> None:
    """At the end, all is in the database file."""
    checkpoints = log.checkpoints(pages=1000, max_log_bytes=1 << 30)
    log.write()
    checkpoints.close()
    assert log.size() == 0
    assert log.path.stat().st_size > ROW_BYTES


def test_failing_checkpoint_is_logged(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint that fails does not reach the writer."""
    connection = connect(log.path, "FULL", 5)
    checkpoints = Checkpoints(log.path, connection, pages=1, max_log_bytes=0)
    log.write()
    connection.close()
    checkpoints.committed(1, 0)
    assert "A checkpoint failed" in caplog.text
    checkpoints.close()
