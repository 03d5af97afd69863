"""Fields that are returned on request: which of them an item has, by the values of the include parameter."""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from convgrpc.contract import json_text, options

Hide: TypeAlias = Callable[[Any], None]


def hide(item: Any, union: str, asked: Collection[str]) -> None:
    """Clears, in an item whose kind the oneof `union` holds, every field of an include value that was not asked for."""
    kind = item.WhichOneof(union)
    if not kind:
        return
    hidden = [each for each in _hidings(item.DESCRIPTOR.fields_by_name[kind]) if each[0] not in asked]
    for _, hide_field in hidden:
        hide_field(getattr(item, kind))
    source = options.source(item.DESCRIPTOR)
    if hidden and source and item.HasField(source):
        keys = {value.rpartition(".")[2] for value, _ in hidden}
        setattr(item, source, json_text.dump(_without(keys, json_text.load(getattr(item, source)))))


def _without(keys: Collection[str], value: Any) -> Any:
    """A parsed value without these keys, at any depth: an unknown part may hold what a known one hides."""
    if type(value) is dict:
        return {key: _without(keys, each) for key, each in value.items() if key not in keys}
    return [_without(keys, each) for each in value] if type(value) is list else value


@cache
def _hidings(member: FieldDescriptor) -> tuple[tuple[str, Hide], ...]:
    """What hides each includable field of a kind, with its include value, which begins with the kind's name."""
    found = _found(options.message_of(member), frozenset())
    return tuple((value, hide_field) for value, hide_field in found if value.partition(".")[0] == member.name)


def _found(message: Descriptor, above: frozenset[str]) -> list[tuple[str, Hide]]:
    if message.full_name in above:
        return []
    found = []
    for field in message.fields:
        value = options.field_options(field).include
        if value:
            found.append((value, _clear(field.name)))
        elif field.message_type is not None and not options.is_map(field):
            inner = _found(field.message_type, above | {message.full_name})
            found += [(each, _within(field, hide_field)) for each, hide_field in inner]
    return found


def _clear(name: str) -> Hide:
    return lambda value: value.ClearField(name)


def _within(field: FieldDescriptor, hide_field: Hide) -> Hide:
    name, is_repeated = field.name, field.is_repeated

    def hide_within(value: Any) -> None:
        if is_repeated:
            for each in getattr(value, name):
                hide_field(each)
        elif value.HasField(name):
            hide_field(getattr(value, name))

    return hide_within
