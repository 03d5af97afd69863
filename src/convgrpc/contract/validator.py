"""What the contract asks of a message, whichever transport it came by: a check for each message type, compiled from its
descriptor.

Checks cover presence, known enum values, lengths, ranges, patterns, ids, the well-formedness of free-form JSON, and
depth. Scalars without presence cannot be seen to be missing in a message: only the decoder can tell.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from math import isfinite
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from convgrpc.contract import decoder, faults, json_text, options
from convgrpc.contract.defaults import fill_in
from convgrpc.contract.faults import Path
from convgrpc.contract.item_policy import HOSTED, ItemPolicy
from convgrpc.errors import InvalidArgument
from convgrpc.v1.error_reason_pb2 import ErrorReason

MAX_STRING_LENGTH = 10_485_760
"""How many characters a string may have where the contract sets no limit of its own."""

MAX_ARRAY_LENGTH = 262_144
"""How many elements an array, and entries a map, may have where the contract sets no limit of its own."""

Check: TypeAlias = Callable[[Any, Path, bool], None]
"""Checks the value at a path. The flag says that it is part of an item sent with its id: one that is being replayed,
which may hold what only the API itself produces."""

_FORM = (
    re.compile(f"{options.ID_CHARACTERS}+"),
    "letters, numbers, underscores, or dashes",
    options.MAX_ID_LENGTH,
)
_FOREIGN_FORM = (
    re.compile(options.FOREIGN_ID),
    "printable ASCII characters without spaces, and is neither '.' nor '..'",
    options.MAX_FOREIGN_ID_LENGTH,
)


def validate(message: Message, policy: ItemPolicy = HOSTED) -> None:
    """Raises InvalidArgument, naming the field at fault, unless the message is as the contract asks."""
    _checker(message.DESCRIPTOR)(message, Path.root(policy), False)


@cache
def _checker(message: Descriptor) -> Check:
    shape = options.shape(message)
    if shape.json_text:
        return _json_text_check(message.fields[0].name)
    oneof = options.union(message)
    checks = [_field_check(field, bare=shape.bare) for field in options.plain_fields(message) if not _is_free(field)]
    checks += [_parts_check(field) for field in message.fields if options.field_options(field).parts_by]
    if shape.exactly_one:
        checks.append(_exactly_one_check(shape.exactly_one))
    if shape.at_least_one:
        checks.append(_at_least_one_check([message.fields_by_name[name] for name in shape.at_least_one]))
    source = options.source(message)
    if source:
        checks.append(_source_check(source))
    if oneof:
        checks.append(_union_check(oneof, bare=shape.bare, source=source))

    def check(value: Any, path: Path, replayed: bool) -> None:
        if path.depth > options.MAX_DEPTH:
            raise faults.too_deep(path)
        if source and value.HasField(source):
            path = path._replace(unknown=[])
        for each in checks:
            each(value, path, replayed)

    return check


def _json_text_check(name: str) -> Check:
    return lambda value, path, replayed: _parsed(getattr(value, name), path)


def _parsed(text: str, path: Path) -> Any:
    """The value that free-form JSON text spells. Raises InvalidArgument where it is none, or too long or deep."""
    if len(text) > MAX_STRING_LENGTH:
        raise faults.string_too_long(path, MAX_STRING_LENGTH, len(text))
    try:
        parsed = json_text.parse(text.encode())
    except InvalidArgument as fault:
        if fault.reason == ErrorReason.ERROR_REASON_NESTING_TOO_DEEP:
            raise faults.too_deep(path) from None
        raise faults.invalid_value(path, faults.elided(text), "JSON text") from None
    _check_depth(parsed, path, path.depth)
    return parsed


def _source_check(name: str) -> Check:
    """Checks that the JSON text of an item makes that item, whose other checks then apply to both."""

    def check(value: Any, path: Path, replayed: bool) -> None:
        if not value.HasField(name):
            return
        if not path.policy.keep_unknown:
            raise faults.unknown_field(path.key(name))
        text = getattr(value, name)
        inner = path.child(None, name)
        made = decoder.decode(type(value), _parsed(text, inner), inner)
        if made.id != value.id:
            raise faults.invalid_value(path.key("id"), faults.elided(value.id), "the id that the item's source has")
        if not _are_alike(made, value, name):
            raise faults.invalid_value(path.key(name), faults.elided(text), "the JSON text of the item that has it")

    return check


def _are_alike(one: Message, other: Message, source: str) -> bool:
    """Whether two messages are equal, but for their source, once the service has filled in its defaults."""
    copies = []
    for message in (one, other):
        copy = type(message)()
        copy.CopyFrom(message)
        copy.ClearField(source)
        fill_in(copy)
        copies.append(copy)
    return copies[0] == copies[1]


def _check_depth(value: Any, path: Path, depth: int) -> None:
    if depth > options.MAX_DEPTH:
        raise faults.too_deep(path)
    inner = value.values() if type(value) is dict else value if type(value) is list else ()
    for each in inner:
        if type(each) is dict or type(each) is list:
            _check_depth(each, path, depth + 1)


def _exactly_one_check(names: Sequence[str]) -> Check:
    def check(value: Any, path: Path, replayed: bool) -> None:
        count = sum(value.HasField(name) for name in names)
        if count == 0 and not replayed:
            raise faults.no_field_of_several(path, names, "exactly one")
        if count > 1 and not replayed:
            raise faults.several_fields(path, names)

    return check


def _at_least_one_check(fields: Sequence[FieldDescriptor]) -> Check:
    names = [field.name for field in fields]
    are_set = [_presence(field) for field in fields]

    def check(value: Any, path: Path, replayed: bool) -> None:
        if not replayed and not any(is_set(value) for is_set in are_set):
            raise faults.no_field_of_several(path, names, "at least one")

    return check


def _presence(field: FieldDescriptor) -> Callable[[Any], bool]:
    name = field.name
    return (
        (lambda value: bool(value.HasField(name))) if field.has_presence else lambda value: bool(getattr(value, name))
    )


def _parts_check(field: FieldDescriptor) -> Check:
    """Checks that the parts in a list are those that the value of its sibling allows."""
    name, decided_by = field.name, options.field_options(field).parts_by
    allowed = options.parts(options.enum_of(options.sibling(field, decided_by)))
    oneof = options.union(options.message_of(field))
    assert oneof is not None
    union = oneof.name

    def check(value: Any, path: Path, replayed: bool) -> None:
        parts = allowed.get(getattr(value, decided_by))
        if replayed or parts is None:
            return
        for index, part in enumerate(getattr(value, name)):
            member = part.WhichOneof(union)
            is_kept = member is None and path.unknown is not None
            if member not in parts and not is_kept:
                raise faults.unsupported_value(path.key(name).key(index), member, parts)

    return check


# Fields: presence, then the values.


def _field_check(field: FieldDescriptor, *, bare: bool = False) -> Check:
    name, has_presence = field.name, field.has_presence
    step = None if bare else name
    check_values = _values_check(field)
    absent = _absence_check(field)

    def check(value: Any, path: Path, replayed: bool) -> None:
        if absent and absent(value):
            raise _missing(field, path.child(step, name))
        if not has_presence or value.HasField(name):
            check_values(getattr(value, name), path.child(step, name), replayed)

    return check


def _is_free(field: FieldDescriptor) -> bool:
    """Whether a field may have any value, or none."""
    return not field.is_repeated and _absence_check(field) is None and _values_check(field) is _unchecked


def _values_check(field: FieldDescriptor) -> Check:
    if options.is_map(field):
        return _map_check(field)
    if field.is_repeated:
        return _list_check(field)
    rules = options.field_options(field)
    is_wrapped = field.message_type is not None and bool(rules.min_items or rules.max_items)
    return _wrapped_list_check(field) if is_wrapped else _value_check(field)


def _absence_check(field: FieldDescriptor) -> Callable[[Any], bool] | None:
    """What says that a field is missing, of those that can be."""
    name = field.name
    if not options.is_required(field) or field.is_repeated:
        return None
    if field.message_type is not None:
        return lambda value: not value.HasField(name)
    if field.enum_type is not None:
        return lambda value: not getattr(value, name)
    return None


def _missing(field: FieldDescriptor, path: Path) -> Exception:
    rules = options.field_options(field)
    if rules.faults_at_parent:
        return faults.unsupported_value(path.parent or path, "", faults.supported(field))
    return faults.missing_field(path)


def _list_check(field: FieldDescriptor) -> Check:
    element = _value_check(field)
    check_length = _length_check(options.field_options(field))
    ids_optional = options.field_options(field).ids_optional

    def check(value: Any, path: Path, replayed: bool) -> None:
        check_length(value, path, replayed)
        if ids_optional:
            path = path.without_ids()
        # Most are empty; a loop over one ends with an exception.
        for index in range(len(value)):
            element(value[index], path.key(index), replayed)

    return check


def _length_check(rules: options.Field) -> Check:
    most, least = rules.max_items or MAX_ARRAY_LENGTH, rules.min_items

    def check(value: Any, path: Path, replayed: bool) -> None:
        if len(value) > most:
            raise faults.array_too_long(path, most, len(value))
        if len(value) < least:
            raise faults.array_too_short(path, least, len(value))

    return check


def _map_check(field: FieldDescriptor) -> Check:
    value_field = options.map_value(field)
    rules = options.field_options(field)
    most = rules.max_items or MAX_ARRAY_LENGTH
    longest_key = rules.max_key_length or MAX_STRING_LENGTH
    element = _string_check(rules) if value_field.message_type is None else _value_check(value_field)

    def check(value: Any, path: Path, replayed: bool) -> None:
        if len(value) > most:
            raise faults.too_many_properties(path, most, len(value))
        for key, each in value.items():
            if len(key) > longest_key:
                raise faults.property_name_too_long(path, longest_key, key)
            element(each, path.key(key), replayed)

    return check


def _value_check(field: FieldDescriptor) -> Check:
    rules = options.field_options(field)
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            message = options.message_of(field)
            return lambda value, path, replayed: _checker(message)(value, path, replayed)
        case FieldDescriptor.TYPE_ENUM:
            return _enum_check(field)
        case FieldDescriptor.TYPE_STRING:
            return _string_check(rules)
        case FieldDescriptor.TYPE_INT64:
            return _range_check(rules, faults.integer_too_large, faults.integer_too_small)
        case FieldDescriptor.TYPE_DOUBLE:
            return _decimal_check(rules)
    return _unchecked


def _wrapped_list_check(field: FieldDescriptor) -> Check:
    """Checks a field that holds a bare list: the field's limits are those of the list."""
    wrapped = options.message_of(field).fields[0].name
    check_length, check_message = _length_check(options.field_options(field)), _value_check(field)

    def check(value: Any, path: Path, replayed: bool) -> None:
        check_length(getattr(value, wrapped), path.child(None, wrapped), replayed)
        check_message(value, path, replayed)

    return check


