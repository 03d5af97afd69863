"""How calls of gRPC's asyncio part really ended.

When a server ends a call that is still being written to, what is on its way fails, and gRPC makes of that the status of
the call, in place of the server's own (grpc/grpc#36066). The server's is there for a moment, before that or after.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from grpc.aio import AioRpcError

_FAILED_TO_SEND = "Internal error from Core"
_PATIENCE = 5.0
"""Seconds in which a status comes that is on its way."""


class Verdict:
    """The first status of a call that is not that of what could not be sent."""

    def __init__(self, call: Any) -> None:
        self._error: AioRpcError | None = None
        self._there = asyncio.Event()
        call.add_done_callback(self._note)

    async def instead_of(self, raised: AioRpcError) -> AioRpcError:
        """What ended the call, given what it raised."""
        if raised.details() == _FAILED_TO_SEND:
            try:
                await asyncio.wait_for(self._there.wait(), _PATIENCE)
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
    """What a coroutine returns that does not wait: the call is done."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        return returned.value
    raise RuntimeError("the status of a call that is done is not there")
