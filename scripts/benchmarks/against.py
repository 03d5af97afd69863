"""Compares the server's CPU time per call with that of another checkout, to show that a change makes no call slower.

Each round starts a new server of each checkout on a new database. `scripts/load` then sends the same requests to one
server and to the other, in turns of 20 to 100 ms: this, other, other, this, and so on. Both servers run on one CPU, and
the client runs on the others.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.error import HTTPError

import grpc

from benchmarks import grpc_calls, rest_calls
from benchmarks.checkouts import HERE, Checkout
from benchmarks.dialogues import message, prose
from benchmarks.generators import OPEN_CALLS, Request, in_turns
from benchmarks.library import Stored
from benchmarks.processes import DATABASES, apart
from benchmarks.results import Effort, Result, Unavailable, ratio, spread
from benchmarks.service import CONVERSATIONS, COUNT, Server, serving
from convgrpc.v1.conversation_pb2 import Conversation, ResponseConversation
from convgrpc.v1.conversations_service_pb2 import (
    ConversationItemList,
    CreateItemsRequest,
    GetItemRequest,
    ListItemsRequest,
)
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ResponseInput
from convgrpc.v1.item_pb2 import ConversationItem, Role

TOLERANCE = 0.03
LENGTH = 850
"""Characters in the text of an item."""
STORED_ITEMS, ITEMS_A_REQUEST = 1000, 20
UNCACHED_PAGES = 800
"""Pages that are listed in turn: about four times as many as the server caches."""
MODEL = "gpt-4o"
SHORT_TEXT, LONG_TEXT = 2_000, 100_000
ROUNDS, FEWEST_ROUNDS = 10, 8
PAIRS, QUICK_PAIRS = 18, 6
"""Pairs of turns in a round. Many short turns cancel changes in the speed of the CPU better than a few long ones do."""
LONGEST = 360.0
"""Seconds after which no round begins, unless there were fewer than `FEWEST_ROUNDS`."""


class Target:
    """A server under test, with the conversations that calls read."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._starts = iter(range(0, LONG_TEXT, 7))

    @cached_property
    def stored(self) -> Stored:
        """A conversation of 1,000 items."""
        return self.store([text_item(LENGTH)] * STORED_ITEMS)

    def new_long_conversation(self) -> str:
        """Stores a conversation of 100 kB, with a text that no other one has."""
        start = next(self._starts)
        length = LONG_TEXT // ITEMS_A_REQUEST
        text = long_prose()[start : start + LONG_TEXT]
        texts = (text[at : at + length] for at in range(0, LONG_TEXT, length))
        return self.store([message(Role.ROLE_USER, each).item for each in texts]).id

    def store(self, items: Sequence[ConversationItem]) -> Stored:
        """Creates a conversation with these items."""
        created = self.server.call(f"{CONVERSATIONS}/CreateConversation", b"")()
        stored = Stored(Conversation.FromString(created).id, [])
        for start in range(0, len(items), ITEMS_A_REQUEST):
            request = CreateItemsRequest(conversation_id=stored.id, items=items[start : start + ITEMS_A_REQUEST])
            appended = self.server.call(f"{CONVERSATIONS}/CreateItems", request.SerializeToString())()
            stored.item_ids[:0] = [each.id for each in reversed(ConversationItemList.FromString(appended).data)]
        return stored


@cache
def long_prose() -> str:
    return prose(random.Random(2), 2 * LONG_TEXT)


@cache
def text_item(length: int) -> ConversationItem:
    return message(Role.ROLE_USER, prose(random.Random(6), length)).item


def items_path(conversation: str) -> str:
    return f"/v1/conversations/{conversation}/items"


def grpc_append(items: int, target: Target, _: int) -> Request:
    return grpc_calls.appending(target.server, text_item(LENGTH), items)


def grpc_list(target: Target, _: int) -> Request:
    request = ListItemsRequest(conversation_id=target.stored.id)
    return grpc_calls.asking(target.server, "ListItems", request.SerializeToString())


