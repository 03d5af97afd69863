"""Databases with as many items as one likes, made directly: by calls, millions would take an hour."""

import random
import sqlite3
import time
from asyncio import run
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.dialogues import message, prose
from convgrpc import ids
from convgrpc.contract.defaults import fill_in
from convgrpc.server.auth import DEFAULT_PROJECT
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.item_pb2 import Role

PROJECT = 1
NOBODY = f"msg_{'0' * 48}"
INSERT_CONVERSATION = "INSERT INTO conversations (number, project, id, data, items) VALUES (?, ?, ?, ?, ?)"
INSERT_ITEM = "INSERT INTO items (project, conversation, id, minted, data) VALUES (?, ?, ?, 1, ?)"


class Stored(NamedTuple):
    """A stored conversation: its id, and those of its items, the newest first."""

    id: str
    item_ids: list[str]


def fill(db: Path, conversations: int, items: int, length: int) -> list[Stored]:
    """Stores conversations with so many items each, of texts of a length; their items came in turn."""
    run(SqliteStore.open(db).close())
    stored = [Stored(ids.conversation_id(), []) for _ in range(conversations)]
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        find = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'items' AND sql IS NOT NULL"
        indexes = connection.execute(find).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        project = (PROJECT, DEFAULT_PROJECT, conversations)
        connection.execute("INSERT INTO projects (number, name, conversations) VALUES (?, ?, ?)", project)
        connection.executemany(INSERT_CONVERSATION, conversation_rows(stored, items))
        connection.executemany(INSERT_ITEM, item_rows(stored, items, length))
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for each in stored:
        each.item_ids.reverse()
    return stored


def conversation_rows(stored: list[Stored], items: int) -> Iterator[tuple[int, int, str, bytes, int]]:
    for number, each in enumerate(stored, start=1):
        conversation = Conversation(id=each.id, created_at=int(time.time()))
        yield number, PROJECT, each.id, conversation.SerializeToString(), items


def item_rows(stored: list[Stored], items: int, length: int) -> Iterator[tuple[int, int, str, bytes]]:
    item = message(Role.ROLE_USER, prose(random.Random(4), length)).item
    item.id = NOBODY
    fill_in(item)
    before, after = item.SerializeToString().split(NOBODY.encode())
    now = time.time()
    for _ in range(items):
        for number, each in enumerate(stored, start=1):
            identity = ids.item_id("msg", each.id, now)
            each.item_ids.append(identity)
            yield PROJECT, number, identity, before + identity.encode() + after
