import asyncio
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from convgrpc.errors import InvalidArgument, NotFound, Unavailable, conversation_not_found
from convgrpc.storage.interface import Append, NewConversation, NewItem, Origin, Page, RequestKey
from convgrpc.storage.sqlite import idempotency, mutations
from convgrpc.storage.sqlite.database import Connection, connect, open_database
from convgrpc.storage.sqlite.idempotency import IdempotentWrite, RetentionWindow
from convgrpc.storage.sqlite.queries import find_version, list_conversations, list_items
from convgrpc.storage.sqlite.searches import MAX_ROWS_PER_TURN, Search
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.storage.sqlite.write_queue import ITEM_COST

MUCH = 1 << 30
PROJECT = "default"
MANY = 10_000


def minted(item_id: str, data: str | None = None) -> NewItem:
    return NewItem(item_id, (data or item_id).encode(), Origin.MINTED)


def sent(item_id: str, data: str) -> NewItem:
    return NewItem(item_id, data.encode(), Origin.SENT)


def reference(item_id: str) -> NewItem:
    return NewItem(item_id, b"", Origin.REFERENCE)


def run(folder: Path, scenario: Callable[[SqliteStore], Awaitable[None]]) -> None:
    """Runs a scenario with a store of its own, which is closed at the end; whatever hangs fails."""

    async def with_store() -> None:
        store = SqliteStore.open(folder / "convgrpc.db")
        try:
            async with asyncio.timeout(60):
                await scenario(store)
        finally:
            await store.close()

    asyncio.run(with_store())


async def create(store: SqliteStore, conversation: str, *items: NewItem, project: str = PROJECT) -> None:
    new = NewConversation(conversation, conversation.encode(), {})
    await store.create_conversation(project, new, items, None)


async def append(store: SqliteStore, conversation: str, *items: NewItem, project: str = PROJECT) -> list[str]:
    return [data.decode() for data in await store.append_items(project, conversation, items, None)]


async def page(
    store: SqliteStore,
    conversation: str,
    *,
    project: str = PROJECT,
    after: str | None = None,
    limit: int = MANY,
    descending: bool = False,
    max_bytes: int = 1 << 30,
) -> Page:
    return await store.list_items(
        project, conversation, after=after, limit=limit, descending=descending, max_bytes=max_bytes
    )


async def contents(store: SqliteStore, conversation: str, **options: Any) -> list[str]:
    return [data.decode() for data in (await page(store, conversation, **options)).items]


async def walk(store: SqliteStore, conversation: str, *, descending: bool = False, limit: int = 1) -> list[str]:
    """Follows a cursor to the end. The items' content begins with their id."""
    seen: list[str] = []
    has_more = True
    while has_more:
        after = seen[-1].split(":")[0] if seen else None
        found = await page(store, conversation, after=after, limit=limit, descending=descending)
        assert len(seen) < MANY, "the walk turns in circles"
        seen += [data.decode() for data in found.items]
        has_more = found.has_more
    return seen


class HeldWriter:
    """Holds up the writer, so that what is asked of it meanwhile ends up in one commit."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._go_on = threading.Event()
        self._held: asyncio.Future[bytes] | None = None

    async def __aenter__(self) -> None:
        taken_up = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait(data: bytes) -> bytes:
            loop.call_soon_threadsafe(taken_up.set)
            self._go_on.wait()
            return data

        await create(self._store, "conv_holding")
        self._held = asyncio.ensure_future(self._store.update_conversation(PROJECT, "conv_holding", {}, wait, None))
        await taken_up.wait()

    async def __aexit__(self, *_: object) -> None:
        self._go_on.set()
        assert self._held is not None
        await self._held


async def together(store: SqliteStore, *writes: Awaitable[Any]) -> list[Any]:
    """The outcomes of writes that are committed together."""
    async with HeldWriter(store):
        tasks = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_items_come_back_in_order(tmp_path: Path) -> None:
    """Items are listed in the order in which they were appended, or backwards, page by page."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), minted("b"))
        assert await append(store, "conv_1", minted("c"), minted("d")) == ["c", "d"]
        assert (await page(store, "conv_1"))[:2] == ([b"a", b"b", b"c", b"d"], False)
        assert (await page(store, "conv_1", limit=4))[:2] == ([b"a", b"b", b"c", b"d"], False)
        assert (await page(store, "conv_1", limit=3))[:2] == ([b"a", b"b", b"c"], True)
        assert (await page(store, "conv_1", limit=2, after="b"))[:2] == ([b"c", b"d"], False)
        assert (await page(store, "conv_1", limit=2, after="d"))[:2] == ([], False)
        assert (await page(store, "conv_1", limit=3, descending=True))[:2] == ([b"d", b"c", b"b"], True)
        assert (await page(store, "conv_1", limit=3, descending=True, after="b"))[:2] == ([b"a"], False)

    run(tmp_path, scenario)


