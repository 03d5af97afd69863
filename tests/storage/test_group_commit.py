import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from convgrpc.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from convgrpc.storage.sqlite.database import Connection, connect
from convgrpc.storage.sqlite.group_commit import GroupCommitter

MIB = 1 << 20


class Bench:
    """A writer on a table of numbers, which can be held up, and an account of its commits."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.connection = connect(path, "FULL", 0.05)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, filling BLOB)")
        self.commits: list[tuple[int, int]] = []
        self.chores: list[Callable[[sqlite3.Connection], bool]] = []
        self.reports: list[Callable[[], object]] = []
        self.writer = GroupCommitter(
            self.connection,
            committed=self.committed,
            tidy=lambda connection: bool(self.chores) and self.chores.pop(0)(connection),
            **options,
        )

    def committed(self, rows: int, size: int) -> None:
        self.commits.append((rows, size))
        if self.reports:
            self.reports.pop(0)()

    def close(self) -> None:
        self.writer.close()
        self.connection.close()

    async def insert(self, number: int, *, size: int = 0, deadline: float | None = None, project: str = "") -> int:
        def work(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO numbers (number) VALUES (?)", (number,))
            return number

        return await self.writer.write(work, size=size, deadline=deadline, project=project)

    async def fail(self, number: int, error: Exception) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO numbers (number) VALUES (?)", (number,))
            raise error

        await self.writer.write(work)

    def numbers(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path / "numbers.db")) as made:
        yield made


def run(scenario: Awaitable[None]) -> None:
    """Runs a scenario; whatever hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


class Held:
    """Holds up the writer, so that what is asked of it meanwhile waits together."""

    def __init__(self, writer: GroupCommitter) -> None:
        self._writer = writer
        self._go_on = threading.Event()
        self._held: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:
        taken_up = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(taken_up.set)
            self._go_on.wait()

        self._held = asyncio.ensure_future(self._writer.write(wait))
        await taken_up.wait()

    async def __aexit__(self, *_: object) -> None:
        self._go_on.set()
        assert self._held is not None
        await self._held


async def together(writer: GroupCommitter, *writes: Awaitable[Any]) -> list[Any]:
    """The outcomes of writes that wait together."""
    async with Held(writer):
        tasks = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


def kinds(outcomes: Iterable[Any]) -> list[Any]:
    return [type(outcome) if isinstance(outcome, Exception) else outcome for outcome in outcomes]


def test_writes_that_wait_are_committed_together(bench: Bench) -> None:
    """Whatever waits is one commit, in the order in which it came; each caller gets its own answer."""

    async def scenario() -> None:
        order: list[int] = []

        def number(number: int) -> Callable[[sqlite3.Connection], int]:
            def work(connection: sqlite3.Connection) -> int:
                order.append(number)
                connection.execute("INSERT INTO numbers (number) VALUES (?)", (number,))
                return number

            return work

        outcomes = await together(bench.writer, *(bench.writer.write(number(n), size=10) for n in range(50)))
        assert outcomes == order == list(range(50))

    run(scenario())
    bench.writer.close()
    assert (50, 500) in bench.commits


