"""A real server in this process, on free ports, and clients for it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import uvloop

from convgrpc.service.keys import new_key
from convgrpc.service.server import Running, open_store, running
from convgrpc.settings import Address, Settings
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub

START_TIMEOUT = 30
FREE_PORT = Address("127.0.0.1", 0)


@contextmanager
def served(settings: Settings) -> Iterator[Running]:
    """Runs a server on an event loop of its own, in a thread, while the context lasts."""
    started = threading.Event()
    addresses: list[Running] = []
    stopping: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with running(settings, linger=0) as server:
            addresses.append(server)
            started.set()
            await stop.wait()

    failures: list[Exception] = []

    def run() -> None:
        try:
            uvloop.run(serve())
        except Exception as failure:
            failures.append(failure)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(START_TIMEOUT)
    try:
        if failures:
            raise failures[0]
        yield addresses[0]
    finally:
        if stopping and not failures:
            stopping[0]()
        thread.join(START_TIMEOUT)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(db=str(tmp_path / "convgrpc.db"), grpc=FREE_PORT, http=FREE_PORT)


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with served(settings) as addresses:
        yield addresses


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.grpc)) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> ConversationsServiceStub:
    return ConversationsServiceStub(channel)


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{server.http}", timeout=30) as client:
        yield client


def make_key(settings: Settings, project: str, *, lifetime: float | None = None) -> str:
    """Makes a key for a project, as the command line does beside a running server."""
    key = new_key(project, "", time.time(), lifetime)

    async def store_key() -> None:
        store = await open_store(settings)
        try:
            await store.create_key(key.stored)
        finally:
            await store.close()

    asyncio.run(store_key())
    return key.text
