"""A real server in this process, on free ports, and clients for it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from convgrpc.server.app import Running, open_store
from convgrpc.server.auth import new_key
from convgrpc.settings import Address, Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub

FREE_PORT = Address("127.0.0.1", 0)


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
