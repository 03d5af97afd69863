"""Which calls are let in: those with a key, within the limits of their project and of the server, while it does not
stop.

What the server has room for is shared: a project gets no more of it than what is left, so that one which takes all it
can takes half, and another finds room still.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from typing import NamedTuple, Self, TypeAlias

from convgrpc import errors
from convgrpc.handlers.accounts import Account
from convgrpc.server.auth import Keys
from convgrpc.server.cancel_scope import CancelScope

_EVERY = 0.4
"""Seconds between two looks at the keys of those that watch."""
_PAUSE = 0.1
"""Seconds between two looks at whether there is room."""


class Limits(NamedTuple):
    """How many calls a project may make by the second, and how many at once; and what the server does at once, in calls
    and in bytes of their requests; and how many may watch, and how many of them with a connection of their own. 0 is no
    limit.
    """

    calls_per_second: float = 0
    calls_at_once: int = 0
    server_calls: int = 0
    server_bytes: int = 0
    watchers: int = 0
    watching_connections: int = 0


End: TypeAlias = Callable[[errors.ConvgrpcError], object]
"""Ends a call that lasts, with an error."""


class Admission:
    """Lets calls in, and knows how many there are.

    `running` is that number, and `watching` that of those that are no longer at work.
    """

    def __init__(self, keys: Keys, limits: Limits, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._limits = limits
        self._ticks = ticks
        # By name. There are no more than the operator made keys for.
        self._projects: dict[str, _Project] = {}
        self._calls = _Capacity(limits.server_calls, "calls at once (--max-calls)")
        self._bytes = _Capacity(limits.server_bytes, "bytes of requests (--max-request-bytes)")
        self._answers = _Capacity(limits.server_bytes, "bytes of answers (--max-request-bytes)")
        self._watchers = _Capacity(limits.watchers, "watches (--max-watchers)")
        self._connections = _Capacity(limits.watching_connections, "watches over REST (--max-connections)")
        # What ends those that last, by what they showed, and whether a server that stops lets them finish.
        self._lasting: dict[tuple[str, ...], dict[End, bool]] = {}
        self.running = 0
        self._idle = asyncio.Event()
        self._refuses = False

    async def enter(self, authorization: list[str]) -> "Admitted":
        """Lets a call in, from its first byte on, until it leaves, as at the end of a context; refuses it, saying why.

        `authorization` are the values of that header.
        """
        if self._refuses:
            raise errors.shutting_down()
        name = await self._keys.project(authorization)
        project = self._projects.get(name)
        if project is None:
            rooms = (self._calls, self._bytes, self._answers, self._watchers, self._connections)
            project = self._projects[name] = _Project(self._limits, self._ticks(), *map(_ProjectQuota, rooms))
        project.calls.check(1)
        project.enter(self._ticks())
        self.running += 1
        return Admitted(self, name, project, tuple(authorization))

    @property
    def watching(self) -> int:
        return self._watchers.taken

    @contextmanager
    def listed(self, authorization: tuple[str, ...], end: End, *, may_finish: bool) -> Iterator[None]:
        """Ends something when the key that was shown is no longer valid, and when the server stops unless it may finish
        then, while the context lasts.
        """
        if self._refuses and not may_finish:
            raise errors.shutting_down()
        self._lasting.setdefault(authorization, {})[end] = may_finish
        try:
            yield
        finally:
            del self._lasting[authorization][end]
            if not self._lasting[authorization]:
                del self._lasting[authorization]

    async def check(self) -> None:
        """Looks now and then whether the keys of those that last are valid still, until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            for authorization in list(self._lasting):
                # While the database cannot be read, nothing is known of keys.
                with suppress(errors.Unavailable):
                    try:
                        await self._keys.project(list(authorization))
                    except errors.Unauthenticated as error:
                        for end in list(self._lasting.get(authorization, ())):
                            # Whoever raises an error notes in it where.
                            end(copy(error))

    async def finish(self, grace: float) -> None:
        """Refuses new calls, ends those that last, and waits up to `grace` seconds for those that run."""
        self._refuses = True
        for end, may_finish in [each for ends in self._lasting.values() for each in ends.items()]:
            if not may_finish:
                end(errors.stream_shut_down())
        self._idle.clear()
        if self.running:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)

    async def wait_for_rate(self, project: "_Project") -> None:
        """Waits until a project may make another call, and counts that."""
        while wait := project.wait(self._ticks()):
            await asyncio.sleep(wait)

    def leave(self, project: "_Project") -> None:
        project.running -= 1
        self.running -= 1
        if not self.running:
            self._idle.set()