def test_conversation_is_kept(tmp_path: Path) -> None:
    """A conversation is created, read, updated and deleted, and each is seen at once, also after opening anew."""

    async def first(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await create(store, "conv_2")
        assert await store.get_conversation(PROJECT, "conv_1") == b"conv_1"
        assert await store.update_conversation(PROJECT, "conv_1", {}, lambda data: data + b"!", None) == b"conv_1!"
        assert await store.get_conversation(PROJECT, "conv_1") == b"conv_1!"
        await store.delete_conversation(PROJECT, "conv_2", None)
        with pytest.raises(NotFound, match="Conversation with id 'conv_2' not found"):
            await store.get_conversation(PROJECT, "conv_2")

    async def second(store: SqliteStore) -> None:
        assert await store.get_conversation(PROJECT, "conv_1") == b"conv_1!"
        assert await store.get_item(PROJECT, "conv_1", "a") == b"a"
        with pytest.raises(NotFound):
            await store.get_conversation(PROJECT, "conv_2")

    run(tmp_path, first)
    run(tmp_path, second)


def test_concurrent_appends_keep_their_order(tmp_path: Path) -> None:
    """Of 32 callers who append to one conversation at once, no item is lost, repeated or out of its caller's order.

    A cursor that walks meanwhile sees no item twice, and none that comes before one it saw.
    """
    callers, turns = 32, 20

    async def appender(store: SqliteStore, caller: int) -> None:
        for turn in range(turns):
            await append(store, "conv_1", minted(f"{caller}-{2 * turn}"), minted(f"{caller}-{2 * turn + 1}"))

    async def walker(store: SqliteStore) -> list[str]:
        seen: list[str] = []
        while len(seen) < callers * turns * 2:
            seen += await contents(store, "conv_1", after=seen[-1] if seen else None, limit=7)
            await asyncio.sleep(0)
        return seen

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        walked, *_ = await asyncio.gather(walker(store), *(appender(store, caller) for caller in range(callers)))
        listed = await contents(store, "conv_1")
        assert walked == listed
        for caller in range(callers):
            own = [item for item in listed if item.startswith(f"{caller}-")]
            assert own == [f"{caller}-{number}" for number in range(2 * turns)]

    run(tmp_path, scenario)


def test_create_with_items_is_all_or_nothing(tmp_path: Path) -> None:
    """A conversation whose first items are refused is not created."""

    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(NotFound, match="Item with id 'msg_1' not found"):
            await create(store, "conv_1", minted("a"), reference("msg_1"))
        with pytest.raises(NotFound):
            await store.get_conversation(PROJECT, "conv_1")
        await create(store, "conv_1", minted("b"))
        assert await contents(store, "conv_1") == ["b"]

    run(tmp_path, scenario)


def test_refusal_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    """A request that is refused stores nothing, and the others of the same commit are stored."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        outcomes = await together(
            store,
            append(store, "conv_1", minted("b")),
            append(store, "conv_1", minted("c"), sent("a", "again")),
            append(store, "conv_2", minted("d")),
            append(store, "conv_1", minted("e"), reference("msg_none")),
            store.update_conversation(PROJECT, "conv_1", {}, lambda data: data + bytes(1 // len(data[6:])), None),
            append(store, "conv_1", sent("b", "again")),
            append(store, "conv_1", minted("f")),
        )
        assert [outcome if isinstance(outcome, list) else type(outcome) for outcome in outcomes] == [
            ["b"],
            InvalidArgument,
            NotFound,
            NotFound,
            ZeroDivisionError,
            InvalidArgument,
            ["f"],
        ]
        assert await contents(store, "conv_1") == ["a", "b", "f"]
        assert await store.get_conversation(PROJECT, "conv_1") == b"conv_1"

    run(tmp_path, scenario)


def test_change_that_refuses_changes_nothing(tmp_path: Path) -> None:
    """What the change of a conversation raises comes back to the caller."""

    def refuse(data: bytes) -> bytes:
        raise conversation_not_found(data.decode())

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        with pytest.raises(NotFound, match="conv_1"):
            await store.update_conversation(PROJECT, "conv_1", {}, refuse, None)
        assert await store.get_conversation(PROJECT, "conv_1") == b"conv_1"

    run(tmp_path, scenario)


def test_minted_id_stands_for_what_was_first_stored(tmp_path: Path) -> None:
    """An id of this store's making, sent again, copies the item, also from a copy and when the first is gone."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("msg_1", "first"))
        await create(store, "conv_2")
        assert await append(store, "conv_2", sent("msg_1", "other")) == ["first"]
        assert await store.get_item(PROJECT, "conv_2", "msg_1") == b"first"
        await store.delete_conversation(PROJECT, "conv_1", None)
        await create(store, "conv_3", sent("msg_1", "another"))
        await store.delete_item(PROJECT, "conv_2", "msg_1", None)
        assert await append(store, "conv_2", reference("msg_1")) == ["first"]
        assert await contents(store, "conv_2") == await contents(store, "conv_3") == ["first"]

    run(tmp_path, scenario)


def test_made_up_id_stands_for_what_was_sent(tmp_path: Path) -> None:
    """An id that a client made up is stored with what was sent, however often the id is there already."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", sent("rs_1", "one"))
        await create(store, "conv_2", sent("rs_1", "two"))
        assert await contents(store, "conv_1") == ["one"]
        assert await contents(store, "conv_2") == ["two"]

    run(tmp_path, scenario)


def test_deleted_items_stand_for_nothing(tmp_path: Path) -> None:
    """An id that is only in deleted conversations, or was deleted, is as if it had never been."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("msg_1", "first"))
        await create(store, "conv_2", minted("msg_2", "first"))
        await create(store, "conv_3")
        # In one commit, so that nothing is swept before the items are looked for.
        outcomes = await together(
            store,
            store.delete_conversation(PROJECT, "conv_1", None),
            store.delete_item(PROJECT, "conv_2", "msg_2", None),
            append(store, "conv_3", reference("msg_1")),
            append(store, "conv_3", reference("msg_2")),
            append(store, "conv_3", sent("msg_1", "new"), sent("msg_2", "new")),
        )
        assert [type(outcome) for outcome in outcomes[2:4]] == [NotFound, NotFound]
        assert outcomes[4] == ["new", "new"]

    run(tmp_path, scenario)


def test_item_is_refused_where_it_is_already(tmp_path: Path) -> None:
    """An id that was sent, or referred to, is refused with all of its request if the conversation has it already."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("msg_1"), sent("rs_1", "one"))
        for item in (sent("msg_1", "x"), sent("rs_1", "x"), reference("msg_1"), reference("rs_1")):
            with pytest.raises(InvalidArgument, match="Item already in conversation"):
                await append(store, "conv_1", minted("msg_2"), item)
        assert await contents(store, "conv_1") == ["msg_1", "one"]
        await store.delete_item(PROJECT, "conv_1", "rs_1", None)
        assert await append(store, "conv_1", sent("rs_1", "two")) == ["two"]

    run(tmp_path, scenario)


def test_item_may_stand_twice_in_one_request(tmp_path: Path) -> None:
    """One id sent twice in a request gives two occurrences."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("msg_1", "first"))
        await create(store, "conv_2", sent("rs_1", "one"), sent("rs_1", "two"), sent("msg_1", "x"), sent("msg_1", "y"))
        assert await contents(store, "conv_2") == ["one", "two", "first", "first"]

    run(tmp_path, scenario)


def test_reference_prefers_minted_then_newest(tmp_path: Path) -> None:
    """A reference copies the item of that id which this store minted, else the newest; the request itself counts."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", sent("rs_1", "old"), sent("msg_1", "made up"))
        await create(store, "conv_2", minted("msg_1", "minted"))
        await create(store, "conv_3", sent("rs_1", "new"))
        await create(store, "conv_4", reference("rs_1"), reference("msg_1"))
        assert await contents(store, "conv_4") == ["new", "minted"]
        await create(store, "conv_5", sent("rs_2", "a"), reference("rs_2"), sent("rs_2", "b"), reference("rs_2"))
        assert await contents(store, "conv_5") == ["a", "a", "b", "b"]
        # What was copied from a made up id is no more minted than that.
        await create(store, "conv_6", sent("rs_1", "sent"))
        assert await contents(store, "conv_6") == ["sent"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("descending", [False, True])
def test_walk_comes_to_an_end_where_ids_repeat(tmp_path: Path, descending: bool) -> None:
    """A cursor that stands in several places is found at the last in walk direction, so that no walk loops."""

    async def scenario(store: SqliteStore) -> None:
        await create(
            store,
            "conv_1",
            minted("a"),
            sent("b", "b:1"),
            sent("c", "c"),
            sent("b", "b:2"),
            sent("b", "b:3"),
            minted("d"),
        )
        walked = await walk(store, "conv_1", descending=descending)
        assert walked == (["d", "b:3", "a"] if descending else ["a", "b:1", "d"])
        following = await contents(store, "conv_1", after="b", descending=descending)
        assert following == (["a"] if descending else ["d"])

    run(tmp_path, scenario)


def test_cursor_must_be_in_the_conversation(tmp_path: Path) -> None:
    """A cursor is refused if no item of this conversation has that id."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await create(store, "conv_2", minted("b"))
        for after in ("b", "none", ""):
            for descending in (False, True):
                with pytest.raises(NotFound, match=f"No item found with id '{after}'") as refusal:
                    await page(store, "conv_1", after=after, descending=descending)
                assert refusal.value.param == "after"

    run(tmp_path, scenario)


def test_page_ends_before_it_is_too_large(tmp_path: Path) -> None:
    """A page holds no more bytes than asked for, but one item at least, and says that more follow."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", *(minted(f"{n}", f"{n}" * 100) for n in range(5)))
        for max_bytes, count in ((1, 1), (100, 1), (199, 1), (200, 2), (499, 4)):
            found = await page(store, "conv_1", max_bytes=max_bytes)
            assert (len(found.items), found.has_more) == (count, True)
        assert (await page(store, "conv_1", max_bytes=500)).has_more is False
        last = await page(store, "conv_1", after="3", max_bytes=1)
        assert (len(last.items), last.has_more) == (1, False)

    run(tmp_path, scenario)


def test_order_holds_after_deletions(tmp_path: Path) -> None:
    """Deleting removes all occurrences in one conversation; what is appended then comes last, with a new position."""
    path = tmp_path / "convgrpc.db"

    def last_position() -> int:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT max(position) FROM items").fetchone()[0])

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), sent("b", "b"), minted("c"), sent("b", "b"))
        await create(store, "conv_2", sent("b", "b"))
        await append(store, "conv_1", minted("d"))
        before = last_position()
        assert await store.delete_item(PROJECT, "conv_1", "b", None) == b"conv_1"
        assert await store.delete_item(PROJECT, "conv_1", "d", None) == b"conv_1"
        with pytest.raises(NotFound, match="Item with id 'b' not found in conversation"):
            await store.delete_item(PROJECT, "conv_1", "b", None)
        await append(store, "conv_1", minted("e"))
        assert last_position() > before
        assert await contents(store, "conv_1") == ["a", "c", "e"]
        assert await contents(store, "conv_2") == ["b"]

    run(tmp_path, scenario)


def test_what_does_not_exist_is_not_found(tmp_path: Path) -> None:
    """Every method refuses a conversation that is unknown or deleted, or is another project's."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await create(store, "conv_2", minted("b"), project="other")
        await create(store, "conv_3", minted("c"))
        await store.delete_conversation(PROJECT, "conv_3", None)
        for project, name, item in (
            (PROJECT, "conv_2", "b"),
            (PROJECT, "conv_3", "c"),
            (PROJECT, "conv_4", "a"),
            ("other", "conv_1", "a"),
            ("unknown", "conv_1", "a"),
        ):
            for call in (
                store.get_conversation(project, name),
                store.update_conversation(project, name, {}, lambda data: data, None),
                store.delete_conversation(project, name, None),
                store.append_items(project, name, [minted("d")], None),
                page(store, name, project=project),
                page(store, name, project=project, after=item),
                store.get_item(project, name, item),
                store.delete_item(project, name, item, None),
            ):
                with pytest.raises(NotFound, match=f"Conversation with id '{name}' not found"):
                    await call
        assert await contents(store, "conv_1") == ["a"]
        assert await contents(store, "conv_2", project="other") == ["b"]
        with pytest.raises(NotFound, match="Item with id 'b' not found in conversation"):
            await store.get_item(PROJECT, "conv_1", "b")

    run(tmp_path, scenario)


def test_projects_are_apart(tmp_path: Path) -> None:
    """Two projects may use the same ids, and neither sees the other's."""

    async def scenario(store: SqliteStore) -> None:
        for project in ("one", "two"):
            await create(store, "conv_1", minted("msg_1", project), sent("rs_1", project), project=project)
        for project in ("one", "two"):
            await create(store, "conv_2", sent("msg_1", "x"), reference("rs_1"), project=project)
            assert await contents(store, "conv_2", project=project) == [project, project]
        await create(store, "conv_3", project="three")
        assert await append(store, "conv_3", sent("msg_1", "three"), project="three") == ["three"]
        with pytest.raises(NotFound):
            await append(store, "conv_3", reference("rs_1"), project="three")
        await store.delete_item("one", "conv_1", "msg_1", None)
        await store.delete_conversation("one", "conv_2", None)
        assert await contents(store, "conv_1", project="one") == ["one"]
        assert await contents(store, "conv_1", project="two") == ["two", "two"]
        assert await contents(store, "conv_2", project="two") == ["two", "two"]

    run(tmp_path, scenario)


def test_deleted_conversation_is_swept(tmp_path: Path) -> None:
    """The items of a deleted conversation are removed, copies in other conversations stay, and it goes on after a stop.

    Nothing else happens meanwhile: the store sweeps when it is opened, not only after a write.
    """
    path = tmp_path / "convgrpc.db"
    count = 2 * mutations.SWEPT_AT_ONCE + 1

    def left() -> tuple[int, int]:
        with closing(sqlite3.connect(path)) as connection:
            (items,) = connection.execute("SELECT count(*) FROM items").fetchone()
            (conversations,) = connection.execute("SELECT count(*) FROM deleted_conversations").fetchone()
            return items, conversations

    async def first(store: SqliteStore) -> None:
        await create(store, "conv_1", *(minted(f"msg_{n}") for n in range(count)))
        await create(store, "conv_2", reference("msg_7"), minted("other"))

    async def second(store: SqliteStore) -> None:
        while left() != (2, 0):
            await asyncio.sleep(0.01)
        assert await contents(store, "conv_2") == ["msg_7", "other"]

    run(tmp_path, first)
    with closing(open_database(path, "FULL", 5)) as connection:
        mutations.delete_conversation(connection, PROJECT, "conv_1")
        assert mutations.sweep(connection, RetentionWindow(0, 1)) is True
        assert left() == (count + 2 - mutations.SWEPT_AT_ONCE, 1)
    run(tmp_path, second)


def test_large_items_are_swept_one_by_one(tmp_path: Path) -> None:
    """About one MiB at once, but always one: writes that come meanwhile wait no longer."""
    with closing(open_database(tmp_path / "convgrpc.db", "OFF", 5)) as connection:
        sizes = [2 << 20, 600 << 10, 600 << 10, 600 << 10, 10, 2 << 20]
        items = [NewItem(f"msg_{at}", bytes(size), Origin.MINTED) for at, size in enumerate(sizes)]
        mutations.create_conversation(connection, PROJECT, NewConversation("conv_1", b"", {}), items)
        mutations.delete_conversation(connection, PROJECT, "conv_1")
        left = []
        while mutations.sweep(connection, RetentionWindow(0, 1)):
            left += connection.execute("SELECT count(*) FROM items").fetchone()
        assert left == [5, 3, 0]
        assert connection.bytes_touched == 2 * sum(sizes) + len(sizes) * ITEM_COST, (
            "which tells how much of the log there is to copy"
        )
        assert connection.execute("SELECT bytes FROM projects").fetchone() == (0,)


def test_sweep_follows_a_deletion(tmp_path: Path) -> None:
    """A conversation that is deleted while the store runs is swept without any other write."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await store.delete_conversation(PROJECT, "conv_1", None)
        with closing(sqlite3.connect(tmp_path / "convgrpc.db")) as connection:
            while connection.execute("SELECT 1 FROM items").fetchone():
                await asyncio.sleep(0.01)

    run(tmp_path, scenario)


def test_number_of_a_deleted_conversation_is_not_used_again(tmp_path: Path) -> None:
    """A conversation created after another was deleted does not lose its items to the sweep."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", *(minted(f"msg_{n}") for n in range(3)))
        # Together, so that conv_1 is not yet swept when conv_2 gets its number.
        await asyncio.gather(store.delete_conversation(PROJECT, "conv_1", None), create(store, "conv_2", minted("a")))
        with closing(sqlite3.connect(tmp_path / "convgrpc.db")) as connection:
            while connection.execute("SELECT 1 FROM deleted_conversations").fetchone():
                await asyncio.sleep(0.01)
        assert await contents(store, "conv_2") == ["a"]

    run(tmp_path, scenario)


