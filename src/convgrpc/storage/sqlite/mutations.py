"""What each write does to the tables, inside a transaction that others begin and end."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from convgrpc.errors import (
    ConvgrpcError,
    conversation_changed,
    conversation_full,
    copies_too_large,
    item_already_in_conversation,
    item_not_found,
    item_too_large,
    project_full,
    project_out_of_room,
    referenced_item_not_found,
)
from convgrpc.storage.interface import (
    MAX_COPIED_BYTES,
    NO_LIMITS,
    Append,
    BatchAppendResult,
    NewConversation,
    NewItem,
    Origin,
    Sizes,
)
from convgrpc.storage.sqlite.database import Connection
from convgrpc.storage.sqlite.idempotency import (
    IdempotencyRecord,
    IdempotentWrite,
    RetentionWindow,
    appended_items,
    created_conversation,
    find_request,
    forget_requests,
    record_request,
)
from convgrpc.storage.sqlite.queries import (
    IN_CONVERSATION,
    Content,
    ItemOwner,
    StoredConversation,
    find_content,
    find_conversation,
    find_minted,
    has_item,
    last_item_id,
)
from convgrpc.storage.sqlite.write_queue import ITEM_COST

_MAX_BATCH_ITEMS = 2_000
"""How many items `append_batch` appends before others have their turn. The last request may go beyond that."""
SWEPT_AT_ONCE = 500
"""How many items, and how many responses, of a deleted conversation one transaction removes at most."""
SWEPT_BYTES = 1 << 20
"""And of how many bytes, but for the last of them: SQLite may write zeros over each."""

_INSERT_CONVERSATION = "INSERT INTO conversations (project, id, data) VALUES (?, ?, ?) RETURNING number"
_INSERT_ITEM = "INSERT INTO items (project, conversation, id, minted, data) VALUES (?, ?, ?, ?, ?)"
_DELETE_METADATA = "DELETE FROM metadata WHERE conversation = ?"
_DELETE_ITEM = f"DELETE FROM items WHERE {IN_CONVERSATION} RETURNING length(data)"
_COUNT_ITEMS = "UPDATE conversations SET items = items + ? WHERE number = ?"
_COUNT_REMOVAL = "UPDATE conversations SET removals = removals + 1, items = items - ? WHERE number = ?"
_COUNT_CONVERSATIONS = "UPDATE projects SET conversations = conversations + ? WHERE number = ?"
_COUNT_BYTES = "UPDATE projects SET bytes = bytes + ? WHERE number = ?"
_MEASURE_ITEMS = """
    SELECT position, length(data) FROM items WHERE conversation = ? ORDER BY position LIMIT ?
"""
_SWEEP_ITEMS = "DELETE FROM items WHERE conversation = ? AND position <= ? RETURNING length(data), project"
_MEASURE_RESPONSES = "SELECT number, length(data) FROM responses WHERE origin = ? ORDER BY number LIMIT ?"
# The items of a response on no conversation are swept like those of a conversation.
_LEAVE_ITEMS_OF_RESPONSES = """
    INSERT INTO deleted_conversations (number)
    SELECT -number FROM responses WHERE origin = ? AND number <= ? ORDER BY number
