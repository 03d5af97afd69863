"""The text of documents, read where what is in them can do no harm: each in a process of its own, with little allowed.

This file is also what that process runs, by its path: up to its last lines it needs nothing but Python's own library.
"""

import csv
import importlib
import io
import math
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

if __name__ != "__main__":
    # The process has no use for these, and they take longer to load than most documents take to read.
    from convgrpc.tokens.files import MAX_ROWS, Document, Kind, kind

_MEBIBYTE = 1 << 20
_MAX_UNPACKED = 100 * _MEBIBYTE
_MAX_ENTRIES = 10_000
_MAX_RATIO = 100
_MAX_UNPACKED_OF_ANY_RATIO = 1 * _MEBIBYTE
"""What the files in a container may come to: more than that, and it was made to do harm."""

COMMAND = (sys.executable, "-I", str(Path(__file__).resolve()))
"""Runs the process that reads a document."""


class Unreadable(Exception):
    """The text of a document cannot be had. `reason` says why, in words for whoever sent it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Limits(NamedTuple):
    """What the process may use, in bytes and seconds, and what its answer may have."""

    memory: int
    seconds: int
    pages: int
    rows: int
    text: int


class _Failure(IntEnum):
    """Why the process has no answer, told by its exit status. Python itself uses small ones."""

    NO_LIBRARY = 10
    ENCRYPTED = 11
    BROKEN = 12
    UNPACKS_TO_TOO_MUCH = 13
    TOO_MANY_PAGES = 14
    TOO_MUCH_TEXT = 15
    TOO_LITTLE_MEMORY = 16


class Extractor:
    """Reads the text of documents. Several threads may use it, each of which then has a process of its own to wait for.

    A document may take `timeout` seconds and `memory` bytes, and have `max_pages` pages or sheets and `max_text` bytes
    of text.
    """

    def __init__(
        self,
        timeout: float = 10.0,
        memory: int = 512 * _MEBIBYTE,
        max_pages: int = 1000,
        max_text: int = 10 * _MEBIBYTE,
    ) -> None:
        self.timeout = timeout
        # Processor time is there for a process whose parent has gone: it is never the first to run out.
        self._limits = _Limits(memory, math.ceil(timeout) + 1, max_pages, MAX_ROWS, max_text)

    def pages(self, document: "Document") -> list[str]:
        """The text of each page, or of each sheet as CSV. What has no pages is one. Raises `Unreadable`."""
        found = kind(document)
        if found is None:
            raise Unreadable("no text can be read from a file of this type")
        if found not in (Kind.TEXT, Kind.CSV):
            return self._extracted(found, document.data)
        text = self._decoded(document.data)
        return [_first_rows(text, MAX_ROWS) if found is Kind.CSV else text]

    def _decoded(self, data: bytes) -> str:
        if len(data) > self._limits.text:
            raise self._unreadable("text", _Failure.TOO_MUCH_TEXT)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unreadable("the text is not in UTF-8") from None

    def _extracted(self, kind: "Kind", data: bytes) -> list[str]:
        try:
            status, answer = self._run(kind, data)
        except (subprocess.TimeoutExpired, TimeoutError):
            raise Unreadable(f"reading it took longer than {self.timeout:g} s") from None
        except OSError as error:
            raise Unreadable(f"there is no process to read it in: {error.strerror}") from None
        if status == 0:
            return self._received(kind, answer)
        raise self._unreadable(kind, status)

    def _run(self, kind: "Kind", data: bytes) -> tuple[int, bytes]:
        """The exit status of a process that was given a document, and its answer."""
        deadline = time.monotonic() + self.timeout
        process = subprocess.Popen(
            [*COMMAND, kind, *map(str, self._limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        with process:
            try:
                answer = self._exchange(process, kind, data, deadline)
                return process.wait(max(0, deadline - time.monotonic())), answer
            finally:
                # The group outlives the process where that left others behind.
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _exchange(self, process: "subprocess.Popen[bytes]", kind: "Kind", data: bytes, deadline: float) -> bytes:
        """Gives a process a document while it takes it, and takes its answer."""
        assert process.stdin
        assert process.stdout
        given, answer = memoryview(data), bytearray()
        most = self._limits.text + _LENGTH * self._limits.pages
        with selectors.DefaultSelector() as pipes:
            for pipe, event in (process.stdin, selectors.EVENT_WRITE), (process.stdout, selectors.EVENT_READ):
                os.set_blocking(pipe.fileno(), False)
                pipes.register(pipe, event)
            while (left := deadline - time.monotonic()) > 0:
                for key, _ in pipes.select(left):
                    if key.fileobj is process.stdin:
                        given = given[_written(key.fd, given) :]
                        if not given:
                            pipes.unregister(process.stdin)
                            process.stdin.close()
                    elif piece := os.read(key.fd, _PIECE):
                        answer += piece
                    else:
                        return bytes(answer)
                if len(answer) > most:
                    raise self._unreadable(kind, _Failure.TOO_MUCH_TEXT)
        raise TimeoutError

    def _received(self, kind: "Kind", answer: bytes) -> list[str]:
        pages: list[str] = []
        start = 0
        while start < len(answer):
            if len(pages) == self._limits.pages:
                raise self._unreadable(kind, _Failure.TOO_MANY_PAGES)
            end = start + _LENGTH + int.from_bytes(answer[start : start + _LENGTH])
            pages.append(answer[start + _LENGTH : end].decode("utf-8", "replace"))
            start = end
        return pages

    def _unreadable(self, kind: str, status: int) -> Unreadable:
        name, memory = kind.upper(), f"{self._limits.memory / _MEBIBYTE:g} MiB of memory"
        reasons: dict[int, str] = {
            _Failure.NO_LIBRARY: f"needs {_LIBRARIES.get(kind)}: pip install 'convgrpc[files]'",
            _Failure.ENCRYPTED: f"the {name} is encrypted",
            _Failure.BROKEN: f"the {name} is broken",
            _Failure.UNPACKS_TO_TOO_MUCH: f"the {name} unpacks to more than is allowed",
            _Failure.TOO_MANY_PAGES: f"more than {self._limits.pages} {'sheets' if kind == 'xlsx' else 'pages'}",
            _Failure.TOO_MUCH_TEXT: f"more than {self._limits.text / _MEBIBYTE:g} MiB of text",
            _Failure.TOO_LITTLE_MEMORY: f"reading it takes more than {memory}",
        }
        # Where memory runs out below Python, the process just dies.
        return Unreadable(reasons.get(status, f"the {name} is broken, or takes more than {memory}"))


_LIBRARIES: Mapping[str, str] = {"pdf": "'pypdfium2'", "docx": "'python-docx'", "xlsx": "'openpyxl' and 'defusedxml'"}
_PIECE = 1 << 16
_LENGTH = 4
"""The bytes before each page in an answer, which say how many it has."""


def _environment() -> dict[str, str]:
    """Nothing that is a secret of the server's; where Python's own libraries are is none."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _written(pipe: int, data: memoryview) -> int:
    """How much of the data went into a pipe: as good as all, where nobody reads it any more."""
    try:
        return os.write(pipe, data[:_PIECE])
    except BrokenPipeError:
        return len(data)


