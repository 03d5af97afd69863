"""Message to JSON."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message

from convgrpc.contract import options
from convgrpc.contract.encoder import dump
from convgrpc.v1.content_pb2 import ContentPart, Json, OutputText
from convgrpc.v1.conversation_pb2 import Conversation, DeletedConversation, Metadata
from convgrpc.v1.conversations_service_pb2 import ConversationItemList, CreateConversationRequest
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, InputTokenCount, ResponseInput
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall, ItemStatus, McpCall, ShellCall, ToolSearchCall
from convgrpc.v1.tool_pb2 import Tool, WebSearchTool, WebSearchToolType

from .walk import reachable


def encoded(message: Message) -> Any:
    return json.loads(dump(message))


def test_a_conversation_is_written_with_its_object_and_its_metadata() -> None:
    conversation = Conversation(id="conv_1", created_at=1700000000, metadata=Metadata(pairs={"b": "", "a": "é"}))
    assert dump(conversation).decode() == (
        '{"object":"conversation","id":"conv_1","created_at":1700000000,"metadata":{"a":"é","b":""}}'
    )


def test_a_deleted_conversation_is_written_as_such() -> None:
    deleted = DeletedConversation(id="conv_1", deleted=True)
    assert encoded(deleted) == {"object": "conversation.deleted", "id": "conv_1", "deleted": True}


def test_a_count_is_written_even_when_it_is_zero() -> None:
    assert encoded(InputTokenCount()) == {"object": "response.input_tokens", "input_tokens": 0}


def test_an_empty_page_is_written_in_full() -> None:
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert encoded(ConversationItemList()) == empty


def test_keys_stand_in_the_order_of_the_contract() -> None:
    """Those of a kind stand where the kind does: beside the id, after the type."""
    item = ConversationItem(function_call=FunctionCall(name="n", status=ItemStatus.ITEM_STATUS_COMPLETED), id="fc_1")
    assert list(encoded(item)) == ["id", "type", "status", "call_id", "name", "arguments"]


def test_nullable_fields_are_null_when_unset_and_others_left_out() -> None:
    call = encoded(ConversationItem(mcp_call=McpCall()))
    assert call == {
        "type": "mcp_call",
        "server_label": "",
        "name": "",
        "arguments": "",
        "approval_request_id": None,
        "error": None,
        "output": None,
    }


def test_every_nullable_field_is_null_when_unset() -> None:
    """That an unset field can be told from an empty one is what makes null possible."""
    fields = [
        field
        for message in reachable(ConversationItem.DESCRIPTOR, ConversationItemList.DESCRIPTOR)
        for field in message.fields
        if options.field_options(field).nullable
    ]
    assert len(fields) > 15
    assert all(field.has_presence for field in fields)


def test_empty_lists_are_written_unless_the_contract_says_otherwise() -> None:
    part = encoded(ContentPart(output_text=OutputText()))
    assert part == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert encoded(CreateConversationRequest()) == {}
    assert encoded(CountInputTokensRequest()) == {}


def test_lists_that_may_be_absent_are_written_when_they_are_set() -> None:
    request = CountInputTokensRequest(input=ResponseInput())
    request.input.items.SetInParent()
    assert encoded(request) == {"input": []}


def test_zero_and_false_are_written_when_they_are_set() -> None:
    request = CountInputTokensRequest(parallel_tool_calls=False, instructions="")
    assert encoded(request) == {"instructions": "", "parallel_tool_calls": False}


def test_free_form_json_is_written_as_it_is_kept() -> None:
    text = '{ "z": 1.0, "a": 123456789012345678901234567890 }'
    item = ConversationItem(tool_search_call=ToolSearchCall(arguments=Json(text=text)))
    assert f'"arguments":{text},'.encode() in dump(item)


def test_the_tag_that_was_used_comes_back() -> None:
    tool = Tool(web_search=WebSearchTool(type=WebSearchToolType.WEB_SEARCH_TOOL_TYPE_WEB_SEARCH_2025_08_26))
    assert encoded(tool) == {"type": "web_search_2025_08_26"}


def test_a_tag_that_was_not_given_is_the_members_name() -> None:
    assert encoded(Tool(web_search=WebSearchTool())) == {"type": "web_search"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ConversationItem(id="msg_1"), {"id": "msg_1"}),
        (ConversationItem(function_call=FunctionCall(status=99)), {"status": 99}),  # type: ignore[arg-type]
        (CountInputTokensRequest(input=ResponseInput()), {"input": None}),
    ],
)
def test_what_a_newer_client_stored_does_not_break_the_answer(message: Message, expected: dict[str, Any]) -> None:
    """Kinds and words that this contract does not know are left out, or written as their number."""
    assert encoded(message).items() >= expected.items()


def test_maps_are_written_in_the_order_of_their_keys() -> None:
    """Protobuf keeps none; two answers about the same conversation shall not differ."""
    pairs = {str(n): "" for n in range(16)}
    assert list(encoded(Conversation(metadata=Metadata(pairs=pairs)))["metadata"]) == sorted(pairs)


def test_unset_messages_within_a_member_are_left_out() -> None:
    call = encoded(ConversationItem(shell_call=ShellCall()))
    assert call == {"type": "shell_call", "call_id": "", "environment": None}
