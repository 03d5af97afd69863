"""Names for places in conversations: good for as long as the database is, for their conversation alone, and opaque."""

from itertools import pairwise
from operator import eq
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convgrpc.errors import NotFound
from convgrpc.storage.interface import PositionRange
from convgrpc.storage.sqlite.cursors import Cursors
from convgrpc.storage.sqlite.store import SqliteStore

from .test_store import PROJECT, append, create, minted, run

CURSORS = Cursors(b"secret")
POSITIONS = st.integers(0, 2**63 - 1)
IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(IDS, POSITIONS)
def test_a_cursor_is_read_where_it_was_made_and_nowhere_else(conversation: str, position: int) -> None:
    """It is the same each time; another conversation, or another database, does not know it."""
    cursor = CURSORS.cursor(conversation, position)
    assert CURSORS.cursor(conversation, position) == cursor
    assert CURSORS.position(conversation, cursor) == position
    assert CURSORS.position(conversation + "x", cursor) is None
    assert Cursors(b"other").position(conversation, cursor) is None


@given(POSITIONS, st.data())
def test_no_part_of_a_cursor_can_be_changed(position: int, data: st.DataObject) -> None:
    """Not even the bits of its last character that say nothing."""
    cursor = CURSORS.cursor("conv_1", position)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != cursor[at]))
    for mangled in (cursor[:at] + other + cursor[at + 1 :], cursor[:at] + cursor[at + 1 :], cursor + other):
        assert CURSORS.position("conv_1", mangled) is None


def test_cursors_tell_nothing_of_positions() -> None:
    """They are of one length, and those of neighbours have no more in common than others have."""
    cursors = [CURSORS.cursor("conv_1", position) for position in range(1000)]
    assert {len(cursor) for cursor in cursors} == {26}
    assert sorted(cursors) != cursors
    shared = [sum(map(eq, one[4:], other[4:])) for one, other in pairwise(cursors)]
    assert sum(shared) / len(shared) < 1, "of 22 characters, by chance a third of one is the same"


def test_cursors_stay_good(tmp_path: Path) -> None:
    """When the item is removed that stands there, and when the database is opened again."""
    made: list[str] = []

    async def make(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("item_1"), minted("item_2"), minted("item_3"))
        span = await store.get_span(PROJECT, "conv_1", "item_2")
        made.append(store.cursor("conv_1", span.position))
        await store.delete_item(PROJECT, "conv_1", "item_2", None)
        await append(store, "conv_1", minted("item_4"))
        assert (await store.get_span(PROJECT, "conv_1", made[0])).position == span.position

    async def read(store: SqliteStore) -> None:
        span = await store.get_span(PROJECT, "conv_1", made[0])
        found = await store.read_after(PROJECT, "conv_1", span.position, last=span.last, limit=9, max_bytes=99)
        assert found.items == [b"item_3", b"item_4"]

    run(tmp_path, make)
    run(tmp_path, read)


def test_what_is_neither_a_cursor_nor_an_item_is_unknown(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("item_1"))
        await create(store, "conv_2", minted("item_2"))
        foreign = store.cursor("conv_2", 1)
        for after in ("", "item_2", "cur_", foreign, foreign[:-1], "cur_" + "A" * 22, "x" * 1000):
            with pytest.raises(NotFound) as refusal:
                await store.get_span(PROJECT, "conv_1", after)
            said = f"No item found with id '{after}'"
            assert (refusal.value.param, refusal.value.message[:500]) == ("after", said[:500])

    run(tmp_path, scenario)


def test_an_item_may_have_the_id_of_what_could_be_a_cursor(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        name = "cur_" + "A" * 22
        await create(store, "conv_1", minted("item_1"), minted(name), minted("item_2"))
        assert (await store.get_span(PROJECT, "conv_1", name)).position == 2

    run(tmp_path, scenario)


def test_a_span_is_what_is_there_after_a_place(tmp_path: Path) -> None:
    """An item that stands in several places is found at the last of them; other conversations are no part of it."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        assert await store.get_span(PROJECT, "conv_1", None) == PositionRange(0, 0)
        await append(store, "conv_1", minted("item_1"), minted("item_2"), minted("item_1"), minted("item_3"))
        await create(store, "conv_2", minted("item_4"))
        assert await store.get_span(PROJECT, "conv_1", None) == PositionRange(0, 4)
        assert await store.get_span(PROJECT, "conv_1", "item_1") == PositionRange(3, 4)
        found = await store.read_after(PROJECT, "conv_1", 1, last=3, limit=9, max_bytes=99)
        assert (found.items, found.position, found.has_more) == ([b"item_2", b"item_1"], 3, False)

    run(tmp_path, scenario)
