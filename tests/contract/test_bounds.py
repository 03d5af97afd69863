"""Bounds that the reference states: the contract has each of them, but for the exceptions that are listed here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from convgrpc.contract import options
from convgrpc.contract.validator import MAX_STRING_LENGTH
from convgrpc.v1 import content_pb2, conversation_pb2, input_tokens_service_pb2, item_pb2, tool_pb2

INVENTORY = Path(__file__).parents[2].parent / "shared" / "api" / "INVENTORY.md"

MESSAGES: dict[str, Descriptor] = {
    name: message
    for module in (content_pb2, conversation_pb2, input_tokens_service_pb2, item_pb2, tool_pb2)
    for name, message in module.DESCRIPTOR.message_types_by_name.items()
}

# The message of the contract for each schema of the reference.
SCHEMAS = {
    "ApplyPatchCreateFileOperationParam": "CreateFileOperation",
    "ApplyPatchDeleteFileOperationParam": "DeleteFileOperation",
    "ApplyPatchToolCallItemParam": "ApplyPatchCall",
    "ApplyPatchToolCallOutputItemParam": "ApplyPatchCallOutput",
    "ApplyPatchToolParam": "ApplyPatchTool",
    "ApplyPatchUpdateFileOperationParam": "UpdateFileOperation",
    "AutoCodeInterpreterToolParam": "AutoContainer",
    "CodeInterpreterTool": "CodeInterpreterTool",
    "CompactionSummaryItemParam": "Compaction",
    "ComputerCallOutputItemParam": "ComputerCallOutput",
    "ContainerAutoParam": "AutoContainerEnvironment",
    "ContainerNetworkPolicyAllowlistParam": "NetworkAllowlist",
    "ContainerNetworkPolicyDomainSecretParam": "DomainSecret",
    "CustomToolParam": "CustomTool",
    "FunctionCallOutputItemParam": "FunctionCallOutput",
    "FunctionShellCallItemParam": "ShellCall",
    "FunctionShellCallOutputContentParam": "ShellCommandOutput",
    "FunctionShellCallOutputItemParam": "ShellCallOutput",
    "FunctionShellToolParam": "ShellTool",
    "FunctionToolParam": "FunctionTool",
    "ImageGenTool": "ImageGenerationTool",
    "InlineSkillSourceParam": "Base64SkillSource",
    "InputFileContentParam": "InputFile",
    "InputImageContentParamAutoParam": "InputImage",
    "InputTextContentParam": "InputText",
    "LocalEnvironmentParam": "LocalEnvironment",
    "MCPTool": "McpTool",
    "NamespaceToolParam": "NamespaceTool",
    "ProgramItemParam": "Program",
    "ProgramOutputItemParam": "ProgramOutput",
    "ProgramToolCallCallerParam": "ProgramCaller",
    "SkillReferenceParam": "SkillReference",
    "ToolSearchCallItemParam": "ToolSearchCall",
    "ToolSearchOutputItemParam": "ToolSearchOutput",
}
RULES = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minItems": "min_items",
    "maxItems": "max_items",
    "minimum": "minimum",
    "maximum": "maximum",
}

EXCEPTIONS = {
    ("NamespaceToolParam", "tools", "minItems"): "the API returned namespaces without tools",
}
CALL_IDS = {"call_id", "caller_id"}
"""One bound serves all of them: the API returned ids of up to 1,324 characters."""

# Bounds that the reference states in words alone.
IN_WORDS: dict[tuple[str, str], dict[str, Any]] = {
    ("FileSearchTool", "max_num_results"): {"minimum": 1, "maximum": 50},
    ("RankingOptions", "score_threshold"): {"minimum": 0, "maximum": 1},
    ("FileSearchResult", "score"): {"minimum": 0, "maximum": 1},
    ("JsonSchemaFormat", "name"): {"max_length": 64, "pattern": "^[a-zA-Z0-9_-]+$"},
    ("WebSearchLocation", "country"): {"pattern": "^[a-zA-Z]{2}$"},
    ("WebSearchPreviewLocation", "country"): {"pattern": "^[a-zA-Z]{2}$"},
    ("WebSearchFilters", "allowed_domains"): {"max_items": 100},
    ("WebSearchFilters", "blocked_domains"): {"max_items": 100},
    ("CountInputTokensRequest", "personality"): {"max_length": 64},
}


def stated() -> Iterator[tuple[str, str, str, Any]]:
    """The schema, the key, the rule and the value of each bound in the reference's published schema."""
    section = INVENTORY.read_text(encoding="utf-8").partition("\n## E.")[2]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 3 or cells[0] not in SCHEMAS:
            continue
        for rule, value in json.loads(cells[2]).items():
            if rule in RULES and isinstance(value, int | str):
                yield cells[0], cells[1].strip("`"), rule, value


def bound(field: FieldDescriptor, rule: str) -> Any:
    """The contract's own bound of a field; a string without one has the general one."""
    value = getattr(options.field_options(field), RULES[rule])
    return MAX_STRING_LENGTH if rule == "maxLength" and not value else value


@pytest.mark.skipif(not INVENTORY.exists(), reason="the inventory of the reference is not there")
def test_bound_of_the_published_schema_is_in_the_contract() -> None:
    found = list(stated())
    assert len(found) > 50
    differing = {
        (schema, key, rule): (value, bound(MESSAGES[SCHEMAS[schema]].fields_by_name[key], rule))
        for schema, key, rule, value in found
        if key in MESSAGES[SCHEMAS[schema]].fields_by_name and key not in CALL_IDS
    }
    wrong = {place for place, (expected, actual) in differing.items() if expected != actual}
    assert wrong == EXCEPTIONS.keys()


@pytest.mark.parametrize(("message", "key"), IN_WORDS)
def test_bound_stated_in_words_is_in_the_contract(message: str, key: str) -> None:
    rules = options.field_options(MESSAGES[message].fields_by_name[key])
    assert {name: getattr(rules, name) for name in IN_WORDS[message, key]} == IN_WORDS[message, key]


def test_call_ids_have_one_bound() -> None:
    fields = [field for message in MESSAGES.values() for field in message.fields if field.name in CALL_IDS]
    assert len(fields) > 15
    assert {(options.field_options(f).min_length, options.field_options(f).max_length) for f in fields} == {(1, 4096)}
