import asyncio
import itertools
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from convgrpc.errors import NotFound, Unavailable
from convgrpc.storage.interface import NewConversation, NewItem, Origin
from convgrpc.storage.sqlite.store import SqliteStore

from .power_cut import PowerCut

APPENDERS = 8
ROUNDS = 25
PROJECT = "default"


@pytest.fixture
def power_cut() -> Iterator[PowerCut]:
    with PowerCut.installed() as installed:
        yield installed


class Acknowledged:
    """What the store answered for: the items of each conversation, or None for one that is deleted."""

    def __init__(self) -> None:
        self.items: dict[str, list[bytes] | None] = {}

    def snapshot(self) -> dict[str, list[bytes] | None]:
        return {name: None if items is None else list(items) for name, items in self.items.items()}


@asynccontextmanager
async def opened(path: Path, synchronous: str = "FULL") -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path, synchronous=synchronous)
    try:
        yield store
    finally:
        await store.close()


async def stored(store: SqliteStore, conversation: str) -> list[bytes] | None:
    try:
        page = await store.list_items(
            PROJECT, conversation, after=None, limit=10_000, descending=False, max_bytes=1 << 30
        )
    except NotFound:
        return None
    return page.items


async def losses(image: Path, acknowledged: dict[str, list[bytes] | None]) -> list[str]:
    """The conversations that are not as they were acknowledged. What came later may be there, or not."""
    async with opened(image) as store:
        lost = []
        for name, expected in acknowledged.items():
            found = await stored(store, name)
            if expected is None or found is None:
                if found != expected:
                    lost.append(name)
            elif found[: len(expected)] != expected:
                lost.append(name)
        return lost


async def append(store: SqliteStore, acknowledged: Acknowledged, appender: int) -> AsyncIterator[None]:
    """Creates a conversation, fills it, and stops after each acknowledgement."""
    name = f"conv_{appender}"
    await store.create_conversation(PROJECT, NewConversation(name, b"", {}), [], None)
    kept: list[bytes] = []
    acknowledged.items[name] = kept
    for turn in range(ROUNDS):
        items = [
            NewItem(f"msg_{appender}_{turn}_{part}", f"{appender} {turn} {part} ".encode() * 1500, Origin.MINTED)
            for part in range(1 + turn % 3)
        ]
        kept += await store.append_items(PROJECT, name, items, None)
        yield


async def delete(store: SqliteStore, acknowledged: Acknowledged, deleter: int) -> AsyncIterator[None]:
    """Creates conversations and deletes an item of each, then the whole, and stops after each acknowledgement."""
    for turn in range(ROUNDS // 3):
        name = f"conv_gone_{deleter}_{turn}"
        items = [NewItem(f"msg_gone_{deleter}_{turn}_{part}", f"{part}".encode(), Origin.MINTED) for part in range(3)]
        await store.create_conversation(PROJECT, NewConversation(name, b"", {}), items, None)
        acknowledged.items[name] = [item.data for item in items]
        yield
        del acknowledged.items[name]
        await store.delete_item(PROJECT, name, items[1].id, None)
        acknowledged.items[name] = [items[0].data, items[2].data]
        yield
        del acknowledged.items[name]
        await store.delete_conversation(PROJECT, name, None)
        acknowledged.items[name] = None
        yield


async def losses_under_load(power_cut: PowerCut, folder: Path, synchronous: str) -> list[str]:
    """Cuts the power again and again while the store works, and returns all that was acknowledged and lost."""
    path = folder / "convgrpc.db"
    async with opened(path):
        pass
    acknowledged = Acknowledged()
    lost: list[str] = []
    count = itertools.count(1)

    async def work(steps: AsyncIterator[None]) -> None:
        async for _ in steps:
            turn = next(count)
            if turn % 10 == 0:
                expected = acknowledged.snapshot()
                lost.extend(await losses(power_cut.image(path, folder / f"cut_{turn}"), expected))

    async with opened(path, synchronous) as store:
        appending = [append(store, acknowledged, appender) for appender in range(APPENDERS)]
        deleting = [delete(store, acknowledged, deleter) for deleter in range(2)]
        await asyncio.gather(*(work(steps) for steps in appending + deleting))
        lost.extend(await losses(power_cut.image(path, folder / "cut_at_the_end"), acknowledged.snapshot()))
    lost.extend(await losses(power_cut.image(path, folder / "cut_after_closing"), acknowledged.snapshot()))
    return lost


def test_power_cut_takes_nothing_that_was_acknowledged(power_cut: PowerCut, tmp_path: Path) -> None:
    """What was acknowledged is there after a power cut at any moment: items in order, conversations, deletions."""
    assert asyncio.run(losses_under_load(power_cut, tmp_path, "FULL")) == []


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_power_cut_is_noticed(power_cut: PowerCut, tmp_path: Path, synchronous: str) -> None:
    """The same test finds losses when SQLite does not sync every commit: it is able to fail."""
    assert asyncio.run(losses_under_load(power_cut, tmp_path, synchronous)) != []


def test_commit_that_does_not_reach_the_disk_fails(
    power_cut: PowerCut, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the disk fails to sync, no write is acknowledged, and those that follow a recovery are."""
    caplog.set_level(logging.CRITICAL, "convgrpc.storage.sqlite.group_commit")

    async def scenario() -> None:
        async with opened(tmp_path / "convgrpc.db") as store:
            await store.create_conversation(PROJECT, NewConversation("conv_1", b"", {}), [], None)
            power_cut.fail_syncs = True
            writes = (
                store.append_items(PROJECT, "conv_1", [NewItem(f"msg_{n}", b"lost", Origin.MINTED)], None)
                for n in range(5)
            )
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 5
            assert await stored(store, "conv_1") == []
            power_cut.fail_syncs = False
            await store.append_items(PROJECT, "conv_1", [NewItem("msg_5", b"kept", Origin.MINTED)], None)
            assert await stored(store, "conv_1") == [b"kept"]

    asyncio.run(scenario())


def test_power_cut_after_a_checkpoint_takes_nothing(power_cut: PowerCut, tmp_path: Path) -> None:
    """What was in the log is there after a power cut when the log was emptied, and when it was begun anew."""
    path = tmp_path / "convgrpc.db"

    async def scenario() -> list[str]:
        acknowledged = Acknowledged()
        lost = []
        async with opened(path) as store:
            async for _ in append(store, acknowledged, 0):
                pass
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            lost += await losses(power_cut.image(path, tmp_path / "cut_after_checkpoint"), acknowledged.snapshot())
            kept = acknowledged.items["conv_0"]
            assert kept is not None
            kept += await store.append_items(PROJECT, "conv_0", [NewItem("msg_later", b"later", Origin.MINTED)], None)
            lost += await losses(power_cut.image(path, tmp_path / "cut_after_more"), acknowledged.snapshot())
        return lost

    assert asyncio.run(scenario()) == []
