"""Identifiers of conversations, responses and items.

An id is a prefix and 48 hexadecimal digits. The last 16 of an item's are those of the conversation, or of the response
on none, that it was first added to, so that all ids of a conversation lead to the same place; the 8 before them are a
checksum of the others, by which an id of this service's making is told from those of the hosted API.
"""

import os
from secrets import token_hex
from zlib import crc32

_DIGITS = 48
_PIECE = 16
_PIECES_AT_ONCE = 256
_SUM = slice(24, 32)


def conversation_id() -> str:
    """A new conversation's id: `conv_…`."""
    return f"conv_{_digits(48)}"


def response_id() -> str:
    """A new response's id: `resp_…`."""
    return f"resp_{_digits(48)}"


def item_id(prefix: str, holder: str, now: float) -> str:
    """A new item's id, given its kind's prefix, the id of its conversation or response, and the Unix time.

    Ids begin with the time, so that a database finds those of one moment side by side.
    """
    head, tail = f"{int(now):08x}{_digits(16)}", holder[-16:]
    return f"{prefix}_{head}{_checksum(head, tail)}{tail}"


def is_minted(item_id: str) -> bool:
    """Whether an item's id is of this service's making."""
    digits = item_id.rpartition("_")[2]
    return len(digits) == _DIGITS and digits[_SUM] == _checksum(digits[: _SUM.start], digits[_SUM.stop :])


def _checksum(head: str, tail: str) -> str:
    return f"{crc32((head + tail).encode()):08x}"


def request_id() -> str:
    """A new request's id: `req_…`."""
    return f"req_{_digits(32)}"


# Asking the system takes a turn of all threads that wait for this one: it is asked for many at once.
_pieces: list[str] = []
# Two processes would otherwise make the same ids.
os.register_at_fork(after_in_child=_pieces.clear)


def _digits(count: int) -> str:
    """So many random hexadecimal digits, in whatever thread; a multiple of 16."""
    return "".join(_piece() for _ in range(0, count, _PIECE))


def _piece() -> str:
    try:
        return _pieces.pop()
    except IndexError:
        digits = token_hex(_PIECES_AT_ONCE * _PIECE // 2)
        _pieces.extend(digits[start : start + _PIECE] for start in range(_PIECE, len(digits), _PIECE))
        return digits[:_PIECE]
