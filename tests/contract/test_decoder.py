"""JSON to message: what is understood, and the faults that only JSON can have."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.contract.json_text import parse
from convgrpc.contract.validator import validate
from convgrpc.errors import InvalidArgument
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    ListItemsRequest,
)
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem
from convgrpc.v1.tool_pb2 import Tool

KINDS = [field.name for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields]


def request(*items: Any) -> dict[str, Any]:
    return {"conversation_id": "conv_1", "items": list(items)}


def user(*content: Any) -> dict[str, Any]:
    return request({"type": "message", "role": "user", "content": list(content)})


def added(*tools: Any) -> dict[str, Any]:
    return request({"type": "additional_tools", "role": "developer", "tools": list(tools)})


def answer(**part: Any) -> dict[str, Any]:
    return request({"role": "assistant", "content": [{"type": "output_text", "text": "", **part}]})


def call(**keys: Any) -> dict[str, Any]:
    return request({"type": "function_call", "call_id": "c", "name": "n", "arguments": "", **keys})


def search(value: Any) -> dict[str, Any]:
    return {
        "type": "file_search",
        "vector_store_ids": [],
        "filters": {"type": "and", "filters": [{"type": "in", "key": "k", "value": value}]},
    }


VALUE = "items[0].additional_tools.tools[0].file_search.filters.compound.filters[0].comparison.value"


def refusal(value: Any, message_class: type[Message] = CreateItemsRequest) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refused:
        decode(message_class, value)
    return refused.value


# Text that is not JSON.


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b'{"a": 1,}',
        b"[1,]",
        b"{'a': 1}",
        b"{a: 1}",
        b"[1] [2]",
        b"[1] // comment",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"01",
        b"+1",
        b".5",
        b"1e400",
        b'"\t"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00 and \\ud800"',
        b'"\\x41"',
        b"\xef\xbb\xbf{}",
        b'[1234567890123456789012, "\\ud800"]',
        b"[1234567890123456789012, NaN]",
        b"[1234567890123456789012, 1e400]",
        b"[" * 1_000,
    ],
)
def test_text_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert (refused.value.report.code, refused.value.param) == ("invalid_json", None)
    assert refused.value.message == (
        "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON. (Common errors "
        "include trailing commas, missing closing brackets, missing quotation marks, etc.)"
    )


def test_numbers_are_exact() -> None:
    """Whether an integer fits 53, 64 or more bits; and an integer is no decimal."""
    text = b"[9007199254740993,18446744073709551615,18446744073709551616,-9223372036854775809,1,1.0]"
    assert repr(parse(text)) == repr([2**53 + 1, 2**64 - 1, 2**64, -(2**63) - 1, 1, 1.0])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "a"),
        (b'[{"x": [{"a": 1,\n"a"\t: 1}]}]', "a"),
        (b'{"a": 1, "\\u0061": 2}', "a"),
        (b'{"": 1, "": 2}', ""),
        (b'{"a\\\\": 1, "a\\\\": 2}', "a\\"),
        (b'{"a": 1, "a": 2, "b\\\\": 3}', "a"),
        (b'{"a": 1, "a": 2, "b": "\\"c\\": 3"}', "a"),
        (b'{"a": 1, "a": 1234567890123456789012}', "a"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: bytes, key: str) -> None:
    """Two readers of it might understand two things."""
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert refused.value.message == f"Invalid body: the key '{key}' stands twice in one object."
    assert (refused.value.report.code, refused.value.param) == ("invalid_json", None)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": {"a": {"a": 1}}, "A": [{"a": 1}, {"a": 1}]}',
        b'{"a": "\\"a\\": 1, \\"a\\": 2", "b": "\\\\\\"a\\": 1"}',
        b'{"a": "x\\\\", "b\\\\": "a\\\\", "\\\\": ":", "\\"": "\\":"}',
    ],
)
def test_keys_may_stand_again_in_other_objects_and_in_strings(text: bytes) -> None:
    assert parse(text) == json.loads(text)


# Values of the wrong type.


TYPES = [
    (5, "an integer"),
    (1.0, "a decimal"),
    (True, "a boolean"),
    ("x", "a string"),
    ([], "an array"),
    ({}, "an object"),
]


@pytest.mark.parametrize(("value", "got"), [*TYPES, (None, "an object")])
def test_a_wrong_type_is_named_in_the_apis_words(value: Any, got: str) -> None:
    """Of null, the API says that it got an object where it expected a string."""
    if got == "a string":
        decode(CreateConversationRequest, {"metadata": {"k": value}})
        return
    refused = refusal({"metadata": {"k": value}}, CreateConversationRequest)
    assert refused.message == f"Invalid type for 'metadata.k': expected a string, but got {got} instead."
    assert (refused.report.code, refused.param, refused.field) == ("invalid_type", "metadata.k", "metadata.pairs.k")


@pytest.mark.parametrize(
    ("value", "param", "field", "expected", "got"),
    [
        ({"items": 5}, "items", "items", "an array of input items", "an integer"),
        ({"items": {}}, "items", "items", "an array of input items", "an object"),
        ({"items": [], "include": [5]}, "include[0]", "include[0]", "one of 'file_search_call.results', ", "an"),
        (request(5), "items[0]", "items[0]", "an input item", "an integer"),
        (request(None), "items[0]", "items[0]", "an input item", "null"),
        (request([]), "items[0]", "items[0]", "an input item", "an array"),
        (user(5), "items[0].content[0]", "items[0].message.content[0]", "an object", "an integer"),
        (user(None), "items[0].content[0]", "items[0].message.content[0]", "an object", "null"),
        (request({"id": 5, "role": "user", "content": ""}), "items[0].id", "items[0].id", "a string", "an integer"),
        (
            request({"role": 5, "content": ""}),
            "items[0].role",
            "items[0].message.role",
            "one of 'assistant', 'system', 'developer', or 'user'",
            "an integer",
        ),
        (call(call_id=None), "items[0].call_id", "items[0].function_call.call_id", "a string", "an object"),
        (
            call(status=5),
            "items[0].status",
            "items[0].function_call.status",
            "one of 'in_progress', 'completed', or 'incomplete'",
            "an integer",
        ),
        (call(caller="x"), "items[0].caller", "items[0].function_call.caller", "an object", "a string"),
        (call(**{"async": 1}), "items[0].async", "items[0].function_call.async", "a boolean", "an integer"),
        (
            request({"type": "function_call_output", "output": 5}),
            "items[0].output",
            "items[0].function_call_output.output",
            "one of a string or array of objects",
            "an integer",
        ),
        (
            answer(annotations=[{"type": "file_path", "file_id": "", "index": 1.0}]),
            "items[0].content[0].annotations[0].index",
            "items[0].message.content[0].output_text.annotations[0].file_path.index",
            "an integer",
            "a decimal",
        ),
        (
            answer(annotations=[{"type": "file_path", "file_id": "", "index": True}]),
            "items[0].content[0].annotations[0].index",
            "items[0].message.content[0].output_text.annotations[0].file_path.index",
            "an integer",
            "a boolean",
        ),
        (
            answer(logprobs=[{"token": "", "logprob": "x", "bytes": [], "top_logprobs": []}]),
            "items[0].content[0].logprobs[0].logprob",
            "items[0].message.content[0].output_text.logprobs[0].logprob",
            "a decimal",
            "a string",
        ),
        (
            added(search([1, True])),
            "items[0].tools[0].filters.filters[0].value[1]",
            VALUE + ".list.elements[1]",
            "one of a string or integer or decimal",
            "a boolean",
        ),
        (
            added(search({})),
            "items[0].tools[0].filters.filters[0].value",
            VALUE,
            "one of a string or integer or decimal or boolean or array of objects",
            "an object",
        ),
        (
            added({"type": "code_interpreter", "container": []}),
            "items[0].tools[0].container",
            "items[0].additional_tools.tools[0].code_interpreter.container",
            "one of an object or string",
            "an array",
        ),
        (
            added({"type": "mcp", "server_label": "", "require_approval": 1}),
            "items[0].tools[0].require_approval",
            "items[0].additional_tools.tools[0].mcp.require_approval",
            "one of an object or 'always' or 'never'",
            "an integer",
        ),
    ],
)
def test_a_wrong_type_is_named_with_what_was_expected(
    value: Any, param: str, field: str, expected: str, got: str
) -> None:
    refused = refusal({"conversation_id": "conv_1", **value})
    assert (refused.report.code, refused.param, refused.field) == ("invalid_type", param, field)
    assert refused.message.startswith(f"Invalid type for '{param}': expected {expected}")
    assert f", but got {got}" in refused.message


def test_a_wrong_type_of_text_or_items_is_named_with_both() -> None:
    refused = refusal({"input": {}}, CountInputTokensRequest)
    assert refused.message == (
        "Invalid type for 'input': expected one of a string or array of input items, but got an object instead."
    )


def test_metadata_that_is_no_object_is_named_as_such() -> None:
    refused = refusal({"metadata": "x"}, CreateConversationRequest)
    assert refused.message == "Invalid type for 'metadata': expected a metadata object, but got a string instead."


@pytest.mark.parametrize(("value", "got"), [*TYPES[:-1], (None, "null")])
def test_a_body_that_is_no_object_is_refused(value: Any, got: str) -> None:
    refused = refusal(value)
    assert (refused.report.code, refused.param, refused.field) == ("invalid_type", None, None)
    assert refused.message == f"Invalid body: expected an object, but got {got} instead."


# Keys: too many, too few, and null.


@pytest.mark.parametrize(
    ("value", "param", "field"),
    [
        ({"meta": {}}, "meta", "meta"),
        ({"items": [{"role": "user", "content": "", "txt": 1}]}, "items[0].txt", "items[0].txt"),
        ({"items": [{"role": "user", "content": "", "call_id": "of another kind"}]}, "items[0].call_id", None),
        ({"items": [{"type": "compaction_trigger", "compaction_trigger": {}}]}, "items[0].compaction_trigger", None),
        (
            {"items": [{"role": "user", "content": [{"type": "input_text", "text": "", "detail": "low"}]}]},
            "items[0].content[0].detail",
            "items[0].message.content[0].detail",
        ),
        ({"items": [{"role": "user", "content": "", "a.b[0]": 1}]}, "items[0].a.b[0]", "items[0].a.b[0]"),
        ({"object": "conversation"}, "object", "object"),
    ],
)
def test_unknown_keys_are_refused(value: Any, param: str, field: str | None) -> None:
    refused = refusal(value, CreateConversationRequest)
    assert refused.message == f"Unknown parameter: '{param}'."
    assert (refused.report.code, refused.param, refused.field) == ("unknown_parameter", param, field or param)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ({"metdata": {}}, "metadata"),
        ({"metaDatas": {}}, "metadata"),
        ({"itmes": []}, "items"),
        ({"items": [{"role": "user", "content": "", "stat": ""}]}, "status"),
        ({"items": [{"role": "user", "content": "", "Role": ""}]}, None),
        ({"metadata": {}, "metdata": {}}, None),
        ({"mtdat": {}}, None),
    ],
)
def test_a_key_that_is_almost_known_is_pointed_out(value: Any, meant: str | None) -> None:
    """By at most two letters, and only if the right one is not there as well."""
    message = refusal(value, CreateConversationRequest).message
    assert message.endswith(f". Did you mean '{meant}'?" if meant else "'.")


@pytest.mark.parametrize(
    ("value", "param", "field"),
    [
        ({"conversation_id": "conv_1"}, "items", "items"),
        (request({"role": "user"}), "items[0].content", "items[0].message.content"),
        (request({"type": "function_call"}), "items[0].call_id", "items[0].function_call.call_id"),
        (request({"type": "function_call", "name": "n", "x": 1}), "items[0].call_id", "items[0].function_call.call_id"),
        (user({"type": "input_text"}), "items[0].content[0].text", "items[0].message.content[0].input_text.text"),
        (user({}), "items[0].content[0].type", "items[0].message.content[0].type"),
        (user({"type": None}), "items[0].content[0].type", "items[0].message.content[0].type"),
        (call(caller={}), "items[0].caller.type", "items[0].function_call.caller.type"),
        (
            added(
                {"type": "file_search", "vector_store_ids": [], "filters": {"type": "or", "filters": [{"type": "eq"}]}}
            ),
            "items[0].tools[0].filters.filters[0].key",
            "items[0].additional_tools.tools[0].file_search.filters.compound.filters[0].comparison.key",
        ),
    ],
)
def test_required_keys_are_missed(value: Any, param: str, field: str) -> None:
    """Before keys that are too many, and before faults in what is there; in the order of the contract."""
    refused = refusal(value)
    assert refused.message == f"Missing required parameter: '{param}'."
    assert (refused.report.code, refused.param, refused.field) == ("missing_required_parameter", param, field)


def test_kinds_that_are_only_replayed_must_have_their_id() -> None:
    oneof = ConversationItem.DESCRIPTOR.oneofs_by_name["kind"]
    kinds = {
        field.name
        for field in oneof.fields
        if (kind_options := options.kind(field)) and options.must_have_id(kind_options, need_ids=True)
    }
    assert len(kinds) == 12
    for kind in kinds:
        assert refusal(request({"type": kind})).param == "items[0].id"
    refused = refusal(request({"type": "item_reference", "id": None}))
    assert refused.message == "Invalid type for 'items[0].id': expected a string, but got an object instead."


@pytest.mark.parametrize(
    ("message_class", "with_null", "without"),
    [
        (CreateConversationRequest, {"items": None, "metadata": None}, {}),
        (
            CountInputTokensRequest,
            {field.name: None for field in options.json_fields(CountInputTokensRequest.DESCRIPTOR)},
            {},
        ),
        (ListItemsRequest, {"conversation_id": "conv_1", "limit": None, "order": None}, {"conversation_id": "conv_1"}),
        (
            ConversationItem,
            {"id": None, "type": None, "role": "user", "content": "", "status": None, "phase": None},
            {"role": "user", "content": ""},
        ),
        (
            ConversationItem,
            {"type": "message", "role": "user", "content": [{"type": "input_image", "detail": None, "file_id": None}]},
            {"type": "message", "role": "user", "content": [{"type": "input_image"}]},
        ),
        (
            ConversationItem,
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "", "logprobs": None}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ""}]},
        ),
        (Tool, {"type": "function", "name": "f", "parameters": None}, {"type": "function", "name": "f"}),
    ],
)
def test_null_means_absent(message_class: type[Message], with_null: Any, without: Any) -> None:
    assert decode(message_class, with_null) == decode(message_class, without)


def test_empty_is_not_absent() -> None:
    empty = decode(Tool, {"type": "function", "name": "f", "description": "", "allowed_callers": [], "strict": False})
    function = empty.function
    assert function.HasField("description")
    assert function.HasField("allowed_callers")
    assert function.HasField("strict")
    assert not function.HasField("parameters")


# Unions and words.


def test_an_unknown_kind_is_reported_at_the_item() -> None:
    refused = refusal(request({"type": "bogus_item"}))
    *others, last = sorted(KINDS)
    known = ", ".join(f"'{kind}'" for kind in others)
    assert refused.message == f"Invalid value: 'bogus_item'. Supported values are: {known}, and '{last}'."
    assert (refused.report.code, refused.param, refused.field) == ("invalid_value", "items[0]", "items[0]")


@pytest.mark.parametrize("tag", [5, True, [], {}])
def test_a_kind_that_is_no_string_is_reported_as_empty(tag: Any) -> None:
    assert refusal(request({"type": tag})).message.startswith("Invalid value: ''. Supported values are: ")


def test_an_unknown_kind_of_content_is_reported_at_its_type() -> None:
    refused = refusal(user({"type": "bogus"}))
    assert refused.message == (
        "Invalid value: 'bogus'. Supported values are: 'input_text', 'input_image', 'output_text', 'refusal', "
        "'input_file', 'computer_screenshot', 'summary_text', 'reasoning_text', 'text', and 'encrypted_content'."
    )
    assert refused.param == "items[0].content[0].type"
    assert refused.field == "items[0].message.content[0].type"


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (added({"type": "bogus"}), "items[0].tools[0].type"),
        (added(search("x"), {"type": "web_search_2025"}), "items[0].tools[1].type"),
        (added({**search("x"), "filters": {"type": "xor"}}), "items[0].tools[0].filters.type"),
        (added({"type": "code_interpreter", "container": {"type": "x"}}), "items[0].tools[0].container.type"),
        (call(caller={"type": "x"}), "items[0].caller.type"),
        (call(status="failed"), "items[0].status"),
        ({"conversation_id": "conv_1", "items": [], "include": ["bogus.thing"]}, "include[0]"),
    ],
)
def test_unknown_tags_and_words_are_refused(value: Any, param: str) -> None:
    refused = refusal(value)
    assert (refused.report.code, refused.param) == ("invalid_value", param)
    assert refused.message.startswith("Invalid value: '")
    assert "'. Supported values are: '" in refused.message


def test_supported_words_are_listed_in_the_order_of_the_contract() -> None:
    refused = refusal({"conversation_id": "conv_1", "order": "newest"}, ListItemsRequest)
    assert refused.message == "Invalid value: 'newest'. Supported values are: 'asc' and 'desc'."


@pytest.mark.parametrize(
    "item", [{}, {"content": ""}, {"content": "", "role": "bogus"}, {"role": "bogus", "content": []}]
)
def test_a_role_at_fault_is_reported_at_the_item(item: dict[str, Any]) -> None:
    """Wherever the role stands, and whatever else is at fault."""
    refused = refusal(request(item))
    assert refused.message == (
        f"Invalid value: '{item.get('role', '')}'. "
        "Supported values are: 'assistant', 'system', 'developer', and 'user'."
    )
    assert (refused.report.code, refused.param) == ("invalid_value", "items[0]")
    assert refused.field == "items[0].message"


def test_an_item_without_a_type_is_a_message() -> None:
    assert decode(ConversationItem, {"role": "user", "content": []}).WhichOneof("kind") == "message"


@pytest.mark.parametrize("value", [{"id": "msg_1"}, {"id": "msg_1", "type": None}])
def test_an_object_with_nothing_but_an_id_is_a_reference(value: Any) -> None:
    assert decode(ConversationItem, value) == decode(ConversationItem, {"type": "item_reference", "id": "msg_1"})


def test_tags_that_share_a_member_are_kept() -> None:
    dated, plain = (decode(Tool, {"type": tag}) for tag in ("web_search_2025_08_26", "web_search"))
    assert dated.WhichOneof("tool") == plain.WhichOneof("tool") == "web_search"
    assert dated.web_search.type != plain.web_search.type


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("user", "input_text"),
        ("system", "input_text"),
        ("developer", "input_text"),
        ("assistant", "output_text"),
        ("tool", "text"),
        ("critic", "text"),
        ("discriminator", "text"),
        ("unknown", "text"),
    ],
)
@pytest.mark.parametrize("text", ["Hello!", ""])
def test_a_string_stands_for_one_part_of_text_that_fits_the_role(role: str, part: str, text: str) -> None:
    message = decode(ConversationItem, {"content": text, "role": role})
    assert message == decode(ConversationItem, {"role": role, "content": [{"type": part, "text": text}]})


@pytest.mark.parametrize(
    ("value", "member"),
    [("", "text"), (0, "integer"), (-0.0, "decimal"), (1.0, "decimal"), (False, "boolean"), ([], "list")],
)
def test_values_are_told_apart_by_their_json_type(value: Any, member: str) -> None:
    tool = decode(Tool, {**search(0), "filters": {"type": "eq", "key": "", "value": value}})
    assert tool.file_search.filters.comparison.value.WhichOneof("value") == member


# Numbers and depth.


@pytest.mark.parametrize(
    ("number", "code", "sign", "limit"),
    [
        (2**63, "integer_above_max_value", "<=", 2**63 - 1),
        (10**30, "integer_above_max_value", "<=", 2**63 - 1),
        (-(2**63) - 1, "integer_below_min_value", ">=", -(2**63)),
    ],
)
def test_integers_of_more_than_64_bits_are_refused(number: int, code: str, sign: str, limit: int) -> None:
    refused = refusal({"conversation_id": "conv_1", "limit": number}, ListItemsRequest)
    assert (refused.report.code, refused.param) == (code, "limit")
    assert refused.message.endswith(f"Expected a value {sign} {limit}, but got {number} instead.")


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_integers_of_64_bits_are_understood(number: int) -> None:
    assert decode(ListItemsRequest, {"conversation_id": "conv_1", "limit": number}).limit == number


def test_integers_stand_for_decimals_where_decimals_are_expected() -> None:
    options_ = {"hybrid_search": {"embedding_weight": 1, "text_weight": 2**53}}
    tool = decode(Tool, {"type": "file_search", "vector_store_ids": [], "ranking_options": options_})
    assert tool.file_search.ranking_options.hybrid_search.text_weight == 2.0**53


def test_integers_that_no_double_can_hold_are_refused_where_decimals_are_expected() -> None:
    options_ = {"hybrid_search": {"embedding_weight": 10**400, "text_weight": 1}}
    refused = refusal({"type": "file_search", "vector_store_ids": [], "ranking_options": options_}, Tool)
    assert (refused.report.code, refused.param) == ("invalid_value", "ranking_options.hybrid_search.embedding_weight")


def nested_filters(levels: int) -> Any:
    """Filters that are nested, each in an array in an object; the innermost stands at level `1 + 2 * levels`."""
    value: Any = {"type": "eq", "key": "k", "value": 1}
    for _ in range(levels):
        value = {"type": "and", "filters": [value]}
    return {"type": "file_search", "vector_store_ids": [], "filters": value}


def test_messages_may_be_nested_to_a_depth() -> None:
    deepest = decode(Tool, nested_filters((options.MAX_DEPTH - 2) // 2))
    assert Tool.FromString(deepest.SerializeToString()) == deepest
    for levels in (options.MAX_DEPTH // 2, 1000, 100_000):
        assert refusal(nested_filters(levels), Tool).report.code == "nesting_too_deep"


@pytest.mark.parametrize("levels", [300, 950, 1000, 1023, 1025, 100_000])
def test_free_form_json_that_is_too_deep_for_any_of_the_libraries_is_refused(levels: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(decode(Tool, {"type": "function", "name": "f", "parameters": parse(b"[" * levels + b"]" * levels)}))
    assert refused.value.report.code == "nesting_too_deep"


def test_free_form_values_that_no_library_can_write_are_refused() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    refused = refusal({"type": "function", "name": "f", "parameters": value}, Tool)
    assert (refused.report.code, refused.param) == ("nesting_too_deep", "parameters")


def test_free_form_json_keeps_its_order_and_its_digits() -> None:
    text = b'{"z":1.0,"a":[9007199254740993,123456789012345678901234567890,null],"m":{"b":"\\u0000","a":""}}'
    tool = decode(Tool, {"type": "function", "name": "f", "parameters": parse(text)})
    assert tool.function.parameters.text == text.decode()


def test_paths_count_from_the_value_that_is_decoded() -> None:
    item = json.loads('{"role": "user", "content": [{"type": "input_text", "text": ""}, {"type": "input_text"}]}')
    refused = refusal(item, ConversationItem)
    assert (refused.param, refused.field) == ("content[1].text", "message.content[1].input_text.text")
