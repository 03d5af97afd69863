"""Serialized messages as bytes: how much one says, before it is made, and one made of others."""

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from convgrpc.contract import faults
from convgrpc.contract.json_text import MAX_VALUES

_FIXED = {1: 8, 5: 4}
_DELIMITED = 2


def check_size(data: bytes, kind: type[Message]) -> None:
    """Refuses a message that has more than `MAX_VALUES` values; what is no message is left to the parser. A part of
    two bytes becomes one of a hundred.

    What is long is skipped, so that it takes no longer than there are values.
    """
    count = 0
    waiting: list[tuple[int, int, Any]] = [(0, len(data), kind.DESCRIPTOR)]
    while waiting:
        position, end, current = waiting.pop()
        parts = _parts(current)
        while position < end:
            count += 1
            if count > MAX_VALUES:
                raise faults.too_many_values(MAX_VALUES)
            tag, position = _varint(data, position, end)
            encoding = tag & 7
            if encoding == _DELIMITED:
                size, position = _varint(data, position, end)
                if part := parts.get(tag >> 3):
                    waiting.append((position, min(position + size, end), part))
                position += size
            elif encoding == 0:
                _, position = _varint(data, position, end)
            else:
                position += _FIXED.get(encoding, 0)


def joined(field: FieldDescriptor, parts: Iterable[bytes]) -> bytes:
    """A field of serialized messages or strings, none of which is read. Where fields follow each other, they are a
    message.
    """
    tag = field.number << 3 | _DELIMITED
    joined: list[bytes] = []
    for part in parts:
        joined += (_head(tag, len(part)), part)
    return b"".join(joined)


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


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number, and the position after it; at the end there is none."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            return 0, end
    return value, position


@cache
def _parts(descriptor: Any) -> dict[int, Any]:
    """The messages that a message has as its fields, by their numbers."""
    return {
        field.number: field.message_type
        for field in descriptor.fields
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type
    }
