"""What many who watch one conversation cost those who do not."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from convgrpc.handlers.reply import Reply
from convgrpc.handlers.watch import ReadSpec, WatchHub
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.conversations_service_pb2 import ConversationItemBatch
from tests.storage.test_store import PROJECT, append, create, minted, run

MANY = 300
PART = ReadSpec(PROJECT, "conv_1", None, None)


def item(name: str) -> Any:
    # A field of a serialized item, as wire format has it.
    return minted(name, f"\n{chr(len(name))}{name}")


def ids(reply: Reply) -> list[str]:
    return [each.id for each in ConversationItemBatch.FromString(reply.data).data]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions from which a store was read."""
    found: list[int] = []
    read = SqliteStore.read_after

    async def noted(self: SqliteStore, project: str, conversation_id: str, position: int, **bounds: Any) -> Any:
        found.append(position)
        return await read(self, project, conversation_id, position, **bounds)

    monkeypatch.setattr(SqliteStore, "read_after", noted)
    return found


def test_what_many_watch_is_read_and_made_once(tmp_path: Path, reads: list[int]) -> None:
    made: list[bytes] = []

    def make(data: bytes) -> bytes:
        made.append(data)
        return data

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", item("item_1"))
        feeds, heard = WatchHub(store), list[str]()

        async def watch() -> None:
            async with aclosing(feeds.watch(PART, new_only=False)) as replies:
                for _ in range(2):
                    reply = await anext(replies)
                    reply.cached_encoding(make)
                    heard.extend(ids(reply))

        async def hear(number: int) -> None:
            while len(heard) < number:
                await asyncio.sleep(0)

        watching = [asyncio.create_task(watch()) for _ in range(MANY)]
        await hear(MANY)
        # The first is alone when it reads, and the last, as the others are gone by then.
        assert len(reads) <= 2
        await append(store, "conv_1", item("item_2"))
        await hear(2 * MANY)
        await asyncio.gather(*watching)
        assert heard == ["item_1"] * MANY + ["item_2"] * MANY
        assert len(reads) <= 4
        assert len(made) == len(reads)

    run(tmp_path, scenario)


def test_what_was_shared_is_read_anew_after_a_change(tmp_path: Path) -> None:
    """Those who come later do not see what was removed meanwhile."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", item("item_1"), item("item_2"), item("item_3"))
        feeds = WatchHub(store)
        async with (
            aclosing(feeds.watch(PART, new_only=False)) as one,
            aclosing(feeds.watch(PART, new_only=False)) as two,
        ):
            assert ids(await anext(one)) == ["item_1", "item_2", "item_3"]
            assert ids(await anext(two)) == ["item_1", "item_2", "item_3"]
            await store.delete_item(PROJECT, "conv_1", "item_2", None)
            await asyncio.sleep(0.05)
            async with aclosing(feeds.watch(PART, new_only=False)) as three:
                assert ids(await anext(three)) == ["item_1", "item_3"]

    run(tmp_path, scenario)


def test_what_comes_while_a_caller_is_busy_is_told_next(tmp_path: Path) -> None:
    """It need not wait for another change."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", item("item_1"))
        async with aclosing(WatchHub(store).watch(PART, new_only=False)) as replies:
            assert ids(await anext(replies)) == ["item_1"]
            for name in ("item_2", "item_3"):
                await append(store, "conv_1", item(name))
                # Long enough to be told, while the caller is not waiting.
                await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                assert ids(await anext(replies)) == ["item_2", "item_3"]

    run(tmp_path, scenario)
