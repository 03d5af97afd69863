"""The group `streams`: appends by one stream beside single calls, and how soon those who watch are told."""

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from threading import Semaphore
from typing import NamedTuple

from benchmarks.dialogues import message, prose
from benchmarks.generators import SECONDS, Caller, Request, Run
from benchmarks.grpc_calls import CREATE, NOOP, appending
from benchmarks.processes import DATABASES, Process, python, started
from benchmarks.results import Effort, Measurement
from benchmarks.service import CONVERSATIONS, TIMEOUT, Server, serving
from benchmarks.turns import Turns
from benchmarks.watches import watching
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.conversations_service_pb2 import AppendItemsRequest, AppendItemsResponse, CreateItemsRequest
from convgrpc.v1.item_pb2 import ConversationItem, Role

LENGTH = 850
IN_EACH, AHEAD = 100, 8
"""How many items a request of a stream has, and how many requests are on their way."""
WATCHERS = 1000
WATCHED_SECONDS = 3.0
LAST_NEWS = 0.5
ROUNDS = 7


@contextmanager
def streams(effort: Effort) -> Iterator[list[Measurement]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        server = stack.enter_context(serving(folder / "streams.db"))
        item = message(Role.ROLE_USER, prose(random.Random(6), LENGTH)).item
        single = Caller(server, appending(server, item), effort.seconds(SECONDS))
        stream = Stream(server, item, effort.seconds(SECONDS))
        name = f"AppendItems({IN_EACH}), items"
        turns = Turns({CREATE: single.run, name: stream.run}, ROUNDS)
        before = server.stored()
        noop, address = stack.enter_context(started(python("benchmarks.noop_grpc")))
        bare = Request(address.strip(), ["/bare/Noop"], item.SerializeToString(), answer=1000, is_grpc=True)
        idle = Caller(Process(noop), bare, effort.seconds(SECONDS))
        # All of a thousand are told of each append to the one that they watch.
        seconds = effort.seconds(WATCHED_SECONDS)
        spread, one = (Watched(server, item, seconds, *shape) for shape in ((WATCHERS, 200.0), (1, 3.0)))
        yield [
            turns.rates(name, CREATE, 6, items=IN_EACH),
            watched(f"told of an append, p99: {WATCHERS:,} watch {WATCHERS:,}", spread, idle),
            watched(f"told of an append, p99: {WATCHERS:,} watch one", one, idle),
        ]
        acknowledged = single.acknowledged + stream.acknowledged + spread.acknowledged + one.acknowledged
        assert server.stored() - before == acknowledged, "not all that was acknowledged is stored, or more is"


class Stream:
    """Appends by one stream, each time for about some seconds."""

    def __init__(self, server: Server, item: ConversationItem, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._append = server.stream(f"{CONVERSATIONS}/AppendItems")
        conversation = new_conversation(server)
        request = AppendItemsRequest(conversation_id=conversation, items=[item] * IN_EACH)
        self._request = request.SerializeToString()
        self.acknowledged = 0

    def run(self) -> Run:
        """A call is a request of the stream."""
        room = Semaphore(AHEAD)
        sent: list[float] = []
        began, before, loop_before = time.monotonic(), self._server.cpu(), self._server.main_cpu()

        def requests() -> Iterator[bytes]:
            while time.monotonic() < began + self._seconds and room.acquire(timeout=TIMEOUT):
                sent.append(time.monotonic())
                yield self._request

        took: list[float] = []
        for answer in self._append(requests()):
            done, now = AppendItemsResponse.FromString(answer).requests, time.monotonic()
            room.release(done - len(took))
            took += [now - at for at in sent[len(took) : done]]
        seconds = time.monotonic() - began
        cpu, loop = self._server.cpu() - before, self._server.main_cpu() - loop_before
        self.acknowledged += IN_EACH * len(took)
        percentiles = quantiles(took, n=100)
        return Run(len(took), seconds, cpu, percentiles[49], percentiles[98], loop)


class Append(NamedTuple):
    """When an append was to be sent, which is before its commit, and to which conversation."""

    conversation: str
    due: float


class Watched:
    """Appends for some seconds and at a rate, in turn to each of some conversations, while a thousand watch them."""

    def __init__(self, server: Server, item: ConversationItem, seconds: float, conversations: int, rate: float) -> None:
        self._server = server
        self._item = item
        self._seconds = seconds
        self._rate = rate
        self._conversations = [new_conversation(server) for _ in range(conversations)]
        self._watched = [self._conversations[number % conversations] for number in range(WATCHERS)]
        self.acknowledged = 0

    def delays(self) -> list[float]:
        """How long after each append was to be sent each of those that watch was told."""
        with watching(self._server.grpc_port, self._server.key, self._watched) as crowd:
            appends = self._appends()
            told = crowd.told()
        by_conversation: dict[str, list[Append]] = defaultdict(list)
        for append in appends:
            by_conversation[append.conversation].append(append)
        heard: dict[int, int] = defaultdict(int)
        delays = []
        for watcher, at in told:
            append = by_conversation[self._watched[watcher]][heard[watcher]]
            heard[watcher] += 1
            delays.append(at - append.due)
        expected = sum(len(by_conversation[each]) for each in self._watched)
        assert len(told) == expected, "some were told of several appends at once, or of none"
        return delays

    def _appends(self) -> list[Append]:
        done: list[Append] = []
        create = [
            self._server.call(
                f"{CONVERSATIONS}/CreateItems",
                CreateItemsRequest(conversation_id=each, items=[self._item]).SerializeToString(),
            )
            for each in self._conversations
        ]
        start = time.monotonic()
        while (due := start + len(done) / self._rate) < start + self._seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            turn = len(done) % len(create)
            create[turn]()
            done.append(Append(self._conversations[turn], due))
        time.sleep(LAST_NEWS)
        self.acknowledged += len(done)
        return done


def watched(name: str, crowd: Watched, idle: Caller) -> Measurement:
    """The 99th percentile of what it takes to tell those that watch, beside that of a call that does nothing."""
    return Measurement(
        name,
        f"{NOOP}: p99",
        10,
        3,
        lambda number: quantiles(crowd.delays(), n=100)[98],
        lambda number: idle.run().p99,
        lasts=True,
    )


def new_conversation(server: Server) -> str:
    return Conversation.FromString(server.call(f"{CONVERSATIONS}/CreateConversation", b"")()).id
