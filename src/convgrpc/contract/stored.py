"""Answers made of messages as they were stored, which nobody parses: a transport joins what it has of them."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import Message

from convgrpc.contract import encoder, json_text, wire

_MOST_KEPT, _LARGEST_KEPT = 8 << 20, 16 << 10
"""How many bytes of messages and their JSON texts are kept, and of which size a text may be: they are asked for again
and again.
"""


class RawMessage(NamedTuple):
    """A message of a type as it was stored."""

    kind: type[Message]
    data: bytes

    def ByteSize(self) -> int:
        return len(self.data)

    def SerializeToString(self) -> bytes:
        return self.data


class RawList:
    """A message, and what its repeated field of a name has: messages of a type as they were stored. It is joined once,
    however often it is given.
    """

    def __init__(self, rest: Message, field: str, kind: type[Message], items: Sequence[bytes]) -> None:
        self._rest = rest
        self._field = field
        self._kind = kind
        self._items = items
        # About its size: how long each is does not count.
        self._size = rest.ByteSize() + sum(map(len, items))
        self._joined = self._text = b""

    def ByteSize(self) -> int:
        return self._size

    def SerializeToString(self) -> bytes:
        if not self._joined:
            field: Any = self._rest.DESCRIPTOR.fields_by_name[self._field]
            self._joined = wire.joined(field, self._items) + self._rest.SerializeToString()
        return self._joined

    def dump(self) -> bytes:
        """The JSON text."""
        if not self._text:
            value: dict[str, Any] = encoder.encode(self._rest)
            value[self._field] = [json_text.Fragment(_text(self._kind, item)) for item in self._items]
            self._text = json_text.dump_spliced(value)
        return self._text


Answer: TypeAlias = Message | RawMessage | RawList


def dump(answer: Answer) -> bytes:
    """The JSON text of an answer."""
    if isinstance(answer, RawMessage):
        return _text(answer.kind, answer.data)
    if isinstance(answer, RawList):
        return answer.dump()
    return encoder.dump(answer)


def _text(kind: type[Message], data: bytes) -> bytes:
    text = _texts.get((kind, data))
    if text is None:
        text = encoder.dump(kind.FromString(data))
        if len(text) <= _LARGEST_KEPT:
            # A copy: orjson leaves a text in all the room that it had to write it in, of 4 KiB at the least.
            _texts.keep((kind, data), bytes(memoryview(text)))
    return text


class JsonTextCache:
    """JSON texts by the messages themselves, whatever conversation these stand in: that can never be out of date.

    The one goes first that has been there the longest. Several threads may ask.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[type[Message], bytes], bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()
        self.get = self._kept.get

    def keep(self, message: tuple[type[Message], bytes], text: bytes) -> None:
        with self._lock:
            if self._kept.setdefault(message, text) is text:
                self._size += len(message[1]) + len(text)
            while self._size > _MOST_KEPT:
                (_, data), oldest = self._kept.popitem(last=False)
                self._size -= len(data) + len(oldest)


_texts = JsonTextCache()
