"""Tells those who listen that a conversation was changed, once that is durable.

One who listens first and reads then misses nothing: what was committed before is read, and what comes later is told.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeAlias

Callback: TypeAlias = Callable[[], None]


class Topic(NamedTuple):
    """A conversation of a project, by its id."""

    project: str
    conversation_id: str


class ChangeNotifier:
    """Who listens to what. It is told of changes in the thread that writes, and tells on the event loops of those who
    listen.
    """

    def __init__(self) -> None:
        # The values are replaced, never changed, as another thread reads them.
        self._listeners: dict[Topic, tuple[tuple[asyncio.AbstractEventLoop, Callback], ...]] = {}

    @contextmanager
    def subscribe(self, topic: Topic, callback: Callback) -> Iterator[None]:
        """Has `callback` called after each change while the context lasts; it may be called without one."""
        listener = (asyncio.get_running_loop(), callback)
        self._listeners[topic] = (*self._listeners.get(topic, ()), listener)
        try:
            yield
        finally:
            left = tuple(each for each in self._listeners[topic] if each is not listener)
            if left:
                self._listeners[topic] = left
            else:
                del self._listeners[topic]

    def publish(self, topics: Iterable[Topic]) -> None:
        """Tells of changes. While nobody listens this costs nothing."""
        if not self._listeners:
            return
        due: dict[asyncio.AbstractEventLoop, list[Callback]] = {}
        for topic in set(topics):
            for loop, callback in self._listeners.get(topic, ()):
                due.setdefault(loop, []).append(callback)
        for loop, callbacks in due.items():
            # A loop that was closed has nobody left who listens.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_tell_all, callbacks)


def _tell_all(callbacks: Iterable[Callback]) -> None:
    for callback in callbacks:
        callback()
