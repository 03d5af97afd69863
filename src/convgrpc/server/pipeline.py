"""The steps of every call, for all transports: decode, validate, handle, encode, and send if there are several answers.

The pipeline knows neither grpcio nor HTTP. A transport makes a `Call` of what it received, and has a `Channel` for
answers of several messages.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from convgrpc import ids
from convgrpc.contract.item_policy import HOSTED, ItemPolicy
from convgrpc.contract.methods import Method
from convgrpc.contract.stored import Answer
from convgrpc.contract.validator import validate
from convgrpc.handlers.batches import BatchHandler
from convgrpc.handlers.context import Context
from convgrpc.handlers.message_work import LARGE_REQUEST, MessageWork
from convgrpc.handlers.reply import Reply
from convgrpc.server.admission import Admitted
from convgrpc.server.call_log import CallRecord
from convgrpc.server.cancel_scope import CancelScope
from convgrpc.server.deadlines import DeadlineScheduler
from convgrpc.server.exchange import BatchedBidiStream

_MAX_REQUEST_ID_LENGTH = 128


Handler: TypeAlias = Callable[[Any, Context], Awaitable[Answer]]
StreamHandler: TypeAlias = Callable[[Any, Context], AsyncGenerator[Reply]]
BatchHandlerFactory: TypeAlias = Callable[[str], BatchHandler]
"""Begins a stream of requests, for a project."""


def bind_handlers(service: ServiceDescriptor, implementation: object) -> dict[str, Any]:
    """The handlers of a service's methods, by their gRPC paths: methods of the same names."""
    return {f"/{service.full_name}/{method.name}": getattr(implementation, method.name) for method in service.methods}


class Call(NamedTuple):
    """A call as a transport received it.

    `admitted` is the call's admission. `decode` makes the request message and raises `ConvgrpcError` where
    it cannot; `encode` makes the bytes of the answer, or of each `Reply` of several; `size` is that of the request in
    bytes; `timeout` is in seconds, and None when the caller set none.
    """

    method: Method
    admitted: Admitted
    decode: Callable[[], Message]
    encode: Callable[[Any], bytes]
    size: int
    timeout: float | None


class StreamCall(NamedTuple):
    """A call with a stream of requests: `decode` makes a message of each, and `encode` the bytes of each answer."""

    method: Method
    messages: AsyncGenerator[bytes]
    decode: Callable[[bytes], Message]
    encode: Callable[[Message], bytes]


class Channel(Protocol):
    """Sends the messages of an answer that has several to its caller."""

    takes_connection: bool
    """Whether nobody else can use the connection meanwhile."""

    def attended(self, scope: CancelScope) -> AbstractAsyncContextManager[None]:
        """Cancels the scope when the caller goes away, while the context lasts."""

    async def send(self, data: bytes) -> None:
        """Sends a message, once the caller has room for it. Raises `CallerGone`."""


class Pipeline:
    """Runs calls with the handlers of methods, by their gRPC paths.

    That is a `Handler`, a `StreamHandler` if the answer is a stream, or a `BatchHandlerFactory` if the requests are one
    too. Its methods run within `Failures`.
    """

    def __init__(
        self,
        handlers: Mapping[str, Any],
        work: MessageWork,
        *,
        max_timeout: float,
        transfer_timeout: float,
        policy: ItemPolicy = HOSTED,
    ) -> None:
        self._handlers = handlers
        self._work = work
        self._policy = policy
        self._max_timeout = max_timeout
        self._transfer_timeout = transfer_timeout
        self._deadlines = DeadlineScheduler()

    async def run(self, call: Call) -> bytes:
        """Answers a call, in the bytes of its transport. Raises `TimeoutError` after its deadline."""
        timeout = self._max_timeout if call.timeout is None else min(call.timeout, self._max_timeout)
        context = Context(call.admitted.project, time.monotonic() + timeout, call.size, call.admitted)
        with self._deadlines.within(timeout):
            reply = await self._handled(call, context)
            return await self._work.do(context.project, reply.ByteSize(), partial(call.encode, reply))

    async def stream(self, call: Call, channel: Channel, record: CallRecord) -> None:
        """Answers a call by several messages. Each is made once the one before it was sent."""
        admitted = call.admitted
        async with CancelScope() as scope, channel.attended(scope), aclosing(self._replies(call)) as replies:
            with (
                admitted.watching(scope, takes_connection=channel.takes_connection)
                if call.method.stream.endless
                else admitted.cancel_on_revoke(scope.cancel, may_finish=True)
            ):
                async for reply in replies:
                    await admitted.wait_for_room(len(reply), self._transfer_timeout)
                    await self._send(reply, admitted, channel, record)

    async def exchange(self, call: StreamCall, admitted: Admitted, channel: Channel, record: CallRecord) -> None:
        """Answers a stream of requests by another of answers, batch by batch."""
        handle: BatchHandlerFactory = self._handlers[call.method.path]
        batches = handle(admitted.project)

        def prepare(message: bytes) -> Any:
            return batches.prepare(self._request(partial(call.decode, message)))

        async def decode(message: bytes) -> Any:
            work = partial(prepare, message)
            return await self._work.do(admitted.project, len(message), work, large=LARGE_REQUEST)

        exchange = BatchedBidiStream(batches, admitted, call.messages, decode, timeout=self._max_timeout)
        async with aclosing(exchange.replies()) as replies:
            async for reply in replies:
                data = await self._work.do(admitted.project, reply.ByteSize(), partial(call.encode, reply))
                await self._send(data, admitted, channel, record)

    async def _send(self, data: bytes, admitted: Admitted, channel: Channel, record: CallRecord) -> None:
        with admitted.response_bytes(data):
            await channel.send(data)
        record.sent()

    async def _replies(self, call: Call) -> AsyncGenerator[bytes]:
        context = Context(call.admitted.project, math.inf, call.size, call.admitted)
        async with asyncio.timeout(self._max_timeout):
            request = await self._decoded(call)
        handle: StreamHandler = self._handlers[call.method.path]
        async with aclosing(handle(request, context)) as replies:
            async for reply in replies:
                yield await self._work.do(context.project, len(reply.data), partial(call.encode, reply))

    async def _handled(self, call: Call, context: Context) -> Answer:
        request = await self._decoded(call)
        handle: Handler = self._handlers[call.method.path]
        return await handle(request, context)

    async def _decoded(self, call: Call) -> Message:
        work = partial(self._request, call.decode)
        return await self._work.do(call.admitted.project, call.size, work, large=LARGE_REQUEST)

    def _request(self, decode: Callable[[], Message]) -> Message:
        request = decode()
        validate(request, self._policy)
        return request


def request_id(sent: str | None) -> str:
    """The id of a request: the one its caller sent, where it can stand in a header and a log line, or a new one."""
    if sent and len(sent) <= _MAX_REQUEST_ID_LENGTH and sent.isascii() and sent.isprintable():
        return sent
    return ids.request_id()
