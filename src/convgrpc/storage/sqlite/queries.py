"""What is read from the tables."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from convgrpc.errors import (
    answer_too_large,
    conversation_cursor_not_found,
    conversation_not_found,
    cursor_not_found,
    item_not_found,
    referenced_item_not_found,
)
from convgrpc.storage.interface import (
    ConversationPage,
    ItemSlice,
    NewItem,
    Origin,
    Page,
    PositionRange,
    Reference,
    Version,
)
from convgrpc.storage.sqlite.large_reads import LargeRead

_BEFORE_FIRST = 0
_AFTER_LAST = 2**63 - 1

IN_CONVERSATION = "project = ? AND id = ? AND minted IN (0, 1) AND conversation = ?"
"""The condition that finds an item in one conversation, in the words that fit the index."""

LAST_POSITION = f"SELECT max(position) FROM items WHERE {IN_CONVERSATION}"
"""Finds the last place of an item in one conversation."""

_SELECT_CONVERSATION = """
    SELECT project, number, data FROM conversations
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND id = ?
"""
_SELECT_VERSION = """
    SELECT project, number, items, removals FROM conversations
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND id = ?
"""
_SELECT_BY_NUMBER = "SELECT id, data FROM conversations WHERE number = ?"
_SELECT_NUMBERS = """
    SELECT number FROM conversations
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND number < ? ORDER BY number DESC LIMIT ?
"""
_SELECT_NUMBERS_BY_PAIR = """
    SELECT conversation FROM metadata
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND key = ? AND value = ? AND conversation < ?
    ORDER BY conversation DESC LIMIT ?
"""
_SELECT_LAST_ID = "SELECT id FROM items WHERE conversation = ? ORDER BY position DESC LIMIT 1"
DATA = "CASE WHEN length(data) <= ? THEN data END"
"""The data of an item, or NULL for an item that has more bytes."""
_SELECT_ITEM = f"SELECT {DATA} FROM items WHERE {IN_CONVERSATION} LIMIT 1"
_SELECT_PRESENCE = f"SELECT 1 FROM items WHERE {IN_CONVERSATION} LIMIT 1"
RESPONSE_IS_THERE = """
    (origin IS NULL OR EXISTS (SELECT 1 FROM conversations WHERE conversations.number = responses.origin))
"""
"""The condition that keeps out responses which begin on a conversation that was deleted: they wait to be swept."""

# The order is that of the index. Among items whose ids clients made up, those of the conversation created last win, and
# those of any conversation over those of responses.
_SELECT_STANDING = f"""
    SELECT {{columns}} FROM items
    WHERE project = ? AND id = ? AND (
        EXISTS (SELECT 1 FROM conversations WHERE number = items.conversation)
        OR EXISTS (SELECT 1 FROM responses WHERE number = -items.conversation AND {RESPONSE_IS_THERE})
    )
    ORDER BY minted DESC, conversation DESC, position DESC LIMIT 1
"""
_SELECT_CONTENT = _SELECT_STANDING.format(columns="minted, data")
_SELECT_MINTED = _SELECT_STANDING.format(columns="minted, CASE WHEN minted THEN data END")
_SELECT_PLACE = _SELECT_STANDING.format(columns="position, length(data)")
_SELECT_SIZE = _SELECT_STANDING.format(columns="minted, length(data)")
_SELECT_AT = "SELECT data FROM items WHERE position = ?"
_SELECT_PROJECT = "SELECT number FROM projects WHERE name = ?"
_SELECT_REMOVALS = """
    SELECT number, removals FROM conversations
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND id = ?
"""
_SELECT_GROWTH = f"""
    SELECT {DATA}, position FROM items WHERE conversation = ? AND position > ? AND position <= ?
    ORDER BY position LIMIT ?
"""
_SELECT_TAIL = f"""
    SELECT {DATA}, position FROM items WHERE conversation = ? AND position < ? AND position <= ?
    ORDER BY position DESC LIMIT ?