def test_close_finishes_what_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Writes that wait when the store is closed are done; closing again does nothing; later calls are refused."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        async with HeldWriter(store):
            writes = [asyncio.ensure_future(append(store, "conv_1", minted(f"{n}"))) for n in range(3)]
            await asyncio.sleep(0)
            closings = [asyncio.ensure_future(store.close()) for _ in range(2)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*writes) == [["0"], ["1"], ["2"]]
        await asyncio.gather(*closings)
        await store.close()
        for call in (
            store.get_conversation(PROJECT, "conv_1"),
            store.get_item(PROJECT, "conv_1", "0"),
            page(store, "conv_1"),
            append(store, "conv_1", minted("a")),
            create(store, "conv_2"),
            store.update_conversation(PROJECT, "conv_1", {}, lambda data: data, None),
            store.delete_item(PROJECT, "conv_1", "0", None),
            store.delete_conversation(PROJECT, "conv_1", None),
        ):
            with pytest.raises(Unavailable):
                await call
        assert caplog.text == ""
        assert [path.name for path in tmp_path.iterdir()] == ["convgrpc.db"]

    async def reopened(store: SqliteStore) -> None:
        assert await contents(store, "conv_1") == ["0", "1", "2"]

    run(tmp_path, scenario)
    run(tmp_path, reopened)


