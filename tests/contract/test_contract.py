"""The contract's own rules: those that protoc and buf do not know."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, OneofDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.code_pb2 import Code

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.contract.defaults import fill_in
from convgrpc.contract.encoder import dump
from convgrpc.contract.methods import methods
from convgrpc.contract.validator import validate
from convgrpc.errors import CLASSES, REPORTS, InvalidArgument
from convgrpc.v1.conversations_service_pb2 import Include
from convgrpc.v1.error_reason_pb2 import ErrorReason
from convgrpc.v1.item_pb2 import ConversationItem

from .walk import FILES, MESSAGES, METHODS, reachable

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"

ENUMS: list[EnumDescriptor] = [enum for file in FILES for enum in file.enum_types_by_name.values()]
FIELDS: list[FieldDescriptor] = [field for message in MESSAGES for field in message.fields]
UNIONS: list[OneofDescriptor] = [union for message in MESSAGES if (union := options.union(message))]
TAGGED = [union for union in UNIONS if options.union_options(union).tag]
KINDS = {
    field: options.kind(field) or options.Kind() for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields
}

each_message = pytest.mark.parametrize("message", MESSAGES, ids=[message.name for message in MESSAGES])
each_method = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
each_union = pytest.mark.parametrize("union", UNIONS, ids=[union.full_name for union in UNIONS])
each_tagged = pytest.mark.parametrize("union", TAGGED, ids=[union.full_name for union in TAGGED])


# Files.

OF_THE_CLIENT = ("methods.py", "async_methods.py", "literals.py", "service_config.json")


def _generated(folder: Path) -> dict[str, bytes]:
    code = [
        path
        for part in ("v1", "options")
        for path in (folder / "convgrpc" / part).rglob("*.py*")
        if path.name != "__init__.py" and path.suffix in (".py", ".pyi")
    ]
    client = [folder / "convgrpc" / "client" / name for name in OF_THE_CLIENT]
    comments = folder / "convgrpc" / "contract" / "comments.json"
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*code, *client, comments]}


def test_the_committed_code_is_what_the_contract_generates(tmp_path: Path) -> None:
    reference = tmp_path / "README.md"
    subprocess.run([ROOT / "scripts" / "generate", tmp_path, reference], check=True)
    fresh, committed = _generated(tmp_path), _generated(SOURCE)
    assert fresh.keys() == committed.keys(), "run scripts/generate, and delete what it no longer makes"
    assert [name for name in fresh if fresh[name] != committed[name]] == [], "run scripts/generate"
    assert reference.read_text() == (ROOT / "protos" / "README.md").read_text(), "run scripts/generate"


def test_the_reference_has_everything_that_has_a_name() -> None:
    """Messages and enums have sections, or requests that of their method; fields, members, words and reasons have
    rows.
    """
    text = (ROOT / "protos" / "README.md").read_text()
    requests = [method.input_type.name for method in METHODS]
    named = [each.name for each in MESSAGES] + [each.name for each in ENUMS] + [each.name for each in METHODS]
    sections = {line.lstrip("# ") for line in text.splitlines() if line.startswith("###")}
    assert sections >= {name for name in named if name not in requests}
    rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert rows >= {field.name for field in FIELDS}
    assert rows >= {name for name, _ in REASONS}
    assert rows >= {
        word for enum in ENUMS if enum is not ErrorReason.DESCRIPTOR for word in options.json_values(enum).values()
    }


def _linted(root: Path) -> subprocess.CompletedProcess[str]:
    command = [str(root / "scripts" / "lint-contract"), sys.executable]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_contract_is_in_form_and_breaks_nothing_that_was_released() -> None:
    done = _linted(ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the contract, with what checks it."""
    for folder in ("protos", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def _edit(root: Path, file: str, old: str, new: str) -> None:
    path = root / "protos" / "convgrpc" / "v1" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


SERVICE = "conversations_service.proto"
LAST_WORD = "  // ORDER_DESC is newest first.\n  ORDER_DESC = 2;\n"
# An edit of a file, and what is said of it.
BREAKS = {
    "a field has another number": (
        "conversation.proto",
        "string id = 1",
        "string id = 101",
        'Previously present field "1"',
    ),
    "a field has another type": (SERVICE, "bool has_more = 4", "string has_more = 4", 'changed type from "bool"'),
    "a value of an enum is gone": (SERVICE, LAST_WORD, "", 'Previously present enum value "2"'),
    "a method answers otherwise": (SERVICE, "returns (ConversationItem)", "returns (Message)", "changed response type"),
}
ADDITION = """\

// Novelty is new.
message Novelty {
  // id is its identifier.
  string id = 1;
}
"""


def test_what_breaks_the_released_contract_is_refused_until_that_is_released(copy: Path) -> None:
    for file, old, new, _ in BREAKS.values():
        _edit(copy, file, old, new)
    done = _linted(copy)
    assert done.returncode != 0
    assert [name for name, (*_, said) in BREAKS.items() if said not in done.stdout] == [], done.stdout + done.stderr
    subprocess.run([copy / "scripts" / "release-contract"], check=True, env=os.environ | {"PYTHON": sys.executable})
    done = _linted(copy)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_added_to_the_released_contract_is_not_refused(copy: Path) -> None:
    """A message, and a field of a message that was released."""
    path = copy / "protos" / "convgrpc" / "v1" / "conversation.proto"
    path.write_text(path.read_text() + ADDITION)
    field = "  // novelty is new.\n  string novelty = 102;\n"
    _edit(copy, "conversations_service.proto", "  bool has_more = 4;\n", f"  bool has_more = 4;\n{field}")
    done = _linted(copy)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


# What the codec and the validator make of it.


@each_message
def test_every_message_can_be_decoded_encoded_checked_and_filled_in(message: Descriptor) -> None:
    message_class = GetMessageClass(message)
    empty = message_class()
    fill_in(empty)
    dump(empty)
    with suppress(InvalidArgument):
        decode(message_class, {})
    with suppress(InvalidArgument):
        validate(empty)


def test_fields_are_of_types_that_json_has() -> None:
    """Any integer is one of 64 bits, so that none overflows in one language only; there are no bytes."""
    types = {
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_ENUM,
        FieldDescriptor.TYPE_MESSAGE,
    }
    assert [field.full_name for field in FIELDS if field.type not in types] == []


@each_tagged
def test_tags_are_unique(union: OneofDescriptor) -> None:
    counts = Counter(tag for field in union.fields if _is_object(field) for tag in options.tags(field))
    assert counts.most_common(1)[0][1] == 1
    default = options.union_options(union).default
    assert not default or default in counts


@each_union
def test_members_that_have_no_tag_are_told_apart_by_their_json_type(union: OneofDescriptor) -> None:
    tagged = bool(options.union_options(union).tag)
    counts = Counter(options.json_type(field) for field in union.fields if not (tagged and _is_object(field)))
    assert max(counts.values(), default=1) == 1
    assert union.containing_type is not None
    bare = options.shape(union.containing_type).bare
    assert bare or tagged, "in an object, only a tag can tell members apart"
    assert bare or all(_is_object(field) for field in union.fields), "only objects have keys to stand beside others"


def _is_object(field: FieldDescriptor) -> bool:
    return options.json_type(field) is dict


@each_tagged
def test_keys_of_a_member_are_not_those_of_its_siblings(union: OneofDescriptor) -> None:
    """They stand side by side in one object."""
    message = union.containing_type
    assert message is not None
    around = {options.union_options(union).tag, *(field.name for field in options.plain_fields(message))}
    for member in union.fields:
        if _is_object(member):
            inner = options.message_of(member)
            assert not options.shape(inner).bare, member.full_name
            assert options.union(inner) is None, member.full_name
            keys = {field.name for field in inner.fields if field is not options.tag_field(member)}
            assert keys & around == set(), member.full_name


@each_message
def test_bare_messages_have_one_thing_to_stand_in_their_place(message: Descriptor) -> None:
    shape = options.shape(message)
    if shape.bare or shape.json_text:
        assert len(message.fields) == 1 or len(options.plain_fields(message)) == 0
    if shape.json_text:
        assert [field.type for field in message.fields] == [FieldDescriptor.TYPE_STRING]


@pytest.mark.parametrize("enum", ENUMS, ids=[enum.name for enum in ENUMS])
def test_words_are_unique(enum: EnumDescriptor) -> None:
    words = options.json_values(enum)
    assert len(set(words.values())) == len(words) == len(enum.values) - 1
    assert enum.values[0].name.endswith("_UNSPECIFIED")


def test_options_name_what_is_there() -> None:
    for field in FIELDS:
        rules = options.field_options(field)
        if rules.accepted_values:
            assert set(rules.accepted_values) <= set(options.json_values(options.enum_of(field)).values()), (
                field.full_name
            )
        if rules.parts_by:
            _check_parts(field, options.enum_of(options.sibling(field, rules.parts_by)))
        if rules.pattern:
            re.compile(rules.pattern)
    for message in MESSAGES:
        shape = options.shape(message)
        for name in shape.exactly_one:
            assert message.fields_by_name[name].has_presence, message.full_name
        assert set(shape.at_least_one) <= set(message.fields_by_name), message.full_name
    for member, kind in KINDS.items():
        if kind.id_or:
            assert options.message_of(member).fields_by_name[kind.id_or].has_presence, member.full_name


def _check_parts(field: FieldDescriptor, enum: EnumDescriptor) -> None:
    union = options.union(options.message_of(field))
    assert union is not None
    members = {member.name for member in union.fields}
    assert set(options.text_parts(enum)) == set(options.json_values(enum).values()), (
        "a string stands for a part in any role"
    )
    assert set(options.text_parts(enum).values()) <= members
    assert all(set(parts) <= members for parts in options.parts(enum).values())


def test_limits_are_on_fields_that_have_what_they_limit() -> None:
    for field in FIELDS:
        rules = options.field_options(field)
        is_map = options.is_map(field)
        if rules.max_key_length:
            assert is_map, field.full_name
        if rules.min_length or rules.max_length or rules.pattern or rules.prefix:
            assert is_map or field.type == FieldDescriptor.TYPE_STRING, field.full_name
        if rules.min_items or rules.max_items:
            assert field.is_repeated or options.shape(options.message_of(field)).bare, field.full_name
        if rules.HasField("minimum") or rules.HasField("maximum"):
            assert field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_DOUBLE), field.full_name
        if rules.ids_optional:
            assert field.is_repeated, field.full_name
            assert field.message_type is ConversationItem.DESCRIPTOR, field.full_name
        if rules.omit_empty:
            assert field.is_repeated, field.full_name
        if rules.source:
            assert field.type == FieldDescriptor.TYPE_STRING, field.full_name
            assert field.has_presence, field.full_name


