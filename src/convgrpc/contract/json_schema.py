"""Messages as JSON Schemas (draft 2020-12), made from descriptors: what callers may send, and what they are answered.

The two differ. Callers may leave out what is optional or send null for it, and may use short forms; the keys they send
are those of the contract and no others. Answers always have what the encoder always writes and what the service fills
in, and may have keys that are newer than their readers.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, count
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from convgrpc.contract import options
from convgrpc.contract.comments import comment
from convgrpc.contract.item_policy import ItemPolicy

Schema: TypeAlias = dict[str, Any]

PLACE = "#/components/schemas/"
"""Where references look for schemas."""

_NULL: Schema = {"type": "null"}
_WITHOUT_ID = "WithoutId"


class Schemas:
    """The schemas of messages and enums by name. Each is made when it is first referred to.

    The schema of what callers send has the message's name and `Input`, where another schema of that message is that of
    what they are answered. The schema of an item that may lack its id has `WithoutId` after that.
    """

    def __init__(
        self, answers: Iterable[Descriptor], policy: ItemPolicy, taken: Iterable[tuple[str, Schema]] = ()
    ) -> None:
        self.by_name: dict[str, Schema] = dict(taken)
        self._policy = policy
        self._names: dict[tuple[object, ...], str] = {}
        self._answered = {message.full_name for message in _reachable(answers)}

    def ref(self, message: Descriptor, *, sent: bool) -> Schema:
        """A reference to the schema of a message."""
        sent = sent and not _is_alike(message)
        key = (message.full_name, sent)
        return self._ref(key, self._name(message, sent), lambda: self._message(message, sent))

    def ref_to_body(self, message: Descriptor, elsewhere: Collection[str]) -> Schema:
        """A reference to the schema of a request's body: the request message, but for the fields that are elsewhere."""
        key = (message.full_name, *elsewhere)
        return self._ref(key, message.name, lambda: self._object(message, elsewhere, sent=True))

    def property(self, field: FieldDescriptor, *, sent: bool) -> Schema:
        """The schema of a key's value."""
        rules = options.field_options(field)
        schema = self.values(field, sent=sent)
        if rules.nullable or (sent and not options.is_required(field)):
            schema = _or_null(schema)
        if sent and rules.default:
            schema = {**schema, "default": rules.default}
        return described(field.full_name, schema)

    def values(self, field: FieldDescriptor, *, sent: bool) -> Schema:
        """The schema of all that a field holds: a value, a list or a map."""
        rules = options.field_options(field)
        if options.is_map(field):
            return self._map(field, sent)
        if not field.is_repeated:
            return {**self._value(field, rules, sent), **_list_limits(rules)}
        value = self._without_ids(field) if sent and self._frees_ids(rules) else self._value(field, rules, sent)
        schema: Schema = {"type": "array", "items": value, **_list_limits(rules)}
        return {"anyOf": [{"type": "string"}, schema]} if sent and rules.parts_by else schema

    def _frees_ids(self, rules: options.Field) -> bool:
        """Whether a field's items may lack the ids that items need elsewhere."""
        return rules.ids_optional and self._policy.need_ids

    def _without_ids(self, field: FieldDescriptor) -> Schema:
        """A reference to the schema of sent items that may lack their ids."""
        message, oneof = options.message_of(field), options.union(options.message_of(field))
        assert oneof is not None
        key = (message.full_name, "without ids")
        name = f"{self._name(message, sent=True)}{_WITHOUT_ID}"
        return self._ref(
            key, name, lambda: described(message.full_name, self._tagged(oneof.fields, sent=True, need_ids=False))
        )

    def _map(self, field: FieldDescriptor, sent: bool) -> Schema:
        rules = options.field_options(field)
        schema: Schema = {
            "type": "object",
            "additionalProperties": self._value(options.map_value(field), rules, sent),
        }
        if rules.max_items:
            schema["maxProperties"] = rules.max_items
        if rules.max_key_length:
            schema["propertyNames"] = {"maxLength": rules.max_key_length}
        return schema

    def _value(self, field: FieldDescriptor, rules: options.Field, sent: bool) -> Schema:
        match field.type:
            case FieldDescriptor.TYPE_MESSAGE:
                return self.ref(options.message_of(field), sent=sent)
            case FieldDescriptor.TYPE_ENUM:
                enum = options.enum_of(field)
                return self._ref((enum.full_name,), enum.name, lambda: _enum(enum))
            case FieldDescriptor.TYPE_STRING:
                return _string(rules)
            case FieldDescriptor.TYPE_INT64:
                return _number(rules, "integer", "int64")
            case FieldDescriptor.TYPE_DOUBLE:
                return _number(rules, "number", "double")
        return {"type": "boolean"}

    # Names.

    def _ref(self, key: tuple[object, ...], name: str, make: Callable[[], Schema]) -> Schema:
        if key not in self._names:
            free = next(each for each in chain([name], (f"{name}{n}" for n in count(2))) if each not in self.by_name)
            self._names[key] = free
            self.by_name[free] = {}  # messages may hold their own kind
            self.by_name[free] = make()
        return {"$ref": PLACE + self._names[key]}

    def _name(self, message: Descriptor, sent: bool) -> str:
        return f"{message.name}Input" if sent and message.full_name in self._answered else message.name

    # Messages.

    def _message(self, message: Descriptor, sent: bool) -> Schema:
        shape, oneof = options.shape(message), options.union(message)
        if shape.json_text:
            schema: Schema = {}
        elif shape.bare:
            schema = self._by_shape(message, sent) if oneof else self.values(message.fields[0], sent=sent)
        elif oneof:
            schema = self._tagged(oneof.fields, sent)
        else:
            return self._object(message, (), sent=sent)
        return described(message.full_name, schema)

    def _object(self, message: Descriptor, left_out: Collection[str], *, sent: bool) -> Schema:
        constant = options.shape(message).object
        fields = [field for field in options.json_fields(message) if field.name not in left_out]
        properties = {field.name: self.property(field, sent=sent) for field in fields}
        required = [field.name for field in fields if _is_required(field, sent)]
        if constant and not sent:
            tag = {"description": "object is the type of the object.", "type": "string", "const": constant}
            properties, required = {"object": tag, **properties}, ["object", *required]
        return described(message.full_name, _record(properties, required, sent))

    def _by_shape(self, message: Descriptor, sent: bool) -> Schema:
        """The schema of a bare union: of values that are told apart by their type."""
        oneof = options.union(message)
        assert oneof is not None
        tag = options.union_options(oneof).tag
        tagged = [field for field in oneof.fields if tag and options.json_type(field) is dict]
        names = {field.name for field in tagged}
        shapes = [
            described(field.full_name, self.values(field, sent=sent))
            for field in oneof.fields
            if field.name not in names
        ]
        return {"anyOf": [*shapes, self._tagged(tagged, sent)] if tagged else shapes}

    # Members of tagged unions.

    def _tagged(self, members: Iterable[FieldDescriptor], sent: bool, *, need_ids: bool = True) -> Schema:
        possible = [member for member in members if sent or not _is_reference(member)]
        refs = {member.name: self._member(member, sent, need_ids) for member in possible}
        schema: Schema = {"oneOf": list(refs.values())}
        if not (sent and any(_may_lack_tag(member) for member in possible)):
            mapping = {tag: refs[member.name]["$ref"] for member in possible for tag in options.tags(member)}
            schema["discriminator"] = {"propertyName": _tag(possible[0]), "mapping": mapping}
        return schema

    def _member(self, member: FieldDescriptor, sent: bool, need_ids: bool) -> Schema:
        message, beside = options.message_of(member), options.json_fields(options.holder(member))
        # Unions share the schema of a member that they have in common, unless it has other keys beside it.
        union = options.holder(member).full_name if beside or _may_lack_tag(member) else ""
        lacks_id = _asks_for_id(options.kind(member)) and not need_ids
        key = (message.full_name, _tag(member), tuple(options.tags(member)), union, sent, lacks_id)
        name = self._name(message, sent) + (_WITHOUT_ID if lacks_id else "")
        return self._ref(key, name, lambda: self._member_object(member, beside, sent, lacks_id))

    def _member_object(
        self, member: FieldDescriptor, beside: list[FieldDescriptor], sent: bool, lacks_id: bool
    ) -> Schema:
        message, kept, kind = options.message_of(member), options.tag_field(member), options.kind(member)
        own = [field for field in options.json_fields(message) if kept is None or field.name != kept.name]
        properties = {field.name: self.property(field, sent=sent) for field in beside}
        properties[_tag(member)] = _tag_schema(member, sent)
        properties |= {field.name: self.property(field, sent=sent) for field in own}
        required = [field.name for field in (*beside, *own) if _is_required(field, sent)]
        if not (sent and _may_lack_tag(member)):
            required.insert(0, _tag(member))
        schema = described(message.full_name, _record(properties, required, sent))
        if kind is None:
            return schema
        need_ids = self._policy.need_ids and not lacks_id
        return _with_id(schema, kind, own, sent, self._policy._replace(need_ids=need_ids))


