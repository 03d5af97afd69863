"""Work on messages, which leaves the event loop or waits for a turn if they are large."""

import asyncio
import threading

import pytest

from convgrpc.handlers.message_work import LARGE, MessageWork

SMALL = 4 << 10


@pytest.mark.parametrize(
    ("size", "name"), [(0, "MainThread"), (LARGE, "MainThread"), (LARGE + 1, "large-messages"), (2 << 20, "largest-m")]
)
def test_large_messages_are_worked_on_in_threads(size: int, name: str) -> None:
    async def scenario() -> None:
        found = await MessageWork().do("alder", size, threading.current_thread)
        assert found.name.startswith(name)

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "most"), [(SMALL, 9), (SMALL + 1, 1)])
def test_messages_of_one_project_wait_for_turns(size: int, most: int) -> None:
    """Above 4 KiB, those of one project that were received are worked on in as many iterations of the event loop."""
    done: list[str] = []

    async def scenario() -> None:
        work = MessageWork()
        calls = [asyncio.create_task(work.do_in_turn("alder", size, lambda: done.append("alder"))) for _ in range(9)]
        counts = []
        while not all(call.done() for call in calls):
            before = len(done)
            await asyncio.sleep(0)
            counts.append(len(done) - before)
        assert max(counts) == most

    asyncio.run(scenario())
