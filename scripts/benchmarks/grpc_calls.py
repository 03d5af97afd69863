"""The group `grpc`: calls by gRPC beside a bare server of grpc.aio, the service at NORMAL, and SQLite alone."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.dialogues import message, prose
from benchmarks.generators import SECONDS, Caller, Request
from benchmarks.library import fill
from benchmarks.processes import DATABASES, Process, python, started
from benchmarks.raw_sqlite import raw_sqlite
from benchmarks.results import Effort, Measurement
from benchmarks.service import CONVERSATIONS, Server, serving
from benchmarks.syncs import syncs
from benchmarks.turns import Turns
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest, GetConversationRequest, ListItemsRequest
from convgrpc.v1.item_pb2 import ConversationItem, Role

LENGTH = 850
NOOP, RAW = "no-op grpc.aio", "raw SQLite, 64 rows a commit"
CREATE, CREATE_20, LIST = "CreateItems(1)", "CreateItems(20), items", "ListItems(20 of 1,000)"
AT_NORMAL, CHAIN = "CreateItems(1) at NORMAL", "no-op through the chain"
ROUNDS = 7


@contextmanager
def grpc_calls(effort: Effort) -> Iterator[list[Measurement]]:
    caller = partial(Caller, seconds=effort.seconds(SECONDS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        (listed,) = fill(folder / "full.db", 1, 1000, LENGTH)
        full = stack.enter_context(serving(folder / "full.db"))
        normal = stack.enter_context(serving(folder / "normal.db", variant="normal"))
        chain = stack.enter_context(serving(folder / "chain.db", variant="no-op"))
        noop, address = stack.enter_context(started(python("benchmarks.noop_grpc")))
        item = message(Role.ROLE_USER, prose(random.Random(6), LENGTH)).item
        raw = stack.enter_context(raw_sqlite(folder / "raw.db", item.SerializeToString()))
        append, append_20 = appending(full, item), appending(full, item, 20)
        bare = Request(address.strip(), ["/bare/Noop"], append.body, answer=1000, is_grpc=True)
        listing = asking(full, "ListItems", ListItemsRequest(conversation_id=listed.id).SerializeToString())
        nothing = asking(
            chain, "GetConversation", GetConversationRequest(conversation_id=listed.id).SerializeToString()
        )
        creating = {CREATE: caller(full, append), CREATE_20: caller(full, append_20)}
        callers = {
            NOOP: caller(Process(noop), bare),
            CHAIN: caller(chain, nothing),
            **creating,
            AT_NORMAL: caller(normal, appending(normal, item)),
            LIST: caller(full, listing),
        }
        runs = {name: caller.run for name, caller in callers.items()} | {RAW: raw.run}
        turns = Turns(runs, ROUNDS)
        before = full.stored()
        yield [
            turns.rates(CHAIN, NOOP, None),
            turns.rates(CREATE, NOOP, 0.55),
            turns.rates(LIST, NOOP, 0.50),
            turns.rates(CREATE, AT_NORMAL, 0.95, beside=lambda: per_commit(full, creating[CREATE])),
            turns.rates(CREATE_20, RAW, 0.60, items=20),
            turns.slowest(CREATE, CREATE, 2.5),
        ]
        acknowledged = creating[CREATE].acknowledged + 20 * creating[CREATE_20].acknowledged
        assert full.stored() - before == acknowledged, "not all that was acknowledged is stored, or more is"


def appending(server: Server, item: ConversationItem, items: int = 1) -> Request:
    """An append to a new conversation."""
    conversation = Conversation.FromString(server.call(f"{CONVERSATIONS}/CreateConversation", b"")())
    request = CreateItemsRequest(conversation_id=conversation.id, items=[item] * items)
    return asking(server, "CreateItems", request.SerializeToString())


def asking(server: Server, method: str, message: bytes) -> Request:
    path = f"{CONVERSATIONS}/{method}"
    answer = server.call(path, message)()
    return Request(server.grpc, [path], message, len(answer), server.key, is_grpc=True)


def per_commit(server: Server, caller: Caller) -> dict[str, float]:
    """How many writes a commit has, and how many syncs of the disk, where that can be seen: to look makes commits slow,
    and so of another size.
    """
    before = server.commits()
    caller.run()
    unseen = server.commits()
    found = syncs(server.pid, caller.run)
    seen = server.commits()
    told = {"writes/commit": (unseen.writes - before.writes) / (unseen.commits - before.commits)}
    return told if found is None else told | {"syncs/commit": found / (seen.commits - unseen.commits)}
