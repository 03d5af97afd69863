"""Work that others may end, each with an error of its own: a call that lasts, when its key is revoked or its caller is gone.

As a timeout does, this cancels the task that is at it, and makes of that the error.
"""

import asyncio
from types import TracebackType
from typing import Self


class Ending:
    """A part of a task, as a context. `end` has that raise an error, the first one that it is given."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: Exception | None = None

    def end(self, error: Exception) -> None:
        """Ends the work, from within the same event loop but not from the work itself. What is over stays as it is."""
        if self._task and self._error is None:
            self._error = error
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task
        self._cancelling = self._task.cancelling()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        assert task
        # Others may cancel the task as well: that comes first.
        if self._error and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error from None
