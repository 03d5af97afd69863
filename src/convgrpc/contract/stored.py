"""Answers made of messages as they were stored, which nobody parses: a transport joins what it has of them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import Message

from convgrpc.contract import encoder, json_text

_MOST_KEPT, _LARGEST_KEPT = 4096, 8 << 10
"""Of how many messages the JSON text is kept, and of which size at most: it is asked for again and again."""
_DELIMITED = 2


class Stored(NamedTuple):
    """A message of a type as it was stored."""

    kind: type[Message]
    data: bytes

    def ByteSize(self) -> int:
        return len(self.data)

    def SerializeToString(self) -> bytes:
        return self.data


class StoredList(NamedTuple):
    """A message, and what its repeated field of a name has: messages of a type as they were stored."""

    rest: Message
    field: str
    kind: type[Message]
    items: Sequence[bytes]

    def ByteSize(self) -> int:
        """About its size: how long each is does not count."""
        return self.rest.ByteSize() + sum(map(len, self.items))

    def SerializeToString(self) -> bytes:
        tag = self.rest.DESCRIPTOR.fields_by_name[self.field].number << 3 | _DELIMITED
        parts: list[bytes] = []
        for item in self.items:
            parts += (_head(tag, len(item)), item)
        return b"".join(parts) + self.rest.SerializeToString()


Answer: TypeAlias = Message | Stored | StoredList


def dump(answer: Answer) -> bytes:
    """The JSON text of an answer."""
    if isinstance(answer, Stored):
        return _text(answer.kind, answer.data)
    if isinstance(answer, StoredList):
        value: dict[str, Any] = encoder.encode(answer.rest)
        value[answer.field] = [json_text.Fragment(_text(answer.kind, item)) for item in answer.items]
        return json_text.dump_spliced(value)
    return encoder.dump(answer)


@lru_cache(maxsize=1 << 14)
def _head(tag: int, size: int) -> bytes:
    """What precedes a message in the one that holds it: two numbers, seven bits a byte."""
    head = bytearray()
    for number in (tag, size):
        while number > 127:
            head.append(number & 127 | 128)
            number >>= 7
        head.append(number)
    return bytes(head)


def _text(kind: type[Message], data: bytes) -> bytes:
    text: bytes = (_kept_text if len(data) <= _LARGEST_KEPT else _made_text)(kind, data)
    return text


def _made_text(kind: type[Message], data: bytes) -> bytes:
    return encoder.dump(kind.FromString(data))


# By the message itself, whatever conversation it stands in: that can never be out of date.
_kept_text: Any = lru_cache(maxsize=_MOST_KEPT)(_made_text)
