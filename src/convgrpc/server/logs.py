"""The log of a server: lines for people on a terminal, and a JSON object a line anywhere else.

It is written in a thread of its own, so that a reader who is slow holds up nobody, not even the end of the process.
What does not fit into the queue is dropped, and counted. Texts of exceptions are left out, unless they are the
operating system's: they may quote what a caller sent.
"""

import copy
import json
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import Any, TextIO, TypeAlias

# What others log below these levels anybody could fill the log with, and some of it quotes requests.
_LEVELS = {
    "grpc._cython.cygrpc": logging.CRITICAL,
    "uvicorn.access": logging.CRITICAL,
    "uvicorn.error": logging.ERROR,
}
_MAX_WAITING = 10_000
_MAX_MESSAGE = 4096
_LAST_LINES = 2.0
"""Seconds that the last lines have to get out."""

_Write: TypeAlias = Callable[[str], object]


@contextmanager
def logging_to(stream: TextIO, level: str) -> Iterator[None]:
    """Writes the log to a file while the context lasts. `level` is the name of one of `logging`'s, in small letters."""
    formatter = ConsoleFormatter() if stream.isatty() else JsonFormatter()
    with logging_by(partial(_write, stream.fileno()), formatter, level):
        yield


@contextmanager
def logging_by(write: _Write, formatter: logging.Formatter, level: str) -> Iterator[None]:
    """Hands the lines of the log to a function, which may block, while the context lasts."""
    entrance = _Entrance()
    # Python would wait at its end for a handler that is in the midst of writing: this thread knows of none.
    writing = threading.Thread(target=entrance.drain, args=(write, formatter), name="convgrpc-log", daemon=True)
    writing.start()
    root = logging.getLogger()
    levels: dict[logging.Logger, int | str] = {logging.getLogger(name): least for name, least in _LEVELS.items()}
    levels[root] = level.upper()
    before = {logger: logger.level for logger in levels}
    root.addHandler(entrance)
    for logger, least in levels.items():
        logger.setLevel(least)
    try:
        yield
    finally:
        for logger, least in before.items():
            logger.setLevel(least)
        root.removeHandler(entrance)
        entrance.end()
        writing.join(_LAST_LINES)


def _write(descriptor: int, text: str) -> None:
    # Not by the stream, whose lock the interpreter takes as it ends.
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(descriptor, data) :]


class _Entrance(logging.Handler):
    """A queue of records; drops what does not fit, rather than wait."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._queue.qsize() < _MAX_WAITING:
            self._queue.put(_lean(record))
        else:
            self._dropped += 1

    def end(self) -> None:
        """Lets `drain` return once all is written."""
        self._queue.put(None)

    def drain(self, write: _Write, formatter: logging.Formatter) -> None:
        while record := self._queue.get():
            # A line that cannot be written, as when its reader went away, is lost.
            with suppress(OSError):
                write(formatter.format(record) + "\n")
        if self._dropped:
            write(f"convgrpc: {self._dropped} lines of the log were dropped\n")


def _lean(record: logging.LogRecord) -> logging.LogRecord:
    """A record that holds nothing but text: an exception would keep alive all that its frames hold."""
    lean = copy.copy(record)
    lean.msg, lean.args = record.getMessage()[:_MAX_MESSAGE], None
    lean.trace = _trace(record)
    lean.exc_info = None
    return lean


class ConsoleFormatter(logging.Formatter):
    """One line, and below it where an exception came from."""

    def format(self, record: logging.LogRecord) -> str:
        told = " ".join(f"{key}={value}" for key, value in _told(record).items())
        line = f"{_moment(record):%H:%M:%SZ} {record.levelname.lower()} {record.getMessage()} {told}".rstrip()
        return "\n".join([line, *_trace(record)])


class JsonFormatter(logging.Formatter):
    """A JSON object: `time` (UTC), `level`, `logger`, `message`, what is told of a call, and `trace` of an
    exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _moment(record).isoformat(timespec="milliseconds"),
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
        return getattr(record, "trace", [])
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    text = f"{name}: {error}" if isinstance(error, OSError) else name
    places = traceback.extract_tb(error.__traceback__)
    return [text, *(f"  {place.filename}:{place.lineno} in {place.name}" for place in places)]
