"""The schemas of tools, as they are read for a count."""

from collections.abc import Callable, Iterator

import pytest

from convgrpc.contract import json_text
from convgrpc.errors import DeadlineExceeded, InvalidArgument
from convgrpc.tokens.families import Models
from convgrpc.tokens.reading import CallLimits, Reader
from convgrpc.tokens.tools import count_tools, functions_of
from convgrpc.v1.tool_pb2 import FunctionTool, Tool
from tests.tokens.asking import encoding

FAMILY = Models().resolve("gpt-5").family
NUMBER = 20
LONG = '{"properties": {"a": {"type": "string", "description": "' + "fern " * 100_000 + '"}}}'


def tools(parameters: str, seen: Callable[[int], None]) -> Iterator[FunctionTool]:
    for number in range(NUMBER):
        seen(number)
        tool = FunctionTool(name=f"f{number}")
        tool.parameters.text = parameters
        yield tool


def test_call_that_ends_stops_the_reading_of_schemas() -> None:
    limits, read = CallLimits(), list[int]()

    def seen(number: int) -> None:
        read.append(number)
        if number == 3:
            limits.end()

    with pytest.raises(DeadlineExceeded):
        list(functions_of(tools("{}", seen), Reader(encoding("o200k_base"), limits)))
    assert read == [0, 1, 2, 3]


def test_schemas_that_come_to_too_much_text_are_read_up_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 schemas of half a mebibyte the first three are read."""
    loaded = list[int]()
    load = json_text.load

    def noted(text: str) -> object:
        loaded.append(len(text))
        return load(text)

    monkeypatch.setattr(json_text, "load", noted)
    given = [Tool(function=each) for each in tools(LONG, lambda number: None)]
    with pytest.raises(InvalidArgument, match="the schema of 'f2'"):
        list(count_tools(given, FAMILY, Reader(encoding("o200k_base"))))
    assert loaded == [len(LONG)] * 3
