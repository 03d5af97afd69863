"""The group `growth`: the same calls on little and on much, that is in a long conversation and in a large database."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.dialogues import message
from benchmarks.generators import SECONDS, Caller, Request, by_load
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
FEW, MANY, MANY_QUICKLY = 10_000, 5_000_000, 50_000
IN_EACH = 1000
PAGES = 4000
ITEM = message(Role.ROLE_USER, "x" * LENGTH).item
ROUNDS = 7


@contextmanager
def growth(effort: Effort) -> Iterator[list[Measurement]]:
    caller = partial(Caller, seconds=effort.seconds(SECONDS), by=by_load)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        many = MANY_QUICKLY if effort.quick else MANY
        (long,) = fill(folder / "long.db", 1, LONG, LENGTH)
        few_stored = fill(folder / "few.db", FEW // IN_EACH, IN_EACH, LENGTH)
        many_stored = fill(folder / "many.db", many // IN_EACH, IN_EACH, LENGTH)
        server, few, much = (stack.enter_context(serving(folder / f"{name}.db")) for name in ("long", "few", "many"))
        near, deep = f"list 20 of the newest of {LONG:,}", f"list 20 of the oldest of {LONG:,}"
        into_long, into_short = f"append into {LONG:,}", f"append into {SHORT}"
        in_few, in_many = f"list 20 of {FEW:,} in the database", f"list 20 of {many:,} in the database"
        runs = {
            into_short: lambda: caller(server, appending(server, new(server))).run(),
            into_long: lambda: caller(server, appending(server, long.id)).run(),
            near: caller(server, listing(server, ((long, newer) for newer in range(PAGES)))).run,
            deep: caller(server, listing(server, ((long, LONG - 21 - older) for older in range(PAGES)))).run,
            in_few: caller(few, listing(few, pages(few_stored))).run,
            in_many: caller(much, listing(much, pages(many_stored))).run,
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


def listing(server: Server, asked: Iterable[tuple[Stored, int]]) -> Request:
    """Pages of conversations, each after the item that has so many newer ones: more pages than the server keeps."""
    first, *more = [
        ListItemsRequest(conversation_id=stored.id, after=stored.item_ids[newer]).SerializeToString()
        for stored, newer in asked
    ]
    return asking(server, "ListItems", first)._replace(more=more)


def pages(stored: list[Stored]) -> Iterator[tuple[Stored, int]]:
    """Pages of conversations that stand apart, whatever there are."""
    step = max(1, len(stored) // PAGES)
    some = stored[::step]
    return ((some[number % len(some)], number // len(some)) for number in range(PAGES))
