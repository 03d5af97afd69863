"""Bad requests, and what the API says to each: status, type, parameter, code and words, with nothing stored.

Rows hold placeholders: `{conv}`, `{item}`, `{deleted_conv}` and `{deleted_item}` are ids that the test makes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from convgrpc.settings import Settings
from convgrpc.testing import served
from tests.conftest import FREE_PORT

CONFORMANCE = Path(__file__).parents[2].parent / "shared" / "conformance" / "bad_requests.jsonl"

ITEMS = "/v1/conversations/{conv}/items"
COUNT = "/v1/responses/input_tokens"

INVALID_JSON = (
    "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON. (Common errors "
    "include trailing commas, missing closing brackets, missing quotation marks, etc.)"
)
TYPES = (
    "'additional_tools', 'agent_message', 'apply_patch_call', 'apply_patch_call_output', 'code_interpreter_call', "
    "'compaction', 'compaction_trigger', 'computer_call', 'computer_call_output', 'configuration_update', 'custom_tool_call', "
    "'custom_tool_call_output', 'file_search_call', 'function_call', 'function_call_output', 'image_generation_call', "
    "'item_reference', 'local_shell_call', 'local_shell_call_output', 'mcp_approval_request', 'mcp_approval_response', "
    "'mcp_call', 'mcp_list_tools', 'message', 'multi_agent_call', 'multi_agent_call_output', 'program', "
    "'program_output', 'reasoning', 'shell_call', "
    "'shell_call_output', 'tool_search_call', 'tool_search_output', and 'web_search_call'"
)
ROLES = "'assistant', 'system', 'developer', and 'user'"
PARTS = (
    "'input_text', 'input_image', 'output_text', 'refusal', 'input_file', 'computer_screenshot', 'summary_text', "
    "'reasoning_text', 'text', and 'encrypted_content'"
)
INCLUDES = (
    "'file_search_call.results', 'web_search_call.results', 'web_search_call.action.sources', "
    "'message.input_image.image_url', 'computer_call_output.output.image_url', 'code_interpreter_call.outputs', "
    "'reasoning.encrypted_content', and 'message.output_text.logprobs'"
)
STATUSES = "'in_progress', 'completed', and 'incomplete'"

TIDE: dict[str, Any] = {"role": "user", "content": "When is high tide?"}
CALL: dict[str, Any] = {"type": "function_call", "call_id": "call_tide", "name": "tide", "arguments": "{}"}
TEXT: dict[str, Any] = {"type": "input_text", "text": "When is high tide?"}
SAID = {"user": TEXT, "assistant": {"type": "output_text", "text": "At six."}}


class Row(NamedTuple):
    """A bad request and its answer."""

    verb: str
    path: str
    body: Any
    status: int
    param: str | None
    code: str | None
    message: str
    headers: Mapping[str, str] = {}

    def __repr__(self) -> str:
        body = self.body.decode("latin-1") if isinstance(self.body, bytes) else json.dumps(self.body)
        return f"{self.verb} {self.path[:60]} {'' if self.body is None else body[:100]} {self.code} {self.param}"[:200]


def appended(items: Any, param: str | None, code: str | None, message: str, status: int = 400) -> Row:
    """Items that cannot be appended."""
    return Row("POST", ITEMS, {"items": items}, status, param, code, message)


def item(value: Any, param: str, code: str | None, message: str) -> Row:
    """An item that cannot be appended, at whatever place in it."""
    return appended([value], f"items[0]{param}", code, message.replace("@", "items[0]"))


def content(part: Any, param: str, code: str, message: str, role: str = "user") -> Row:
    """A part that a message cannot have, after one that it can."""
    value = {"role": role, "content": [SAID[role], part]}
    return item(value, f".content[1]{param}", code, message)


def created(body: Any, param: str | None, code: str, message: str) -> Row:
    """A conversation that cannot be created."""
    return Row("POST", "/v1/conversations", body, 400, param, code, message)


def listed(query: str, param: str | None, code: str | None, message: str, status: int = 400) -> Row:
    """A page that cannot be had."""
    return Row("GET", f"{ITEMS}?{query}", None, status, param, code, message)


def counted(body: Any, param: str | None, code: str | None, message: str, status: int = 400) -> Row:
    """Tokens that cannot be counted."""
    return Row("POST", COUNT, {"model": "gpt-5", **body}, status, param, code, message)


def requests_naming(
    conversation: str, message: str, status: int = 404, param: str | None = None, code: str | None = None
) -> list[Row]:
    """Every request that names a conversation in its path, and the answer for one that cannot be found."""
    path = f"/v1/conversations/{conversation}"
    requests: list[tuple[str, str, Any]] = [
        ("GET", path, None),
        ("POST", path, {"metadata": {}}),
        ("DELETE", path, None),
        ("POST", f"{path}/items", {"items": [TIDE]}),
        ("GET", f"{path}/items", None),
        ("GET", f"{path}/items?after=msg_lost", None),
        ("GET", f"{path}/items/{{item}}", None),
        ("DELETE", f"{path}/items/{{item}}", None),
        ("GET", f"/v1/x/conversations/{conversation}/items:batchGet?item_ids={{item}}", None),
    ]
    return [Row(*request, status, param, code, message) for request in requests]


def unknown_conversation(conversation: str) -> list[Row]:
    return requests_naming(conversation, f"Conversation with id '{conversation}' not found.")


def malformed_conversation(conversation: str) -> list[Row]:
    message = f"Invalid 'conversation_id': '{conversation}'. Expected an ID that begins with 'conv'."
    return requests_naming(conversation, message, 400, "conversation_id", "invalid_value")


def wrong_metadata(metadata: Any, param: str, code: str, message: str) -> list[Row]:
    """Metadata that cannot be attached, neither to a new conversation nor to an old one."""
    return [
        created({"items": [TIDE], "metadata": metadata}, param, code, message),
        Row("POST", "/v1/conversations/{conv}", {"metadata": metadata}, 400, param, code, message),
    ]


NOT_FOUND = [
    *unknown_conversation("conv_lighthouse"),
    *unknown_conversation("{deleted_conv}"),
    *malformed_conversation("harbour"),
    *malformed_conversation("thread_1"),
    Row("GET", ITEMS + "/msg_gone", None, 404, None, None, "Item with id 'msg_gone' not found in conversation."),
    Row("DELETE", ITEMS + "/msg_gone", None, 404, None, None, "Item with id 'msg_gone' not found in conversation."),
    *(
        Row(
            verb,
            ITEMS + "/{deleted_item}",
            None,
            404,
            None,
            None,
            "Item with id '{deleted_item}' not found in conversation.",
        )
        for verb in ("GET", "DELETE")
    ),
    Row(
        "GET",
        "/v1/x/conversations/{conv}/items:batchGet?item_ids={item}&item_ids=msg_gone",
        None,
        404,
        None,
        None,
        "Item with id 'msg_gone' not found in conversation.",
    ),
    listed("after=msg_gone", "after", None, "No item found with id 'msg_gone'", 404),
    listed("order=asc&limit=1&after={deleted_item}", "after", None, "No item found with id '{deleted_item}'", 404),
    listed("after=", "after", None, "No item found with id ''", 404),
    Row(
        "GET",
        "/v1/x/conversations?after={deleted_conv}",
        None,
        404,
        "after",
        None,
        "No conversation found with id '{deleted_conv}'",
    ),
    appended(
        [TIDE, {"type": "item_reference", "id": "msg_gone"}], None, None, "Item with id 'msg_gone' not found.", 404
    ),
    appended([{"id": "{deleted_item}"}], None, None, "Item with id '{deleted_item}' not found.", 404),
    counted({"conversation": "conv_gone"}, None, None, "Conversation with id 'conv_gone' not found.", 404),
    counted(
        {"input": "Ahoy", "conversation": {"id": "{deleted_conv}"}},
        None,
        None,
        "Conversation with id '{deleted_conv}' not found.",
        404,
    ),
    counted(
        {"input": "Ahoy", "previous_response_id": "resp_ebb"},
        "previous_response_id",
        "previous_response_not_found",
        "Previous response with id 'resp_ebb' not found.",
    ),
    Row("GET", "/v1/harbours", None, 404, None, None, "Invalid URL (GET /v1/harbours)"),
    Row(
        "POST",
        "/v1/conversations/{conv}/parts",
        {},
        404,
        None,
        None,
        "Invalid URL (POST /v1/conversations/{conv}/parts)",
    ),
    Row("DELETE", ITEMS + "//", None, 404, None, None, f"Invalid URL (DELETE {ITEMS}//)"),
    *(
        Row(
            verb,
            path,
            body,
            404,
            None,
            None,
            f"Invalid URL ({verb} {path}). This server stores conversations and counts input tokens; it runs no model. "
            "GET /openapi.json lists the routes that it serves.",
        )
        for verb, path, body in [
            ("POST", "/v1/responses", {"model": "gpt-5", "input": "Ahoy"}),
            ("GET", "/v1/responses/resp_1", None),
            ("POST", "/v1/chat/completions", {"model": "gpt-5", "messages": []}),
            ("GET", "/v1/models", None),
            ("POST", "/v1/embeddings", {}),
        ]
    ),
    Row(
        "PUT",
        ITEMS,
        {"items": [TIDE]},
        405,
        None,
        None,
        f"Not allowed to PUT on {ITEMS}. (HINT: Perhaps you meant to use POST or GET?)",
    ),
]

QUERY_STRINGS = [
    *(
        Row("GET", f"{path}?limit={value}", None, 400, "limit", code, message)
        for path in (ITEMS, "/v1/x/conversations")
        for value, code, message in [
            (
                "101",
                "integer_above_max_value",
                "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
            ),
            (
                "0",
                "integer_below_min_value",
                "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
            ),
            (
                "-7",
                "integer_below_min_value",
                "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got -7 instead.",
            ),
            (
                "many",
                "invalid_type",
                "Invalid type for 'limit': expected an integer, but got a string instead.",
            ),
        ]
    ),
    *(
        listed(
            f"order={value}",
            "order",
            "invalid_value",
            f"Invalid value: '{value}'. Supported values are: 'asc' and 'desc'.",
        )
        for value in ("ascending", "Desc", "")
    ),
    *(
        Row(
            verb,
            f"{path}{'&' if '?' in path else '?'}include[]={first}&include[]=tides.high",
            body,
            400,
            "include[1]",
            "invalid_value",
            f"Invalid value: 'tides.high'. Supported values are: {INCLUDES}.",
        )
        for verb, path, body in [
            ("GET", ITEMS, None),
            ("GET", ITEMS + "/{item}", None),
            ("POST", ITEMS, {"items": [TIDE]}),
            ("GET", "/v1/x/conversations/{conv}/items:batchGet?item_ids={item}", None),
        ]
        for first in ["web_search_call.results"]
    ),
    listed(
        "include=INCLUDE_WEB_SEARCH_CALL_RESULTS",
        "include[0]",
        "invalid_value",
        f"Invalid value: 'INCLUDE_WEB_SEARCH_CALL_RESULTS'. Supported values are: {INCLUDES}.",
    ),
    listed("sort=asc", "sort", "unknown_parameter", "Unknown parameter: 'sort'."),
    listed("before={item}", "before", "unknown_parameter", "Unknown parameter: 'before'."),
    listed("conversation_id={conv}", "conversation_id", "unknown_parameter", "Unknown parameter: 'conversation_id'."),
    Row(
        "GET",
        "/v1/x/conversations/{conv}/items:batchGet",
        None,
        400,
        "item_ids",
        "missing_required_parameter",
        "Missing required parameter: 'item_ids'.",
    ),
    Row(
        "GET",
        "/v1/x/conversations/{conv}/items:batchGet?" + "&".join(["item_ids={item}"] * 101),
        None,
        400,
        "item_ids",
        "array_above_max_length",
        "Invalid 'item_ids': array too long. Expected an array with maximum length 100, but got an array with length "
        "101 instead.",
    ),
    Row(
        "GET",
        "/v1/x/conversations?metadata[port]=" + "x" * 513,
        None,
        400,
        "metadata.port",
        "string_above_max_length",
        "Invalid 'metadata.port': string too long. Expected a string with maximum length 512, but got a string with "
        "length 513 instead.",
    ),
]

METADATA = [
    *wrong_metadata(
        {f"berth{number}": "" for number in range(17)},
        "metadata",
        "object_above_max_properties",
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object "
        "with 17 properties instead.",
    ),
    *wrong_metadata(
        {"anchor" * 11: "down"},
        "metadata." + "anchor" * 11,
        "property_name_above_max_length",
        "Invalid property name in 'metadata': 'anc...hor' is too long. Expected a string with maximum length 64, but "
        "got a string with length 66 instead.",
    ),
    *wrong_metadata(
        {"buoy": "ö" * 513},
        "metadata.buoy",
        "string_above_max_length",
        "Invalid 'metadata.buoy': string too long. Expected a string with maximum length 512, but got a string with "
        "length 513 instead.",
    ),
    *(
        row
        for value, words in [
            (7, "an integer"),
            (7.5, "a decimal"),
            (False, "a boolean"),
            (["a"], "an array"),
            ({"a": "b"}, "an object"),
            (None, "an object"),
        ]
        for row in wrong_metadata(
            {"pier": value},
            "metadata.pier",
            "invalid_type",
            f"Invalid type for 'metadata.pier': expected a string, but got {words} instead.",
        )
    ),
    *(
        row
        for value, words in [("x", "a string"), ([], "an array"), (1, "an integer"), (True, "a boolean")]
        for row in wrong_metadata(
            value,
            "metadata",
            "invalid_type",
            f"Invalid type for 'metadata': expected a metadata object, but got {words} instead.",
        )
    ),
    Row(
        "POST",
        "/v1/conversations/{conv}",
        {},
        400,
        "metadata",
        "missing_required_parameter",
        "Missing required parameter: 'metadata'.",
    ),
]

BODIES = [
    Row(
        "POST",
        "/v1/conversations/{conv}",
        {"metadata": None},
        400,
        "metadata",
        "invalid_type",
        "Invalid type for 'metadata': expected a metadata object, but got null instead.",
    ),
    *(
        Row("POST", path, raw, 400, None, "invalid_json", INVALID_JSON)
        for path in ("/v1/conversations", "/v1/conversations/{conv}", ITEMS, COUNT)
        for raw in (b"{", b'{"items": [],}', b"items", b'{"metadata": {"a": NaN}}', b"\xff\xfe{}")
    ),
    Row(
        "POST",
        "/v1/conversations",
        b'{"metadata": {"dock": "1", "dock": "2"}}',
        400,
        None,
        "invalid_json",
        "Invalid body: the key 'dock' stands twice in one object.",
    ),
    *(
        Row("POST", path, raw, 400, None, "invalid_type", f"Invalid body: expected an object, but got {words} instead.")
        for path in ("/v1/conversations", ITEMS, COUNT)
        for raw, words in [(b"[]", "an array"), (b'"ahoy"', "a string"), (b"null", "null"), (b"7", "an integer")]
    ),
    created({"title": "Tides"}, "title", "unknown_parameter", "Unknown parameter: 'title'."),
    created({"metdata": {}}, "metdata", "unknown_parameter", "Unknown parameter: 'metdata'. Did you mean 'metadata'?"),
    created({"metadata": {}, "metdata": {}}, "metdata", "unknown_parameter", "Unknown parameter: 'metdata'."),
    created({"id": "conv_mine"}, "id", "unknown_parameter", "Unknown parameter: 'id'."),
    created({"request_id": "mine"}, "request_id", "unknown_parameter", "Unknown parameter: 'request_id'."),
    Row(
        "POST",
        ITEMS,
        {"items": [TIDE], "conversation_id": "{conv}"},
        400,
        "conversation_id",
        "unknown_parameter",
        "Unknown parameter: 'conversation_id'.",
    ),
    Row("POST", ITEMS, {}, 400, "items", "missing_required_parameter", "Missing required parameter: 'items'."),
    Row(
        "POST",
        ITEMS,
        {"item": [TIDE]},
        400,
        "items",
        "missing_required_parameter",
        "Missing required parameter: 'items'.",
    ),
    Row(
        "POST",
        ITEMS,
        {"items": [TIDE]},
        400,
        "request_id",
        "string_above_max_length",
        "Invalid 'request_id': string too long. Expected a string with maximum length 255, but got a string with "
        "length 256 instead.",
        {"idempotency-key": "k" * 256},
    ),
    Row(
        "POST",
        ITEMS,
        {"items": [TIDE]},
        400,
        "request_id",
        "string_below_min_length",
        "Invalid 'request_id': empty string. Expected a string with minimum length 1, but got an empty string instead.",
        {"idempotency-key": ""},
    ),
    Row(
        "POST",
        ITEMS,
        {"items": [TIDE, TIDE]},
        422,
        "request_id",
        "idempotency_key_reused",
        "The request id 'first-berth' belongs to an earlier, different request.",
        {"idempotency-key": "first-berth"},
    ),
    Row(
        "POST",
        ITEMS,
        {"items": [TIDE]},
        412,
        "expected_last_item_id",
        "conversation_changed",
        "The last item of the conversation is '{item}', not '{deleted_item}' as expected. Nothing was stored.",
        {"x-expected-last-item-id": "{deleted_item}"},
    ),
    Row(
        "POST",
        ITEMS,
        {"items": [TIDE]},
        412,
        "expected_last_item_id",
        "conversation_changed",
        "The last item of the conversation is '{item}', not none as expected. Nothing was stored.",
        {"x-expected-last-item-id": ""},
    ),
]

LISTS_OF_ITEMS = [
    *(
        Row(
            "POST",
            path,
            {"items": [TIDE] * 21},
            400,
            "items",
            "array_above_max_length",
            "Invalid 'items': array too long. Expected an array with maximum length 20, but got an array with length "
            "21 instead.",
        )
        for path in ("/v1/conversations", ITEMS)
    ),
    appended(
        [],
        "items",
        "empty_array",
        "Invalid 'items': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    ),
    *(
        Row(
            "POST",
            path,
            {"items": value},
            400,
            "items",
            "invalid_type",
            f"Invalid type for 'items': expected an array of input items, but got {words} instead.",
        )
        for path in ("/v1/conversations", ITEMS)
        for value, words in [({"0": TIDE}, "an object"), ("ahoy", "a string"), (0, "an integer"), (False, "a boolean")]
    ),
    appended(
        None,
        "items",
        "invalid_type",
        "Invalid type for 'items': expected an array of input items, but got null instead.",
    ),
    *(
        appended(
            [TIDE, value],
            "items[1]",
            "invalid_type",
            f"Invalid type for 'items[1]': expected an input item, but got {words} instead.",
        )
        for value, words in [
            ("ahoy", "a string"),
            (3, "an integer"),
            (0.5, "a decimal"),
            (True, "a boolean"),
            ([TIDE], "an array"),
            (None, "null"),
        ]
    ),
]

KINDS_AND_ROLES = [
    *(
        item({**TIDE, "type": sent}, "", "invalid_value", f"Invalid value: '{quoted}'. Supported values are: {TYPES}.")
        for sent, quoted in [
            ("sea_chart", "sea_chart"),
            ("", ""),
            ("Message", "Message"),
            ("conversation", "conversation"),
            (12, ""),
            (["message"], ""),
        ]
    ),
    *(
        item(value, "", "invalid_value", f"Invalid value: '{quoted}'. Supported values are: {ROLES}.")
        for value, quoted in [
            ({}, ""),
            ({"type": "message"}, ""),
            ({"type": "message", "content": [TEXT]}, ""),
            ({"content": "no role"}, ""),
            ({"role": "captain", "content": "Aye"}, "captain"),
            ({"role": "tool", "content": "Aye"}, "tool"),
            ({"role": "", "content": "Aye"}, ""),
        ]
    ),
    item(
        {"role": 5, "content": "Aye"},
        ".role",
        "invalid_type",
        "Invalid type for '@.role': expected one of 'assistant', 'system', 'developer', or 'user', but got an integer "
        "instead.",
    ),
    item(
        {**CALL, "status": "sunk"},
        ".status",
        "invalid_value",
        f"Invalid value: 'sunk'. Supported values are: {STATUSES}.",
    ),
    item(
        {**TIDE, "role": "assistant", "phase": "ebb"},
        ".phase",
        "invalid_value",
        "Invalid value: 'ebb'. Supported values are: 'commentary' and 'final_answer'.",
    ),
    item(
        {"type": "additional_tools", "role": "user", "tools": []},
        ".role",
        "invalid_value",
        "Invalid value: 'user'. Supported values are: 'developer'.",
    ),
]

MISSING = [
    item(value, f".{param}", "missing_required_parameter", f"Missing required parameter: '@.{param}'.")
    for param, value in [
        ("content", {"role": "user"}),
        ("content", {"type": "message", "role": "assistant", "status": "completed"}),
        ("content[0].text", {"role": "user", "content": [{"type": "input_text"}]}),
        ("content[0].type", {"role": "user", "content": [{"text": "no type"}]}),
        ("content[0].type", {"role": "user", "content": [{}]}),
        ("content[0].refusal", {"role": "assistant", "content": [{"type": "refusal"}]}),
        (
            "content[0].annotations[0].url",
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "At six.",
                        "annotations": [{"type": "url_citation", "title": "Tides"}],
                    }
                ],
            },
        ),
        (
            "content[0].logprobs[0].logprob",
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "At",
                        "logprobs": [{"token": "At", "bytes": [], "top_logprobs": []}],
                    }
                ],
            },
        ),
        (
            "content[0].prompt_cache_breakpoint.mode",
            {"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {}}]},
        ),
        ("call_id", {"type": "function_call", "name": "tide", "arguments": "{}"}),
        ("name", {"type": "function_call", "call_id": "call_tide", "arguments": "{}"}),
        ("arguments", {"type": "function_call", "call_id": "call_tide", "name": "tide"}),
        ("output", {"type": "function_call_output", "call_id": "call_tide"}),
        ("output[0].type", {"type": "function_call_output", "call_id": "call_tide", "output": [{}]}),
        ("summary", {"type": "reasoning", "encrypted_content": "gAAA"}),
        ("summary[0].text", {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text"}]}),
        ("call_id", {"type": "computer_call_output", "output": {"type": "computer_screenshot"}}),
        ("output", {"type": "computer_call_output", "call_id": "call_screen"}),
        ("arguments", {"type": "tool_search_call"}),
        ("tools", {"type": "tool_search_output"}),
        ("tools[0].type", {"type": "tool_search_output", "tools": [{"name": "tide"}]}),
        ("tools[0].name", {"type": "tool_search_output", "tools": [{"type": "function"}]}),
        (
            "tools[0].container",
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "code_interpreter"}]},
        ),
        ("encrypted_content", {"type": "compaction"}),
        ("action", {"type": "shell_call", "call_id": "call_sh"}),
        ("action.commands", {"type": "shell_call", "call_id": "call_sh", "action": {}}),
        (
            "output[0].outcome.exit_code",
            {
                "type": "shell_call_output",
                "call_id": "call_sh",
                "output": [{"stdout": "", "stderr": "", "outcome": {"type": "exit"}}],
            },
        ),
        (
            "operation.diff",
            {
                "type": "apply_patch_call",
                "call_id": "call_patch",
                "status": "completed",
                "operation": {"type": "create_file", "path": "tides.txt"},
            },
        ),
        ("approve", {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}),
        ("input", {"type": "custom_tool_call", "call_id": "call_custom", "name": "tide"}),
        *(
            ("id", {"type": kind})
            for kind in (
                "file_search_call",
                "web_search_call",
                "image_generation_call",
                "computer_call",
                "program",
                "program_output",
                "code_interpreter_call",
                "local_shell_call",
                "mcp_list_tools",
                "mcp_approval_request",
                "mcp_call",
                "item_reference",
            )
        ),
        ("id", {"type": "local_shell_call_output", "output": ""}),
        ("action.type", {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "tide"}}),
        ("queries", {"type": "file_search_call", "id": "fs_1", "status": "completed"}),
    ]
]

TYPELESS = "Missing required parameter: '{}'."
UNTYPED = [
    # In an object with neither type nor role, unknown keys are reported first.
    item({"rol": "user"}, ".rol", "unknown_parameter", "Unknown parameter: '@.rol'. Did you mean 'role'?"),
    item(
        {"rol": "user", "type": None}, ".rol", "unknown_parameter", "Unknown parameter: '@.rol'. Did you mean 'role'?"
    ),
    item({"text": "Ahoy"}, ".text", "unknown_parameter", "Unknown parameter: '@.text'."),
    item({"id": "msg_1", "text": "Ahoy"}, ".text", "unknown_parameter", "Unknown parameter: '@.text'."),
    content({"tide": 1}, ".tide", "unknown_parameter", "Unknown parameter: 'items[0].content[1].tide'."),
    content({"tide": None}, ".type", "missing_required_parameter", TYPELESS.format("items[0].content[1].type")),
    content({"text": "Ahoy"}, ".type", "missing_required_parameter", TYPELESS.format("items[0].content[1].type")),
    counted({"tools": [{"ahoy": 1}]}, "tools[0].ahoy", "unknown_parameter", "Unknown parameter: 'tools[0].ahoy'."),
    counted(
        {"tools": [{"name": "f"}]}, "tools[0].type", "missing_required_parameter", TYPELESS.format("tools[0].type")
    ),
    item({"rol": None}, "", "invalid_value", f"Invalid value: ''. Supported values are: {ROLES}."),
    item({"content": "Ahoy"}, "", "invalid_value", f"Invalid value: ''. Supported values are: {ROLES}."),
    item(
        {"role": "user", "text": "x"},
        ".content",
        "missing_required_parameter",
        "Missing required parameter: '@.content'.",
    ),
]

UNKNOWN = [
    item(value, f".{param}", "unknown_parameter", f"Unknown parameter: '@.{param}'.{hint}")
    for param, value, hint in [
        ("mood", {**TIDE, "mood": "calm"}, ""),
        ("stats", {**TIDE, "stats": "completed"}, " Did you mean 'status'?"),
        ("Role", {**TIDE, "Role": "user"}, ""),
        ("object", {**TIDE, "object": "item"}, ""),
        ("content[0].annotations", {"role": "user", "content": [{**TEXT, "annotations": []}]}, ""),
        (
            "content[0].image_ur",
            {"role": "user", "content": [{"type": "input_image", "image_ur": "https://tides.example/1.png"}]},
            " Did you mean 'image_url'?",
        ),
        ("arguments_json", {**CALL, "arguments_json": "{}"}, ""),
        (
            "action.search",
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "search": 1}},
            "",
        ),
        (
            "tools[0].parametrs",
            {"type": "tool_search_output", "tools": [{"type": "function", "name": "tide", "parametrs": {}}]},
            " Did you mean 'parameters'?",
        ),
    ]
]

WRONG_TYPES = [
    item(value, f".{param}", "invalid_type", f"Invalid type for '@.{shown}': expected {words}.")
    for param, shown, value, words in [
        ("content", "content", {**TIDE, "content": 6}, "an array of objects, but got an integer instead"),
        ("content", "content", {**TIDE, "content": TEXT}, "an array of objects, but got an object instead"),
        ("content", "content", {**TIDE, "content": None}, "an array of objects, but got null instead"),
        ("content[0]", "content[0]", {**TIDE, "content": ["ahoy"]}, "an object, but got a string instead"),
        ("content[0]", "content[0]", {**TIDE, "content": [None]}, "an object, but got null instead"),
        (
            "content[0].text",
            "content[0].text",
            {**TIDE, "content": [{**TEXT, "text": 6}]},
            "a string, but got an integer instead",
        ),
        (
            "content[0].text",
            "content[0].text",
            {**TIDE, "content": [{**TEXT, "text": None}]},
            "a string, but got an object instead",
        ),
        ("id", "id", {**TIDE, "id": 6}, "a string, but got an integer instead"),
        ("arguments", "arguments", {**CALL, "arguments": {}}, "a string, but got an object instead"),
        ("arguments", "arguments", {**CALL, "arguments": ["a"]}, "a string, but got an array instead"),
        ("call_id", "call_id", {**CALL, "call_id": None}, "a string, but got an object instead"),
        (
            "output",
            "output",
            {"type": "function_call_output", "call_id": "call_tide", "output": 6.5},
            "one of a string or array of objects, but got a decimal instead",
        ),
        (
            "approve",
            "approve",
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": "aye"},
            "a boolean, but got a string instead",
        ),
        (
            "approve",
            "approve",
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": 1},
            "a boolean, but got an integer instead",
        ),
        (
            "action.timeout_ms",
            "action.timeout_ms",
            {"type": "shell_call", "call_id": "call_sh", "action": {"commands": ["ls"], "timeout_ms": "1s"}},
            "an integer, but got a string instead",
        ),
        (
            "action.timeout_ms",
            "action.timeout_ms",
            {"type": "shell_call", "call_id": "call_sh", "action": {"commands": ["ls"], "timeout_ms": 1.0}},
            "an integer, but got a decimal instead",
        ),
        (
            "action.commands",
            "action.commands",
            {"type": "shell_call", "call_id": "call_sh", "action": {"commands": "ls"}},
            "an array of strings, but got a string instead",
        ),
        (
            "acknowledged_safety_checks",
            "ack...cks",
            {
                "type": "computer_call_output",
                "call_id": "call_screen",
                "output": {"type": "computer_screenshot"},
                "acknowledged_safety_checks": "all",
            },
            "an array of objects, but got a string instead",
        ),
        (
            "tools[0].description",
            "tools[0].description",
            {"type": "tool_search_output", "tools": [{"type": "function", "name": "tide", "description": 1}]},
            "a string, but got an integer instead",
        ),
        (
            "operation",
            "operation",
            {"type": "apply_patch_call", "call_id": "call_patch", "status": "completed", "operation": "delete"},
            "an object, but got a string instead",
        ),
    ]
]

CONTENT = [
    content(
        {"type": "hologram", "text": "x"},
        ".type",
        "invalid_value",
        f"Invalid value: 'hologram'. Supported values are: {PARTS}.",
    ),
    content({"type": 9}, ".type", "invalid_value", f"Invalid value: ''. Supported values are: {PARTS}."),
    content(
        {"type": "output_text", "text": "x"},
        "",
        "invalid_value",
        "Invalid value: 'output_text'. Supported values are: 'input_text', 'input_image', and 'input_file'.",
    ),
    *(
        content(
            part,
            "",
            "invalid_value",
            f"Invalid value: '{part['type']}'. Supported values are: 'output_text' and 'refusal'.",
            role="assistant",
        )
        for part in [TEXT, {"type": "input_image", "file_id": "file-1"}, {"type": "input_file", "file_id": "file-1"}]
    ),
    content(
        {"type": "input_image"},
        "",
        "missing_mutually_exclusive_parameters",
        "Missing mutually exclusive parameters: '@.content[1]'. Ensure you are providing exactly one of: 'file_id' or "
        "'image_url'.",
    ),
    content(
        {"type": "input_image", "file_id": "file-1", "image_url": "https://tides.example/1.png"},
        "",
        "mutually_exclusive_parameters",
        "Mutually exclusive parameters: '@.content[1]'. Ensure you are only providing one of: 'file_id' or 'image_url'.",
    ),
    content(
        {"type": "input_image", "file_id": "file-1", "detail": "fine"},
        ".detail",
        "invalid_value",
        "Invalid value: 'fine'. Supported values are: 'low', 'high', 'auto', and 'original'.",
    ),
    content(
        {**TEXT, "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "1h"}},
        ".prompt_cache_breakpoint.ttl",
        "invalid_value",
        "Invalid value: '1h'. Supported values are: '30m' and '12h'.",
    ),
]

IDS = [
    *(
        item(
            {**value, "id": sent},
            ".id",
            "invalid_value",
            f"Invalid '@.id': '{sent}'. Expected an ID that begins with '{prefix}'.",
        )
        for value, sent, prefix in [
            (TIDE, "item_1", "msg"),
            (TIDE, "", "msg"),
            (TIDE, "MSG_1", "msg"),
            (CALL, "msg_1", "fc"),
            ({"type": "function_call_output", "call_id": "call_tide", "output": ""}, "msg_1", "fc"),
            ({"type": "reasoning", "summary": []}, "msg_1", "rs"),
            ({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": ""}, "fc_1", "ctc"),
            ({"type": "mcp_list_tools", "server_label": "s", "tools": []}, "mcp_1", "mcpl"),
        ]
    ),
    *(
        item(
            {**TIDE, "id": sent},
            ".id",
            "invalid_value",
            f"Invalid '@.id': '{sent}'. Expected an ID that contains letters, numbers, underscores, or dashes.",
        )
        for sent in ("msg_a b", "msg_ä", "msg_a.b", "msg_a/b")
    ),
    item(
        {**TIDE, "id": "msg_" + "1" * 125},
        ".id",
        "string_above_max_length",
        "Invalid '@.id': string too long. Expected a string with maximum length 128, but got a string with length 129 "
        "instead.",
    ),
    *(
        appended([TIDE, value], "items", "item_already_in_conversation", "Item already in conversation")
        for value in [{**TIDE, "id": "{item}"}, {"type": "item_reference", "id": "{item}"}, {"id": "{item}"}]
    ),
    *(
        appended([TIDE, value], "item", "invalid_item", "Invalid item")
        for value in [{"type": "reasoning", "summary": []}, {"type": "reasoning", "summary": [], "content": []}]
    ),
]

LIMITS = [
    item(value, f".{param}", code, f"Invalid '@.{param}': {message}")
    for param, value, code, message in [
        (
            "call_id",
            {"type": "function_call_output", "call_id": "", "output": ""},
            "string_below_min_length",
            "empty string. Expected a string with minimum length 1, but got an empty string instead.",
        ),
        (
            "call_id",
            {"type": "function_call_output", "call_id": "c" * 4097, "output": ""},
            "string_above_max_length",
            "string too long. Expected a string with maximum length 4096, but got a string with length 4097 instead.",
        ),
        (
            "call_id",
            {**CALL, "call_id": ""},
            "string_below_min_length",
            "empty string. Expected a string with minimum length 1, but got an empty string instead.",
        ),
        (
            "call_id",
            {**CALL, "call_id": "c" * 4097},
            "string_above_max_length",
            "string too long. Expected a string with maximum length 4096, but got a string with length 4097 instead.",
        ),
        (
            "namespace",
            {"type": "function_call_output", "call_id": "c", "namespace": "a b", "output": ""},
            "invalid_value",
            "'a b'. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        ),
        (
            "tools[0].partial_images",
            {"type": "tool_search_output", "tools": [{"type": "image_generation", "partial_images": 4}]},
            "integer_above_max_value",
            "integer above maximum value. Expected a value <= 3, but got 4 instead.",
        ),
        (
            "tools[0].partial_images",
            {"type": "tool_search_output", "tools": [{"type": "image_generation", "partial_images": -1}]},
            "integer_below_min_value",
            "integer below minimum value. Expected a value >= 0, but got -1 instead.",
        ),
        (
            "results[0].attributes",
            {
                "type": "file_search_call",
                "id": "fs_1",
                "status": "completed",
                "queries": [],
                "results": [{"attributes": {str(number): number for number in range(17)}}],
            },
            "object_above_max_properties",
            (
                "too many properties. Expected an object with at most 16 properties, but got an object with 17 "
                "properties instead."
            ),
        ),
        (
            "tools[0].container.file_ids",
            {
                "type": "tool_search_output",
                "tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"] * 51}}],
            },
            "array_above_max_length",
            "array too long. Expected an array with maximum length 50, but got an array with length 51 instead.",
        ),
    ]
]

COUNTING = [
    counted(
        {"conversation": "{conv}", "previous_response_id": "resp_ebb"},
        None,
        "mutually_exclusive_parameters",
        "Mutually exclusive parameters: ''. Ensure you are only providing one of: 'pre..._id' or 'conversation'.",
    ),
    counted(
        {"input": "Ahoy", "conversation": "thread_1"},
        "conversation",
        "invalid_value",
        "Invalid 'conversation': 'thread_1'. Expected an ID that begins with 'conv'.",
    ),
    counted(
        {"input": "Ahoy", "conversation": {"id": "thread_1"}},
        "conversation.id",
        "invalid_value",
        "Invalid 'conversation.id': 'thread_1'. Expected an ID that begins with 'conv'.",
    ),
    counted(
        {"conversation": {}},
        "conversation.id",
        "missing_required_parameter",
        "Missing required parameter: 'conversation.id'.",
    ),
    counted(
        {"input": True},
        "input",
        "invalid_type",
        "Invalid type for 'input': expected one of a string or array of input items, but got a boolean instead.",
    ),
    counted(
        {"input": [TIDE, {"role": "user"}]},
        "input[1].content",
        "missing_required_parameter",
        "Missing required parameter: 'input[1].content'.",
    ),
    counted({"input": [{}]}, "input[0]", "invalid_value", f"Invalid value: ''. Supported values are: {ROLES}."),
    counted(
        {"previous_response_id": 5},
        "previous_response_id",
        "invalid_type",
        "Invalid type for 'pre..._id': expected a string, but got an integer instead.",
    ),
    counted(
        {"tools": {}},
        "tools",
        "invalid_type",
        "Invalid type for 'tools': expected an array of tools, but got an object instead.",
    ),
    counted(
        {"tools": [5]},
        "tools[0]",
        "invalid_type",
        "Invalid type for 'tools[0]': expected a tool, but got an integer instead.",
    ),
    counted(
        {"tools": [{"type": "function"}]},
        "tools[0].name",
        "missing_required_parameter",
        "Missing required parameter: 'tools[0].name'.",
    ),
    counted(
        {"tool_choice": "sometimes"},
        "tool_choice",
        "invalid_value",
        "Invalid value: 'sometimes'. Supported values are: 'none', 'auto', and 'required'.",
    ),
    counted(
        {"tool_choice": []},
        "tool_choice",
        "invalid_type",
        "Invalid type for 'tool_choice': expected one of an object or 'none', 'auto', or 'required', but got an array "
        "instead.",
    ),
    counted(
        {"reasoning": {"effort": "utmost"}},
        "reasoning.effort",
        "invalid_value",
        "Invalid value: 'utmost'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', 'xhigh', and 'max'.",
    ),
    counted(
        {"text": {"format": {"type": "yaml"}}},
        "text.format.type",
        "invalid_value",
        "Invalid value: 'yaml'. Supported values are: 'json_object', 'text', and 'json_schema'.",
    ),
    counted(
        {"truncation": "left"},
        "truncation",
        "invalid_value",
        "Invalid value: 'left'. Supported values are: 'auto' and 'disabled'.",
    ),
    counted({"stream": True}, "stream", "unknown_parameter", "Unknown parameter: 'stream'."),
    counted({"inputs": "Ahoy"}, "inputs", "unknown_parameter", "Unknown parameter: 'inputs'. Did you mean 'input'?"),
]


def nested(levels: int) -> Any:
    """Arrays and objects in one another, as many of each."""
    value: Any = {}
    for _ in range(levels):
        value = [{"deep": value}]
    return value


def filters(levels: int) -> Any:
    """A filter of filters."""
    value: Any = {"type": "eq", "key": "port", "value": "Dover"}
    for _ in range(levels):
        value = {"type": "and", "filters": [value]}
    return value


TOO_DEEP = "Invalid request: objects or arrays are nested too deeply. Expected at most 64 levels."

TOOLS = [
    counted({"tools": [tool]}, param, code, message)
    for tool, param, code, message in [
        (
            {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": number},
            "tools[0].max_num_results",
            f"integer_{code}_value",
            (
                f"Invalid 'tools[0].max_num_results': integer {words} value. Expected a value {limit}, but got {number} "
                "instead."
            ),
        )
        for number, code, words, limit in [
            (51, "above_max", "above maximum", "<= 50"),
            (0, "below_min", "below minimum", ">= 1"),
        ]
    ]
    + [
        (
            {"type": "file_search", "vector_store_ids": [], "ranking_options": {"score_threshold": number}},
            "tools[0].ranking_options.score_threshold",
            f"decimal_{code}_value",
            (
                f"Invalid 'tools[0].ranking_options.score_threshold': decimal {words} value. Expected a value {limit}, but "
                f"got {number} instead."
            ),
        )
        for number, code, words, limit in [
            (1.5, "above_max", "above maximum", "<= 1"),
            (-0.1, "below_min", "below minimum", ">= 0"),
        ]
    ]
    + [
        (
            {"type": "mcp", "server_label": "docs"},
            "tools[0]",
            "missing_mutually_exclusive_parameters",
            (
                "Missing mutually exclusive parameters: 'tools[0]'. Ensure you are providing at least one of: 'server_url', "
                "'connector_id', or 'tunnel_id'."
            ),
        ),
        *(
            (
                {"type": kind, "user_location": {"type": "approximate", "country": country}},
                "tools[0].user_location.country",
                "invalid_value",
                (
                    f"Invalid 'tools[0].user_location.country': '{country}'. Expected a string that matches the pattern "
                    "'^[a-zA-Z]{2}$'."
                ),
            )
            for kind in ("web_search", "web_search_preview")
            for country in ("USA", "", "N0")
        ),
        (
            {"type": "function", "name": "tide", "allowed_callers": []},
            "tools[0].allowed_callers",
            "empty_array",
            (
                "Invalid 'tools[0].allowed_callers': empty array. Expected an array with minimum length 1, but got an empty "
                "array instead."
            ),
        ),
    ]
]

FORMATS = [
    counted(
        {"text": {"format": {"type": "json_schema", "name": name, "schema": {}}}}, "text.format.name", code, message
    )
    for name, code, message in [
        (
            "a b",
            "invalid_value",
            "Invalid 'text.format.name': 'a b'. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        ),
        (
            "n" * 65,
            "string_above_max_length",
            (
                "Invalid 'text.format.name': string too long. Expected a string with maximum length 64, but got a string with "
                "length 65 instead."
            ),
        ),
    ]
]

DEPTH = [
    item(
        {"type": "tool_search_call", "arguments": nested(40)},
        ".arguments",
        "nesting_too_deep",
        TOO_DEEP,
    ),
    item(
        {
            "type": "tool_search_output",
            "tools": [{"type": "file_search", "vector_store_ids": [], "filters": filters(40)}],
        },
        ".tools[0].filters" + ".filters[0]" * 30,
        "nesting_too_deep",
        TOO_DEEP,
    ),
]

ROWS: Sequence[Row] = [
    *NOT_FOUND,
    *QUERY_STRINGS,
    *METADATA,
    *BODIES,
    *LISTS_OF_ITEMS,
    *KINDS_AND_ROLES,
    *MISSING,
    *UNTYPED,
    *UNKNOWN,
    *WRONG_TYPES,
    *CONTENT,
    *IDS,
    *LIMITS,
    *COUNTING,
    *TOOLS,
    *FORMATS,
    *DEPTH,
]

DISPUTED: dict[int, str] = {}
"""Rows of the conformance collection that this service answers otherwise, by their numbers, and why."""


class Harbour:
    """A server with a conversation of two items, and with one of each that was deleted."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        conversation = self._made("/v1/conversations", {"metadata": {"port": "Dover"}})
        items = f"/v1/conversations/{conversation}/items"
        first, second, deleted = (self._made(items, {"items": [TIDE]}, key) for key in ("first-berth", "two", "three"))
        deleted_conversation = self._made("/v1/conversations", {})
        for path in (f"{items}/{deleted}", f"/v1/conversations/{deleted_conversation}"):
            assert client.delete(path).status_code == 200
        self._ids = {
            "{conv}": conversation,
            "{item}": second,
            "{deleted_conv}": deleted_conversation,
            "{deleted_item}": deleted,
        }
        assert [each["id"] for each in self._all()[items]["data"]] == [second, first]
        self.stored = self._all()

    def _made(self, path: str, body: Any, key: str | None = None) -> str:
        response = self._client.post(path, json=body, headers={"idempotency-key": key} if key else {})
        made = response.json()
        return str(made["data"][0]["id"] if "data" in made else made["id"])

    def filled(self, value: Any) -> Any:
        """A value with ids in the place of their placeholders."""
        if isinstance(value, str):
            for placeholder, identifier in self._ids.items():
                value = value.replace(placeholder, identifier)
        elif isinstance(value, list):
            return [self.filled(each) for each in value]
        elif isinstance(value, Mapping):
            return {key: self.filled(each) for key, each in value.items()}
        return value

    def refused(self, verb: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, dict[str, str | None]]:
        """The status and the error that a request is answered with; nothing may have been stored."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(self.filled(body)).encode()
        sent = {"content-type": "application/json", **self.filled(headers)}
        response = self._client.request(verb, self.filled(path), content=raw, headers=sent)
        assert response.headers["content-type"] == "application/json"
        answer = response.json()
        assert list(answer) == ["error"]
        assert answer["error"].keys() == {"message", "type", "param", "code"}
        assert self._all() == self.stored
        return response.status_code, answer["error"]

    def _all(self) -> dict[str, Any]:
        """All that is stored, by the paths where it is found."""
        conversations = "/v1/x/conversations"
        found = {conversations: self._client.get(conversations).json()}
        for each in found[conversations]["data"]:
            items = f"/v1/conversations/{each['id']}/items"
            found[items] = self._client.get(items).json()
        return found


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """One for all rows: none of them changes anything."""
    settings = Settings(db=str(tmp_path_factory.mktemp("harbour") / "convgrpc.db"), grpc=FREE_PORT, http=FREE_PORT)
    with served(settings) as server, httpx.Client(base_url=f"http://{server.http}", timeout=30) as client:
        yield Harbour(client)


@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_a_bad_request_is_refused_in_the_words_of_the_api(harbour: Harbour, row: Row) -> None:
    """With its status, type, parameter and code; nothing is stored."""
    status, error = harbour.refused(row.verb, row.path, row.body, row.headers)
    assert (row.status, error) == (
        status,
        {
            "message": harbour.filled(row.message),
            "type": "invalid_request_error",
            "param": harbour.filled(row.param),
            "code": row.code,
        },
    )


def _conformance_rows() -> list[Any]:
    if not CONFORMANCE.exists():
        return []
    with CONFORMANCE.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        pytest.param(
            row,
            id=f"{row['n']}-{row['name']}",
            marks=[pytest.mark.xfail(reason=DISPUTED[row["n"]])] if row["n"] in DISPUTED else [],
        )
        for row in rows
    ]


@pytest.mark.skipif(not CONFORMANCE.exists(), reason="the conformance collection is not there")
@pytest.mark.parametrize("row", _conformance_rows())
def test_the_bad_requests_of_the_conformance_collection_are_refused(harbour: Harbour, row: dict[str, Any]) -> None:
    """Each as the collection says; its words count where they were recorded or reported."""
    path = f"{row['path']}?{row['query']}" if row["query"] else row["path"]
    body = row["raw_body"].encode() if row["raw_body"] is not None else row["body"]
    status, error = harbour.refused(row["method"], path, body, row["headers"] or {})
    expected = harbour.filled(row["expect"])
    assert status in (expected["status"] if isinstance(expected["status"], list) else [expected["status"]])
    assert {key: error[key] for key in ("type", "param", "code")} == {
        key: expected[key] for key in ("type", "param", "code")
    }
    assert error["message"]
    if expected["message"] and row["evidence"].startswith(("recorded", "report")):
        assert error["message"] == expected["message"]
