"""What the contract asks of a message, whichever transport it came by."""

from typing import Any

import pytest
from google.protobuf.message import Message as ProtoMessage

from convgrpc.contract import options, validator
from convgrpc.contract.validator import validate
from convgrpc.errors import InvalidArgument
from convgrpc.v1.content_pb2 import ContentPart, InputImage, InputText, Json, LogProbability, OutputText, ToolOutput
from convgrpc.v1.conversation_pb2 import ConversationReference, Metadata, ResponseConversation
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    GetItemRequest,
    Include,
    ListItemsRequest,
    Order,
    UpdateConversationRequest,
)
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import (
    AdditionalTools,
    ApplyPatchCallOutput,
    Compaction,
    ComputerCallOutput,
    ComputerCallOutputStatus,
    ComputerOutput,
    ComputerOutputScreenshot,
    ConversationItem,
    FunctionCall,
    FunctionCallOutput,
    ItemReference,
    Message,
    Reasoning,
    Role,
    ToolSearchCall,
)
from convgrpc.v1.tool_pb2 import (
    ComparisonFilter,
    ComparisonOperator,
    ComparisonValue,
    CompoundFilter,
    CompoundOperator,
    FileSearchTool,
    Filter,
    FunctionTool,
    ImageGenerationTool,
    LocalSkill,
    McpApprovalSetting,
    McpRequireApproval,
    McpTool,
    Tool,
)

UNICODE = "🌿"  # one character, two UTF-16 code units, four bytes


def refusal(message: ProtoMessage) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refused:
        validate(message)
    return refused.value


def at_fault(message: ProtoMessage) -> tuple[str | None, str | None, str | None]:
    refused = refusal(message)
    return refused.report.code, refused.param, refused.field


def user(*parts: ContentPart, **fields: Any) -> ConversationItem:
    return ConversationItem(message=Message(role=Role.ROLE_USER, content=parts, **fields))


def search_tool(filters: Filter) -> Tool:
    return Tool(file_search=FileSearchTool(filters=filters))


def comparison(**fields: Any) -> Filter:
    return Filter(comparison=ComparisonFilter(type=ComparisonOperator.COMPARISON_OPERATOR_EQ, **fields))


def function(parameters: str) -> Tool:
    return Tool(function=FunctionTool(name="f", parameters=Json(text=parameters)))


# Presence.


@pytest.mark.parametrize(
    ("message", "param", "field"),
    [
        (ConversationItem(), "type", "kind"),
        (
            CreateItemsRequest(conversation_id="conv_1", items=[ConversationItem(id="msg_1")]),
            "items[0].type",
            "items[0].kind",
        ),
        (user(ContentPart()), "content[0].type", "message.content[0].part"),
        (ConversationItem(function_call_output=FunctionCallOutput()), "output", "function_call_output.output"),
        (
            ConversationItem(function_call_output=FunctionCallOutput(output=ToolOutput())),
            "output",
            "function_call_output.output",
        ),
        (ConversationItem(tool_search_call=ToolSearchCall()), "arguments", "tool_search_call.arguments"),
        (
            ConversationItem(apply_patch_call_output=ApplyPatchCallOutput(call_id="c")),
            "status",
            "apply_patch_call_output.status",
        ),
        (ConversationItem(additional_tools=AdditionalTools()), "role", "additional_tools.role"),
        (Tool(), "type", "tool"),
        (search_tool(Filter()), "filters.type", "file_search.filters.filter"),
        (search_tool(comparison(key="k")), "filters.value", "file_search.filters.comparison.value"),
        (
            search_tool(comparison(key="k", value=ComparisonValue())),
            "filters.value",
            "file_search.filters.comparison.value",
        ),
        (search_tool(Filter(compound=CompoundFilter())), "filters.type", "file_search.filters.compound.type"),
        (UpdateConversationRequest(conversation_id="conv_1"), "metadata", "metadata"),
    ],
)
def test_what_is_required_and_can_be_seen_to_be_missing_is_missed(
    message: ProtoMessage, param: str, field: str
) -> None:
    assert at_fault(message) == ("missing_required_parameter", param, field)
    assert refusal(message).message == f"Missing required parameter: '{param}'."