def grpc_list_uncached(target: Target, _: int) -> Request:
    first, *more = (
        ListItemsRequest(conversation_id=target.stored.id, after=after).SerializeToString()
        for after in target.stored.item_ids[:UNCACHED_PAGES]
    )
    return grpc_calls.asking(target.server, "ListItems", first)._replace(more=more)


def grpc_get(target: Target, _: int) -> Request:
    request = GetItemRequest(conversation_id=target.stored.id, item_id=target.stored.item_ids[0])
    return grpc_calls.asking(target.server, "GetItem", request.SerializeToString())


def rest_append(items: int, target: Target, _: int) -> Request:
    return rest(target, [items_path(target.store([]).id)], rest_calls.user_message(LENGTH, items))


def rest_list(target: Target, _: int) -> Request:
    return rest(target, [items_path(target.stored.id)])


def rest_list_uncached(target: Target, _: int) -> Request:
    path = items_path(target.stored.id)
    return rest(target, [f"{path}?after={after}" for after in target.stored.item_ids[:UNCACHED_PAGES]])


def rest_get(target: Target, _: int) -> Request:
    return rest(target, [f"{items_path(target.stored.id)}/{target.stored.item_ids[0]}"])


def rest(target: Target, paths: Sequence[str], body: dict[str, Any] | None = None) -> Request:
    return rest_calls.asking(target.server.http, paths, body, target.server.key)


def count_text(target: Target, _: int) -> Request:
    text = prose(random.Random(3), SHORT_TEXT)
    return count(target, [CountInputTokensRequest(model=MODEL, input=ResponseInput(text=text))])


def count_again(target: Target, _: int) -> Request:
    return count(target, [count_request(target.stored.id)])


def count_first(target: Target, calls: int) -> Request:
    """Counts each of some conversations once, so that nothing of their texts is cached."""
    return count(target, [count_request(target.new_long_conversation()) for _ in range(calls)])


def count_request(conversation: str) -> CountInputTokensRequest:
    return CountInputTokensRequest(model=MODEL, conversation=ResponseConversation(conversation_id=conversation))


def count(target: Target, requests: Sequence[CountInputTokensRequest]) -> Request:
    target.server.count(CountInputTokensRequest())()
    first, *more = (request.SerializeToString() for request in requests)
    return Request(target.server.grpc, [COUNT], first, 0, target.server.key, is_grpc=True, more=more)


class Call(NamedTuple):
    """A call to compare: `request` prepares it for a number of calls, and `calls` is how many a turn has."""

    request: Callable[[Target, int], Request]
    calls: int = 2 * OPEN_CALLS


CALLS = {
    "grpc/CreateItems-1": Call(partial(grpc_append, 1)),
    "grpc/CreateItems-20": Call(partial(grpc_append, 20), OPEN_CALLS),
    "grpc/ListItems-20": Call(grpc_list),
    "grpc/ListItems-20-uncached": Call(grpc_list_uncached),
    "grpc/GetItem": Call(grpc_get),
    "rest/CreateItems-1": Call(partial(rest_append, 1)),
    "rest/CreateItems-20": Call(partial(rest_append, 20), OPEN_CALLS),
    "rest/ListItems-20": Call(rest_list, 4 * OPEN_CALLS),
    "rest/ListItems-20-uncached": Call(rest_list_uncached),
    "rest/GetItem": Call(rest_get, 4 * OPEN_CALLS),
    "tokens/text-2kB": Call(count_text, OPEN_CALLS),
    "tokens/conversation-again": Call(count_again, OPEN_CALLS),
    "tokens/conversation-first-100kB": Call(count_first, 8),
}


def chosen(names: Sequence[str]) -> list[str]:
    """Returns the calls that are named, or whose group is; all of them if no name is given.

    Raises:
        ValueError: There is no such call or group.
    """
    known = {*CALLS, *(each.partition("/")[0] for each in CALLS)}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"there is no call or group {', '.join(unknown)}: expected some of {', '.join(sorted(known))}")
    return [each for each in CALLS if not names or {each, each.partition("/")[0]} & set(names)]