def _string_check(rules: options.Field) -> Check:
    longest, shortest = rules.max_length or MAX_STRING_LENGTH, rules.min_length
    pattern = re.compile(rules.pattern) if rules.pattern else None

    def check(value: str, path: Path, replayed: bool) -> None:
        if len(value) > longest:
            raise faults.string_too_long(path, longest, len(value))
        if len(value) < shortest:
            raise faults.string_too_short(path, shortest, len(value))
        if not value.startswith(rules.prefix):
            raise faults.wrong_prefix(path, value, rules.prefix)
        if pattern and not pattern.fullmatch(value):
            raise faults.invalid_value(
                path, faults.elided(value), f"a string that matches the pattern '{rules.pattern}'"
            )

    return check


def _range_check(
    rules: options.Field, too_large: Callable[..., Exception], too_small: Callable[..., Exception]
) -> Check:
    least = rules.minimum if rules.HasField("minimum") else None
    most = rules.maximum if rules.HasField("maximum") else None

    def check(value: float, path: Path, replayed: bool) -> None:
        if most is not None and value > most:
            raise too_large(path, most, value)
        if least is not None and value < least:
            raise too_small(path, least, value)

    return check


def _decimal_check(rules: options.Field) -> Check:
    check_range = _range_check(rules, faults.decimal_too_large, faults.decimal_too_small)

    def check(value: float, path: Path, replayed: bool) -> None:
        if not isfinite(value):
            raise faults.invalid_value(path, str(value), "a finite number")
        check_range(value, path, replayed)

    return check


