"""The gRPC front: raw bytes in and out of the pipeline.

Handlers are registered without serializers. So the pipeline refuses bytes that are no message, like any other fault,
and not grpcio, which would answer UNKNOWN.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from math import ceil
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from convgrpc import errors
from convgrpc.contract import faults, wire
from convgrpc.contract.methods import Method
from convgrpc.contract.stored import Answer
from convgrpc.errors import ConvgrpcError, to_status
from convgrpc.handlers.message_work import LARGE
from convgrpc.handlers.reply import Reply
from convgrpc.server.admission import Admission, Admitted
from convgrpc.server.call_log import CallRecord
from convgrpc.server.cancel_scope import CancelScope
from convgrpc.server.deadlines import Deadline, DeadlineScheduler
from convgrpc.server.failures import CallerGone, Failures
from convgrpc.server.grpc.health_reflection import StandardServices
from convgrpc.server.listener import milliseconds
from convgrpc.server.metrics import Metrics
from convgrpc.server.pipeline import Call, Pipeline, StreamCall, request_id

MAX_CALLS_ON_CONNECTION = 100
"""How many calls may be open on one connection: a client lets more of them wait."""
MAX_WAITING = 256
"""How many messages may be on their way, before the one goes that has been so the longest, for more than a moment."""
MAX_METADATA_BYTES = 16 << 10
_MAX_OPTION = (1 << 31) - 1
_PENDING = 4
"""How many times as many calls may wait to be looked at as may be at work."""
_MOMENT = 1.0
_AGE_MS = 600_000
_AGE_GRACE = 10.0
_PING_MS = 60_000
_PING_TIMEOUT_MS = 20_000

_Answer: TypeAlias = Callable[[Method, Admitted, Any, CallRecord], Awaitable[bytes | None]]
"""Answers a call: returns the message, or None if it has sent several."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """Serves methods over gRPC, from start to stop; and what is `keyless`."""

    def __init__(
        self,
        admission: Admission,
        pipeline: Pipeline,
        metrics: Metrics,
        methods: Iterable[Method],
        *,
        max_message_bytes: int,
        max_calls: int,
        max_connections: int,
        transfer_timeout: float,
        request_timeout: float,
        with_reflection: bool,
    ) -> None:
        self._admission = admission
        self._pipeline = pipeline
        self._metrics = metrics
        self._transfer_timeout = transfer_timeout
        # The calls whose messages are on their way, the one that has waited longest first.
        self._waiting: dict[Deadline, None] = {}
        self._clock = DeadlineScheduler()
        # Without interceptors, which every call would have to pass.
        self._server = grpc.aio.server(
            options=_options(max_message_bytes, max_calls, max_connections, transfer_timeout, request_timeout)
        )
        by_service: dict[str, dict[str, Any]] = {}
        for method in methods:
            by_service.setdefault(method.service, {})[method.name] = self._handler(method)
        for service, handlers in by_service.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.keyless = StandardServices(self._server, list(by_service), with_reflection=with_reflection)

    def bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Takes an address, `HOST:PORT`, and returns the port. Raises RuntimeError when it is taken."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Refuses new calls, and ends those in flight that are not done within `grace` seconds."""
        await self._server.stop(grace)

    def _handler(self, method: Method) -> Any:
        # As one of a stream, a call is here before its message is.
        if method.returns_stream:
            answer = self._exchange if method.takes_stream else self._stream
            return grpc.stream_stream_rpc_method_handler(partial(self._serve, method, answer))
        return grpc.stream_unary_rpc_method_handler(partial(self._serve, method, self._answer))

    async def _serve(self, method: Method, answer: _Answer, requests: object, context: Any) -> bytes | None:
        head = _Head.of(context.invocation_metadata() or ())
        with CallRecord(self._metrics, head.request_id, method) as record, _ENDS_WITH_CALLER:
            try:
                with Failures(record), await self._admission.enter(head.authorization) as admitted:
                    record.project = admitted.project
                    reply = await answer(method, admitted, context, record)
            except ConvgrpcError as error:
                await _abort(context, error, record)
            record.status = "OK"
            context.set_trailing_metadata((("x-request-id", head.request_id),))
            return reply

    async def _stream(self, method: Method, admitted: Admitted, context: Any, record: CallRecord) -> None:
        call = await self._received(method, admitted, context, record, _data)
        await self._pipeline.stream(call, _StreamChannel(context, admitted, self._transfer_timeout), record)

    async def _exchange(self, method: Method, admitted: Admitted, context: Any, record: CallRecord) -> None:
        messages = self._messages(admitted, context)
        call = StreamCall(method, messages, partial(_decode, method), _serialized)
        channel = _StreamChannel(context, admitted, self._transfer_timeout)
        await self._pipeline.exchange(call, admitted, channel, record)

    async def _messages(self, admitted: Admitted, context: Any) -> AsyncGenerator[bytes]:
        """The messages of a stream of requests. The next one must come as soon as the first."""
        data = await self._read(context)
        admitted.acquire_slot()
        while data is not grpc.aio.EOF:
            yield data
            try:
                async with asyncio.timeout(self._transfer_timeout):
                    with _REACHES_CALLER:
                        data = await context.read()
            except TimeoutError:
                raise errors.stream_idle(self._transfer_timeout) from None

    async def _answer(self, method: Method, admitted: Admitted, context: Any, record: CallRecord) -> bytes:
        reply = await self._pipeline.run(await self._received(method, admitted, context, record, _serialized))
        if len(reply) > LARGE:
            self._keep(reply, admitted, may_refuse=method.verb == "GET")
        return reply

    async def _received(
        self, method: Method, admitted: Admitted, context: Any, record: CallRecord, encode: Callable[[Any], bytes]
    ) -> Call:
        """A call whose message is there."""
        data = await self._message(method, context)
        admitted.reserve_request_bytes(len(data))
        admitted.acquire_slot()
        decode = partial(_decode, method, data)
        return Call(method, admitted, decode, encode, len(data), context.time_remaining())

    def _keep(self, reply: bytes, admitted: Admitted, *, may_refuse: bool) -> None:
        """Has an answer take room until the client has taken it, for which there is a time."""
        task, leave = _current_task(), admitted.keep_response_bytes(len(reply), may_refuse=may_refuse)
        ending = asyncio.get_running_loop().call_later(self._transfer_timeout, task.cancel)

        def over(task: asyncio.Task[Any]) -> None:
            ending.cancel()
            leave()

        task.add_done_callback(over)

    async def _message(self, method: Method, context: Any) -> bytes:
        """What the caller sent."""
        data = await self._read(context)
        if data is grpc.aio.EOF:
            raise faults.invalid_message(method.request.DESCRIPTOR.full_name)
        return bytes(data)

    async def _read(self, context: Any) -> Any:
        """What the caller sent first, if anything. gRPC itself would wait for the rest of it for ever."""
        try:
            with self._clock.within(self._transfer_timeout) as deadline:
                self._make_room()
                self._waiting[deadline] = None
                try:
                    with _REACHES_CALLER:
                        return await context.read()
                finally:
                    self._waiting.pop(deadline, None)
        except TimeoutError:
            raise errors.deadline_exceeded() from None

    def _make_room(self) -> None:
        """Lets time run out, where too many messages are on their way, for the one that has been so the longest."""
        if len(self._waiting) < MAX_WAITING:
            return
        first = next(iter(self._waiting))
        if first.at < time.monotonic() + self._transfer_timeout - _MOMENT:
            del self._waiting[first]
            first.expire()


