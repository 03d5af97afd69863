"""The chain that every call passes, whichever transport it came by: decode, validate, handle, encode, and make of every
fault a `ConvgrpcError`.

It knows neither grpcio nor HTTP. A transport makes a `Call` of what it received, runs it, and sends what it returns or
raises.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from convgrpc import errors, ids
from convgrpc.contract.item_policy import HOSTED, ItemPolicy
from convgrpc.contract.methods import Method
from convgrpc.contract.stored import Answer
from convgrpc.contract.validator import validate
from convgrpc.handlers.batches import BatchHandler
from convgrpc.handlers.context import Context
from convgrpc.handlers.message_work import MessageWork
from convgrpc.handlers.reply import Reply
from convgrpc.server.admission import Admitted
from convgrpc.server.deadlines import DeadlineScheduler
from convgrpc.server.exchange import BatchedBidiStream

_log = logging.getLogger(__name__)

_MAX_REQUEST_ID_LENGTH = 128

R = TypeVar("R")


class CallerGone(Exception):
    """A failure of a transport to reach the caller, who has cancelled the call or lost the connection."""


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
    request_id: str


class StreamCall(NamedTuple):
    """A call with a stream of requests: `decode` makes a message of each, and `encode` the bytes of each answer."""

    method: Method
    messages: AsyncGenerator[bytes]
    decode: Callable[[bytes], Message]
    encode: Callable[[Message], bytes]
    request_id: str


class Pipeline:
    """Runs calls with the handlers of methods, by their gRPC paths: a `Handler`; a `StreamHandler` where the answer is
    a stream, or a `BatchHandlerFactory` where the requests are one too.
    """

    def __init__(
        self, bind_handlers: Mapping[str, Any], work: MessageWork, *, max_timeout: float, policy: ItemPolicy = HOSTED
    ) -> None:
        self._handlers = bind_handlers
        self._work = work
        self._policy = policy
        self._max_timeout = max_timeout
        self._clock = DeadlineScheduler()

    async def run(self, call: Call) -> bytes:
        """Answers a call, in the bytes of its transport. Raises `ConvgrpcError` and nothing else."""
        timeout = self._max_timeout if call.timeout is None else min(call.timeout, self._max_timeout)
        context = Context(call.admitted.project, time.monotonic() + timeout, call.size, call.admitted)
        try:
            with self._clock.within(timeout):
                reply = await self._handled(call, context)
                return await self._work.do(context.project, reply.ByteSize(), partial(call.encode, reply))
        except TimeoutError:
            raise errors.deadline_exceeded() from None
        except errors.ConvgrpcError:
            raise
        except Exception:
            _log.exception("unexpected error in %s, request %s", call.method.path, call.request_id)
            raise errors.internal_error() from None

    async def stream(self, call: Call) -> AsyncGenerator[bytes]:
        """Answers a call by several messages, each as soon as the one before it was taken, for as long as that may
        take.

        Whoever does not take all of them must close the generator. Raises `ConvgrpcError` and nothing else.
        """
        context = Context(call.admitted.project, math.inf, call.size, call.admitted)
        with _faults(call.method, call.request_id):
            async with asyncio.timeout(self._max_timeout):
                work = partial(self._request, call.decode)
                request = await self._work.do_in_turn(context.project, call.size, work)
            handle: StreamHandler = self._handlers[call.method.path]
            async with aclosing(handle(request, context)) as replies:
                async for reply in replies:
                    yield await self._work.do(context.project, len(reply.data), partial(call.encode, reply))

    async def exchange(self, call: StreamCall, admitted: Admitted) -> AsyncGenerator[bytes]:
        """Answers a stream of requests by another of answers, batch by batch, in the way of `stream`.

        Raises `CallerGone` where that is how `messages` ends.
        """
        handle: BatchHandlerFactory = self._handlers[call.method.path]

        batches = handle(admitted.project)

        def prepare(message: bytes) -> Any:
            return batches.prepare(self._request(partial(call.decode, message)))

        async def decode(message: bytes) -> Any:
            return await self._work.do_in_turn(admitted.project, len(message), partial(prepare, message))

        exchange = BatchedBidiStream(batches, admitted, call.messages, decode, timeout=self._max_timeout)
        with _faults(call.method, call.request_id):
            async with aclosing(exchange.replies()) as replies:
                async for reply in replies:
                    yield await self._work.do(admitted.project, reply.ByteSize(), partial(call.encode, reply))

    async def _handled(self, call: Call, context: Context) -> Answer:
        request = await self._work.do_in_turn(context.project, call.size, partial(self._request, call.decode))
        handle: Handler = self._handlers[call.method.path]
        return await handle(request, context)

    def _request(self, decode: Callable[[], Message]) -> Message:
        request = decode()
        validate(request, self._policy)
        return request


@contextmanager
def _faults(method: Method, request_id: str) -> Iterator[None]:
    """Makes of every fault but `CallerGone` a `ConvgrpcError`."""
    try:
        yield
    except TimeoutError:
        raise errors.deadline_exceeded() from None
    except (errors.ConvgrpcError, CallerGone):
        raise
    except Exception:
        _log.exception("unexpected error in %s, request %s", method.path, request_id)
        raise errors.internal_error() from None


def request_id(sent: str | None) -> str:
    """The id of a request: the one its caller sent, where it can stand in a header and a log line, or a new one."""
    if sent and len(sent) <= _MAX_REQUEST_ID_LENGTH and sent.isascii() and sent.isprintable():
        return sent
    return ids.request_id()
