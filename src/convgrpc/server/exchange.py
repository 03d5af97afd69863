"""A stream of requests that is answered by another: what came while a batch of requests was done is the next batch.

No more is read than there is room for, so that the flow control of the transport holds the caller back.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from google.protobuf.message import Message

from convgrpc import errors
from convgrpc.handlers.batches import BatchHandler, BatchResult
from convgrpc.server.admission import Admitted

MAX_REQUESTS = 128
MAX_BYTES = 1 << 20
"""How much of a stream is read and not begun; the last request may go beyond that. A batch is as much."""

Decode: TypeAlias = Callable[[bytes], Awaitable[Any]]
"""Makes what `BatchHandler` prepared of what was received."""


class BatchedBidiStream:
    """Has the requests of a call done in batches, each of which may take so many seconds."""

    def __init__(
        self,
        batches: BatchHandler,
        admitted: Admitted,
        messages: AsyncGenerator[bytes],
        decode: Decode,
        *,
        timeout: float,
    ) -> None:
        self._batches = batches
        self._admitted = admitted
        self._messages = messages
        self._decode = decode
        self._timeout = timeout
        self._count = 0
        # Of those that are taken up and not begun.
        self._requests = self._size = 0
        self._failure: Exception | None = None
        self._is_over = False
        self._came = asyncio.Event()
        self._begun = asyncio.Event()

    async def replies(self) -> AsyncGenerator[Message]:
        """The answers, one for each batch; raises in the end why a request was refused, or the stream."""
        taking = self._taking = asyncio.create_task(self._take_all())
        try:
            with self._admitted.cancel_on_revoke(self._end):
                while await self._any_came():
                    done = await self._do()
                    if done.reply:
                        yield done.reply
                    if done.refusal:
                        raise done.refusal
        finally:
            taking.cancel()
            await asyncio.wait([taking])
        if self._failure:
            raise self._failure

    def _end(self, error: errors.ConvgrpcError) -> None:
        """Takes no more requests up; those that are, are done."""
        if not self._is_over:
            self._failure, self._is_over = error, True
            self._came.set()
            self._taking.cancel()

    async def _any_came(self) -> bool:
        """Waits until there is a batch; there is none at the end."""
        while not (self._requests or self._is_over):
            self._came.clear()
            await self._came.wait()
        return self._requests > 0

    async def _do(self) -> BatchResult:
        size, self._requests, self._size = self._size, 0, 0
        self._begun.set()
        left = 0
        try:
            async with asyncio.timeout(self._timeout):
                done = await self._batches.run_batch(time.monotonic() + self._timeout)
            left = done.left
            self._requests += left
            return done
        finally:
            if left:
                # Of which requests the bytes are is not known: all are given back with the last.
                self._size += size
            else:
                self._admitted.release_request_bytes(size)

    async def _take_all(self) -> None:
        """Takes requests up as they come, until there are no more, or one is at fault."""
        try:
            async with aclosing(self._messages) as messages:
                async for message in messages:
                    await self._take(message)
        except Exception as failure:
            self._failure = failure
        finally:
            self._is_over = True
            self._came.set()

    async def _take(self, message: bytes) -> None:
        if self._count:
            # The first is the call itself, which was counted.
            await self._admitted.wait_for_rate()
        self._admitted.reserve_request_bytes(len(message))
        try:
            self._batches.accept(await self._decode(message))
        except errors.ConvgrpcError as fault:
            fault.request_number = self._count + 1
            raise
        self._count += 1
        self._requests += 1
        self._size += len(message)
        self._came.set()
        while self._requests >= MAX_REQUESTS or self._size >= MAX_BYTES:
            self._begun.clear()
            await self._begun.wait()
