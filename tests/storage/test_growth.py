"""What a conversation gained since a position, and whether it lost anything meanwhile."""

from pathlib import Path
from typing import Any

import pytest

from convgrpc.errors import NotFound
from convgrpc.storage.interface import ItemSlice
from convgrpc.storage.sqlite.large_reads import INLINE
from convgrpc.storage.sqlite.store import SqliteStore
from tests.storage.test_store import PROJECT, append, create, minted, reference, run, sent

MUCH = 1 << 30


async def growth(
    store: SqliteStore,
    conversation: str,
    position: int = 0,
    *,
    limit: int = 100,
    max_bytes: int = MUCH,
    project: str = PROJECT,
) -> ItemSlice:
    return await store.read_after(project, conversation, position, limit=limit, max_bytes=max_bytes)


async def pages(store: SqliteStore, conversation: str, *, limit: int = 100, max_bytes: int = MUCH) -> list[list[bytes]]:
    """All that a conversation has, page by page."""
    found: list[list[bytes]] = []
    position, has_more = 0, True
    while has_more:
        page = await growth(store, conversation, position, limit=limit, max_bytes=max_bytes)
        assert page.position > position or not page.items
        assert len(found) < 100, "the walk does not end"
        found.append(page.items)
        position, has_more = page.position, page.has_more
    return found


def test_growth_is_what_came_after_a_position(tmp_path: Path) -> None:
    """From the beginning, and then from where the last answer ended."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), minted("b"))
        first = await growth(store, "conv_1")
        assert (first.items, first.has_more, first.removals) == ([b"a", b"b"], False, 0)
        nothing = await growth(store, "conv_1", first.position)
        assert nothing == ItemSlice([], first.position, False, 0)
        await append(store, "conv_1", minted("c"), sent("d", "data"))
        second = await growth(store, "conv_1", first.position)
        assert (second.items, second.has_more) == ([b"c", b"data"], False)
        assert second.position > first.position
        assert (await growth(store, "conv_1")).items == [b"a", b"b", b"c", b"data"]

    run(tmp_path, scenario)


def test_an_empty_conversation_stays_at_the_beginning(tmp_path: Path) -> None:
    """What it gets later is after position 0."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        assert await growth(store, "conv_1") == ItemSlice([], 0, False, 0)
        await append(store, "conv_1", minted("a"))
        assert (await growth(store, "conv_1", 0)).items == [b"a"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (5, [5, 1]), (6, [6]), (7, [6])]
)
def test_growth_comes_in_pages(limit: int, expected: list[int], tmp_path: Path) -> None:
    """Of so many items, without an empty one at the end; items of others in between do not matter."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        await create(store, "conv_2")
        for letter in "abcdef":
            await append(store, "conv_1", minted(letter))
            await append(store, "conv_2", minted(f"other-{letter}"))
        found = await pages(store, "conv_1", limit=limit)
        assert [len(page) for page in found] == expected
        assert [item for page in found for item in page] == [b"a", b"b", b"c", b"d", b"e", b"f"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(0, [1, 1, 1, 1]), (9, [1, 1, 1, 1]), (10, [1, 1, 2]), (15, [1, 1, 2]), (35, [3, 1]), (40, [4])],
)
def test_a_page_has_so_many_bytes(max_bytes: int, expected: list[int], tmp_path: Path) -> None:
    """And an item that is larger comes alone."""

    async def scenario(store: SqliteStore) -> None:
        sizes = {"a": 10, "b": 20, "c": 5, "d": 5}
        await create(store, "conv_1", *(minted(name, name * size) for name, size in sizes.items()))
        found = await pages(store, "conv_1", max_bytes=max_bytes)
        assert [len(page) for page in found] == expected
        assert b"".join(item for page in found for item in page) == b"a" * 10 + b"b" * 20 + b"c" * 5 + b"d" * 5

    run(tmp_path, scenario)


def test_removals_are_counted(tmp_path: Path) -> None:
    """Each deletion that removes something, of this conversation alone, and for good."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", *map(minted, "abcd"))
        await create(store, "conv_2", minted("x"), minted("y"))
        position = (await growth(store, "conv_1")).position
        await store.delete_item(PROJECT, "conv_2", "x", None)
        assert (await growth(store, "conv_1")).removals == 0
        await store.delete_item(PROJECT, "conv_1", "b", None)
        assert await growth(store, "conv_1", position) == ItemSlice([], position, False, 1)
        with pytest.raises(NotFound):
            await store.delete_item(PROJECT, "conv_1", "b", None)
        assert (await growth(store, "conv_1")).removals == 1
        await store.delete_item(PROJECT, "conv_1", "d", None)
        await append(store, "conv_1", minted("e"))
        after = await growth(store, "conv_1")
        assert (after.items, after.removals) == ([b"a", b"c", b"e"], 2)
        assert [page.removals for page in [await growth(store, "conv_1", limit=1), await growth(store, "conv_2")]] == [
            2,
            1,
        ]

    run(tmp_path, scenario)