def test_a_missing_role_is_reported_at_the_item() -> None:
    refused = refusal(CreateItemsRequest(conversation_id="conv_1", items=[ConversationItem(message=Message())]))
    assert (refused.report.code, refused.param, refused.field) == ("invalid_value", "items[0]", "items[0].message")
    assert refused.message == (
        "Invalid value: ''. Supported values are: 'assistant', 'system', 'developer', and 'user'."
    )


def test_empty_strings_are_not_missing() -> None:
    """A scalar without presence cannot be seen to be absent in a message."""
    validate(ConversationItem(compaction=Compaction()))


# Enums.


@pytest.mark.parametrize("number", [99, -1, 2**31 - 1, -(2**31)])
def test_numbers_without_a_word_are_refused(number: Any) -> None:
    refused = refusal(ListItemsRequest(conversation_id="conv_1", order=number))
    assert refused.message == f"Invalid value: '{number}'. Supported values are: 'asc' and 'desc'."
    assert (refused.report.code, refused.param) == ("invalid_value", "order")


def test_zero_means_not_given_but_not_in_a_list() -> None:
    validate(ListItemsRequest(conversation_id="conv_1", order=Order.ORDER_UNSPECIFIED))
    include = [Include.INCLUDE_FILE_SEARCH_CALL_RESULTS, Include.INCLUDE_UNSPECIFIED]
    refused = at_fault(GetItemRequest(conversation_id="conv_1", include=include))
    assert refused == ("invalid_value", "include[1]", "include[1]")


def test_words_for_replayed_items_are_for_items_with_an_id() -> None:
    """A critic's message is never new; nor is a screenshot that failed."""
    critic = ConversationItem(message=Message(role=Role.ROLE_CRITIC))
    assert at_fault(critic) == ("invalid_value", None, "message")
    critic.id = "msg_1"
    validate(critic)
    failed = ComputerCallOutput(
        status=ComputerCallOutputStatus.COMPUTER_CALL_OUTPUT_STATUS_FAILED,
        call_id="c",
        output=ComputerOutput(computer_screenshot=ComputerOutputScreenshot()),
    )
    output = ConversationItem(computer_call_output=failed)
    assert at_fault(output) == ("invalid_value", "status", "computer_call_output.status")
    assert "'in_progress', 'completed', and 'incomplete'" in refusal(output).message
    output.id = "cuo_1"
    validate(output)


def test_an_id_speaks_for_its_own_item_only() -> None:
    replayed = ConversationItem(id="msg_1", message=Message(role=Role.ROLE_TOOL))
    fresh = ConversationItem(message=Message(role=Role.ROLE_TOOL))
    request = CreateItemsRequest(conversation_id="conv_1", items=[replayed, fresh])
    assert at_fault(request) == ("invalid_value", "items[1]", "items[1].message")


# Parts, and fields that exclude each other.


@pytest.mark.parametrize(
    ("role", "part", "supported"),
    [
        (Role.ROLE_USER, "output_text", "'input_text', 'input_image', and 'input_file'"),
        (Role.ROLE_SYSTEM, "refusal", "'input_text', 'input_image', and 'input_file'"),
        (Role.ROLE_DEVELOPER, "text", "'input_text', 'input_image', and 'input_file'"),
        (Role.ROLE_ASSISTANT, "input_text", "'output_text' and 'refusal'"),
    ],
)
def test_parts_are_of_the_side_of_their_role_unless_they_are_replayed(role: Any, part: str, supported: str) -> None:
    content = [ContentPart()]
    getattr(content[0], part).SetInParent()
    item = ConversationItem(message=Message(role=role, content=content))
    refused = refusal(CreateItemsRequest(conversation_id="conv_1", items=[item]))
    assert refused.message == f"Invalid value: '{part}'. Supported values are: {supported}."
    assert (refused.report.code, refused.param) == ("invalid_value", "items[0].content[0]")
    assert refused.field == "items[0].message.content[0]"
    item.id = "msg_1"
    validate(CreateItemsRequest(conversation_id="conv_1", items=[item]))


