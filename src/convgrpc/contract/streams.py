"""Answers that are streams of messages, as REST tells them: JSON Lines, or Server-Sent Events, as the contract says.

Both are told piece by piece. A piece has no line breaks but those of the format: JSON that callers made may have some,
but only between its values, where a space does as well.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from google.protobuf.message import Message

from convgrpc.contract import encoder
from convgrpc.contract.methods import Method

_BREAKS = bytes.maketrans(b"\r\n", b"  ")
LAST_EVENT_ID = "last-event-id"
"""The header by which clients of Server-Sent Events say what they read before."""


class Format(NamedTuple):
    """How a stream is told: its media type, what makes a piece of a serialized message and of the JSON of an error,
    whether its readers are used to be told of errors, and the piece that says nothing, where there is one.
    """

    media_type: str
    piece: Callable[[bytes], bytes]
    error: Callable[[bytes], bytes]
    has_errors: bool
    idle: bytes | None


def stream_format(method: Method) -> Format:
    """How the answer of a method is told that is a stream."""
    if method.stream.lines:
        return Format("application/jsonl", _lines(method), _line, False, None)
    return Format("text/event-stream", _event(method), _error_event, True, b":\n\n")


def resumption(method: Method, headers: Mapping[str, str]) -> dict[str, str]:
    """The field of the request that says where to go on, from a client that read events before and has connected
    again.
    """
    field = method.stream.resumes
    return {field: headers[LAST_EVENT_ID]} if field and headers.get(LAST_EVENT_ID) else {}


def _lines(method: Method) -> Callable[[bytes], bytes]:
    name = method.stream.lines
    return lambda data: b"".join(map(_line, map(encoder.dump, getattr(method.response.FromString(data), name))))


def _line(json: bytes) -> bytes:
    return json.translate(_BREAKS) + b"\n"


def _event(method: Method) -> Callable[[bytes], bytes]:
    name = method.stream.event_id

    def event(data: bytes) -> bytes:
        message: Message = method.response.FromString(data)
        return b"id: %b\ndata: %b\n" % (getattr(message, name).encode(), _line(encoder.dump(message)))

    return event


def _error_event(json: bytes) -> bytes:
    return b"event: error\ndata: %b\n" % _line(json)
