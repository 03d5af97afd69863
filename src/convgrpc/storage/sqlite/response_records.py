"""Responses: what models read and made, recorded after the fact, and what each of them follows.

A response follows one that is there already, so that none ever follows itself; and it is on a conversation or follows
another, so that only the first of several is on a conversation: their origin. Without it, none of them is there.
"""

import sqlite3
from contextlib import closing
from typing import NamedTuple

from convgrpc.errors import (
    previous_response_not_found,
    recorded_response_gone,
    response_already_exists,
    response_in_use,
    response_not_found,
)
from convgrpc.storage.interface import NO_LIMITS, ItemSlice, NewResponse, ResponseChain, ResponseItems, Sizes
from convgrpc.storage.sqlite.database import Connection
from convgrpc.storage.sqlite.idempotency import IdempotencyRecord, IdempotentWrite, find_request, record_request
from convgrpc.storage.sqlite.mutations import append, project_number
from convgrpc.storage.sqlite.queries import DATA, RESPONSE_IS_THERE, ItemOwner, find_conversation, growth

_BY_ID = "project = (SELECT number FROM projects WHERE name = ?) AND id = ?"
_SELECT = f"SELECT number, origin, data, {RESPONSE_IS_THERE} FROM responses WHERE {_BY_ID}"
_SELECT_BY_NUMBER = f"SELECT data FROM responses WHERE number = ? AND {RESPONSE_IS_THERE}"
_SELECT_FOLLOWER = "SELECT id FROM responses WHERE previous = ? LIMIT 1"
_SELECT_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM items WHERE conversation = ?"
_INSERT = """
    INSERT INTO responses (project, id, previous, origin, holder, last_position, data) VALUES (?, ?, ?, ?, 0, 0, ?)
"""
_SETTLE = "UPDATE responses SET holder = ?, last_position = ? WHERE number = ?"
_SELECT_LINEAGE = f"""
    WITH RECURSIVE lineage (id, number, holder, last_position, previous) AS (
        SELECT id, number, holder, last_position, previous FROM responses WHERE {{first}} AND {RESPONSE_IS_THERE}
        UNION ALL
        SELECT responses.id, responses.number, responses.holder, responses.last_position, responses.previous
        FROM lineage JOIN responses ON responses.number = lineage.previous
    )
    SELECT id, number, holder, last_position FROM lineage LIMIT ?
"""
_SELECT_LINEAGE_OF = _SELECT_LINEAGE.format(first=_BY_ID)
_SELECT_LINEAGE_BEFORE = _SELECT_LINEAGE.format(first="number = (SELECT previous FROM responses WHERE number = ?)")
_SELECT_REMOVALS = f"""
    SELECT coalesce((SELECT removals FROM conversations WHERE conversations.number = responses.holder), 0)
    FROM responses WHERE number = ? AND {RESPONSE_IS_THERE}
"""
_SELECT_SEGMENT = f"""
    SELECT {DATA}, position FROM items WHERE conversation = ? AND position > ? AND position <= ?
    ORDER BY position LIMIT ?
"""


class StoredResponse(NamedTuple):
    """A response as it is stored: its number, that of the conversation where it begins, its serialized message, and
    whether that conversation is there.
    """

    number: int
    origin: int | None
    data: bytes
    is_there: int


def record_response(
    connection: Connection,
    project: str,
    response: NewResponse,
    attempt: IdempotentWrite | None = None,
    *,
    sizes: Sizes = NO_LIMITS,
) -> bytes:
    """Stores a response with its items, and the project if it is new."""
    project_at = project_number(connection, project)
    if earlier := find_request(connection, project_at, attempt):
        return _recorded(connection, earlier)
    _make_room(connection, project, response.id)
    previous, origin = _predecessors(connection, project, response)
    connection.execute(_INSERT, (project_at, response.id, previous, origin, response.data))
    (number,) = connection.execute("SELECT last_insert_rowid()").fetchone()
    holder = ItemOwner(project_at, origin if origin and previous is None else -number)
    append(connection, holder, {"input": response.input, "output": response.output}, sizes)
    (last_position,) = connection.execute(_SELECT_LAST_POSITION, (holder.number,)).fetchone()
    connection.execute(_SETTLE, (holder.number, last_position, number))
    record_request(connection, project_at, attempt, IdempotencyRecord(-number))
    return response.data


