"""The process that reads documents: `python extraction_process.py LIMIT…`, with the fields of `Limits` in their order.

It reads requests from its standard input until that ends, and answers each on its standard output. A request is a line
with the kind and the size of a document, followed by its bytes. An answer is the pages, each after its size in 4 bytes,
then `END` and one byte with a `Status`.

It needs nothing but Python's own library and the libraries that read documents. So it is started by its path.
"""

import csv
import importlib
import io
import os
import resource
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

MEBIBYTE = 1 << 20
_MAX_UNPACKED = 100 * MEBIBYTE
_MAX_ENTRIES = 10_000
_MAX_RATIO = 100
_MAX_UNPACKED_OF_ANY_RATIO = 1 * MEBIBYTE
"""The limits of what the files in a container unpack to. A container past them was made to do harm."""

SIZE_BYTES = 4
END = b"\xff" * SIZE_BYTES
"""Stands where the size of another page would, which is always less."""


class Limits(NamedTuple):
    """The limits of the process: memory in bytes, CPU time in seconds. And of each answer: pages, rows of a sheet, and
    text in bytes.
    """

    memory: int
    seconds: int
    pages: int
    rows: int
    text: int


class Status(IntEnum):
    """How the reading of a document ended."""

    READ = 0
    NO_LIBRARY = 10
    ENCRYPTED = 11
    BROKEN = 12
    UNPACKS_TO_TOO_MUCH = 13
    TOO_MANY_PAGES = 14
    TOO_MUCH_TEXT = 15
    TOO_LITTLE_MEMORY = 16
    DIED = 17
    """The process ended without an answer."""


class _Failed(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


def _pdf(data: bytes, limits: Limits) -> Iterator[str]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        is_encrypted = error.err_code in (pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY)
        raise _Failed(Status.ENCRYPTED if is_encrypted else Status.BROKEN) from None
    if len(document) > limits.pages:
        raise _Failed(Status.TOO_MANY_PAGES)
    for page in document:
        yield page.get_textpage().get_text_range().replace("\r\n", "\n")
        page.close()


def _docx(data: bytes, limits: Limits) -> Iterator[str]:
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


def _xlsx(data: bytes, limits: Limits) -> Iterator[str]:
    import openpyxl

    book = openpyxl.load_workbook(_container(data), read_only=True, data_only=True, keep_links=False)
    if len(book.worksheets) > limits.pages:
        raise _Failed(Status.TOO_MANY_PAGES)
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
            raise _Failed(Status.TOO_MUCH_TEXT)
    return written.getvalue().rstrip("\n")


def _container(data: bytes) -> io.BytesIO:
    """Opens a container, and checks that its files can be unpacked."""
    # An encrypted document is a container of another kind.
    if "EncryptedPackage".encode("utf-16-le") in data and data.startswith(_COMPOUND):
        raise _Failed(Status.ENCRYPTED)
    container = io.BytesIO(data)
    with zipfile.ZipFile(container) as archive:
        entries = archive.infolist()
    if any(entry.flag_bits & 1 for entry in entries):
        raise _Failed(Status.ENCRYPTED)
    # Whatever its data are like, a file is unpacked up to the size that it says.
    unpacked = sum(entry.file_size for entry in entries)
    most = min(_MAX_UNPACKED, max(_MAX_UNPACKED_OF_ANY_RATIO, _MAX_RATIO * len(data)))
    if unpacked > most or len(entries) > _MAX_ENTRIES:
        raise _Failed(Status.UNPACKS_TO_TOO_MUCH)
    return container


_COMPOUND = b"\xd0\xcf\x11\xe0"


class _Reader(NamedTuple):
    """The function that reads a kind of document, and the modules that it needs."""

    read: Callable[[bytes, Limits], Iterator[str]]
    modules: tuple[str, ...]


_READERS: Mapping[str, _Reader] = {
    "pdf": _Reader(_pdf, ("pypdfium2",)),
    "docx": _Reader(_docx, ("docx",)),
    "xlsx": _Reader(_xlsx, ("defusedxml.ElementTree", "openpyxl")),
}


def _serve(limits: Limits) -> None:
    """Answers requests until there are no more."""
    _confine(limits)
    _keep_openpyxl_safe()
    available = {kind for kind, reader in _READERS.items() if _import(reader)}
    _limit_memory(limits.memory)
    _shut_files()
    while request := sys.stdin.buffer.readline():
        kind, size = request.decode().split()
        data = sys.stdin.buffer.read(int(size))
        status = _answer(kind, data, limits) if kind in available else Status.NO_LIBRARY
        sys.stdout.buffer.write(END + status.to_bytes(1))
        sys.stdout.buffer.flush()
        if status is Status.TOO_LITTLE_MEMORY:
            return


def _answer(kind: str, data: bytes, limits: Limits) -> Status:
    """Reads a document and writes its pages."""
    try:
        _write(_READERS[kind].read(data, limits), limits.text)
    except _Failed as failed:
        return failed.status
    except MemoryError:
        return Status.TOO_LITTLE_MEMORY
    except Exception:
        return Status.BROKEN
    return Status.READ


def _confine(limits: Limits) -> None:
    """Limits the CPU time of this process, and forbids it to start others."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits.seconds)
    _limit(resource.RLIMIT_NPROC, 0)
    with suppress(OSError):
        # Where the whole machine is short of memory, this process goes rather than the server.
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.nice(10)


def _limit_memory(more: int) -> None:
    """Limits the memory that this process can still get."""
    # macOS does not enforce this limit.
    if sys.platform != "darwin":
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (value, value))


_ENCODINGS = tuple(f"encodings.{name}" for name in ("ascii", "cp437", "cp1252", "latin_1", "utf_16", "utf_16_le"))
"""The encodings that the readers ask for by name, at which Python would load them."""


def _import(reader: _Reader) -> bool:
    """Imports the modules of a reader, and tells whether all are there."""
    try:
        for module in (*reader.modules, *_ENCODINGS):
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def _keep_openpyxl_safe() -> None:
    """Has openpyxl read XML by defusedxml rather than lxml, and do without NumPy, which takes long to import."""
    blocked: Any = None
    sys.modules["numpy"] = blocked
    os.environ["OPENPYXL_LXML"] = "False"


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
            raise _Failed(Status.TOO_MUCH_TEXT)
        out.write(len(text).to_bytes(SIZE_BYTES) + text)


if __name__ == "__main__":
    _serve(Limits(*map(int, sys.argv[1:])))
    # A broken document may have left behind what Python trips over at its end.
    os._exit(0)