"""
_SELECT_END = "SELECT max(position) FROM items WHERE conversation = ?"
_SELECT_FIRST_POSITION = f"SELECT min(position) FROM items WHERE {IN_CONVERSATION}"
_SELECT_ASCENDING = f"SELECT {DATA} FROM items WHERE conversation = ? AND position > ? ORDER BY position LIMIT ?"
_SELECT_DESCENDING = f"SELECT {DATA} FROM items WHERE conversation = ? AND position < ? ORDER BY position DESC LIMIT ?"


class ItemOwner(NamedTuple):
    """What items are in: a conversation, by its number, or a response that is on none, by minus its number."""

    project: int
    number: int


class StoredConversation(NamedTuple):
    """A conversation as it is stored: by which numbers it is known, and its serialized message."""

    project: int
    number: int
    data: bytes

    @property
    def holder(self) -> ItemOwner:
        return ItemOwner(self.project, self.number)


def find_conversation(connection: sqlite3.Connection, project: str, conversation_id: str) -> StoredConversation:
    """Finds a conversation, or raises."""
    row = connection.execute(_SELECT_CONVERSATION, (project, conversation_id)).fetchone()
    if row is None:
        raise conversation_not_found(conversation_id)
    return StoredConversation(*row)


def find_version(connection: sqlite3.Connection, project: str, conversation_id: str) -> Version:
    """Finds of which version a conversation is, or raises."""
    row = connection.execute(_SELECT_VERSION, (project, conversation_id)).fetchone()
    if row is None:
        raise conversation_not_found(conversation_id)
    return Version(*row)


def has_item(connection: sqlite3.Connection, holder: ItemOwner, item_id: str) -> bool:
    """Tells whether an item is in a conversation, or in a response on none."""
    return connection.execute(_SELECT_PRESENCE, (holder.project, item_id, holder.number)).fetchone() is not None


class Content(NamedTuple):
    """What an id stands for, and whether the id is of this store's making."""

    minted: bool
    data: bytes


def find_content(connection: sqlite3.Connection, project: int, item_id: str) -> Content | None:
    """Finds what an id stands for in a project, in whichever conversation or response."""
    row = connection.execute(_SELECT_CONTENT, (project, item_id)).fetchone()
    return row and Content(*row)


def find_minted(connection: sqlite3.Connection, project: int, item_id: str) -> Content | None:
    """Finds what an id of this store's making stands for. Reads nothing of an item whose id a client made up."""
    row = connection.execute(_SELECT_MINTED, (project, item_id)).fetchone()
    return Content(*row) if row and row[0] else None


def find_references(connection: sqlite3.Connection, project: str, item_ids: Sequence[str]) -> list[Reference]:
    """Finds the items that ids stand for in a project. Raises `NotFound`."""
    row = connection.execute(_SELECT_PROJECT, (project,)).fetchone()
    references = []
    for item_id in item_ids:
        found = row and connection.execute(_SELECT_PLACE, (row[0], item_id)).fetchone()
        if found is None:
            raise referenced_item_not_found(item_id, param="input")
        references.append(Reference(item_id, *found))
    return references


def find_brought(connection: sqlite3.Connection, project: str, items: Sequence[NewItem], sizes: dict[str, int]) -> int:
    """Returns the bytes of the items for which new items stand by their ids, stored ones or earlier new ones.

    `sizes` are those of the ids before, and get those of these.
    """
    row = connection.execute(_SELECT_PROJECT, (project,)).fetchone()
    brought = 0
    for item in items:
        if item.id not in sizes:
            found = row and connection.execute(_SELECT_SIZE, (row[0], item.id)).fetchone()
            sizes[item.id] = found[1] if found and (found[0] or item.origin is Origin.REFERENCE) else len(item.data)
        brought += max(0, sizes[item.id] - len(item.data))
    return brought


def find_referenced(connection: sqlite3.Connection, references: Sequence[Reference]) -> list[bytes]:
    """Reads items that were found. Raises `NotFound` for one that was deleted since."""
    items = []
    for reference in references:
        row = connection.execute(_SELECT_AT, (reference.position,)).fetchone()
        if row is None:
            raise referenced_item_not_found(reference.item_id, param="input")
        items.append(row[0])
    return items


def find_items(
    connection: sqlite3.Connection,
    conversation: StoredConversation,
    item_ids: Sequence[str],
    max_bytes: int,
    max_read: int,
) -> list[bytes]:
    """Finds items of a conversation, all of them, or raises."""
    items: list[bytes] = []
    size = 0
    for item_id in item_ids:
        row = connection.execute(
            _SELECT_ITEM, (max_read, conversation.project, item_id, conversation.number)
        ).fetchone()
        if row is None:
            raise item_not_found(item_id)
        (data,) = row
        if data is None:
            raise LargeRead
        size += len(data)
        if items and size > max_bytes:
            raise answer_too_large(max_bytes)
        if size > max_read:
            raise LargeRead
        items.append(data)
    return items


def last_item_id(connection: sqlite3.Connection, conversation: StoredConversation) -> str:
    """The id of a conversation's last item; empty when there is none."""
    row: tuple[str] | None = connection.execute(_SELECT_LAST_ID, (conversation.number,)).fetchone()
    return row[0] if row else ""


def list_conversations(
    connection: sqlite3.Connection,
    project: str,
    *,
    after: str | None,
    limit: int,
    pair: tuple[str, str] | None,
    max_read: int,
) -> ConversationPage:
    """Reads a page of a project's conversations, or of those with one pair of metadata.

    Raises `NotFound` for an unknown cursor. Several pairs take a `Search`.
    """
    before = find_before(connection, project, after)
    select, values = (_SELECT_NUMBERS, ()) if pair is None else (_SELECT_NUMBERS_BY_PAIR, pair)
    numbers = [row[0] for row in connection.execute(select, (project, *values, before, limit + 1))]
    rows: list[Numbered] = []
    size = 0
    for number in numbers[:limit]:
        row = find_by_number(connection, number)
        size += len(row.data)
        if size > max_read:
            raise LargeRead
        rows.append(row)
    cursor = rows[-1].id if rows else after
    return ConversationPage([row.data for row in rows], len(numbers) > limit, cursor)


