"""Messages made from descriptors: any that the validator accepts, of any type in the contract."""

import math
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from convgrpc.contract import options

Draw = st.DrawFn

_MAX_SIZE = 2
_MAX_DEPTH = 12

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_NAMES = st.text("abcXYZ019_-", min_size=1, max_size=8)
_INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2**53 + 1])
_DECIMALS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 1e16, 5e-324])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _DECIMALS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)


def messages(message: Descriptor, member: str | None = None) -> st.SearchStrategy[Any]:
    """Valid messages of a type, whose union holds the member given, or any.

    Optional fields are set or not, lists are short, and nesting ends soon.
    """
    return _messages(message, member)


@st.composite
def _messages(draw: Draw, message: Descriptor, member: str | None) -> Any:
    return _built(draw, message, _Place(0, False, [member] if member else None))


class _Place:
    """Where a message is built: how deep, whether in an item with an id, and of which members it may choose."""

    def __init__(self, depth: int, replayed: bool, members: list[str] | None) -> None:
        self.depth = depth
        self.replayed = replayed
        self.members = members

    def within(self, members: list[str] | None = None) -> "_Place":
        return _Place(self.depth + 1, self.replayed, members)

    @property
    def has_room(self) -> bool:
        return self.depth < _MAX_DEPTH


def _built(draw: Draw, message: Descriptor, place: _Place) -> Message:
    shape = options.shape(message)
    built = GetMessageClass(message)()
    _set_union(draw, built, place)
    chosen = {draw(st.sampled_from(list(names))) for names in (shape.exactly_one, shape.at_least_one) if names}
    for field in options.json_fields(message):
        if field.name not in shape.exactly_one or field.name in chosen:
            _set(draw, built, field, place, required=field.name in chosen)
    return built


def _set_union(draw: Draw, built: Any, place: _Place) -> None:
    oneof = options.union(built.DESCRIPTOR)
    if oneof is None:
        return
    fields = [field for field in oneof.fields if place.members is None or field.name in place.members]
    field = draw(st.sampled_from(fields))
    kind = options.kind(field)
    if kind:
        place.replayed = kind.id_required or bool(kind.id_or) or draw(st.booleans())
        if place.replayed:
            built.id = (kind.accepted_prefix or kind.id_prefix) + draw(_NAMES)
    if field.message_type is None:
        setattr(built, field.name, _value(draw, field, built, place))
    else:
        getattr(built, field.name).CopyFrom(_value(draw, field, built, place))


def _set(draw: Draw, built: Any, field: FieldDescriptor, place: _Place, *, required: bool) -> None:
    rules = options.field_options(field)
    required = required or options.is_required(field) or rules.tag
    if field.name == "id" and any(options.kind(each) for each in built.DESCRIPTOR.fields):
        return
    if options.is_map(field):
        _fill_map(draw, getattr(built, field.name), field, place)
    elif field.is_repeated:
        size = draw(st.integers(rules.min_items, max(rules.min_items, _MAX_SIZE if place.has_room else 0)))
        getattr(built, field.name).extend(_value(draw, field, built, place) for _ in range(size))
    elif field.has_presence and not required and not (place.has_room and draw(st.booleans())):
        return
    elif field.message_type is not None:
        getattr(built, field.name).CopyFrom(_value(draw, field, built, place))
        _fill_up(draw, getattr(built, field.name), rules.min_items, place)
    elif field.enum_type is None or required or draw(st.booleans()):
        setattr(built, field.name, _value(draw, field, built, place))


def _fill_up(draw: Draw, built: Any, least: int, place: _Place) -> None:
    """Adds elements to a bare list until it has the least number of them."""
    if least:
        field = built.DESCRIPTOR.fields[0]
        elements = getattr(built, field.name)
        elements.extend(_value(draw, field, built, place) for _ in range(least - len(elements)))


def _fill_map(draw: Draw, entries: Any, field: FieldDescriptor, place: _Place) -> None:
    value = options.map_value(field)
    for key in draw(st.lists(_TEXT, max_size=_MAX_SIZE)):
        if value.message_type is None:
            entries[key] = _value(draw, value, None, place)
        else:
            entries[key].CopyFrom(_value(draw, value, None, place))


def _value(draw: Draw, field: FieldDescriptor, holder: Any, place: _Place) -> Any:
    rules = options.field_options(field)
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            if options.shape(options.message_of(field)).json_text:
                return _json_text(draw, field)
            return _built(draw, options.message_of(field), place.within(_members(field, holder, place)))
        case FieldDescriptor.TYPE_ENUM:
            return draw(st.sampled_from(_numbers(field, place)))
        case FieldDescriptor.TYPE_STRING:
            return draw(_strings(rules))
        case FieldDescriptor.TYPE_INT64:
            return draw(_integers(rules))
        case FieldDescriptor.TYPE_DOUBLE:
            return draw(_decimals(rules))
        case FieldDescriptor.TYPE_BOOL:
            return draw(st.booleans())
    raise TypeError(f"{field.full_name} is of a type that the contract has not had so far")


def _json_text(draw: Draw, field: FieldDescriptor) -> Message:
    message = options.message_of(field)
    # Where a key may be absent, null means that it is.
    may_be_null = field.is_repeated or options.is_required(field)
    text = orjson.dumps(draw(_JSON if may_be_null else _JSON.filter(lambda value: value is not None))).decode()
    return GetMessageClass(message)(**{message.fields[0].name: text})


def _members(field: FieldDescriptor, holder: Any, place: _Place) -> list[str] | None:
    """The members of a union that stand for the end of nesting, or that a sibling of the field allows."""
    decided_by = options.field_options(field).parts_by
    if decided_by and not place.replayed:
        return options.parts(options.enum_of(options.sibling(field, decided_by)))[getattr(holder, decided_by)]
    oneof = options.union(options.message_of(field))
    if oneof is None or place.has_room:
        return None
    return [each.name for each in oneof.fields if each.message_type is None or _is_flat(each.message_type)] or None


def _is_flat(message: Descriptor) -> bool:
    return all(field.message_type is None for field in message.fields)


def _numbers(field: FieldDescriptor, place: _Place) -> list[int]:
    words = options.json_values(options.enum_of(field))
    allowed = options.field_options(field).accepted_values
    return [number for number, word in words.items() if place.replayed or not allowed or word in allowed]


def _strings(rules: options.Field) -> st.SearchStrategy[str]:
    if rules.pattern:
        return st.from_regex(rules.pattern.removeprefix("^").removesuffix("$"), fullmatch=True)
    if rules.prefix:
        return _NAMES.map(lambda name: rules.prefix + name)
    return _TEXT.filter(lambda text: len(text) >= rules.min_length) if rules.min_length else _TEXT


def _decimals(rules: options.Field) -> st.SearchStrategy[float]:
    least = rules.minimum if rules.HasField("minimum") else None
    most = rules.maximum if rules.HasField("maximum") else None
    return _DECIMALS if least is most is None else st.floats(least, most, allow_nan=False, allow_infinity=False)


def _integers(rules: options.Field) -> st.SearchStrategy[int]:
    if not (rules.HasField("minimum") or rules.HasField("maximum")):
        return _INTEGERS
    least = rules.minimum if rules.HasField("minimum") else -math.inf
    most = rules.maximum if rules.HasField("maximum") else math.inf
    return st.integers(int(max(least, -(2**63))), int(min(most, 2**63 - 1)))