def described(full_name: str, schema: Schema) -> Schema:
    """A schema with what the contract says of the thing with that name."""
    text = comment(full_name)
    return {"description": text, **schema} if text else schema


# Which messages.


def _reachable(messages: Iterable[Descriptor]) -> list[Descriptor]:
    """The messages, and those that answers with them can hold."""
    found: dict[str, Descriptor] = {}
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            waiting += _held(message)
    return list(found.values())


def _held(message: Descriptor) -> Iterator[Descriptor]:
    for field in message.fields:
        held = options.map_value(field).message_type if options.is_map(field) else field.message_type
        if held is not None and not _is_reference(field):
            yield held


def _is_alike(message: Descriptor) -> bool:
    """Whether what callers send and what they are answered has the same schema: where there is no object."""
    shapes = (options.shape(each) for each in _reachable([message]))
    return all(shape.bare or shape.json_text for shape in shapes)


# Objects.


def _record(properties: Schema, required: list[str], sent: bool) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if sent:
        schema["additionalProperties"] = False
    return schema


def _is_required(field: FieldDescriptor, sent: bool) -> bool:
    """Whether callers must send a field, or whether answers always have it."""
    rules = options.field_options(field)
    if sent:
        return options.is_required(field)
    if rules.nullable:
        return True
    if field.has_presence or (field.enum_type is not None and not field.is_repeated):
        return (options.is_required(field) or bool(rules.default)) and not rules.include
    return not rules.omit_empty


