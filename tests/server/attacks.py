"""What hostile clients do, each in a process of its own: `python -m tests.server.attacks NAME GRPC_PORT HTTP_PORT`.

Each goes on for as long as its input stays open, holding on to what it opened, and ends by itself with an error where
the server does not defend itself in the way that it should.
"""

import gzip
import random
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from convgrpc.v1.conversations_service_pb2 import GetConversationRequest, ListItemsRequest, WatchItemsRequest

MIB = 1 << 20
TIMEOUT = 20.0
_FLOOD = 64 * MIB
"""How much is sent at most, where nothing stops it."""


class Target(NamedTuple):
    """The ports of the server, and an id of a conversation with a large page."""

    grpc: int
    http: int
    conversation: str


Attack = Callable[[Target], None]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


_OPEN: list[socket.socket] = []
"""Connections that nobody refers to would be closed."""


def connected(port: int) -> socket.socket:
    _OPEN.append(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT))
    return _OPEN[-1]


def held(connections: list[socket.socket]) -> None:
    """Keeps connections until the server has closed each of them."""
    deadline = time.monotonic() + TIMEOUT
    left = set(connections)
    while left and time.monotonic() < deadline:
        for connection in select.select(left, [], [], 0.1)[0]:
            if is_over(connection):
                left.discard(connection)
    assert not left, f"{len(left)} of {len(connections)} connections are still open"


def is_over(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except OSError:
        return True


def dropped(connections: list[socket.socket]) -> None:
    """Waits until the server has ended connections of which nothing is read."""
    deadline = time.monotonic() + TIMEOUT
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLHUP | select.POLLERR)
    while len(poll.poll(100)) < len(connections):
        assert time.monotonic() < deadline, "who does not read is served for ever"


def flood(connection: socket.socket, parts: Iterator[bytes]) -> int:
    """Sends until the server closes the connection or everything is sent; returns how much."""
    sent = 0
    with suppress(OSError):
        for part in parts:
            connection.sendall(part)
            sent += len(part)
            if sent >= _FLOOD:
                break
    return sent


def refused(connection: socket.socket, status: bytes) -> None:
    """The server answers with an error, or closes without one, where its answer cannot get through what is sent."""
    with suppress(ConnectionError):
        answer = connection.recv(65536)
        assert not answer or answer.split(b" ")[1] == status, answer


def head(verb: str, path: str, *headers: str) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "host: 127.0.0.1", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


JSON = "content-type: application/json"


def posted(target: Target, body: bytes, *headers: str) -> bytes:
    """The status of the answer to a body that is sent as a whole."""
    with connected(target.http) as connection:
        with suppress(ConnectionError):
            connection.sendall(head("POST", "/v1/conversations", JSON, f"content-length: {len(body)}", *headers) + body)
        with suppress(ConnectionError):
            return connection.recv(65536).split(b" ")[1]
    return b""


# By REST.


@attack
def slow_heads(target: Target) -> None:
    """A byte of a head now and then, on many connections."""
    connections = [connected(target.http) for _ in range(100)]
    text = head("GET", "/v1/conversations/conv_1", "x-a: " + "a" * 1000)
    for byte in text[:40]:
        for connection in connections:
            with suppress(OSError):
                connection.sendall(bytes([byte]))
        time.sleep(0.05)
    held(connections)


@attack
def slow_bodies(target: Target) -> None:
    """A byte of a body now and then, on as many connections as there may be calls."""
    connections = [connected(target.http) for _ in range(150)]
    for connection in connections:
        connection.sendall(head("POST", "/v1/conversations", JSON, "content-length: 1000"))
    for _ in range(10):
        for connection in connections:
            with suppress(OSError):
                connection.sendall(b" ")
        time.sleep(0.05)
    held(connections)


@attack
def unread_answers(target: Target) -> None:
    """Large pages asked for again and again, and never read."""
    connections = [connected(target.http) for _ in range(40)]
    ask = head("GET", f"/v1/conversations/{target.conversation}/items?limit=100")
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(OSError):
            connection.sendall(ask * 10)
    dropped(connections)


@attack
def pipelined_requests(target: Target) -> None:
    """Very many short requests in one piece, on each of many connections, whose answers are not read for a while."""
    connections = [connected(target.http) for _ in range(60)]
    asks = head("GET", "/openapi.json") + b"GET / HTTP/1.1\r\n\r\n" * 13_800
    for connection in connections:
        connection.setblocking(False)
        connection.send(asks)
    time.sleep(1)
    held(connections)


