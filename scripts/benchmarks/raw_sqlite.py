"""SQLite alone: the rows that it can store, without ids of conversations, order of calls, or anybody who waits.

The schema and the work stay as they are, so that results can be compared: 64 rows a commit, each with a kilobyte or
so, a conversation of 500 at random and an id of 24 random bytes, synchronous=FULL, and checkpoints as SQLite makes
them.
"""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.generators import Run

SCHEMA = """
    CREATE TABLE items (position INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, id BLOB NOT NULL, data BLOB NOT
    NULL); CREATE INDEX items_by_conversation ON items (conversation);
    CREATE INDEX items_by_id ON items (id);
"""
INSERT = "INSERT INTO items (conversation, id, data) VALUES (?, ?, ?)"
BATCH = 64
CONVERSATIONS = 500


class RawSqlite:
    """A connection to a database of its own, in this process. A run's calls are rows, and its latencies those of
    commits.
    """

    def __init__(self, connection: sqlite3.Connection, data: bytes) -> None:
        self._connection = connection
        self._data = data
        self._source = random.Random(5)

    def run(self, seconds: float = 1.0) -> Run:
        source, took = self._source, []
        cpu, start = time.process_time(), time.perf_counter()
        while (began := time.perf_counter()) < start + seconds:
            rows = [(source.randrange(CONVERSATIONS), source.randbytes(24), self._data) for _ in range(BATCH)]
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(INSERT, rows)
            self._connection.execute("COMMIT")
            took.append(time.perf_counter() - began)
        took.sort()
        elapsed, used = time.perf_counter() - start, time.process_time() - cpu
        return Run(BATCH * len(took), elapsed, used, took[len(took) // 2], took[len(took) * 99 // 100])


@contextmanager
def raw_sqlite(db: Path, data: bytes) -> Iterator[RawSqlite]:
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        yield RawSqlite(connection, data)
