"""Work on messages, which leaves the event loop or waits for a turn if they are large."""

import asyncio
import threading
import time

import pytest

from convgrpc.handlers.message_work import LARGE, LARGE_REQUEST, MessageWork

SMALL = 1 << 10


@pytest.mark.parametrize(
    ("size", "name"), [(0, "MainThread"), (LARGE, "MainThread"), (LARGE + 1, "large-messages"), (2 << 20, "largest-m")]
)
def test_large_messages_are_worked_on_in_threads(size: int, name: str) -> None:
    async def scenario() -> None:
        found = await MessageWork().do("alder", size, threading.current_thread)
        assert found.name.startswith(name)

    asyncio.run(scenario())


def test_requests_are_worked_on_in_threads_sooner() -> None:
    async def scenario() -> None:
        work = MessageWork()
        for size, is_large in ((LARGE_REQUEST, False), (LARGE_REQUEST + 1, True)):
            found = await work.do("alder", size, threading.current_thread, large=LARGE_REQUEST)
            assert found.name.startswith("large-messages") is is_large

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "most"), [(SMALL, 9), (SMALL + 1, 1)])
def test_long_work_on_messages_of_one_project_waits_for_turns(size: int, most: int) -> None:
    """Above 1 KiB, messages of one project that take long are worked on in as many iterations of the event loop."""
    done: list[str] = []

    def worked() -> None:
        time.sleep(0.005)
        done.append("alder")

    async def scenario() -> None:
        work = MessageWork()
        calls = [asyncio.create_task(work.do("alder", size, worked)) for _ in range(9)]
        counts = []
        while not all(call.done() for call in calls):
            before = len(done)
            await asyncio.sleep(0)
            counts.append(len(done) - before)
        assert max(counts) == most

    asyncio.run(scenario())
