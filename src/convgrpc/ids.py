"""Identifiers of conversations, responses and items.

An id is a prefix and 48 hexadecimal digits. The last 16 of an item's are those of the conversation, or of the response
on none, that it was first added to, so that all ids of a conversation lead to the same place; the 8 before them are a
checksum of the others, by which an id of this service's making is told from those of the hosted API.
"""

from secrets import token_hex
from zlib import crc32

_DIGITS = 48
_SUM = slice(24, 32)
_NOISE = 8


def conversation_id() -> str:
    """A new conversation's id: `conv_…`."""
    return f"conv_{token_hex(24)}"


def response_id() -> str:
    """A new response's id: `resp_…`."""
    return f"resp_{token_hex(24)}"


def item_id(prefix: str, holder: str, now: float, noise: str = "") -> str:
    """A new item's id, given its kind's prefix, the id of its conversation or response, and the Unix time.

    Ids begin with the time, so that a database finds those of one moment side by side. `noise` is one of those made by
    `noises`, for this id alone.
    """
    head, tail = f"{int(now):08x}{noise or token_hex(_NOISE)}", holder[-16:]
    return f"{prefix}_{head}{_checksum(head, tail)}{tail}"


def noises(count: int) -> list[str]:
    """What makes so many items' ids differ from all others: the system is asked for it once."""
    noise, size = token_hex(_NOISE * count), 2 * _NOISE
    return [noise[start : start + size] for start in range(0, len(noise), size)]


def is_minted(item_id: str) -> bool:
    """Whether an item's id is of this service's making."""
    digits = item_id.rpartition("_")[2]
    return len(digits) == _DIGITS and digits[_SUM] == _checksum(digits[: _SUM.start], digits[_SUM.stop :])


def _checksum(head: str, tail: str) -> str:
    return f"{crc32((head + tail).encode()):08x}"


def request_id() -> str:
    """A new request's id: `req_…`."""
    return f"req_{token_hex(16)}"
