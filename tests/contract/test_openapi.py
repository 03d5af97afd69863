"""The OpenAPI document: that it is one, that it has all of the contract, and that it agrees with the codec."""

import copy
import json
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate as validate_document

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.contract.defaults import fill_in
from convgrpc.contract.encoder import dump
from convgrpc.contract.methods import Method, methods
from convgrpc.contract.openapi import document
from convgrpc.contract.validator import validate
from convgrpc.errors import REPORTS, ConvgrpcError
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest
from convgrpc.v1.error_reason_pb2 import ErrorReason
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem

from .corpus import ROWS, Row
from .strategies import messages
from .walk import FILES, MESSAGES, reachable

SERVICES = [
    *conversations_service_pb2.DESCRIPTOR.services_by_name.values(),
    *input_tokens_service_pb2.DESCRIPTOR.services_by_name.values(),
    *responses_service_pb2.DESCRIPTOR.services_by_name.values(),
]
METHODS = [method for method in methods(SERVICES) if method.template]
DOCUMENT = document(METHODS, version="1.2.3")
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
KINDS = {
    field.name: options.kind(field) or options.Kind()
    for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields
}
RETURNED = [name for name, kind in KINDS.items() if not kind.reference]

each_row = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
each_method = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])


@cache
def validator(name: str) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return Draft202012Validator(schema)


def is_valid(name: str, value: Any) -> bool:
    return validator(name).is_valid(value)


def json_of(message: Message) -> Any:
    return json.loads(dump(message))


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(each)


# The document.


def test_the_document_is_one_of_openapi() -> None:
    validate_document(DOCUMENT)
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_the_document_is_the_same_every_time() -> None:
    assert json.dumps(document(METHODS, version="1.2.3")) == json.dumps(DOCUMENT)


def test_every_reference_leads_somewhere_and_everything_is_referred_to() -> None:
    found = {part["$ref"] for part in parts(DOCUMENT) if "$ref" in part}
    found |= {f"#/components/securitySchemes/{name}" for way in DOCUMENT["security"] for name in way}
    there = {f"#/components/{kind}/{name}" for kind, named in DOCUMENT["components"].items() for name in named}
    assert found == there


def test_everything_is_described() -> None:
    without = [name for name, schema in SCHEMAS.items() if not schema.get("description")]
    properties = [
        (f"{name}.{key}", value)
        for name, schema in [*SCHEMAS.items(), ("Error.error", SCHEMAS["Error"]["properties"]["error"])]
        for key, value in schema.get("properties", {}).items()
    ]
    assert len(properties) > 1000
    without += [name for name, value in properties if not value.get("description")]
    without += [each["name"] for part in OPERATIONS for each in part["parameters"] if not each.get("description")]
    assert without == []


def test_descriptions_are_the_words_of_the_contract() -> None:
    item = SCHEMAS["FunctionCall"]
    assert item["description"] == "FunctionCall is a model's call of a function, which the caller runs."
    assert item["properties"]["call_id"]["description"] == (
        "call_id is the call's identifier, by which its output refers to it."
    )
    assert item["properties"]["type"]["description"] == "function_call is a model's call of a function."
    assert SCHEMAS["Order"]["description"] == (
        "Order is the direction of a walk through items.\n\n"
        "- `asc`: ORDER_ASC is oldest first.\n- `desc`: ORDER_DESC is newest first."
    )


# Operations.


def operation(method: Method) -> dict[str, Any]:
    return dict(DOCUMENT["paths"][method.template][method.verb.lower()])


@each_method
def test_every_method_is_there(method: Method) -> None:
    """With all fields of its request, each in one place, and all statuses that an answer can have."""
    described = operation(method)
    assert described["operationId"] == method.name[0].lower() + method.name[1:]
    assert described["description"].startswith(described["summary"])
    assert described["summary"].endswith(".")
    statuses = {str(report.http) for number, report in REPORTS.items() if number}
    assert described["responses"].keys() == {"200"} | statuses
    names = [method.headers.get(name, name) for name in method.fields]
    given = {each["name"] for each in described["parameters"]} | body(method).get("properties", {}).keys()
    resumption = {"last-event-id"} if method.stream.resumes else set()
    assert given == {*names, *resumption}


