"""Turns on the event loop that projects share."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from convgrpc.fairness.loop_turns import LoopTurns

TIMEOUT = 30


def run(check: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT):
            await check

    asyncio.run(bounded())


class Workers:
    """Tasks that note the projects whose turns they had, in order."""

    def __init__(self) -> None:
        self.turns = LoopTurns()
        self.had: list[str] = []

    def start(self, project: str, turns: int = 1) -> asyncio.Task[None]:
        return asyncio.create_task(self._work(project, turns))

    async def _work(self, project: str, turns: int) -> None:
        for _ in range(turns):
            await self.turns.turn(project)
            self.had.append(project)


def test_project_has_one_turn_in_an_iteration() -> None:
    """Other tasks run between any two turns of a project, however many of its tasks wait."""

    async def check() -> None:
        workers = Workers()
        tasks = [workers.start("one", turns=5) for _ in range(20)]
        most = seen = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            most, seen = max(most, len(workers.had) - seen), len(workers.had)
        assert most == 1
        assert len(workers.had) == 100

    run(check())


def test_another_project_waits_for_one_turn() -> None:
    """A project that comes last is not behind all the tasks of the first."""

    async def check() -> None:
        workers = Workers()
        many = [workers.start("one") for _ in range(100)]
        await asyncio.sleep(0)
        await workers.start("other", turns=3)
        assert workers.had.count("one") <= 5
        await asyncio.gather(*many)
        assert workers.had.count("one") == 100

    run(check())


def test_tasks_have_turns_in_their_order() -> None:
    """The task that has waited the longest is next."""

    async def check() -> None:
        turns = LoopTurns()
        order: list[int] = []

        async def work(number: int) -> None:
            await turns.turn("one")
            order.append(number)

        await asyncio.gather(*map(work, range(9)))
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
        await asyncio.gather(*(workers.start(f"project-{number}") for number in range(50)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not workers.turns._waiting

    run(check())