def _asks_for_id(kind: options.Kind | None) -> bool:
    """Whether the hosted policy asks items of a kind for an id, or for a key in its place."""
    return bool(kind and not kind.reference and (kind.id_required or kind.id_or))


def _with_id(schema: Schema, kind: options.Kind, own: list[FieldDescriptor], sent: bool, policy: ItemPolicy) -> Schema:
    """The schema of an item of a kind, given that of its keys: what holds of its id, and what of an item without
    one.
    """
    identity = {**schema["properties"]["id"], **_id_form(kind, policy)}
    schema = {**schema, "properties": {**schema["properties"], "id": identity}}
    required = options.must_have_id(kind, need_ids=policy.need_ids)
    if required or not sent:
        identity["type"] = "string"
        schema["required"] = ["id", *schema.get("required", [])]
    return {**schema, **_without_id(kind, own, policy)} if sent and not required else schema


def _id_form(kind: options.Kind, policy: ItemPolicy) -> Schema:
    if policy.any_ids:
        return {"pattern": f"^{options.FOREIGN_ID}$", "maxLength": options.MAX_FOREIGN_ID_LENGTH}
    prefix = kind.accepted_prefix or kind.id_prefix
    pattern = f"^{prefix}{options.ID_CHARACTERS}*$" if prefix else f"^{options.ID_CHARACTERS}+$"
    return {"pattern": pattern, "maxLength": options.MAX_ID_LENGTH}


