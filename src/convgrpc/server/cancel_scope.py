"""Work that others may end, each with an error of its own: a call that lasts, when its key is revoked or its caller is
gone.

As a timeout does, this cancels the task that is at it, and makes of that the error.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class CancelScope:
    """A part of a task, as a context. `cancel` has that raise an error, the first one that it is given."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: Exception | None = None
        self._is_shielded = False

    def cancel(self, error: Exception) -> None:
        """Ends the work, from within the same event loop but not from the work itself. What is over stays as it is."""
        if self._task and self._error is None:
            self._error = error
            if not self._is_shielded:
                self._task.cancel()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Lets the end wait while the context lasts, where the work cannot be broken off."""
        self._is_shielded = True
        try:
            yield
        finally:
            self._is_shielded = False
        if self._error:
            raise self._error

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
        if self._error and kind is asyncio.CancelledError and task.uncancel() <= self._cancelling:
            raise self._error from None