def _unchecked(value: Any, path: Path, replayed: bool) -> None:
    """Accepts any value."""


def _enum_check(field: FieldDescriptor) -> Check:
    words = options.json_values(options.enum_of(field))
    rules = options.field_options(field)
    supported = faults.supported(field)
    unprompted = set(rules.accepted_values) or set(words.values())
    optional = not field.is_repeated

    def check(value: int, path: Path, replayed: bool) -> None:
        if value == 0 and optional:
            return
        word = words.get(value)
        if word is None or not (replayed or word in unprompted):
            blamed = path.parent if rules.faults_at_parent and path.parent else path
            raise faults.unsupported_value(blamed, word or str(value), supported)

    return check


# Unions: one member set, and what kinds of items ask of ids.


def _union_check(oneof: OneofDescriptor, *, bare: bool, source: str | None) -> Check:
    name, tag = oneof.name, options.union_options(oneof).tag
    members = {field.name: _member_check(field, tag) for field in oneof.fields}
    has_kinds = any(options.kind(field) for field in oneof.fields)

    def check(value: Any, path: Path, replayed: bool) -> None:
        member = value.WhichOneof(name)
        if member is None and path.unknown is not None:
            if source:
                _check_form(value, path)
            return
        if member is None:
            raise faults.missing_field(path if bare else path.child(tag, name))
        if has_kinds:
            replayed = value.HasField("id")
        members[member](value, path, replayed)

    return check