@pytest.mark.parametrize(
    ("image", "code", "message"),
    [
        (
            InputImage(),
            "missing_mutually_exclusive_parameters",
            (
                "Missing mutually exclusive parameters: 'items[0].content[0]'. Ensure you are providing exactly one of: "
                "'file_id' or 'image_url'."
            ),
        ),
        (
            InputImage(file_id="", image_url=""),
            "mutually_exclusive_parameters",
            (
                "Mutually exclusive parameters: 'items[0].content[0]'. Ensure you are only providing one of: 'file_id' or "
                "'image_url'."
            ),
        ),
    ],
    ids=["none", "both"],
)
def test_an_image_has_one_source_unless_it_is_replayed(image: InputImage, code: str, message: str) -> None:
    item = user(ContentPart(input_image=image))
    refused = refusal(CreateItemsRequest(conversation_id="conv_1", items=[item]))
    assert refused.message == message
    assert (refused.report.http, refused.report.code) == (400, code)
    assert (refused.param, refused.field) == ("items[0].content[0]", "items[0].message.content[0].input_image")
    item.id = "msg_1"
    validate(CreateItemsRequest(conversation_id="conv_1", items=[item]))


def test_reasoning_has_an_id_or_its_encrypted_content() -> None:
    refused = refusal(CreateItemsRequest(conversation_id="conv_1", items=[ConversationItem(reasoning=Reasoning())]))
    assert refused.message == "Invalid item"
    assert (refused.report.code, refused.param, refused.field) == ("invalid_item", "item", "items[0]")
    validate(ConversationItem(reasoning=Reasoning(encrypted_content="")))
    validate(ConversationItem(id="rs_1", reasoning=Reasoning()))


# Ids.


@pytest.mark.parametrize("item_id", ["msg_1", "msg", "msg-A_z-9", "msg" + "0" * 125])
def test_ids_of_the_right_form_are_accepted(item_id: str) -> None:
    validate(ConversationItem(id=item_id, message=Message(role=Role.ROLE_USER)))


@pytest.mark.parametrize("item_id", ["", "fc_1", "MSG_1", "ms", " msg_1", "_msg"])
def test_ids_begin_with_the_prefix_of_their_kind(item_id: str) -> None:
    refused = refusal(
        CreateItemsRequest(
            conversation_id="conv_1", items=[ConversationItem(id=item_id, message=Message(role=Role.ROLE_USER))]
        )
    )
    assert refused.message == f"Invalid 'items[0].id': '{item_id}'. Expected an ID that begins with 'msg'."
    assert (refused.report.code, refused.param, refused.field) == ("invalid_value", "items[0].id", "items[0].id")


@pytest.mark.parametrize("item_id", ["msg 1", "msg_é", "msg_1\n", "msg/1", "msg_\x00", f"msg_{UNICODE}"])
def test_ids_hold_letters_numbers_underscores_and_dashes(item_id: str) -> None:
    refused = refusal(ConversationItem(id=item_id, message=Message(role=Role.ROLE_USER)))
    assert refused.message == (
        f"Invalid 'id': '{item_id}'. Expected an ID that contains letters, numbers, underscores, or dashes."
    )


def test_ids_have_an_end() -> None:
    item = ConversationItem(id="msg" + "0" * 126, message=Message(role=Role.ROLE_USER))
    assert at_fault(item) == ("string_above_max_length", "id", "id")


def test_outputs_may_have_the_id_of_their_call() -> None:
    """The API gives outputs a prefix of their own, and accepts that of the call."""
    output = FunctionCallOutput(output=ToolOutput(text=""))
    for item_id in ("fc_1", "fco_1"):
        validate(ConversationItem(id=item_id, function_call_output=output))
    assert at_fault(ConversationItem(id="msg_1", function_call_output=output)) == ("invalid_value", "id", "id")


def test_references_have_an_id_of_any_kind() -> None:
    assert at_fault(ConversationItem(item_reference=ItemReference())) == ("missing_required_parameter", "id", "id")
    for item_id in ("msg_1", "fc_1", "x"):
        validate(ConversationItem(id=item_id, item_reference=ItemReference()))
    assert at_fault(ConversationItem(id="", item_reference=ItemReference())) == ("invalid_value", "id", "id")


