"""Encodings: how many tokens a text is. The ranks come with the package, so that nothing is ever downloaded."""

import base64
import os
import re
import threading
from collections.abc import Iterator
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

_CHUNK = 1 << 16
# Between two words no token reaches, in any of the encodings: a word ends before the space, which belongs to the next.
# In a desert of white space it may, but tiktoken panics where that is longer than half a million characters.
_SEAM = re.compile(r"(?<=[a-z])(?= [a-z])|(?<=\s{4096})")

_loading = threading.Lock()


class MissingRanks(Exception):
    """No file with the ranks of an encoding is to be found, or what is found is not what tiktoken expects."""


class Encoding:
    """Counts texts in an encoding. What looks like a special token, such as `<|end|>`, is text like any other.

    `name` is the same for encodings that make the same of all texts.
    """

    def __init__(self, name: str) -> None:
        self.name = _SAME_FOR_TEXT.get(name, name)
        self._encode = load(self.name).encode_ordinary

    def count(self, text: str) -> int:
        """The number of tokens of a text."""
        if len(text) <= _CHUNK:
            return len(self._encode(text))
        return sum(len(self._encode(chunk)) for chunk in _chunks(text))


def load(name: str) -> tiktoken.Encoding:
    """tiktoken's encoding of a name in `ENCODINGS`, made once; this takes a few tenths of a second.

    Ranks in `TIKTOKEN_CACHE_DIR` are used where they are those that tiktoken expects. Raises `MissingRanks`.
    """
    with _loading:
        return _load(name)


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


def _chunks(text: str) -> Iterator[str]:
    """Cuts a long text between tokens: while the list of a text's tokens is made, all other threads stand still."""
    start = 0
    while start + _CHUNK < len(text) and (seam := _SEAM.search(text, start + _CHUNK)):
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]
