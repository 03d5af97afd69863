"""Answers by HTTP that are sent piece by piece, and the clients that read them: some go away, and some say nothing for
long.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

from convgrpc.contract.streams import Format
from convgrpc.server.call_log import CallRecord
from convgrpc.server.cancel_scope import CancelScope
from convgrpc.server.failures import CallerGone

Receive: TypeAlias = Callable[[], Any]
Send: TypeAlias = Callable[[Mapping[str, Any]], Any]

_log = logging.getLogger(__name__)

_SILENCE = 15.0
"""Seconds after which a client that was sent nothing is sent something that means nothing, lest somebody gives it
up.
"""
_LAST_PIECE = 0.25
"""Seconds that a client has to take what was sent before it is told of an error."""


class Disconnected(CallerGone):
    """The client went away before its request was whole, or its answer."""


class StreamedAnswer:
    """An answer that begins with its first piece: until `has_begun`, another one can be sent in its place.

    `cut` ends the connection.
    """

    takes_connection = True

    def __init__(self, receive: Receive, send: Send, cut: Callable[[], None], form: Format, record: CallRecord) -> None:
        self._receive = receive
        self._send = send
        self._cut = cut
        self._form = form
        self._record = record
        self._is_endless = record.method is not None and record.method.stream.endless
        self._said_at = 0.0
        self.has_begun = False

    @asynccontextmanager
    async def attended(self, cancel_scope: CancelScope) -> AsyncIterator[None]:
        """Ends the work with `Disconnected` when the client goes away while the context lasts, and breaks the
        silence.
        """
        attending = asyncio.create_task(self._attend(cancel_scope))
        try:
            yield
        finally:
            attending.cancel()
            await asyncio.wait([attending])

    async def send(self, data: bytes) -> None:
        """Sends a piece, once the client has room for it."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._said_at = asyncio.get_running_loop().time()
        if self._is_endless:
            # However it goes on: the client decides when it ends.
            self._record.status = 200
        # Sending may take no time, and never let others have their turn.
        await asyncio.sleep(0)

    async def end(self) -> None:
        """Ends the answer well."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: bytes) -> None:
        """Ends an answer that has begun, with the JSON of an error; for readers who expect none, it breaks off as
        well.
        """
        breaks_off = not self._form.has_errors
        try:
            async with asyncio.timeout(_LAST_PIECE):
                body = self._form.error(error)
                await self._send({"type": "http.response.body", "body": body, "more_body": breaks_off})
        except TimeoutError:
            breaks_off = True
        if breaks_off:
            await self.break_off()

    async def break_off(self) -> None:
        """Ends the connection, with whatever is on its way."""
        self._cut()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            headers = [
                (b"content-type", self._form.media_type.encode()),
                (b"x-request-id", self._record.request_id.encode()),
                # Proxies shall not wait for the end, nor keep it.
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _attend(self, cancel_scope: CancelScope) -> None:
        try:
            while not await self._is_gone():
                await self._break_silence()
        except Exception as error:
            # Nothing can be sent on a connection that is no more.
            _log.info("A client could not be told that it is still there: %s", type(error).__name__)
        cancel_scope.cancel(Disconnected())

    async def _is_gone(self) -> bool:
        """Waits for a while, or until the client goes away."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SILENCE):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
                return True
        return False

    async def _break_silence(self) -> None:
        if self._form.idle and self.has_begun and asyncio.get_running_loop().time() - self._said_at >= _SILENCE:
            await self._send({"type": "http.response.body", "body": self._form.idle, "more_body": True})