def test_removals_survive_a_restart(tmp_path: Path) -> None:
    """Positions do, too."""
    before: list[ItemSlice] = []

    async def removing(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), minted("b"))
        await store.delete_item(PROJECT, "conv_1", "a", None)
        before.append(await growth(store, "conv_1"))

    async def looking(store: SqliteStore) -> None:
        assert await growth(store, "conv_1") == before[0] == ItemSlice([b"b"], before[0].position, False, 1)

    run(tmp_path, removing)
    run(tmp_path, looking)


def test_the_last_item_of_all_may_go_and_another_come(tmp_path: Path) -> None:
    """Whether or not it gets the same position, something tells that the conversation changed."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), minted("b"))
        before = await growth(store, "conv_1")
        await store.delete_item(PROJECT, "conv_1", "b", None)
        await append(store, "conv_1", minted("c"))
        assert (await growth(store, "conv_1", before.position)).removals != before.removals

    run(tmp_path, scenario)


@pytest.mark.parametrize(("project", "conversation"), [(PROJECT, "conv_2"), ("another", "conv_1")])
def test_a_conversation_that_is_not_there_has_no_growth(project: str, conversation: str, tmp_path: Path) -> None:
    """Nor has one of another project, or one that was deleted."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        with pytest.raises(NotFound):
            await growth(store, conversation, project=project)
        await store.delete_conversation(PROJECT, "conv_1", None)
        with pytest.raises(NotFound):
            await growth(store, "conv_1")

    run(tmp_path, scenario)


async def referenced(store: SqliteStore, *names: str, project: str = PROJECT) -> list[bytes]:
    return await store.get_referenced(project, await store.find_references(project, names))


def test_what_is_referred_to_comes_in_the_order_of_the_references(tmp_path: Path) -> None:
    """From any conversation of the project, as often as it is asked for."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), minted("b"))
        await create(store, "conv_2", sent("c", "see"), reference("a"))
        assert await referenced(store, "c", "a", "b", "a") == [b"see", b"a", b"b", b"a"]
        assert await referenced(store) == []

    run(tmp_path, scenario)


def test_what_is_referred_to_must_be_there(tmp_path: Path) -> None:
    """In this project, in a conversation that is; the first that is missing is named."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await create(store, "conv_2", minted("b"), project="another")
        for names, project, missing in ((("a", "b", "c"), PROJECT, "b"), (("a",), "unknown", "a")):
            with pytest.raises(NotFound) as told:
                await referenced(store, *names, project=project)
            assert (told.value.param, f"'{missing}'" in told.value.message) == ("input", True)
        await store.delete_conversation(PROJECT, "conv_1", None)
        with pytest.raises(NotFound):
            await referenced(store, "a")

    run(tmp_path, scenario)


def test_references_tell_the_sizes_of_items(tmp_path: Path) -> None:
    """They tell the sizes before the items are read, and where the items are."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a", "aaaa"), minted("b"))
        first, second, again = await store.find_references(PROJECT, ["a", "b", "a"])
        assert (first.size, second.size) == (4, 1)
        assert first == again
        assert first.position < second.position

    run(tmp_path, scenario)


def test_an_item_deleted_after_it_was_found_is_not_found(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        references = await store.find_references(PROJECT, ["a"])
        await store.delete_item(PROJECT, "conv_1", "a", None)
        with pytest.raises(NotFound):
            await store.get_referenced(PROJECT, references)

    run(tmp_path, scenario)


@pytest.mark.parametrize("size", [INLINE, INLINE + 1])
def test_large_items_are_read_in_a_thread(tmp_path: Path, size: int) -> None:
    """Reads of more than `INLINE` bytes leave the event loop, and return the same items."""

    async def scenario(store: SqliteStore) -> None:
        runs = 0
        run_in_thread = store._large_reads.run

        async def noted(project: str, read: Any) -> Any:
            nonlocal runs
            runs += 1
            return await run_in_thread(project, read)

        store._large_reads.run = noted  # type: ignore[method-assign]
        large = "x" * (size - 2)
        await create(store, "conv_1", minted("a"), minted("b", large), minted("c"))
        expected = [b"a", large.encode(), b"c"]
        page = await store.list_items(PROJECT, "conv_1", after=None, limit=9, descending=False, max_bytes=MUCH)
        assert page.items == expected
        assert await store.get_items(PROJECT, "conv_1", ["a", "b", "c"], max_bytes=MUCH) == expected
        assert await store.get_item(PROJECT, "conv_1", "b") == large.encode()
        assert await referenced(store, "a", "b", "c") == expected
        found: list[bytes] = []
        position, has_more = None, True
        while has_more:
            growth = await store.read_after(PROJECT, "conv_1", position, limit=9, max_bytes=MUCH)
            found += growth.items
            position, has_more = growth.position, growth.has_more
        assert found == expected
        assert bool(runs) is (size > INLINE)

    run(tmp_path, scenario)
