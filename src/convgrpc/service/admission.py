"""Which calls are let in: those with a key, within the limits of their project, while the server does not stop."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from convgrpc import errors
from convgrpc.service.keys import Keys


class Limits(NamedTuple):
    """How many calls a project may make by the second, and how many at once. 0 is no limit."""

    calls_per_second: float = 0
    calls_at_once: int = 0


class Admission:
    """Lets calls in, and knows how many there are.

    `running` is that number.
    """

    def __init__(self, keys: Keys, limits: Limits, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._limits = limits
        self._ticks = ticks
        # By name. There are no more than the operator made keys for.
        self._projects: dict[str, _Project] = {}
        self.running = 0
        self._idle = asyncio.Event()
        self._refuses = False

    def admitted(self, authorization: list[str]) -> "Admitted":
        """Lets a call in, from its first byte on, while the context lasts; refuses it, saying why, as it begins.

        What the context gives is the project. `authorization` are the values of that header.
        """
        return Admitted(self, authorization)

    async def finish(self, grace: float) -> None:
        """Refuses new calls, and waits up to `grace` seconds for those that run."""
        self._refuses = True
        self._idle.clear()
        if self.running:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)

    async def enter(self, authorization: list[str]) -> str:
        if self._refuses:
            raise errors.shutting_down()
        name = await self._keys.project(authorization)
        project = self._projects.get(name)
        if project is None:
            project = self._projects[name] = _Project(self._limits, self._ticks())
        project.enter(self._ticks())
        self.running += 1
        return name

    def leave(self, name: str) -> None:
        self._projects[name].running -= 1
        self.running -= 1
        if not self.running:
            self._idle.set()


class Admitted:
    """A call that is in, while the context lasts."""

    def __init__(self, admission: Admission, authorization: list[str]) -> None:
        self._admission = admission
        self._authorization = authorization

    async def __aenter__(self) -> str:
        self._project = await self._admission.enter(self._authorization)
        return self._project

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admission.leave(self._project)


class _Project:
    """What a project does now. Up to a second's share of calls that it did not make is saved up."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.running = 0
        self._rate, self._at_once = limits
        self._most = max(1.0, self._rate)
        self._saved = self._most
        self._since = now

    def enter(self, now: float) -> None:
        if self._at_once and self.running >= self._at_once:
            raise errors.rate_limited(f"{self._at_once} calls at once", 1.0)
        if self._rate:
            self._saved = min(self._most, self._saved + (now - self._since) * self._rate)
            self._since = now
            if self._saved < 1:
                raise errors.rate_limited(f"{self._rate:g} calls a second", (1 - self._saved) / self._rate)
            self._saved -= 1
        self.running += 1