def test_the_kinds_that_need_an_id_are_those_of_the_contract() -> None:
    for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields:
        kind = options.kind(field)
        assert kind is not None
        item = ConversationItem()
        getattr(item, field.name).SetInParent()
        missed = None
        try:
            validate(item)
        except InvalidArgument as refused:
            missed = refused.param
        assert (missed == "id") == kind.id_required, field.name


# Lengths and ranges.


@pytest.mark.parametrize("limit", [1, 100])
def test_limits_within_the_range_are_accepted(limit: int) -> None:
    validate(ListItemsRequest(conversation_id="conv_1", limit=limit))


@pytest.mark.parametrize(
    ("limit", "code", "message"),
    [
        (0, "integer_below_min_value", "integer below minimum value. Expected a value >= 1, but got 0 instead."),
        (-5, "integer_below_min_value", "integer below minimum value. Expected a value >= 1, but got -5 instead."),
        (
            1000,
            "integer_above_max_value",
            "integer above maximum value. Expected a value <= 100, but got 1000 instead.",
        ),
    ],
)
def test_limits_out_of_range_are_refused(limit: int, code: str, message: str) -> None:
    refused = refusal(ListItemsRequest(conversation_id="conv_1", limit=limit))
    assert refused.message == f"Invalid 'limit': {message}"
    assert (refused.report.code, refused.param) == (code, "limit")


def test_a_minimum_of_zero_is_a_minimum() -> None:
    validate(Tool(image_generation=ImageGenerationTool(partial_images=0, output_compression=0)))
    refused = at_fault(Tool(image_generation=ImageGenerationTool(partial_images=-1)))
    assert refused == ("integer_below_min_value", "partial_images", "image_generation.partial_images")


def test_requests_have_up_to_twenty_items() -> None:
    validate(CreateItemsRequest(conversation_id="conv_1", items=[user()] * 20))
    refused = refusal(CreateItemsRequest(conversation_id="conv_1", items=[user()] * 21))
    assert refused.message == (
        "Invalid 'items': array too long. Expected an array with maximum length 20, but got an array with length 21 "
        "instead."
    )
    assert (refused.report.code, refused.param) == ("array_above_max_length", "items")
    assert at_fault(CreateConversationRequest(items=[user()] * 21))[0] == "array_above_max_length"


def test_items_to_append_are_at_least_one() -> None:
    validate(CreateConversationRequest())
    refused = refusal(CreateItemsRequest(conversation_id="conv_1"))
    assert refused.message == (
        "Invalid 'items': empty array. Expected an array with minimum length 1, but got an empty array instead."
    )
    assert (refused.report.code, refused.param) == ("empty_array", "items")


def test_lists_that_may_be_absent_have_limits_too() -> None:
    tool = Tool()
    skills = tool.shell.environment.local.skills.skills
    skills.extend([LocalSkill()] * 200)
    validate(tool)
    skills.add()
    field = "shell.environment.local.skills.skills"
    assert at_fault(tool) == ("array_above_max_length", "environment.skills", field)


def test_arrays_have_an_end_where_the_contract_sets_none() -> None:
    most = validator.MAX_ARRAY_LENGTH
    tool = Tool(file_search=FileSearchTool(vector_store_ids=[""] * most))
    validate(tool)
    tool.file_search.vector_store_ids.append("")
    assert at_fault(tool) == ("array_above_max_length", "vector_store_ids", "file_search.vector_store_ids")


@pytest.mark.parametrize("length", [1, 4096])
def test_strings_within_their_limits_are_accepted(length: int) -> None:
    validate(
        ConversationItem(function_call_output=FunctionCallOutput(output=ToolOutput(text=""), call_id=UNICODE * length))
    )


@pytest.mark.parametrize(("length", "code"), [(0, "string_below_min_length"), (4097, "string_above_max_length")])
def test_strings_beyond_their_limits_are_refused(length: int, code: str) -> None:
    output = FunctionCallOutput(output=ToolOutput(text=""), call_id="c" * length)
    item = ConversationItem(function_call_output=output)
    assert at_fault(item) == (code, "call_id", "function_call_output.call_id")