@attack
def pipelined_bodies(target: Target) -> None:
    """The body of a request that waits for answers: each before it would let in more, and the last two are not read."""
    connections = [connected(target.http) for _ in range(40)]
    path = f"/v1/conversations/{target.conversation}"
    asks = head("GET", path) * 30 + head("GET", f"{path}/items?limit=1") * 2
    asks += head("POST", "/v1/conversations", JSON, f"content-length: {30 * MIB}") + b" " * 20 * MIB

    def one(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(OSError):
            connection.sendall(asks)

    threads = [threading.Thread(target=one, args=[each], daemon=True) for each in connections]
    for thread in threads:
        thread.start()
    dropped(connections)


@attack
def unread_events(target: Target) -> None:
    """Watches of a conversation whose events are never read."""
    connections = [connected(target.http) for _ in range(40)]
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head("GET", f"/v1/x/conversations/{target.conversation}/items:watch"))
    dropped(connections)


@attack
def silent_connections(target: Target) -> None:
    """Half-open ones: nothing is ever sent."""
    held([connected(port) for port in (target.http, target.grpc) for _ in range(80)])


@attack
def many_connections(target: Target) -> None:
    """More than there may be."""
    connections = [connected(target.http) for _ in range(800)]
    assert any(map(is_over, select.select(connections, [], [], TIMEOUT)[0]))


@attack
def endless_header(target: Target) -> None:
    """One header without an end."""
    with connected(target.http) as connection:
        connection.sendall(head("GET", "/v1/conversations/conv_1")[:-2] + b"x-a: ")
        assert flood(connection, (b"a" * 65536 for _ in count())) < _FLOOD
        refused(connection, b"413")


@attack
def endless_headers(target: Target) -> None:
    """Short headers without an end."""
    with connected(target.http) as connection:
        connection.sendall(head("GET", "/v1/conversations/conv_1")[:-2])
        assert flood(connection, (b"a:b\r\n" * 10_000 for _ in count())) < _FLOOD
        refused(connection, b"413")


@attack
def endless_url(target: Target) -> None:
    with connected(target.http) as connection:
        connection.sendall(b"GET /")
        assert flood(connection, (b"a" * 65536 for _ in count())) < _FLOOD
        refused(connection, b"413")


@attack
def endless_trailer(target: Target) -> None:
    """What comes after a body in chunks."""
    with connected(target.http) as connection:
        connection.sendall(head("POST", "/v1/conversations", JSON, "transfer-encoding: chunked") + b"0\r\nx-a: ")
        assert flood(connection, (b"a" * 65536 for _ in count())) < _FLOOD
        refused(connection, b"413")


@attack
def endless_bodies(target: Target) -> None:
    """In chunks, without saying how long they will be."""

    def one() -> None:
        with connected(target.http) as connection:
            connection.sendall(head("POST", "/v1/conversations", JSON, "transfer-encoding: chunked"))
            assert flood(connection, (b"10000\r\n" + b" " * 65536 + b"\r\n" for _ in count())) < _FLOOD

    at_once(one, 4)


@attack
def deep_json(target: Target) -> None:
    for text in (b"[" * 30 * MIB, b'{"a":' * 100_000, b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        assert posted(target, text) in (b"400", b"413")


@attack
def json_of_many_values(target: Target) -> None:
    """Arrays and objects in millions, whose bytes would become a hundred times as many."""

    def one() -> None:
        for text in (
            b'{"items":[' + b"[]," * (10 * MIB) + b"1]}",
            b'{"items":[' + b'{"a":{"b":[1]}},' * (2 * MIB) + b"1]}",
        ):
            assert posted(target, text) in (b"413", b"429")

    at_once(one, 2)


@attack
def json_of_many_keys(target: Target) -> None:
    keys = b",".join(b'"%x":"a"' % number for number in range(250_000))
    for text in (b'{"metadata":{' + keys + b"}}", b"{" + keys + b"}", b'{"a":1,' * 2 + keys + b"}"):
        assert posted(target, text) == b"400"


@attack
def json_of_escapes(target: Target) -> None:
    """Text in which each quotation mark has to be looked at."""
    text = b'{"items":[{"role":"user","content":"' + b'\\"a\\"\\\\' * (4 * MIB) + b'"}]}'
    assert posted(target, text) in (b"400", b"413")


@attack
def gzip_bomb(target: Target) -> None:
    """A body that would be a thousand times as large."""
    body = gzip.compress(b" " * 512 * MIB, 1)
    assert posted(target, body, "content-encoding: gzip") == b"415"


@attack
def no_http(target: Target) -> None:
    """Whatever else comes by the port."""
    source = random.Random(1)
    for _ in range(300):
        with connected(target.http) as connection:
            with suppress(OSError):
                connection.sendall(source.randbytes(2000) + b"\r\n\r\n")
            refused(connection, b"400")


# By gRPC.

_METHOD = "/convgrpc.v1.ConversationsService/"


class Http2:
    """A connection that speaks HTTP/2, and goes its own ways."""

    def __init__(self, target: Target, **settings: int) -> None:
        self.socket = connected(target.grpc)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({h2.settings.SettingCodes[name]: value for name, value in settings.items()})
        self.push()

    def push(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, method: str, *headers: tuple[str, str]) -> int:
        """Begins a call, whose stream it returns."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*HEADERS[:2], (":path", method), *HEADERS[3:], *headers])
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Sends as much as the server lets through, and all of it if it lets it."""
        view = memoryview(data)
        while len(view):
            size = min(len(view), self.h2.local_flow_control_window(stream), 16384)
            if size:
                self.h2.send_data(stream, bytes(view[:size]), end_stream=end and size == len(view))
                view = view[size:]
                self.push()
            else:
                self.receive()

    def receive(self) -> list[h2.events.Event]:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError
        events = self.h2.receive_data(data)
        self.push()
        return events

    def status(self, stream: int) -> str:
        """The status of the answer to a call."""
        while True:
            for event in self.receive():
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    self.push()
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found = fields(event)
                    if event.stream_id == stream and "grpc-status" in found:
                        return found["grpc-status"]


HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"{_METHOD}GetConversation"),
    (":authority", "127.0.0.1"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def fields(event: h2.events.ResponseReceived | h2.events.TrailersReceived) -> dict[str, str]:
    return {str(name): str(value) for name, value in event.headers or ()}


def message(data: bytes, *, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def raw_heads() -> bytes:
    """The fields of a call, by which the state of the compression stays as it is."""
    return bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in HEADERS]))


