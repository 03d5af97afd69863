"""A plugin of pytest: a server of its own for each test that asks for one, and a client for it.

pytest finds it where the package is installed. What it gives needs the extra `server`, of which nothing is imported
before a test asks for it. `-p no:convgrpc.testing` keeps it away.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from convgrpc.client.client import Client
    from convgrpc.server.app import Running
    from convgrpc.settings import Settings

_TIMEOUT = 30


class Server(NamedTuple):
    """Where a server is: for gRPC `HOST:PORT`, for REST a base URL that ends in `/v1`."""

    grpc: str
    url: str


@pytest.fixture
def convgrpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in this process, on free ports, with an empty database in a temporary folder."""
    from convgrpc.settings import Address, Settings

    free = Address("127.0.0.1", 0)
    db = tmp_path_factory.mktemp("convgrpc") / "convgrpc.db"
    with served(Settings(db=str(db), grpc=free, http=free)) as running:
        yield Server(str(running.grpc), f"http://{running.http}/v1")


@pytest.fixture
def convgrpc_client(convgrpc_server: Server) -> "Iterator[Client]":
    """A client of that server."""
    from convgrpc.client.client import Client

    with Client(convgrpc_server.grpc) as client:
        yield client


@contextmanager
def served(settings: "Settings") -> "Iterator[Running]":
    """Runs a server on an event loop of its own, in a thread, while the context lasts; gives its addresses.

    Raises ImportError, saying what to install, where the extra `server` is not.
    """
    try:
        import uvloop  # noqa: F401

        import convgrpc.server.app  # noqa: F401
    except ImportError as error:
        message = f"a server for tests needs '{error.name}': install it with pip install 'convgrpc[server]'"
        raise ImportError(message, name=error.name) from None
    serving = _Serving(settings)
    addresses = serving.started.result(_TIMEOUT)
    try:
        yield addresses
    finally:
        serving.end()


class _Serving:
    """A server in a thread, from its start until it is ended."""

    def __init__(self, settings: "Settings") -> None:
        self.started: Future[Running] = Future()
        self._settings = settings
        self._stop: Callable[[], object]
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="convgrpc", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import uvloop

        try:
            uvloop.run(self._serve())
        except Exception as failure:
            if self.started.done():
                self._failure = failure
            else:
                self.started.set_exception(failure)

    async def _serve(self) -> None:
        from convgrpc.server.app import running

        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        async with running(self._settings, drain_delay=0) as addresses:
            self.started.set_result(addresses)
            await stop.wait()

    def end(self) -> None:
        """Stops the server, and raises what made it fail since it was started."""
        self._stop()
        self._thread.join(_TIMEOUT)
        assert not self._thread.is_alive(), "the server does not stop"
        if self._failure:
            raise self._failure
