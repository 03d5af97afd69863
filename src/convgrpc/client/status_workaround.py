"""A workaround for wrong statuses of grpc.aio (grpc/grpc#36066).

When a server ends a call while the client still sends, sending fails. grpc.aio then reports that failure as the status
of the call. The server's own status is visible for a moment, before or after that.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from grpc.aio import AioRpcError

_FAILED_TO_SEND = "Internal error from Core"
_TIMEOUT = 5.0
"""Seconds to wait for the server's status."""


class ServerStatus:
    """The server's status of a call: the first that is not a failure to send."""

    def __init__(self, call: Any) -> None:
        self._error: AioRpcError | None = None
        self._there = asyncio.Event()
        call.add_done_callback(self._note)

    async def resolve(self, raised: AioRpcError) -> AioRpcError:
        """Returns the error with the server's status, or the one that was raised if there is none."""
        if raised.details() == _FAILED_TO_SEND:
            try:
                await asyncio.wait_for(self._there.wait(), _TIMEOUT)
            except TimeoutError:
                return raised
        return self._error or raised

    def _note(self, call: Any) -> None:
        # It is called for each status that the call is given.
        details = _result(call.details())
        if self._error is None and details != _FAILED_TO_SEND:
            parts = (call.code(), call.initial_metadata(), call.trailing_metadata())
            code, initial, trailing = map(_result, parts)
            self._error = AioRpcError(code, initial, trailing, details)
            self._there.set()


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of a coroutine that does not wait, as the call is done."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        return returned.value
    raise RuntimeError("the status of a call that is done is not there")