# Presence.


REQUESTS = [method.input_type for method in METHODS]
SENT = reachable(ConversationItem.DESCRIPTOR, *REQUESTS)
BEHAVIORS = {field_behavior_pb2.REQUIRED, field_behavior_pb2.OPTIONAL}


def _stands_for_itself(field: FieldDescriptor) -> bool:
    """Whether a field is neither a union's member nor what a bare message holds."""
    message = options.holder(field)
    shape, union = options.shape(message), options.union(message)
    return not (shape.bare or shape.json_text or (union and field in union.fields))


def test_every_field_that_callers_send_is_required_or_optional() -> None:
    for message in SENT:
        for field in message.fields:
            behaviors = set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])
            expected = 1 if _stands_for_itself(field) else 0
            assert len(behaviors) == expected, field.full_name
            assert behaviors <= BEHAVIORS, field.full_name


def test_absent_can_be_told_from_zero_exactly_where_a_field_may_be_absent() -> None:
    """A required scalar has no presence; an optional one has. Enums have their zero value for that."""
    for message in SENT:
        for field in filter(_stands_for_itself, message.fields):
            if field.message_type is None and field.enum_type is None and not field.is_repeated:
                assert field.has_presence != options.is_required(field), field.full_name


# Kinds.


def test_ids_of_every_kind_begin_with_letters_of_their_own() -> None:
    prefixes = [kind.id_prefix for kind in KINDS.values() if not kind.reference]
    assert len(set(prefixes)) == len(prefixes)
    assert all(re.fullmatch("[a-z]{2,4}", prefix) for prefix in prefixes)


