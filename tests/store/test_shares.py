"""What may wait to be written is shared among projects."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from convgrpc.errors import ResourceExhausted
from convgrpc.store.protocol import Append, NewConversation, NewItem, NewResponse, Origin
from convgrpc.store.sqlite import SqliteStore
from tests.store.holding import together

NEW = NewConversation("new", b"", {})
ITEM = NewItem("msg_1", b"", Origin.MINTED)

Write = Callable[[SqliteStore, str], Awaitable[object]]

WRITES: dict[str, Write] = {
    "create_conversation": lambda store, project: store.create_conversation(project, NEW, [ITEM], None),
    "update_conversation": lambda store, project: store.update_conversation(project, "none", {}, bytes, None),
    "fork_conversation": lambda store, project: store.fork_conversation(project, "none", None, lambda _: NEW, None),
    "delete_conversation": lambda store, project: store.delete_conversation(project, "none", None),
    "append_items": lambda store, project: store.append_items(project, "none", [ITEM], None),
    "append_in_turn": lambda store, project: store.append_in_turn(project, [Append("none", [ITEM])], None),
    "delete_item": lambda store, project: store.delete_item(project, "none", "msg_1", None),
    "record_response": lambda store, project: store.record_response(
        project, NewResponse("resp_1", b"", None, None, [ITEM], []), None
    ),
    "delete_response": lambda store, project: store.delete_response(project, "none", None),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_project_whose_writes_wait_refuses_none_of_another(tmp_path: Path, write: Write) -> None:
    """Whatever they are: half of those that may wait are for others."""

    async def scenario() -> None:
        store = SqliteStore.open(tmp_path / "convgrpc.db", synchronous="OFF", max_waiting_writes=4)
        try:
            await store.create_conversation("alder", NewConversation("conv_1", b"", {}), [], None)
            outcomes = await together(
                store, "alder", "conv_1", *(write(store, project) for project in ("alder",) * 3 + ("birch",))
            )
            refused = [isinstance(outcome, ResourceExhausted) for outcome in outcomes]
            assert refused == [False, False, True, False]
        finally:
            await store.close()

    asyncio.run(scenario())
