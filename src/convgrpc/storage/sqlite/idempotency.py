"""Writes that are safe to repeat: which were done, and what they stored.

A record holds references, not content. It is part of the write's own transaction, so that there is never the one
without the other, and the writer's order makes a twin that comes meanwhile wait for the first.
"""

import sqlite3
from typing import NamedTuple

from convgrpc.errors import answer_gone, request_id_reused
from convgrpc.storage.interface import RequestKey
from convgrpc.storage.sqlite.database import Connection

FORGOTTEN_AT_ONCE = 500
"""How many records that are too old one transaction removes."""

_SELECT = """
    SELECT digest, conversation, first_position, last_position FROM requests
    WHERE project = ? AND method = ? AND id = ? AND created_at > ?
"""
_MEASURE = """
    SELECT coalesce(sum(length(items.data)), 0) FROM requests
    JOIN items ON items.conversation = requests.conversation AND items.position BETWEEN first_position AND last_position
    WHERE requests.project = (SELECT number FROM projects WHERE name = ?)
    AND method = ? AND requests.id = ? AND digest = ? AND created_at > ?
"""
_INSERT = """
    INSERT OR REPLACE INTO requests
    (project, method, id, digest, created_at, conversation, first_position, last_position)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_FORGET = """
    DELETE FROM requests WHERE (project, method, id) IN
    (SELECT project, method, id FROM requests WHERE created_at <= ? ORDER BY created_at LIMIT ?)
"""


class RetentionWindow(NamedTuple):
    """The time for which requests are remembered, in Unix seconds: from when, until now."""

    start: float
    now: float


class IdempotentWrite(NamedTuple):
    """A write that is safe to repeat: its key, and the time for which such are remembered."""

    key: RequestKey
    window: RetentionWindow


class IdempotencyRecord(NamedTuple):
    """What a write stored: the number of a conversation, or minus that of a response, and the positions of items."""

    holder: int
    first_position: int = 0
    last_position: int = 0


def find_request(
    connection: sqlite3.Connection, project: int, attempt: IdempotentWrite | None
) -> IdempotencyRecord | None:
    """What an earlier attempt stored, if there was one; raises if that was another request."""
    if attempt is None:
        return None
    key = attempt.key
    row = connection.execute(_SELECT, (project, key.method, key.id, attempt.window.start)).fetchone()
    if row is None:
        return None
    digest, *stored = row
    if digest != key.digest:
        raise request_id_reused(key.id)
    return IdempotencyRecord(*stored)


def record_request(
    connection: sqlite3.Connection, project: int, attempt: IdempotentWrite | None, stored: IdempotencyRecord
) -> None:
    """Remembers what was stored by a write that is safe to repeat."""
    if attempt:
        connection.execute(_INSERT, (project, *attempt.key, attempt.window.now, *stored))


def measure_appended(connection: sqlite3.Connection, project: str, attempt: IdempotentWrite) -> int:
    """Returns how many bytes the items have that an earlier attempt appended; 0 if there was none."""
    row = connection.execute(_MEASURE, (project, *attempt.key, attempt.window.start)).fetchone()
    return int(row[0])


def created_conversation(connection: sqlite3.Connection, earlier: IdempotencyRecord) -> bytes:
    """The conversation that an earlier write created."""
    row: tuple[bytes] | None = connection.execute(
        "SELECT data FROM conversations WHERE number = ?", (earlier.holder,)
    ).fetchone()
    if row is None:
        raise answer_gone()
    return row[0]


def appended_items(connection: Connection, earlier: IdempotencyRecord) -> list[tuple[str, bytes]]:
    """The items that an earlier write appended, with their ids, but for those that were deleted since."""
    rows = connection.execute(
        "SELECT id, data FROM items WHERE conversation = ? AND position BETWEEN ? AND ? ORDER BY position", earlier
    ).fetchall()
    connection.bytes_touched += sum(len(data) for _, data in rows)
    return rows


def forget_requests(connection: sqlite3.Connection, window: RetentionWindow) -> bool:
    """Removes, in a transaction of its own, some records that are too old; says whether there were any."""
    if connection.execute("SELECT 1 FROM requests WHERE created_at <= ? LIMIT 1", (window.start,)).fetchone() is None:
        return False
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_FORGET, (window.start, FORGOTTEN_AT_ONCE))
    connection.execute("COMMIT")
    return True
