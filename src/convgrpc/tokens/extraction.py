"""Reads the text of documents in a separate, confined process.

One process reads the documents of one job, because they come from one caller. It ends with the job.
"""

import io
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Self, TypeAlias

from convgrpc.tokens import extraction_process
from convgrpc.tokens.extraction_process import END, MEBIBYTE, SIZE_BYTES, Limits, Status
from convgrpc.tokens.files import MAX_ROWS, Document, Kind, kind

COMMAND = (sys.executable, "-I", extraction_process.__file__)
"""Runs the process that reads documents."""

MAX_FILES = 100
"""The most documents of one call that are read in a process."""
SECONDS = 15.0
"""The most seconds that reading all documents of a call takes."""
_PIECE = 1 << 16
_LOOK = 0.1
"""Seconds between two checks whether the call has ended."""
_LINES = 1000
"""Lines of CSV between two such checks."""

_Process: TypeAlias = subprocess.Popen[bytes]
StartProcess: TypeAlias = Callable[[], _Process]


class Unreadable(Exception):
    """The text of a document cannot be had. `reason` says why, in words for the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotRead(Unreadable):
    """A document was not read for a reason that may be gone the next time."""


class FileBudget:
    """The number of documents of one call that may still be read in a process, and the seconds left for them."""

    def __init__(self, files: int = MAX_FILES, seconds: float = SECONDS) -> None:
        self.files = files
        self.seconds = seconds

    def check(self) -> None:
        """Raises `Unreadable` if nothing is left."""
        if self.files <= 0:
            raise NotRead("the request has more documents than are read")
        if self.seconds <= 0:
            raise NotRead("reading the documents of the request took too long")


class Confinement(NamedTuple):
    """The limits of one document: seconds, bytes of memory, pages or sheets, and bytes of text."""

    seconds: float = 10.0
    memory: int = 512 * MEBIBYTE
    pages: int = 1000
    text: int = 10 * MEBIBYTE

    def start(self) -> _Process:
        """Starts a process. Raises `OSError`."""
        # The parent ends the process before its CPU time runs out. The limit is for a process whose parent is gone.
        limits = Limits(self.memory, math.ceil(SECONDS) + 1, self.pages, MAX_ROWS, self.text)
        return subprocess.Popen(
            [*COMMAND, *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )


class WarmProcesses:
    """Keeps one process started, so that a job with documents does not wait for its start. `close` it."""

    def __init__(self, confinement: Confinement | None = None) -> None:
        self._confinement = confinement or Confinement()
        self._spare: _Process | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def take(self) -> _Process:
        """Returns a process, and starts the next one. Raises `OSError`."""
        with self._lock:
            process, self._spare = self._spare, None
            if process and process.poll() is not None:
                end(process)
                process = None
            process = process or self._confinement.start()
            if not self._is_closed:
                with suppress(OSError):
                    self._spare = self._confinement.start()
            return process

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._spare:
                end(self._spare)
                self._spare = None


class Extractor:
    """Reads the text of the documents of one job, in a process that is started for the first of them. `close` it.

    Several threads may use it, one after the other. `check` is called while a document is read, and may raise to give
    up.
    """

    def __init__(
        self,
        confinement: Confinement | None = None,
        *,
        budget: FileBudget | None = None,
        start: StartProcess | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._confinement = confinement or Confinement()
        self._budget = budget or FileBudget()
        self._start = start or self._confinement.start
        self._check = check
        self._process: _Process | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._end()

    def pages(self, document: Document) -> list[str]:
        """Returns the text of each page, or of each sheet as CSV. A document without pages is one page.

        Raises `Unreadable`.
        """
        found = kind(document)
        if found is None:
            raise Unreadable("no text can be read from a file of this type")
        if found not in (Kind.TEXT, Kind.CSV):
            with self._lock:
                return self._extracted(found, document.data)
        text = self._decoded(document.data)
        return [_first_rows(text, MAX_ROWS, self._check) if found is Kind.CSV else text]

    def _decoded(self, data: bytes) -> str:
        if len(data) > self._confinement.text:
            raise self._unreadable("text", Status.TOO_MUCH_TEXT)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unreadable("the text is not in UTF-8") from None

    def _extracted(self, kind: Kind, data: bytes) -> list[str]:
        if self._is_closed:
            raise NotRead("the call has ended")
        self._check()
        self._budget.check()
        began = time.monotonic()
        seconds = min(self._confinement.seconds, self._budget.seconds)
        answer = _Answer(self._confinement)
        try:
            self._process = self._process or self._start()
            _exchange(self._process, kind, data, answer, began + seconds, self._check)
        except TimeoutError:
            self._end()
            kind_of_error = Unreadable if seconds == self._confinement.seconds else NotRead
            raise kind_of_error(f"reading it took longer than {seconds:g} s") from None
        except OSError as error:
            self._end()
            raise NotRead(f"there is no process to read it in: {error.strerror}") from None
        except BaseException:
            self._end()
            raise
        finally:
            self._budget.files -= 1
            self._budget.seconds -= time.monotonic() - began
        if answer.status is not Status.READ:
            if not answer.is_whole:
                self._end()
            raise self._unreadable(kind, answer.status)
        return answer.pages

    def _end(self) -> None:
        if self._process:
            end(self._process)
            self._process = None

    def _unreadable(self, kind: str, status: Status) -> Unreadable:
        limits, name = self._confinement, kind.upper()
        memory = f"{limits.memory / MEBIBYTE:g} MiB of memory"
        reasons: dict[Status, str] = {
            Status.NO_LIBRARY: f"needs {_LIBRARIES.get(kind)}: pip install 'convgrpc[files]'",
            Status.ENCRYPTED: f"the {name} is encrypted",
            Status.BROKEN: f"the {name} is broken",
            Status.UNPACKS_TO_TOO_MUCH: f"the {name} unpacks to more than is allowed",
            Status.TOO_MANY_PAGES: f"more than {limits.pages} {'sheets' if kind == 'xlsx' else 'pages'}",
            Status.TOO_MUCH_TEXT: f"more than {limits.text / MEBIBYTE:g} MiB of text",
            Status.TOO_LITTLE_MEMORY: f"reading it takes more than {memory}",
            # Where memory runs out below Python, the process just dies.
            Status.DIED: f"the {name} is broken, or takes more than {memory}",
        }
        return Unreadable(reasons[status])


class _Answer:
    """The answer of a process to one document, as far as it has come.

    `status` is `DIED` until the answer ends. `is_whole` tells whether it did, so that the process can read on.
    """

    def __init__(self, confinement: Confinement) -> None:
        self.pages: list[str] = []
        self.status = Status.DIED
        self.is_whole = False
        self._confinement = confinement
        self._left = confinement.text
        self._rest = bytearray()

    def take(self, piece: bytes) -> bool:
        """Takes a piece of the answer. Returns whether more is expected."""
        self._rest += piece
        while len(self._rest) >= SIZE_BYTES:
            if self._rest.startswith(END):
                return self._take_end()
            size = int.from_bytes(self._rest[:SIZE_BYTES])
            if size > self._left or len(self.pages) == self._confinement.pages:
                self.status = Status.TOO_MUCH_TEXT if size > self._left else Status.TOO_MANY_PAGES
                return False
            end = SIZE_BYTES + size
            if len(self._rest) < end:
                break
            self.pages.append(self._rest[SIZE_BYTES:end].decode("utf-8", "replace"))
            self._left -= size
            del self._rest[:end]
        return True

    def _take_end(self) -> bool:
        if len(self._rest) == SIZE_BYTES:
            return True
        with suppress(ValueError):
            self.status = Status(self._rest[SIZE_BYTES])
            self.is_whole = self.status is not Status.TOO_LITTLE_MEMORY
        return False


_LIBRARIES: Mapping[str, str] = {"pdf": "'pypdfium2'", "docx": "'python-docx'", "xlsx": "'openpyxl' and 'defusedxml'"}


def end(process: _Process) -> None:
    """Kills a process, and those that it started."""
    with suppress(OSError):
        # The group outlives the process where that left others behind.
        os.killpg(process.pid, signal.SIGKILL)
    with process:
        pass


def _environment() -> dict[str, str]:
    """Nothing that is a secret of the server's; where Python's own libraries are is none."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _exchange(
    process: _Process, kind: Kind, data: bytes, answer: _Answer, deadline: float, check: Callable[[], None]
) -> None:
    """Gives a process a document while it takes it, and takes its answer. Raises `TimeoutError`."""
    assert process.stdin
    assert process.stdout
    given = memoryview(f"{kind} {len(data)}\n".encode() + data)
    with selectors.DefaultSelector() as pipes:
        for pipe, event in (process.stdin, selectors.EVENT_WRITE), (process.stdout, selectors.EVENT_READ):
            os.set_blocking(pipe.fileno(), False)
            pipes.register(pipe, event)
        while (left := deadline - time.monotonic()) > 0:
            check()
            for key, _ in pipes.select(min(left, _LOOK)):
                if key.fileobj is process.stdin:
                    given = given[_written(key.fd, given) :]
                    if not given:
                        pipes.unregister(process.stdin)
                elif not (piece := os.read(key.fd, _PIECE)) or not answer.take(piece):
                    return
    raise TimeoutError


def _written(pipe: int, data: memoryview) -> int:
    """Writes data to a pipe, and returns how much: all, if nobody reads it any more."""
    try:
        return os.write(pipe, data[:_PIECE])
    except BrokenPipeError:
        return len(data)


def _first_rows(text: str, most: int, check: Callable[[], None]) -> str:
    """Returns the first rows of a CSV text, in which a quoted cell may have several lines."""
    length = rows = quotes = 0
    for number, line in enumerate(io.StringIO(text, newline="")):
        if number % _LINES == 0:
            check()
        length += len(line)
        quotes += line.count('"')
        rows += quotes % 2 == 0
        if rows == most:
            break
    return text[:length]
