"""The client that waits for answers."""

import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from convgrpc import errors
from convgrpc.client.endpoint import DEFAULT_TARGET, DEFAULT_TIMEOUT, Endpoint, Options
from convgrpc.client.failures import failure
from convgrpc.client.methods import Methods
from convgrpc.client.process_fork import check_forks_are_supported
from convgrpc.client.resend_buffer import ResendBuffer, rebase_ack, rebase_error
from convgrpc.client.retries import StreamRetry
from convgrpc.client.values import JsonObject, request, streamed

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


class Client(Methods):
    """A client of the service, with a method for each of its RPCs.

    `target` is HOST:PORT, or any other name that gRPC knows. `api_key` goes with each call as `authorization: Bearer
    …`; without TLS (`credentials=grpc.ssl_channel_credentials()`) it goes to this machine alone, unless `insecure`
    says that any is meant. `timeout` is the seconds that a call may take with all its repetitions, where the call
    gives none of its own; None sets no bound, and neither does infinity. `options` are those of a gRPC channel, and
    come before this client's own.

    Arguments are named as the fields of the request, and None means not given. Items, tools and other objects are
    messages, or plain values in the shape of OpenAI's API: dictionaries, strings, lists of both. Enums are given by
    their words, such as `order="asc"`, or as `Order.ORDER_ASC`.

    Each failure is raised as a `ConvgrpcError`, which has gRPC's own error as its `__cause__`. While the server is
    unavailable, a call is repeated up to four times, within its timeout; calls that create something are given a
    `request_id`, so that repeating them does nothing twice. The repetition of a deletion may find that it was done, and
    raises `NotFound` then.

    Streams are generators: what one gives is fetched as it is read, and `close()` ends it, as does nobody having it any
    more. None has a timeout but its own. While the server is unavailable, a stream is taken up where it was, as often
    as a call is repeated, counted anew each time that it got on; requests that were not acknowledged are sent again.

    A client may be used by several threads at once. Each process has a connection of its own, so that a client may be
    used by the child of a fork, unless another thread was in a call of it at that moment. It connects when it is first
    used, and is to be closed, or used in a `with` statement.
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
        # By process: a channel of the parent can be neither used nor taken down by its child.
        self._channels: dict[int, grpc.Channel] = {}
        self._running: set[object] = set()

    def __repr__(self) -> str:
        return f"<convgrpc.Client {self._endpoint.target!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. Calls in flight fail with `Cancelled`."""
        self._closed = True
        channel = self._channels.pop(os.getpid(), None)
        if channel:
            channel.close()

    def _call(
        self, path: str, request_class: type[Message], reply: type[M], values: dict[str, Any], timeout: float | None
    ) -> M:
        message = request(request_class, values)
        call = self._channel().unary_unary(path, request_class.SerializeToString, reply.FromString)
        running = object()
        self._running.add(running)
        try:
            return call(message, timeout=self._endpoint.timeout(timeout), metadata=self._endpoint.metadata)
        except grpc.RpcError as error:
            raise failure(error, self._endpoint.target) from error
        except ValueError:
            # What gRPC says of a channel that was closed between here and there.
            if self._closed:
                raise _closed() from None
            raise
        finally:
            self._running.discard(running)

    def _stream(
        self, path: str, request_class: type[Message], reply: type[M], values: dict[str, Any], timeout: float | None
    ) -> Generator[M, None, None]:
        return self._batches(path, request(request_class, values), reply, StreamRetry(timeout))

    def _batches(self, path: str, message: Any, reply: type[M], retry: StreamRetry) -> Generator[M, None, None]:
        """The batches of a stream, which is taken up after the cursor of the last."""
        batch: Any
        while True:
            try:
                for batch in self._replies("unary_stream", path, message.SerializeToString(), reply, retry.left):
                    retry.progress()
                    message.after = batch.cursor
                    yield batch
                return
            except errors.Unavailable as error:
                pause = retry.pause(error)
            time.sleep(pause)

    def _exchange(
        self,
        path: str,
        request_class: type[R],
        reply: type[M],
        requests: Iterable[R | JsonObject],
        timeout: float | None,
    ) -> Generator[M, None, None]:
        return self._acknowledgements(path, streamed(request_class, requests), reply, StreamRetry(timeout))

    def _acknowledgements(
        self, path: str, requests: Iterable[bytes], reply: type[M], retry: StreamRetry
    ) -> Generator[M, None, None]:
        """What the server acknowledges of requests; those that it did not are sent again when the stream broke."""
        with closing(ResendBuffer(requests)) as resend_buffer:
            while resend_buffer.wait():
                before = resend_buffer.window.acknowledged
                try:
                    for each in self._replies("stream_stream", path, resend_buffer.stream(), reply, retry.left):
                        retry.progress()
                        resend_buffer.acknowledge(rebase_ack(each, before))
                        yield each
                    break
                except errors.Unavailable as error:
                    pause = retry.pause(error)
                except errors.ConvgrpcError as error:
                    raise rebase_error(error, before) from error.__cause__
                time.sleep(pause)
        if resend_buffer.failure:
            raise resend_buffer.failure

    def _replies(
        self, kind: str, path: str, message: bytes | Iterator[bytes], reply: type[M], timeout: float | None
    ) -> Generator[M, None, None]:
        """The answers of one call, which is ended where they are not all taken."""
        open_call = getattr(self._channel(), kind)(path, None, reply.FromString)
        running, call = object(), None
        self._running.add(running)
        try:
            call = open_call(message, timeout=timeout, metadata=self._endpoint.metadata)
            yield from call
        except grpc.RpcError as error:
            raise failure(error, self._endpoint.target) from error
        except ValueError:
            if self._closed:
                raise _closed() from None
            raise
        finally:
            self._running.discard(running)
            if call is not None:
                call.cancel()

    def _channel(self) -> grpc.Channel:
        if self._closed:
            raise _closed()
        process = os.getpid()
        channel = self._channels.get(process)
        if channel is None:
            if self._channels:
                check_forks_are_supported(during_call=bool(self._running))
            made = self._endpoint.channel(grpc)
            channel = self._channels.setdefault(process, made)
            if channel is not made:
                made.close()
        if self._closed:
            # By another thread, which may have found no channel yet.
            channel.close()
            raise _closed()
        return channel


def _closed() -> RuntimeError:
    return RuntimeError("this client is closed")
