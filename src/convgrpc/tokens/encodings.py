"""Encodings: how many tokens a text is. The ranks come with the package, so that nothing is ever downloaded."""

import base64
import copy
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha1, sha256
from pathlib import Path
from types import FunctionType
from typing import Any

import tiktoken
from tiktoken_ext import openai_public

RANKS = Path(__file__).parent / "ranks"

ENCODINGS = ("o200k_base", "o200k_harmony", "cl100k_base")

_SAME_FOR_TEXT = {"o200k_harmony": "o200k_base"}
"""Encodings that differ in special tokens alone: text has none, so that one set of ranks in memory serves both."""

_NO_SPECIAL_TOKENS: set[str] = set()
_TOKEN_BYTES = 4
_SEPARATOR = "<|endoftext|>"

_CHUNK = 1 << 18
# Between two words no token reaches, in any of the encodings: a word ends before the space, which belongs to the next.
_SEAM = re.compile(r"(?<=[a-z])(?= [a-z])")
_REACH = 1 << 12
# In a desert of white space there is no such place, and tiktoken panics where one is longer than half a million
# characters: it is cut all the same, which may make a token more.
_DESERT = 1 << 10

_COPIES = 2
_loading = threading.Lock()


class MissingRanks(Exception):
    """No file with the ranks of an encoding is to be found, or what is found is not what tiktoken expects."""


class Encoding:
    """Counts texts in an encoding. What looks like a special token, such as `<|end|>`, is text like any other.

    `name` is the same for encodings that make the same of all texts.

    tiktoken is faster by a fifth in the first thread that uses an encoding than in all others: the first two that count
    have copies of their own, of some 40 MB each.
    """

    def __init__(self, name: str) -> None:
        self.name = _SAME_FOR_TEXT.get(name, name)
        self._made = {0: load(self.name)}
        self._copies: dict[int, int] = {}
        self._numbering = threading.Lock()

    def count(self, text: str) -> int:
        """The number of tokens of a text."""
        return self.counter()(text)

    def counter(self) -> "ThreadCounter":
        """`count` for a thread that has many texts: the one that asks for it."""
        return ThreadCounter(self._encoding())

    def _encoding(self) -> tiktoken.Encoding:
        thread = threading.get_ident()
        with self._numbering:
            if len(self._copies) < _COPIES:
                self._copies.setdefault(thread, len(self._copies))
        number = self._copies.get(thread, 0)
        if number not in self._made:
            # Whoever needs nothing that is yet to be made waits for nobody who makes something.
            with _loading:
                self._made[number] = _copy(self.name, number)
        return self._made[number]


class ThreadCounter:
    """Counts texts in an encoding, and in one thread."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding
        # What tiktoken makes for numpy: while it makes a list, which takes longer, all other threads stand still.
        self._encode = encoding._core_bpe.encode_to_tiktoken_buffer

    def __call__(self, text: str) -> int:
        return self._count(text) if len(text) <= _CHUNK else sum(map(self._count, chunks(text)))

    def each(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        # Many short ones go in one call: in between, threads would wait for each other rather than count.
        if len(texts) < 2 or sum(map(len, texts)) > _CHUNK:
            return list(map(self, texts))
        whole = _SEPARATOR.join(texts)
        if whole.count(_SEPARATOR) >= len(texts):
            return list(map(self, texts))
        try:
            tokens = bytes(memoryview(self._encode(whole, {_SEPARATOR})))
        except UnicodeEncodeError:
            return list(map(self, texts))
        # As no token is so large as to use its highest byte, the separator's bytes are found nowhere in between.
        separator = self._encoding.eot_token.to_bytes(_TOKEN_BYTES, sys.byteorder)
        return [len(each) // _TOKEN_BYTES for each in tokens.split(separator)]

    def _count(self, text: str) -> int:
        try:
            return memoryview(self._encode(text, _NO_SPECIAL_TOKENS)).nbytes // _TOKEN_BYTES
        except UnicodeEncodeError:
            # Half a surrogate pair, which tiktoken replaces.
            return len(self._encoding.encode_ordinary(text))


def load_copies(name: str) -> None:
    """Makes what threads need that count in an encoding. This takes half a second. Raises `MissingRanks`."""
    with _loading:
        for number in range(_COPIES):
            _copy(_SAME_FOR_TEXT.get(name, name), number)


def load(name: str) -> tiktoken.Encoding:
    """tiktoken's encoding of a name in `ENCODINGS`, made once.

    This takes a few tenths of a second. Ranks in `TIKTOKEN_CACHE_DIR` are used where they are those that tiktoken
    expects. Raises `MissingRanks`.
    """
    with _loading:
        return _load(name)


@cache
def _copy(name: str, number: int) -> tiktoken.Encoding:
    return copy.copy(_load(name)) if number else _load(name)


@cache
def _load(name: str) -> tiktoken.Encoding:
    return tiktoken.Encoding(**_definitions()[name]())


def _definitions() -> dict[str, Any]:
    """tiktoken's own definitions of the encodings, which get their ranks from `_ranks` rather than from the network."""
    namespace: dict[str, Any] = {**vars(openai_public), "load_tiktoken_bpe": _ranks}
    for name in ENCODINGS:
        namespace[name] = FunctionType(getattr(openai_public, name).__code__, namespace, name)
    return namespace


def _ranks(url: str, expected_hash: str) -> dict[bytes, int]:
    candidates = [RANKS / url.rpartition("/")[2]]
    if folder := os.environ.get("TIKTOKEN_CACHE_DIR"):
        candidates.insert(0, Path(folder) / sha1(url.encode()).hexdigest())
    for path in candidates:
        if path.is_file() and sha256(data := path.read_bytes()).hexdigest() == expected_hash:
            return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    raise MissingRanks(f"none of {', '.join(map(str, candidates))} is the file that tiktoken expects")


def chunks(text: str) -> Iterator[str]:
    """Cuts a text that is very long, between tokens where that is possible."""
    start = 0
    while start < len(text):
        end = _end(text, start + _CHUNK)
        yield text[start:end]
        start = end


def halves(text: str) -> tuple[str, str]:
    """Cuts a text after its middle, between tokens. Where there is no such place nearby, the second half is empty."""
    middle = len(text) // 2
    seam = _SEAM.search(text, middle, middle + _REACH)
    end = seam.start() if seam else len(text)
    return text[:end], text[end:]


def _end(text: str, end: int) -> int:
    """The first place from `end` on where a text can be cut."""
    while end < len(text):
        if seam := _SEAM.search(text, end, end + _REACH):
            return seam.start()
        if end >= _DESERT and text[end - _DESERT : end + _DESERT].isspace():
            return end
        end += _REACH
    return len(text)
