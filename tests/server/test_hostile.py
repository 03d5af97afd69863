"""Hostile clients: while they are at it others are served, the server's memory is bounded, and after it all is as
before.
"""

import http.client
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import pytest
import trustme

from convgrpc.v1.conversations_service_pb2 import GetConversationRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from tests.server.attacks import ATTACKS

TIMEOUT = 60
PATIENCE = 2
"""Seconds that a client has, on these servers, to send a request and to take its answer."""
MEMORY = 150 << 20
"""How much more a server may have while it is attacked, unless it is said below."""
MEMORY_OF = {
    # Up to half of the room for requests is taken, and as much again is read before it is refused.
    "unread_answers": 500 << 20,
    "endless_bodies": 300 << 20,
    "closed_windows": 400 << 20,
    "unread_watches": 300 << 20,
    "message_of_many_parts": 300 << 20,
    "json_of_many_values": 300 << 20,
}
LATENCY = 2.0
"""Seconds that another client's call may take meanwhile."""
LATENCY_OF = {
    # Each answer has megabytes to be written as JSON.
    "unread_answers": 4.0,
}
ROOM_WITHIN = 4.0 * PATIENCE
"""Seconds for which another client at most waits for a connection while all are taken by such as say nothing."""
EAGER = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
LEFT = 150 << 20
"""How much more it may have soon after that: the C library keeps what is in pieces, and uses it the next time."""
CONNECTIONS = 300
DESCRIPTORS = 2 * CONNECTIONS + 50
"""How many files more it may have open while it is attacked: the connections that there may be, and its database."""
BY_TLS = {"half_handshakes"}


class Victim(NamedTuple):
    """A server in a process of its own."""

    pid: int
    grpc: int
    http: int
    conversation: str

    def memory(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[tuple[int, int, int]]:
    """Runs a server; gives its process and its ports."""
    command = [sys.executable, "-m", "convgrpc", "serve", "--db", str(folder / "hostile.db")]
    where = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--transfer-timeout", str(PATIENCE)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, *where, "--max-connections", str(CONNECTIONS), *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout
            grpc_port, http_port = re.findall(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            yield process.pid, int(grpc_port), int(http_port)
        finally:
            process.terminate()
            assert process.wait(TIMEOUT) == 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with served(tmp_path_factory.mktemp("plain")) as (pid, grpc_port, http_port):
        url = f"http://127.0.0.1:{http_port}/v1/conversations"
        large = [{"role": "user", "content": "a" * 1_000_000}] * 3
        with httpx.Client(timeout=TIMEOUT) as client:
            conversation = client.post(url, json={"items": large}).json()["id"]
            # So that what a server needs once is no growth.
            for _ in range(20):
                client.get(f"{url}/{conversation}/items")
        yield Victim(pid, grpc_port, http_port, conversation)


@pytest.fixture(scope="module")
def by_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    flags = ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    with served(folder, *flags) as ports:
        yield Victim(*ports, str(folder / "ca.pem"))


class Seen(NamedTuple):
    """What was seen during an attack: how long calls of another client took, and how much memory and how many open
    files the server had.
    """

    latencies: list[float]
    memory: list[int]
    descriptors: list[int]


@contextmanager
def watched(victim: Victim, calls: list[Callable[[], None]]) -> Iterator[Seen]:
    """Makes calls, one after the other, and looks at the server while the context lasts."""
    seen, over, failures = Seen([], [], []), threading.Event(), []

    def look() -> None:
        while not over.wait(0.005):
            seen.memory.append(victim.memory())
            seen.descriptors.append(victim.descriptors())

    def call() -> None:
        while not over.wait(0.02):
            for each in calls:
                began = time.perf_counter()
                try:
                    each()
                except Exception as failure:
                    failures.append(failure)
                seen.latencies.append(time.perf_counter() - began)

    threads = [threading.Thread(target=look), threading.Thread(target=call)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


@contextmanager
def attacking(name: str, victim: Victim) -> Iterator[None]:
    """Runs an attack to its end, and holds on to what it has open while the context lasts."""
    arguments = [name, str(victim.grpc), str(victim.http), victim.conversation]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server.attacks", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            assert process.stdout
            assert process.stderr
            assert process.stdout.readline() == "done\n", process.stderr.read()
            yield
        finally:
            timer.cancel()
            process.communicate()


def settled(victim: Victim, descriptors: int, memory: int) -> None:
    """The connections are closed, and the memory is given back, soon."""
    deadline = time.monotonic() + 10
    while victim.descriptors() > descriptors or victim.memory() > memory:
        assert time.monotonic() < deadline, (victim.descriptors(), descriptors, victim.memory() >> 20, memory >> 20)
        time.sleep(0.05)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in BY_TLS])
def test_others_are_served_during(name: str, plain: Victim) -> None:
    """By gRPC and by REST, there on a new connection each time."""
    with grpc.insecure_channel(f"127.0.0.1:{plain.grpc}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = ConversationsServiceStub(channel)

        def by_grpc() -> None:
            stub.GetConversation(GetConversationRequest(conversation_id=plain.conversation), timeout=TIMEOUT)

        def by_rest() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", plain.http, timeout=TIMEOUT)
            connection.request("GET", f"/v1/conversations/{plain.conversation}")
            assert connection.getresponse().status == 200
            connection.close()

        by_grpc()
        by_rest()
        observe(name, plain, [by_grpc, by_rest])


def test_who_comes_when_all_places_are_taken_is_served_soon(plain: Victim) -> None:
    """By gRPC: connections without a call make room."""
    with (
        attacking("quiet_connections", plain),
        grpc.insecure_channel(f"127.0.0.1:{plain.grpc}", options=EAGER) as channel,
    ):
        get, request = ConversationsServiceStub(channel).GetConversation, GetConversationRequest()
        request.conversation_id = plain.conversation
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            get(request, timeout=PATIENCE)
        get(request, timeout=ROOM_WITHIN, wait_for_ready=True)


@pytest.mark.parametrize("name", sorted(BY_TLS))
def test_others_are_served_by_tls_during(name: str, by_tls: Victim) -> None:
    """The same, by TLS."""
    authority = Path(by_tls.conversation)
    context = ssl.create_default_context(cafile=authority)
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    with grpc.secure_channel(
        f"localhost:{by_tls.grpc}", credentials, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub = ConversationsServiceStub(channel)

        def by_grpc() -> None:
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                stub.GetConversation(GetConversationRequest(conversation_id="conv_1"), timeout=TIMEOUT)

        def by_rest() -> None:
            connection = http.client.HTTPSConnection("127.0.0.1", by_tls.http, timeout=TIMEOUT, context=context)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            connection.close()

        by_grpc()
        by_rest()
        observe(name, by_tls, [by_grpc, by_rest])


def observe(name: str, victim: Victim, calls: list[Callable[[], None]]) -> None:
    before, descriptors = victim.memory(), victim.descriptors()
    with watched(victim, calls) as seen, attacking(name, victim):
        pass
    worst, growth = max(seen.latencies), max(seen.memory) - before
    assert worst < LATENCY_OF.get(name, LATENCY)
    assert growth < MEMORY_OF.get(name, MEMORY)
    assert max(seen.descriptors) < descriptors + DESCRIPTORS
    settled(victim, descriptors, before + LEFT)
