"""Turns on the event loop that projects share."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from convgrpc.fairness.loop_turns import LoopTurns

TIMEOUT = 30
LONG_S = 0.005
"""Seconds of a turn that is longer than a project's share of an iteration."""


def run(check: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT):
            await check

    asyncio.run(bounded())


def work(seconds: float) -> None:
    """Keeps the event loop busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Workers:
    """Tasks that note the projects whose turns they had, in order."""

    def __init__(self) -> None:
        self.turns = LoopTurns()
        self.had: list[str] = []

    def start(self, project: str, turns: int = 1, seconds: float = LONG_S) -> asyncio.Task[None]:
        return asyncio.create_task(self._work(project, turns, seconds))

    async def _work(self, project: str, turns: int, seconds: float) -> None:
        for _ in range(turns):
            await self.turns.turn(project)
            self.had.append(project)
            work(seconds)


def test_project_has_one_long_turn_in_an_iteration() -> None:
    """Other tasks run between any two long turns of a project, however many of its tasks wait."""

    async def check() -> None:
        workers = Workers()
        tasks = [workers.start("one", turns=2) for _ in range(20)]
        most = seen = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            most, seen = max(most, len(workers.had) - seen), len(workers.had)
        assert most == 1
        assert len(workers.had) == 40

    run(check())


def test_project_has_several_short_turns_in_an_iteration() -> None:
    """Nobody waits for turns that take no time."""

    async def check() -> None:
        workers = Workers()
        tasks = [workers.start("one", seconds=0) for _ in range(20)]
        await asyncio.sleep(0)
        assert len(workers.had) == 20
        await asyncio.gather(*tasks)

    run(check())


def test_another_project_waits_for_one_turn() -> None:
    """A project that comes last is not behind all the tasks of the first."""

    async def check() -> None:
        workers = Workers()
        many = [workers.start("one") for _ in range(50)]
        await asyncio.sleep(0)
        await workers.start("other", turns=3)
        assert workers.had.count("one") <= 5
        await asyncio.gather(*many)
        assert workers.had.count("one") == 50

    run(check())


def test_loop_pauses_after_the_turns_of_many() -> None:
    """While many tasks wait, there are several iterations without work for each turn."""

    async def check() -> None:
        workers = Workers()
        tasks = [workers.start("one") for _ in range(20)]
        iterations = 0
        while len(workers.had) < 10:
            await asyncio.sleep(0)
            iterations += 1
        assert iterations > 50
        await asyncio.gather(*tasks)

    run(check())


def test_another_project_works_in_the_pause() -> None:
    """It has several turns while the first waits for its next one."""

    async def check() -> None:
        workers = Workers()
        tasks = [workers.start("one", seconds=0.05) for _ in range(10)]
        await asyncio.sleep(0)
        while workers.had.count("one") < 1:
            await asyncio.sleep(0)
        before = workers.had.count("one")
        await workers.start("other", turns=20, seconds=0.0001)
        assert workers.had.count("one") <= before + 1
        await asyncio.gather(*tasks)

    run(check())


def test_tasks_have_turns_in_their_order() -> None:
    """The task that has waited the longest is next."""

    async def check() -> None:
        turns = LoopTurns()
        order: list[int] = []

        async def take_turn(number: int) -> None:
            await turns.turn("one")
            order.append(number)
            work(LONG_S)

        await asyncio.gather(*map(take_turn, range(9)))
        assert order == list(range(9))

    run(check())


def test_cancelled_task_keeps_nobody_waiting() -> None:
    """The turns of tasks that were cancelled go to those behind them."""

    async def check() -> None:
        workers = Workers()
        tasks = [workers.start("one", turns=3) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks[1::2])
        assert all(task.cancelled() for task in tasks[2::2])

    run(check())


def test_nothing_is_kept_of_a_project_without_tasks() -> None:
    """Turns cost no memory and no time once they are over."""

    async def check() -> None:
        workers = Workers()
        await asyncio.gather(*(workers.start(f"project-{number}", seconds=0) for number in range(50)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not workers.turns._projects
        assert workers.turns._scheduled is None

    run(check())
