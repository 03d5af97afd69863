"""Conversations that are exported and watched, by gRPC and by REST, as their items' texts."""

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NamedTuple

import grpc
import httpx
from google.rpc import error_details_pb2, status_pb2

from convgrpc.server.app import Running
from convgrpc.v1.conversations_service_pb2 import (
    ConversationItemBatch,
    CreateConversationRequest,
    CreateItemsRequest,
    ExportItemsRequest,
    WatchItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from tests.server.test_concurrency import message

TIMEOUT = 30


def texts(batch: ConversationItemBatch) -> list[str]:
    return [item.message.content[0].input_text.text for item in batch.data]


def reason(error: grpc.RpcError) -> str:
    """The reason of a failed call, without its prefix."""
    trailers: dict[str, Any] = dict(iter(error.trailing_metadata() or ()))  # type: ignore[arg-type]
    status, info = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason).removeprefix("ERROR_REASON_")


class Event(NamedTuple):
    """One of the Server-Sent Events: its cursor, and what it has."""

    name: str
    cursor: str
    value: Any

    @property
    def texts(self) -> list[str]:
        return [item["content"][0]["text"] for item in self.value["data"]]


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Those in a text, as a browser reads them; comments are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name and not line.startswith(":"):
            fields[name] = value
        elif not name and fields:
            yield Event(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


class Site(NamedTuple):
    """A server, and clients for it."""

    server: Running
    channel: grpc.Channel
    http: httpx.Client


class Talk:
    """A conversation on a server, of the project of a key."""

    def __init__(self, site: Site, *said: str, key: str = "") -> None:
        self.site = site
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.call: dict[str, Any] = {"timeout": TIMEOUT, "metadata": tuple(self.headers.items())}
        self.stub = ConversationsServiceStub(site.channel)
        self.id = self.stub.CreateConversation(CreateConversationRequest(), **self.call).id
        for start in range(0, len(said), 20):
            self.say(*said[start : start + 20])

    def say(self, *said: str) -> list[str]:
        """Appends items; gives their ids."""
        request = CreateItemsRequest(conversation_id=self.id, items=map(message, said))
        reply = self.stub.CreateItems(request, **self.call)
        return [item.id for item in reply.data]

    def remove(self, item_id: str) -> None:
        self.rest("DELETE", f"/v1/conversations/{self.id}/items/{item_id}")

    def delete(self) -> None:
        self.rest("DELETE", f"/v1/conversations/{self.id}")

    def rest(self, verb: str, path: str, **request: Any) -> httpx.Response:
        return self.site.http.request(verb, path, headers=self.headers, **request).raise_for_status()

    def export(self, **fields: Any) -> Any:
        request = ExportItemsRequest(conversation_id=self.id, **fields)
        return self.stub.ExportItems(request, **self.call)

    def export_lines(self, **query: str) -> list[dict[str, Any]]:
        answer = self.rest("GET", f"/v1/x/conversations/{self.id}/items:export", params=query)
        assert answer.headers["content-type"] == "application/jsonl"
        return list(map(json.loads, answer.text.splitlines()))

    def watch(self, **fields: Any) -> Any:
        request = WatchItemsRequest(conversation_id=self.id, **fields)
        return self.stub.WatchItems(request, **self.call)

    @contextmanager
    def events(self, headers: dict[str, str] | None = None, **query: str) -> Iterator[Iterator[Event]]:
        path = f"/v1/x/conversations/{self.id}/items:watch"
        headers = {**self.headers, **(headers or {})}
        with self.site.http.stream("GET", path, params=query, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream"
            yield events(answer.iter_lines())

    def unread(self, action: str) -> AbstractContextManager[socket.socket]:
        """A connection on which a stream is asked for by REST, and nothing read."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT)
        connection.connect(self.site.server.http)
        head = f"GET /v1/x/conversations/{self.id}/items:{action} HTTP/1.1\r\nhost: localhost\r\n"
        connection.sendall(
            (head + "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) + "\r\n").encode()
        )
        return closing(connection)


def read_to_the_end(connection: socket.socket) -> bytes:
    """What comes on a connection until it ends, well or not."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found
