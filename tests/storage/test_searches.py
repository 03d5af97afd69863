"""Searches for conversations by several pairs of metadata: their results, their cost, and their turns."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from convgrpc.errors import DeadlineExceeded, NotFound
from convgrpc.storage.interface import ConversationPage, NewConversation
from convgrpc.storage.sqlite import mutations, searches
from convgrpc.storage.sqlite.database import open_database
from convgrpc.storage.sqlite.searches import MAX_ROWS_PER_TURN, MAX_SEARCHED, Search
from convgrpc.storage.sqlite.store import SqliteStore
from tests.storage.test_store import run

PROJECT = "default"
PAIRS = {f"key-{number}": "value" for number in range(16)}
ROUNDS = 60
"""How many times a test reads to take the median."""
MAX_DELAY = 3
"""How many times longer reads may take beside 40 searches of one project than beside one."""
MAX_STEPS_PER_TURN = 40_000
"""Instructions of SQLite's virtual machine; a turn takes 24,000 when all 16 pairs are looked up for each candidate."""


def near_misses(count: int) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yields conversations that lack one pair each, all pairs equally often."""
    for number in range(count):
        yield f"conv_{number}", {**PAIRS, f"key-{number % len(PAIRS)}": "other"}


def fill(path: Path, conversations: Iterable[tuple[str, Mapping[str, str]]], project: str = PROJECT) -> None:
    """Creates conversations with metadata in one transaction."""
    with closing(open_database(path, "OFF", 5)) as connection:
        connection.execute("BEGIN")
        for name, metadata in conversations:
            mutations.create_conversation(connection, project, NewConversation(name, name.encode(), metadata), [])
        connection.execute("COMMIT")


async def search(
    store: SqliteStore,
    metadata: Mapping[str, str] = PAIRS,
    *,
    project: str = PROJECT,
    after: str | None = None,
    limit: int = 20,
    deadline: float | None = None,
) -> ConversationPage:
    return await store.list_conversations(project, deadline, after=after, limit=limit, metadata=metadata)


async def walk(store: SqliteStore, metadata: Mapping[str, str], limit: int) -> tuple[list[str], int]:
    """Reads all pages of a search. Returns the ids and the number of pages."""
    page = await search(store, metadata, limit=limit)
    found, pages = list(page.conversations), 1
    while page.has_more:
        assert page.cursor
        page = await search(store, metadata, after=page.cursor, limit=limit)
        assert len(page.conversations) <= limit
        found += page.conversations
        pages += 1
    return [data.decode() for data in found], pages


def test_search_with_random_metadata_equals_brute_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages of a search hold exactly the matching conversations, newest first."""
    monkeypatch.setattr(searches, "MAX_SEARCHED", 25)
    monkeypatch.setattr(searches, "MAX_ROWS_PER_TURN", 7)
    chance = random.Random(1)
    values = {"often": "a" * 9 + "b", "half": "ab", "rare": "a" + "bcdefghi", "thin": "abc"}
    stored = {
        f"conv_{number}": {key: chance.choice(each) for key, each in values.items() if chance.random() < 0.9}
        for number in range(400)
    }
    fill(tmp_path / "convgrpc.db", stored.items())
    # Another project's conversations never match.
    fill(
        tmp_path / "convgrpc.db", ((f"conv_other_{number}", dict.fromkeys(values, "a")) for number in range(9)), "other"
    )

    async def scenario(store: SqliteStore) -> None:
        for _ in range(150):
            keys = chance.sample(sorted(values), chance.randint(2, 4))
            wanted = {key: chance.choice(values[key]) for key in keys}
            model = [name for name, metadata in stored.items() if wanted.items() <= metadata.items()][::-1]
            found, pages = await walk(store, wanted, chance.choice([1, 3, 10, 100]))
            assert found == model, wanted
            assert pages <= len(model) + 400 // 25 + 1

    run(tmp_path, scenario)


