"""The service in a process of its own, as it is by default: with a key, which all callers send."""

import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from benchmarks.processes import Process, started
from convgrpc.service.keys import DEFAULT_PROJECT
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest

TIMEOUT = 30
STARTED = re.compile(r"convgrpc \S+: gRPC (\S+), REST http://(\S+)/v1, .*, metrics (\S+)\n")
CONVERSATIONS = "/convgrpc.v1.ConversationsService"


class Commits(NamedTuple):
    """How many there were, and of how many writes."""

    commits: float
    writes: float


class Server(Process):
    """Requests and answers are bytes, so that little of the time is the client's."""

    def __init__(self, pid: int, addresses: re.Match[str], channel: grpc.Channel, key: str, db: Path) -> None:
        super().__init__(pid)
        self.grpc, self.http, self._metrics = addresses.groups()
        self.key = key
        self._channel = channel
        self._db = db

    def call(self, path: str, request: bytes) -> Callable[[], Any]:
        method: Any = self._channel.unary_unary(path)
        metadata = (("authorization", f"Bearer {self.key}"),)
        return lambda: method(request, timeout=TIMEOUT, metadata=metadata)

    def stream(self, path: str) -> Callable[[Iterator[bytes]], Iterator[bytes]]:
        """A call with a stream of requests and one of answers."""
        method: Any = self._channel.stream_stream(path)
        metadata = (("authorization", f"Bearer {self.key}"),)
        return lambda requests: method(requests, timeout=TIMEOUT, metadata=metadata)

    @property
    def grpc_port(self) -> int:
        return int(self.grpc.rpartition(":")[2])

    def count(self, request: CountInputTokensRequest) -> Callable[[], Any]:
        return self.call("/convgrpc.v1.InputTokensService/CountInputTokens", request.SerializeToString())

    def stored(self) -> int:
        """How many items are in the database."""
        with closing(sqlite3.connect(f"{self._db.as_uri()}?mode=ro", uri=True)) as connection:
            (number,) = connection.execute("SELECT count(*) FROM items").fetchone()
        return number or 0

    def commits(self) -> Commits:
        """What was committed since the server started."""
        with urllib.request.urlopen(self._metrics, timeout=TIMEOUT) as answer:
            text = answer.read().decode()
        found = dict(re.findall(r"^convgrpc_store_commit_writes_(count|sum) (\S+)$", text, re.MULTILINE))
        return Commits(float(found["count"]), float(found["sum"]))


@contextmanager
def serving(db: Path, *, variant: str = "") -> Iterator[Server]:
    """Runs a server on free ports while the context lasts; a variant is one of `benchmarks.variant`."""
    convgrpc = (sys.executable, "-m", "convgrpc")
    making = [*convgrpc, "keys", "create", DEFAULT_PROJECT, "--db", str(db)]
    key = subprocess.run(making, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    free = "127.0.0.1:0"
    program = (sys.executable, "-m", "benchmarks.variant", variant) if variant else convgrpc
    command = [*program, "serve", "--db", db, "--grpc", free, "--http", free, "--metrics", free]
    with started(command) as (pid, line):
        addresses = STARTED.fullmatch(line)
        assert addresses, line
        with grpc.insecure_channel(addresses[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield Server(pid, addresses, channel, key, db)