def test_strings_have_an_end_where_the_contract_sets_none() -> None:
    longest = "x" * validator.MAX_STRING_LENGTH
    validate(ConversationItem(function_call=FunctionCall(call_id="c", arguments=longest)))
    refused = at_fault(ConversationItem(function_call=FunctionCall(call_id="c", arguments=longest + "x")))
    assert refused == ("string_above_max_length", "arguments", "function_call.arguments")


def test_limits_of_the_contract_come_before_the_general_one() -> None:
    """A picture may be longer than any other string, within a message's part of text it may not."""
    longer = "x" * (validator.MAX_STRING_LENGTH + 1)
    validate(user(ContentPart(input_image=InputImage(image_url=longer))))
    refused = at_fault(user(ContentPart(input_text=InputText(text=longer))))
    assert refused == ("string_above_max_length", "content[0].text", "message.content[0].input_text.text")


@pytest.mark.parametrize("name", ["get_weather", "A-1", "x" * 128])
def test_names_that_match_their_pattern_are_accepted(name: str) -> None:
    validate(Tool(function=FunctionTool(name=name)))


@pytest.mark.parametrize("name", ["get weather", "é", "name\n", "a.b", "\nname"])
def test_names_that_do_not_match_their_pattern_are_refused(name: str) -> None:
    refused = refusal(Tool(function=FunctionTool(name=name)))
    expected = "a string that matches the pattern '^[a-zA-Z0-9_-]+$'"
    assert refused.message == f"Invalid 'name': '{name}'. Expected {expected}."
    assert (refused.report.code, refused.param, refused.field) == ("invalid_value", "name", "function.name")


@pytest.mark.parametrize("given", ["", "wa_1", "CONV_1"])
def test_identifiers_begin_with_their_prefix(given: str) -> None:
    for conversation in (
        ResponseConversation(conversation_id=given),
        ResponseConversation(reference=ConversationReference(id=given)),
    ):
        refused = refusal(CountInputTokensRequest(conversation=conversation))
        assert refused.message.endswith(f": '{given}'. Expected an ID that begins with 'conv'.")
        assert (refused.report.code, (refused.param or "")[:12]) == ("invalid_value", "conversation")
    validate(CountInputTokensRequest(conversation=ResponseConversation(conversation_id="conv_1")))


# Metadata.


def test_metadata_is_limited_in_characters_not_bytes() -> None:
    pairs = {f"{n:02}{UNICODE * 62}": UNICODE * 512 for n in range(16)}
    validate(CreateConversationRequest(metadata=Metadata(pairs=pairs)))


@pytest.mark.parametrize(
    ("pairs", "code", "param", "message"),
    [
        (
            {str(n): "" for n in range(17)},
            "object_above_max_properties",
            "metadata",
            (
                "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object "
                "with 17 properties instead."
            ),
        ),
        (
            {"k" * 70: ""},
            "property_name_above_max_length",
            "metadata." + "k" * 70,
            (
                "Invalid property name in 'metadata': 'kkk...kkk' is too long. Expected a string with maximum length 64, "
                "but got a string with length 70 instead."
            ),
        ),
        (
            {"k": UNICODE * 513},
            "string_above_max_length",
            "metadata.k",
            (
                "Invalid 'metadata.k': string too long. Expected a string with maximum length 512, but got a string with "
                "length 513 instead."
            ),
        ),
    ],
    ids=["pairs", "key", "value"],
)
def test_metadata_beyond_its_limits_is_refused(pairs: dict[str, str], code: str, param: str, message: str) -> None:
    refused = refusal(CreateConversationRequest(metadata=Metadata(pairs=pairs)))
    assert refused.message == message
    assert (refused.report.code, refused.param) == (code, param)
    assert refused.field == param.replace("metadata", "metadata.pairs")


def test_empty_keys_and_values_are_metadata_too() -> None:
    validate(CreateConversationRequest(metadata=Metadata(pairs={"": ""})))