class Admitted(Account):
    """A call that is in, of a project. What its request takes of the server's room is free again when it leaves."""

    def __init__(self, admission: Admission, name: str, project: "_Project", authorization: tuple[str, ...]) -> None:
        self.project = name
        self._authorization = authorization
        self._admission = admission
        self._shares = project
        self._size = 0
        self._reserved = 0
        self._runs = 1
        self._works = 0

    def reserve_request_bytes(self, size: int) -> None:
        """Takes room for so many more bytes of the request. Raises `ResourceExhausted`."""
        self._shares.bytes.check(size)
        self._shares.bytes.take(size)
        self._size += size

    def release_request_bytes(self, size: int) -> None:
        """Gives back the room for so many bytes of the request, which are done."""
        self._shares.bytes.give_back(size)
        self._size -= size

    def reserve_response_bytes(self, size: int) -> None:
        """Takes room for the answer before there is one, until the call ends or its answer takes room itself.

        Raises `ResourceExhausted`.
        """
        self._shares.answers.check(size)
        self._shares.answers.take(size)
        self._reserved += size

    async def wait_for_rate(self) -> None:
        """Waits until the project may make another call, as which a request of a stream counts."""
        await self._admission.wait_for_rate(self._shares)

    def cancel_on_revoke(self, end: End, *, may_finish: bool = False) -> AbstractContextManager[None]:
        """Has the call ended, which lasts and is at work, when the key that was shown is no longer valid, and when the
        server stops unless it may finish then, while the context lasts.
        """
        return self._admission.listed(self._authorization, end, may_finish=may_finish)

    def acquire_slot(self) -> None:
        """Begins, as the whole request is there: calls that wait for theirs take no part in what is done at once.

        Raises `ResourceExhausted`.
        """
        self._shares.calls.check(1)
        self._shares.calls.take(1)
        self._works = 1

    def keep_response_bytes(self, size: int, *, may_refuse: bool) -> Callable[[], None]:
        """Takes room for an answer, until what is returned is called. That room is apart from that for requests.

        Raises `ResourceExhausted` where there is none, if the call may still be refused: when it changed nothing.
        """
        self._give_back_reserved()
        if may_refuse:
            self._shares.answers.check(size)
        self._shares.answers.take(size)
        return lambda: self._shares.answers.give_back(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.leave()

    async def wait_for_room(self, size: int, seconds: float) -> None:
        """Waits until there is room for a part of an answer: many may be sent the same one at once.

        Raises `ResourceExhausted` where there is none for so many seconds.
        """
        until = time.monotonic() + seconds
        while not self._shares.answers.has_room(size):
            if time.monotonic() > until:
                self._shares.answers.check(size)
            await asyncio.sleep(_PAUSE)

    @contextmanager
    def response_bytes(self, data: bytes) -> Iterator[None]:
        """Takes room for a part of an answer while the context lasts."""
        leave = self.keep_response_bytes(len(data), may_refuse=False)
        try:
            yield
        finally:
            leave()

    @contextmanager
    def watching(self, cancel_scope: CancelScope, *, takes_connection: bool) -> Iterator[None]:
        """Lets the call go on for as long as its caller likes: from now on it is not at work. It is ended when the key
        that was shown is no longer valid, and when the server stops.

        Raises `ResourceExhausted` where there are too many.
        """
        watchers, connections = self._shares.watchers, self._shares.connections
        watchers.check(1)
        connections.check(takes_connection)
        watchers.take(1)
        connections.take(takes_connection)
        self.release_slot()
        try:
            with self.cancel_on_revoke(cancel_scope.cancel):
                yield
        finally:
            watchers.give_back(1)
            connections.give_back(takes_connection)

    def leave(self) -> None:
        self._shares.bytes.give_back(self._size)
        self._give_back_reserved()
        self.release_slot()

    def _give_back_reserved(self) -> None:
        self._shares.answers.give_back(self._reserved)
        self._reserved = 0

    def release_slot(self) -> None:
        """Is no longer at work, as one whose caller takes nothing; what it holds it keeps."""
        self._shares.calls.give_back(self._works)
        if self._runs:
            self._admission.leave(self._shares)
        self._works = self._runs = 0


class _Capacity:
    """What the server has room for, and how much of that is taken."""

    def __init__(self, size: int, what: str) -> None:
        self.size = size
        self.what = what
        self.taken = 0


class _ProjectQuota:
    """What a project has of a room."""

    def __init__(self, room: _Capacity) -> None:
        self._room = room
        self._own = 0

    def has_room(self, more: int) -> bool:
        """Whether a project would have no more of the room than what is left."""
        return not (more and self._room.size) or self._own + more <= self._room.size - self._room.taken

    def check(self, more: int) -> None:
        """Refuses a project for which there is no room."""
        if not self.has_room(more):
            raise errors.overloaded(self._room.what)

    def take(self, size: int) -> None:
        self._own += size
        self._room.taken += size

    def give_back(self, size: int) -> None:
        self.take(-size)


class _Project:
    """What a project does now. Up to a second's share of calls that it did not make is saved up."""

    def __init__(
        self,
        limits: Limits,
        now: float,
        calls: _ProjectQuota,
        bytes: _ProjectQuota,
        answers: _ProjectQuota,
        watchers: _ProjectQuota,
        connections: _ProjectQuota,
    ) -> None:
        self.running = 0
        self.calls = calls
        self.bytes = bytes
        self.answers = answers
        self.watchers = watchers
        self.connections = connections
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
