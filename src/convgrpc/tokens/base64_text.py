"""Base64 as files and images come in it: with or without the line breaks of RFC 2045, in slices of bounded time."""

import base64
from collections.abc import Callable, Iterator
from urllib.parse import unquote

_SLICE = 1 << 16


def decoded(text: str, check: Callable[[], None] = lambda: None) -> bytes:
    """Returns the bytes of a base64 text. `check` is called now and then, and may raise to give up.

    Raises `ValueError` for a text with anything else in it than base64 and line breaks.
    """
    whole = unbroken(text)
    padding = whole.find("=")
    if 0 <= padding < len(whole) - 2:
        raise ValueError("there is padding before the end")
    data = bytearray()
    for start in range(0, len(whole), _SLICE):
        check()
        data += base64.b64decode(whole[start : start + _SLICE], validate=True)
    return bytes(data)


def unbroken(text: str) -> str:
    """Returns a base64 text without its line breaks, which may be LF or CRLF and stand anywhere."""
    return text.replace("\r", "").replace("\n", "")


def percent_decoded(text: str, check: Callable[[], None] = lambda: None) -> str:
    """Returns a text without its percent-encoding. `check` is called now and then, and may raise to give up."""
    return "".join(map(unquote, _slices(text, check))) if "%" in text else text


def _slices(text: str, check: Callable[[], None]) -> Iterator[str]:
    """Cuts a text outside of percent-encoded characters."""
    start = 0
    while start < len(text):
        check()
        end = start + _SLICE
        percent = text.find("%", max(start, end - 2), end)
        end = percent if percent > start else end
        yield text[start:end]
        start = end