def find_response(connection: sqlite3.Connection, project: str, response_id: str) -> StoredResponse:
    """Finds a response, or raises."""
    response = _find(connection, project, response_id)
    if not response or not response.is_there:
        raise response_not_found(response_id)
    return response


def delete_response(connection: sqlite3.Connection, project: str, response_id: str) -> None:
    """Deletes a response, whose items `sweep` will remove where they are its own."""
    response = find_response(connection, project, response_id)
    follower: tuple[str] | None = connection.execute(_SELECT_FOLLOWER, (response.number,)).fetchone()
    if follower:
        raise response_in_use(response_id, follower[0])
    _remove(connection, response)


def find_lineage(
    connection: sqlite3.Connection, project: str, response_id: str, after: ResponseItems | None, limit: int
) -> ResponseChain:
    """Finds segments of a response and of those that it follows, the newest first. Raises `NotFound`."""
    if after is None:
        rows = connection.execute(_SELECT_LINEAGE_OF, (project, response_id, limit + 1)).fetchall()
    else:
        rows = connection.execute(_SELECT_LINEAGE_BEFORE, (after.number, limit + 1)).fetchall()
    if not rows:
        raise previous_response_not_found(response_id)
    return ResponseChain([ResponseItems(*row) for row in rows[:limit]], len(rows) > limit)


def find_segment(
    connection: sqlite3.Connection, segment: ResponseItems, position: int, limit: int, max_bytes: int, max_read: int
) -> ItemSlice:
    """Reads what a segment has after a position, or raises."""
    row: tuple[int] | None = connection.execute(_SELECT_REMOVALS, (segment.number,)).fetchone()
    if row is None:
        raise previous_response_not_found(segment.response_id)
    values = (max_read, segment.holder, position, segment.last_position, limit + 1)
    with closing(connection.execute(_SELECT_SEGMENT, values)) as rows:
        return growth(rows, position, row[0], limit, max_bytes)


def _find(connection: sqlite3.Connection, project: str, response_id: str) -> StoredResponse | None:
    row = connection.execute(_SELECT, (project, response_id)).fetchone()
    return row and StoredResponse(*row)


def _predecessors(connection: sqlite3.Connection, project: str, response: NewResponse) -> tuple[int | None, int | None]:
    """The numbers of the response that a new one follows, and of the conversation where it begins."""
    if response.conversation is not None:
        return None, find_conversation(connection, project, response.conversation).number
    if response.previous is None:
        return None, None
    previous = _find(connection, project, response.previous)
    if not previous or not previous.is_there:
        raise previous_response_not_found(response.previous)
    return previous.number, previous.origin


def _recorded(connection: sqlite3.Connection, earlier: IdempotencyRecord) -> bytes:
    """The response that an earlier write recorded."""
    row: tuple[bytes] | None = connection.execute(_SELECT_BY_NUMBER, (-earlier.holder,)).fetchone()
    if row is None:
        raise recorded_response_gone()
    return row[0]


def _make_room(connection: sqlite3.Connection, project: str, response_id: str) -> None:
    """Refuses an id that is taken, unless what has it only waits to be swept."""
    response = _find(connection, project, response_id)
    if response and response.is_there:
        raise response_already_exists(response_id)
    if response:
        _remove(connection, response)


def _remove(connection: sqlite3.Connection, response: StoredResponse) -> None:
    connection.execute("DELETE FROM responses WHERE number = ?", (response.number,))
    connection.execute("INSERT INTO deleted_conversations (number) VALUES (?)", (-response.number,))
