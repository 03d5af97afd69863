"""The group `tokens`: counting, of what was counted before, of a stored conversation for the first time, and of a
text.
"""

import random
import shutil
import time
from asyncio import Runner
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import tiktoken
import uvloop

from benchmarks.dialogues import Conversation, prose, store_conversations
from benchmarks.results import Effort, Measurement
from benchmarks.service import TIMEOUT, Server, serving
from convgrpc.handlers.context import Context
from convgrpc.handlers.input_context import InputContext
from convgrpc.handlers.stored_token_counter import StoredTokenCounter, load_models
from convgrpc.server.auth import DEFAULT_PROJECT
from convgrpc.settings import Settings
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.tokens.encodings import load
from convgrpc.v1.conversation_pb2 import ResponseConversation
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ResponseInput

MODELS = ("gpt-4o", "gpt-5.6")
CALLS_A_BLOCK = 500
FRESH_LENGTH = 100_000
RAW = "raw tiktoken"
CHECK = "health Check"


def raw_encode() -> Callable[[str], list[int]]:
    """tiktoken's own, in an object that nothing else uses: one is fastest in the thread that uses it first."""
    shared = load("o200k_base")
    alone = tiktoken.Encoding(
        shared.name,
        pat_str=shared._pat_str,
        mergeable_ranks=shared._mergeable_ranks,
        special_tokens=shared._special_tokens,
    )
    return alone.encode_ordinary


@contextmanager
def tokens(effort: Effort) -> Iterator[list[Measurement]]:
    cold_rounds = 25
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="convgrpc-bench-")))
        # One of each kind is for the counts that are not the first, and one for the round that warms up.
        stored = store_conversations(folder / "server.db", effort.rounds(cold_rounds) + 2)
        shutil.copy(folder / "server.db", folder / "layer.db")
        server = stack.enter_context(serving(folder / "server.db"))
        layer = stack.enter_context(service_layer(folder / "layer.db"))
        counted = Counted(server, layer, raw_encode())
        yield [
            *warm(server, {kind: conversations.pop() for kind, conversations in stored.items()}),
            *cold(counted, stored, cold_rounds),
            *fresh(counted, 100),
        ]


def warm(server: Server, conversations: dict[str, Conversation]) -> Iterator[Measurement]:
    """The reference is the cheapest call there is: the chain of the service's own calls has no part in it."""
    check = server.call("/grpc.health.v1.Health/Check", b"")
    requests = {"empty": CountInputTokensRequest()}
    for kind, conversation in conversations.items():
        for model in MODELS:
            requests[f"warm {kind}, {model}"] = of_conversation(conversation, model)
    for name, request in requests.items():
        goal, count = None if name == "empty" else 3.0, server.count(request)
        yield Measurement(f"{name}: latency", CHECK, goal, 2000, timed(count), timed(check))
        cpu = cpu_timed(server, count), cpu_timed(server, check)
        yield Measurement(f"{name}: server CPU", CHECK, goal, 20, *cpu, lasts=True)


def cold(counted: "Counted", stored: dict[str, list[Conversation]], rounds: int) -> Iterator[Measurement]:
    for kind, conversations in stored.items():
        requests = [of_conversation(each, MODELS[0]) for each in conversations]
        yield from counted.both(f"first count, {kind}", 1.3, rounds, requests, [each.texts for each in conversations])


def fresh(counted: "Counted", rounds: int) -> Iterator[Measurement]:
    source = random.Random(2)
    texts = [prose(source, FRESH_LENGTH) for _ in range(rounds + 1)]
    requests = [CountInputTokensRequest(model=MODELS[0], input=ResponseInput(text=text)) for text in texts]
    yield from counted.both("100 kB of text", 1.15, rounds, requests, [[text] for text in texts])


class Counted(NamedTuple):
    """Where texts are counted: by RPC, by the service layer in this process, and by tiktoken alone."""

    server: Server
    layer: "Layer"
    encode: Callable[[str], list[int]]

    def both(
        self,
        name: str,
        goal: float,
        rounds: int,
        requests: Sequence[CountInputTokensRequest],
        texts: Sequence[Sequence[str]],
    ) -> Iterator[Measurement]:
        """A request for each round, counted by the service layer and by RPC, and the texts that are in it."""

        def raw(number: int) -> float:
            return seconds(lambda: [len(self.encode(text)) for text in texts[number]])

        def layer(number: int) -> float:
            return self.layer.seconds(requests[number])

        def rpc(number: int) -> float:
            return seconds(self.server.count(requests[number]))

        yield Measurement(f"{name}: Counter", RAW, goal, rounds, layer, raw)
        yield Measurement(f"{name}: RPC", RAW, goal, rounds, rpc, raw)


def of_conversation(conversation: Conversation, model: str) -> CountInputTokensRequest:
    return CountInputTokensRequest(model=model, conversation=ResponseConversation(conversation_id=conversation.id))


def timed(work: Callable[[], Any]) -> Callable[[int], float]:
    return lambda _: seconds(work)


def cpu_timed(server: Server, work: Callable[[], Any]) -> Callable[[int], float]:
    return lambda _: server.cpu_of(work, CALLS_A_BLOCK)


class Layer:
    """The service layer alone: what counts, over a store, on an event loop of this process."""

    def __init__(self, runner: Runner, counter: StoredTokenCounter) -> None:
        self._runner = runner
        self._counter = counter

    def seconds(self, request: CountInputTokensRequest) -> float:
        async def counted() -> float:
            context = Context(DEFAULT_PROJECT, time.monotonic() + TIMEOUT, request.ByteSize())
            start = time.perf_counter()
            await self._counter.count(
                request, context, InputContext(request.conversation.conversation_id or None, None)
            )
            return time.perf_counter() - start

        return self._runner.run(counted())


@contextmanager
def service_layer(db: Path) -> Iterator[Layer]:
    with Runner(loop_factory=uvloop.new_event_loop) as runner:
        store = SqliteStore.open(db, alone=True)
        try:
            with closing(StoredTokenCounter(store, load_models(""), max_items=Settings().max_counted_items)) as counter:
                yield Layer(runner, counter)
        finally:
            runner.run(store.close())


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