def test_there_is_nothing_but_the_methods() -> None:
    assert len(OPERATIONS) == len({each["operationId"] for each in OPERATIONS}) == len(METHODS)


def test_streams_say_what_their_pieces_are() -> None:
    """Lines are items, and the data of events is the JSON of a batch."""
    contents = {method.name: operation(method)["responses"]["200"]["content"] for method in METHODS}
    place = "#/components/schemas/"
    lines = contents["ExportItems"]["application/jsonl"]
    assert lines == {"schema": {"type": "string"}, "x-itemSchema": {"$ref": f"{place}ConversationItem"}}
    event = contents["WatchItems"]["text/event-stream"]["x-itemSchema"]["properties"]["data"]
    assert event["contentSchema"] == {"$ref": f"{place}ConversationItemBatch"}
    others = {name: set(content) for name, content in contents.items() if name not in ("ExportItems", "WatchItems")}
    assert set(map(tuple, others.values())) == {("application/json",)}


def body(method: Method) -> dict[str, Any]:
    """The schema of a method's body; empty where it has none."""
    content = operation(method).get("requestBody", {}).get("content")
    return dict(SCHEMAS[content["application/json"]["schema"]["$ref"].rpartition("/")[2]]) if content else {}


@each_method
def test_bodies_have_what_is_given_nowhere_else(method: Method) -> None:
    if method.verb == "POST":
        parameters = operation(method)["parameters"]
        elsewhere = {each["name"] for each in parameters if each["in"] == "path"} | method.headers.keys()
        assert body(method)["properties"].keys() == set(method.fields) - elsewhere
        assert operation(method)["requestBody"]["required"] == bool(body(method).get("required"))
    else:
        assert "requestBody" not in operation(method)


def parameter(method: str, name: str) -> dict[str, Any]:
    parameters = operation(next(each for each in METHODS if each.name == method))["parameters"]
    return dict(next(each for each in parameters if each["name"] == name))


def test_parameters_say_how_they_are_spelled() -> None:
    include = parameter("CreateItems", "include")
    assert (include["in"], include["style"], include["explode"], include["required"]) == ("query", "form", True, False)
    assert "`include[]`" in include["description"]
    assert parameter("ListItems", "limit")["schema"] == {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "maximum": 100,
    }
    assert parameter("ListItems", "order")["schema"] == {"$ref": "#/components/schemas/Order"}
    path = parameter("GetItem", "item_id")
    assert (path["in"], path["required"], path["schema"]) == ("path", True, {"type": "string", "minLength": 1})


def test_every_reason_is_listed_under_its_status() -> None:
    for name, number in ErrorReason.items():
        if number:
            response = DOCUMENT["components"]["responses"][f"Error{REPORTS[number].http}"]
            assert f"- `{REPORTS[number].code or 'null'}`: {name} says " in response["description"]


def test_every_answer_has_the_id_of_its_request() -> None:
    answers = [each["responses"]["200"] for each in OPERATIONS] + list(DOCUMENT["components"]["responses"].values())
    assert all(each["headers"].keys() == {"x-request-id"} for each in answers)


# Schemas.


def unions(*roots: Any) -> list[OneofDescriptor]:
    found = [options.union(message) for message in reachable(*roots)]
    return [union for union in found if union and options.union_options(union).tag]


def discriminators(schema: Any) -> list[dict[str, Any]]:
    return [part["discriminator"] for part in parts(schema) if "propertyName" in part.get("discriminator", {})]


