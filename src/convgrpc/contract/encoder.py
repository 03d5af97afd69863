"""Message to JSON: a function for each message type, compiled from its descriptor.

An encoder returns what `json_text.dump_spliced` takes. Free-form JSON is spliced in as the text it is kept as.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from convgrpc.contract import json_text, options

Encode: TypeAlias = Callable[[Any], Any]
Step: TypeAlias = Callable[[Any, dict[str, Any]], None]


def encode(message: Message) -> Any:
    """The JSON value of a message."""
    return _encoder(message.DESCRIPTOR)(message)


def dump(message: Message) -> bytes:
    """The JSON text of a message."""
    return json_text.dump_spliced(encode(message))


def to_dict(message: Message) -> dict[str, Any]:
    """The plain value of a message, in the shape that OpenAI's API gives it; free-form JSON is read, not text.

    Fields that callers by gRPC alone see are not in it. Raises InvalidArgument where free-form JSON is none.
    """
    value: dict[str, Any] = json_text.parse(dump(message))
    return value


@cache
def _encoder(message: Descriptor) -> Encode:
    shape = options.shape(message)
    oneof = options.union(message)
    if shape.json_text:
        name = message.fields[0].name
        return lambda value: json_text.Fragment(getattr(value, name))
    if shape.bare:
        return _shape_encoder(oneof) if oneof else _field_encoder(message.fields[0])
    return _object_encoder(message)


def _object_encoder(message: Descriptor) -> Encode:
    constant = options.shape(message).object
    steps = _steps(message)

    def encode(value: Any) -> Any:
        out: dict[str, Any] = {"object": constant} if constant else {}
        for step in steps:
            step(value, out)
        return out

    source, oneof = options.source(message), options.union(message)
    return _keeping(encode, source, oneof.name) if source and oneof else encode


def _keeping(encode: Encode, source: str, union: str) -> Encode:
    """Adds the keys of an object's own JSON text that the contract does not know."""

    def encode_kept(value: Any) -> Any:
        if not value.HasField(source):
            return encode(value)
        text = getattr(value, source)
        return _merged(encode(value), json_text.load(text)) if value.WhichOneof(union) else json_text.Fragment(text)

    return encode_kept


def _merged(known: Any, sent: Any) -> Any:
    """Returns an encoded value with the unknown keys of the value that was sent."""
    if known and type(known) is dict and type(sent) is dict:
        merged = {key: _merged(each, sent.get(key)) for key, each in known.items()}
        added = {key: each for key, each in sent.items() if key not in known and each is not None}
        return {**merged, **{key: _as_text(each) for key, each in added.items()}}
    if type(known) is list and type(sent) is list and len(known) == len(sent):
        return [_merged(each, other) for each, other in zip(known, sent, strict=True)]
    # A known value is null or empty in place of a sent one only where that has an unknown kind.
    return _as_text(sent) if known in (None, {}) and sent is not None else known


def _as_text(value: Any) -> json_text.Fragment:
    """A parsed value as text: it may have integers that are too long for `dump_spliced`."""
    return json_text.Fragment(json_text.dump(value))


def _steps(message: Descriptor) -> list[Step]:
    """What writes the keys of an object, in the order of the contract; those of a union's member in its place."""
    oneof = options.union(message)
    steps: list[Step] = []
    for field in message.fields:
        if oneof is None or field.containing_oneof is not oneof:
            rules = options.field_options(field)
            if not rules.tag and not rules.source and not rules.rpc_only:
                steps.append(_step(field))
        elif field is oneof.fields[0]:
            steps.append(_tagged_step(oneof))
    return steps


def _step(field: FieldDescriptor) -> Step:
    name, encode_field = field.name, _field_encoder(field)
    rules = options.field_options(field)
    if field.has_presence:
        unset_is_null = rules.nullable

        def step(value: Any, out: dict[str, Any]) -> None:
            if value.HasField(name):
                out[name] = encode_field(value)
            elif unset_is_null:
                out[name] = None

    elif (field.enum_type is not None and not field.is_repeated) or rules.omit_empty:

        def step(value: Any, out: dict[str, Any]) -> None:
            if getattr(value, name):
                out[name] = encode_field(value)

    else:

        def step(value: Any, out: dict[str, Any]) -> None:
            out[name] = encode_field(value)

    return step


def _tagged_step(oneof: OneofDescriptor) -> Step:
    write = _tagged_writer(oneof.fields, options.union_options(oneof).tag)
    name = oneof.name

    def step(value: Any, out: dict[str, Any]) -> None:
        member = value.WhichOneof(name)
        if member:
            write(member, getattr(value, member), out)

    return step


def _tagged_writer(fields: Iterable[FieldDescriptor], tag: str) -> Callable[[str, Any, dict[str, Any]], None]:
    steps = {field.name: [_tag_step(field, tag), *_steps(options.message_of(field))] for field in fields}

    def write(member: str, value: Any, out: dict[str, Any]) -> None:
        for step in steps[member]:
            step(value, out)

    return write


def _tag_step(member: FieldDescriptor, tag: str) -> Step:
    kept, name = options.tag_field(member), member.name
    if kept is None:

        def step(value: Any, out: dict[str, Any]) -> None:
            out[tag] = name

    else:
        field, words = kept.name, options.json_values(options.enum_of(kept))

        def step(value: Any, out: dict[str, Any]) -> None:
            out[tag] = words.get(getattr(value, field), name)

    return step


def _shape_encoder(oneof: OneofDescriptor) -> Encode:
    """The encoder of a bare union: of whatever member is set."""
    tag = options.union_options(oneof).tag
    name = oneof.name
    tagged = [
        field for field in oneof.fields if tag and field.message_type and not options.shape(field.message_type).bare
    ]
    write = _tagged_writer(tagged, tag)
    names = {field.name for field in tagged}
    encoders = {field.name: _field_encoder(field) for field in oneof.fields if field.name not in names}

    def encode(value: Any) -> Any:
        member = value.WhichOneof(name)
        if member in names:
            out: dict[str, Any] = {}
            write(member, getattr(value, member), out)
            return out
        return encoders[member](value) if member else None

    return encode


# The value of one field, given the message that holds it.


def _field_encoder(field: FieldDescriptor) -> Encode:
    name = field.name
    if options.is_map(field):
        encode_value = _value_encoder(options.map_value(field))
        return lambda value: {key: encode_value(each) for key, each in sorted(getattr(value, name).items())}
    encode_value = _value_encoder(field)
    if field.is_repeated:
        return lambda value: [encode_value(each) for each in getattr(value, name)]
    return lambda value: encode_value(getattr(value, name))


def _value_encoder(field: FieldDescriptor) -> Encode:
    if field.message_type is not None:
        message = field.message_type
        return lambda value: _encoder(message)(value)
    if field.enum_type is not None:
        return _enum_encoder(field.enum_type)
    return _itself


def _enum_encoder(enum: EnumDescriptor) -> Encode:
    words = options.json_values(enum)
    return lambda value: words.get(value, value)


def _itself(value: Any) -> Any:
    return value
