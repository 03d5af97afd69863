"""The gRPC front: raw bytes in and out of the chain, health, and reflection.

Handlers are registered without serializers, so that bytes which are no message are refused by the chain like any other
fault, rather than as UNKNOWN by grpcio.
"""

from collections.abc import Iterable
from functools import partial
from math import ceil
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_async
from grpc_reflection.v1alpha import reflection, reflection_pb2

from convgrpc.contract import faults
from convgrpc.contract.methods import Method
from convgrpc.errors import ConvgrpcError, to_status
from convgrpc.service.admission import Admission
from convgrpc.service.calls import CallNote
from convgrpc.service.chain import Call, Chain, request_id
from convgrpc.service.metrics import Metrics

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """Serves methods over gRPC, from start to stop."""

    def __init__(
        self,
        admission: Admission,
        chain: Chain,
        metrics: Metrics,
        methods: Iterable[Method],
        *,
        max_message_bytes: int,
        with_reflection: bool,
    ) -> None:
        self._admission = admission
        self._chain = chain
        self._metrics = metrics
        self._server = grpc.aio.server(options=_options(max_message_bytes))
        by_service: dict[str, dict[str, Any]] = {}
        for method in methods:
            handler: Any = grpc.unary_unary_rpc_method_handler(partial(self._call, method))
            by_service.setdefault(method.service, {})[method.name] = handler
        self._services = list(by_service)
        for service, handlers in by_service.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if with_reflection:
            _add_reflection(self._server, [*self._services, health.SERVICE_NAME])

    def bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Takes an address, `HOST:PORT`, and returns the port. Raises RuntimeError when it is taken."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        await self._server.start()

    async def tell_health(self, is_serving: bool) -> None:
        """Tells those who ask for the health, of the server or of a service, until it is drained."""
        serving = health_pb2.HealthCheckResponse
        for service in ["", *self._services]:
            await self._health.set(service, serving.SERVING if is_serving else serving.NOT_SERVING)

    async def drain(self) -> None:
        """Tells those who watch the health that this server is about to stop."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Refuses new calls, and ends those in flight that are not done within `grace` seconds."""
        await self._server.stop(grace)

    async def _call(self, method: Method, data: bytes, context: Any) -> bytes:
        metadata = context.invocation_metadata() or ()
        sent = next((value for key, value in metadata if key == "x-request-id"), None)
        identity = request_id(sent if isinstance(sent, str) else None)
        authorization = [value for key, value in metadata if key == "authorization"]
        decode = partial(_decode, method, data)
        with CallNote(self._metrics, identity, method) as note:
            try:
                async with self._admission.admitted(authorization) as note.project:
                    call = Call(
                        method, note.project, decode, _serialized, len(data), context.time_remaining(), identity
                    )
                    reply = await self._chain.run(call)
            except ConvgrpcError as error:
                status, code = to_status(error, identity), _CODES[error.report.grpc]
                note.refused(error)
                note.status = code.name
                await context.abort(code, status.message, _trailers(error, status, identity))
                raise
            note.status = "OK"
            context.set_trailing_metadata((("x-request-id", identity),))
            return reply


def _trailers(error: ConvgrpcError, status: Status, identity: str) -> tuple[tuple[str, str | bytes], ...]:
    # By the hint, gRPC's own retries wait as long.
    hint = () if error.retry_after is None else (("grpc-retry-pushback-ms", str(ceil(error.retry_after * 1000))),)
    return ("x-request-id", identity), ("grpc-status-details-bin", status.SerializeToString()), *hint


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        # Two servers would otherwise share a port without a word, and clients reach either.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Clients behind load balancers ping every 10 seconds or so; by default more than one ping in 5 minutes without
        # data ends the connection with ENHANCE_YOUR_CALM.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _add_reflection(server: grpc.aio.Server, services: list[str]) -> None:
    """Adds reflection under both its names: the messages are the same, and tools ask for either.

    Only the older is listed, because tools then ask for its descriptor, and there is none of the newer here.
    """
    names, symbols = [*services, reflection.SERVICE_NAME], _Symbols()
    reflection.enable_server_reflection(names, server, symbols)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection_async.ReflectionServicer(names, symbols).ServerReflectionInfo,
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


def _decode(method: Method, data: bytes) -> Message:
    try:
        return method.request.FromString(data)
    except DecodeError:
        raise faults.invalid_message(method.request.DESCRIPTOR.full_name) from None


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