def commits_of(bench: Bench) -> list[int]:
    """How many rows each commit had, at the end."""
    bench.writer.close()
    return [rows for rows, _ in bench.commits if rows]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes may wait for others for as long as a test may take."""
    monkeypatch.setattr("convgrpc.storage.sqlite.group_commit._MAX_BATCH_DELAY_S", 120.0)
    monkeypatch.setattr("convgrpc.storage.sqlite.group_commit._POLL_S", 120.0)


@pytest.mark.usefixtures("patience")
def test_writes_wait_for_those_that_are_on_their_way(bench: Bench) -> None:
    """A commit waits until as many are there as came with the last one and right after it."""

    async def scenario() -> None:
        async with Held(bench.writer):
            early = [asyncio.ensure_future(bench.insert(number)) for number in (0, 1)]
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert not any(write.done() for write in early), "there were three: the one that was held up, and these"
        await asyncio.gather(*early, bench.insert(2))
        early = [asyncio.ensure_future(bench.insert(number)) for number in (3, 4)]
        await asyncio.sleep(0.05)
        assert not any(write.done() for write in early)
        await asyncio.gather(*early, bench.insert(5))

    run(scenario())
    assert commits_of(bench) == [3, 3]


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("size", [0, MIB])
def test_lone_and_large_writes_wait_for_none(bench: Bench, size: int) -> None:
    """After a commit of one write the next is committed at once, and always when there are as many bytes as may be."""

    async def scenario() -> None:
        if size:
            async with Held(bench.writer):
                writes = [asyncio.ensure_future(bench.insert(number, size=size)) for number in (-2, -1)]
                await asyncio.sleep(0)
            await asyncio.gather(*writes)
        for number in range(3):
            await bench.insert(number, size=size)

    run(scenario())
    assert commits_of(bench) == [1] * (5 if size else 3)


@pytest.mark.parametrize("bound", ["_MAX_BATCH_DELAY_S", "_POLL_S"])
def test_writes_wait_a_moment_at_most(bench: Bench, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Neither while others come, though fewer than before, nor for those that do not come at all."""
    longest = {"_MAX_BATCH_DELAY_S": 0.1, "_POLL_S": 0.02}
    monkeypatch.setattr(
        "convgrpc.storage.sqlite.group_commit._MAX_BATCH_DELAY_S",
        longest["_MAX_BATCH_DELAY_S"] if bound == "_MAX_BATCH_DELAY_S" else 120.0,
    )
    monkeypatch.setattr("convgrpc.storage.sqlite.group_commit._POLL_S", longest["_POLL_S"])

    async def scenario() -> None:
        await together(bench.writer, *(bench.insert(number) for number in range(400)))
        first = asyncio.ensure_future(bench.insert(1000))
        more: list[asyncio.Future[int]] = []
        began = time.monotonic()
        while not first.done():
            await asyncio.sleep(0.001)
            if bound == "_MAX_BATCH_DELAY_S":
                more.append(asyncio.ensure_future(bench.insert(2000 + len(more))))
        assert time.monotonic() - began < 30
        await asyncio.gather(*more)

    run(scenario())
    assert sum(rows >= 400 for rows in commits_of(bench)) == 1, "that of those that were together"


def test_close_does_not_wait_for_more(bench: Bench, patience: None) -> None:
    async def scenario() -> None:
        async with Held(bench.writer):
            write = asyncio.ensure_future(bench.insert(0))
            await asyncio.sleep(0)
        await asyncio.to_thread(bench.writer.close)
        assert await write == 0

    run(scenario())