def test_only_a_store_that_is_alone_copies_the_log(tmp_path: Path) -> None:
    """Another leaves that to it, as two that do it at once may lose what is committed."""
    path = tmp_path / "convgrpc.db"

    async def scenario() -> None:
        store = SqliteStore.open(path, alone=True)
        await create(store, "conv_1", minted("a"))
        before = path.read_bytes()
        other = SqliteStore.open(path)
        await create(other, "conv_2", minted("b"))
        await other.close()
        assert path.read_bytes() == before
        assert await contents(store, "conv_2") == ["b"]
        await store.close()
        assert path.read_bytes() != before

    asyncio.run(scenario())


def test_database_that_fails_is_reported_as_unavailable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Callers hear that the database refused, not why; the log has the cause."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        with closing(sqlite3.connect(tmp_path / "convgrpc.db")) as connection:
            connection.execute("ALTER TABLE items RENAME TO gone")
        for call in (page(store, "conv_1"), append(store, "conv_1", minted("a"))):
            with caplog.at_level(logging.ERROR), pytest.raises(Unavailable) as refusal:
                await call
            assert "items" not in refusal.value.message
            assert "no such table: items" in caplog.text
            caplog.clear()
        assert await store.get_conversation(PROJECT, "conv_1") == b"conv_1"

    run(tmp_path, scenario)


