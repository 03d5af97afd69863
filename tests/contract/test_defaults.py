"""What the service fills in."""

import pytest

from convgrpc.contract import options
from convgrpc.contract.defaults import fill_in
from convgrpc.v1.content_pb2 import ContentPart, ImageDetail, InputImage, ToolOutput, ToolOutputPart, ToolOutputParts
from convgrpc.v1.item_pb2 import (
    ComputerCallOutput,
    ComputerCallOutputStatus,
    ConversationItem,
    FunctionCallOutput,
    ItemStatus,
    Message,
    Reasoning,
    ToolSearchCall,
)
from convgrpc.v1.tool_pb2 import ToolSearchExecution

from .walk import MESSAGES

UNKNOWN_FIELD = b"\xfa\x3e\x05newer"  # field 1007, five bytes


def filled(item: ConversationItem) -> ConversationItem:
    fill_in(item)
    return item


def test_what_is_unset_gets_its_default() -> None:
    item = filled(ConversationItem(message=Message()))
    assert item.message.status == ItemStatus.ITEM_STATUS_COMPLETED
    call = filled(ConversationItem(tool_search_call=ToolSearchCall())).tool_search_call
    assert call.status == ItemStatus.ITEM_STATUS_COMPLETED
    assert call.execution == ToolSearchExecution.TOOL_SEARCH_EXECUTION_SERVER
    assert not call.HasField("call_id")
    output = filled(ConversationItem(computer_call_output=ComputerCallOutput())).computer_call_output
    assert output.status == ComputerCallOutputStatus.COMPUTER_CALL_OUTPUT_STATUS_COMPLETED


def test_what_is_set_stays() -> None:
    status = ItemStatus.ITEM_STATUS_IN_PROGRESS
    assert filled(ConversationItem(message=Message(status=status))).message.status == status
    detail = ImageDetail.IMAGE_DETAIL_LOW
    item = ConversationItem(message=Message(content=[ContentPart(input_image=InputImage(detail=detail))]))
    assert filled(item).message.content[0].input_image.detail == detail


def test_messages_that_are_held_are_filled_in_too() -> None:
    """In lists, in lists that may be absent, and in members of unions."""
    image = InputImage(file_id="file-1")
    message = filled(ConversationItem(message=Message(content=[ContentPart(), ContentPart(input_image=image)])))
    assert message.message.content[1].input_image.detail == ImageDetail.IMAGE_DETAIL_AUTO
    parts = ToolOutput(parts=ToolOutputParts(parts=[ToolOutputPart(input_image=image)]))
    output = filled(ConversationItem(function_call_output=FunctionCallOutput(output=parts)))
    assert output.function_call_output.output.parts.parts[0].input_image.detail == ImageDetail.IMAGE_DETAIL_AUTO


@pytest.mark.parametrize(
    "item", [ConversationItem(), ConversationItem(reasoning=Reasoning()), ConversationItem(id="x")]
)
def test_what_has_no_default_stays_unset(item: ConversationItem) -> None:
    before = item.SerializeToString()
    assert filled(item).SerializeToString() == before


def test_nothing_is_set_that_was_not_there() -> None:
    """Reading an unset message must not create it."""
    output = filled(ConversationItem(function_call_output=FunctionCallOutput()))
    assert not output.function_call_output.HasField("output")


def test_fields_of_a_newer_contract_survive() -> None:
    item = ConversationItem.FromString(ConversationItem(message=Message()).SerializeToString() + UNKNOWN_FIELD)
    assert filled(item).SerializeToString().endswith(UNKNOWN_FIELD)


def test_filling_in_twice_changes_nothing() -> None:
    item = filled(ConversationItem(tool_search_call=ToolSearchCall()))
    before = item.SerializeToString()
    assert filled(item).SerializeToString() == before


def test_every_default_is_a_word_that_callers_may_send() -> None:
    defaults = [field for message in MESSAGES for field in message.fields if options.field_options(field).default]
    assert len(defaults) > 8
    for field in defaults:
        rules = options.field_options(field)
        assert rules.default in (list(rules.accepted_values) or options.json_values(options.enum_of(field)).values()), (
            field.full_name
        )