def at_once(work: Callable[[], None], times: int) -> None:
    failures: list[BaseException] = []

    def tried() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=tried) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def reading(connection: socket.socket) -> None:
    """Takes whatever comes, in a thread, so that the server is not held up by that."""

    def read() -> None:
        with suppress(OSError):
            while connection.recv(1 << 20):
                pass

    threading.Thread(target=read, daemon=True).start()


@attack
def quiet_connections(target: Target) -> None:
    """More than there may be, over which HTTP/2 begins and no call is made."""
    connections = [connected(target.grpc) for _ in range(500)]
    for connection in connections:
        with suppress(OSError):
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    assert any(map(is_over, reversed(connections)))


@attack
def rapid_resets(target: Target) -> None:
    """Calls that are taken back at once."""
    connection = Http2(target)
    reading(connection.socket)
    heads = raw_heads()
    resets = (
        b"".join(
            frame(1, 4, stream, heads) + frame(3, 0, stream, struct.pack(">I", 8)) for stream in range(at, at + 400, 2)
        )
        for at in range(1, 40_000, 400)
    )
    flood(connection.socket, resets)


@attack
def stream_flood(target: Target) -> None:
    """More calls at once than a connection may have, none of which goes on."""
    heads = raw_heads()
    connections = [Http2(target) for _ in range(5)]
    for connection in connections:
        reading(connection.socket)
        flood(connection.socket, (frame(1, 4, stream, heads) for stream in range(1, 10_000, 2)))


@attack
def settings_flood(target: Target) -> None:
    """Settings, each of which has to be answered, and no answer is read."""
    connection = Http2(target)
    flood(connection.socket, (frame(4, 0, 0) * 5000 for _ in range(100)))


@attack
def ping_flood(target: Target) -> None:
    """The same with pings."""
    connection = Http2(target)
    assert flood(connection.socket, (frame(6, 0, 0, b"12345678") * 1000 for _ in range(100))) < _FLOOD


@attack
def continuation_flood(target: Target) -> None:
    """A head that goes on and on."""
    connection = Http2(target)
    connection.socket.sendall(frame(1, 0, 1, raw_heads()))
    field = bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple("x-a", "a" * 16000)]))
    flood(connection.socket, (frame(9, 0, 1, field) for _ in count()))


@attack
def long_metadata(target: Target) -> None:
    connection = Http2(target)
    stream = connection.ask(f"{_METHOD}GetConversation", *[(f"x-{number}", f"{number}" * 4000) for number in range(8)])
    connection.send(stream, message(GetConversationRequest(conversation_id="conv_1").SerializeToString()))
    # Refused, or answered by what of it fits.
    assert connection.status(stream) in ("8", "5")


@attack
def closed_windows(target: Target) -> None:
    """Large pages asked for, of which nothing is let through."""
    request = message(ListItemsRequest(conversation_id=target.conversation, limit=100).SerializeToString())
    connections = [Http2(target, INITIAL_WINDOW_SIZE=0) for _ in range(2)]
    for connection in connections:
        for _ in range(90):
            connection.send(connection.ask(f"{_METHOD}ListItems"), request)
    time.sleep(1)


