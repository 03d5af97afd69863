"""JSON text to values and back, where nothing may be lost on the way.

orjson is used where it is installed: with the server, but not with the client alone.
"""

import json
import re
from collections import Counter
from typing import Any

from convgrpc.contract import faults
from convgrpc.contract.faults import ROOT

try:
    import orjson
except ImportError:
    from convgrpc.contract import json_standard as orjson  # type: ignore[no-redef]

Fragment = orjson.Fragment
"""JSON text that stands in a value as it is, for `dump_spliced`."""

MAX_VALUES = 1 << 19
"""How many values JSON text may have: each takes up to a hundred times the bytes that spell it."""

# A search through all of a large text would stop the process meanwhile: no other thread runs during it.
_WINDOW = 1 << 18
_OVERLAP = 32
_IN_STRING = re.compile(rb'(?:[^"\\]+|\\.){0,5000}', re.DOTALL)
_TOO_DEEP = "depth limit"
_LONG_NUMBER = re.compile(rb"\d{19}")
# Their first letters are literal, which makes the search several times as fast. A quotation mark after a backslash is
# within a string, unless that backslash is the second of two.
_KEY_END = re.compile(rb'"(?<!\\")\s*:')
_MAYBE_KEY_END = re.compile(rb'\\\\"\s*:')


def parse(text: bytes) -> Any:
    """The value that JSON text spells; integers are exact, up to some 300 digits.

    Raises InvalidArgument when it is no JSON, or has a key twice in one object; and ResourceExhausted when it has so
    many values that they would take up the memory.
    """
    _check_size(text)
    try:
        value = orjson.loads(text)
        if _is_blank_between_windows(text) or _has(_MAYBE_KEY_END, text) or _count_key_ends(text) != _count_keys(value):
            _refuse_duplicates(text)
        # orjson rounds integers that need more than 64 bits; it is asked first all the same, because the standard
        # library lets lone surrogates and NaN pass.
        return json.loads(text) if _has(_LONG_NUMBER, text) else value
    except RecursionError:
        raise faults.too_deep(ROOT) from None
    except ValueError as error:
        # orjson tells only in its message that it gave up.
        raise (faults.too_deep(ROOT) if _TOO_DEEP in str(error) else faults.invalid_json()) from None


def load(text: str) -> Any:
    """The value of JSON text that `parse` has accepted before."""
    data = text.encode()
    return json.loads(data) if _has(_LONG_NUMBER, data) else orjson.loads(data)


def dump(value: Any) -> str:
    """The JSON text of a parsed value, without white space."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def dump_spliced(value: Any) -> bytes:
    """The JSON text of a value in which fragments stand for what they hold."""
    return orjson.dumps(value)


def with_id(text: str, identity: str) -> str:
    """The text of an object, with an id as its first key."""
    return dump({"id": identity} | load(text) | {"id": identity})


def _check_size(text: bytes) -> None:
    """Refuses what has more than `MAX_VALUES` values, before any of them is made."""
    # A value follows a comma, or an opening bracket or brace; in a string these mean nothing.
    if _count_values(text, 0, len(text)) < MAX_VALUES:
        return
    count = position = 0
    while count < MAX_VALUES and position < len(text):
        quote = text.find(b'"', position)
        outside = len(text) if quote < 0 else quote
        count += _count_values(text, position, outside)
        position = _string_end(text, outside + 1)
    if count >= MAX_VALUES:
        raise faults.too_many_values(MAX_VALUES)


def _string_end(text: bytes, position: int) -> int:
    """Where a string ends, from a position in it; the end of the text, or beyond, if it does not."""
    while True:
        found = _IN_STRING.match(text, position)
        if found is None or found.end() in (position, len(text)) or text[found.end()] == ord('"'):
            return (found.end() if found else position) + 1
        position = found.end()


def _count_values(text: bytes, start: int, end: int) -> int:
    return text.count(b",", start, end) + text.count(b"[", start, end) + text.count(b"{", start, end)


def _is_blank_between_windows(text: bytes) -> bool:
    """Whether what is sought may go from one window so far into the next that it is seen in neither."""
    return any(text[start : start + _OVERLAP].isspace() for start in range(_WINDOW, len(text), _WINDOW))


def _has(pattern: re.Pattern[bytes], text: bytes) -> bool:
    return any(pattern.search(text, start, start + _WINDOW + _OVERLAP) for start in range(0, len(text), _WINDOW))


def _count_key_ends(text: bytes) -> int:
    """How many ends of keys there are, and maybe of other things."""
    count = 0
    for start in range(0, len(text), _WINDOW):
        end = start + _WINDOW
        count += len(_KEY_END.findall(text, start, end + _OVERLAP)) - len(_KEY_END.findall(text, end, end + _OVERLAP))
    return count


def _count_keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(
            _count_keys(each) for each in value.values() if type(each) is dict or type(each) is list
        )
    if type(value) is list:
        return sum(_count_keys(each) for each in value if type(each) is dict or type(each) is list)
    return 0


def _refuse_duplicates(text: bytes) -> None:
    """Parses anew, slowly, looking at every object."""

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise faults.duplicate_key(next(key for key, count in counts.items() if count > 1))
        return result

    json.loads(text, object_pairs_hook=check)
