"""Forks: conversations that begin as copies of others."""

import sqlite3
from collections.abc import Callable

from convgrpc.errors import fork_too_large, item_not_found, item_too_large
from convgrpc.storage.interface import NO_LIMITS, NewConversation, Sizes
from convgrpc.storage.sqlite.database import Connection
from convgrpc.storage.sqlite.idempotency import (
    IdempotencyRecord,
    IdempotentWrite,
    created_conversation,
    find_request,
    record_request,
)
from convgrpc.storage.sqlite.mutations import count_items, insert_conversation, project_number
from convgrpc.storage.sqlite.queries import LAST_POSITION, StoredConversation, find_conversation

MAX_FORKED_ITEMS = 10_000
MAX_FORKED_BYTES = 32 << 20
"""How much a fork copies: all other writes wait for it, a third of a second for so much."""

_PARAM = "last_item_id"

_IS_THERE_MORE = "SELECT 1 FROM items WHERE conversation = ? AND position <= ? LIMIT 1 OFFSET ?"
_MEASURE = """
    SELECT count(*), coalesce(sum(length(data)), 0), coalesce(max(length(data)), 0) FROM items
    WHERE conversation = ? AND position <= ?
"""
_COPY = """
    INSERT INTO items (project, conversation, id, minted, data)
    SELECT project, ?, id, minted, data FROM items WHERE conversation = ? AND position <= ? ORDER BY position
"""
_END = 2**63 - 1


def fork_conversation(
    connection: Connection,
    project: str,
    conversation_id: str,
    last_item_id: str | None,
    fork: Callable[[bytes], NewConversation],
    attempt: IdempotentWrite | None = None,
    *,
    sizes: Sizes = NO_LIMITS,
) -> bytes:
    """Stores what `fork` makes of a conversation, with the same items up to one."""
    project_at = project_number(connection, project)
    if earlier := find_request(connection, project_at, attempt):
        return created_conversation(connection, earlier)
    origin = find_conversation(connection, project, conversation_id)
    last = _END if last_item_id is None else _last_position(connection, origin, last_item_id)
    count, size = _measured(connection, origin, last, sizes)
    new = fork(origin.data)
    copy = insert_conversation(connection, project_at, new, sizes)
    count_items(connection, copy.holder, count, size, sizes, param=_PARAM)
    connection.execute(_COPY, (copy.number, origin.number, last))
    record_request(connection, project_at, attempt, IdempotencyRecord(copy.number))
    return new.data


def _last_position(connection: sqlite3.Connection, conversation: StoredConversation, item_id: str) -> int:
    place = (conversation.project, item_id, conversation.number)
    (position,) = connection.execute(LAST_POSITION, place).fetchone()
    if position is None:
        raise item_not_found(item_id, param=_PARAM)
    return int(position)


def _measured(
    connection: sqlite3.Connection, conversation: StoredConversation, last: int, sizes: Sizes
) -> tuple[int, int]:
    """How many items a conversation has up to a position, and bytes in them; raises when it is too much to copy."""
    too_large = fork_too_large(MAX_FORKED_ITEMS, MAX_FORKED_BYTES, param=_PARAM)
    # By the index alone: what is read below is no more than what may be copied.
    if connection.execute(_IS_THERE_MORE, (conversation.number, last, MAX_FORKED_ITEMS)).fetchone():
        raise too_large
    count, total, largest = connection.execute(_MEASURE, (conversation.number, last)).fetchone()
    if total > MAX_FORKED_BYTES:
        raise too_large
    if 0 < sizes.item_bytes < largest:
        raise item_too_large(sizes.item_bytes, param=_PARAM)
    return count, total