@pytest.mark.parametrize(
    "union",
    unions(*(method.response.DESCRIPTOR for method in METHODS)),
    ids=lambda union: union.full_name,
)
def test_discriminators_have_every_tag(union: OneofDescriptor) -> None:
    """Of every tagged union in an answer, whose tag is always there."""
    assert union.containing_type
    (found,) = discriminators(SCHEMAS[union.containing_type.name])
    rules = options.union_options(union)
    assert found["propertyName"] == rules.tag
    fields = [
        field
        for field in union.fields
        if field.name in RETURNED or union.containing_type is not ConversationItem.DESCRIPTOR
    ]
    tags = {tag for field in fields if options.json_type(field) is dict for tag in options.tags(field)}
    assert found["mapping"].keys() == tags
    for tag, ref in found["mapping"].items():
        schema = SCHEMAS[ref.rpartition("/")[2]]
        assert rules.tag in schema["required"]
        value = schema["properties"][rules.tag]
        assert tag in value.get("enum", [value.get("const")])


def test_callers_and_readers_have_schemas_of_their_own() -> None:
    sent, answered = SCHEMAS["MessageInput"], SCHEMAS["Message"]
    assert set(sent["required"]) == {"role", "content"}
    assert set(answered["required"]) == {"id", "type", "role", "content", "status"}
    assert sent["additionalProperties"] is False
    assert "additionalProperties" not in answered
    assert sent["properties"]["status"]["default"] == "completed"
    assert "discriminator" not in SCHEMAS["ConversationItemInput"], "an item without a type is a message"
    assert "StringListInput" not in SCHEMAS


def test_names_are_those_of_messages_and_enums() -> None:
    known = {message.name for message in MESSAGES} | {
        enum.name for file in FILES for enum in file.enum_types_by_name.values()
    }
    assert {re.sub("(Input)?(WithoutId)?$", "", name) for name in SCHEMAS.keys() - known} - known == {"Error"}


# What is answered.


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind in RETURNED], ids=lambda row: row.name)
def test_items_are_answered_as_described(row: Row) -> None:
    message = decode(ConversationItem, row.value)
    fill_in(message)
    validator("ConversationItem").validate(json_of(message))


def answered(message: Any, kind: str) -> Any:
    """An item as the service answers it: with an id, and with what it fills in."""
    if not message.HasField("id"):
        message.id = f"{KINDS[kind].id_prefix}_1"
    fill_in(message)
    return json_of(message)


bounded = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("kind", RETURNED)
@bounded
@given(data=st.data())
def test_any_item_is_answered_as_described(data: st.DataObject, kind: str) -> None:
    message = data.draw(messages(ConversationItem.DESCRIPTOR, kind))
    validator("ConversationItem").validate(answered(message, kind))


def test_answers_have_everything_that_they_are_said_to_have() -> None:
    for method in METHODS:
        name = method.response.DESCRIPTOR.name
        if name != "ConversationItem":
            validator(name).validate(json_of(method.response()))


def objects(*roots: Any) -> list[Descriptor]:
    """The messages in answers that appear as objects with keys of their own."""
    found = [message for message in reachable(*roots) if message.name != "ItemReference"]
    shapes = [(message, options.shape(message)) for message in found]
    return [message for message, shape in shapes if not (shape.bare or shape.json_text or options.union(message))]


@pytest.mark.parametrize(
    "message", objects(*(method.response.DESCRIPTOR for method in METHODS)), ids=lambda message: message.name
)
def test_what_is_always_answered_is_required(message: Descriptor) -> None:
    """What an empty message has, and no more but what callers must send, an id, and the tag of a kind."""
    empty = GetMessageClass(message)()
    fill_in(empty)
    always, required = set(json_of(empty)), set(SCHEMAS[message.name].get("required", []))
    assert always <= required
    sent = {field.name for field in message.fields if options.is_required(field)}
    assert required - always <= sent | {"id", "type"}


def test_references_and_unknown_kinds_are_no_answers() -> None:
    assert not is_valid("ConversationItem", {"type": "item_reference", "id": "msg_1"})
    assert not is_valid("ConversationItem", {"type": "unheard_of", "id": "x_1"})


def test_answers_may_have_keys_that_are_newer_than_their_readers() -> None:
    message = {"id": "msg_1", "type": "message", "role": "user", "status": "completed", "content": [], "new": 1}
    assert is_valid("ConversationItem", message)


# What is sent.


def is_accepted(value: Any) -> bool:
    """Whether the codec and the validator accept an item."""
    try:
        validate(decode(CreateItemsRequest, {"conversation_id": "conv_1", "items": [value]}))
    except ConvgrpcError:
        return False
    return True


