"""The log of a server: lines for people on a terminal, and a JSON object a line anywhere else.

It is written in a thread of its own, so that a reader who is slow holds up nobody. What does not fit into the queue is
dropped, and counted. Texts of exceptions are left out, unless they are the operating system's: they may quote what a caller sent.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueListener
from queue import SimpleQueue
from typing import Any, TextIO

_MAX_WAITING = 10_000
_LAST_LINES = 2.0
"""Seconds that the last lines have to get out."""


@contextmanager
def logging_to(stream: TextIO, level: str) -> Iterator[None]:
    """Writes the log to a stream while the context lasts. `level` is the name of one of `logging`'s, in small letters."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ConsoleFormatter() if stream.isatty() else JsonFormatter())
    # What waits is formatted by the listener's thread.
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    entrance = _Entrance(queue)
    listener = QueueListener(queue, handler)
    root = logging.getLogger()
    root.addHandler(entrance)
    root.setLevel(level.upper())
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(entrance)
        # A reader who reads no more must not keep the server from ending.
        ending = threading.Thread(target=listener.stop, daemon=True)
        ending.start()
        ending.join(_LAST_LINES)
        if entrance.dropped:
            print(f"convgrpc: {entrance.dropped} lines of the log were dropped", file=sys.stderr)


class _Entrance(logging.Handler):
    """Passes records on to a queue; drops what does not fit, rather than wait."""

    def __init__(self, queue: SimpleQueue[logging.LogRecord]) -> None:
        super().__init__()
        self._queue = queue
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._queue.qsize() < _MAX_WAITING:
            self._queue.put(record)
        else:
            self.dropped += 1


class ConsoleFormatter(logging.Formatter):
    """One line, and below it where an exception came from."""

    def format(self, record: logging.LogRecord) -> str:
        told = " ".join(f"{key}={value}" for key, value in _told(record).items())
        line = f"{_moment(record):%H:%M:%S} {record.levelname.lower()} {record.getMessage()} {told}".rstrip()
        return "\n".join([line, *_trace(record)])


class JsonFormatter(logging.Formatter):
    """A JSON object: `time` (UTC), `level`, `logger`, `message`, what is told of a call, and `trace` of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": f"{_moment(record).isoformat(timespec='milliseconds')}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_told(record),
        }
        if trace := _trace(record):
            fields["trace"] = trace
        return json.dumps(fields, ensure_ascii=False)


def _told(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "call", {})


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _trace(record: logging.LogRecord) -> list[str]:
    """The exception of a record: its type, and the places in the code, the innermost last."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return []
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    text = f"{name}: {error}" if isinstance(error, OSError) else name
    places = traceback.extract_tb(error.__traceback__)
    return [text, *(f"  {place.filename}:{place.lineno} in {place.name}" for place in places)]
