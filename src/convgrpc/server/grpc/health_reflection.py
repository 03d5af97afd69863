"""gRPC's own services, which need no key: health and reflection."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_async
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from convgrpc import errors
from convgrpc.server.cancel_scope import CancelScope


class Bounds(NamedTuple):
    """The most open streams of a connection, of an address, and of all."""

    connection: int
    address: int
    server: int


HEALTH_WATCHES = Bounds(connection=8, address=64, server=128)
REFLECTION_STREAMS = Bounds(connection=4, address=16, server=32)

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

T = TypeVar("T")


class StandardServices:
    """Serves the health of a server and of its services by their names, and optionally their reflection."""

    def __init__(self, server: grpc.aio.Server, services: Sequence[str], *, with_reflection: bool) -> None:
        self._services = ["", *services]
        self._health = _Health(self._services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if with_reflection:
            _add_reflection(server, [*services, health.SERVICE_NAME])

    async def tell_health(self, is_serving: bool) -> None:
        """Sets the health that is served, until `drain`."""
        serving = health_pb2.HealthCheckResponse
        for service in self._services:
            await self._health.set(service, serving.SERVING if is_serving else serving.NOT_SERVING)

    async def drain(self) -> None:
        """Tells watchers that the server is about to stop."""
        await self._health.enter_graceful_shutdown()


class _Displaced(Exception):
    """A newer stream took the place of this one."""


class _Streams:
    """The streams of a service that needs no key. Past a bound, an older stream ends for each new one.

    gRPC keeps what it sends until the client takes it, also after the stream has ended. So a stream takes room until
    its call is over. Where twice as many streams as a bound allows take room, new ones are refused.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        # The peers of the streams that can be displaced, and of the calls that are not over, the oldest first.
        self._open: dict[CancelScope, str] = {}
        self._calls: dict[asyncio.Task[Any], str] = {}

    @asynccontextmanager
    async def opened(self, peer: str) -> AsyncIterator[None]:
        """Counts a stream while the context lasts. Raises `_Displaced` when the stream has to end.

        `peer` is the address of the caller, a colon and a port.
        """
        if self._is_full(peer):
            raise _Displaced
        task = asyncio.current_task()
        assert task
        self._calls[task] = peer
        task.add_done_callback(self._calls.pop)
        cancel_scope = CancelScope()
        self._open[cancel_scope] = peer
        self._make_room(peer)
        try:
            async with cancel_scope:
                yield
        finally:
            self._open.pop(cancel_scope, None)

    def _is_full(self, peer: str) -> bool:
        groups = _groups(self._calls.items(), peer)
        return any(len(calls) >= 2 * bound for calls, bound in zip(groups, self._bounds, strict=True))

    def _make_room(self, peer: str) -> None:
        """Ends a stream past each bound: the oldest of the busiest connection of the busiest address."""
        for position, bound in enumerate(self._bounds):
            streams = _groups(self._open.items(), peer)[position]
            if len(streams) > bound:
                cancel_scope = _oldest_of_busiest(streams)
                del self._open[cancel_scope]
                cancel_scope.cancel(_Displaced())


_Owned: TypeAlias = list[tuple[T, str]]
"""Streams or calls, each with its peer, the oldest first."""


def _groups(owned: Iterable[tuple[T, str]], peer: str) -> tuple[_Owned[T], _Owned[T], _Owned[T]]:
    """Returns those of the connection of `peer`, those of its address, and all."""
    everything = list(owned)
    of_address = [each for each in everything if _address(each[1]) == _address(peer)]
    return [each for each in of_address if each[1] == peer], of_address, everything


def _oldest_of_busiest(streams: _Owned[T]) -> T:
    address = _most_common(_address(peer) for _, peer in streams)
    connection = _most_common(peer for _, peer in streams if _address(peer) == address)
    return next(stream for stream, peer in streams if peer == connection)


def _most_common(names: Iterable[str]) -> str:
    """Returns the most common name. Of equally common ones, it is the first."""
    return Counter(names).most_common(1)[0][0]


def _address(peer: str) -> str:
    return peer.rpartition(":")[0]


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = services
        self._streams = _Streams(HEALTH_WATCHES)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        await _send_head(context)
        try:
            async with self._streams.opened(context.peer()):
                await super().Watch(request, context)
        except _Displaced:
            # By the protocol of health checks, a client then assumes that the server is healthy.
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Too many health watches are open.")

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> health_pb2.HealthListResponse:
        statuses = {
            service: await self.Check(health_pb2.HealthCheckRequest(service=service), context)
            for service in self._services
        }
        return health_pb2.HealthListResponse(statuses=statuses)


class _Reflection(reflection_async.ReflectionServicer):  # type: ignore[misc]
    def __init__(self, services: list[str]) -> None:
        super().__init__(services, _Symbols())
        self._streams = _Streams(REFLECTION_STREAMS)

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> None:
        """Answers requests. A generator could not end with a status while grpcio sends what it yielded."""
        await _send_head(context)
        try:
            async with self._streams.opened(context.peer()):
                async for answer in super().ServerReflectionInfo(requests, context):
                    await context.write(answer)
        except _Displaced:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, errors.overloaded("streams of reflection").message)


async def _send_head(context: Any) -> None:
    """Sends the initial metadata. grpcio would send it twice, and fail, if a stream is displaced in its first write."""
    await context.send_initial_metadata(())


def _add_reflection(server: grpc.aio.Server, services: list[str]) -> None:
    """Adds reflection under both its names: the messages are the same, and tools ask for either."""
    servicer = _Reflection([*services, _REFLECTION_V1, reflection.SERVICE_NAME])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


def _newer_reflection() -> descriptor_pool.DescriptorPool:
    """Returns a pool with the descriptor of the newer reflection, which grpcio-reflection does not have.

    Only its package differs. The default pool must not have it: other packages, such as grpclib, add theirs there.
    """
    older = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(older)
    text = text_format.MessageToString(older).replace("grpc_reflection/v1alpha", "grpc/reflection/v1")
    newer = text_format.Parse(text.replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(newer.SerializeToString())
    return pool


class _Symbols:
    """The descriptors of protobuf's default pool and of the newer reflection. Methods are found by name, too."""

    def __init__(self) -> None:
        self._default = descriptor_pool.Default()
        self._newer = _newer_reflection()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._default, name)

    def FindFileByName(self, name: str) -> FileDescriptor:
        try:
            return self._default.FindFileByName(name)
        except KeyError:
            return self._newer.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        for pool in (self._default, self._newer):
            with suppress(KeyError):
                return pool.FindFileContainingSymbol(symbol)
            with suppress(KeyError):
                return pool.FindMethodByName(symbol).containing_service.file
        raise KeyError(symbol)