def test_ids_that_the_service_gives_are_accepted_back() -> None:
    assert all(kind.id_prefix.startswith(kind.accepted_prefix) for kind in KINDS.values())


def test_every_member_is_a_kind_and_only_references_have_no_prefix() -> None:
    assert all(options.kind(field) for field in KINDS)
    assert [field.name for field, kind in KINDS.items() if not kind.id_prefix] == ["item_reference"]
    assert [field.name for field, kind in KINDS.items() if kind.reference] == ["item_reference"]


def test_what_include_reveals_is_what_fields_are_revealed_by() -> None:
    """But `web_search_call.results`, which is a value of the API's that reveals nothing in any published shape."""
    revealed = {options.field_options(field).include for field in FIELDS} - {""}
    values = set(options.json_values(Include.DESCRIPTOR).values())
    assert revealed <= values
    assert values - revealed == {"web_search_call.results"}


# Methods.


@each_method
def test_every_method_has_a_route_whose_parameters_are_required_fields(method: MethodDescriptor) -> None:
    """But one that takes a stream of requests, for which HTTP has no form that all its clients know."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    template = rule.get or rule.post or rule.delete
    assert template.startswith("/v1/") == (not method.client_streaming)
    assert rule.body == ("*" if rule.post else "")
    for name in re.findall(r"{(\w+)}", template):
        field = method.input_type.fields_by_name[name]
        assert options.is_required(field)
        assert field.type == FieldDescriptor.TYPE_STRING


def test_no_two_methods_share_a_route() -> None:
    found = methods(service for file in FILES for service in file.services_by_name.values())
    routes = [(method.verb, method.template) for method in found if method.template]
    assert len(set(routes)) == len(routes)
    assert len(found) == len(METHODS)


@each_method
def test_requests_are_named_after_their_method(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"


# Errors.


REASONS = [(name, number) for name, number in ErrorReason.items() if number]


@pytest.mark.parametrize(("name", "number"), REASONS, ids=[name for name, _ in REASONS])
def test_every_reason_says_how_it_is_reported(name: str, number: Any) -> None:
    report = REPORTS[number]
    assert report.grpc in CLASSES
    assert 400 <= report.http < 600
    assert report.type == (
        "server_error" if report.http >= 500 else "rate_limit_error" if report.http == 429 else "invalid_request_error"
    )
    assert report.code or report.http in (404, 405)


def test_clients_retry_only_what_may_help() -> None:
    """The API's clients repeat 408, 409, 429 and all from 500: no fault of the request may be one of those."""
    for name, number in REASONS:
        report = REPORTS[number]
        if CLASSES[report.grpc] is InvalidArgument:
            assert 400 <= report.http < 500, name
            assert report.http not in (408, 409, 429), name


def test_every_reason_has_an_example() -> None:
    text = (ROOT / "protos" / "convgrpc" / "v1" / "error_reason.proto").read_text()
    comments = dict(re.findall(r"((?:  //.*\n)+)  (\w+) = ", text))
    without = [name for comment, name in comments.items() if "Example: " not in comment]
    assert without == ["ERROR_REASON_UNSPECIFIED"]


def test_the_exceptions_cover_every_code_of_grpc() -> None:
    """Those of the reasons, and what clients, proxies and gRPC itself report."""
    assert set(CLASSES) == set(Code.values()) - {Code.Value("OK")}
