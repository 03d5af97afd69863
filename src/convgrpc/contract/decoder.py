"""JSON to message: a function for each message type, compiled from its descriptor.

A decoder turns a parsed JSON value into the keyword arguments of the message's constructor, those of nested messages
included, so that one call into protobuf's own code builds the whole message. It reports the faults that only JSON can
have: wrong types, unknown keys and tags, absent required keys. Everything else is the validator's.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from convgrpc.contract import faults, json_text, options
from convgrpc.contract.faults import ROOT, Path

M = TypeVar("M", bound=Message)
Decode: TypeAlias = Callable[[Any, Path], Any]

_INT64 = range(-(2**63), 2**63)


def decode(message_class: type[M], value: Any, path: Path = ROOT) -> M:
    """Builds a message from the parsed JSON value at a path. Raises InvalidArgument, naming the value at fault."""
    return message_class(**_decoder(message_class.DESCRIPTOR)(value, path))


def build(message_class: type[M], values: Mapping[str, Any]) -> M:
    """Builds a message from values of its fields, those that JSON does not have among them; None means not given.

    A value, or a part of one, may be a message already. Which ids items need is left to the server. Raises
    InvalidArgument, naming the value at fault.
    """
    return message_class(**_builder(message_class.DESCRIPTOR)(values, ROOT.without_ids()))


@cache
def _builder(message: Descriptor) -> Decode:
    return _filler({field.name: _key(field) for field in options.plain_fields(message)}, ())


@cache
def _decoder(message: Descriptor) -> Decode:
    shape = options.shape(message)
    if shape.json_text:
        return _json_text_decoder(message)
    if shape.bare:
        return _bare_decoder(message)
    return _object_decoder(message)


def _message_decoder(message: Descriptor) -> Decode:
    """The decoder of a field's message, looked up when it is needed, for messages that hold their own kind."""
    message_class = GetMessageClass(message)

    def decode(value: Any, path: Path) -> Any:
        if type(value) is message_class:
            return value
        return _decoder(message)(value, path)

    return decode


def _json_text_decoder(message: Descriptor) -> Decode:
    name = message.fields[0].name

    def decode(value: Any, path: Path) -> Any:
        try:
            return {name: json_text.dump(value)}
        except RecursionError:
            raise faults.too_deep(path) from None

    return decode


# Single values, lists and maps.


def _field_decoder(field: FieldDescriptor) -> Decode:
    if options.is_map(field):
        return _map_decoder(field)
    return _list_decoder(field) if field.is_repeated else _value_decoder(field)


def _list_decoder(field: FieldDescriptor) -> Decode:
    element = _value_decoder(field)
    expected = faults.expected_list(field)
    ids_optional = options.field_options(field).ids_optional

    def decode(value: Any, path: Path) -> Any:
        if type(value) is not list:
            raise faults.invalid_type(path, expected, value)
        if ids_optional:
            path = path.without_ids()
        return [element(each, path.key(index)) for index, each in enumerate(value)]

    return decode