def test_commit_is_bounded(tmp_path: Path) -> None:
    """One commit takes at most 512 writes and about one MiB, but always one write."""
    with closing(Bench(tmp_path / "numbers.db", max_writes=2048)) as bench:

        async def scenario() -> None:
            sizes = [MIB // 2, MIB // 2, 1, 3 * MIB, 1] + [0] * 600
            await together(bench.writer, *(bench.insert(number, size=size) for number, size in enumerate(sizes)))

        run(scenario())
        bench.writer.close()
        commits = [commit for commit in bench.commits if commit[0]]
        assert commits == [(2, MIB), (1, 1), (1, 3 * MIB), (512, 1), (89, 0)]


def move(writer: GroupCommitter, number: int, size: int) -> Awaitable[int]:
    def work(connection: Connection) -> int:
        connection.execute("INSERT INTO numbers (number) VALUES (?)", (number,))
        connection.bytes_touched += size
        return number

    return writer.write(work)


def test_commit_ends_when_a_lot_was_moved(bench: Bench) -> None:
    """Whatever the writes were sent: about one MiB is moved by a commit, and the rest waits, in its order."""

    async def scenario() -> None:
        sizes = [MIB, 1, 0, 3 * MIB, 3 * MIB, 0, 0]
        writes = [move(bench.writer, number, size) for number, size in enumerate(sizes)]
        assert await together(bench.writer, *writes) == list(range(len(sizes)))

    run(scenario())
    bench.writer.close()
    commits = [commit for commit in bench.commits if commit[0]]
    assert commits == [(2, MIB + 1), (2, 3 * MIB), (1, 3 * MIB), (2, 0)]


def test_commit_ends_when_a_lot_was_moved_by_what_is_done_again(bench: Bench) -> None:
    """As one of its writes failed: what was moved in vain does not count."""

    async def scenario() -> None:
        outcomes = await together(
            bench.writer,
            move(bench.writer, 0, MIB),
            bench.fail(1, ValueError("no")),
            move(bench.writer, 2, MIB),
            move(bench.writer, 3, 0),
        )
        assert kinds(outcomes) == [0, ValueError, 2, 3]

    run(scenario())
    assert bench.numbers() == [0, 2, 3]
    # Rows that were undone count as well.
    assert len(commits_of(bench)) == 2


def test_answer_follows_the_commit(bench: Bench) -> None:
    """When a write is answered, other connections see it."""

    async def scenario() -> None:
        for number in range(20):
            await bench.insert(number)
            assert bench.numbers() == list(range(number + 1))

    run(scenario())


def test_failure_undoes_one_write_only(bench: Bench) -> None:
    """Whatever a write raises comes back to its caller, and undoes nothing of others in the same commit."""

    async def scenario() -> None:
        outcomes = await together(
            bench.writer,
            bench.insert(1),
            bench.fail(2, ValueError("no")),
            bench.insert(3),
            # It cannot be set on a future as it is, and turns into RuntimeError in a coroutine.
            bench.fail(4, StopIteration()),
            bench.insert(5),
        )
        assert kinds(outcomes) == [1, ValueError, 3, RuntimeError, 5]

    run(scenario())
    assert bench.numbers() == [1, 3, 5]


def test_failing_statement_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What the database has against one write is for the log; its caller hears that the database refused."""

    async def scenario() -> None:
        outcomes = await together(bench.writer, bench.insert(1), bench.insert(1), bench.insert(2))
        assert kinds(outcomes) == [1, Unavailable, 2]

    run(scenario())
    assert "UNIQUE constraint failed" in caplog.text
    assert bench.numbers() == [1, 2]


def test_cancelled_and_late_writes_are_not_done(bench: Bench) -> None:
    """What is cancelled, or late, before the writer takes it up is not written."""

    async def scenario() -> None:
        async with Held(bench.writer):
            in_time = asyncio.ensure_future(bench.insert(1, deadline=time.monotonic() + 60))
            late = asyncio.ensure_future(bench.insert(2, deadline=time.monotonic()))
            cancelled = asyncio.ensure_future(bench.insert(3))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.sleep(0)
        assert kinds(await asyncio.gather(in_time, late, return_exceptions=True)) == [1, DeadlineExceeded]
        assert cancelled.cancelled()
        await bench.insert(4)

    run(scenario())
    assert bench.numbers() == [1, 4]


def test_write_that_was_taken_up_may_be_cancelled(bench: Bench) -> None:
    """A caller who leaves while its write is being done disturbs nobody."""

    async def scenario() -> None:
        taken_up = asyncio.Event()
        go_on = threading.Event()
        loop = asyncio.get_running_loop()

        def work(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(taken_up.set)
            go_on.wait()

        async with Held(bench.writer):
            leaving = asyncio.ensure_future(bench.writer.write(work))
            staying = asyncio.ensure_future(bench.insert(1))
            await asyncio.sleep(0)
        await taken_up.wait()
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        go_on.set()
        assert await staying == 1

    run(scenario())


def test_full_queue_refuses_at_once(tmp_path: Path) -> None:
    """When half of all that may wait are a project's, another of its writes is refused and not written, and those of
    others are not; then there is room again.
    """
    with closing(Bench(tmp_path / "numbers.db", max_writes=6)) as bench:

        async def scenario() -> None:
            others = [bench.insert(number, project="birch") for number in (10, 11, 12)]
            outcomes = await together(bench.writer, *(bench.insert(number) for number in range(5)), *others)
            assert kinds(outcomes) == [0, 1, 2, ResourceExhausted, ResourceExhausted, 10, 11, ResourceExhausted]
            assert await bench.insert(5) == 5

        run(scenario())
        assert bench.numbers() == [0, 1, 2, 5, 10, 11]


def test_waiting_bytes_are_bounded(tmp_path: Path) -> None:
    """When half of the bytes that may wait are a project's, another of its writes is refused, and those of others are
    not; one that is too large alone passes before others.
    """
    with closing(Bench(tmp_path / "numbers.db", max_bytes=100)) as bench:

        def write(size: int, project: str) -> Awaitable[str]:
            return bench.writer.write(lambda _: "done", size=size, project=project)

        async def scenario() -> None:
            for _ in range(2):
                sizes = [(30, "alder"), (20, "alder"), (1, "alder"), (0, "alder"), (25, "birch"), (1, "birch")]
                outcomes = await together(bench.writer, *(write(*size) for size in sizes))
                assert kinds(outcomes) == ["done", "done", ResourceExhausted, "done", "done", ResourceExhausted]
                outcomes = await together(bench.writer, *(write(*size) for size in [(101, "alder"), (1, "birch")]))
                assert kinds(outcomes) == ["done", ResourceExhausted]

        run(scenario())


def test_projects_take_turns(bench: Bench) -> None:
    """Few writes of one project do not wait for many of another; nor does any write for smaller ones that fit in."""
    done: list[str] = []

    def writes(project: str, count: int, *, size: int = 0, moves: int = 0) -> list[Awaitable[None]]:
        def work(connection: Connection) -> None:
            connection.bytes_touched += moves
            done.append(project)

        return [bench.writer.write(work, size=size, project=project) for _ in range(count)]

    async def scenario(*asked: Awaitable[None]) -> str:
        done.clear()
        await together(bench.writer, *asked)
        return " ".join(f"{len(list(group))}{project}" for project, group in groupby(done))

    async def scenarios() -> None:
        many = await scenario(*writes("a", 200), *writes("b", 70), *writes("c", 1))
        assert many == "64a 64b 1c 64a 6b 72a"
        # b has a turn before a moves more, and all that fits into it.
        moving = await scenario(*writes("a", 4, moves=2 * MIB), *writes("b", 70), *writes("c", 1))
        assert moving == "1a 64b 1c 1a 6b 2a"
        large = await scenario(*writes("a", 3, size=MIB), *writes("b", 2, size=MIB), *writes("c", 2, size=10))
        assert large == "1a 1b 2c 1a 1b 1a"
        halves = await scenario(*writes("a", 4, size=MIB * 2 // 3), *writes("b", 2, size=MIB * 2 // 3))
        assert halves == "1a 1b 1a 1b 2a"

    run(scenarios())


@pytest.mark.parametrize("at", ["commit", "chore", "report"])
def test_more_writes_are_refused_while_one_takes_too_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Or what is done between commits does; those that wait already go on waiting."""
    monkeypatch.setattr("convgrpc.storage.sqlite.group_commit.STALLED", 0.2)
    begun, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> bool:
        begun.set()
        return not go_on.wait(60)

    async def scenario() -> None:
        if at == "chore":
            bench.chores.append(wait)
        if at == "report":
            bench.reports.append(wait)
        first = asyncio.ensure_future(bench.writer.write(wait if at == "commit" else lambda _: False))
        await asyncio.to_thread(begun.wait)
        waiting = asyncio.ensure_future(bench.insert(1))
        await asyncio.sleep(0.3)
        with pytest.raises(Unavailable, match="the disk is too slow"):
            await bench.insert(2)
        assert bench.writer.stalled
        go_on.set()
        assert [await first, await waiting, await bench.insert(3)] == [False, 1, 3]
        await asyncio.sleep(0.3)
        assert not bench.writer.stalled, "as nothing is on its way"

    run(scenario())
    assert bench.numbers() == [1, 3]


def test_locked_database_fails_the_commit(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """When another process locks the database for too long, all writes of the commit fail, and later ones do not."""

    async def scenario() -> None:
        with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            outcomes = await asyncio.gather(bench.insert(1), bench.insert(2), return_exceptions=True)
            assert kinds(outcomes) == [Unavailable, Unavailable]
        assert await bench.insert(3) == 3

    run(scenario())
    assert "database is locked" in caplog.text
    assert bench.numbers() == [3]


def test_full_disk_fails_the_commit(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """When the disk is full, no write of the commit is acknowledged or done, and later ones are when there is room."""

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (3, zeroblob(1000000))")

    def set_pages(count: int) -> Callable[[sqlite3.Connection], None]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {count}").close()

    async def scenario() -> None:
        await bench.writer.write(set_pages(10))
        outcomes = await together(bench.writer, bench.insert(1), bench.insert(2), bench.writer.write(fill))
        assert kinds(outcomes) == [Unavailable] * 3
        assert all("the disk is full" in str(outcome) for outcome in outcomes)
        await bench.writer.write(set_pages(1000))
        assert await bench.insert(4) == 4

    run(scenario())
    assert "database or disk is full" in caplog.text
    assert bench.numbers() == [4]


def test_loop_that_is_gone_disturbs_nobody(bench: Bench) -> None:
    """Writes whose event loop ended before they were done are forgotten; a later loop is served."""
    go_on = threading.Event()

    async def left_behind() -> None:
        taken_up = threading.Event()

        def wait(_: sqlite3.Connection) -> None:
            taken_up.set()
            go_on.wait()

        held = asyncio.ensure_future(bench.writer.write(wait))
        await asyncio.sleep(0)
        assert taken_up.wait(60)
        waiting = asyncio.ensure_future(bench.insert(1))
        await asyncio.sleep(0)
        assert not held.done()
        assert not waiting.done()

    async def later() -> None:
        waiting = asyncio.ensure_future(bench.insert(2))
        await asyncio.sleep(0)
        go_on.set()
        assert await waiting == 2

    run(left_behind())
    run(later())
    assert bench.numbers() == [2]


def test_chores_wait_for_writes(bench: Bench) -> None:
    """Chores are done when no write waits, one after the other as long as there are any, and writes come between."""
    done: list[str] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        all_done = asyncio.Event()
        go_on = threading.Event()

        def first(_: sqlite3.Connection) -> bool:
            done.append("chore")
            loop.call_soon_threadsafe(begun.set)
            go_on.wait()
            return True

        def second(_: sqlite3.Connection) -> bool:
            done.append("chore")
            loop.call_soon_threadsafe(all_done.set)
            return False

        bench.chores += [first, second]
        await bench.writer.write(lambda _: done.append("write"))
        await begun.wait()
        write = asyncio.ensure_future(bench.writer.write(lambda _: done.append("write")))
        await asyncio.sleep(0)
        go_on.set()
        await write
        await all_done.wait()

    run(scenario())
    assert done == ["write", "chore", "write", "chore"]


def test_chore_that_fails_is_undone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A chore that fails leaves nothing behind, is logged, and does not keep writes from being done."""

    async def scenario() -> None:
        tried = asyncio.Event()
        loop = asyncio.get_running_loop()

        def chore(connection: sqlite3.Connection) -> bool:
            loop.call_soon_threadsafe(tried.set)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO numbers (number) VALUES (1)")
            connection.execute("INSERT INTO nowhere VALUES (1)")
            return True

        bench.chores.append(chore)
        await bench.insert(2)
        await tried.wait()
        assert await bench.insert(3) == 3

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "no such table: nowhere" in caplog.text
    assert bench.numbers() == [2, 3]


def test_close_finishes_what_waits_and_refuses_more(bench: Bench) -> None:
    """Writes that wait at the end are done, chores are not, and nothing is taken up afterwards."""

    async def scenario() -> None:
        async with Held(bench.writer):
            waiting = asyncio.ensure_future(bench.insert(1))
            await asyncio.sleep(0)
            closings = [asyncio.ensure_future(asyncio.to_thread(bench.writer.close)) for _ in range(2)]
            while not bench.writer._closing:
                await asyncio.sleep(0.001)
            with pytest.raises(Unavailable):
                await bench.insert(2)
        assert await waiting == 1
        await asyncio.gather(*closings)
        with pytest.raises(Unavailable):
            await bench.insert(3)

    run(scenario())
    assert bench.numbers() == [1]
