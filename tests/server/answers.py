"""What a server answers, whatever kinds of streams the method has: one without an end is read up to its first
message.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import grpc
import httpx
from google.protobuf.message import Message

from convgrpc.contract.encoder import dump
from convgrpc.contract.methods import Method

_TIMEOUT = 20


def by_grpc(channel: grpc.Channel, method: Method, data: bytes, **call: Any) -> tuple[list[bytes], Any]:
    """The serialized messages of the answer, and the call. Raises RpcError."""
    if not (method.takes_stream or method.returns_stream):
        answer, done = channel.unary_unary(method.path, bytes, bytes).with_call(data, timeout=_TIMEOUT, **call)
        return [answer], done
    rpc: Any = channel.stream_stream(method.path, bytes, bytes)
    messages = rpc(iter([data]), timeout=_TIMEOUT, **call)
    if not method.stream.endless:
        return list(messages), messages
    first = next(messages)
    messages.cancel()
    return [first], messages


def as_json(method: Method, messages: Iterable[Message]) -> list[bytes]:
    """The JSON texts that REST has of an answer."""
    lines = method.stream.lines
    return [dump(each) for message in messages for each in (getattr(message, lines) if lines else [message])]


class Told(NamedTuple):
    """An answer by REST: the JSON texts in it are one, unless it is a stream."""

    status: int
    texts: list[str]
    headers: httpx.Headers


def by_rest(client: httpx.Client, method: Method, path: str, **request: Any) -> Told:
    """What is answered to a request at a path of the method."""
    with client.stream(method.verb, path, **request) as response:
        media_type = response.headers["content-type"]
        read: Callable[[httpx.Response], Iterable[str]] = _READERS[media_type]
        return Told(response.status_code, list(read(response)), response.headers)


def _whole(response: httpx.Response) -> Iterable[str]:
    return [response.read().decode()]


def _first_event(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")
        if not line:
            return


_READERS: dict[str, Callable[[httpx.Response], Iterable[str]]] = {
    "application/json": _whole,
    "application/jsonl": httpx.Response.iter_lines,
    "text/event-stream": _first_event,
}
