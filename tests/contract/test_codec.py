"""JSON to message and back."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.contract.encoder import dump
from convgrpc.contract.json_text import parse
from convgrpc.contract.validator import validate
from convgrpc.errors import InvalidArgument
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    UpdateConversationRequest,
)
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem
from convgrpc.v1.tool_pb2 import Tool

from .corpus import CONFORMANCE, ROWS, Row, conformance_rows
from .walk import reachable

each_row = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


def decoded(value: Any, message_class: type[Message] = ConversationItem) -> Message:
    message = decode(message_class, parse(json.dumps(value).encode()))
    validate(message)
    return message


# The project's own corpus.


@each_row
def test_items_come_back_as_they_were_sent(row: Row) -> None:
    """Key by key: empty, zero, false, null and absent stay apart, and so do 1 and 1.0."""
    returned = json.loads(dump(decoded(row.value)))
    assert returned == row.value
    assert repr(returned) == repr(row.value), "`==` takes 1, 1.0 and true for the same, and disregards order"


@each_row
def test_messages_come_back_as_they_were(row: Row) -> None:
    message = decoded(row.value)
    assert decode(ConversationItem, parse(dump(message))) == message


def test_the_corpus_has_every_kind() -> None:
    kinds = [field.name for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields]
    assert {row.kind for row in ROWS} == set(kinds)
    assert all(row.kind == row.value["type"] for row in ROWS)
    assert len({row.name for row in ROWS}) == len({row.value["id"] for row in ROWS}) == len(ROWS)


def test_the_corpus_has_every_field_and_every_word() -> None:
    """So that what the contract gains is in the corpus too. What it does not know is not."""
    expected = {use for message in reachable(ConversationItem.DESCRIPTOR) for use in _uses(message)}
    assert expected - {use for row in ROWS for use in _uses_in(decoded(row.value))} == set()


def _uses(message: Descriptor) -> Iterable[str]:
    for field in message.fields:
        if options.field_options(field).source:
            continue
        yield field.full_name
        if field.enum_type is not None:
            yield from (f"{field.enum_type.full_name} {word}" for word in options.json_values(field.enum_type).values())


def _uses_in(message: Message) -> Iterable[str]:
    for field, value in message.ListFields():
        yield field.full_name
        if field.enum_type is not None:
            words = options.json_values(field.enum_type)
            yield from (
                f"{field.enum_type.full_name} {words[each]}" for each in (value if field.is_repeated else [value])
            )
        for each in _messages(field, value):
            yield from _uses_in(each)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    if options.is_map(field):
        return value.values() if options.map_value(field).message_type is not None else ()
    if field.message_type is None:
        return ()
    return value if field.is_repeated else (value,)


REPLACEMENTS: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e300, 2**63, 10**40, "", "x", "é" * 300, [], [[]], [{}], ["x"], {}, {"type": "x"}
]  # fmt: skip


@each_row
def test_whatever_takes_the_place_of_a_value_is_understood_or_refused(row: Row) -> None:
    """Never another exception; and what is understood survives the trip."""
    for broken in _broken(row.value):
        message = None
        with suppress(InvalidArgument):
            message = decoded(broken)
        if message is not None:
            assert decode(ConversationItem, parse(dump(message))) == message


def _broken(value: Any) -> Iterable[Any]:
    """The value with each of its parts replaced, one at a time; and with each key gone, or one too many."""
    yield from REPLACEMENTS
    if isinstance(value, dict):
        yield {**value, "unheard_of": 1}
        for key, each in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: broken} for broken in _broken(each))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from ([*value[:index], broken, *value[index + 1 :]] for broken in _broken(each))


# The conformance collection.


BODIES: dict[str, type[Message]] = {
    "conversations.create": CreateConversationRequest,
    "conversations.update": UpdateConversationRequest,
    "items.create": CreateItemsRequest,
    "input_tokens": CountInputTokensRequest,
}
SENT_IN_THE_PATH = {"conversations.update", "items.create"}
TEXT_PARTS = {"user": "input_text", "system": "input_text", "developer": "input_text", "assistant": "output_text"}

needs_conformance = pytest.mark.skipif(not CONFORMANCE.exists(), reason="the conformance collection is not there")
# The types of the SDK allow null for the metadata of an update; the API was recorded to refuse it.
REFUSED = {("conversations.update", '{"metadata": null}')}
each_conformance_row = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{n}-{row['variant']}")
        for n, row in enumerate(conformance_rows())
        if (row["variant"], json.dumps(row["value"])) not in REFUSED
    ],
)


@needs_conformance
@each_conformance_row
def test_conforming_values_come_back_as_the_api_returns_them(row: dict[str, Any]) -> None:
    sent, message_class = _request(row)
    returned = json.loads(dump(decoded(sent, message_class)))
    assert _without_nulls(returned) == _without_nulls(_normalised(sent, row["kind"]))


@needs_conformance
@each_conformance_row
def test_conforming_messages_come_back_as_they_were(row: dict[str, Any]) -> None:
    sent, message_class = _request(row)
    message = decoded(sent, message_class)
    assert decode(message_class, parse(dump(message))) == message


def _request(row: dict[str, Any]) -> tuple[Any, type[Message]]:
    if row["kind"] == "body":
        path = {"conversation_id": "conv_1"} if row["variant"] in SENT_IN_THE_PATH else {}
        return {**path, **row["value"]}, BODIES[row["variant"]]
    return row["value"], Tool if row["kind"] == "tool" else ConversationItem


def _normalised(value: Any, kind: str) -> Any:
    """What the API makes of a value by itself: it completes messages and drops empty lists of items."""
    if kind == "tool":
        return value
    if kind != "body":
        return _normalised_item(value)
    body = {key: each for key, each in value.items() if each != [] or key == "input"}
    for key in ("items", "input"):
        if isinstance(body.get(key), list):
            body[key] = [_normalised_item(item) for item in body[key]]
    return body


def _normalised_item(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type", "message") != "message":
        return item
    content = item["content"]
    if isinstance(content, str):
        content = [{"type": TEXT_PARTS[item["role"]], "text": content}]
    return {**item, "type": "message", "content": [_normalised_part(part) for part in content]}


def _normalised_part(part: dict[str, Any]) -> dict[str, Any]:
    return {"annotations": [], "logprobs": [], **part} if part["type"] == "output_text" else part


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
