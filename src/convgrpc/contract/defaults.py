"""What the service fills in where a caller left a field out: a function for each message type, compiled from its
descriptor.

Messages are changed in place. One built anew would lose the fields that a newer client sent and this contract does not
know.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from convgrpc.contract import options

Fill: TypeAlias = Callable[[Any], None]


def fill_in(message: Message) -> None:
    """Sets every field that is unset and has a default, in this message and those it holds."""
    for fill in _fills(message.DESCRIPTOR):
        fill(message)


@cache
def _fills(message: Descriptor) -> tuple[Fill, ...]:
    concerned = {field.name: field for field in message.fields if _concerns(field)}
    oneofs = [oneof for oneof in message.oneofs if len(oneof.fields) > 1]
    members = [
        {field.name: concerned.pop(field.name) for field in oneof.fields if field.name in concerned} for oneof in oneofs
    ]
    plain = (_fill(field) for field in concerned.values())
    return (
        *plain,
        *(_fill_member(oneof.name, fields) for oneof, fields in zip(oneofs, members, strict=True) if fields),
    )


def _fill_member(oneof: str, fields: Mapping[str, FieldDescriptor]) -> Fill:
    """Fills in that of several fields which is set, asking once which one it is."""
    fills = {name: _fill(field) for name, field in fields.items()}

    def fill(value: Any) -> None:
        fill_one = fills.get(value.WhichOneof(oneof))
        if fill_one:
            fill_one(value)

    return fill


def _concerns(field: FieldDescriptor) -> bool:
    return bool(options.field_options(field).default) or (
        field.message_type is not None and not options.is_map(field) and _has_defaults(field.message_type, frozenset())
    )


def _has_defaults(message: Descriptor, above: frozenset[str]) -> bool:
    """Whether the message, or one that it can hold, has a field with a default."""
    if message.full_name in above:
        return False
    above |= {message.full_name}
    return any(
        options.field_options(field).default or (field.message_type and _has_defaults(field.message_type, above))
        for field in message.fields
    )


def _fill(field: FieldDescriptor) -> Fill:
    name = field.name
    if field.message_type is None:
        return _set_default(field)
    if field.is_repeated:

        def fill(value: Any) -> None:
            for each in getattr(value, name):
                fill_in(each)

    else:

        def fill(value: Any) -> None:
            if value.HasField(name):
                fill_in(getattr(value, name))

    return fill


def _set_default(field: FieldDescriptor) -> Fill:
    name, text = field.name, options.field_options(field).default
    if field.enum_type is None:
        default: Any = text
    else:
        default = next(number for number, word in options.json_values(field.enum_type).items() if word == text)

    def fill(value: Any) -> None:
        is_set = value.HasField(name) if field.has_presence else getattr(value, name)
        if not is_set:
            setattr(value, name, default)

    return fill
