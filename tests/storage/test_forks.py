"""Conversations that begin as copies of others."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from convgrpc.errors import InvalidArgument, NotFound, ResourceExhausted
from convgrpc.storage.interface import NO_LIMITS, Commit, NewConversation, NewItem, Origin, RequestKey, Sizes
from convgrpc.storage.sqlite import fork_conversation
from convgrpc.storage.sqlite.store import SqliteStore

Scenario = Callable[[SqliteStore], Awaitable[None]]


def run(folder: Path, scenario: Scenario, sizes: Sizes = NO_LIMITS) -> None:
    async def with_store() -> None:
        store = SqliteStore.open(folder / "convgrpc.db", synchronous="OFF", sizes=sizes)
        try:
            async with asyncio.timeout(60):
                await scenario(store)
        finally:
            await store.close()

    asyncio.run(with_store())


def minted(*ids: str) -> list[NewItem]:
    return [NewItem(each, f"data of {each}".encode(), Origin.MINTED) for each in ids]


def sent(item_id: str, data: str) -> NewItem:
    return NewItem(item_id, data.encode(), Origin.SENT)


async def create(store: SqliteStore, conversation: str, items: Sequence[NewItem] = (), project: str = "alder") -> None:
    await store.create_conversation(
        project, NewConversation(conversation, b"origin", {"of": conversation}), items, None
    )


async def fork(
    store: SqliteStore,
    origin: str,
    name: str,
    last: str | None = None,
    *,
    project: str = "alder",
    request: RequestKey | None = None,
) -> bytes:
    def made(data: bytes) -> NewConversation:
        return NewConversation(name, data + b" copied", {"of": name})

    return await store.fork_conversation(project, origin, last, made, None, request=request)


async def contents(store: SqliteStore, conversation: str) -> list[str]:
    page = await store.list_items("alder", conversation, after=None, limit=20_000, descending=False, max_bytes=1 << 30)
    return [data.decode().removeprefix("data of ") for data in page.items]


def test_a_fork_has_the_items_up_to_one_in_their_order(tmp_path: Path) -> None:
    """Under their ids, and what was made of the conversation; without an item it has all."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "origin", minted("a", "b", "c"))
        assert await fork(store, "origin", "all") == b"origin copied"
        assert await fork(store, "origin", "some", "b") == b"origin copied"
        assert await contents(store, "all") == ["a", "b", "c"]
        assert await contents(store, "some") == ["a", "b"]
        assert await store.get_item("alder", "some", "b") == b"data of b"
        assert await store.get_conversation("alder", "some") == b"origin copied"
        (found,) = (
            await store.list_conversations("alder", None, after=None, limit=5, metadata={"of": "some"})
        ).conversations
        assert found == b"origin copied"
        await create(store, "empty")
        await fork(store, "empty", "nothing")
        assert await contents(store, "nothing") == []

    run(tmp_path, scenario)


