"""gRPC's own services, which need no key: health and reflection."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_async
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from convgrpc import errors
from convgrpc.service.endings import Ending


class Bounds(NamedTuple):
    """The most open streams of a connection, of an address, and of all."""

    connection: int
    address: int
    server: int


HEALTH_WATCHES = Bounds(connection=8, address=64, server=128)
REFLECTION_STREAMS = Bounds(connection=4, address=16, server=32)

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Keyless:
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
    """The open streams of a service that needs no key. Past a bound, an older stream ends for each new one."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        # The streams and their peers, the oldest first.
        self._peers: dict[Ending, str] = {}

    @contextmanager
    def opened(self, peer: str) -> Iterator[Ending]:
        """Counts a stream while the context lasts. A newer stream may end it with `_Displaced`.

        `peer` is the address of the caller, a colon and a port.
        """
        ending = Ending()
        self._peers[ending] = peer
        self._make_room(self._bounds.connection, lambda other: other == peer)
        self._make_room(self._bounds.address, lambda other: _address(other) == _address(peer))
        # Of all addresses, the one with the most streams loses one.
        addresses = Counter(map(_address, self._peers.values()))
        (busiest, number), *_ = addresses.most_common(1)
        others = len(self._peers) - number
        self._make_room(self._bounds.server - others, lambda other: _address(other) == busiest)
        try:
            yield ending
        finally:
            self._peers.pop(ending, None)

    def _make_room(self, most: int, is_counted: Callable[[str], bool]) -> None:
        """Ends the oldest of the streams that are counted, so that no more than `most` are left."""
        counted = [ending for ending, peer in self._peers.items() if is_counted(peer)]
        for ending in counted[: max(0, len(counted) - most)]:
            del self._peers[ending]
            ending.end(_Displaced())


def _address(peer: str) -> str:
    return peer.rpartition(":")[0]


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = services
        self._streams = _Streams(HEALTH_WATCHES)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        try:
            with self._streams.opened(context.peer()) as ending:
                async with ending:
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

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        try:
            with self._streams.opened(context.peer()) as ending:
                async with ending:
                    async for answer in super().ServerReflectionInfo(requests, context):
                        yield answer
        except _Displaced:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, errors.overloaded().message)


def _add_reflection(server: grpc.aio.Server, services: list[str]) -> None:
    """Adds reflection under both its names: the messages are the same, and tools ask for either."""
    pool = descriptor_pool.Default()
    _describe_newer_reflection(pool)
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


def _describe_newer_reflection(pool: descriptor_pool.DescriptorPool) -> None:
    """Adds the descriptor of the newer reflection, which grpcio-reflection does not have: only its package differs."""
    with suppress(KeyError):
        pool.FindServiceByName(_REFLECTION_V1)
        return
    older = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(older)
    text = text_format.MessageToString(older).replace("grpc_reflection/v1alpha", "grpc/reflection/v1")
    newer = text_format.Parse(text.replace("v1alpha", "v1"), descriptor_pb2.FileDescriptorProto())
    pool.AddSerializedFile(newer.SerializeToString())


class _Symbols:
    """The descriptors of protobuf's pool, which by itself does not find methods by name."""

    _POOL = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._POOL, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return self._POOL.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._POOL.FindMethodByName(symbol).containing_service.file