# Numbers, JSON text and depth.


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_cannot_hold_are_refused(number: float) -> None:
    text = OutputText(logprobs=[LogProbability(logprob=number)])
    item = ConversationItem(message=Message(role=Role.ROLE_ASSISTANT, content=[ContentPart(output_text=text)]))
    field = "message.content[0].output_text.logprobs[0].logprob"
    assert at_fault(item) == ("invalid_value", "content[0].logprobs[0].logprob", field)
    assert f"'{number}'. Expected a finite number." in refusal(item).message
    value = ComparisonValue(decimal=number)
    assert at_fault(search_tool(comparison(key="k", value=value)))[0] == "invalid_value"


@pytest.mark.parametrize(
    "text",
    ["null", "0", '""', "[]", ' { "a" : 1 } ', "123456789012345678901234567890", '"\\u0000é🌿"'],
)
def test_json_text_is_json(text: str) -> None:
    validate(function(text))


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[1,]", "NaN", "Infinity", "{'a': 1}", '"\\ud800"', "1 2", "1e400", '"\t"', "undefined", "[" * 1000],
)
def test_json_text_that_is_not_json_is_refused(text: str) -> None:
    """It would end up in an answer as it is, and break that."""
    assert at_fault(function(text)) == ("invalid_value", "parameters", "function.parameters")
    assert refusal(function(text)).message.endswith("'. Expected JSON text.")


def test_json_text_has_an_end() -> None:
    text = '"' + "x" * (validator.MAX_STRING_LENGTH - 1) + '"'
    assert at_fault(function(text)) == ("string_above_max_length", "parameters", "function.parameters")
    validate(function(text.replace("xx", "x", 1)))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_text_may_be_nested_to_a_depth(opening: str, closing: str) -> None:
    """Its levels count from those of the message that holds it."""
    levels = options.MAX_DEPTH
    validate(function(opening * levels + "1" + closing * levels))
    assert at_fault(function(opening * (levels + 1) + "1" + closing * (levels + 1)))[0] == "nesting_too_deep"
    assert at_fault(function(opening * 1000 + "1" + closing * 1000))[0] == "nesting_too_deep"
    tools = AdditionalTools(role=Role.ROLE_DEVELOPER, tools=[function(opening * levels + "1" + closing * levels)])
    assert at_fault(ConversationItem(additional_tools=tools))[0] == "nesting_too_deep"


def nested(levels: int) -> Tool:
    value = comparison(key="k", value=ComparisonValue(integer=1))
    for _ in range(levels):
        compound = CompoundFilter(type=CompoundOperator.COMPOUND_OPERATOR_AND, filters=[value])
        value = Filter(compound=compound)
    return search_tool(value)


def test_messages_may_be_nested_to_a_depth() -> None:
    """To the same depth as in JSON, and less deeply than protobuf's own parsers allow."""
    deepest = next(levels for levels in range(100) if not _is_valid(nested(levels + 1)))
    assert deepest == (options.MAX_DEPTH - 2) // 2
    assert at_fault(nested(deepest + 1))[0] == "nesting_too_deep"
    assert Tool.FromString(nested(deepest).SerializeToString()) == nested(deepest)


def _is_valid(message: ProtoMessage) -> bool:
    try:
        validate(message)
    except InvalidArgument:
        return False
    return True


def test_fields_of_a_newer_contract_are_let_pass() -> None:
    request = ListItemsRequest.FromString(b"\x0a\x06conv_1\xfa\x3e\x05newer")
    validate(request)
    assert request.SerializeToString().endswith(b"newer")


def test_a_bare_union_holds_no_value_that_means_none() -> None:
    """An unspecified enum in a union would be written as a number."""
    tool = Tool(
        mcp=McpTool(
            server_label="s",
            require_approval=McpRequireApproval(setting=McpApprovalSetting.MCP_APPROVAL_SETTING_UNSPECIFIED),
        )
    )
    with pytest.raises(InvalidArgument) as fault:
        validate(tool)
    assert fault.value.param == "require_approval"


def test_free_form_json_has_each_key_once() -> None:
    """What comes by gRPC can be sent back by REST."""
    tool = Tool(function=FunctionTool(name="f", parameters=Json(text='{"a":1,"a":2}')))
    with pytest.raises(InvalidArgument) as fault:
        validate(tool)
    assert fault.value.param == "parameters"
