"""Threads that projects share."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from convgrpc.fairness.threads import FairThreads

TIMEOUT = 30


@pytest.fixture
def threads() -> Iterator[FairThreads]:
    threads = FairThreads(4, "test")
    yield threads
    threads.close()


class Gate:
    """Work that lasts until it is let go, and notes that it began."""

    def __init__(self) -> None:
        self.began = 0
        self._open = threading.Event()
        self._lock = threading.Lock()

    def work(self) -> None:
        with self._lock:
            self.began += 1
        assert self._open.wait(TIMEOUT)

    def open(self) -> None:
        self._open.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)


def test_project_gets_at_most_half_of_the_threads(threads: FairThreads) -> None:
    """Work of another project starts at once, however much of the first one waits."""

    async def check() -> None:
        gate = Gate()
        tasks = [asyncio.create_task(threads.run("one", gate.work)) for _ in range(50)]
        await until(lambda: gate.began == 2)
        assert await asyncio.gather(*(threads.run("other", lambda: 1) for _ in range(20))) == [1] * 20
        assert gate.began == 2
        gate.open()
        await asyncio.gather(*tasks)
        assert gate.began == 50

    asyncio.run(check())


def test_project_alone_is_served_by_few_threads(threads: FairThreads) -> None:
    """Its share of them: each keeps things for itself, such as a copy of an encoding."""

    async def check() -> None:
        tasks = [threads.run("one", threading.get_ident) for _ in range(200)]
        assert len(set(await asyncio.gather(*tasks))) <= 2

    asyncio.run(check())


def test_one_thread_does_all_where_the_system_has_room_for_no_more(
    threads: FairThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is done once, and by several threads again when there is room for them."""
    done: list[int] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def work() -> int:
        done.append(1)
        return threading.get_ident()

    async def check() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            tasks = [threads.run(project, work) for project in ("one", "other") for _ in range(20)]
            assert len(set(await asyncio.gather(*tasks))) == 1
        assert len(done) == 40
        gate = Gate()
        again = [asyncio.create_task(threads.run("one", gate.work)) for _ in range(2)]
        await until(lambda: gate.began == 2)
        gate.open()
        await asyncio.gather(*again)
        assert len(done) == 40

    asyncio.run(check())


def test_projects_take_turns(threads: FairThreads) -> None:
    """Of three projects with work that waits, each has had its share after any number of turns."""
    done: list[str] = []

    async def check() -> None:
        gate = Gate()
        blocking = [asyncio.create_task(threads.run(name, gate.work)) for name in ("x", "x", "y", "y")]
        await until(lambda: gate.began == 4)
        tasks = [
            asyncio.create_task(threads.run(name, partial(done.append, name)))
            for name in ["a"] * 30 + ["b"] * 10 + ["c"] * 10
        ]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*blocking, *tasks)

    asyncio.run(check())
    assert {name: done[:30].count(name) >= 8 for name in "abc"} == dict.fromkeys("abc", True)


def test_cancelled_work_that_waits_is_never_begun(threads: FairThreads) -> None:
    async def check() -> None:
        gate, late = Gate(), Gate()
        late.open()
        tasks = [asyncio.create_task(threads.run("one", gate.work)) for _ in range(2)]
        waiting = [asyncio.create_task(threads.run("one", late.work)) for _ in range(10)]
        await until(lambda: gate.began == 2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        gate.open()
        await asyncio.gather(*tasks)
        await threads.run("one", late.work)
        assert late.began == 1
        assert not threads._waiting

    asyncio.run(check())


def test_cancelled_work_that_was_begun_keeps_its_thread_until_it_ends(threads: FairThreads) -> None:
    """A project cannot get more threads by calls that it cancels."""

    async def check() -> None:
        gate = Gate()
        tasks = [asyncio.create_task(threads.run("one", gate.work)) for _ in range(2)]
        await until(lambda: gate.began == 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert threads.try_run("one", int) is None
        more = asyncio.create_task(threads.run("one", gate.work))
        await threads.run("other", int)
        assert gate.began == 2
        gate.open()
        await more
        assert gate.began == 3

    asyncio.run(check())


def test_second_thread_is_given_while_the_share_lasts(threads: FairThreads) -> None:
    async def check() -> None:
        gate = Gate()
        task = asyncio.create_task(threads.run("one", gate.work))
        await until(lambda: gate.began == 1)
        second = threads.try_run("one", gate.work)
        assert second is not None
        assert threads.try_run("one", gate.work) is None
        other = threads.try_run("other", lambda: 7)
        assert other is not None
        assert other.result(TIMEOUT) == 7
        gate.open()
        await task
        second.result(TIMEOUT)

    asyncio.run(check())


def test_errors_of_work_are_raised_and_free_the_thread(threads: FairThreads) -> None:
    async def check() -> None:
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                await threads.run("one", lambda: 1 / 0)
        assert await threads.run("one", lambda: 1) == 1

    asyncio.run(check())


def test_closed_threads_take_no_work() -> None:
    async def check() -> None:
        threads = FairThreads(2, "test")
        gate = Gate()
        running = asyncio.create_task(threads.run("one", gate.work))
        waiting = asyncio.create_task(threads.run("one", gate.work))
        await until(lambda: gate.began == 1)
        threads.close()
        gate.open()
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(RuntimeError):
            await threads.run("one", int)
        assert threads.try_run("one", int) is None

    asyncio.run(check())
