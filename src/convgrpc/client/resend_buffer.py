"""The requests of a stream that may have to be sent again: those that are not acknowledged."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from typing import Any, Self

from convgrpc.errors import ConvgrpcError

MAX_REQUESTS = 512
MAX_BYTES = 16 << 20
"""How much may be sent and not acknowledged; one request alone may be larger."""


class Window:
    """Requests, serialized, from the first that is not acknowledged on. They are numbered from 0."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self._kept: deque[bytes] = deque()
        self._size = 0

    @property
    def end(self) -> int:
        """The number of the next request."""
        return self.acknowledged + len(self._kept)

    @property
    def has_room(self) -> bool:
        return not self._kept or (len(self._kept) < MAX_REQUESTS and self._size < MAX_BYTES)

    def __getitem__(self, number: int) -> bytes:
        return self._kept[number - self.acknowledged]

    def add(self, request: bytes) -> None:
        self._kept.append(request)
        self._size += len(request)

    def acknowledge(self, end: int) -> None:
        """Forgets the requests before a number."""
        while self.acknowledged < min(end, self.end):
            self._size -= len(self._kept.popleft())
            self.acknowledged += 1


def rebase_ack(answer: Any, before: int) -> int:
    """Counts the requests that an answer acknowledges from the first of all on, of which others were sent on streams
    before.
    """
    answer.requests += before
    return int(answer.requests)


def rebase_error(error: ConvgrpcError, before: int) -> ConvgrpcError:
    """The same for the request that is refused."""
    if error.request_number is not None:
        error.request_number += before
    return error


class ResendBuffer:
    """Hands requests to one stream after the other, in threads of gRPC.

    `failure` is what was raised while a request was made; there are no more then.
    """

    def __init__(self, requests: Iterable[bytes]) -> None:
        self.window = Window()
        self.failure: BaseException | None = None
        self._requests = iter(requests)
        self._is_over = False
        self._stream = 0
        self._changed = threading.Condition()
        # A request that is being made when its stream breaks goes to the next one.
        self._making = threading.Lock()

    def wait(self) -> bool:
        """Waits until there is something to send; there is nothing at the end."""
        self._make(self.window.acknowledged)
        return self.window.end > self.window.acknowledged

    def stream(self) -> Iterator[bytes]:
        """The requests of a new stream, beginning with those that were not acknowledged. Those of others end."""
        with self._changed:
            self._stream += 1
            self._changed.notify_all()
            return self._sent(self._stream, self.window.acknowledged)

    def acknowledge(self, end: int) -> None:
        """Notes that the requests before a number need not be sent again."""
        with self._changed:
            self.window.acknowledge(end)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the requests of all streams."""
        with self._changed:
            self._stream += 1
            self._changed.notify_all()

    def _sent(self, stream: int, number: int) -> Iterator[bytes]:
        def may_go_on() -> bool:
            return self._stream != stream or number < self.window.end or self._is_over or self.window.has_room

        while True:
            with self._changed:
                self._changed.wait_for(may_go_on)
                if self._stream != stream:
                    return
                request = self.window[number] if number < self.window.end else None
                if request is None and self._is_over:
                    return
            if request is None:
                self._make(number)
            else:
                number += 1
                yield request

    def _make(self, number: int) -> None:
        """Makes a request, unless it was made meanwhile."""
        with self._making:
            with self._changed:
                if self._is_over or number < self.window.end:
                    return
            try:
                request = next(self._requests, None)
            except BaseException as failure:
                self.failure, request = failure, None
            with self._changed:
                if request is None:
                    self._is_over = True
                else:
                    self.window.add(request)


class AsyncResendBuffer:
    """Hands requests to one stream after the other, in an event loop; see `ResendBuffer`. It makes them within its
    context.
    """

    def __init__(self, requests: AsyncIterable[bytes]) -> None:
        self.window = Window()
        self.failure: BaseException | None = None
        self._requests = requests
        self._is_over = False
        self._made = asyncio.Event()
        self._acknowledged = asyncio.Event()

    async def __aenter__(self) -> Self:
        # gRPC cancels the tasks of its streams, and with them what they wait for.
        self._making = asyncio.create_task(self._make())
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._making.cancel()
        await asyncio.wait([self._making])

    async def _make(self) -> None:
        try:
            async for request in self._requests:
                self.window.add(request)
                self._made.set()
                while not self.window.has_room:
                    self._acknowledged.clear()
                    await self._acknowledged.wait()
        except BaseException as failure:
            # A source may wait for what others cancel: that is its failure, and no end of the stream.
            self.failure = failure
        finally:
            self._is_over = True
            self._made.set()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The requests of a new stream, beginning with those that were not acknowledged."""
        number = self.window.acknowledged
        while await self._has(number):
            number += 1
            yield self.window[number - 1]

    async def wait(self) -> bool:
        """Waits until there is something to send; there is nothing at the end."""
        return await self._has(self.window.acknowledged)

    async def _has(self, number: int) -> bool:
        while number == self.window.end and not self._is_over:
            self._made.clear()
            await self._made.wait()
        return number < self.window.end

    def acknowledge(self, end: int) -> None:
        """Notes that the requests before a number need not be sent again."""
        self.window.acknowledge(end)
        self._acknowledged.set()
