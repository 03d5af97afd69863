"""What `json_text` uses of orjson, by the standard library alone, for clients that are installed without it.

As far as `json_text` goes, the values are the same, and so are the refusals. A number may be spelled in another way.
"""

import json
import re
from itertools import accumulate
from math import isinf
from typing import Any, NamedTuple

JSONEncodeError = UnicodeEncodeError

_MAX_DEPTH = 1024
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")


class Fragment(NamedTuple):
    """JSON text that stands in a value as it is."""

    contents: str


def loads(text: bytes) -> Any:
    """The value that JSON text spells. Raises ValueError when it is no JSON."""
    spelled = text.decode()
    _check_depth(spelled)
    value = json.loads(spelled, parse_constant=_refused, parse_int=_integer, parse_float=_decimal)
    # Lone surrogates pass until they are encoded.
    json.dumps(value, ensure_ascii=False).encode()
    return value


def dumps(value: Any) -> bytes:
    """The JSON text of a value, without white space. Raises JSONEncodeError for what is no Unicode."""
    return _spelled(value).encode()


def _spelled(value: Any) -> str:
    if type(value) is Fragment:
        return value.contents
    if type(value) is dict:
        return "{" + ",".join(f"{_spelled(key)}:{_spelled(each)}" for key, each in value.items()) + "}"
    if type(value) is list:
        return "[" + ",".join(map(_spelled, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        brackets = _BRACKET.findall(_STRING.sub("", text))
        if max(accumulate(1 if each in "[{" else -1 for each in brackets), default=0) > _MAX_DEPTH:
            raise ValueError("depth limit exceeded")


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _integer(digits: str) -> int:
    _decimal(digits)
    return int(digits)


def _decimal(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise ValueError("a number that a double cannot hold")
    return value
