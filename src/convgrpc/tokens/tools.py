"""Tools: what a model reads of those that it may call, and of the choice among them."""

from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from convgrpc.contract import json_text
from convgrpc.errors import schema_too_large
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import Family
from convgrpc.tokens.reading import Reader
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
    NamespaceMember,
    NamespaceTool,
    Tool,
    ToolSearchTool,
)

_SHORT = 128


class Count(NamedTuple):
    """Tokens for something in a request: the reason why they are an estimate, if they are, and its place."""

    tokens: int
    reason: EstimateReason.ValueType = ESTIMATE_REASON_UNSPECIFIED
    place: str = ""


def functions_of(tools: Iterable[FunctionTool], reader: Reader) -> Iterator[Function]:
    """Reads the schemas of function tools, one at a time. Raises what `Reader.check_time` does."""
    for tool in tools:
        reader.check_time()
        yield Function(tool.name, tool.description, json_text.load(tool.parameters.text or "null"))


def members_of(tools: Iterable[Tool]) -> Iterator[Tool | NamespaceMember]:
    """The tools, with those in namespaces in the places of these."""
    for tool in tools:
        if tool.HasField("namespace"):
            yield from tool.namespace.tools
        else:
            yield tool


def count_tools(tools: Sequence[Tool], family: Family, reader: Reader) -> Iterator[Count]:
    """What tools cost, but for the search of tools. Raises `InvalidArgument` for a schema that grows too large."""
    write = _Writer(family, reader)
    functions = [tool.function for tool in tools if tool.HasField("function") and not tool.function.defer_loading]
    if functions:
        yield Count(write.declared("functions", functions))
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        kind = tool.WhichOneof("tool")
        if kind == "custom":
            yield _custom(tool.custom, family, reader)._replace(place=place)
        elif kind == "namespace":
            yield _namespace(tool.namespace, family, reader, write)._replace(place=place)
        elif kind == "tool_search":
            if tool.tool_search.execution == TOOL_SEARCH_EXECUTION_CLIENT:
                yield _client_search(tool.tool_search, write)._replace(place=place)
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


def count_search(tools: Sequence[Tool], family: Family, loaded: Container[str]) -> Count:
    """What the search of tools costs, where functions of the names in `loaded` were found already."""
    for number, tool in enumerate(tools):
        if tool.HasField("tool_search") and tool.tool_search.execution != TOOL_SEARCH_EXECUTION_CLIENT:
            pending = [
                each for each in members_of(tools) if each.function.defer_loading and each.function.name not in loaded
            ]
            tokens = family.tool_search + family.deferred_function * len(pending) if pending else 0
            return Count(tokens, ESTIMATE_REASON_HOSTED_TOOL, f"tools[{number}]")
    return Count(0)


class _Writer:
    """Writes the declarations of a request's tools, which are bounded together."""

    def __init__(self, family: Family, reader: Reader) -> None:
        self._family = family
        self._reader = reader
        self._charge = reader.allowance()

    def declared(self, name: str, functions: Sequence[FunctionTool]) -> int:
        """The tokens of a namespace of functions."""
        try:
            text = namespace(name, functions_of(functions, self._reader), self._family.brace, self._charge)
        except TooLarge as error:
            raise schema_too_large("tools", str(error)) from error
        return self._family.functions + self._reader.count(text)


def _client_search(tool: ToolSearchTool, write: _Writer) -> Count:
    search = FunctionTool(name="tool_search", description=tool.description, parameters=tool.parameters)
    return Count(write.declared("tool_search", [search]), ESTIMATE_REASON_HOSTED_TOOL)


def _custom(tool: CustomTool, family: Family, reader: Reader) -> Count:
    tokens = reader.count(tool.name) + reader.count(tool.description)
    if tool.format.HasField("grammar"):
        tokens += family.custom_grammar + reader.count(tool.format.grammar.definition)
    else:
        tokens += family.custom_tool
    return Count(tokens, ESTIMATE_REASON_LITTLE_EVIDENCE)


def _namespace(tool: NamespaceTool, family: Family, reader: Reader, write: _Writer) -> Count:
    functions = [each.function for each in tool.tools if each.HasField("function") and not each.function.defer_loading]
    tokens = write.declared(tool.name, functions) if functions else 0
    tokens += reader.count(tool.description)
    tokens += sum(_custom(each.custom, family, reader).tokens for each in tool.tools if each.HasField("custom"))
    return Count(tokens, ESTIMATE_REASON_LITTLE_EVIDENCE)