def test_read_sees_one_state(tmp_path: Path) -> None:
    """While a read goes on, nothing that is committed meanwhile shows."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        with store._snapshot() as connection, closing(connect(tmp_path / "convgrpc.db", "FULL", 5)) as writer:
            version = find_version(connection, PROJECT, "conv_1")
            mutations.append_items(writer, PROJECT, Append("conv_1", [minted("b")]))
            found = list_items(connection, version, after=None, limit=9, descending=False, max_bytes=99, max_read=99)
            assert found.items == [b"a"]
        assert await contents(store, "conv_1") == ["a", "b"]

    run(tmp_path, scenario)


def everything(connection: Connection, suffix: str) -> None:
    """Does all that the store does, each in the ways that use different statements."""
    conversation = f"conv_{suffix}"
    items = [minted(f"msg_{suffix}"), sent("rs_1", "x"), sent("msg_first", "x"), reference("rs_2")]
    attempt = IdempotentWrite(RequestKey("append", suffix, b"digest"), RetentionWindow(0, 1))
    new = NewConversation(conversation, b"", {"topic": "a", "suffix": suffix})
    mutations.create_conversation(
        connection, PROJECT, new, items, attempt._replace(key=RequestKey("create", suffix, b""))
    )
    for _ in range(2):
        mutations.append_items(connection, PROJECT, Append(conversation, [sent(f"rs_{suffix}", "x")]), attempt)
    mutations.append_items(
        connection, PROJECT, Append(conversation, [minted(f"msg_2_{suffix}")], expected_last=f"rs_{suffix}")
    )
    mutations.update_conversation(connection, PROJECT, conversation, {"topic": "b"}, lambda data: data)
    for pair in (None, ("topic", "b")):
        for cursor in (None, conversation):
            list_conversations(connection, PROJECT, after=cursor, limit=2, pair=pair, max_read=MUCH)
    for cursor in (None, conversation):
        search = Search(PROJECT, after=cursor, limit=2, metadata={"topic": "a", "suffix": "x"})
        while search.turn(connection) is None:
            pass
    mutations.sweep(connection, RetentionWindow(1, 2))
    found = find_version(connection, PROJECT, conversation)
    for descending in (False, True):
        for after in (None, "rs_1"):
            list_items(connection, found, after=after, limit=2, descending=descending, max_bytes=MUCH, max_read=MUCH)
    mutations.delete_item(connection, PROJECT, conversation, "rs_1")
    mutations.delete_conversation(connection, PROJECT, conversation)


def filled(path: Path) -> Connection:
    connection = open_database(path, "OFF", 5)
    mutations.create_conversation(
        connection,
        PROJECT,
        NewConversation("conv_first", b"", {}),
        [minted("msg_first"), sent("rs_1", "x"), sent("rs_2", "x")],
    )
    return connection


def test_statements_use_indexes(tmp_path: Path) -> None:
    """No statement reads a whole table or index, or sorts."""
    statements: list[str] = []
    with closing(filled(tmp_path / "convgrpc.db")) as connection:
        connection.set_trace_callback(statements.append)
        everything(connection, "traced")
        connection.set_trace_callback(None)
        changing = [statement for statement in statements if not statement.startswith(("BEGIN", "COMMIT"))]
        assert len(changing) > 20
        for statement in changing:
            for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                assert "SCAN" not in detail.replace("SCAN CONSTANT ROW", ""), statement
                assert "TEMP B-TREE" not in detail, statement


def test_cost_does_not_grow(tmp_path: Path) -> None:
    """What a database does costs as much work in a large conversation, among many items of the same id, as in none."""
    with closing(filled(tmp_path / "convgrpc.db")) as connection:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        def cost(suffix: str) -> int:
            nonlocal steps
            steps = 0
            connection.set_progress_handler(count, 1)
            everything(connection, suffix)
            mutations.append_items(connection, PROJECT, Append("conv_first", [sent(f"rs_{suffix}", "x")]))
            found = find_version(connection, PROJECT, "conv_first")
            list_items(connection, found, after="rs_1", limit=1, descending=False, max_bytes=MUCH, max_read=MUCH)
            connection.set_progress_handler(None, 1)
            return steps

        def fill(first: int, last: int) -> None:
            for number in range(first, last):
                items = [sent("rs_1", "x"), sent("rs_2", "x"), sent("msg_first", "x")]
                new = NewConversation(f"conv_more_{number}", b"", {"topic": "a", "suffix": "x"})
                attempt = IdempotentWrite(RequestKey("create", str(number), b""), RetentionWindow(1, 2))
                mutations.create_conversation(connection, PROJECT, new, items, attempt)

        # A search counts each of its pairs up to a bound.
        fill(0, MAX_ROWS_PER_TURN + 1)
        cost("warm")
        small = cost("small")
        more = [minted(f"msg_more_{n}") for n in range(2000)]
        mutations.append_items(connection, PROJECT, Append("conv_first", more))
        fill(MAX_ROWS_PER_TURN + 1, 600)
        assert cost("large") < 1.1 * small


def key(name: str, digest: bytes = b"digest") -> RequestKey:
    return RequestKey("append", name, digest)


def test_requests_are_forgotten_in_chunks(tmp_path: Path) -> None:
    """Records that are too old are removed a few at a time; younger ones stay."""
    with closing(filled(tmp_path / "convgrpc.db")) as connection:
        for number in range(idempotency.FORGOTTEN_AT_ONCE + 2):
            attempt = IdempotentWrite(key(str(number)), RetentionWindow(0, 1 if number else 5))
            mutations.append_items(connection, PROJECT, Append("conv_first", [minted(f"msg_{number}")]), attempt)
        sweeps = 0
        while mutations.sweep(connection, RetentionWindow(3, 4)):
            sweeps += 1
        assert sweeps == 2
        assert connection.execute("SELECT id FROM requests").fetchall() == [("0",)]


def test_request_keys_are_apart_for_each_project(tmp_path: Path) -> None:
    """One project's key says nothing of another's request."""

    async def scenario(store: SqliteStore) -> None:
        for project in ("p1", "p2"):
            await store.create_conversation(project, NewConversation(f"conv_{project}", b"", {}), [], None)
        for project in ("p1", "p2"):
            digest = project.encode()
            stored = await store.append_items(
                project, f"conv_{project}", [minted(f"msg_{project}")], None, request=key("same", digest)
            )
            assert len(stored) == 1
        with pytest.raises(InvalidArgument):
            await store.append_items("p2", "conv_p2", [minted("msg_3")], None, request=key("same", b"p1"))

    run(tmp_path, scenario)
