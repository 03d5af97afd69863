"""How much JSON text may say, whatever its size."""

import json

import pytest

from convgrpc.contract import json_text
from convgrpc.errors import ConvgrpcError, InvalidArgument, ResourceExhausted


@pytest.fixture(autouse=True)
def _few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that texts of a line reach."""
    monkeypatch.setattr(json_text, "MAX_VALUES", 5)
    monkeypatch.setattr(json_text, "_WINDOW", 8)


@pytest.mark.parametrize(
    "text", [b"[1,1,1,1]", b'{"a":{"b":[[]]}}', b'[",,,,,","[[[[[","{{{{{"]', b'["\\",\\",[{[{\\\\",1]']
)
def test_commas_and_brackets_in_strings_are_no_values(text: bytes) -> None:
    assert json_text.parse(text) == json.loads(text)


@pytest.mark.parametrize(
    "text", [b"[1,1,1,1,1]", b"[[[[[]]]]]", b'[{},{},"a"]', b'["\\\\",1,"\\"",1,""]', b"[[[[[", b',,,,,"']
)
def test_too_many_values_are_refused(text: bytes) -> None:
    """Be it JSON or not: before it is looked at as such."""
    with pytest.raises(ResourceExhausted, match="at most 5 values"):
        json_text.parse(text)


@pytest.mark.parametrize("text", [b'[1,1,1,"1,1', b'[1,1,1,"1,1\\', b'[1,1,1,"1,1\\"', b'"\\"\\', b""])
def test_a_string_without_an_end_is_no_json(text: bytes) -> None:
    with pytest.raises(ConvgrpcError, match="failed to parse"):
        json_text.parse(text)


def test_what_stands_where_two_windows_meet_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key twice, and a number that must stay exact, wherever they are."""
    monkeypatch.setattr(json_text, "MAX_VALUES", 100)
    for space in range(20):
        number = b'{"a":' + b" " * space + b'12345678901234567890123,"b" : 1}'
        assert json_text.parse(number) == {"a": 12345678901234567890123, "b": 1}
        with pytest.raises(ConvgrpcError, match="key"):
            json_text.parse(b'{"a":' + b" " * space + b'1,"b":2,"a" : 3}')


@pytest.mark.parametrize("blanks", range(0, 60, 3))
@pytest.mark.parametrize("start", range(8))
def test_key_that_is_there_twice_is_found_wherever_it_is(blanks: int, start: int) -> None:
    """Also where the white space behind it goes on for longer than is looked at in one go."""
    text = " " * start + '{"a"' + " " * blanks + ':1,"a":2}'
    with pytest.raises(InvalidArgument, match="stands twice"):
        json_text.parse(text.encode())
    text = text.replace('"a":2', '"b":2')
    assert json_text.parse(text.encode()) == {"a": 1, "b": 2}
