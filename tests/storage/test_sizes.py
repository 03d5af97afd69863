"""Limits on how large things become: what would go beyond them is refused, and nothing of it is stored."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from convgrpc.errors import ResourceExhausted
from convgrpc.storage.interface import NewConversation, NewItem, NewResponse, Origin, RequestKey, Sizes
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.item_pb2 import ConversationItem, McpListTools


def run(path: Path, sizes: Sizes, scenario: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def opened() -> None:
        store = SqliteStore.open(path, synchronous="OFF", sizes=sizes)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(opened())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "convgrpc.db"


def conversation(name: str) -> NewConversation:
    return NewConversation(name, b"data", {})


def items(*names: str, data: bytes = b"data") -> list[NewItem]:
    return [NewItem(name, data, Origin.MINTED) for name in names]


async def stored(store: SqliteStore, name: str) -> int:
    page = await store.list_items("alder", name, after=None, limit=100, descending=False, max_bytes=1 << 20)
    return len(page.items)


def test_an_item_has_a_largest_size(path: Path) -> None:
    """However it comes: with a conversation, after it, with a response, or copied by its id."""

    async def before(store: SqliteStore) -> None:
        await store.create_conversation("alder", conversation("a"), items("large", data=b"12345"), None)

    async def scenario(store: SqliteStore) -> None:
        await store.create_conversation("alder", conversation("b"), items("small", data=b"1234"), None)
        for new in (items("x", "y", data=b"12345"), [NewItem("large", b"", Origin.REFERENCE)]):
            with pytest.raises(ResourceExhausted, match="more than 4 bytes") as refused:
                await store.append_items("alder", "b", [*items("z", data=b"1"), *new], None)
            assert refused.value.param == "items[1]"
            with pytest.raises(ResourceExhausted, match="more than 4 bytes"):
                await store.create_conversation("alder", conversation("c"), new, None)
            with pytest.raises(ResourceExhausted, match="more than 4 bytes") as refused:
                await store.record_response("alder", NewResponse("r", b"", None, None, [], new), None)
            assert refused.value.param == "output[0]"
        assert await stored(store, "b") == 1

    run(path, Sizes(), before)
    run(path, Sizes(item_bytes=4), scenario)


def test_a_conversation_has_a_most_of_items(path: Path) -> None:
    """Those of responses on it count, those that were removed do not, and a request that is repeated adds none."""

    async def scenario(store: SqliteStore) -> None:
        await store.create_conversation("alder", conversation("a"), items("1"), None)
        key = RequestKey("append", "key", b"digest")
        for _ in range(3):
            await store.append_items("alder", "a", items("2", "2"), None, request=key)
        with pytest.raises(ResourceExhausted, match="more than 4 items"):
            await store.append_items("alder", "a", items("3", "4"), None)
        assert await stored(store, "a") == 3
        await store.record_response("alder", NewResponse("r", b"", None, "a", items("3"), []), None)
        with pytest.raises(ResourceExhausted, match="more than 4 items"):
            await store.record_response("alder", NewResponse("s", b"", None, "a", [], items("4")), None)
        await store.delete_item("alder", "a", "2", None)
        await store.append_items("alder", "a", items("4", "5"), None)
        with pytest.raises(ResourceExhausted):
            await store.append_items("alder", "a", items("6"), None)
        with pytest.raises(ResourceExhausted):
            await store.create_conversation("alder", conversation("b"), items(*"12345"), None)
        await store.record_response("alder", NewResponse("t", b"", None, None, items(*"12345"), []), None)

    run(path, Sizes(conversation_items=4), scenario)


def test_a_project_has_a_most_of_conversations(path: Path) -> None:
    """Other projects have theirs; one that is deleted makes room at once."""

    async def scenario(store: SqliteStore) -> None:
        for name in ("a", "b"):
            await store.create_conversation("alder", conversation(name), [], None)
        for _ in range(3):
            with pytest.raises(ResourceExhausted, match="more than 2 conversations"):
                await store.create_conversation("alder", conversation("c"), [], None)
        await store.create_conversation("birch", conversation("c"), [], None)
        await store.delete_conversation("alder", "a", None)
        await store.create_conversation("alder", conversation("c"), [], None)
        with pytest.raises(ResourceExhausted):
            await store.create_conversation("alder", conversation("d"), [], None)

    run(path, Sizes(project_conversations=2), scenario)


def test_a_project_has_a_most_of_bytes(path: Path) -> None:
    """Of all its items, copies too. What is removed makes room at once, and what is deleted soon."""

    async def scenario(store: SqliteStore) -> None:
        await store.create_conversation("alder", conversation("a"), items("1", "2", data=b"12345"), None)
        await store.create_conversation("alder", conversation("b"), [NewItem("1", b"", Origin.REFERENCE)], None)
        for refused in (items("3", data=b"123456"), [NewItem("2", b"", Origin.REFERENCE), *items("3", data=b"1")]):
            with pytest.raises(ResourceExhausted, match="more than 20 bytes") as raised:
                await store.append_items("alder", "b", refused, None)
            assert raised.value.param == "items"
        await store.create_conversation("birch", conversation("a"), items("3", data=b"1" * 20), None)
        await store.append_items("alder", "b", items("3", data=b"12345"), None)
        with pytest.raises(ResourceExhausted):
            await store.record_response("alder", NewResponse("r", b"", None, None, items("4"), []), None)
        await store.delete_item("alder", "b", "1", None)
        await store.record_response("alder", NewResponse("r", b"", None, None, items("4", data=b"12345"), []), None)
        with pytest.raises(ResourceExhausted):
            await store.append_items("alder", "b", items("5", data=b"1"), None)
        await store.delete_conversation("alder", "a", None)
        async with asyncio.timeout(30):
            while not await is_stored(store, items("5", data=b"1" * 10)):
                await asyncio.sleep(0.01)
        assert not await is_stored(store, items("6", data=b"1"))

    async def is_stored(store: SqliteStore, new: list[NewItem]) -> bool:
        try:
            await store.append_items("alder", "b", new, None)
        except ResourceExhausted:
            return False
        return True

    run(path, Sizes(project_bytes=20), scenario)


def test_what_is_there_already_counts(path: Path) -> None:
    """In a database of a version that did not count."""

    async def before(store: SqliteStore) -> None:
        await store.create_conversation("alder", conversation("a"), items("1", "2"), None)

    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(ResourceExhausted, match="more than 2 items"):
            await store.append_items("alder", "a", items("3"), None)
        with pytest.raises(ResourceExhausted, match="more than 1 conversations"):
            await store.create_conversation("alder", conversation("b"), [], None)

    async def full(store: SqliteStore) -> None:
        with pytest.raises(ResourceExhausted, match="more than 9 bytes"):
            await store.append_items("alder", "a", items("3", data=b"12"), None)
        await store.append_items("alder", "a", items("3", data=b"1"), None)

    run(path, Sizes(), before)
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE conversations DROP COLUMN items")
        database.execute("ALTER TABLE projects DROP COLUMN conversations")
        database.execute("ALTER TABLE projects DROP COLUMN bytes")
        database.execute("DELETE FROM _sqlite_migrations WHERE name IN ('count_contents', 'count_bytes')")
        database.commit()
    run(path, Sizes(conversation_items=2, project_conversations=1), scenario)
    run(path, Sizes(project_bytes=9), full)


def test_errors_of_listings_survive_their_change_of_type(path: Path) -> None:
    """They were strings in another field of `McpListTools`. The project's byte count is updated."""
    listing = McpListTools(server_label="s").SerializeToString() + b"\x1a\x04oops"
    old, other = ConversationItem(id="mcpl_1"), ConversationItem(id="msg_1", source_json="\u0281")
    old.mcp_list_tools.ParseFromString(listing)
    kept = [NewItem(each.id, each.SerializeToString(), Origin.SENT) for each in (old, other)]

    async def before(store: SqliteStore) -> None:
        await store.create_conversation("alder", conversation("a"), kept, None)

    async def after(store: SqliteStore) -> None:
        page = await store.list_items("alder", "a", after=None, limit=10, descending=False, max_bytes=1 << 20)
        read, untouched = map(ConversationItem.FromString, page.items)
        assert read.mcp_list_tools.error.text == "oops"
        assert page.items[0].count(b"oops") == 1
        assert untouched == other

    run(path, Sizes(), before)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM _sqlite_migrations WHERE name = 'type_listing_errors'")
        database.commit()
    run(path, Sizes(), after)
    with closing(sqlite3.connect(path)) as database:
        (counted,) = database.execute("SELECT bytes FROM projects").fetchone()
        assert (counted,) == database.execute("SELECT sum(length(data)) FROM items").fetchone()