def against(other: Checkout, effort: Effort, names: Sequence[str]) -> list[Result | Unavailable]:
    """Measures these calls on a server of this checkout and on one of the other."""
    rounds = Rounds((HERE, other), names, QUICK_PAIRS if effort.quick else PAIRS)
    began = time.monotonic()
    for number in range(1, (FEWEST_ROUNDS if effort.quick else ROUNDS) + 1):
        if number > FEWEST_ROUNDS and time.monotonic() > began + LONGEST:
            break
        rounds.run(number)
    return [
        Unavailable(name, other.commit, rounds.failed[name])
        if name in rounds.failed
        else judged(name, other.commit, rounds.samples[name])
        for name in names
    ]


class Pair(NamedTuple):
    """The CPU seconds per call of this checkout's server and of the other's, in a pair of turns."""

    measured: float
    reference: float


def judged(name: str, compared_with: str, rounds: Sequence[Sequence[Pair]]) -> Result:
    """Returns the result of the pairs of each round, with its goal.

    The ratio of a round is the median of the ratios of its pairs, and the result's ratio is the median of those of the
    rounds. The goal is 1.03, or 1 plus half of the distance from p10 to p90 of the rounds' ratios if that is more.
    """
    ratios = spread([median(ratio(*pair) for pair in pairs) for pairs in rounds])
    measured = spread([median(pair.measured for pair in pairs) for pairs in rounds])
    reference = spread([median(pair.reference for pair in pairs) for pairs in rounds])
    goal = 1 + max(TOLERANCE, (ratios.p90 - ratios.p10) / 2)
    return Result(name, compared_with, goal, len(rounds), measured, reference, ratios.median, ratios, "µs")


class Rounds:
    """Measures pairs of each call in every round."""

    def __init__(self, checkouts: tuple[Checkout, Checkout], names: Sequence[str], pairs: int) -> None:
        self._checkouts = checkouts
        self._pairs = pairs
        # An option that one checkout lacks is left out for both, so that they do the same work.
        self._keys = all(each.has_keys() for each in checkouts)
        self._metrics = all(each.has_metrics() for each in checkouts)
        self.samples: dict[str, list[list[Pair]]] = {name: [] for name in names}
        """The pairs of each round, by call."""
        self.failed: dict[str, str] = {}
        """Why a call could not be made, by call."""

    def run(self, number: int) -> None:
        """Measures all calls on new servers. This checkout is the first in odd rounds, the other in even rounds."""
        order = (0, 1) if number % 2 else (1, 0)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
            servers = {side: stack.enter_context(self._serving(folder / f"{side}.db", side)) for side in order}
            stack.enter_context(apart(*(each.pid for each in servers.values())))
            targets = {side: Target(each) for side, each in servers.items()}
            for name, rounds in self.samples.items():
                if name not in self.failed:
                    rounds.append(self._measure(name, targets))

    def _serving(self, db: Path, side: int) -> AbstractContextManager[Server]:
        return serving(db, checkout=self._checkouts[side], keys=self._keys, metrics=self._metrics)

    def _measure(self, name: str, targets: Mapping[int, Target]) -> list[Pair]:
        request, calls = CALLS[name]
        prepared = []
        for side, target in targets.items():
            try:
                # The pair of turns that is not measured warms the servers up.
                prepared.append((target.server, request(target, (self._pairs + 1) * calls)))
            except (grpc.RpcError, HTTPError) as error:
                self.failed[name] = f"{self._checkouts[side].commit}: {reason(error)}"
                return []
        sides = [dict(zip(targets, cpu, strict=True)) for cpu in in_turns(prepared, calls, self._pairs)]
        return [Pair(cpu[0] / calls, cpu[1] / calls) for cpu in sides]


def reason(error: grpc.RpcError | HTTPError) -> str:
    """Returns the status of a call that failed, in one line."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return f"{error.code().name} {error.details()}".splitlines()[0]
