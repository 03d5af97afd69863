"""JSON Schemas as the text that a model reads."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgrpc.tokens.reading import Reader, WouldWait
from convgrpc.tokens.typescript import Function, TooLarge, namespace
from tests.tokens.asking import encoding

Schema = dict[str, Any]


def allowance() -> Callable[[int], None]:
    """What a request may come to."""
    return Reader(encoding("o200k_base")).allowance()


def written(parameters: Any, description: str = "") -> str:
    """The declarations of one function, without what stands around them."""
    text = namespace("functions", [Function("f", description, parameters)], "{", allowance())
    head, tail = "namespace functions{\n\n", "\n} // namespace functions"
    assert text.startswith(head)
    assert text.endswith(tail)
    return text.removeprefix(head).removesuffix(tail)


def of(*required: str, defs: Any = None, more: Schema | None = None, **properties: Any) -> Schema:
    """The schema of an object."""
    schema = {"type": "object", "properties": properties, "required": list(required), **(more or {})}
    return schema if defs is None else {**schema, "$defs": defs}


def refers(name: str, **beside: Any) -> Schema:
    return {"$ref": f"#/$defs/{name}", **beside}


STRING = {"type": "string"}
NUMBER = {"type": "integer"}
TREE = {"type": "object", "properties": {"leaf": STRING, "left": refers("tree"), "right": refers("tree")}}

SIGNATURES: dict[str, tuple[Any, str]] = {
    "no parameters": (None, "()"),
    "parameters that are no object": ([1], "()"),
    "an object without properties": ({"type": "object", "properties": {}}, "()"),
    "properties that are no object": ({"type": "object", "properties": ["a"]}, "()"),
    "a required property": (of("city", city=STRING), "(_: { city: string })"),
    "an optional property": (of(city=STRING), "(_: { city?: string })"),
    "several properties in one line": (of("a", a=STRING, b=NUMBER), "(_: { a: string, b?: number })"),
    "every plain type": (
        of(
            "a",
            "b",
            "c",
            "d",
            "e",
            "f",
            a=STRING,
            b=NUMBER,
            c={"type": "number"},
            d={"type": "boolean"},
            e={"type": "null"},
            f={},
        ),
        "(_: { a: string, b: number, c: number, d: boolean, e: null, f: any })",
    ),
    "a type of another making": (of("a", a={"type": "date"}), "(_: { a: any })"),
    "a title": (of("a", a={**STRING, "title": "City"}), "(_:{\n// City\na: string,\n})"),
    "a title before a description": (
        of("a", "b", a={"description": "Where.", "title": "City", **STRING}, b=NUMBER),
        "(_:{\n// City\n// Where.\na: string,\nb: number,\n})",
    ),
    "a description of several lines": (
        of("a", a={**STRING, "description": "  One \n\n  two\n"}),
        "(_:{\n// One\n//\n// two\na: string,\n})",
    ),
    "an empty description": (of("a", a={**STRING, "description": "", "title": "  "}), "(_: { a: string })"),
    "a default": (of(a={**STRING, "default": "celsius"}), '(_:{\na?: string, // default: "celsius"\n})'),
    "a default of null": (of(a={**STRING, "default": None}), "(_:{\na?: string, // default: null\n})"),
    "an object as default": (of(a={"default": {"é": [1, 2]}}), '(_:{\na?: any, // default: {"é": [1, 2]}\n})'),
    "bounds": (
        of("a", a={**NUMBER, "maximum": 255, "minimum": 0}),
        "(_:{\n// - minimum: 0\n// - maximum: 255\na: number,\n})",
    ),
    "a bound after a description": (
        of("a", a={"type": "number", "description": "How much.", "maximum": 1.5}),
        "(_:{\n// How much.\n// - maximum: 1.5\na: number,\n})",
    ),
    "a least length": (of("a", a={**STRING, "minLength": 2}), "(_:{\n// - minLength: 2\na: string,\n})"),
    "a least length before a default": (
        of(a={**STRING, "default": "", "minLength": 0, "description": "Who."}),
        '(_:{\n// Who.\n// - minLength: 0\na?: string, // default: ""\n})',
    ),
    "a least length that is no number": (of("a", a={**STRING, "minLength": "2"}), "(_: { a: string })"),
    "keywords that are not read": (
        of("a", a={**STRING, "format": "email", "pattern": "x", "maxLength": 1, "exclusiveMinimum": 3}),
        "(_: { a: string })",
    ),
    "bounds that are no numbers": (of("a", a={**NUMBER, "minimum": "0", "maximum": None}), "(_: { a: number })"),
    "words to choose from": (of("a", a={**STRING, "enum": ["x", "é"]}), '(_: { a: "x" | "é" })'),
    "values of all types to choose from": (
        of("a", a={"enum": [1, None, True, "x"]}),
        '(_: { a: 1 | null | true | "x" })',
    ),
    "a constant": (of("a", a={"const": "x"}), '(_: { a: "x" })'),
    "a constant of null": (of("a", a={"const": None}), "(_: { a: null })"),
    "a list of types": (of("a", a={"type": ["string", "null"]}), "(_: { a: string | null })"),
    "any of several": (of("a", a={"anyOf": [STRING, {"type": "null"}]}), "(_: { a: string | null })"),
    "one of several": (of("a", a={"oneOf": [NUMBER, of(b=STRING)]}), "(_: { a: number | { b?: string } })"),
    "an array": (of("a", a={"type": "array", "items": STRING}), "(_: { a: string[] })"),
    "an array of anything": (of("a", a={"type": "array"}), "(_: { a: any[] })"),
    "an array of arrays": (
        of("a", a={"type": "array", "items": {"type": "array", "items": NUMBER}}),
        "(_: { a: number[][] })",
    ),
    "an array of objects": (
        of("a", a={"type": "array", "items": of("b", b=STRING)}),
        "(_: { a: Array<{ b: string }> })",
    ),
    "an array of objects with a title": (
        of("a", a={"type": "array", "items": of("b", b=STRING, more={"title": "Bee", "description": "Buzz."})}),
        "(_: { a: Array<\n// Bee\n// Buzz.\n{ b: string }> })",
    ),
    "an array of objects with comments": (
        of("a", a={"type": "array", "items": of("b", b={**STRING, "title": "B"})}),
        "(_: { a: Array<{\n// B\nb: string,\n}> })",
    ),
    "an object in one line": (of("a", a=of("b", b=NUMBER)), "(_: { a: { b: number } })"),
    "an object with comments": (
        of("a", a=of("b", b={**NUMBER, "title": "B"}, more={"title": "A"})),
        "(_:{\n// A\na:{\n// B\nb: number,\n},\n})",
    ),
    "an object in one line within one with comments": (
        of("a", a=of("b", b=NUMBER, more={"title": "A"})),
        "(_:{\n// A\na: { b: number },\n})",
    ),
    "an object without properties in another": (of("a", a={"type": "object"}), "(_: { a: object })"),
    "a title of all": (of("a", a=NUMBER, more={"title": "T", "description": "D"}), "(_: // T\n// D\n{ a: number })"),
    "a title of all and one within": (
        of("a", a={**NUMBER, "title": "A"}, more={"title": "T"}),
        "(_: // T\n{\n// A\na: number,\n})",
    ),
    "more properties": (
        of("a", a={**NUMBER, "title": "A"}, more={"additionalProperties": True}),
        "(_:{\n// A\na: number,\n[k: string]: any,\n})",
    ),
    "no more properties": (
        of("a", a={**NUMBER, "title": "A"}, more={"additionalProperties": False}),
        "(_:{\n// A\na: number,\n})",
    ),
    "more properties of a type": (
        of("a", a={**NUMBER, "title": "A"}, more={"additionalProperties": STRING}),
        "(_:{\n// A\na: number,\n})",
    ),
    "a reference": (of("a", a=refers("s"), defs={"s": STRING}), "(_: { a: string })"),
    "a reference to what has a title": (
        of("a", a=refers("s"), defs={"s": {**STRING, "title": "S", "description": "D"}}),
        "(_:{\n// S\n// D\na: string,\n})",
    ),
    "what stands beside a reference": (
        of(a=refers("s", description="Mine.", default="x"), defs={"s": {**STRING, "title": "S", "description": "D"}}),
        '(_:{\n// S\n// Mine.\na?: string, // default: "x"\n})',
    ),
    "a reference to a reference": (
        of("a", a=refers("s"), defs={"s": refers("t", title="S"), "t": NUMBER}),
        "(_:{\n// S\na: number,\n})",
    ),
    "two references to the same": (
        of("a", "b", a=refers("s"), b=refers("s"), defs={"s": STRING}),
        "(_: { a: string, b: string })",
    ),
    "an array of references": (
        of("a", a={"type": "array", "items": refers("s")}, defs={"s": of("b", b=STRING, more={"title": "S"})}),
        "(_: { a: Array<\n// S\n{ b: string }> })",
    ),
    "a reference to itself": (of("a", a=refers("s"), defs={"s": refers("s")}), "(_: { a: any })"),
    "references in a circle": (
        of("a", a=refers("s"), defs={"s": refers("t"), "t": refers("s")}),
        "(_: { a: any })",
    ),
    "a tree": (
        of("a", a=refers("tree"), defs={"tree": TREE}),
        "(_: { a: { leaf?: string, left?: any, right?: any } })",
    ),
    "a tree beside another": (
        of("a", "b", a={"type": "array", "items": refers("tree")}, b=refers("tree"), defs={"tree": TREE}),
        "(_: { a: Array<{ leaf?: string, left?: any, right?: any }>, b: { leaf?: string, left?: any, right?: any } })",
    ),
    "a reference to all": (
        of("a", "b", a={"$ref": "#"}, b=STRING),
        "(_: { a: { a: any, b: string }, b: string })",
    ),
    "references to nowhere": (
        of("a", "b", "c", a=refers("s"), b={"$ref": "https://ferns.example"}, c={"$ref": "#/properties/a/$ref/x"}),
        "(_: { a: any, b: any, c: any })",
    ),
    "a reference to what is no schema": (
        of("a", "b", a={"$ref": "#/required"}, b=refers("s", type="string"), defs={"s": 3}),
        "(_: { a: any, b: string })",
    ),
    "a reference that is no text": (of("a", a={"$ref": 3, "type": "string"}), "(_: { a: string })"),
    "a reference with signs that are spelled otherwise": (
        of("a", a=refers("x~1y~0z"), defs={"x/y~z": STRING}),
        "(_: { a: string })",
    ),
    "what is no schema": (
        of("a", "b", a=None, b=[STRING], c=True, d="string"),
        "(_: { a: any, b: any, c?: any, d?: any })",
    ),
    "keywords with values of other types": (
        {
            "type": "object",
            "properties": {
                "a": {"type": 3, "title": 1, "description": ["x"], "enum": "x", "anyOf": {}, "oneOf": 1, "items": 3}
            },
            "required": "a",
            "title": {},
        },
        "(_: { a?: any })",
    ),
    "required names that are none": (of("a", a=STRING, more={"required": [{}, None, "a"]}), "(_: { a: string })"),
    "items that are no schema": (of("a", a={"type": "array", "items": [STRING]}), "(_: { a: any[] })"),
    "lists of types within lists": (of("a", a={"type": [["string"], None]}), "(_: { a: any | any })"),
}


@pytest.mark.parametrize(("schema", "signature"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_schema_is_written_as_a_type(schema: Any, signature: str) -> None:
    """To the letter."""
    assert written(schema) == f"type f = {signature} => any;\n"


def test_functions_stand_in_a_namespace() -> None:
    """With a line between them, each after its description."""
    functions = [Function("a", " One.\n two. ", None), Function("b", "", of("c", c=STRING))]
    assert namespace("garden", functions, " {", allowance()) == (
        "namespace garden {\n\n// One.\n// two.\ntype a = () => any;\n\ntype b = (_: { c: string }) => any;\n\n} // namespace garden"
    )


def doubling(levels: int, **more: Any) -> Schema:
    """A schema that says twice, at each level, what the next one says."""
    defs = {f"d{n}": of("a", "b", a=refers(f"d{n + 1}"), b=refers(f"d{n + 1}"), more=more) for n in range(levels)}
    return of("a", a=refers("d0"), defs={**defs, f"d{levels}": {**STRING, **more}})


def test_what_doubles_at_each_level_is_refused() -> None:
    """Long before all of it is written."""
    started = time.process_time()
    with pytest.raises(TooLarge):
        written(doubling(40))
    assert time.process_time() - started < 5


def test_what_doubles_a_few_times_is_written() -> None:
    """It is only as large as it says."""
    assert written(doubling(10)).count("string") == 1024


def test_tools_are_bounded_together() -> None:
    """Of many that are large, the one with which it is too much is named."""
    functions = [Function(f"f{n}", "", doubling(11)) for n in range(100)]
    assert namespace("functions", functions[:2], "{", allowance()).count("string") == 2 * 2048
    with pytest.raises(TooLarge, match=r"^f\d+$"):
        namespace("functions", functions, "{", allowance())


def test_what_is_too_much_at_once_is_written_beside() -> None:
    """A reader that may not wait says so before it has written much."""
    with pytest.raises(WouldWait):
        namespace(
            "functions",
            [Function("f", "", doubling(11))],
            "{",
            Reader(encoding("o200k_base"), may_wait=False).allowance(),
        )


def test_a_long_text_that_many_refer_to_is_refused() -> None:
    """A schema must not grow a thousandfold by what it refers to, however few types that are."""
    schema = doubling(11, description="fern " * 1600)
    try:
        length = len(written(schema))
    except TooLarge:
        return
    assert length < 100 * len(str(schema))


def nested(levels: int) -> Schema:
    inner: Schema = STRING
    for _ in range(levels):
        inner = of("a", a=inner)
    return of("a", a=inner)


def test_deep_schemas_are_written() -> None:
    """As deep as the contract lets JSON be, and deeper."""
    assert written(nested(64)).count("{ a: ") == 65


CHAINS: dict[str, Any] = {
    "reference": lambda following: following,
    "array": lambda following: {"type": "array", "items": following},
    "property": lambda following: of("a", a=following),
    "choice": lambda following: {"anyOf": [following]},
}


@pytest.mark.parametrize("link", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("length", [60, 5000])
def test_a_chain_of_definitions_is_an_answer_or_too_large(link: Any, length: int) -> None:
    """However long it is, although its JSON is not deep; one that could as well be nested JSON is an answer."""
    defs = {f"d{n}": link(refers(f"d{n + 1}")) for n in range(length)}
    try:
        text = written(of("a", a=refers("d0"), defs={**defs, f"d{length}": STRING}))
    except TooLarge:
        assert length > 64
    else:
        assert "string" in text


def test_a_large_bound_is_written() -> None:
    """Of as many digits as the contract lets numbers have."""
    text = written(of("a", a={**NUMBER, "minimum": 10**300}))
    assert text == f"type f = (_:{{\n// - minimum: {10**300}\na: number,\n}}) => any;\n"


KEYS = ["type", "properties", "items", "enum", "const", "anyOf", "oneOf", "$ref", "required", "title", "description"]
KEYS += ["default", "minimum", "maximum", "additionalProperties", "$defs", "a"]
WORDS = ["string", "object", "array", "null", "#", "#/$defs/a", "#/properties/a", "#/properties/a/items", "a", ""]
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(JUNK, JUNK, JUNK)
def test_junk_is_written_or_too_large(first: Any, second: Any, third: Any) -> None:
    """Whatever a schema holds, in whichever place."""
    try:
        text = written({"type": "object", "properties": {"a": first, "b": second}, "$defs": {"a": third}})
    except TooLarge:
        return
    assert text.startswith("type f = (_:")
