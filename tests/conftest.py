"""A real server in this process, on free ports, and clients for it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from convgrpc.service.server import Running
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