def test_search_page_stops_at_max_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without matches has the cursor of the last candidate, and says that more may follow."""
    monkeypatch.setattr(searches, "MAX_SEARCHED", 10)
    stored = {f"conv_{number}": {"even": str(number % 2), "odd": str(1 - number % 2)} for number in range(35)}
    stored["conv_3"] = wanted = {"even": "0", "odd": "0"}
    fill(tmp_path / "convgrpc.db", stored.items())

    async def scenario(store: SqliteStore) -> None:
        page = await search(store, wanted)
        # Odd numbers have the rarer pair.
        assert (page.conversations, page.has_more, page.cursor) == ([], True, "conv_15")
        assert await walk(store, wanted, 5) == (["conv_3"], 2)

    run(tmp_path, scenario)


@pytest.mark.parametrize("wanted", [{"all": "1", "most": "2"}, {"most": "2", "all": "1"}])
@pytest.mark.parametrize("rare", [50, 500], ids=["rarer than a turn", "rarer than a page"])
def test_search_begins_with_the_rarest_pair(tmp_path: Path, wanted: dict[str, str], rare: int) -> None:
    """One page finds all matches, although they follow more candidates of the other pair than a page looks at."""
    stored = ((f"conv_{number}", {"all": "1", "most": "1" if number >= rare else "2"}) for number in range(1600))
    fill(tmp_path / "convgrpc.db", stored)

    async def scenario(store: SqliteStore) -> None:
        page = await search(store, wanted, limit=rare)
        # The first turn may have looked at candidates of the other pair.
        assert (len(page.conversations), page.has_more, page.cursor) == (rare, False, "conv_0")

    run(tmp_path, scenario)


def test_search_turn_reads_a_bounded_number_of_rows(tmp_path: Path) -> None:
    """A search among 3,000 near misses takes many short turns, and returns an incomplete page."""
    fill(tmp_path / "convgrpc.db", near_misses(3000))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    costs: list[int] = []
    with closing(open_database(tmp_path / "convgrpc.db", "OFF", 5)) as connection:
        found = Search(PROJECT, after=None, limit=20, metadata=PAIRS)
        page = None
        while page is None:
            steps = 0
            connection.set_progress_handler(count, 1)
            page = found.turn(connection)
            connection.set_progress_handler(None, 1)
            costs.append(steps)
    assert (page.conversations, page.has_more) == ([], True)
    assert max(costs) < MAX_STEPS_PER_TURN
    # The first turn counts all pairs and looks at candidates; each pair is counted once more.
    assert len(costs) == MAX_SEARCHED // MAX_ROWS_PER_TURN + len(PAIRS)


def test_search_goes_on_after_a_deletion_between_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deletion of the last candidate neither ends the search nor repeats a conversation."""
    monkeypatch.setattr(searches, "MAX_ROWS_PER_TURN", 3)
    fill(tmp_path / "convgrpc.db", ((f"conv_{number}", {"a": "1", "b": "1"}) for number in range(10)))
    with closing(open_database(tmp_path / "convgrpc.db", "OFF", 5)) as connection:
        found = Search(PROJECT, after=None, limit=20, metadata={"a": "1", "b": "1"})
        assert found.turn(connection) is None
        for gone in ("conv_7", "conv_6"):
            mutations.delete_conversation(connection, PROJECT, gone)
        page = None
        while page is None:
            page = found.turn(connection)
    # The turn before the deletion had found conv_7, but not conv_6.
    left = [f"conv_{number}" for number in (9, 8, 7, 5, 4, 3, 2, 1, 0)]
    assert [data.decode() for data in page.conversations] == left
    assert (page.has_more, page.cursor) == (False, "conv_0")


def test_search_with_an_unknown_cursor_is_not_found(tmp_path: Path) -> None:
    fill(tmp_path / "convgrpc.db", [("conv_1", PAIRS)])

    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(NotFound):
            await search(store, after="conv_2")

    run(tmp_path, scenario)


def test_search_ends_at_its_deadline(tmp_path: Path) -> None:
    """Searches raise DeadlineExceeded when their deadline passes while they wait for their turns."""
    fill(tmp_path / "convgrpc.db", near_misses(1000))

    async def scenario(store: SqliteStore) -> None:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await search(store, deadline=began - 1)
        await search(store, deadline=began + 30)
        deadline = time.monotonic() + 0.02
        ended = await asyncio.gather(*(search(store, deadline=deadline) for _ in range(80)), return_exceptions=True)
        assert any(isinstance(each, DeadlineExceeded) for each in ended)
        assert {type(each) for each in ended} <= {DeadlineExceeded, ConversationPage}

    run(tmp_path, scenario)


def test_searches_of_one_project_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 searches of one project have at most one turn in one iteration of the event loop, and all advance."""
    fill(tmp_path / "convgrpc.db", near_misses(1000))
    turns: list[Search] = []
    turn = Search.turn

    def counted(self: Search, connection: sqlite3.Connection) -> ConversationPage | None:
        turns.append(self)
        # More than a project's share of an iteration.
        time.sleep(0.005)
        return turn(self, connection)

    monkeypatch.setattr(Search, "turn", counted)

    async def scenario(store: SqliteStore) -> None:
        calls = [asyncio.create_task(search(store)) for _ in range(40)]
        most = seen = 0
        while not all(call.done() for call in calls):
            await asyncio.sleep(0)
            most, seen = max(most, len(turns) - seen), len(turns)
        assert most == 1
        # The search that had the first turn waits for its second before the others wait.
        assert len(set(turns[:41])) == 40

    run(tmp_path, scenario)


def test_searches_of_one_project_do_not_delay_the_reads_of_another(tmp_path: Path) -> None:
    """A read beside 40 searches takes at most a few times as long as beside one search."""
    fill(tmp_path / "convgrpc.db", near_misses(1000))
    fill(tmp_path / "convgrpc.db", [("conv_other", {})], "other")

    async def keep_searching(store: SqliteStore) -> None:
        while True:
            await search(store)

    async def delay(store: SqliteStore, callers: int) -> float:
        """Returns the median seconds for a read that passes the event loop as often as a call does."""
        calls = [asyncio.create_task(keep_searching(store)) for _ in range(callers)]
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(5):
                await asyncio.sleep(0)
            await store.get_conversation("other", "conv_other")
            seconds.append(time.perf_counter() - began)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        return median(seconds)

    async def scenario(store: SqliteStore) -> None:
        one, many = await delay(store, 1), await delay(store, 40)
        print(f"median read beside 1 search: {one * 1000:.2f} ms, beside 40: {many * 1000:.2f} ms")
        assert many < MAX_DELAY * one

    run(tmp_path, scenario)
