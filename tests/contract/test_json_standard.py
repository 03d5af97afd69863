"""JSON without orjson: the same values, and the same refusals."""

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgrpc.contract import json_standard, json_text
from convgrpc.contract.encoder import dump, to_dict
from convgrpc.errors import InvalidArgument
from convgrpc.v1.content_pb2 import Json

from .corpus import ROWS
from .test_codec import decoded

TEXTS: list[bytes] = [
    b"{}", b'{"b":1,"a":2}', b" [1, 2.0, -0, -0.0, 1E5, 1e-400, true, false, null]\r\n\t", b'"\xc3\xa9\xf0\x9f\x98\x80"',
    b'"\\ud83d\\ude00\\u0000\\/\\b"', b"9223372036854775808", b"-9223372036854775809", b"123456789012345678901234567890",
    b'{"a":18446744073709551616}', b"9" * 300, b"9" * 400, b"1" + b"0" * 5000, b"1e308", b"1e309", b"-1e309", b"0.1",
    b'"\\ud800"', b'{"\\ud800":1}', b'["\xed\xa0\x80"]', b'"\xff"', b"\xef\xbb\xbf1", b"1".decode().encode("utf-16"),
    b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b".5", b"+1", b"-", b"", b" ", b"[1,]", b"{,}", b"{'a':1}",
    b'"a\nb"', b'"\x7f"', b"1 2", b"tru", b"[", b"{", b'"', b'{"a":1,"a":2}', b'{"a\\"":1,"b":{"c":1,"c":2}}',
    b"[" * 64 + b"]" * 64, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 5000,
    b'"' + b"[" * 5000 + b'"', b'"\\"' + b"[{" * 5000 + b'"', b"[[]," * 2000,
]  # fmt: skip


@pytest.fixture
def standard() -> Iterator[pytest.MonkeyPatch]:
    """Has JSON be read and written as where orjson is not installed, once asked for."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def outcome(text: bytes) -> Any:
    try:
        return repr(json_text.parse(text))
    except InvalidArgument as refusal:
        return refusal.reason, refusal.message


@pytest.mark.parametrize("text", TEXTS, ids=[str(text[:20]) for text in TEXTS])
def test_texts_are_read_alike(text: bytes, standard: pytest.MonkeyPatch) -> None:
    """`repr` tells 1 from 1.0 and true, and the order of keys."""
    expected = outcome(text)
    standard.setattr(json_text, "orjson", json_standard)
    assert outcome(text) == expected


def test_the_depth_is_bounded_whatever_python_can_do(standard: pytest.MonkeyPatch) -> None:
    """Where its own limit is higher, that of orjson counts."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        text = b"[" * 1025 + b"]" * 1025
        expected = outcome(text)
        standard.setattr(json_text, "orjson", json_standard)
        assert outcome(text) == expected
    finally:
        sys.setrecursionlimit(limit)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(VALUES)
def test_values_are_written_alike(value: Any) -> None:
    """But for the spelling of numbers with an exponent; and what one writes the other reads."""
    with pytest.MonkeyPatch.context() as patch:
        expected = json_text.dump(value)
        read = repr(json_text.parse(expected.encode()))
        patch.setattr(json_text, "orjson", json_standard)
        text = json_text.dump(value)
        assert repr(json_text.parse(expected.encode())) == read == repr(json_text.parse(text.encode()))
    if not re.search(r"\de[+-]", text):
        assert text == expected


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a", 2**64, -(2**63) - 1]], ids=ascii)
def test_what_orjson_does_not_write_is_written_alike(value: Any, standard: pytest.MonkeyPatch) -> None:
    expected = json_text.dump(value)
    standard.setattr(json_text, "orjson", json_standard)
    assert json_text.dump(value) == expected


def test_items_are_encoded_alike(standard: pytest.MonkeyPatch) -> None:
    """The whole corpus, with free-form JSON spliced in."""
    items = [decoded(row.value) for row in ROWS]
    assert any(b"input_schema" in dump(item) for item in items)
    expected = [(repr(to_dict(item)), json_text.parse(dump(item))) for item in items]
    standard.setattr(json_text, "orjson", json_standard)
    standard.setattr(json_text, "Fragment", json_standard.Fragment)
    assert [(repr(to_dict(item)), json_text.parse(dump(item))) for item in items] == expected


def test_free_form_json_that_is_none_is_refused() -> None:
    """By either: a message may hold any text until a server looks at it."""
    message = Json(text="{")
    with pytest.raises(InvalidArgument):
        to_dict(message)
