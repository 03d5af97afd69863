"""Base64 as files and images come in it: with or without the line breaks of RFC 2045."""

import base64


def decoded(text: str) -> bytes:
    """The bytes of a base64 text. Raises `ValueError` for one with anything else in it than base64 and line breaks."""
    return base64.b64decode(unbroken(text), validate=True)


def unbroken(text: str) -> str:
    """A base64 text without its line breaks, which may be LF or CRLF and stand anywhere."""
    return text.replace("\r", "").replace("\n", "")