def _member_check(field: FieldDescriptor, tag: str) -> Check:
    name = field.name
    kind = options.kind(field)
    kept = options.tag_field(field)
    needs_tag = kept is not None and name not in options.tags(field)
    is_enum = field.enum_type is not None
    element = _value_check(field)

    def check(value: Any, path: Path, replayed: bool) -> None:
        member, inner = getattr(value, name), path.child(None, name)
        if kind:
            _check_id(kind, value, member, path)
        if needs_tag and kept and not getattr(member, kept.name):
            raise faults.missing_field(inner.child(tag, kept.name))
        if is_enum and member == 0:
            raise faults.missing_field(inner)
        element(member, inner, replayed)

    return check


def _check_id(kind: options.Kind, item: Any, member: Any, path: Path) -> None:
    if not item.HasField("id"):
        if kind.reference or path.policy.need_ids:
            _check_lack_of_id(kind, member, path)
        return
    prefix = kind.accepted_prefix or kind.id_prefix
    if not path.policy.any_ids and not item.id.startswith(prefix):
        raise faults.wrong_prefix(path.key("id"), item.id, prefix)
    _check_form(item, path)


def _check_lack_of_id(kind: options.Kind, member: Any, path: Path) -> None:
    if kind.id_or and member.HasField(kind.id_or):
        return
    if kind.id_required:
        raise faults.missing_field(path.key("id"))
    if kind.id_or:
        raise faults.invalid_item(path)


def _check_form(item: Any, path: Path) -> None:
    if not item.HasField("id"):
        return
    pattern, expected, longest = _FOREIGN_FORM if path.policy.any_ids else _FORM
    if not pattern.fullmatch(item.id):
        raise faults.invalid_value(path.key("id"), faults.elided(item.id), f"an ID that contains {expected}")
    if len(item.id) > longest:
        raise faults.string_too_long(path.key("id"), longest, len(item.id))
