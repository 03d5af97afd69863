"""Reading what items hold: texts in an encoding, and the texts of files."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from convgrpc.errors import deadline_exceeded
from convgrpc.tokens.encodings import Encoding, chunks, halves
from convgrpc.tokens.extraction import Extractor, Unreadable
from convgrpc.tokens.files import FILE_TOKENS, Kind, document, kind, rendered, tokens_around
from convgrpc.tokens.typescript import TooLarge
from convgrpc.v1.content_pb2 import FILE_DETAIL_HIGH, InputFile
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_FILE,
    ESTIMATE_REASON_LITTLE_EVIDENCE,
    ESTIMATE_REASON_UNSPECIFIED,
    EstimateReason,
)

_SECONDS_A_FILE = 10.0
_SECONDS_ALL_FILES = 15.0
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


class Reader:
    """Reads for one request, in one encoding and in the thread that makes it, until a deadline (`time.monotonic()`).

    One that may not wait raises `WouldWait` where it would have to. `threads` may do halves of what is long, as far as
    they have time. Raises `DeadlineExceeded` after the deadline.
    """

    def __init__(
        self, encoding: Encoding, *, deadline: float = math.inf, may_wait: bool = True, threads: Executor | None = None
    ) -> None:
        self.encoding = encoding
        self._count = encoding.counter()
        self.count = self._count if threads is None else self._count_in_halves
        self._deadline = deadline
        self._may_wait = may_wait
        self._threads = threads
        self._at_once = _MAX_TEXT_AT_ONCE
        self._file_seconds: list[float] = []

    def both(self, first: Callable[["Reader"], R], second: Callable[["Reader"], R]) -> tuple[R, R]:
        """Reads two things, each with a reader of its thread."""
        if self._threads is None:
            return first(self), second(self)
        try:
            other = self._threads.submit(lambda: second(self._twin()))
        except RuntimeError:
            # The threads are being ended, this one as the last.
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
        """The reader of another thread, with one time for the files of both."""
        twin = Reader(self.encoding, deadline=self._deadline)
        twin._file_seconds = self._file_seconds
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
        """The numbers of tokens of texts, which are few."""
        self.check_time()
        if any(len(text) >= _LONG for text in texts):
            return list(map(self._count_in_time, texts))
        return self._count.each(texts)

    def _count_in_time(self, text: str) -> int:
        self.check_time()
        return self.count(text)

    def _count_in_halves(self, text: str) -> int:
        return sum(map(self._count_chunk, chunks(text)))

    def _count_chunk(self, text: str) -> int:
        self.check_time()
        one, other = halves(text) if len(text) >= _LONG else (text, "")
        if not other:
            return self._count(text)
        return sum(self.both(lambda reader: reader._count_chunk(one), lambda reader: reader._count_chunk(other)))

    def check_time(self) -> None:
        """Raises `DeadlineExceeded` after the deadline."""
        if time.monotonic() > self._deadline:
            raise deadline_exceeded()

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
        found = document(part.file_data, part.filename) if part.file_data else None
        known = found and kind(found)
        if not found or not known:
            return File(FILE_TOKENS, ESTIMATE_REASON_FILE)
        extractor, start = self._extractor(), time.monotonic()
        try:
            pages = extractor.pages(found)
        except Unreadable:
            # Of a file that was given up for the deadline's sake, nothing may be remembered.
            self.check_time()
            return File(FILE_TOKENS, ESTIMATE_REASON_FILE)
        finally:
            self._file_seconds.append(time.monotonic() - start)
        tokens = tokens_around(known, pages) + sum(map(self.count, rendered(known, pages)))
        is_sure = known in _WELL_KNOWN and part.detail != FILE_DETAIL_HIGH
        reason = ESTIMATE_REASON_UNSPECIFIED if is_sure else ESTIMATE_REASON_LITTLE_EVIDENCE
        return File(tokens, reason, known is Kind.PDF)

    def _extractor(self) -> Extractor:
        if not self._may_wait:
            raise WouldWait
        self.check_time()
        left_for_all = _SECONDS_ALL_FILES - sum(self._file_seconds)
        left = min(_SECONDS_A_FILE, max(0.1, left_for_all), self._deadline - time.monotonic())
        return Extractor(timeout=left)


def _in_turn(read: Callable[[Reader, Sequence[T]], list[R]], things: Sequence[T], reader: Reader) -> list[R]:
    few = (things[first : first + _FEW] for first in range(0, len(things), _FEW))
    return [result for some in few for result in read(reader, some)]