@attack
def unread_watches(target: Target) -> None:
    """Watches of which nothing is let through, more of them than there is room for: some wait for it in vain."""
    request = message(WatchItemsRequest(conversation_id=target.conversation).SerializeToString())
    connections = [Http2(target, INITIAL_WINDOW_SIZE=0) for _ in range(2)]
    for connection in connections:
        for _ in range(90):
            connection.send(connection.ask(f"{_METHOD}WatchItems"), request)
    refused = 0
    deadline = time.monotonic() + TIMEOUT
    while refused <= 40 and time.monotonic() < deadline:
        for connection in connections:
            connection.socket.settimeout(0.5)
            with suppress(TimeoutError):
                refused += sum(isinstance(event, h2.events.StreamEnded) for event in connection.receive())
    assert refused > 40


@attack
def unfinished_messages(target: Target) -> None:
    """Messages whose end never comes; the server gives up on each."""
    connection = Http2(target)
    streams = [connection.ask(f"{_METHOD}CreateConversation") for _ in range(90)]
    for stream in streams:
        connection.send(stream, struct.pack(">BI", 0, 30 * MIB) + b"a" * 20_000, end=False)
    answered: set[int] = set()
    deadline = time.monotonic() + TIMEOUT
    while len(answered) < len(streams) and time.monotonic() < deadline:
        for event in connection.receive():
            if isinstance(event, h2.events.ResponseReceived):
                assert fields(event)["grpc-status"] in ("4", "8")
                answered.add(event.stream_id)
    assert len(answered) == len(streams)


@attack
def compressed_bomb(target: Target) -> None:
    """A small message that is a large one once it is decompressed."""
    connection = Http2(target)
    for _ in range(2):
        stream = connection.ask(f"{_METHOD}CreateConversation", ("grpc-encoding", "gzip"))
        connection.send(stream, message(gzip.compress(bytes(256 * MIB), 1), compressed=True))
        assert connection.status(stream) in ("3", "8")


@attack
def garbage_messages(target: Target) -> None:
    source = random.Random(1)
    connection = Http2(target)
    for size in range(1, 200):
        stream = connection.ask(f"{_METHOD}CreateConversation")
        connection.send(stream, message(b"\x0a\xff" + source.randbytes(size)))
        assert connection.status(stream) == "3"


@attack
def message_of_many_parts(target: Target) -> None:
    """Items in millions, of two bytes each."""
    connection = Http2(target)
    for data in (b"\x0a\x00" * (15 * MIB), b"\x0a\x02\x12\x00" * (7 * MIB)):
        stream = connection.ask(f"{_METHOD}CreateConversation")
        connection.send(stream, message(data))
        assert connection.status(stream) in ("3", "8")


@attack
def health_watches(target: Target) -> None:
    """Calls without a key, which last. The oldest of them end."""
    ended = 0
    connections = [Http2(target) for _ in range(3)]
    for connection in connections:
        for _ in range(90):
            connection.send(connection.ask("/grpc.health.v1.Health/Watch"), message(b""))
        connection.socket.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                ended += sum(isinstance(event, h2.events.StreamEnded) for event in connection.receive())
    assert ended > 200


@attack
def unread_reflection(target: Target) -> None:
    """Descriptors that are asked for without a key, and not let through: on streams that go on, and on such as end."""
    symbol = ServerReflectionRequest(file_containing_symbol="convgrpc.v1.ConversationsService")
    request = message(symbol.SerializeToString())
    refused = 0
    for _ in range(25):
        connection = Http2(target, INITIAL_WINDOW_SIZE=0)
        for number in range(90):
            stream = connection.ask("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            connection.send(stream, request * 2, end=number % 2 == 0)
        connection.socket.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                refused += sum(isinstance(event, h2.events.StreamEnded) for event in connection.receive())
    assert refused > 2000


# By TLS.


@attack
def half_handshakes(target: Target) -> None:
    """A hello, or half of one, and nothing after it, on more connections by REST than there may be."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    connections = []
    for port, times in ((target.http, 175), (target.grpc, 20)):
        for length in (0, 5, 100, len(hello)) * times:
            connections.append(connected(port))
            with suppress(OSError):
                connections[-1].sendall(hello[:length])
    held(connections)


def main() -> None:
    name, grpc, http, conversation = sys.argv[1:]
    ATTACKS[name](Target(int(grpc), int(http), conversation))
    print("done", flush=True)
    # What is open stays so until whoever looks on has seen enough.
    sys.stdin.read()


if __name__ == "__main__":
    main()
