"""Writes that name what is to be copied: a few bytes make much of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from convgrpc.storage.interface import (
    Append,
    Commit,
    NewConversation,
    NewItem,
    NewResponse,
    Origin,
    RequestKey,
)
from convgrpc.storage.sqlite.store import SqliteStore
from tests.storage.holding import together

PROJECT = "alder"
LARGE = NewItem("msg_large", bytes(400 << 10), Origin.MINTED)
REFERENCE = NewItem(LARGE.id, b"", Origin.REFERENCE)
SENT_AGAIN = NewItem(LARGE.id, b"other", Origin.SENT)
KEY = RequestKey("CreateItems", "key", b"digest")

Write = Callable[[SqliteStore, str], Awaitable[object]]


def create(store: SqliteStore, name: str, *items: NewItem) -> Awaitable[bytes]:
    return store.create_conversation(PROJECT, NewConversation(name, b"", {}), items, None)


def append(item: NewItem) -> Write:
    return lambda store, name: store.append_items(PROJECT, name, [item], None)


def respond(store: SqliteStore, name: str) -> Awaitable[bytes]:
    return store.record_response(PROJECT, NewResponse(f"resp_{name}", b"", None, None, [REFERENCE], []), None)


def repeat(store: SqliteStore, name: str) -> Awaitable[list[bytes]]:
    return store.append_items(PROJECT, "conv_0", [REFERENCE], None, request=KEY)


WRITES: dict[str, Write] = {
    "references": append(REFERENCE),
    "ids of this store's making": append(SENT_AGAIN),
    "new conversations": lambda store, name: create(store, f"new_{name}", REFERENCE),
    "several appends": lambda store, name: store.append_batch(PROJECT, [Append(name, [REFERENCE])], None),
    "responses": respond,
    "repeated writes": repeat,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_no_commit_copies_more_than_others_may_wait_for(tmp_path: Path, write: Write) -> None:
    """About one MiB, however little the writes were sent; and of answers, no more is read at once."""

    async def scenario() -> None:
        commits: list[Commit] = []
        store = SqliteStore.open(tmp_path / "convgrpc.db", synchronous="OFF", observe=commits.append)
        names = [f"conv_{number}" for number in range(5)]
        try:
            for name in names:
                await create(store, name)
            await create(store, "source", LARGE)
            if write is repeat:
                await repeat(store, "conv_0")
            commits.clear()
            outcomes = await together(store, PROJECT, "source", *(write(store, name) for name in names))
            assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            assert [commit.writes for commit in commits] == [1, 2, 2, 1], "the one that held them up comes first"
        finally:
            await store.close()

    asyncio.run(scenario())


def test_no_commit_stores_more_items_than_others_may_wait_for(tmp_path: Path) -> None:
    """About 2,000, however small they are."""

    async def scenario() -> None:
        commits: list[Commit] = []
        store = SqliteStore.open(tmp_path / "convgrpc.db", synchronous="OFF", observe=commits.append)
        try:
            for number in range(5):
                await create(store, f"conv_{number}")
            await create(store, "source")
            commits.clear()
            some = [[NewItem(f"msg_{number}_{at}", b"", Origin.MINTED) for at in range(500)] for number in range(5)]
            appends = [store.append_items(PROJECT, f"conv_{at}", items, None) for at, items in enumerate(some)]
            outcomes = await together(store, PROJECT, "source", *appends)
            assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            assert [commit.writes for commit in commits] == [1, 4, 1], "the one that held them up comes first"
        finally:
            await store.close()

    asyncio.run(scenario())
