"""Calls that are repeated: which, how often, and that nothing is done twice."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2

import convgrpc
from convgrpc import Client
from convgrpc.client import retries
from convgrpc.contract.options import field_options
from convgrpc.server.app import Running
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest, CreateItemsRequest, GetConversationRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role
from tests.contract.walk import METHODS

from .raw_server import answering

SHIPPED = json.loads((Path(retries.__file__).parent / "service_config.json").read_text())
CALLS = [method for method in METHODS if not method.server_streaming]
CREATING = {method.name for method in CALLS if "request_id" in method.input_type.fields_by_name}


def names(config: Any) -> set[str]:
    (method_config,) = config["methodConfig"]
    return {f"{each['service']}/{each['method']}" for each in method_config["name"]}


def test_the_shipped_config_has_the_calls_that_are_safe_by_themselves() -> None:
    """All that read or delete, by their verb over HTTP; those beside them that the contract calls idempotent; no other.

    Creating calls are safe only with a request id, which the contract takes from a header. Streams are taken up in
    another way.
    """
    safe = set()
    for method in CALLS:
        verb = method.GetOptions().Extensions[annotations_pb2.http].WhichOneof("pattern")
        if verb in ("get", "delete") or method.name in ("UpdateConversation", "CountInputTokens"):
            safe.add(f"{method.containing_service.full_name}/{method.name}")
        else:
            assert field_options(method.input_type.fields_by_name["request_id"]).header == "idempotency-key"
    assert names(SHIPPED) == safe


def test_this_client_adds_those_that_it_makes_safe() -> None:
    """By an id of its own, so that every call is repeated."""
    assert names(json.loads(retries.service_config())) == {
        f"{method.containing_service.full_name}/{method.name}" for method in CALLS
    }
    assert {"CreateConversation", "CreateItems", "ForkConversation", "RecordResponse"} == CREATING


class Proxy:
    """Passes bytes between clients and a server, until it is told to hold back what the server says."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._pool = ThreadPoolExecutor(32)
        self._pool.submit(self._accept)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._pairs.append((client, server))
                self._pool.submit(self._pass, client, server, threading.Event())
                self._pool.submit(self._pass, server, client, self._open)

    def _pass(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if gate is self._open:
                    gate.wait()
                sink.sendall(data)

    def hold(self) -> None:
        """What the server says from now on is kept back."""
        self._open.clear()

    def cut(self) -> None:
        """Ends all connections, and with them what was kept back; new ones are as at first."""
        for pair in self._pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._pairs.clear()
        self._open.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._pool.shutdown()


@pytest.fixture
def proxy(server: Running) -> Iterator[Proxy]:
    proxy = Proxy(server.grpc)
    yield proxy
    proxy.close()


@contextmanager
def cutting_the_answer(proxy: Proxy, is_done: Callable[[], bool]) -> Iterator[None]:
    """Has the answer of a call get lost: connections are cut once the server has done it."""

    def cut() -> None:
        deadline = time.monotonic() + 10
        while not is_done() and time.monotonic() < deadline:
            time.sleep(0.01)
        proxy.cut()

    proxy.hold()
    thread = threading.Thread(target=cut)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("text", ["once", "o" * 2_000_000], ids=["small", "large"])
def test_an_append_whose_answer_was_lost_is_stored_once(
    server: Running, proxy: Proxy, client_class: Any, text: str
) -> None:
    """And is answered. Requests that do not fit into the default buffer for repetitions are no exception."""
    with Client(str(server.grpc)) as direct, client_class(proxy.target) as client:
        conversation = client.create_conversation()
        with cutting_the_answer(proxy, lambda: bool(direct.list_items(conversation.id).data)):
            answer = client.create_items(conversation.id, items=[{"role": "user", "content": text}])
        assert direct.list_items(conversation.id).data == answer.data


def test_without_a_request_id_the_same_append_is_not_repeated(server: Running, proxy: Proxy) -> None:
    """What the shipped config alone does, for clients in any language."""
    options = [("grpc.service_config", json.dumps(SHIPPED)), ("grpc.enable_http_proxy", 0)]
    with Client(str(server.grpc)) as direct, grpc.insecure_channel(proxy.target, options) as channel:
        stub = ConversationsServiceStub(channel)
        conversation = direct.create_conversation()
        message = Message(role=Role.ROLE_USER, content=[ContentPart(input_text=InputText(text="once"))])
        # Connects.
        stub.GetConversation(GetConversationRequest(conversation_id=conversation.id), timeout=20)
        append = CreateItemsRequest(conversation_id=conversation.id, items=[ConversationItem(message=message)])
        with (
            cutting_the_answer(proxy, lambda: bool(direct.list_items(conversation.id).data)),
            pytest.raises(grpc.RpcError),
        ):
            stub.CreateItems(append, timeout=20)
        assert len(direct.list_items(conversation.id).data) == 1


class Failing:
    """Answers calls with an error, so many times; then with an empty message. Keeps what it was asked."""

    def __init__(self, times: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.times = times
        self.code = code
        self.requests: list[bytes] = []

    def __call__(self, request: bytes, context: Any) -> bytes:
        self.requests.append(request)
        if len(self.requests) <= self.times:
            context.abort(self.code, "no")
        return b""


def test_repetitions_carry_the_same_request_id(client_class: Any) -> None:
    """That is what makes them safe; the next call has another."""
    failing = Failing(2)
    with answering(failing) as port, client_class(f"127.0.0.1:{port}") as client:
        client.create_conversation()
        client.create_conversation()
    ids = [CreateConversationRequest.FromString(request).request_id for request in failing.requests]
    assert len(ids) == 4
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_a_call_is_tried_five_times() -> None:
    failing = Failing(100)
    with (
        answering(failing) as port,
        Client(f"127.0.0.1:{port}") as client,
        pytest.raises(convgrpc.Unavailable),
    ):
        client.delete_item("conv_1", "msg_1")
    assert len(failing.requests) == 5


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)]
)
def test_nothing_else_is_repeated(code: grpc.StatusCode) -> None:
    """A request that is too large has the same code as a server that is overloaded; neither gets better at once."""
    failing = Failing(1, code)
    with answering(failing) as port, Client(f"127.0.0.1:{port}") as client, pytest.raises(convgrpc.ConvgrpcError):
        client.list_conversations()
    assert len(failing.requests) == 1


def test_a_deletion_that_was_done_already_is_not_found(server: Running, proxy: Proxy) -> None:
    """Its repetition finds nothing; it does not delete anything else."""
    with Client(str(server.grpc)) as direct, Client(proxy.target) as client:
        conversation = client.create_conversation()

        with (
            cutting_the_answer(proxy, lambda: not direct.list_conversations().data),
            pytest.raises(convgrpc.NotFound),
        ):
            client.delete_conversation(conversation.id)


def test_a_server_that_is_restarted_is_found_again(client_class: Any) -> None:
    """Calls wait for it, as long as they are repeated."""
    with answering(Failing(0)) as port:
        pass
    with client_class(f"127.0.0.1:{port}") as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.list_conversations)
        time.sleep(0.3)
        with answering(Failing(0), port=port):
            assert call.result(10).data == []
