"""Both clients, for a real server: one test for the two of them."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from convgrpc import AsyncClient, Client
from convgrpc.server.app import Running


class Waiting:
    """An AsyncClient whose coroutines are waited for, and whose iterators are read to their end, as lists."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._runner.run(_waited(method, arguments, named))

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


async def _waited(method: Callable[..., Any], arguments: Any, named: Any) -> Any:
    result = method(*arguments, **named)
    return await result if inspect.isawaitable(result) else [each async for each in result]


@pytest.fixture(params=[Client, Waiting], ids=["Client", "AsyncClient"])
def client_class(request: pytest.FixtureRequest) -> Any:
    """The class of either client; both are called in the same way."""
    return request.param


@pytest.fixture
def client(server: Running, client_class: Any) -> Iterator[Any]:
    """Either client of a real server."""
    with client_class(str(server.grpc)) as client:
        yield client
