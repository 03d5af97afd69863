"""What a client makes of its arguments, before anything is sent."""

from collections import OrderedDict, UserDict
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.message import Message

import convgrpc
from convgrpc.client.values import request
from convgrpc.errors import ConvgrpcError, InvalidArgument
from convgrpc.v1.conversation_pb2 import Conversation, Metadata
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    GetConversationRequest,
    ListItemsRequest,
)
from convgrpc.v1.error_reason_pb2 import ErrorReason
from convgrpc.v1.item_pb2 import ConversationItem


def made(message_class: type[Message], **arguments: Any) -> Any:
    names = [field.name for field in message_class.DESCRIPTOR.fields]
    return request(message_class, dict.fromkeys(names) | arguments)


def fault(message_class: type[Message], **arguments: Any) -> ConvgrpcError:
    with pytest.raises(InvalidArgument) as raised:
        made(message_class, **arguments)
    return raised.value


def listed(schema: Any) -> dict[str, Any]:
    """An item with free-form JSON in it."""
    tools = [{"name": "t", "input_schema": schema}]
    return {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": tools}


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("arguments", "reason", "param"),
    [
        ({"items": [{"type": "mesage"}]}, "INVALID_VALUE", "items[0]"),
        ({"items": [{"role": "user", "content": "a", "text": 1}]}, "UNKNOWN_PARAMETER", "items[0].text"),
        ({"items": {}}, "INVALID_TYPE", "items"),
        ({"items": "abc"}, "INVALID_TYPE", "items"),
        ({"items": [Conversation()]}, "INVALID_TYPE", "items[0]"),
        ({"items": [b"abc"]}, "INVALID_TYPE", "items[0]"),
        ({"items": iter([])}, "INVALID_TYPE", "items"),
        ({"items": [listed({"now": datetime(2026, 1, 1)})]}, "INVALID_TYPE", "items[0].tools[0].input_schema.now"),
        ({"items": [listed({"a": Decimal(1)})]}, "INVALID_TYPE", "items[0].tools[0].input_schema.a"),
        ({"items": [listed({"a": float("nan")})]}, "INVALID_TYPE", "items[0].tools[0].input_schema.a"),
        ({"items": [listed({1: "a"})]}, "INVALID_TYPE", "items[0].tools[0].input_schema"),
        ({"items": [listed("\ud800")]}, "INVALID_TYPE", "items[0].tools[0].input_schema"),
        ({"items": [listed({"\ud800": 1})]}, "INVALID_TYPE", "items[0].tools[0].input_schema"),
        ({"metadata": {"a": 1}}, "INVALID_TYPE", "metadata.a"),
        ({"metadata": [1]}, "INVALID_TYPE", "metadata"),
    ],
)
def test_a_value_that_is_none_is_refused_by_its_name(arguments: Any, reason: str, param: str) -> None:
    """With the contract's own words and reasons, and no call is made."""
    refusal = fault(CreateConversationRequest, **arguments)
    assert (ErrorReason.Name(refusal.reason), refusal.param) == (f"ERROR_REASON_{reason}", param)
    assert refusal.request_id is None


def test_values_that_contain_themselves_are_too_deep() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = circle
    for value in (circle, nested(64), nested(100_000)):
        refusal = fault(CreateConversationRequest, items=[listed(value)])
        assert refusal.reason == ErrorReason.ERROR_REASON_NESTING_TOO_DEEP
    made(CreateConversationRequest, items=[listed(nested(50))])


def test_free_form_json_is_kept_as_it_is() -> None:
    """The order of keys, long integers, what is not ASCII."""
    schema = OrderedDict(z=2**70, a="é😀", m=UserDict(b=(1, 1.0, True, None)))
    item = made(CreateConversationRequest, items=[listed(schema)]).items[0]
    assert item.mcp_list_tools.tools[0].input_schema.text == (
        '{"z":1180591620717411303424,"a":"é😀","m":{"b":[1,1.0,true,null]}}'
    )
    assert convgrpc.to_dict(item)["tools"][0]["input_schema"] == {
        "z": 2**70, "a": "é😀", "m": {"b": [1, 1.0, True, None]}
    }  # fmt: skip


def test_none_means_not_given() -> None:
    message = made(ListItemsRequest, conversation_id="conv_1")
    assert message == ListItemsRequest(conversation_id="conv_1")


def test_a_required_argument_is_not_none() -> None:
    """It is missing then, be it a string or a list."""
    refusal = fault(GetConversationRequest)
    assert (refusal.param, refusal.field) == ("conversation_id", "conversation_id")
    assert str(refusal) == "Missing required parameter: 'conversation_id'."
    assert str(fault(CreateItemsRequest, conversation_id="conv_1")) == "Missing required parameter: 'items'."


def test_creating_calls_are_given_an_id_of_their_own() -> None:
    """A new one each time, unless the caller gave one; others have no place for it."""
    one, other = (made(CreateItemsRequest, conversation_id="conv_1", items=[]) for _ in range(2))
    assert one.request_id
    assert one.request_id != other.request_id
    assert made(CreateConversationRequest, request_id="mine").request_id == "mine"
    assert made(CreateConversationRequest, request_id="").request_id == ""


def test_messages_and_their_containers_are_values() -> None:
    metadata = Metadata(pairs={"a": "b"})
    items = CreateItemsRequest(items=[ConversationItem(id="msg_1")]).items
    for given in (metadata, metadata.pairs, {"a": "b"}):
        assert made(CreateConversationRequest, metadata=given, items=items).metadata == metadata
    assert made(CreateConversationRequest, items=items).items == items


def test_an_argument_is_not_changed() -> None:
    item = {"role": "user", "content": [{"type": "input_text", "text": "a"}]}
    before = repr(item)
    made(CreateConversationRequest, items=[item]).items[0].message.content[0].input_text.text = "b"
    message = ConversationItem(id="msg_1")
    made(CreateConversationRequest, items=[message]).items[0].id = "msg_2"
    assert (repr(item), message.id) == (before, "msg_1")
