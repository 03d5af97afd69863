"""Encodings: how many tokens a text is. The ranks come with the package, so that nothing is ever downloaded."""

import base64
import copy
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha1, sha256
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import regex
import tiktoken
from tiktoken_ext import openai_public

from convgrpc.tokens import chunks

RANKS = Path(__file__).parent / "ranks"

ENCODINGS = ("o200k_base", "o200k_harmony", "cl100k_base")

_SAME_FOR_TEXT = {"o200k_harmony": "o200k_base"}
"""Encodings that differ in special tokens alone: text has none, so that one set of ranks in memory serves both."""

_NO_SPECIAL_TOKENS: set[str] = set()
_TOKEN_BYTES = 4
_SEPARATOR = "<|endoftext|>"

_WINDOW = 1 << 16
"""Characters of a long piece that are encoded at once, which takes some 30 ms."""
_LOOKAHEAD = 1 << 8
_CANDIDATES = 64
"""Tokens at the end of a window that are tried as the last before a cut."""

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
    """Counts texts in an encoding, and in one thread. `pattern` splits texts into the pieces that are encoded alone."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding
        # What tiktoken makes for numpy: while it makes a list, which takes longer, all other threads stand still.
        self._encode = encoding._core_bpe.encode_to_tiktoken_buffer
        self._encode_piece = encoding._core_bpe.encode_single_piece
        self.pattern = _pattern(encoding.name)

    def __call__(self, text: str) -> int:
        return self._count(text) if len(text) <= chunks.CHUNK else sum(self.steps(text))

    def steps(self, text: str) -> Iterator[int]:
        """Counts a text in steps of bounded time, and yields the tokens of each."""
        for chunk in chunks.chunks(text, self.pattern):
            if chunks.is_piece(chunk):
                yield from self._steps_of_piece(_encodable(chunk))
            else:
                yield self._count(chunk)

    def each(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        # Many short ones go in one call: in between, threads would wait for each other rather than count.
        if len(texts) < 2 or sum(map(len, texts)) > chunks.CHUNK:
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
            return memoryview(self._encode(_encodable(text), _NO_SPECIAL_TOKENS)).nbytes // _TOKEN_BYTES

    def _steps_of_piece(self, piece: str) -> Iterator[int]:
        """Counts a piece window by window.

        A sequence of tokens is the encoding of a piece if each two neighbours, encoded together, stay the same two
        tokens (https://github.blog/ai-and-ml/llms/so-many-tokens-so-little-time-introducing-a-faster-more-flexible-byte-pair-tokenizer/).
        So only the two tokens at a cut need to be checked.
        """
        start, size = 0, _WINDOW
        tokens = self._tokens(piece[:size])
        while start + size < len(piece):
            cut = self._cut(tokens, piece, start + size)
            if cut:
                yield cut.tokens
                start, size, tokens = cut.place, _WINDOW, cut.following
            else:
                size *= 2
                tokens = self._tokens(piece[start : start + size])
        yield len(tokens)

    def _cut(self, tokens: Sequence[int], piece: str, end: int) -> "_Cut | None":
        """Finds a cut near the end of a window. `tokens` are those of the window."""
        rest = b""
        for kept in range(len(tokens) - 1, max(0, len(tokens) - _CANDIDATES), -1):
            rest = self._bytes(tokens[kept]) + rest
            if _is_inside_character(rest):
                continue
            place = end - len(rest.decode())
            # A short look ahead rules out most places that are wrong.
            for size in (_LOOKAHEAD, _WINDOW):
                following = self._tokens(piece[place : place + size])
                if not self._stay_apart(tokens[kept - 1], following[0]):
                    break
            else:
                return _Cut(kept, place, following)
        return None

    def _tokens(self, part: str) -> Sequence[int]:
        """Encodes a part of a piece as one piece."""
        match = self.pattern.match(part, concurrent=True)
        if match and match.end() == len(part):
            return memoryview(bytes(memoryview(self._encode(part, _NO_SPECIAL_TOKENS)))).cast("I")
        tokens: Sequence[int] = self._encode_piece(part.encode())
        return tokens

    def _stay_apart(self, one: int, other: int) -> bool:
        return list(self._encode_piece(self._bytes(one) + self._bytes(other))) == [one, other]

    def _bytes(self, token: int) -> bytes:
        return self._encoding.decode_single_token_bytes(token)


class _Cut(NamedTuple):
    """A cut in a piece: the number of tokens before it, its place, and the tokens of the window after it."""

    tokens: int
    place: int
    following: Sequence[int]


def _is_inside_character(data: bytes) -> bool:
    return data[0] & 0xC0 == 0x80


def _encodable(text: str) -> str:
    """Replaces halves of surrogate pairs, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _pattern(name: str) -> Any:
    return regex.compile(_load(name)._pat_str)


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
