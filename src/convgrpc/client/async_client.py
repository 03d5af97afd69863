"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from convgrpc import errors
from convgrpc.client.async_methods import AsyncMethods
from convgrpc.client.endpoint import DEFAULT_TARGET, DEFAULT_TIMEOUT, Endpoint, Options
from convgrpc.client.failures import failure
from convgrpc.client.process_fork import ASYNC_HOME
from convgrpc.client.resend_buffer import AsyncResendBuffer, rebase_ack, rebase_error
from convgrpc.client.retries import StreamRetry
from convgrpc.client.status_workaround import ServerStatus
from convgrpc.client.values import JsonObject, request, streamed_asynchronously
from convgrpc.v1.error_reason_pb2 import ErrorReason

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


class AsyncClient(AsyncMethods):
    """A client of the service for asyncio, with a coroutine for each of its RPCs.

    Its arguments, methods and errors are those of `Client`. It belongs to the event loop in which it is first used;
    once that one is closed, it may be used in another. Any number of tasks may use it, but only those of one loop at a
    time, and no process whose parent used an AsyncClient before it forked. Where that does not hold, RuntimeError is
    raised.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
        timeout: float | None = DEFAULT_TIMEOUT,
        options: Options = (),
    ) -> None:
        self._endpoint = Endpoint(
            target, api_key=api_key, credentials=credentials, insecure=insecure, timeout=timeout, options=options
        )
        self._closed = False
        self._connected: tuple[asyncio.AbstractEventLoop, grpc.aio.Channel] | None = None

    def __repr__(self) -> str:
        return f"<convgrpc.AsyncClient {self._endpoint.target!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. Calls in flight fail with `Cancelled`."""
        self._closed = True
        connected, self._connected = self._connected, None
        if connected and not connected[0].is_closed():
            await connected[1].close()

    async def _call(
        self, path: str, request_class: type[Message], reply: type[M], values: dict[str, Any], timeout: float | None
    ) -> M:
        message = request(request_class, values)
        call = self._channel().unary_unary(path, request_class.SerializeToString, reply.FromString)
        try:
            return await call(message, timeout=self._endpoint.timeout(timeout), metadata=self._endpoint.metadata)
        except grpc.RpcError as error:
            raise failure(error, self._endpoint.target) from error
        except asyncio.CancelledError:
            self._check_cancellation()
            raise

    def _stream(
        self, path: str, request_class: type[Message], reply: type[M], values: dict[str, Any], timeout: float | None
    ) -> AsyncGenerator[M, None]:
        return self._batches(path, request(request_class, values), reply, StreamRetry(timeout))

    async def _batches(self, path: str, message: Any, reply: type[M], retry: StreamRetry) -> AsyncGenerator[M, None]:
        """The batches of a stream, which is taken up after the cursor of the last."""
        batch: Any
        while True:
            replies = self._replies("unary_stream", path, message.SerializeToString(), reply, retry.left)
            try:
                async with aclosing(replies):
                    async for batch in replies:
                        retry.progress()
                        message.after = batch.cursor
                        yield batch
                return
            except errors.Unavailable as error:
                pause = retry.pause(error)
            await asyncio.sleep(pause)

    def _exchange(
        self,
        path: str,
        request_class: type[R],
        reply: type[M],
        requests: AsyncIterable[R | JsonObject] | Iterable[R | JsonObject],
        timeout: float | None,
    ) -> AsyncGenerator[M, None]:
        each = streamed_asynchronously(request_class, requests)
        return self._acknowledgements(path, each, reply, StreamRetry(timeout))

    async def _acknowledgements(
        self, path: str, requests: AsyncGenerator[bytes, None], reply: type[M], retry: StreamRetry
    ) -> AsyncGenerator[M, None]:
        """What the server acknowledges of requests; those that it did not are sent again when the stream broke."""
        async with aclosing(requests), AsyncResendBuffer(requests) as resend_buffer:
            while await resend_buffer.wait():
                before = resend_buffer.window.acknowledged
                replies = self._replies("stream_stream", path, resend_buffer.stream(), reply, retry.left)
                try:
                    async with aclosing(replies):
                        async for each in replies:
                            retry.progress()
                            resend_buffer.acknowledge(rebase_ack(each, before))
                            yield each
                    break
                except errors.Unavailable as error:
                    pause = retry.pause(error)
                except errors.ConvgrpcError as error:
                    raise rebase_error(error, before) from error.__cause__
                await asyncio.sleep(pause)
        if resend_buffer.failure:
            raise resend_buffer.failure

    async def _replies(
        self, kind: str, path: str, message: bytes | AsyncIterator[bytes], reply: type[M], timeout: float | None
    ) -> AsyncGenerator[M, None]:
        """The answers of one call, which is ended where they are not all taken."""
        open_call = getattr(self._channel(), kind)(path, None, reply.FromString)
        call = open_call(message, timeout=timeout, metadata=self._endpoint.metadata)
        server_status = ServerStatus(call)
        try:
            async for each in call:
                yield each
        except grpc.aio.AioRpcError as raised:
            error = await server_status.resolve(raised)
            raise failure(error, self._endpoint.target) from error
        except asyncio.CancelledError:
            self._check_cancellation()
            raise
        finally:
            call.cancel()

    def _check_cancellation(self) -> None:
        """Raises what a call is told whose client was closed.

        gRPC cancels the calls of a channel that is closed; the tasks that wait for them are not.
        """
        task = asyncio.current_task()
        if self._closed and task and not task.cancelling():
            raise errors.Cancelled(ErrorReason.ERROR_REASON_UNSPECIFIED, "The client was closed.") from None

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise RuntimeError("this client is closed")
        ASYNC_HOME.enter()
        loop = asyncio.get_running_loop()
        if self._connected and self._connected[0] is loop:
            return self._connected[1]
        if self._connected and not self._connected[0].is_closed():
            raise RuntimeError("this AsyncClient is in use in another event loop: make one for each")
        channel: grpc.aio.Channel = self._endpoint.channel(grpc.aio)
        self._connected = loop, channel
        return channel
