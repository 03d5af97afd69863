"""Clients that write to a server as fast as they can, and keep account of what it acknowledged."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import httpx

from convgrpc.server.app import Running
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import (
    ORDER_ASC,
    AppendItemsRequest,
    CreateConversationRequest,
    CreateItemsRequest,
    ListItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ROLE_USER, ConversationItem, Message

TIMEOUT = 20
PARTS = 3
CLIENTS = 4
AHEAD = 20
"""How many batches a stream sends that are not acknowledged."""
_LARGE = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)]

Appender = Callable[[str, list[str]], object]


class Ledger:
    """How many batches of each conversation were acknowledged, how many were sent where that may be more than one
    more, and with what words others were refused.
    """

    def __init__(self) -> None:
        self.batches: dict[str, int] = {}
        self.streamed: dict[str, int] = {}
        self.refusals: list[str] = []

    @property
    def acknowledged(self) -> int:
        return sum(self.batches.values())


def batch(turn: int, size: int) -> list[str]:
    """The texts of a batch, each a turn, a part, and a filling."""
    return [f"{turn} {part} ".ljust(size, "x") for part in range(PARTS)]


@contextmanager
def loaded(server: Running, ledger: Ledger, *, size: int) -> Iterator[None]:
    """Writes batches of items of a size while the context lasts, by gRPC and by REST, whatever is refused."""
    stop = threading.Event()
    clients: list[Callable[..., None]] = [partial(_write, _rest), _stream, *[partial(_write, _grpc)] * (CLIENTS - 2)]
    threads = [threading.Thread(target=client, args=(server, ledger, size, stop)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT)


def _write(client: Any, server: Running, ledger: Ledger, size: int, stop: threading.Event) -> None:
    with client(server) as (create, append):
        while not stop.is_set():
            # A batch whose outcome is not known is the last of its conversation.
            try:
                conversation = create()
                ledger.batches[conversation] = 0
                while not stop.is_set():
                    append(conversation, batch(ledger.batches[conversation], size))
                    ledger.batches[conversation] += 1
            except (grpc.RpcError, httpx.HTTPError) as error:
                ledger.refusals.append(_words(error))
                stop.wait(0.02)


def _stream(server: Running, ledger: Ledger, size: int, stop: threading.Event) -> None:
    with grpc.insecure_channel(str(server.grpc), options=_LARGE) as channel:
        stub = ConversationsServiceStub(channel)
        while not stop.is_set():
            try:
                conversation = stub.CreateConversation(CreateConversationRequest(), timeout=TIMEOUT).id
                ledger.batches[conversation] = ledger.streamed[conversation] = 0
                for answer in stub.AppendItems(_requests(conversation, ledger, size, stop), timeout=TIMEOUT):
                    ledger.batches[conversation] = answer.requests
            except grpc.RpcError as error:
                ledger.refusals.append(_words(error))
                stop.wait(0.02)


def _requests(conversation: str, ledger: Ledger, size: int, stop: threading.Event) -> Iterator[AppendItemsRequest]:
    while not stop.is_set():
        turn = ledger.streamed[conversation]
        if turn - ledger.batches[conversation] < AHEAD:
            ledger.streamed[conversation] += 1
            yield _request(conversation, turn, size)
        else:
            stop.wait(0.001)


def _request(conversation: str, turn: int, size: int) -> AppendItemsRequest:
    items = _items(batch(turn, size))
    return AppendItemsRequest(conversation_id=conversation, items=items, request_id=f"{conversation} {turn}")


def resume(server: Running, ledger: Ledger, *, size: int) -> None:
    """Sends again, in streams, what was sent in streams and not acknowledged."""
    with grpc.insecure_channel(str(server.grpc), options=_LARGE) as channel:
        stub = ConversationsServiceStub(channel)
        for conversation, sent in ledger.streamed.items():
            rest = [_request(conversation, turn, size) for turn in range(ledger.batches[conversation], sent)]
            answers = list(stub.AppendItems(iter(rest), timeout=TIMEOUT))
            assert (answers[-1].requests if answers else 0) == len(rest)
            ledger.batches[conversation] = sent


def _words(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.json()['error']['message']}"
    if isinstance(error, grpc.Call):
        return f"{error.code().name} {error.details()}"
    return type(error).__name__


@contextmanager
def _grpc(server: Running) -> Iterator[tuple[Callable[[], str], Appender]]:
    with grpc.insecure_channel(str(server.grpc), options=_LARGE) as channel:
        stub = ConversationsServiceStub(channel)

        def append(conversation: str, texts: list[str]) -> None:
            request = CreateItemsRequest(conversation_id=conversation, items=_items(texts))
            stub.CreateItems(request, timeout=TIMEOUT)

        yield lambda: stub.CreateConversation(CreateConversationRequest(), timeout=TIMEOUT).id, append


def _items(texts: list[str]) -> list[ConversationItem]:
    contents = [ContentPart(input_text=InputText(text=text)) for text in texts]
    return [ConversationItem(message=Message(role=ROLE_USER, content=[content])) for content in contents]


@contextmanager
def _rest(server: Running) -> Iterator[tuple[Callable[[], str], Appender]]:
    with httpx.Client(base_url=f"http://{server.http}/v1", timeout=TIMEOUT, trust_env=False) as client:

        def append(conversation: str, texts: list[str]) -> None:
            items = [{"role": "user", "content": text} for text in texts]
            client.post(f"/conversations/{conversation}/items", json={"items": items}).raise_for_status()

        yield lambda: str(client.post("/conversations", json={}).raise_for_status().json()["id"]), append


def losses(server: Running, ledger: Ledger) -> list[str]:
    """The conversations that lack what was acknowledged, or have half a batch, or more than one that was not."""
    with grpc.insecure_channel(str(server.grpc), options=_LARGE) as channel:
        stub = ConversationsServiceStub(channel)
        lost = []
        for conversation, acknowledged in ledger.batches.items():
            texts = list(_texts(stub, conversation))
            batches = len(texts) // PARTS
            whole = [text for turn in range(batches) for text in batch(turn, len(texts[0]))]
            most = max(acknowledged + 1, ledger.streamed.get(conversation, 0))
            if texts != whole or not acknowledged <= batches <= most:
                lost.append(f"{conversation}: {len(texts)} items of {acknowledged} batches")
        return lost


def _texts(stub: ConversationsServiceStub, conversation: str) -> Iterator[str]:
    after, has_more = "", True
    while has_more:
        request = ListItemsRequest(conversation_id=conversation, limit=100, order=ORDER_ASC)
        if after:
            request.after = after
        page = stub.ListItems(request, timeout=TIMEOUT)
        yield from (item.message.content[0].input_text.text for item in page.data)
        after, has_more = page.last_id, page.has_more
