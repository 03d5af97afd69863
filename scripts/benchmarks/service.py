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

from benchmarks.checkouts import HERE, Checkout
from benchmarks.processes import SCRIPTS, Process, inherited, python, started
from convgrpc.server.auth import DEFAULT_PROJECT
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest

TIMEOUT = 30
STARTED = re.compile(r"convgrpc \S+: gRPC (\S+), REST http://(\S+)/v1, .*?(?:, metrics (\S+))?\n")
CONVERSATIONS = "/convgrpc.v1.ConversationsService"
COUNT = "/convgrpc.v1.InputTokensService/CountInputTokens"


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
        """None is sent where it is empty."""
        self._channel = channel
        self._db = db

    def call(self, path: str, request: bytes) -> Callable[[], Any]:
        method: Any = self._channel.unary_unary(path)
        metadata = (("authorization", f"Bearer {self.key}"),) if self.key else ()
        return lambda: method(request, timeout=TIMEOUT, metadata=metadata)

    def stream(self, path: str) -> Callable[[Iterator[bytes]], Iterator[bytes]]:
        """A call with a stream of requests and one of answers."""
        method: Any = self._channel.stream_stream(path)
        metadata = (("authorization", f"Bearer {self.key}"),) if self.key else ()
        return lambda requests: method(requests, timeout=TIMEOUT, metadata=metadata)

    @property
    def grpc_port(self) -> int:
        return int(self.grpc.rpartition(":")[2])

    def count(self, request: CountInputTokensRequest) -> Callable[[], Any]:
        return self.call(COUNT, request.SerializeToString())

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
def serving(
    db: Path, *, variant: str = "", checkout: Checkout = HERE, keys: bool = True, metrics: bool = True
) -> Iterator[Server]:
    """Runs a server on free ports while the context lasts.

    Args:
        db: Its database, which is made if there is none.
        variant: One of `benchmarks.variant`.
        checkout: The source of the server.
        keys: Makes a key, which all calls send.
        metrics: Serves metrics too.
    """
    key = create_key(db, checkout) if keys else ""
    free = "127.0.0.1:0"
    options = ["serve", "--db", db, "--grpc", free, "--http", free, *(["--metrics", free] if metrics else [])]
    command = python("benchmarks.variant", variant, *options) if variant else checkout.convgrpc(*options)
    with started(command, checkout.environment) as (pid, line):
        addresses = STARTED.fullmatch(line)
        assert addresses, line
        with grpc.insecure_channel(addresses[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield Server(pid, addresses, channel, key, db)


def create_key(db: Path, checkout: Checkout) -> str:
    command = list(map(str, checkout.convgrpc("keys", "create", DEFAULT_PROJECT, "--db", db)))
    environment = inherited() | checkout.environment
    done = subprocess.run(command, cwd=SCRIPTS, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"convgrpc: this failed: {' '.join(command)}\n{done.stderr}")
    return done.stdout.strip()
