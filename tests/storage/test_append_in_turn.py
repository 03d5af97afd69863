"""Several appends in one write."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from convgrpc.errors import ConvgrpcError, DeadlineExceeded
from convgrpc.storage.interface import Append, Commit, NewConversation, NewItem, Origin, RequestKey, Sizes
from convgrpc.storage.sqlite import mutations
from convgrpc.storage.sqlite.store import SqliteStore


def run(folder: Path, scenario: Callable[[SqliteStore, list[Commit]], Awaitable[None]]) -> None:
    async def with_store() -> None:
        commits: list[Commit] = []
        store = SqliteStore.open(
            folder / "convgrpc.db", synchronous="OFF", observe=commits.append, sizes=Sizes(conversation_items=6)
        )
        try:
            for name in ("one", "two"):
                await store.create_conversation("alder", NewConversation(name, b"", {}), [], None)
            commits.clear()
            async with asyncio.timeout(60):
                await scenario(store, commits)
        finally:
            await store.close()

    asyncio.run(with_store())


def append(conversation: str, *ids: str, request: str | None = None, after: str | None = None) -> Append:
    items = [NewItem(each, each.encode(), Origin.MINTED) for each in ids]
    key = None if request is None else RequestKey("AppendItems", request, "".join(ids).encode())
    return Append(conversation, items, key, after)


async def contents(store: SqliteStore, conversation: str) -> str:
    page = await store.list_items("alder", conversation, after=None, limit=99, descending=False, max_bytes=1 << 20)
    return b"".join(page.items).decode()


def test_they_are_done_in_their_order_and_committed_together(tmp_path: Path) -> None:
    """Each sees what those before it did; the ids of their items come back."""

    async def scenario(store: SqliteStore, commits: list[Commit]) -> None:
        appends = [append("one", "a", "b", after=""), append("two", "c"), append("one", "d", after="b")]
        done = await store.append_batch("alder", appends, None)
        assert done == ([["a", "b"], ["c"], ["d"]], None)
        assert (await contents(store, "one"), await contents(store, "two")) == ("abd", "c")
        assert [commit.writes for commit in commits] == [1]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (append("none", "x"), "not found"),
        (append("one", "x", after="b"), "as expected"),
        (append("one", *"uvwxyz"), "more than 6 items"),
        (Append("one", [NewItem("x", b"x", Origin.MINTED), NewItem("a", b"", Origin.SENT)]), "already in conversation"),
    ],
    ids=["nowhere", "changed", "full", "there already"],
)
def test_the_first_that_is_refused_ends_them(tmp_path: Path, refused: Append, why: str) -> None:
    """Of it nothing is stored, and of those after it neither; those before it are done."""

    async def scenario(store: SqliteStore, commits: list[Commit]) -> None:
        done = await store.append_batch("alder", [append("one", "a"), refused, append("two", "c")], None)
        assert done.item_ids == [["a"]]
        assert isinstance(done.refusal, ConvgrpcError)
        assert why in done.refusal.message
        assert (await contents(store, "one"), await contents(store, "two")) == ("a", "")
        # What was refused left no trace in the counts either.
        assert (await store.append_batch("alder", [append("one", *"bcdef")], None)).refusal is None

    run(tmp_path, scenario)


def test_those_that_were_done_before_are_not_done_again(tmp_path: Path) -> None:
    """Within one write and across several; what is left of them is told."""

    async def scenario(store: SqliteStore, commits: list[Commit]) -> None:
        first = append("one", "a", "b", request="1")
        assert (await store.append_batch("alder", [first, first], None)).item_ids == [["a", "b"]] * 2
        await store.delete_item("alder", "one", "a", None)
        again = [first, append("one", "c", request="2"), append("one", "other", request="1")]
        done = await store.append_batch("alder", again, None)
        assert done.item_ids == [["b"], ["c"]]
        assert done.refusal
        assert "earlier, different request" in done.refusal.message
        assert await contents(store, "one") == "bc"

    run(tmp_path, scenario)


def test_one_whose_time_is_over_is_not_written(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore, commits: list[Commit]) -> None:
        with pytest.raises(DeadlineExceeded):
            await store.append_batch("alder", [append("one", "a")], 0.0)
        assert await contents(store, "one") == ""

    run(tmp_path, scenario)


def test_those_who_listen_are_told_of_each_conversation(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore, commits: list[Commit]) -> None:
        told: list[str] = []
        with (
            store.subscribe("alder", "one", lambda: told.append("one")),
            store.subscribe("alder", "two", lambda: told.append("two")),
        ):
            await store.append_batch("alder", [append("one", "a"), append("two", "b"), append("one", "c")], None)
            while len(told) < 2:
                await asyncio.sleep(0.001)
        assert sorted(told) == ["one", "two"]

    run(tmp_path, scenario)


def test_no_more_is_done_at_once_than_others_may_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is left to another write: a few bytes may refer to a lot."""
    monkeypatch.setattr(mutations, "MAX_COPIED_BYTES", 3)

    async def scenario(store: SqliteStore, commits: list[Commit]) -> None:
        done = await store.append_batch("alder", [append("one", "ab"), append("two", "cd"), append("one", "e")], None)
        assert done == ([["ab"], ["cd"]], None)
        assert (await contents(store, "one"), await contents(store, "two")) == ("ab", "cd")

    run(tmp_path, scenario)