def find_before(connection: sqlite3.Connection, project: str, after: str | None) -> int:
    """Returns the number below which the conversations after a cursor begin. Raises `NotFound` for an unknown one."""
    if after is None:
        return _AFTER_LAST
    row = connection.execute(_SELECT_CONVERSATION, (project, after)).fetchone()
    if row is None:
        raise conversation_cursor_not_found(after)
    return StoredConversation(*row).number


class Numbered(NamedTuple):
    """The id and the serialized message of a conversation that is known by its number."""

    id: str
    data: bytes


def find_by_number(connection: sqlite3.Connection, number: int) -> Numbered:
    """Returns a conversation by a number that was read from the same snapshot."""
    return Numbered(*connection.execute(_SELECT_BY_NUMBER, (number,)).fetchone())


def list_items(
    connection: sqlite3.Connection,
    version: Version,
    *,
    after: str | None,
    limit: int,
    descending: bool,
    max_bytes: int,
    max_read: int,
) -> Page:
    """Reads a page of a conversation's items."""
    position = _AFTER_LAST if descending else _BEFORE_FIRST
    if after is not None:
        position = _cursor_position(connection, version, after, descending)
    select = _SELECT_DESCENDING if descending else _SELECT_ASCENDING
    with closing(connection.execute(select, (max_read, version.number, position, limit + 1))) as rows:
        return _page(rows, limit, max_bytes, max_read, version)


def find_growth(
    connection: sqlite3.Connection,
    project: str,
    conversation_id: str,
    position: int | None,
    *,
    last: int | None,
    limit: int,
    max_bytes: int,
    descending: bool,
    max_read: int,
) -> ItemSlice:
    """Reads what follows a position of a conversation, or raises."""
    row = connection.execute(_SELECT_REMOVALS, (project, conversation_id)).fetchone()
    if row is None:
        raise conversation_not_found(conversation_id)
    number, removals = row
    if position is None:
        position = _AFTER_LAST if descending else _BEFORE_FIRST
    select = _SELECT_TAIL if descending else _SELECT_GROWTH
    last = _AFTER_LAST if last is None else last
    with closing(connection.execute(select, (max_read, number, position, last, limit + 1))) as rows:
        return growth(rows, position, removals, limit, max_bytes)


def growth(
    rows: Iterable[tuple[bytes | None, int]], position: int, removals: int, limit: int, max_bytes: int
) -> ItemSlice:
    """Makes a page of items and their positions, of which there may be one beyond the page. They follow `position`."""
    items: list[bytes] = []
    size = 0
    for data, at in rows:
        if len(items) == limit or (data is None and items):
            return ItemSlice(items, position, True, removals)
        if data is None:
            raise LargeRead
        size += len(data)
        if items and size > max_bytes:
            return ItemSlice(items, position, True, removals)
        items.append(data)
        position = at
    return ItemSlice(items, position, False, removals)


def find_secret(connection: sqlite3.Connection, name: str) -> bytes:
    """Finds a secret of the database, which is there from the beginning."""
    (value,) = connection.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return bytes(value)


def find_span(
    connection: sqlite3.Connection, conversation: StoredConversation, after: int | str | None
) -> PositionRange:
    """Finds what of a conversation follows a position or an item, or raises."""
    (last,) = connection.execute(_SELECT_END, (conversation.number,)).fetchone()
    if isinstance(after, str):
        after = _cursor_position(connection, conversation, after, False)
    return PositionRange(_BEFORE_FIRST if after is None else after, last or _BEFORE_FIRST)


def _cursor_position(
    connection: sqlite3.Connection, conversation: StoredConversation | Version, item_id: str, descending: bool
) -> int:
    # The occurrence that comes last in the walk: from any other, the walk would come to this id again, without end.
    select = _SELECT_FIRST_POSITION if descending else LAST_POSITION
    (position,) = connection.execute(select, (conversation.project, item_id, conversation.number)).fetchone()
    if position is None:
        raise cursor_not_found(item_id)
    return int(position)


def _page(rows: Iterable[tuple[bytes | None]], limit: int, max_bytes: int, max_read: int, version: Version) -> Page:
    items: list[bytes] = []
    size = 0
    for (data,) in rows:
        if len(items) == limit:
            return Page(items, True, version)
        if data is None:
            raise LargeRead
        size += len(data)
        if items and size > max_bytes:
            return Page(items, True, version)
        if size > max_read:
            raise LargeRead
        items.append(data)
    return Page(items, False, version)