def _map_decoder(field: FieldDescriptor) -> Decode:
    element = _value_decoder(options.map_value(field))
    expected = faults.article(faults.noun(options.holder(field)))

    def decode(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            raise faults.invalid_type(path, expected, value)
        return {key: element(each, path.key(key)) for key, each in value.items()}

    return decode


def _value_decoder(field: FieldDescriptor) -> Decode:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return _message_decoder(options.message_of(field))
        case FieldDescriptor.TYPE_ENUM:
            return _enum_decoder(field)
        case FieldDescriptor.TYPE_INT64:
            return _integer
        case FieldDescriptor.TYPE_DOUBLE:
            return _decimal
        case scalar:
            return _scalar_decoder(_SCALARS[scalar])


_SCALARS = {FieldDescriptor.TYPE_STRING: str, FieldDescriptor.TYPE_BOOL: bool}


def _scalar_decoder(scalar: type) -> Decode:
    expected = faults.type_name(scalar)

    def decode(value: Any, path: Path) -> Any:
        if type(value) is not scalar:
            raise faults.invalid_type(path, expected, value)
        return value

    return decode


def _integer(value: Any, path: Path) -> int:
    if type(value) is not int:
        raise faults.invalid_type(path, faults.type_name(int), value)
    if value not in _INT64:
        limit = _INT64[-1] if value > 0 else _INT64[0]
        raise (faults.integer_too_large if value > 0 else faults.integer_too_small)(path, limit, value)
    return value


def _decimal(value: Any, path: Path) -> float:
    if type(value) is not float and type(value) is not int:
        raise faults.invalid_type(path, faults.type_name(float), value)
    try:
        return float(value)
    except OverflowError:
        raise faults.invalid_value(path, f"{str(value)[:3]}...", "a number that a double can hold") from None


def _enum_decoder(field: FieldDescriptor) -> Decode:
    numbers = {word: number for number, word in options.json_values(options.enum_of(field)).items()}
    rules = options.field_options(field)
    supported = faults.supported(field)
    expected = faults.expected_value(field)

    def decode(value: Any, path: Path) -> Any:
        if type(value) is not str:
            raise faults.invalid_type(path, expected, value)
        number = numbers.get(value)
        if number is None:
            raise faults.unsupported_value(_blamed(path, rules.faults_at_parent), value, supported)
        return number

    return decode


def _blamed(path: Path, at_parent: bool) -> Path:
    return path.parent if at_parent and path.parent else path


# Objects, with or without a tagged union.


class _Key(NamedTuple):
    """One key of an object: how its value is decoded, and what its absence and null mean."""

    decode: Decode
    absent: Callable[[Path], Exception] | None
    null_is_empty: bool
    of_member: bool


class _Member(NamedTuple):
    """A member of a union under one tag: the keys of its objects, and the tag that it keeps.

    `deciding` are the keys whose absence is reported at the object. An object without a tag and without one of them may
    be anything.
    """

    name: str
    keys: Mapping[str, _Key]
    required: list[str]
    deciding: Collection[str]
    tag: dict[str, int]
    shorthand: "_Shorthand | None"
    is_reference: bool


class _Shorthand(NamedTuple):
    """The key whose string stands for a list of one text part, of a kind that the value of another key decides."""

    key: str
    decided_by: str
    parts: Mapping[str, str]
    tag: str


def _key(field: FieldDescriptor, *, of_member: bool = False) -> _Key:
    required = options.is_required(field)
    rules = options.field_options(field)
    absent: Callable[[Path], Exception] | None = None
    if required and rules.faults_at_parent:
        supported = faults.supported(field)

        def absent(path: Path) -> Exception:
            return faults.unsupported_value(path.parent or path, "", supported)

    elif required:
        absent = faults.missing_field
    return _Key(_field_decoder(field), absent, required and rules.nullable, of_member)


def _object_decoder(message: Descriptor) -> Decode:
    own = {field.name: _key(field) for field in options.json_fields(message)}
    oneof = options.union(message)
    expected = faults.article(faults.noun(message))
    # The constant that answers have may be sent back with them.
    known = {"object"} if options.shape(message).object else set()
    fill = _tagged_filler(oneof.fields, options.union_options(oneof), own) if oneof else _filler(own, known)
    source = options.source(message)

    def decode(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            raise faults.invalid_type(path, expected, value)
        if path.depth > options.MAX_DEPTH:
            raise faults.too_deep(path)
        return _kept(value, path, fill, source) if source and path.policy.keep_unknown else fill(value, path)

    return decode


def _kept(value: dict[str, Any], path: Path, fill: Decode, source: str) -> Any:
    """Decodes what the contract knows of an object. Where it does not know all, its JSON text is kept in `source`."""
    unknown: list[Path] = []
    out = fill(value, path._replace(unknown=unknown))
    if out is _UNKNOWN:
        identity = value.get("id")
        if identity is not None and type(identity) is not str:
            raise faults.invalid_type(path.key("id"), faults.type_name(str), identity)
        out = {"id": identity} if identity else {}
    return {**out, source: json_text.dump(value)} if unknown else out


_UNKNOWN: dict[str, Any] = {}
"""The sentinel for an object of an unknown kind. It makes a message with no member set. It must stay empty."""


def _filler(keys: Mapping[str, _Key], known: Collection[str]) -> Decode:
    required = [name for name, key in keys.items() if key.absent]

    def fill(value: dict[str, Any], path: Path) -> Any:
        _check_required(value, keys, required, path, path)
        _check_known(value, keys, known, path)
        out = {}
        for name, key in keys.items():
            each = value.get(name)
            if each is not None or (key.absent and name in value):
                out[name] = _decoded(key, each, path.key(name))
        return out

    return fill


class _Tagged(NamedTuple):
    """A tagged union: what each tag stands for, and what the lack of one; and the keys of all its members."""

    tag: str
    members: Mapping[str, _Member]
    default: _Member | None
    reference: _Member | None
    faults_at_parent: bool
    supported: list[str]
    keys: Mapping[str, _Key]

    def member(self, value: dict[str, Any], path: Path) -> _Member | None:
        """The member that an object is; None if its tag is unknown, and kept."""
        tag = value.get(self.tag)
        if tag is None and self.reference and value.keys() - {self.tag} == {"id"}:
            return self.reference
        if tag is None and self.default:
            return self.default
        if tag is None:
            if path.unknown is None:
                _check_known(value, self.keys, (self.tag,), path)
            raise faults.missing_field(path.key(self.tag))
        blamed = _blamed(path.key(self.tag), self.faults_at_parent)
        if type(tag) is not str:
            raise faults.unsupported_value(blamed, "", self.supported)
        member = self.members.get(tag)
        if member is None and path.unknown is None:
            raise faults.unsupported_value(blamed, tag, self.supported)
        return member

    def says_nothing(self, value: dict[str, Any], member: _Member) -> bool:
        """Whether an object has neither a tag nor a key that decides what else it has."""
        return bool(member.deciding) and all(value.get(key) is None for key in (self.tag, *member.deciding))


def _tagged(
    fields: Iterable[FieldDescriptor], union: options.Union, own: Mapping[str, _Key], *, need_ids: bool
) -> _Tagged:
    members = {
        tag: _member(field, number, own, need_ids) for field in fields for tag, number in options.tags(field).items()
    }
    return _Tagged(
        tag=union.tag,
        members=members,
        default=members.get(union.default),
        reference=next((member for member in members.values() if member.is_reference), None),
        faults_at_parent=union.faults_at_parent,
        supported=sorted(members) if union.alphabetical else list(members),
        keys={name: key for member in members.values() for name, key in member.keys.items()},
    )


def _tagged_filler(fields: Collection[FieldDescriptor], union: options.Union, own: Mapping[str, _Key]) -> Decode:
    with_ids = without_ids = _tagged(fields, union, own, need_ids=True)
    if any(options.kind(field) for field in fields):
        without_ids = _tagged(fields, union, own, need_ids=False)
    known = {union.tag}

    def fill(value: dict[str, Any], path: Path) -> Any:
        tagged = with_ids if path.policy.need_ids else without_ids
        member = tagged.member(value, path)
        if member is None:
            assert path.unknown is not None
            path.unknown.append(path)
            return _UNKNOWN
        if member.shorthand:
            value = _expanded(value, member.shorthand)
        inner_path = path.child(None, member.name)
        if tagged.says_nothing(value, member):
            _check_known(value, member.keys, known, path)
            _check_required(value, member.keys, member.required, path, inner_path)
        else:
            _check_required(value, member.keys, member.required, path, inner_path)
            _check_known(value, member.keys, known, path)
        out: dict[str, Any] = {}
        inner: dict[str, Any] = dict(member.tag)
        for name, key in member.keys.items():
            each = value.get(name)
            if each is not None or (key.absent and name in value):
                within, target = (inner_path, inner) if key.of_member else (path, out)
                target[name] = _decoded(key, each, within.key(name))
        out[member.name] = inner
        return out

    return fill


def _member(field: FieldDescriptor, number: int, own: Mapping[str, _Key], need_ids: bool) -> _Member:
    kept = options.tag_field(field)
    fields = [each for each in options.json_fields(options.message_of(field)) if each is not kept]
    keys = {**own, **{each.name: _key(each, of_member=True) for each in fields}}
    kind = options.kind(field)
    if kind and options.must_have_id(kind, need_ids=need_ids):
        keys["id"] = keys["id"]._replace(absent=faults.missing_field)
    return _Member(
        name=field.name,
        keys=keys,
        required=[name for name, key in keys.items() if key.absent],
        deciding=[each.name for each in fields if options.field_options(each).faults_at_parent],
        tag={kept.name: number} if kept else {},
        shorthand=next((_shorthand(each) for each in fields if options.field_options(each).parts_by), None),
        is_reference=bool(kind and kind.reference),
    )


def _shorthand(field: FieldDescriptor) -> _Shorthand:
    decided_by = options.field_options(field).parts_by
    parts = options.text_parts(options.enum_of(options.sibling(field, decided_by)))
    oneof = options.union(options.message_of(field))
    assert oneof is not None
    return _Shorthand(field.name, decided_by, parts, options.union_options(oneof).tag)


def _expanded(value: dict[str, Any], shorthand: _Shorthand) -> dict[str, Any]:
    text = value.get(shorthand.key)
    decided_by = value.get(shorthand.decided_by)
    if type(text) is not str:
        return value
    part = shorthand.parts.get(decided_by) if type(decided_by) is str else None
    # Without a part, what decides is itself at fault: no other fault may come before that one.
    return {**value, shorthand.key: [{shorthand.tag: part, "text": text}] if part else []}


def _check_required(
    value: dict[str, Any], keys: Mapping[str, _Key], required: list[str], path: Path, inner_path: Path
) -> None:
    for name in required:
        key = keys[name]
        if name not in value and key.absent:
            raise key.absent((inner_path if key.of_member else path).key(name))


def _check_known(value: dict[str, Any], keys: Mapping[str, _Key], known: Collection[str], path: Path) -> None:
    """Refuses unknown keys, or notes them where they are kept. Dumps of the SDKs add keys that are null."""
    for name, each in value.items():
        if name not in keys and name not in known and each is not None:
            if path.unknown is None:
                raise faults.unknown_field(path.key(name), keys.keys() - value.keys())
            path.unknown.append(path.key(name))


def _decoded(key: _Key, value: Any, path: Path) -> Any:
    return {} if value is None and key.null_is_empty else key.decode(value, path)


# Bare messages: what stands in the place of their only field, or of their only oneof.


def _bare_decoder(message: Descriptor) -> Decode:
    if options.union(message):
        return _shape_decoder(message)
    (field,) = message.fields
    name, decode_field = field.name, _field_decoder(field)

    def decode(value: Any, path: Path) -> Any:
        return {name: decode_field(value, path.child(None, name))}

    return decode


def _shape_decoder(message: Descriptor) -> Decode:
    """The decoder of a union whose members are told apart by the type of the JSON value."""
    oneof = options.union(message)
    assert oneof is not None
    union = options.union_options(oneof)
    by_type: dict[type, Decode] = {}
    for field in oneof.fields:
        json_type = options.json_type(field)
        if not (json_type is dict and union.tag):
            by_type[json_type] = _chosen_by_shape(field)
    if int in by_type and float in by_type:
        by_type[int] = _within_int64(by_type[int], by_type[float])
    if union.tag:
        by_type[dict] = _tagged_filler([field for field in oneof.fields if options.json_type(field) is dict], union, {})
    expected = faults.expected_of_union(oneof.fields)

    def decode(value: Any, path: Path) -> Any:
        decode_value = by_type.get(type(value))
        if decode_value is None:
            raise faults.invalid_type(path, expected, value)
        if path.depth > options.MAX_DEPTH:
            raise faults.too_deep(path)
        return decode_value(value, path)

    return decode


def _within_int64(as_integer: Decode, as_decimal: Decode) -> Decode:
    # Clients that know no integers send large decimals without point and exponent.
    return lambda value, path: (as_integer if value in _INT64 else as_decimal)(value, path)


def _chosen_by_shape(field: FieldDescriptor) -> Decode:
    name, decode_field = field.name, _field_decoder(field)

    def decode(value: Any, path: Path) -> Any:
        return {name: decode_field(value, path.child(None, name))}

    return decode