@each_row
def test_items_may_be_sent_as_they_were_answered(row: Row) -> None:
    validator("ConversationItemInput").validate(row.value)
    validator("CreateItemsRequest").validate({"items": [row.value], "include": None})


@pytest.mark.parametrize("kind", KINDS)
@bounded
@given(data=st.data())
def test_any_item_may_be_sent(data: st.DataObject, kind: str) -> None:
    validator("ConversationItemInput").validate(json_of(data.draw(messages(ConversationItem.DESCRIPTOR, kind))))


def is_as_the_contract_asks(message: Message) -> bool:
    with suppress(ConvgrpcError):
        validate(message)
        return True
    return False


@bounded
@given(messages(CountInputTokensRequest.DESCRIPTOR).filter(is_as_the_contract_asks))
def test_any_request_for_a_count_may_be_sent(message: Message) -> None:
    validator("CountInputTokensRequest").validate(json_of(message))


TEXT = {"role": "user", "content": "hello"}
CALL = {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}


@pytest.mark.parametrize(
    "item",
    [
        TEXT,
        {"type": None, **TEXT},
        {"type": "message", "id": None, "status": None, "phase": None, **TEXT},
        {"role": "user", "content": []},
        {"id": "msg_1", "role": "critic", "content": "x"},
        {"id": "msg_" + "x" * 124, **TEXT},
        {"id": "fc_1"},
        {"id": "anything", "type": None},
        {"id": "msg_1", "type": "item_reference"},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"type": "reasoning", "summary": [], "id": "rs_1"},
        CALL,
        {**CALL, "caller": None, "async": False},
        {"type": "function_call_output", "output": "x"},
        {"type": "function_call_output", "output": []},
        {"type": "tool_search_call", "arguments": None},
        {"type": "compaction_trigger"},
        {"type": "local_shell_call_output", "output": "", "call_id": "c"},
        {"type": "local_shell_call_output", "output": "", "id": "lsh_1"},
    ],
    ids=str,
)
def test_what_the_gateway_accepts_is_valid(item: Any) -> None:
    assert is_accepted(item)
    validator("ConversationItemInput").validate(item)


