"""Connections over which nothing is called are ended, and no call is lost by that."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

import grpc
import pytest

from convgrpc import Client
from convgrpc.server.app import Running
from convgrpc.settings import Address, Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest, ListConversationsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub

TIMEOUT = 20
IDLE = 0.5
LATE = 0.3


class LongWay:
    """A way to a server by which clients hear late that a connection is ended; `ending` is set meanwhile."""

    def __init__(self, server: Address) -> None:
        self.ending = threading.Event()
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        """Waits until both ends have closed all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _serve(self) -> None:
        with self._listener, suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._threads.append(threading.Thread(target=self._link, args=[client]))
                self._threads[-1].start()

    def _link(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            back = threading.Thread(target=self._carry, args=[server, client])
            back.start()
            self._carry(client, server)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if b"connection idle" in data:
                    self.ending.set()
                    time.sleep(LATE)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def by_stub(address: str) -> Iterator[Callable[[], object]]:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        create = ConversationsServiceStub(channel).CreateConversation
        yield lambda: create(CreateConversationRequest(), timeout=TIMEOUT)


@contextmanager
def by_client(address: str) -> Iterator[Callable[[], object]]:
    with Client(address) as client:
        yield client.create_conversation


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, transfer_timeout=IDLE)) as addresses:
        yield addresses


@pytest.fixture
def way(server: Running) -> Iterator[LongWay]:
    way = LongWay(server.grpc)
    yield way
    way.close()


@pytest.mark.parametrize("kind", [by_stub, by_client])
def test_a_call_over_a_connection_that_is_just_being_ended_is_made_over_another(
    kind: Callable[[str], AbstractContextManager[Callable[[], object]]],
    server: Running,
    way: LongWay,
    stub: ConversationsServiceStub,
) -> None:
    """Once, without the caller's doing."""
    with kind(way.address) as create:
        create()
        for _ in range(2):
            way.ending.clear()
            assert way.ending.wait(TIMEOUT)
            create()
    assert len(stub.ListConversations(ListConversationsRequest(limit=100), timeout=TIMEOUT).data) == 3
