"""The connections of the HTTP server, within bounds: how many, how long their clients take, and how much waits for
them.

uvicorn does the rest. By itself it has no bound on the head of a request, nor on the time until that is whole or an
answer is taken, and what it refuses it does not refuse in the words of the API.
"""

import asyncio
import errno
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sized
from functools import partial
from typing import Any, NamedTuple, NoReturn

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from convgrpc.errors import ConvgrpcError, failure
from convgrpc.server.http.gateway import envelope
from convgrpc.v1.error_reason_pb2 import ErrorReason

MAX_HEAD_BYTES = 128 << 10
"""How large the head of a request may be, with what stands after its body; a header counts 32 bytes more than it has.

A search for as much metadata as there may be is a URL of some 110 kB.
"""
_ABSOLUTE = re.compile(rb"[a-z]+://([^/?#]*@)?(?P<host>[^/?#@]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
"""A request target that has an authority."""
_HEADER_BYTES = 32
MAX_WAITING_REQUESTS = 32
"""How many requests of one connection may wait for the answer to the one before them."""
MAX_UNSENT_BYTES = 64 << 20
"""How much of all answers may wait for their clients."""
_AT_ONCE = struct.pack("ii", 1, 0)
_PAUSE = 2.0
"""Seconds for which a client may take nothing of an answer while too much waits for others too."""
_GLANCE = 0.5
"""Seconds between two looks at who takes too long."""
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_MALFORMED = failure(ErrorReason.ERROR_REASON_INVALID_VALUE, "Invalid request: it is not HTTP/1.1.")
_HEAD_TOO_LARGE = failure(
    ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, f"Request too large. Expected a head of at most {MAX_HEAD_BYTES} bytes."
)


class Bounds(NamedTuple):
    """How many connections there may be, and how many seconds a client has to send a head, and to take an answer."""

    connections: int
    seconds: float


class Connections:
    """Those of one server: makes them, and ends those that are too many or whose clients take too long.

    Where there are too many, the one goes first that has waited for its client the longest: who begins and does not go
    on makes room for others.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._most, self.seconds = bounds
        self._number = 0
        self._unsent = 0
        # Since when they wait, the longest first: for the head of a request, and for room to write the rest of an
        # answer.
        self._idle: dict[_Connection, float] = {}
        self._stalled: dict[_Connection, float] = {}

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "_Connection":
        return _Connection(self, config, server_state, app_state, _loop)

    async def watch(self) -> None:
        """Ends those whose clients take too long, until cancelled."""
        while True:
            await asyncio.sleep(_GLANCE)
            late = time.monotonic() - self.seconds
            for waiting in (self._idle, self._stalled):
                for connection in [connection for connection, since in waiting.items() if since < late]:
                    connection.abort()

    async def accept(
        self, listener: socket.socket, context: ssl.SSLContext, made: Callable[[], "_Connection"]
    ) -> NoReturn:
        """Takes connections by TLS, until cancelled.

        A loop's own server says nothing of those whose handshake is not over, so that they could not be counted.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                # What is not accepted would be there again at once.
                await asyncio.sleep(_GLANCE if error.errno in _NO_ROOM else 0)
            else:
                made().shake_hands(accepted, context)

    def opened(self, connection: "_Connection") -> None:
        self._number += 1
        if self._number > self._most:
            next(iter(self._idle), connection).abort()
        self.idles(connection)

    def closed(self, connection: "_Connection") -> None:
        self._number -= 1
        self.works(connection)
        self.flows(connection)

    def idles(self, connection: "_Connection") -> None:
        self._idle.pop(connection, None)
        self._idle[connection] = time.monotonic()

    def works(self, connection: "_Connection") -> None:
        self._idle.pop(connection, None)

    def stalls(self, connection: "_Connection") -> None:
        self._stalled[connection] = time.monotonic()
        self._unsent += connection.unsent
        late = time.monotonic() - _PAUSE
        while self._unsent > MAX_UNSENT_BYTES and next(iter(self._stalled.values()), late) < late:
            next(iter(self._stalled)).abort()

    def flows(self, connection: "_Connection") -> None:
        if self._stalled.pop(connection, None):
            self._unsent -= connection.unsent


class _Flow(FlowControl):
    """uvicorn's own, which reads nothing more while requests wait that were read: each answer would let in more."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class _Connection(HttpToolsProtocol):
    """One of them. `unsent` is how many bytes waited when its client ceased to take them."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._connections = connections
        self._refusal = _MALFORMED
        self._head_bytes = 0
        self._unparsed = 0
        self._is_full = False
        self.unsent = 0
        self._at_work: RequestResponseCycle | None = None
        self._handshake: asyncio.Task[Any] | None = None

    def shake_hands(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Begins a connection by TLS, which counts from now on."""
        # By itself a handshake would have a minute.
        made = self.loop.connect_accepted_socket(
            lambda: self, accepted, ssl=context, ssl_handshake_timeout=self._connections.seconds
        )
        self._handshake = self.loop.create_task(made)
        self._handshake.add_done_callback(partial(self._hands_shaken, accepted))
        self._connections.opened(self)

    def _hands_shaken(self, accepted: socket.socket, handshake: asyncio.Task[Any]) -> None:
        if self._handshake:
            accepted.close()
            self._connections.closed(self)
        # A failure that nobody asks for would be logged.
        if not handshake.cancelled():
            handshake.exception()

    def abort(self) -> None:
        """Ends the connection at once, with whatever is on its way."""
        self._connections.works(self)
        self._connections.flows(self)
        if self._handshake:
            self._handshake.cancel()
            return
        # The kernel, too, shall forget what is on its way.
        if at := self.transport.get_extra_info("socket"):
            at.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def cut(self) -> None:
        """Ends the connection once what is on its way is sent; at once, where the client does not take it."""
        if self.flow.write_paused:
            self.abort()
        else:
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if self._handshake:
            self._handshake = None
            self._connections.idles(self)
        else:
            self._connections.opened(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Of several requests, uvicorn tells the last alone, which may not have begun.
        if self._at_work and not self._at_work.response_complete:
            self._at_work.disconnected = True
            self._at_work.message_event.set()
        self._connections.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._is_full:
            return
        self._unparsed += len(data)
        super().data_received(data)
        # The parser keeps a header to itself until it is whole.
        if self._unparsed > MAX_HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            self.send_400_response("")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_WAITING_REQUESTS:
            # Those are answered, the last with word that the connection closes: what is after it may be sent again.
            self._is_full = True
            self.cycle.keep_alive = False
            raise ValueError("too many requests wait")
        super().on_message_begin()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _HEADER_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        self._connections.works(self)
        self.scope["state"]["cut"] = self.cut
        if target := _ABSOLUTE.match(self.url):
            # The target stands for the Host header, if there is one (RFC 9112, section 3.2.2).
            self.headers[:] = [(b"host", target["host"]), *(each for each in self.headers if each[0] != b"host")]
            self.url = b"/" + target["rest"].removeprefix(b"/")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last or self.transport.is_closing():
            self._connections.idles(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unsent = self.transport.get_write_buffer_size()
        self._connections.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.flows(self)

    def send_400_response(self, msg: str) -> None:
        """Refuses what cannot be parsed, and closes."""
        if self._is_full:
            return
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.abort()
        elif not self.transport.is_closing():
            self.transport.write(_written(self._refusal))
            self.transport.close()
            self._connections.idles(self)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            # The parser stops, and what is refused is answered where it was fed.
            raise ValueError("the head is too large")


def _written(error: ConvgrpcError) -> bytes:
    body = envelope(error)
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[error.report.http] + head + body
