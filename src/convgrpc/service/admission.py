"""Which calls are let in: those with a key, within the limits of their project and of the server, while it does not stop.

What the server has room for is shared: a project gets no more of it than what is left, so that one which takes all it can
takes half, and another finds room still.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import NamedTuple

from convgrpc import errors
from convgrpc.service.keys import Keys


class Limits(NamedTuple):
    """How many calls a project may make by the second, and how many at once; and what the server does at once, in calls
    and in bytes of their requests. 0 is no limit.
    """

    calls_per_second: float = 0
    calls_at_once: int = 0
    server_calls: int = 0
    server_bytes: int = 0


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
        self._calls = _Room(limits.server_calls)
        self._bytes = _Room(limits.server_bytes)
        self._answers = _Room(limits.server_bytes)
        self.running = 0
        self._idle = asyncio.Event()
        self._refuses = False
        self._told_of_stop: set[Callable[[], object]] = set()

    @asynccontextmanager
    async def admitted(self, authorization: list[str]) -> AsyncIterator["Admitted"]:
        """Lets a call in while the context lasts; see `enter`."""
        call = await self.enter(authorization)
        try:
            yield call
        finally:
            call.leave()

    async def enter(self, authorization: list[str]) -> "Admitted":
        """Lets a call in, from its first byte on, until it leaves; refuses it, saying why.

        `authorization` are the values of that header.
        """
        if self._refuses:
            raise errors.shutting_down()
        name = await self._keys.project(authorization)
        project = self._projects.get(name)
        if project is None:
            rooms = _Share(self._calls), _Share(self._bytes), _Share(self._answers)
            project = self._projects[name] = _Project(self._limits, *rooms, self._ticks())
        project.calls.check(1)
        project.enter(self._ticks())
        self.running += 1
        return Admitted(self, name, project, authorization)

    async def finish(self, grace: float) -> None:
        """Refuses new calls, and waits up to `grace` seconds for those that run."""
        self._refuses = True
        for tell in list(self._told_of_stop):
            tell()
        self._idle.clear()
        if self.running:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)

    @contextmanager
    def told_of_stop(self, tell: Callable[[], object]) -> Iterator[None]:
        """Has `tell` called when the server is about to stop, if that is while the context lasts."""
        if self._refuses:
            tell()
        self._told_of_stop.add(tell)
        try:
            yield
        finally:
            self._told_of_stop.discard(tell)

    async def check(self, authorization: list[str], name: str) -> None:
        """Refuses a call that is in, if its key is no longer one of the project."""
        if await self._keys.project(authorization) != name:
            raise errors.wrong_key()

    async def turn(self, project: "_Project") -> None:
        """Waits until a project may make another call, and counts that."""
        while wait := project.wait(self._ticks()):
            await asyncio.sleep(wait)

    def leave(self, project: "_Project") -> None:
        project.running -= 1
        self.running -= 1
        if not self.running:
            self._idle.set()


class Admitted:
    """A call that is in, of a project. What its request takes of the server's room is free again when it leaves."""

    def __init__(self, admission: Admission, name: str, project: "_Project", authorization: list[str]) -> None:
        self.project = name
        self._authorization = authorization
        self._admission = admission
        self._shares = project
        self._size = 0
        self._works = 0

    def hold(self, size: int) -> None:
        """Takes room for so many more bytes of the request. Raises `ResourceExhausted`."""
        self._shares.bytes.check(size)
        self._shares.bytes.take(size)
        self._size += size

    def release(self, size: int) -> None:
        """Gives back the room for so many bytes of the request, which are done."""
        self._shares.bytes.give_back(size)
        self._size -= size

    async def check_key(self) -> None:
        """Raises `Unauthenticated` if the key is no longer valid."""
        await self._admission.check(self._authorization, self.project)

    async def turn(self) -> None:
        """Waits until the project may make another call, as which a request of a stream counts."""
        await self._admission.turn(self._shares)

    def told_of_stop(self, tell: Callable[[], object]) -> AbstractContextManager[None]:
        """Has `tell` called when the server is about to stop, if that is while the context lasts."""
        return self._admission.told_of_stop(tell)

    def work(self) -> None:
        """Begins, as the whole request is there: calls that wait for theirs take no part in what is done at once.

        Raises `ResourceExhausted`.
        """
        self._shares.calls.check(1)
        self._shares.calls.take(1)
        self._works = 1

    def keep(self, size: int, *, may_refuse: bool) -> Callable[[], None]:
        """Takes room for an answer, until what is returned is called. That room is apart from that for requests.

        Raises `ResourceExhausted` where there is none, if the call may still be refused: when it changed nothing.
        """
        if may_refuse:
            self._shares.answers.check(size)
        self._shares.answers.take(size)
        return lambda: self._shares.answers.give_back(size)

    def leave(self) -> None:
        self._shares.bytes.give_back(self._size)
        self._shares.calls.give_back(self._works)
        self._admission.leave(self._shares)


class _Room:
    """What the server has room for, and how much of that is taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0


class _Share:
    """What a project has of a room."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._own = 0

    def check(self, more: int) -> None:
        """Refuses a project that would have more of the room than what is left."""
        if self._room.size and self._own + more > self._room.size - self._room.taken:
            raise errors.overloaded()

    def take(self, size: int) -> None:
        self._own += size
        self._room.taken += size

    def give_back(self, size: int) -> None:
        self.take(-size)


class _Project:
    """What a project does now. Up to a second's share of calls that it did not make is saved up."""

    def __init__(self, limits: Limits, calls: _Share, bytes: _Share, answers: _Share, now: float) -> None:
        self.running = 0
        self.calls = calls
        self.bytes = bytes
        self.answers = answers
        self._rate, self._at_once = limits.calls_per_second, limits.calls_at_once
        self._most = max(1.0, self._rate)
        self._saved = self._most
        self._since = now

    def enter(self, now: float) -> None:
        if self._at_once and self.running >= self._at_once:
            raise errors.rate_limited(f"{self._at_once} calls at once", 1.0)
        if wait := self.wait(now):
            raise errors.rate_limited(f"{self._rate:g} calls a second", wait)
        self.running += 1

    def wait(self, now: float) -> float:
        """Takes one of the calls that the project may make: 0, or in how many seconds there will be one."""
        if not self._rate:
            return 0.0
        self._saved = min(self._most, self._saved + (now - self._since) * self._rate)
        self._since = now
        if self._saved < 1:
            return (1 - self._saved) / self._rate
        self._saved -= 1
        return 0.0
