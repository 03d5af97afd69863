"""Watches, a thousand at once, in a process of its own: by a client of gRPC they would cost more than what sends them.

So it reads HTTP/2 by itself.
"""

import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.service import CONVERSATIONS
from convgrpc.v1.conversations_service_pb2 import WatchItemsRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGE_WINDOW = (1 << 31) - 1
STREAMS = 100
"""How many calls a server has on a connection."""
PATH = f"{CONVERSATIONS}/WatchItems".encode()


class Told(NamedTuple):
    """That there was news for one of those that watch, by their numbers, and when (`time.monotonic()`)."""

    watcher: int
    at: float


class Crowd:
    """Those that watch. They are asked for what they were told, at the end."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def told(self) -> list[Told]:
        self._pipe.send("over")
        told: list[Told] = self._pipe.recv()
        return told


@contextmanager
def watching(port: int, key: str, conversations: Sequence[str]) -> Iterator[Crowd]:
    """Has each of the conversations watched while the context lasts."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_watch, args=(port, key, conversations, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield Crowd(ours)
    finally:
        process.kill()
        process.join()


class _Watches:
    """Those on one connection."""

    def __init__(self, port: int, head: bytes, conversations: dict[int, str]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, struct.pack(">HI", 4, LARGE_WINDOW)))
        self.socket.sendall(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGE_WINDOW - 65535)))
        self._numbers = {2 * place + 1: number for place, number in enumerate(conversations)}
        for stream, number in self._numbers.items():
            data = WatchItemsRequest(conversation_id=conversations[number], new_only=True).SerializeToString()
            message = struct.pack(">BI", 0, len(data)) + data
            self.socket.sendall(_frame(HEADERS, END_HEADERS, stream, head) + _frame(DATA, END_STREAM, stream, message))
        self._read = bytearray()

    def receive(self) -> Iterator[int]:
        """The numbers of those that watch, once for each message to them."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed a connection")
        self._read += data
        while len(self._read) >= 9 and len(self._read) >= (end := 9 + int.from_bytes(self._read[:3])):
            kind, flags, stream = self._read[3], self._read[4], int.from_bytes(self._read[5:9])
            if kind == DATA and end > 14:
                yield self._numbers[stream]
            elif kind == SETTINGS and not flags & ACK:
                self.socket.sendall(_frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(_frame(PING, ACK, 0, bytes(self._read[9:end])))
            del self._read[:end]


def _watch(port: int, key: str, conversations: Sequence[str], pipe: Connection) -> None:
    fields = {b"te": b"trailers", b"content-type": b"application/grpc", b"authorization": b"Bearer " + key.encode()}
    head = b"\x83\x86\x14" + bytes((len(PATH),)) + PATH + b"\x11\x09127.0.0.1"
    head += b"".join(_literal(*field) for field in fields.items())
    selector = selectors.DefaultSelector()
    for start in range(0, len(conversations), STREAMS):
        part = dict(enumerate(conversations[start : start + STREAMS], start))
        each = _Watches(port, head, part)
        # No more at once than a project may have begin.
        begun: set[int] = set()
        while begun != part.keys():
            begun.update(each.receive())
        selector.register(each.socket, selectors.EVENT_READ, each)
    selector.register(pipe, selectors.EVENT_READ)
    pipe.send("begun")
    told: list[Told] = []
    while True:
        for key_, _ in selector.select():
            if key_.fileobj is pipe:
                pipe.recv()
                pipe.send(told)
                return
            now = time.monotonic()
            told += [Told(number, now) for number in key_.data.receive()]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value
