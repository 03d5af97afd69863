"""How a server ends that was told to stop, whatever hangs on it."""

import os
import re
import signal
import socket
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import pytest
import trustme
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest, CreateItemsRequest, WatchItemsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from tests.cli.test_main import FREE, TIMEOUT, serving
from tests.server.test_concurrency import message

# With warnings as errors uvloop cannot close as long as there is half a handshake.
COMMAND = [sys.executable, "-m", "convgrpc"]
SOON = 8.0
"""Seconds in which a server must end that has nothing to do, however long its grace is."""
NO_PROXY = [("grpc.enable_http_proxy", 0)]


class Target(NamedTuple):
    """A server with TLS, and what its callers trust."""

    grpc: str
    http: tuple[str, int]
    trusted: bytes
    context: ssl.SSLContext


def idle_rest(target: Target) -> AbstractContextManager[object]:
    """A connection over which a request was made, and the next may come."""
    client = httpx.Client(base_url=f"https://{target.http[0]}:{target.http[1]}", verify=target.context)
    assert client.get("/healthz").status_code == 200
    return closing(client)


def half_a_handshake(target: Target) -> AbstractContextManager[object]:
    """A connection that never says a word."""
    return socket.create_connection(target.http, timeout=TIMEOUT)


def half_a_head(target: Target) -> AbstractContextManager[object]:
    """A request that is not whole, and never will be."""
    connection = target.context.wrap_socket(half_a_handshake(target), server_hostname=target.http[0])  # type: ignore[arg-type]
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost:")
    return connection


def idle_grpc(target: Target) -> AbstractContextManager[object]:
    """A channel over which a call was made."""
    channel = grpc.secure_channel(target.grpc, grpc.ssl_channel_credentials(target.trusted), options=NO_PROXY)
    ConversationsServiceStub(channel).CreateConversation(CreateConversationRequest(), timeout=TIMEOUT)
    return channel


def open_stream(target: Target) -> AbstractContextManager[object]:
    """A tool that keeps its stream of questions open."""
    channel = grpc.secure_channel(target.grpc, grpc.ssl_channel_credentials(target.trusted), options=NO_PROXY)
    asked = threading.Event()

    def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        asked.wait(TIMEOUT)

    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(questions())
    assert next(answers).list_services_response.service
    stack = ExitStack()
    stack.push(channel)
    stack.callback(asked.set)
    return stack


def long_conversation(target: Target) -> str:
    """One that has more than fits into what is between a server and a client who does not read."""
    channel = grpc.secure_channel(target.grpc, grpc.ssl_channel_credentials(target.trusted), options=NO_PROXY)
    with channel:
        stub = ConversationsServiceStub(channel)
        conversation_id = stub.CreateConversation(CreateConversationRequest(), timeout=TIMEOUT).id
        for _ in range(10):
            items = [message("x" * 100_000)] * 10
            stub.CreateItems(CreateItemsRequest(conversation_id=conversation_id, items=items), timeout=TIMEOUT)
    return conversation_id


def stuck_watch(target: Target) -> AbstractContextManager[object]:
    """A watch whose client does not read any more."""
    request = WatchItemsRequest(conversation_id=long_conversation(target))
    channel = grpc.secure_channel(target.grpc, grpc.ssl_channel_credentials(target.trusted), options=NO_PROXY)
    watch = ConversationsServiceStub(channel).WatchItems(request)
    next(watch)
    stack = ExitStack()
    stack.push(channel)
    stack.callback(watch.cancel)
    return stack


def stuck_events(target: Target) -> AbstractContextManager[object]:
    """The same by REST."""
    path = f"/v1/x/conversations/{long_conversation(target)}/items:watch"
    connection = target.context.wrap_socket(half_a_handshake(target), server_hostname=target.http[0])  # type: ignore[arg-type]
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    return connection


HANGS = [idle_rest, half_a_handshake, half_a_head, idle_grpc, open_stream, stuck_watch, stuck_events]


@pytest.mark.parametrize("hang", HANGS)
def test_who_only_hangs_on_a_server_does_not_keep_it(
    tmp_path: Path, hang: Callable[[Target], AbstractContextManager[object]]
) -> None:
    """It ends soon, and leaves all in the database file."""
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    pair = authority.issue_cert("127.0.0.1")
    cert, key, db = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "a.db"))
    pair.cert_chain_pems[0].write_to_path(cert)
    pair.private_key_pem.write_to_path(key)
    os.chmod(key, 0o600)
    arguments = ["--db", db, *FREE, "--tls-cert", cert, "--tls-key", key, "--shutdown-grace", "600"]
    with serving(*arguments, command=COMMAND) as (process, started):
        host, _, port = started[3].rpartition(":")
        with hang(Target(started[2], (host, int(port)), authority.cert_pem.bytes(), context)):
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) == 0
        assert process.stderr
        # Of a handshake nobody knows who is at it; that it is given up is told.
        assert process.stderr.read() == "" or hang is half_a_handshake
    assert not Path(f"{db}-wal").exists()


def test_writes_that_wait_are_done_and_answered(tmp_path: Path) -> None:
    """Here behind another program that holds up the database; nobody is let in meanwhile, and metrics are served."""
    db = str(tmp_path / "a.db")
    with serving("--db", db, *FREE, "--metrics", "127.0.0.1:0") as (process, started), ExitStack() as stack:
        other = stack.enter_context(closing(sqlite3.connect(db, isolation_level=None)))
        channel = stack.enter_context(grpc.insecure_channel(started[2], options=NO_PROXY))
        http = stack.enter_context(httpx.Client(base_url=f"http://{started[3]}", timeout=TIMEOUT, trust_env=False))
        other.execute("BEGIN IMMEDIATE")
        waiting = [
            ConversationsServiceStub(channel).CreateConversation.future(CreateConversationRequest(), timeout=TIMEOUT)
            for _ in range(20)
        ]
        assert http.get("/healthz").status_code == 200
        (metrics,) = re.findall(r"metrics (\S+)", started[0])
        there_by = time.monotonic() + TIMEOUT
        while "convgrpc_calls_in_flight 20.0" not in http.get(metrics).text:
            assert time.monotonic() < there_by
        process.send_signal(signal.SIGTERM)
        refused_by = time.monotonic() + 3
        while (answer := http.get("/v1/x/conversations")).status_code != 503:
            assert time.monotonic() < refused_by
        assert answer.json()["error"]["code"] == "shutting_down"
        # Longer than answers have to get out that are ready.
        time.sleep(1.5)
        other.rollback()
        ids = {each.result(TIMEOUT).id for each in waiting}
        assert process.wait(TIMEOUT) == 0
    with closing(sqlite3.connect(db)) as connection:
        assert ids <= {each for (each,) in connection.execute("SELECT id FROM conversations")}
