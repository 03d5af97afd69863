"""The services that gRPC brings along, which need no key: health and reflection, and no others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_async
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from convgrpc import errors

MAX_STREAMS = 128
"""How many of their calls there may be that last as long as their callers like."""

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Keyless:
    """Health, of a server and of its services by their names, and reflection of these, if wanted."""

    def __init__(self, server: grpc.aio.Server, services: Sequence[str], *, with_reflection: bool) -> None:
        self._services = ["", *services]
        streams = _Streams()
        self._health = _Health(streams)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if with_reflection:
            _add_reflection(server, [*services, health.SERVICE_NAME], streams)

    async def tell_health(self, is_serving: bool) -> None:
        """Tells those who ask for the health until it is drained."""
        serving = health_pb2.HealthCheckResponse
        for service in self._services:
            await self._health.set(service, serving.SERVING if is_serving else serving.NOT_SERVING)

    async def drain(self) -> None:
        """Tells those who watch the health that the server is about to stop."""
        await self._health.enter_graceful_shutdown()


class _Streams:
    """Bounds the calls that last."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def enter(self, context: Any) -> None:
        """Counts a call until it ends, or ends it at once."""
        if len(self._tasks) >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, errors.overloaded().message)
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    def __init__(self, streams: _Streams) -> None:
        super().__init__()
        self._streams = streams

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        await self._streams.enter(context)
        await super().Watch(request, context)


class _Reflection(reflection_async.ReflectionServicer):  # type: ignore[misc]
    def __init__(self, services: list[str], streams: _Streams) -> None:
        super().__init__(services, _Symbols())
        self._streams = streams

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await self._streams.enter(context)
        async for answer in super().ServerReflectionInfo(requests, context):
            yield answer


def _add_reflection(server: grpc.aio.Server, services: list[str], streams: _Streams) -> None:
    """Adds reflection under both its names: the messages are the same, and tools ask for either.

    Only the older is listed, because tools then ask for its descriptor, and there is none of the newer here.
    """
    servicer = _Reflection([*services, reflection.SERVICE_NAME], streams)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


class _Symbols:
    """The descriptors that tools ask for: those of protobuf's pool, which by itself does not find methods by name."""

    _POOL = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._POOL, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return self._POOL.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._POOL.FindMethodByName(symbol).containing_service.file
