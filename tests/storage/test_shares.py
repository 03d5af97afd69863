"""What may wait to be written is shared among projects."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from convgrpc.errors import ResourceExhausted
from convgrpc.storage.interface import Append, NewConversation, NewItem, NewResponse, Origin
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.storage.sqlite.write_queue import MAX_BATCH_BYTES, FairWriteQueue, Write
from tests.storage.holding import together

NEW = NewConversation("new", b"", {})
ITEM = NewItem("msg_1", b"", Origin.MINTED)

Call = Callable[[SqliteStore, str], Awaitable[object]]

CALLS: dict[str, Call] = {
    "create_conversation": lambda store, project: store.create_conversation(project, NEW, [ITEM], None),
    "update_conversation": lambda store, project: store.update_conversation(project, "none", {}, bytes, None),
    "fork_conversation": lambda store, project: store.fork_conversation(project, "none", None, lambda _: NEW, None),
    "delete_conversation": lambda store, project: store.delete_conversation(project, "none", None),
    "append_items": lambda store, project: store.append_items(project, "none", [ITEM], None),
    "append_batch": lambda store, project: store.append_batch(project, [Append("none", [ITEM])], None),
    "delete_item": lambda store, project: store.delete_item(project, "none", "msg_1", None),
    "record_response": lambda store, project: store.record_response(
        project, NewResponse("resp_1", b"", None, None, [ITEM], []), None
    ),
    "delete_response": lambda store, project: store.delete_response(project, "none", None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_project_whose_writes_wait_refuses_none_of_another(tmp_path: Path, call: Call) -> None:
    """Whatever they are: half of those that may wait are for others."""

    async def scenario() -> None:
        store = SqliteStore.open(tmp_path / "convgrpc.db", synchronous="OFF", max_waiting_writes=4)
        try:
            await store.create_conversation("alder", NewConversation("conv_1", b"", {}), [], None)
            outcomes = await together(
                store, "alder", "conv_1", *(call(store, project) for project in ("alder",) * 3 + ("birch",))
            )
            refused = [isinstance(outcome, ResourceExhausted) for outcome in outcomes]
            assert refused == [False, False, True, False]
        finally:
            await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [0, 2 * MAX_BATCH_BYTES])
@pytest.mark.parametrize("others", [1, 2, 5])
def test_nobody_is_overtaken_for_ever_when_commits_end_early(others: int, size: int) -> None:
    """Each write of the others moves as much as a commit may, so that what was taken out with it is put back."""
    waiting = FairWriteQueue(1024, 64 << 20)
    future = cast("asyncio.Future[object]", None)
    busy = [Write(f"alder {n}", lambda _: None, 0, None, (), future) for n in range(others)]
    patient = Write("birch", lambda _: None, size, None, (), future)
    for write in (*busy * 3, patient):
        waiting.add(write)
    done = []
    for _ in range(others + 1):
        first, *rest = waiting.take()
        waiting.put_back(rest, done={first.project})
        done.append(first)
        # Whoever was answered writes again.
        waiting.add(first)
    assert patient in done
    assert (len(waiting), waiting.size) == (3 * others + 1, size)


def test_what_was_put_back_is_before_what_came_since() -> None:
    waiting = FairWriteQueue(1024, 64 << 20)
    future = cast("asyncio.Future[object]", None)
    writes = [Write("alder", lambda _: None, n, None, (), future) for n in range(4)]
    for write in writes[:3]:
        waiting.add(write)
    first, *rest = waiting.take()
    waiting.add(writes[3])
    waiting.put_back(rest, done={"alder"})
    assert [first, *waiting.take()] == writes


def test_project_that_arrives_is_before_those_of_the_last_batch() -> None:
    """It waits for the batch that is at work, and for no other."""
    waiting = FairWriteQueue(1024, 64 << 20)
    future = cast("asyncio.Future[object]", None)
    for _ in range(3):
        waiting.add(Write("alder", lambda _: None, 2 * MAX_BATCH_BYTES, None, (), future))
    assert [write.project for write in waiting.take()] == ["alder"]
    waiting.add(Write("birch", lambda _: None, 600, None, (), future))
    assert [write.project for write in waiting.take()] == ["birch"]
    assert [write.project for write in waiting.take()] == ["alder"]


def test_projects_that_come_and_go_overtake_nobody_for_ever() -> None:
    """Of three projects with large writes each is served in its turn, although two of them arrive anew each time."""
    waiting = FairWriteQueue(1024, 64 << 20)
    future = cast("asyncio.Future[object]", None)

    def add(project: str) -> None:
        waiting.add(Write(project, lambda _: None, 2 * MAX_BATCH_BYTES, None, (), future))

    for project in ("alder", "alder", "alder", "birch", "cedar"):
        add(project)
    done = []
    for _ in range(9):
        (write,) = waiting.take()
        done.append(write.project)
        if write.project != "alder":
            add(write.project)
        if done.count("alder") and not [each for each in waiting._queues if each == "alder"]:
            break
    assert done.count("alder") == 3
