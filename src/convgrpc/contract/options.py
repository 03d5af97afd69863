"""The contract's own options, read off descriptors.

The options of a field are looked up by its descriptor alone. So a new kind, field or enum value needs no code.
"""

from typing import TypeAlias

from google.api import field_behavior_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)

from convgrpc.options.v1 import json_pb2

MAX_DEPTH = 64
"""How deeply messages, and the values of free-form JSON, may be nested.

Protobuf parsers stop at 100 levels, and what one request stores another answer nests a few levels deeper.
"""


ID_CHARACTERS = "[a-zA-Z0-9_-]"
"""What the ids that callers send consist of, as a regular expression."""

MAX_ID_LENGTH = 128
"""The longest id that callers may send, in characters."""

FOREIGN_ID = r"(?!\.{1,2}$)[!-~]+"
"""The ids that other engines made, as a regular expression: printable ASCII without spaces.

As the last part of a URL, `.` and `..` mean the conversation, or all of its items.
"""

MAX_FOREIGN_ID_LENGTH = 512
"""The longest id of another engine, in characters."""

Field: TypeAlias = json_pb2.Field
Kind: TypeAlias = json_pb2.Kind
Stream: TypeAlias = json_pb2.Stream
Union: TypeAlias = json_pb2.Union


def stream(method: MethodDescriptor) -> json_pb2.Stream:
    return method.GetOptions().Extensions[json_pb2.stream]


def shape(message: Descriptor) -> json_pb2.Shape:
    return message.GetOptions().Extensions[json_pb2.shape]


def field_options(field: FieldDescriptor) -> json_pb2.Field:
    return field.GetOptions().Extensions[json_pb2.field]


def kind(field: FieldDescriptor) -> json_pb2.Kind | None:
    """What the service does with a member of a union of kinds; None for any other field."""
    options = field.GetOptions()
    return options.Extensions[json_pb2.kind] if options.HasExtension(json_pb2.kind) else None


def must_have_id(kind: json_pb2.Kind, *, need_ids: bool) -> bool:
    """Whether an item of a kind must have an id, whatever else it has. `need_ids` is False where items may lack it."""
    return kind.reference or (need_ids and kind.id_required and not kind.id_or)


def union_options(oneof: OneofDescriptor) -> json_pb2.Union:
    return oneof.GetOptions().Extensions[json_pb2.union]


def union(message: Descriptor) -> OneofDescriptor | None:
    """The message's union: its only oneof that is more than the presence of an optional field."""
    unions = [oneof for oneof in message.oneofs if oneof.GetOptions().HasExtension(json_pb2.union)]
    if len(unions) > 1:
        raise ValueError(f"{message.full_name} has more than one union")
    return unions[0] if unions else None


def is_required(field: FieldDescriptor) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors


def message_of(field: FieldDescriptor) -> Descriptor:
    """The type of a field that holds messages."""
    assert field.message_type is not None, field.full_name
    return field.message_type


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The type of a field that holds enum values."""
    assert field.enum_type is not None, field.full_name
    return field.enum_type


def holder(field: FieldDescriptor) -> Descriptor:
    """The message that a field belongs to."""
    assert field.containing_type is not None, field.full_name
    return field.containing_type


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_text_map(field: FieldDescriptor) -> bool:
    """Whether the field holds a bare map of strings to strings."""
    if field.message_type is None or field.is_repeated or not shape(field.message_type).bare:
        return False
    inner = field.message_type.fields[0]
    return is_map(inner) and map_value(inner).type == FieldDescriptor.TYPE_STRING


def map_value(field: FieldDescriptor) -> FieldDescriptor:
    """The field that stands for a map's values."""
    return message_of(field).fields_by_name["value"]


def plain_fields(message: Descriptor) -> list[FieldDescriptor]:
    """The message's fields, but for the members of its union and its source."""
    oneof = union(message)
    members = {member.number for member in oneof.fields} if oneof else set()
    return [field for field in message.fields if field.number not in members and not field_options(field).source]


def json_fields(message: Descriptor) -> list[FieldDescriptor]:
    """Those of the message's plain fields that JSON has."""
    return [field for field in plain_fields(message) if not field_options(field).rpc_only]


def source(message: Descriptor) -> str | None:
    """The name of the field that keeps the JSON text of an object with unknown keys or an unknown kind."""
    return next((field.name for field in message.fields if field_options(field).source), None)


def json_value(value: EnumValueDescriptor) -> str:
    """Returns the JSON string of an enum value."""
    options = value.GetOptions()
    if options.HasExtension(json_pb2.json_value):
        return options.Extensions[json_pb2.json_value]
    prefix = value.type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.name.removeprefix(prefix).lower()


def json_values(enum: EnumDescriptor) -> dict[int, str]:
    """Returns the JSON strings of an enum's values, by number. The zero value means "not given" and has none."""
    return {value.number: json_value(value) for value in enum.values if value.number != 0}


_JSON_TYPES: dict[int, type] = {
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_ENUM: str,
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_BOOL: bool,
}


def json_type(field: FieldDescriptor) -> type:
    """The type of the JSON value that a single value of the field appears as."""
    message = field.message_type
    if message is None:
        return _JSON_TYPES[field.type]
    is_list = shape(message).bare and message.fields[0].is_repeated and not is_map(message.fields[0])
    return list if is_list else dict


def text_parts(enum: EnumDescriptor) -> dict[str, str]:
    """The content part that a plain string stands for, by the JSON string of the enum value that says so."""
    return {
        json_value(value): value.GetOptions().Extensions[json_pb2.text_part]
        for value in enum.values
        if value.GetOptions().HasExtension(json_pb2.text_part)
    }


def parts(enum: EnumDescriptor) -> dict[int, list[str]]:
    """The content parts that callers may send, by the enum value that says so."""
    return {
        value.number: list(value.GetOptions().Extensions[json_pb2.parts])
        for value in enum.values
        if value.GetOptions().Extensions[json_pb2.parts]
    }


def sibling(field: FieldDescriptor, name: str) -> FieldDescriptor:
    """Another field of the message that a field belongs to."""
    return holder(field).fields_by_name[name]


def tag_field(member: FieldDescriptor) -> FieldDescriptor | None:
    """The enum, in a union member's message, that keeps which of the member's several tags was used."""
    if member.message_type is None:
        return None
    return next((field for field in member.message_type.fields if field_options(field).tag), None)


def tags(member: FieldDescriptor) -> dict[str, int]:
    """The tags of a union member, with the value of its tag field for each (0 where it has none)."""
    field = tag_field(member)
    if field is None:
        return {member.name: 0}
    return {text: number for number, text in json_values(enum_of(field)).items()}
