"""Tools: what a model reads of those that it may call, and of the choice among them."""

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from convgrpc.errors import schema_too_large
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import Family
from convgrpc.tokens.typescript import Function, TooLarge, namespace
from convgrpc.v1.input_tokens_service_pb2 import EstimateReason, ToolChoice, ToolChoiceMode
from convgrpc.v1.tool_pb2 import CustomTool, FunctionTool, Tool, ToolSearchExecution, ToolSearchTool


class Count(NamedTuple):
    """Tokens for something in a request: the reason why they are an estimate, if they are, and its place."""

    tokens: int
    reason: EstimateReason.ValueType = EstimateReason.ESTIMATE_REASON_UNSPECIFIED
    place: str = ""


def functions_of(tools: Iterable[FunctionTool]) -> list[Function]:
    return [Function(tool.name, tool.description, json.loads(tool.parameters.text or "null")) for tool in tools]


def count_tools(tools: Sequence[Tool], family: Family, encoding: Encoding, loaded: Container[str]) -> Iterator[Count]:
    """What tools cost, where functions of the names in `loaded` were found by a search.

    Raises `InvalidArgument` for a schema that grows too large.
    """
    functions = [tool.function for tool in tools if tool.HasField("function") and not tool.function.defer_loading]
    if functions:
        yield Count(family.functions + encoding.count(_declared("functions", functions, family)))
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        kind = tool.WhichOneof("tool")
        if kind == "custom":
            yield _custom(tool.custom, family, encoding)._replace(place=place)
        elif kind == "namespace":
            yield _namespace(tool, family, encoding)._replace(place=place)
        elif kind == "tool_search":
            tokens = _search(tool.tool_search, tools, family, encoding, loaded)
            yield Count(tokens, EstimateReason.ESTIMATE_REASON_HOSTED_TOOL, place)
        elif kind != "function":
            tokens = family.hosted.get(kind or "", family.hosted_default)
            yield Count(tokens, EstimateReason.ESTIMATE_REASON_HOSTED_TOOL, place)


def count_choice(choice: ToolChoice, tools: Sequence[Tool], family: Family, encoding: Encoding) -> int:
    """What it costs to say which tools the model must or must not call."""
    functions = [tool.function.name for tool in tools if tool.WhichOneof("tool") == "function"]
    if not functions:
        return 0
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_NONE:
        return family.no_function
    forced = choice.function.name
    if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED and len(tools) == 1:
        forced = functions[0]
    if not forced or family.forced_function is None:
        return 0
    return family.forced_function + name_tokens(forced, encoding)


def name_tokens(name: str, encoding: Encoding) -> int:
    """The tokens of a function's name where it is called: behind that of its namespace."""
    return encoding.count(f".{name}")


def _declared(name: str, functions: Sequence[FunctionTool], family: Family) -> str:
    try:
        return namespace(name, functions_of(functions), family.brace)
    except TooLarge as error:
        raise schema_too_large("tools") from error


def _search(
    tool: ToolSearchTool, tools: Sequence[Tool], family: Family, encoding: Encoding, loaded: Container[str]
) -> int:
    if tool.execution == ToolSearchExecution.TOOL_SEARCH_EXECUTION_CLIENT:
        search = FunctionTool(name="tool_search", description=tool.description, parameters=tool.parameters)
        return family.functions + encoding.count(_declared("tool_search", [search], family))
    pending = [tool for tool in tools if tool.function.defer_loading and tool.function.name not in loaded]
    return family.tool_search + family.deferred_function * len(pending) if pending else 0


def _custom(tool: CustomTool, family: Family, encoding: Encoding) -> Count:
    tokens = encoding.count(tool.name) + encoding.count(tool.description)
    if tool.format.HasField("grammar"):
        tokens += family.custom_grammar + encoding.count(tool.format.grammar.definition)
    else:
        tokens += family.custom_tool
    return Count(tokens, EstimateReason.ESTIMATE_REASON_LITTLE_EVIDENCE)


def _namespace(tool: Tool, family: Family, encoding: Encoding) -> Count:
    members = tool.namespace
    functions = [each.function for each in members.tools if each.HasField("function")]
    tokens = family.functions + encoding.count(_declared(members.name, functions, family))
    tokens += encoding.count(members.description)
    tokens += sum(_custom(each.custom, family, encoding).tokens for each in members.tools if each.HasField("custom"))
    return Count(tokens, EstimateReason.ESTIMATE_REASON_LITTLE_EVIDENCE)