class _StreamChannel:
    """Sends the messages of a stream. The caller has a time to take each."""

    takes_connection = False

    def __init__(self, context: Any, admitted: Admitted, timeout: float) -> None:
        self._context = context
        self._admitted = admitted
        self._timeout = timeout
        self._shield: Callable[[], AbstractContextManager[None]] = nullcontext

    @asynccontextmanager
    async def attended(self, scope: CancelScope) -> AsyncIterator[None]:
        """Cancels nothing: grpcio cancels the handler."""
        # grpcio cannot break off a write.
        self._shield = scope.shield
        yield

    async def send(self, data: bytes) -> None:
        """Sends a message. Raises `CallerGone`, and `TooSlow` after the time.

        gRPC forgets nothing that it was given to send, not even when the call is ended: until it is taken, or the
        connection is too old, it takes room here, but after that time no part in what is done at once.
        """
        with self._shield():
            began = time.monotonic()
            resting = asyncio.get_running_loop().call_later(self._timeout, self._admitted.release_slot)
            try:
                with _REACHES_CALLER:
                    await self._context.write(data)
            finally:
                resting.cancel()
            if time.monotonic() - began > self._timeout:
                raise errors.too_slow(self._timeout)


class _Head(NamedTuple):
    """What a call says of itself before its message."""

    request_id: str
    authorization: list[str]

    @classmethod
    def of(cls, metadata: Iterable[tuple[str, str | bytes]]) -> "_Head":
        sent = next((value for key, value in metadata if key == "x-request-id"), None)
        authorization = [value for key, value in metadata if key == "authorization" and isinstance(value, str)]
        return cls(request_id(sent if isinstance(sent, str) else None), authorization)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task


