"""Paths to values at fault, and the words in which faults are told."""

import pytest

from convgrpc.contract import faults
from convgrpc.contract.faults import ROOT
from convgrpc.errors import ConvgrpcError
from convgrpc.v1.item_pb2 import ConversationItem, Message

ITEM = ROOT.key("items").key(0)
LONG = "k" * 70


def test_a_path_is_spelled_as_rest_spells_it_and_as_protobuf_does() -> None:
    path = ITEM.child(None, "message").key("content").key(1).child(None, "input_text").key("text")
    assert path.param == "items[0].content[1].text"
    assert path.proto == "items[0].message.content[1].input_text.text"


def test_depth_counts_the_levels_of_json() -> None:
    assert (ROOT.depth, ITEM.depth, ITEM.child(None, "message").depth, ITEM.child("type", "kind").depth) == (0, 2, 2, 3)


def test_the_root_has_no_name() -> None:
    assert (ROOT.param, ROOT.proto) == ("", "")
    refused = faults.unsupported_value(ROOT, "x", ["a"])
    assert (refused.param, refused.field) == (None, None)


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        ([], ""),
        (["a"], "'a'"),
        (["a", "b"], "'a' and 'b'"),
        (["a", "b", "c"], "'a', 'b', and 'c'"),
        (["it's", ""], "'it's' and ''"),
    ],
)
def test_lists_read_as_prose(values: list[str], listed: str) -> None:
    assert faults.listed(values) == listed
    assert faults.listed(values, "or") == listed.replace(" and ", " or ")


def test_nouns_have_their_article() -> None:
    assert faults.article(faults.noun(ConversationItem.DESCRIPTOR)) == "an input item"
    assert faults.article(faults.noun(Message.DESCRIPTOR)) == "an object"
    assert faults.article("metadata object") == "a metadata object"


def test_long_values_are_quoted_in_part() -> None:
    assert faults.elided("x" * 200) == "x" * 200
    assert faults.elided("x" * 100 + "y" * 98 + "end") == "x" * 100 + "...end"


PATH = ROOT.key("limit")


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (faults.missing_field(PATH), "missing_required_parameter", "Missing required parameter: 'limit'."),
        (faults.unknown_field(PATH), "unknown_parameter", "Unknown parameter: 'limit'."),
        (
            faults.invalid_value(PATH, "x", "an ID that begins with 'msg'"),
            "invalid_value",
            "Invalid 'limit': 'x'. Expected an ID that begins with 'msg'.",
        ),
        (
            faults.integer_too_large(PATH, 100, 1000),
            "integer_above_max_value",
            "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 1000 instead.",
        ),
        (
            faults.integer_too_small(PATH, 1, 0),
            "integer_below_min_value",
            "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            faults.array_too_long(PATH, 20, 21),
            "array_above_max_length",
            (
                "Invalid 'limit': array too long. Expected an array with maximum length 20, but got an array with length 21 "
                "instead."
            ),
        ),
        (
            faults.array_too_short(PATH, 1, 0),
            "empty_array",
            "Invalid 'limit': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            faults.array_too_short(PATH, 3, 2),
            "empty_array",
            (
                "Invalid 'limit': array too short. Expected an array with minimum length 3, but got an array with length 2 "
                "instead."
            ),
        ),
        (
            faults.string_too_long(PATH, 512, 600),
            "string_above_max_length",
            (
                "Invalid 'limit': string too long. Expected a string with maximum length 512, but got a string with length "
                "600 instead."
            ),
        ),
        (
            faults.string_too_short(PATH, 1, 0),
            "string_below_min_length",
            "Invalid 'limit': empty string. Expected a string with minimum length 1, but got an empty string instead.",
        ),
        (
            faults.string_too_short(PATH, 3, 2),
            "string_below_min_length",
            (
                "Invalid 'limit': string too short. Expected a string with minimum length 3, but got a string with length 2 "
                "instead."
            ),
        ),
        (
            faults.too_many_properties(PATH, 16, 17),
            "object_above_max_properties",
            (
                "Invalid 'limit': too many properties. Expected an object with at most 16 properties, but got an object "
                "with 17 properties instead."
            ),
        ),
        (
            faults.too_deep(PATH),
            "nesting_too_deep",
            "Invalid request: objects or arrays are nested too deeply. Expected at most 64 levels.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_faults_are_told_in_the_apis_words(fault: ConvgrpcError, code: str, message: str) -> None:
    assert fault.message == message
    assert (fault.report.http, fault.report.type, fault.report.code) == (400, "invalid_request_error", code)
    assert (fault.param, fault.field) == ("limit", "limit")


def test_a_long_key_is_shortened_in_the_message_but_not_in_the_path() -> None:
    fault = faults.property_name_too_long(ROOT.key("metadata"), 64, LONG)
    assert fault.param == f"metadata.{LONG}"
    assert fault.message == (
        "Invalid property name in 'metadata': 'kkk...kkk' is too long. Expected a string with maximum length 64, "
        "but got a string with length 70 instead."
    )


def test_long_names_are_shortened_where_a_type_is_wrong() -> None:
    """As the API does it, from 20 letters; the path itself stays whole."""
    fault = faults.invalid_type(ROOT.key("previous_response_id").key(0).key("conversation"), "a string", 5)
    assert (
        fault.message == "Invalid type for 'pre..._id[0].conversation': expected a string, but got an integer instead."
    )
    assert fault.param == "previous_response_id[0].conversation"


def test_paths_and_messages_have_an_end() -> None:
    """They travel in trailers, which have little room; and a caller may choose a key of megabytes."""
    fault = faults.missing_field(ROOT.key("é" * 1_000_000))
    for text in (fault.message, fault.param or "", fault.field or ""):
        assert len(text.encode()) < 2_000
        assert text.endswith("…")


def test_bytes_that_are_no_message_are_told_so() -> None:
    fault = faults.invalid_message("convgrpc.v1.GetItemRequest")
    assert fault.message == "Invalid message: failed to parse the bytes of the request as convgrpc.v1.GetItemRequest."
    assert (fault.report.code, fault.param, fault.field) == ("invalid_message", None, None)
