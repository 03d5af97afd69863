"""The group `growth`: the same calls on little and on much, that is in a long conversation and in a large database."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import rest_calls
from benchmarks.dialogues import message
from benchmarks.generators import SECONDS, Caller, Request
from benchmarks.grpc_calls import asking
from benchmarks.library import Stored, fill
from benchmarks.processes import DATABASES
from benchmarks.results import Effort, Measurement
from benchmarks.service import CONVERSATIONS, Server, serving
from benchmarks.turns import Turns
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest, CreateItemsRequest, ListItemsRequest
from convgrpc.v1.item_pb2 import Role

LONG, SHORT = 100_000, 10
LENGTH = 300
FEW, MANY, MANY_QUICKLY = 10_000, 5_000_000, 200_000
IN_EACH = 1000
ITEM = message(Role.ROLE_USER, "x" * LENGTH).item
ROUNDS = 7


@contextmanager
def growth(effort: Effort) -> Iterator[list[Measurement]]:
    caller = partial(Caller, seconds=effort.seconds(SECONDS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        many = MANY_QUICKLY if effort.quick else MANY
        (long,) = fill(folder / "long.db", 1, LONG, LENGTH)
        few_stored = fill(folder / "few.db", FEW // IN_EACH, IN_EACH, LENGTH)
        many_stored = fill(folder / "many.db", many // IN_EACH, IN_EACH, LENGTH)
        server, few, much = (stack.enter_context(serving(folder / f"{name}.db")) for name in ("long", "few", "many"))
        near, deep = "list 20 after the 1st", f"list 20 after the {LONG - 30:,}th"
        into_long, into_short = f"append into {LONG:,}", f"append into {SHORT}"
        in_few, in_many = f"REST list 20 of {FEW:,}", f"REST list 20 of {many:,} in the database"
        runs = {
            into_short: lambda: caller(server, appending(server, new(server))).run(),
            into_long: lambda: caller(server, appending(server, long.id)).run(),
            near: caller(server, listing(server, long, 0)).run,
            deep: caller(server, listing(server, long, LONG - 31)).run,
            in_few: caller(few, lists(few, few_stored)).run,
            in_many: caller(much, lists(much, many_stored)).run,
        }
        turns = Turns(runs, ROUNDS)
        yield [
            turns.rates(into_long, into_short, 0.9),
            turns.rates(deep, near, 0.9),
            turns.rates(in_many, in_few, 0.8),
        ]


def new(server: Server) -> str:
    """A new conversation that is short."""
    request = CreateConversationRequest(items=[ITEM] * SHORT).SerializeToString()
    return Conversation.FromString(server.call(f"{CONVERSATIONS}/CreateConversation", request)()).id


def appending(server: Server, conversation: str) -> Request:
    request = CreateItemsRequest(conversation_id=conversation, items=[ITEM])
    return asking(server, "CreateItems", request.SerializeToString())


def listing(server: Server, stored: Stored, after: int | None = None) -> Request:
    """A page of a conversation, after the item that has so many newer ones if any."""
    request = ListItemsRequest(conversation_id=stored.id)
    if after is not None:
        request.after = stored.item_ids[after]
    return asking(server, "ListItems", request.SerializeToString())


def lists(server: Server, stored: list[Stored]) -> Request:
    """The first pages of as many conversations, which stand apart, whatever there are."""
    some = stored[:: len(stored) // (FEW // IN_EACH)]
    return rest_calls.asking(server.http, [f"/v1/conversations/{each.id}/items" for each in some], key=server.key)
