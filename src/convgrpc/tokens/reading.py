"""Reading what items hold: texts in an encoding, and the texts of files."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import chain
from typing import NamedTuple, Protocol, Self, TypeVar

from convgrpc.errors import deadline_exceeded
from convgrpc.tokens.chunks import chunks, halves, is_piece
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.extraction import Extractor, FileBudget, NotRead, StartProcess, Unreadable
from convgrpc.tokens.files import FILE_TOKENS, Kind, document, kind, rendered, tokens_around
from convgrpc.tokens.typescript import TooLarge
from convgrpc.v1.content_pb2 import FILE_DETAIL_HIGH, InputFile
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_FILE,
    ESTIMATE_REASON_LITTLE_EVIDENCE,
    ESTIMATE_REASON_UNSPECIFIED,
    EstimateReason,
)

_WELL_KNOWN = (Kind.PDF, Kind.DOCX, Kind.TEXT)


_MAX_TEXT = 1 << 20
"""How many characters the declarations of a request's tools, or of an item's, may come to."""
_MAX_TEXT_AT_ONCE = 1 << 16
_LONG = 1 << 14
"""How many characters are worth another thread: some milliseconds."""
_FEW = 64
_MANY = 512
"""How many things are read at a time, and how many before others have a turn at the other thread."""

T = TypeVar("T")
R = TypeVar("R")


class WouldWait(Exception):
    """There is a file, whose text takes a process and a wait, or there is more to write than can be done at once."""


class File(NamedTuple):
    """A file in a request: its tokens, the reason why they are an estimate if they are, and whether it is a PDF."""

    tokens: int
    reason: EstimateReason.ValueType
    is_pdf: bool = False


class CallLimits:
    """The limits of reading for one call: a deadline (`time.monotonic()`), and how many files. Threads may share it.

    `is_partial` tells that a file was not read because of them, so that its count must not be remembered.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.files = FileBudget()
        self.is_partial = False
        self._deadline = deadline

    def end(self) -> None:
        """Has all reading for the call end soon, because the call has ended."""
        self._deadline = -math.inf

    def check(self) -> None:
        """Raises `DeadlineExceeded` after the deadline, or when the call has ended."""
        if time.monotonic() > self._deadline:
            raise deadline_exceeded()


class OtherThread(Protocol):
    """Starts work in another thread that has time for it, or returns None if none has."""

    def __call__(self, work: Callable[[], R], /) -> "Future[R] | None": ...


class Reader:
    """Reads for one call, in one encoding and in the thread that makes it. `close` it: it may have a process.

    One that may not wait raises `WouldWait` where it would have to. `other_thread` starts halves of long work
    elsewhere. `start_process` starts a process that reads documents. Raises `DeadlineExceeded` when the call has to
    end.
    """

    def __init__(
        self,
        encoding: Encoding,
        limits: CallLimits | None = None,
        *,
        may_wait: bool = True,
        other_thread: OtherThread | None = None,
        start_process: StartProcess | None = None,
    ) -> None:
        self.encoding = encoding
        self._counter = encoding.counter()
        self._limits = limits or CallLimits()
        self.check_time = self._limits.check
        self._may_wait = may_wait
        self._other_thread = other_thread
        self._at_once = _MAX_TEXT_AT_ONCE
        self._extractor: Extractor | None = None
        if may_wait:
            self._extractor = Extractor(budget=self._limits.files, start=start_process, check=self._limits.check)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        if self._extractor:
            self._extractor.close()

    def both(self, first: Callable[["Reader"], R], second: Callable[["Reader"], R]) -> tuple[R, R]:
        """Reads two things, each with a reader of its thread."""
        other = self._other_thread(lambda: second(self._twin())) if self._other_thread else None
        if other is None:
            return first(self), second(self)
        try:
            one = first(self)
        except BaseException:
            # If it has begun, it ends by itself, after a few things more.
            other.cancel()
            raise
        # What no thread has begun by now is done sooner here than waited for.
        return one, second(self) if other.cancel() else other.result()

    def _twin(self) -> "Reader":
        """Returns the reader of another thread, with the same limits and the same process for documents."""
        twin = Reader(self.encoding, self._limits)
        twin._extractor = self._extractor
        return twin

    def each(self, read: Callable[["Reader", Sequence[T]], list[R]], things: Sequence[T]) -> list[R]:
        """What is read of each of many things, by two threads and a few at a time: what the one parses, for which it
        needs the interpreter, it parses while the other counts, for which that does not.
        """
        results: list[R] = []
        for first in range(0, len(things), _MANY):
            some = things[first : first + _MANY]
            middle = len(some) // 2 if len(some) > _FEW else len(some)
            one, other = (partial(_in_turn, read, half) for half in (some[:middle], some[middle:]))
            results += chain(*self.both(one, other)) if middle < len(some) else one(self)
        return results

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Returns the numbers of tokens of texts, which are few."""
        self.check_time()
        if any(len(text) >= _LONG for text in texts):
            return list(map(self.count, texts))
        return self._counter.each(texts)

    def count(self, text: str) -> int:
        """Returns the number of tokens of a text. Another thread may count half of it."""
        self.check_time()
        if len(text) < _LONG:
            return self._counter(text)
        return sum(map(self._count_chunk, chunks(text, self._counter.pattern)))

    def _count_chunk(self, chunk: str) -> int:
        self.check_time()
        if is_piece(chunk):
            return self._count_piece(chunk)
        one, other = halves(chunk) if self._other_thread and len(chunk) >= _LONG else (chunk, "")
        if not other:
            return self._counter(chunk)
        return sum(self.both(lambda reader: reader._count_chunk(one), lambda reader: reader._count_chunk(other)))

    def _count_piece(self, piece: str) -> int:
        tokens = 0
        for step in self._counter.steps(piece):
            tokens += step
            self.check_time()
        return tokens

    def allowance(self) -> Callable[[int], None]:
        """What to charge with the characters of declarations that belong together; raises `TooLarge` past a bound."""
        left = _MAX_TEXT

        def charge(characters: int) -> None:
            nonlocal left
            left -= characters
            if left < 0:
                raise TooLarge
            if not self._may_wait:
                self._at_once -= characters
                if self._at_once < 0:
                    raise WouldWait

        return charge

    def file(self, part: InputFile) -> File:
        """Counts a file, if it came with the request and its text can be read."""
        if part.file_data and not self._extractor:
            raise WouldWait
        found = document(part.file_data, part.filename, self.check_time) if part.file_data else None
        known = found and kind(found)
        if not found or not known:
            return File(FILE_TOKENS, ESTIMATE_REASON_FILE)
        if not self._extractor:
            raise WouldWait
        self.check_time()
        try:
            pages = self._extractor.pages(found)
        except Unreadable as error:
            self._limits.is_partial = self._limits.is_partial or isinstance(error, NotRead)
            return File(FILE_TOKENS, ESTIMATE_REASON_FILE)
        tokens = tokens_around(known, pages) + sum(map(self.count, rendered(known, pages)))
        is_sure = known in _WELL_KNOWN and part.detail != FILE_DETAIL_HIGH
        reason = ESTIMATE_REASON_UNSPECIFIED if is_sure else ESTIMATE_REASON_LITTLE_EVIDENCE
        return File(tokens, reason, known is Kind.PDF)


def _in_turn(read: Callable[[Reader, Sequence[T]], list[R]], things: Sequence[T], reader: Reader) -> list[R]:
    few = (things[first : first + _FEW] for first in range(0, len(things), _FEW))
    return [result for some in few for result in read(reader, some)]
