"""Tools: what a model reads of those that it may call, and of the choice among them."""

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from convgrpc.errors import schema_too_large
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import Family
from convgrpc.tokens.typescript import Function, TooLarge, namespace
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_HOSTED_TOOL,
    ESTIMATE_REASON_LITTLE_EVIDENCE,
    ESTIMATE_REASON_UNSPECIFIED,
    TOOL_CHOICE_MODE_NONE,
    TOOL_CHOICE_MODE_REQUIRED,
    EstimateReason,
    ToolChoice,
)
from convgrpc.v1.tool_pb2 import (
    TOOL_SEARCH_EXECUTION_CLIENT,
    CustomTool,
    FunctionTool,
    Tool,
    ToolSearchTool,
)

_SHORT = 128


class Count(NamedTuple):
    """Tokens for something in a request: the reason why they are an estimate, if they are, and its place."""

    tokens: int
    reason: EstimateReason.ValueType = ESTIMATE_REASON_UNSPECIFIED
    place: str = ""


def functions_of(tools: Iterable[FunctionTool]) -> list[Function]:
    return [Function(tool.name, tool.description, json.loads(tool.parameters.text or "null")) for tool in tools]


def count_tools(tools: Sequence[Tool], family: Family, encoding: Encoding) -> Iterator[Count]:
    """What tools cost, but for the search of tools. Raises `InvalidArgument` for a schema that grows too large."""
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
            if tool.tool_search.execution == TOOL_SEARCH_EXECUTION_CLIENT:
                yield _client_search(tool.tool_search, family, encoding)._replace(place=place)
        elif kind != "function":
            tokens = family.hosted.get(kind or "", family.hosted_default)
            yield Count(tokens, ESTIMATE_REASON_HOSTED_TOOL, place)


def count_choice(choice: ToolChoice, tools: Sequence[Tool], family: Family, encoding: Encoding) -> int:
    """What it costs to say which tools the model must or must not call."""
    functions = [tool.function.name for tool in tools if tool.WhichOneof("tool") == "function"]
    if not functions:
        return 0
    if choice.mode == TOOL_CHOICE_MODE_NONE:
        return family.no_function
    forced = choice.function.name
    if choice.mode == TOOL_CHOICE_MODE_REQUIRED and len(tools) == 1:
        forced = functions[0]
    if not forced or family.forced_function is None:
        return 0
    return family.forced_function + name_tokens(forced, encoding)


def name_tokens(name: str, encoding: Encoding) -> int:
    """The tokens of a function's name where it is called: behind that of its namespace."""
    return _short_name_tokens(name, encoding) if len(name) <= _SHORT else encoding.count(f".{name}")


@lru_cache(maxsize=4096)
def _short_name_tokens(name: str, encoding: Encoding) -> int:
    return encoding.count(f".{name}")


def _declared(name: str, functions: Sequence[FunctionTool], family: Family) -> str:
    try:
        return namespace(name, functions_of(functions), family.brace)
    except TooLarge as error:
        raise schema_too_large("tools") from error


def count_search(tools: Sequence[Tool], family: Family, loaded: Container[str]) -> Count:
    """What the search of tools costs, where functions of the names in `loaded` were found already."""
    for number, tool in enumerate(tools):
        if tool.HasField("tool_search") and tool.tool_search.execution != TOOL_SEARCH_EXECUTION_CLIENT:
            pending = [each for each in tools if each.function.defer_loading and each.function.name not in loaded]
            tokens = family.tool_search + family.deferred_function * len(pending) if pending else 0
            return Count(tokens, ESTIMATE_REASON_HOSTED_TOOL, f"tools[{number}]")
    return Count(0)


def _client_search(tool: ToolSearchTool, family: Family, encoding: Encoding) -> Count:
    search = FunctionTool(name="tool_search", description=tool.description, parameters=tool.parameters)
    tokens = family.functions + encoding.count(_declared("tool_search", [search], family))
    return Count(tokens, ESTIMATE_REASON_HOSTED_TOOL)


def _custom(tool: CustomTool, family: Family, encoding: Encoding) -> Count:
    tokens = encoding.count(tool.name) + encoding.count(tool.description)
    if tool.format.HasField("grammar"):
        tokens += family.custom_grammar + encoding.count(tool.format.grammar.definition)
    else:
        tokens += family.custom_tool
    return Count(tokens, ESTIMATE_REASON_LITTLE_EVIDENCE)


def _namespace(tool: Tool, family: Family, encoding: Encoding) -> Count:
    members = tool.namespace
    functions = [each.function for each in members.tools if each.HasField("function")]
    tokens = family.functions + encoding.count(_declared(members.name, functions, family))
    tokens += encoding.count(members.description)
    tokens += sum(_custom(each.custom, family, encoding).tokens for each in members.tools if each.HasField("custom"))
    return Count(tokens, ESTIMATE_REASON_LITTLE_EVIDENCE)