def _without_id(kind: options.Kind, own: list[FieldDescriptor], policy: ItemPolicy) -> Schema:
    """What an item without an id must have, beyond what all items of its kind must."""
    rules: Schema = {field.name: _unprompted(field) for field in own if options.field_options(field).accepted_values}
    alternative = kind.id_or if policy.need_ids else ""
    if alternative:
        rules[alternative] = {"not": _NULL}
    if not rules:
        return {}
    then = {"properties": rules, **({"required": [alternative]} if alternative else {})}
    return {"if": {"properties": {"id": _NULL}}, "then": then}


def _unprompted(field: FieldDescriptor) -> Schema:
    words: list[str | None] = list(options.field_options(field).accepted_values)
    return {"enum": words if options.is_required(field) else [*words, None]}


# Tags.


def _tag(member: FieldDescriptor) -> str:
    """The key whose value names a member of a union."""
    return options.union_options(_union_of(member)).tag


def _union_of(member: FieldDescriptor) -> OneofDescriptor:
    assert member.containing_oneof is not None, member.full_name
    return member.containing_oneof


def _is_reference(member: FieldDescriptor) -> bool:
    kind = options.kind(member)
    return bool(kind and kind.reference)


def _may_lack_tag(member: FieldDescriptor) -> bool:
    """Whether callers may leave the tag out when they mean this member."""
    return _is_reference(member) or options.union_options(_union_of(member)).default in options.tags(member)


def _tag_schema(member: FieldDescriptor, sent: bool) -> Schema:
    tags = list(options.tags(member))
    schema: Schema = {"type": "string", **({"const": tags[0]} if len(tags) == 1 else {"enum": tags})}
    if sent and _may_lack_tag(member):
        schema = {"type": ["string", "null"], "enum": [*tags, None]}
    return described(member.full_name, schema)


# Values.


def _or_null(schema: Schema) -> Schema:
    if not schema:
        return schema
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, _NULL]}


def _enum(enum: EnumDescriptor) -> Schema:
    words = options.json_values(enum)
    listed = [
        f"- `{words[value.number]}`: {comment(f'{enum.full_name}.{value.name}')}"
        for value in enum.values
        if value.number in words
    ]
    text = "\n".join([f"{comment(enum.full_name)}\n", *listed])
    return {"description": text, "type": "string", "enum": list(words.values())}


def _string(rules: options.Field) -> Schema:
    schema: Schema = {"type": "string"}
    if rules.min_length:
        schema["minLength"] = rules.min_length
    if rules.max_length:
        schema["maxLength"] = rules.max_length
    if rules.pattern or rules.prefix:
        schema["pattern"] = _anchored(rules.pattern) if rules.pattern else f"^{rules.prefix}"
    return schema


def _anchored(pattern: str) -> str:
    """A pattern that matches whole strings, as the contract means it, where a part of them would do."""
    return pattern if pattern.startswith("^") and pattern.endswith("$") else f"^(?:{pattern})$"


def _number(rules: options.Field, type_name: str, form: str) -> Schema:
    schema: Schema = {"type": type_name, "format": form}
    if rules.HasField("minimum"):
        schema["minimum"] = rules.minimum
    if rules.HasField("maximum"):
        schema["maximum"] = rules.maximum
    return schema


def _list_limits(rules: options.Field) -> Schema:
    schema: Schema = {}
    if rules.min_items:
        schema["minItems"] = rules.min_items
    if rules.max_items:
        schema["maxItems"] = rules.max_items
    return schema
