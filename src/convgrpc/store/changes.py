"""What each write does to the tables, inside a transaction that others begin and end."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from convgrpc.errors import item_already_in_conversation, item_not_found, referenced_item_not_found
from convgrpc.store.lookups import IN_CONVERSATION, StoredConversation, find_conversation, find_item
from convgrpc.store.protocol import NewItem, Origin

SWEPT_AT_ONCE = 500
"""How many items of a deleted conversation one transaction removes."""

# The order is that of the index. Among items whose ids clients made up, those of the conversation created last win.
_SELECT_BEST_ITEM = """
    SELECT minted, data FROM items
    WHERE project = ? AND id = ? AND EXISTS (SELECT 1 FROM conversations WHERE number = items.conversation)
    ORDER BY minted DESC, conversation DESC, position DESC LIMIT 1
"""
_INSERT_ITEM = "INSERT INTO items (project, conversation, id, minted, data) VALUES (?, ?, ?, ?, ?)"
_DELETE_ITEM = f"DELETE FROM items WHERE {IN_CONVERSATION}"
_SWEEP_ITEMS = """
    DELETE FROM items WHERE position IN (SELECT position FROM items WHERE conversation = ? ORDER BY position LIMIT ?)
"""


class _Content(NamedTuple):
    """What an id stands for, and whether the id is of this store's making."""

    minted: bool
    data: bytes


def create_conversation(
    connection: sqlite3.Connection, project: str, conversation_id: str, data: bytes, items: Sequence[NewItem]
) -> None:
    """Stores a conversation with its first items, and the project if it is new."""
    connection.execute("INSERT INTO projects (name) VALUES (?) ON CONFLICT DO NOTHING", (project,))
    connection.execute(
        "INSERT INTO conversations (project, id, data) SELECT number, ?, ? FROM projects WHERE name = ?",
        (conversation_id, data, project),
    )
    append_items(connection, project, conversation_id, items)


def update_conversation(
    connection: sqlite3.Connection, project: str, conversation_id: str, change: Callable[[bytes], bytes]
) -> bytes:
    """Replaces a conversation by what `change` makes of it."""
    conversation = find_conversation(connection, project, conversation_id)
    data = change(conversation.data)
    connection.execute("UPDATE conversations SET data = ? WHERE number = ?", (data, conversation.number))
    return data


def delete_conversation(connection: sqlite3.Connection, project: str, conversation_id: str) -> None:
    """Deletes a conversation, whose items `sweep` will remove."""
    conversation = find_conversation(connection, project, conversation_id)
    connection.execute("DELETE FROM conversations WHERE number = ?", (conversation.number,))
    connection.execute("INSERT INTO deleted_conversations (number) VALUES (?)", (conversation.number,))


def append_items(
    connection: sqlite3.Connection, project: str, conversation_id: str, items: Sequence[NewItem]
) -> list[bytes]:
    """Appends items and returns them as they were stored."""
    conversation = find_conversation(connection, project, conversation_id)
    contents: dict[str, _Content] = {}
    rows = []
    # Nothing is inserted before all is settled: what is in the conversation then was there before this request.
    for item in items:
        content = contents[item.id] = _content(connection, conversation, item, contents)
        rows.append((conversation.project, conversation.number, item.id, content.minted, content.data))
    connection.executemany(_INSERT_ITEM, rows)
    return [row[-1] for row in rows]


def delete_item(connection: sqlite3.Connection, project: str, conversation_id: str, item_id: str) -> bytes:
    """Removes an item wherever it stands in the conversation, and returns the conversation."""
    conversation = find_conversation(connection, project, conversation_id)
    if not connection.execute(_DELETE_ITEM, (conversation.project, item_id, conversation.number)).rowcount:
        raise item_not_found(item_id)
    return conversation.data


def sweep(connection: sqlite3.Connection) -> bool:
    """Removes, in a transaction of its own, some items of a deleted conversation; says whether there were any."""
    deleted = connection.execute("SELECT number FROM deleted_conversations LIMIT 1").fetchone()
    if deleted is None:
        return False
    (number,) = deleted
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute(_SWEEP_ITEMS, (number, SWEPT_AT_ONCE)).rowcount < SWEPT_AT_ONCE:
        connection.execute("DELETE FROM deleted_conversations WHERE number = ?", (number,))
    connection.execute("COMMIT")
    return True


def _content(
    connection: sqlite3.Connection,
    conversation: StoredConversation,
    item: NewItem,
    earlier: Mapping[str, _Content],
) -> _Content:
    """Settles what is stored for a new item; `earlier` has the items before it in the same request."""
    if item.origin is Origin.MINTED:
        return _Content(True, item.data)
    if find_item(connection, conversation, item.id) is not None:
        raise item_already_in_conversation()
    known = earlier.get(item.id) or _best(connection, conversation.project, item.id)
    if item.origin is Origin.SENT:
        return known if known and known.minted else _Content(False, item.data)
    if known is None:
        raise referenced_item_not_found(item.id)
    return known


def _best(connection: sqlite3.Connection, project: int, item_id: str) -> _Content | None:
    row = connection.execute(_SELECT_BEST_ITEM, (project, item_id)).fetchone()
    return row and _Content(*row)
