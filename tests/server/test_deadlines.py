"""Times that run out, all by one clock."""

import asyncio

import pytest

from convgrpc.server.deadlines import Deadline, DeadlineScheduler

LONG = 30.0


def test_what_takes_too_long_ends() -> None:
    """Each at its own time, also when the clock had stopped in between; what is in time is left alone."""

    async def scenario() -> None:
        clock = DeadlineScheduler()
        for _ in range(2):
            with clock.within(LONG):
                with pytest.raises(TimeoutError):
                    await late(clock.within(0.05))
                with clock.within(LONG):
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
        current = asyncio.current_task()
        assert current
        assert current.cancelling() == 0

    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_a_time_can_be_cut_short() -> None:
    async def scenario() -> None:
        deadline = DeadlineScheduler().within(LONG)
        asyncio.get_running_loop().call_later(0.01, deadline.expire)
        with pytest.raises(TimeoutError):
            await late(deadline)
        deadline.expire()

    asyncio.run(asyncio.wait_for(scenario(), 5))


@pytest.mark.parametrize("is_over", [False, True])
def test_what_is_cancelled_is_not_late(is_over: bool) -> None:
    """Also where its time is over at the same moment: whoever cancels a task finds it cancelled."""

    async def scenario() -> None:
        deadline = DeadlineScheduler().within(LONG)
        task = asyncio.create_task(late(deadline))
        await asyncio.sleep(0.01)
        if is_over:
            deadline.expire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scenario(), 5))


async def late(deadline: Deadline) -> None:
    with deadline:
        await asyncio.sleep(LONG)
