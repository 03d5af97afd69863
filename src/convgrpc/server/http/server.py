"""The HTTP server under the REST front: uvicorn with connections of our own."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from convgrpc.server.http.connections import Bounds, Connections
from convgrpc.server.listener import BACKLOG
from convgrpc.server.tls import Certificates

FLUSH_SECONDS = 0.5
"""Seconds that the answers of the last calls have to get out; streams such as those of health end after that."""


class _HttpServer(uvicorn.Server):
    """Accepts by `Connections`, and leaves signals and the end to the app."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections
        self._accepting: list[asyncio.Task[NoReturn]] = []
        self.servers = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the process, which stops both fronts together."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends connections soon that do not end by themselves, as those by TLS whose other end says nothing."""
        for each in self._accepting:
            each.cancel()
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._abort_idle)
        await super().shutdown(sockets)

    def _abort_idle(self) -> None:
        for connection in list(self.server_state.connections):
            assert isinstance(connection, HttpToolsProtocol)
            # A request that is at work is cancelled later, and answered.
            if connection.cycle is None or connection.cycle.response_complete:
                connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens."""
        made = partial(self._connections, config=self.config, server_state=self.server_state, app_state={})
        loop = asyncio.get_running_loop()
        if context := self.config.ssl:
            accepting = [self._connections.accept(each, context, made) for each in sockets or []]
            self._accepting = [loop.create_task(each) for each in accepting]
        else:
            self.servers = [await loop.create_server(made, sock=each, backlog=BACKLOG) for each in sockets or []]
        await self.lifespan.startup()
        self.started = True

    async def main_loop(self) -> None:
        watching = asyncio.create_task(self._connections.watch())
        try:
            await super().main_loop()
        finally:
            watching.cancel()


def http_server(application: Any, bounds: Bounds, certificates: Certificates | None) -> uvicorn.Server:
    """Makes a server of an ASGI application, by TLS if there are certificates."""
    connections = Connections(bounds)
    config = uvicorn.Config(
        application,
        # It asks for a class, and only ever calls it.
        http=cast(type[asyncio.Protocol], connections),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        ssl_context_factory=(lambda config, default: certificates.for_rest()) if certificates else None,
    )
    return _HttpServer(config, connections)