def _first_rows(text: str, most: int) -> str:
    """The first rows of a CSV text, in which a quoted cell may have several lines."""
    length = rows = quotes = 0
    for line in io.StringIO(text, newline=""):
        length += len(line)
        quotes += line.count('"')
        rows += quotes % 2 == 0
        if rows == most:
            break
    return text[:length]


# What follows is run in the process.


class _Failed(Exception):
    def __init__(self, failure: _Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def _pdf(data: bytes, limits: _Limits) -> Iterator[str]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        is_encrypted = error.err_code in (pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY)
        raise _Failed(_Failure.ENCRYPTED if is_encrypted else _Failure.BROKEN) from None
    if len(document) > limits.pages:
        raise _Failed(_Failure.TOO_MANY_PAGES)
    for page in document:
        yield page.get_textpage().get_text_range().replace("\r\n", "\n")
        page.close()


def _docx(data: bytes, limits: _Limits) -> Iterator[str]:
    import docx

    yield "\n".join(_lines(docx.Document(_container(data)).element.body))


_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HOLDERS = frozenset(_WORD + name for name in ("tbl", "sdt", "sdtContent", "customXml"))


def _lines(parent: Iterable[Any]) -> Iterator[str]:
    """The paragraphs and the rows of tables in a part of a document, in their order."""
    for element in parent:
        if element.tag == _WORD + "p":
            yield element.text
        elif element.tag == _WORD + "tr":
            yield "\t".join("\n".join(_lines(cell)) for cell in element if cell.tag == _WORD + "tc")
        elif element.tag in _HOLDERS:
            yield from _lines(element)


def _xlsx(data: bytes, limits: _Limits) -> Iterator[str]:
    import openpyxl

    book = openpyxl.load_workbook(_container(data), read_only=True, data_only=True, keep_links=False)
    if len(book.worksheets) > limits.pages:
        raise _Failed(_Failure.TOO_MANY_PAGES)
    for sheet in book.worksheets:
        # What a sheet says of its size is as much as its author liked to say.
        sheet.reset_dimensions()
        yield _csv(sheet.iter_rows(max_row=limits.rows, values_only=True), limits.text)


def _csv(rows: Iterable[tuple[Any, ...]], most: int) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for row in rows:
        filled = next((count for count in range(len(row), 0, -1) if row[count - 1] is not None), 0)
        writer.writerow(row[:filled])
        if written.tell() > most:
            raise _Failed(_Failure.TOO_MUCH_TEXT)
    return written.getvalue().rstrip("\n")


def _container(data: bytes) -> io.BytesIO:
    """A container of which it is known that its files can be unpacked."""
    # An encrypted document is a container of another kind.
    if "EncryptedPackage".encode("utf-16-le") in data and data.startswith(_COMPOUND):
        raise _Failed(_Failure.ENCRYPTED)
    container = io.BytesIO(data)
    with zipfile.ZipFile(container) as archive:
        entries = archive.infolist()
    if any(entry.flag_bits & 1 for entry in entries):
        raise _Failed(_Failure.ENCRYPTED)
    # Whatever its data are like, a file is unpacked up to the size that it says.
    unpacked = sum(entry.file_size for entry in entries)
    most = min(_MAX_UNPACKED, max(_MAX_UNPACKED_OF_ANY_RATIO, _MAX_RATIO * len(data)))
    if unpacked > most or len(entries) > _MAX_ENTRIES:
        raise _Failed(_Failure.UNPACKS_TO_TOO_MUCH)
    return container


_COMPOUND = b"\xd0\xcf\x11\xe0"


class _Reader(NamedTuple):
    """How a kind is read, what has to be imported for that, and what must not be."""

    read: Callable[[bytes, _Limits], Iterator[str]]
    modules: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


_READERS: Mapping[str, _Reader] = {
    "pdf": _Reader(_pdf, ("pypdfium2",)),
    "docx": _Reader(_docx, ("docx",)),
    # openpyxl would rather read with lxml, which nothing defuses, and loads NumPy where there is one.
    "xlsx": _Reader(_xlsx, ("defusedxml.ElementTree", "openpyxl"), ("lxml", "numpy")),
}


def _answer(kind: str, limits: _Limits) -> int:
    """Reads a document from the standard input and writes its pages to the standard output. Returns the exit status."""
    try:
        _confine(limits)
        reader = _READERS[kind]
        _import(reader)
        _shut_files()
        _write(reader.read(sys.stdin.buffer.read(), limits), limits.text)
    except _Failed as failed:
        return failed.failure
    except MemoryError:
        return _Failure.TOO_LITTLE_MEMORY
    except Exception:
        return _Failure.BROKEN
    return 0


def _confine(limits: _Limits) -> None:
    """Leaves this process no more than it may use."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits.seconds)
    _limit(resource.RLIMIT_NPROC, 0)
    with suppress(OSError):
        # Where the whole machine is short of memory, this process goes rather than the server.
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.nice(10)
    # Some systems, which are not meant for servers, have no such limit.
    if sys.platform != "darwin":
        _limit(resource.RLIMIT_AS, limits.memory)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (value, value))


_ENCODINGS = tuple(f"encodings.{name}" for name in ("ascii", "cp437", "cp1252", "latin_1", "utf_16", "utf_16_le"))
"""Those that the readers ask for by name, which is when Python loads them."""


def _import(reader: _Reader) -> None:
    blocked: Any = None
    sys.modules.update(dict.fromkeys(reader.unwanted, blocked))
    try:
        for module in (*reader.modules, *_ENCODINGS):
            importlib.import_module(module)
    except ImportError:
        raise _Failed(_Failure.NO_LIBRARY) from None


def _shut_files() -> None:
    """Lets this process open no file and no connection, nor write any file."""
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 0)


def _write(pages: Iterable[str], most: int) -> None:
    out = sys.stdout.buffer
    for page in pages:
        text = page.encode("utf-8", "replace")
        most -= len(text)
        if most < 0:
            raise _Failed(_Failure.TOO_MUCH_TEXT)
        out.write(len(text).to_bytes(_LENGTH) + text)
    out.flush()


if __name__ == "__main__":
    # Without what Python does at its end, which a broken document could have spoiled.
    os._exit(_answer(sys.argv[1], _Limits(*map(int, sys.argv[2:]))))
