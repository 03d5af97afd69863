"""The group `overload`: more appends than the server can do, and how it is during and after that."""

import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.dialogues import message, prose
from benchmarks.processes import DATABASES, SCRIPTS, apart
from benchmarks.results import Effort, Measurement, ratio
from benchmarks.service import CONVERSATIONS, Server, serving
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest
from convgrpc.v1.item_pb2 import Role

LOAD = SCRIPTS / "load"
GENERATORS = 2
CONNECTIONS = 3
"""Each has 100 calls open at most, and others wait in the client, unsent and uncounted."""
MORE_CONNECTIONS = 16
OPEN_CALLS = 64
SECONDS = 3.0
LIGHT = 0.5
HEAVY = 3.0
AT_PEAK = "at its peak"
FEW, MANY = GENERATORS * CONNECTIONS, GENERATORS * MORE_CONNECTIONS


@contextmanager
def overload(effort: Effort) -> Iterator[list[Measurement]]:
    """Three times as many appends as the server can do: how many of them it does, how soon, and how it is after that.

    Where there are several CPUs it has one of its own, as clients on other machines would leave it.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        server = stack.enter_context(serving(folder / "server.db"))
        stack.enter_context(apart(server.pid))
        crowd = Crowd(server, effort.seconds(SECONDS))
        times = 10
        yield [
            Measurement(f"3x load by {FEW}: a served call", AT_PEAK, 1.11, times, *crowd.compared(1, 2, time_each)),
            Measurement("3x load: p99 of those served", AT_PEAK, 10.0, times, *crowd.compared(1, 2, slowest)),
            Measurement("3x load: memory", "before", 1.25, times, *crowd.compared(0, 2, occupied), "MiB"),
            Measurement(f"3x load by {MANY}: a served call", AT_PEAK, 1.11, times, *crowd.compared(1, 4, time_each)),
            Measurement(f"3x load by {MANY}: p99", AT_PEAK, None, times, *crowd.compared(1, 4, slowest)),
            Measurement("just after: p99", "just before", 3.0, times, *crowd.compared(0, 3, slowest)),
        ]


class Burst(NamedTuple):
    """What came of calls for some seconds: by the second, the latencies of those that were served, and the memory."""

    served: float
    latencies: list[float]
    memory: float


def time_each(burst: Burst) -> float:
    return ratio(1, burst.served)


def slowest(burst: Burst) -> float:
    """The 99th percentile."""
    return quantiles(burst.latencies, n=100)[98]


def occupied(burst: Burst) -> float:
    return burst.memory


class Crowd:
    """Clients, by the dozen."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        create = server.call(f"{CONVERSATIONS}/CreateConversation", b"")
        source = random.Random(3)
        self._messages = []
        for _ in range(OPEN_CALLS):
            item = message(Role.ROLE_USER, prose(source, 700)).item
            stored = Conversation.FromString(create())
            data = CreateItemsRequest(conversation_id=stored.id, items=[item]).SerializeToString()
            self._messages.append((struct.pack(">BI", 0, len(data)) + data).hex())
        self._rounds: dict[int, tuple[Burst, ...]] = {}

    def compared(
        self, reference: int, measured: int, value: Callable[[Burst], float]
    ) -> tuple[Callable[[int], float], Callable[[int], float]]:
        """A value of two of the bursts in a round."""
        return lambda number: value(self._round(number)[measured]), lambda number: value(self._round(number)[reference])

    def _round(self, number: int) -> tuple[Burst, ...]:
        """Light load, as much as there can be, too much, light load again, and too much from more connections; once for
        all measurements.
        """
        if number not in self._rounds:
            long, short = self._seconds, self._seconds / 2
            at_peak = self._burst(long, window=OPEN_CALLS / GENERATORS)
            before = self._burst(short, rate=LIGHT * at_peak.served / GENERATORS)
            heavy = self._burst(long, rate=HEAVY * at_peak.served / GENERATORS)
            after = self._burst(short, rate=LIGHT * at_peak.served / GENERATORS)
            many = self._burst(long, MORE_CONNECTIONS, rate=HEAVY * at_peak.served / GENERATORS)
            self._rounds[number] = before, at_peak, heavy, after, many
        return self._rounds[number]

    def _burst(self, seconds: float, connections: int = CONNECTIONS, **load: float) -> Burst:
        order = {
            "port": self._server.grpc_port,
            "path": f"{CONVERSATIONS}/CreateItems",
            "authorization": f"Bearer {self._server.key}",
            "messages": self._messages,
            "connections": connections,
            "seconds": seconds,
            **load,
        }
        command = [sys.executable, str(LOAD)]
        generators = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(GENERATORS)
        ]
        for each in generators:
            assert each.stdin
            json.dump(order, each.stdin)
            each.stdin.close()
        calls: list[tuple[float, float, bool]] = []
        for each in generators:
            assert each.stdout
            with each:
                calls += json.load(each.stdout)
        served = [(sent, took) for sent, took, was_served in calls if was_served]
        in_time = sum(sent + took <= seconds for sent, took in served)
        return Burst(in_time / seconds, [took for _, took in served], self._server.memory())