async def _abort(context: Any, error: ConvgrpcError, record: CallRecord) -> NoReturn:
    status, code = to_status(error, record.request_id), _CODES[error.report.grpc]
    # grpcio keeps the error in a reference cycle. With it, its traceback would keep what the handler had read.
    error.__traceback__ = error.__context__ = None
    try:
        with _REACHES_CALLER:
            await context.abort(code, status.message, _trailers(error, status, record.request_id))
    except grpc.aio.AbortError:
        # grpcio raises it once the refusal is sent.
        record.refused(error)
        record.status = code.name
        raise
    raise error


class _ReachesCaller:
    """Raises `CallerGone` for the errors of grpcio that mean that the call is over.

    grpcio fails a read, a write or an abort with `ExecuteBatchError`, an `InternalError` of its own, when the client
    has cancelled the call. It fails them with another `BaseError` when the server has stopped.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.AbortError | grpc.aio.UsageError):
            raise CallerGone from error


class _EndsWithCaller:
    """Ends a handler whose caller is gone as grpcio ends it when it notices first: with `CancelledError`."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, CallerGone):
            raise asyncio.CancelledError from error


_REACHES_CALLER = _ReachesCaller()
_ENDS_WITH_CALLER = _EndsWithCaller()


def _trailers(error: ConvgrpcError, status: Status, identity: str) -> tuple[tuple[str, str | bytes], ...]:
    # By the hint, gRPC's own retries wait as long.
    hint = () if error.retry_after is None else (("grpc-retry-pushback-ms", str(ceil(error.retry_after * 1000))),)
    return ("x-request-id", identity), ("grpc-status-details-bin", status.SerializeToString()), *hint


def _options(
    max_message_bytes: int, max_calls: int, max_connections: int, transfer_timeout: float, request_timeout: float
) -> list[tuple[str, int]]:
    return [
        # Two servers would otherwise share a port without a word, and clients reach either.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Clients behind load balancers ping every 10 seconds or so; by default more than one ping in 5 minutes without
        # data ends the connection with ENHANCE_YOUR_CALM.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", MAX_CALLS_ON_CONNECTION),
        # It refuses calls for which there is room, as long as others before them are only being cleared away: a client
        # that has more than a connection takes would see some fail. Calls that are taken back at once wait as all do,
        # and no more of them than may be pending.
        ("grpc.http.overload_protection", 0),
        # gRPC ends what waits to be looked at beyond this, with CANCELLED: some of it, and past the second bound all.
        # That costs about a fifth of a call; in Python a refusal costs nearly as much as one, and queues as long. So
        # some dozens of full connections rather wait than be refused.
        ("grpc.server.max_pending_requests", min(_PENDING * max_calls, _MAX_OPTION)),
        ("grpc.server.max_pending_requests_hard_limit", min(2 * _PENDING * max_calls, _MAX_OPTION)),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", milliseconds(transfer_timeout)),
        # Who calls nothing makes room for others; gRPC's clients connect anew with their next call.
        ("grpc.max_connection_idle_ms", milliseconds(2 * transfer_timeout)),
        # The last resort against clients that take nothing of their answers.
        ("grpc.max_connection_age_ms", _AGE_MS),
        # A call may last this long: until its message is there, until it is done, and until its answer is taken.
        ("grpc.max_connection_age_grace_ms", milliseconds(2 * transfer_timeout + request_timeout + _AGE_GRACE)),
        # Half-open connections: whoever does not answer a ping is gone.
        ("grpc.keepalive_time_ms", _PING_MS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    ]


def _decode(method: Method, data: bytes) -> Message:
    if len(data) > LARGE:
        wire.check_size(data, method.request)
    try:
        return method.request.FromString(data)
    except DecodeError:
        raise faults.invalid_message(method.request.DESCRIPTOR.full_name) from None


def _serialized(answer: Answer) -> bytes:
    return answer.SerializeToString()


def _data(reply: Reply) -> bytes:
    return reply.data
