"""Cuts long texts into chunks at token boundaries, so that the chunks have as many tokens as the whole text."""

import re
from collections.abc import Iterator
from typing import Any

CHUNK = 1 << 18
"""The usual length of a chunk, in characters."""
_REACH = 1 << 12

# In every encoding, a word or number ends before these characters, whatever follows them.
_WORD = r"[A-Za-z0-9\u4e00-\u9fff\uac00-\ud7a3]"
_NO_WORD = r"""[ \n,;:.(){}\[\]<>=+*/_|#@&%$"!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f-]"""
_SEAM = re.compile(f"(?<={_WORD})(?={_NO_WORD})")


def chunks(text: str, pattern: Any) -> Iterator[str]:
    """Yields the chunks of a text.

    `pattern` is the compiled pattern by which the encoding splits a text into pieces. A chunk has at most one and a
    half times `CHUNK` characters, unless it is a single piece.
    """
    start = 0
    while len(text) - start > CHUNK:
        seam = _SEAM.search(text, start + CHUNK, start + CHUNK + CHUNK // 2)
        end = seam.start() if seam else _end_of_pieces(text, start, pattern)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def is_piece(chunk: str) -> bool:
    """Tells whether a chunk is a single piece, too long to be encoded at once."""
    return len(chunk) > CHUNK + CHUNK // 2


def halves(text: str) -> tuple[str, str]:
    """Cuts a text near its middle. The second half is empty if there is no token boundary nearby."""
    middle = len(text) // 2
    seam = _SEAM.search(text, middle, middle + _REACH)
    end = seam.start() if seam else len(text)
    return text[:end], text[end:]


def _end_of_pieces(text: str, start: int, pattern: Any) -> int:
    """Returns the end of the pieces that fit into a chunk, or of the first piece if that alone does not fit."""
    end = start
    # Matching a long piece takes a while, during which other threads can run.
    for piece in pattern.finditer(text, start, concurrent=True):
        if piece.end() - start > CHUNK and end > start:
            break
        # Spaces that are cut off from what follows them may become one piece instead of two.
        last = text[piece.end() - 1]
        if end == start or last in "\r\n" or not last.isspace():
            end = piece.end()
        if end - start > CHUNK:
            break
    return end