def test_an_item_in_several_places_is_found_at_the_last(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await create(store, "origin", [sent("x", "one"), sent("y", "two"), sent("x", "three"), sent("z", "four")])
        await fork(store, "origin", "fork", "x")
        assert await contents(store, "fork") == ["one", "two", "three"]

    run(tmp_path, scenario)


def test_what_is_done_to_one_leaves_the_other(tmp_path: Path) -> None:
    """Appends, removals, and deletion, with all that is swept after it."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "origin", minted("a", "b"))
        await fork(store, "origin", "fork")
        await store.append_items("alder", "origin", minted("c"), None)
        await store.append_items("alder", "fork", minted("d"), None)
        await store.delete_item("alder", "fork", "a", None)
        assert await contents(store, "origin") == ["a", "b", "c"]
        assert await contents(store, "fork") == ["b", "d"]
        await fork(store, "fork", "second")
        await store.delete_conversation("alder", "fork", None)
        await store.delete_conversation("alder", "origin", None)
        # One that comes behind what was swept.
        await create(store, "later")
        assert await contents(store, "second") == ["b", "d"]

    run(tmp_path, scenario)


def test_copies_are_found_by_their_ids_when_the_first_is_gone(tmp_path: Path) -> None:
    """An id of this store's making stands for the same content, whoever has it left; another's for what is sent."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "origin", [*minted("a"), sent("x", "theirs")])
        await fork(store, "origin", "fork")
        await store.delete_conversation("alder", "origin", None)
        await create(store, "other")
        again = [sent("a", "ignored"), NewItem("x", b"", Origin.REFERENCE)]
        assert await store.append_items("alder", "other", again, None) == [b"data of a", b"theirs"]
        assert await store.append_items("alder", "other", [], None) == []
        await create(store, "third")
        assert await store.append_items("alder", "third", [sent("x", "mine")], None) == [b"mine"]
        with pytest.raises(InvalidArgument, match="already in conversation"):
            await store.append_items("alder", "fork", [sent("a", "again")], None)

    run(tmp_path, scenario)


def test_a_fork_that_is_repeated_is_made_once(tmp_path: Path) -> None:
    """Also when the conversation was deleted since; another one under the same key is refused."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "origin", minted("a"))
        key = RequestKey("ForkConversation", "1", b"digest")
        await fork(store, "origin", "fork", request=key)
        await store.delete_conversation("alder", "origin", None)
        assert await fork(store, "origin", "twice", request=key) == b"origin copied"
        with pytest.raises(InvalidArgument, match="earlier, different request"):
            await fork(store, "origin", "twice", request=key._replace(digest=b"other"))
        with pytest.raises(NotFound):
            await store.get_conversation("alder", "twice")
        await store.delete_conversation("alder", "fork", None)
        with pytest.raises(NotFound, match="deleted since"):
            await fork(store, "origin", "twice", request=key)

    run(tmp_path, scenario)


def test_what_is_not_there_cannot_be_copied(tmp_path: Path) -> None:
    """No conversation, no item, none of another project; nothing is stored then, not even the project."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "origin", minted("a"))
        await create(store, "other", minted("b"))
        for origin, last, project in (
            ("none", None, "alder"), ("origin", "b", "alder"), ("origin", "", "alder"), ("origin", None, "birch"),
            ("origin", "a", "birch"),
        ):  # fmt: skip
            with pytest.raises(NotFound) as refused:
                await fork(store, origin, "fork", last, project=project)
            assert refused.value.param == ("last_item_id" if project == "alder" and last is not None else None)
        with pytest.raises(NotFound):
            await store.get_conversation("alder", "fork")

    run(tmp_path, scenario)
    with closing(sqlite3.connect(tmp_path / "convgrpc.db")) as database:
        assert database.execute("SELECT name, conversations FROM projects").fetchall() == [("alder", 2)]


def test_limits_are_those_of_all_conversations(tmp_path: Path) -> None:
    """Of items, of conversations, and of the size of an item, where that was lowered since."""

    async def before(store: SqliteStore) -> None:
        await create(store, "origin", minted("a", "b", "c"))
        await create(store, "large", [NewItem("l", bytes(20), Origin.MINTED)])

    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(ResourceExhausted, match="more than 2 items"):
            await fork(store, "origin", "fork")
        with pytest.raises(ResourceExhausted, match="more than 10 bytes"):
            await fork(store, "large", "fork")
        await fork(store, "origin", "fork", "b")
        with pytest.raises(ResourceExhausted, match="more than 2 items"):
            await store.append_items("alder", "fork", minted("d"), None)
        with pytest.raises(ResourceExhausted, match="more than 3 conversations"):
            await fork(store, "origin", "another", "a")

    run(tmp_path, before)
    run(tmp_path, scenario, Sizes(item_bytes=10, conversation_items=2, project_conversations=3))


def test_what_is_copied_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In items and in bytes, so that other writes wait no longer; the rest can be left out."""
    monkeypatch.setattr(fork_conversation, "MAX_FORKED_ITEMS", 3)
    monkeypatch.setattr(fork_conversation, "MAX_FORKED_BYTES", 60)

    async def scenario(store: SqliteStore) -> None:
        await create(store, "many", minted("a", "b", "c", "d"))
        await create(store, "large", [NewItem(each, bytes(25), Origin.MINTED) for each in "xyz"])
        for origin, last in (("many", "c"), ("large", "y")):
            with pytest.raises(ResourceExhausted, match="at most 3 items, and 60 bytes") as refused:
                await fork(store, origin, "fork")
            assert refused.value.param == "last_item_id"
            await fork(store, origin, f"{origin} of them", last)
        assert await contents(store, "many of them") == ["a", "b", "c"]

    run(tmp_path, scenario)


def test_forks_are_committed_one_by_one(tmp_path: Path) -> None:
    """What they copy is much, and others wait for a commit."""

    async def scenario() -> None:
        commits: list[Commit] = []
        store = SqliteStore.open(tmp_path / "convgrpc.db", synchronous="OFF", observe=commits.append)
        try:
            await create(store, "a", minted("item_1"))
            commits.clear()
            async with asyncio.timeout(60):
                await asyncio.gather(*(fork(store, "a", f"fork_{number}") for number in range(5)))
            assert [commit.writes for commit in commits] == [1] * 5
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_fork_that_is_refused_copies_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be done twice, and for nothing."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "a", minted("item_1", "item_2"))
        monkeypatch.setattr(fork_conversation, "_COPY", "this is no statement")
        with pytest.raises(ResourceExhausted, match="more than 30 bytes"):
            await fork(store, "a", "b")

    run(tmp_path, scenario, Sizes(project_bytes=30))