@pytest.mark.parametrize(
    "item",
    [
        None,
        "hello",
        [],
        {},
        {"id": None},
        {"type": "unheard_of"},
        {"type": 1, **TEXT},
        {"role": "user"},
        {"content": "x"},
        {**TEXT, "content": None},
        {**TEXT, "content": 1},
        {**TEXT, "content": [{"type": "input_text"}]},
        {**TEXT, "content": [{"text": "x"}]},
        {**TEXT, "content": [{"type": "unheard_of", "text": "x"}]},
        {**TEXT, "content": [None]},
        {**TEXT, "role": "critic"},
        {**TEXT, "role": "nobody"},
        {**TEXT, "status": "done"},
        {**TEXT, "unheard_of": 1},
        {**TEXT, "id": "fc_1"},
        {**TEXT, "id": "msg_1/2"},
        {**TEXT, "id": "msg_" + "x" * 125},
        {**CALL, "arguments": {}},
        {**CALL, "arguments": None},
        {**CALL, "async": "yes"},
        {**CALL, "caller": {"type": "program"}},
        {**CALL, "caller": {"type": "program", "caller_id": ""}},
        {"type": "function_call_output", "output": None},
        {"type": "function_call_output", "output": "x", "call_id": "x" * 4097},
        {"type": "function_call_output", "output": "x", "namespace": "a b"},
        {"type": "reasoning", "summary": []},
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"type": "local_shell_call_output", "output": ""},
        {"type": "item_reference"},
        {"type": "item_reference", "id": "msg_1", "role": "user"},
        {"type": "program", "call_id": "c", "code": "", "fingerprint": ""},
        {"type": "additional_tools", "role": "user", "tools": []},
        {"type": "tool_search_call"},
    ],
    ids=lambda item: str(item)[:70],
)
def test_what_the_gateway_refuses_for_its_shape_is_invalid(item: Any) -> None:
    assert not is_accepted(item)
    assert not is_valid("ConversationItemInput", item)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CreateItemsRequest", {}),
        ("CreateItemsRequest", {"items": None}),
        ("CreateItemsRequest", {"items": []}),
        ("CreateItemsRequest", {"items": [TEXT] * 21}),
        ("CreateItemsRequest", {"items": [TEXT], "conversation_id": "conv_1"}),
        ("CreateItemsRequest", {"items": [TEXT], "include": ["everything"]}),
        ("CreateConversationRequest", {"items": [TEXT] * 21}),
        ("CreateConversationRequest", {"metdata": {}}),
        ("CreateConversationRequest", {"metadata": {"k": 1}}),
        ("CreateConversationRequest", {"metadata": {"k": None}}),
        ("CreateConversationRequest", {"metadata": {"k" * 65: ""}}),
        ("CreateConversationRequest", {"metadata": {"k": "v" * 513}}),
        ("CreateConversationRequest", {"metadata": {str(n): "" for n in range(17)}}),
        ("UpdateConversationRequest", {}),
        ("CountInputTokensRequest", {"tool_choice": "maybe"}),
        ("CountInputTokensRequest", {"tool_choice": {"type": "function"}}),
        ("CountInputTokensRequest", {"input": 1}),
        ("CountInputTokensRequest", {"input": [{}]}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_requests_of_the_wrong_shape_are_invalid(name: str, value: Any) -> None:
    method = next(method for method in METHODS if method.request.DESCRIPTOR.name == name)
    path = dict.fromkeys(re.findall(r"{(\w+)}", method.template), "conv_1")
    with pytest.raises(ConvgrpcError):
        validate(decode(method.request, {**value, **path} if not path.keys() & value.keys() else {"": ""}))
    assert not is_valid(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CreateConversationRequest", {}),
        ("CreateConversationRequest", {"items": None, "metadata": None}),
        ("CreateConversationRequest", {"items": [], "metadata": {}}),
        ("CreateItemsRequest", {"items": [TEXT] * 20}),
        ("CountInputTokensRequest", {"tool_choice": "auto", "input": "x", "conversation": "conv_1"}),
        ("CountInputTokensRequest", {"tool_choice": {"type": "computer_use"}, "conversation": {"id": "conv_1"}}),
    ],
    ids=str,
)
def test_requests_of_the_right_shape_are_valid(name: str, value: Any) -> None:
    validator(name).validate(value)


# Both at once: every value of every item, changed in ways that matter.

ODDITIES: list[Any] = [None, "x", 7, 0.5, True, [], {}, [None], {"type": "unheard_of"}]


def changed(value: Any) -> Iterator[Any]:
    """Copies of a JSON value, each with one difference: a key that is gone or new, a value of another type."""
    for steps in _places(value):
        for oddity in ODDITIES:
            yield _with(value, steps, oddity)
        if isinstance(steps[-1], str):
            yield _without(value, steps)
            yield _with(value, [*steps[:-1], "unheard_of"], 1)


def _places(value: Any) -> Iterator[list[Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield [key]
        yield from ([key, *steps] for steps in _places(each))


def _with(value: Any, steps: list[Any], new: Any) -> Any:
    result = copy.deepcopy(value)
    _at(result, steps[:-1])[steps[-1]] = new
    return result


def _without(value: Any, steps: list[Any]) -> Any:
    result = copy.deepcopy(value)
    del _at(result, steps[:-1])[steps[-1]]
    return result


def _at(value: Any, steps: list[Any]) -> Any:
    for step in steps:
        value = value[step]
    return value


def check_agreement(values: Iterable[Any]) -> None:
    for value in values:
        assert is_accepted(value) == is_valid("ConversationItemInput", value), value


@each_row
def test_the_document_and_the_codec_agree(row: Row) -> None:
    values = list(changed(row.value))
    check_agreement(random.Random(row.name).sample(values, min(len(values), 10)))


@pytest.mark.long
@each_row
def test_the_document_and_the_codec_agree_on_everything(row: Row) -> None:
    check_agreement(changed(row.value))