"""
_SWEEP_RESPONSES = "DELETE FROM responses WHERE origin = ? AND number <= ?"


def create_conversation(
    connection: Connection,
    project: str,
    conversation: NewConversation,
    items: Sequence[NewItem],
    attempt: IdempotentWrite | None = None,
    *,
    sizes: Sizes = NO_LIMITS,
) -> bytes:
    """Stores a conversation with its first items, and the project if it is new."""
    number = project_number(connection, project)
    if earlier := find_request(connection, number, attempt):
        return created_conversation(connection, earlier)
    stored = insert_conversation(connection, number, conversation, sizes)
    appended = append(connection, stored.holder, {"items": items}, sizes)
    record_request(connection, number, attempt, appended.request(stored.number))
    return conversation.data


def project_number(connection: sqlite3.Connection, project: str) -> int:
    """The number of a project, which is stored if it is new."""
    connection.execute("INSERT INTO projects (name) VALUES (?) ON CONFLICT DO NOTHING", (project,))
    (number,) = connection.execute("SELECT number FROM projects WHERE name = ?", (project,)).fetchone()
    return int(number)


def insert_conversation(
    connection: sqlite3.Connection, project: int, conversation: NewConversation, sizes: Sizes
) -> StoredConversation:
    """Stores a conversation without items."""
    if sizes.project_conversations:
        known = connection.execute("SELECT conversations FROM projects WHERE number = ?", (project,)).fetchone()
        if known[0] >= sizes.project_conversations:
            raise project_full(sizes.project_conversations)
    connection.execute(_COUNT_CONVERSATIONS, (1, project))
    (number,) = connection.execute(_INSERT_CONVERSATION, (project, conversation.id, conversation.data)).fetchone()
    stored = StoredConversation(project, number, conversation.data)
    _insert_metadata(connection, stored, conversation.metadata)
    return stored


def update_conversation(
    connection: Connection,
    project: str,
    conversation_id: str,
    metadata: Mapping[str, str],
    change: Callable[[bytes], bytes],
) -> bytes:
    """Replaces a conversation by what `change` makes of it."""
    conversation = find_conversation(connection, project, conversation_id)
    data = change(conversation.data)
    connection.execute("UPDATE conversations SET data = ? WHERE number = ?", (data, conversation.number))
    connection.bytes_touched += len(data)
    connection.execute(_DELETE_METADATA, (conversation.number,))
    _insert_metadata(connection, conversation, metadata)
    return data


def delete_conversation(connection: sqlite3.Connection, project: str, conversation_id: str) -> None:
    """Deletes a conversation, whose items and responses `sweep` will remove."""
    conversation = find_conversation(connection, project, conversation_id)
    connection.execute("DELETE FROM conversations WHERE number = ?", (conversation.number,))
    connection.execute(_COUNT_CONVERSATIONS, (-1, conversation.project))
    connection.execute(_DELETE_METADATA, (conversation.number,))
    connection.execute("INSERT INTO deleted_conversations (number) VALUES (?)", (conversation.number,))


def append_items(
    connection: Connection,
    project: str,
    new: Append,
    attempt: IdempotentWrite | None = None,
    *,
    sizes: Sizes = NO_LIMITS,
) -> list[tuple[str, bytes]]:
    """Appends items and returns them as they were stored, with their ids."""
    conversation = find_conversation(connection, project, new.conversation_id)
    if earlier := find_request(connection, conversation.project, attempt):
        return appended_items(connection, earlier)
    expected = new.expected_last
    if expected is not None and (last := last_item_id(connection, conversation)) != expected:
        raise conversation_changed(expected, last)
    appended = append(connection, conversation.holder, {"items": new.items}, sizes)
    record_request(connection, conversation.project, attempt, appended.request(conversation.number))
    return [(item.id, data) for item, data in zip(new.items, appended.items, strict=True)]


def append_batch(
    connection: Connection,
    project: str,
    attempts: Iterable[tuple[Append, IdempotentWrite | None]],
    *,
    sizes: Sizes = NO_LIMITS,
) -> BatchAppendResult:
    """Appends the items of several requests, one after the other, up to the first that is refused, or until it is a lot
    that they store: others wait meanwhile, and references make much of little.
    """
    done: list[list[str]] = []
    stored = items = 0
    for new, attempt in attempts:
        connection.execute("SAVEPOINT request")
        try:
            appended = append_items(connection, project, new, attempt, sizes=sizes)
        except ConvgrpcError as refusal:
            connection.execute("ROLLBACK TO request")
            connection.execute("RELEASE request")
            return BatchAppendResult(done, refusal)
        connection.execute("RELEASE request")
        done.append([item_id for item_id, _ in appended])
        stored += sum(len(data) for _, data in appended)
        items += len(appended)
        if stored > MAX_COPIED_BYTES or items > _MAX_BATCH_ITEMS:
            break
    return BatchAppendResult(done, None)


class Appended(NamedTuple):
    """Items as they were stored, and their positions."""

    items: list[bytes]
    positions: range

    def request(self, holder: int) -> IdempotencyRecord:
        """What a request stored that appended them to a conversation."""
        return IdempotencyRecord(holder, self.positions.start, self.positions.stop - 1)


def append(
    connection: Connection, holder: ItemOwner, groups: Mapping[str, Sequence[NewItem]], sizes: Sizes
) -> Appended:
    """Appends the items of several groups, one group after the other. A refusal names the group."""
    contents: dict[str, Content] = {}
    rows = []
    copied = 0
    # Nothing is inserted before all is settled: what is in the conversation then was there before this request.
    for group, number, item in ((group, *each) for group, items in groups.items() for each in enumerate(items)):
        content = contents[item.id] = _content(connection, holder, group, item, contents)
        if 0 < sizes.item_bytes < len(content.data):
            raise item_too_large(sizes.item_bytes, param=f"{group}[{number}]")
        rows.append((holder.project, holder.number, item.id, content.minted, content.data))
        copied += len(content.data) if content.data is not item.data else 0
        if copied > MAX_COPIED_BYTES:
            raise copies_too_large(MAX_COPIED_BYTES, param=group)
    if not rows:
        return Appended([], range(0))
    size = sum(len(row[-1]) for row in rows)
    count_items(connection, holder, len(rows), size, sizes, param=group)
    # What many rows were inserted by does not tell the position of the last.
    if rows[1:]:
        connection.executemany(_INSERT_ITEM, rows[:-1])
    last = connection.execute(_INSERT_ITEM, rows[-1]).lastrowid or 0
    return Appended([row[-1] for row in rows], range(last - len(rows) + 1, last + 1))


def count_items(connection: Connection, holder: ItemOwner, more: int, size: int, sizes: Sizes, *, param: str) -> None:
    """Counts items that a holder gets, and their bytes, or raises. Those of a response on no conversation are as many
    as one request has: it has no count.
    """
    # Before anything is changed: what is refused then costs its neighbours nothing.
    if sizes.conversation_items:
        count = connection.execute("SELECT items FROM conversations WHERE number = ?", (holder.number,)).fetchone()
        if count and count[0] + more > sizes.conversation_items:
            raise conversation_full(sizes.conversation_items, param=param)
    if sizes.project_bytes:
        (total,) = connection.execute("SELECT bytes FROM projects WHERE number = ?", (holder.project,)).fetchone()
        if total + size > sizes.project_bytes:
            raise project_out_of_room(sizes.project_bytes, param=param)
    connection.execute(_COUNT_ITEMS, (more, holder.number))
    connection.execute(_COUNT_BYTES, (size, holder.project))
    connection.bytes_touched += size + more * ITEM_COST


def _insert_metadata(
    connection: sqlite3.Connection, conversation: StoredConversation, metadata: Mapping[str, str]
) -> None:
    rows = [(conversation.number, key, value, conversation.project) for key, value in metadata.items()]
    connection.executemany("INSERT INTO metadata (conversation, key, value, project) VALUES (?, ?, ?, ?)", rows)


def delete_item(connection: sqlite3.Connection, project: str, conversation_id: str, item_id: str) -> bytes:
    """Removes an item wherever it stands in the conversation, and returns the conversation."""
    conversation = find_conversation(connection, project, conversation_id)
    removed = connection.execute(_DELETE_ITEM, (conversation.project, item_id, conversation.number)).fetchall()
    if not removed:
        raise item_not_found(item_id)
    connection.execute(_COUNT_REMOVAL, (len(removed), conversation.number))
    connection.execute(_COUNT_BYTES, (-sum(size for (size,) in removed), conversation.project))
    return conversation.data


def sweep(connection: Connection, window: RetentionWindow) -> bool:
    """Removes, in a transaction of its own, some of what nobody can see any more; says whether there was any."""
    return _sweep_deleted(connection) or forget_requests(connection, window)


def _sweep_deleted(connection: Connection) -> bool:
    (number,) = connection.execute("SELECT min(number) FROM deleted_conversations").fetchone()
    if number is None:
        return False
    connection.execute("BEGIN IMMEDIATE")
    last_response, responses_end = _swept_at_once(connection, _MEASURE_RESPONSES, number)
    connection.execute(_LEAVE_ITEMS_OF_RESPONSES, (number, last_response))
    connection.execute(_SWEEP_RESPONSES, (number, last_response))
    last_item, items_end = _swept_at_once(connection, _MEASURE_ITEMS, number)
    items = connection.execute(_SWEEP_ITEMS, (number, last_item)).fetchall()
    if items:
        # A conversation and all that hangs on it are of one project.
        size, project = sum(size for size, _ in items), items[0][1]
        connection.execute(_COUNT_BYTES, (-size, project))
        connection.bytes_touched += size
    if responses_end and items_end:
        connection.execute("DELETE FROM deleted_conversations WHERE number = ?", (number,))
    connection.execute("COMMIT")
    return True


def _swept_at_once(connection: sqlite3.Connection, measure: str, number: int) -> tuple[int, bool]:
    """Up to which row one transaction sweeps, and whether that is all there is."""
    rows = connection.execute(measure, (number, SWEPT_AT_ONCE)).fetchall()
    last = size = 0
    for row, length in rows:
        if size > SWEPT_BYTES:
            return last, False
        last, size = row, size + length
    return last, len(rows) < SWEPT_AT_ONCE


def _content(
    connection: sqlite3.Connection, holder: ItemOwner, group: str, item: NewItem, earlier: Mapping[str, Content]
) -> Content:
    """Settles what is stored for a new item; `earlier` has the items before it in the same request."""
    if item.origin is Origin.MINTED:
        return Content(True, item.data)
    if has_item(connection, holder, item.id):
        raise item_already_in_conversation(group)
    known = earlier.get(item.id)
    if item.origin is Origin.SENT:
        known = known or find_minted(connection, holder.project, item.id)
        return known if known and known.minted else Content(False, item.data)
    known = known or find_content(connection, holder.project, item.id)
    if known is None:
        raise referenced_item_not_found(item.id)
    return known
