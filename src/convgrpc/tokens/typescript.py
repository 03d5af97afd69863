"""Function tools as a model reads them: a namespace of TypeScript declarations, made of their JSON Schemas.

The text is such that it has as many tokens as what the model reads; it need not be the same character for character.
"""

import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

MAX_DEPTH = 100
"""How deeply they may be nested once their references are replaced."""

_BOUNDS = (
    "minimum",
    "maximum",
    "minLength",  # One source: braintrustdata/braintrust-sdk-javascript, 2 rows.
)
_SCALARS = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


class TooLarge(Exception):
    """Declarations come to too much text, or to more than `MAX_DEPTH`, once references are replaced: at this
    function.
    """


Charge: TypeAlias = Callable[[int], None]
"""Told of how many characters are written, where those of types within others count once for each; may raise."""


class Function(NamedTuple):
    """A function tool: its name, what it does, and the JSON Schema of its parameters."""

    name: str
    description: str
    parameters: Any


def namespace(name: str, functions: Iterable[Function], brace: str, charge: Charge) -> str:
    """The declarations of functions, in a namespace. Raises `TooLarge`, and what `charge` does."""
    declarations = "\n".join(_declaration(function, charge) for function in functions)
    return f"namespace {name}{brace}\n\n{declarations}\n}} // namespace {name}"


def _declaration(function: Function, charge: Charge) -> str:
    try:
        signature = _signature(function.parameters, charge)
    except TooLarge:
        raise TooLarge(function.name) from None
    return f"{_comment(function.description)}type {function.name} = {signature} => any;\n"


def _signature(parameters: Any, charge: Charge) -> str:
    if not isinstance(parameters, dict) or not _properties(parameters):
        return "()"
    body = _Types(parameters, charge).object(parameters)
    heading = _heading(parameters)
    return f"(_: {heading}{body})" if heading or body.startswith("{ ") else f"(_:{body})"


class _Types:
    """Makes types of the schemas in a document, whose references point into it."""

    def __init__(self, document: MutableMapping[str, Any], charge: Charge) -> None:
        self._document = document
        self._charge = charge
        self._open: set[str] = set()
        self._depth = 0

    def type(self, schema: Any) -> str:
        """The type of a schema, whatever that is."""
        with self._resolved(schema) as resolved:
            return self._type(resolved)

    def object(self, schema: MutableMapping[str, Any]) -> str:
        """The type of an object: in one line, unless there is something to say of a property."""
        required = _names(schema.get("required"))
        properties = [self._property(key, key in required, value) for key, value in _properties(schema).items()]
        if _fit_in_a_line(properties):
            return "{ " + ", ".join(f"{each.key}: {each.type}" for each in properties) + " }"
        lines = [f"{each.remark}{each.key}:{_spaced(each.type)},{each.trailer}\n" for each in properties]
        return "{\n" + "".join(lines) + _other_properties(schema) + "}"

    def _property(self, key: str, required: bool, schema: Any) -> "_Property":
        with self._resolved(schema) as resolved:
            remark = _heading(resolved) + _bounds(resolved)
            trailer = _default(resolved)
            self._charge(len(remark) + len(key) + len(trailer))
            return _Property(remark, key if required else f"{key}?", self._type(resolved), trailer)

    def _type(self, schema: MutableMapping[str, Any]) -> str:
        text = self._written(schema)
        self._charge(len(text) + 1)
        return text

    def _written(self, schema: MutableMapping[str, Any]) -> str:
        if isinstance(values := schema.get("enum"), list):
            return " | ".join(map(_json, values))
        if "const" in schema:
            return _json(schema["const"])
        for key in ("anyOf", "oneOf"):
            if isinstance(choices := schema.get(key), list):
                return " | ".join(map(self.type, choices))
        kind = schema.get("type")
        if isinstance(kind, list):
            names = (each if isinstance(each, str) else None for each in kind)
            return " | ".join(self._type(ChainMap({"type": each}, schema)) for each in names)
        if kind == "array":
            return self._array(schema.get("items"))
        if kind == "object":
            return self.object(schema) if _properties(schema) else "object"
        return _SCALARS.get(kind, "any") if isinstance(kind, str) else "any"

    def _array(self, items: Any) -> str:
        with self._resolved(items) as resolved:
            inner, heading = self._type(resolved), _heading(resolved)
        if "{" not in inner:
            return f"{inner}[]"
        return f"Array<\n{heading}{inner}>" if heading else f"Array<{inner}>"

    @contextmanager
    def _resolved(self, schema: Any) -> Iterator[MutableMapping[str, Any]]:
        """A schema on top of what it refers to; within itself, that is any value."""
        opened: list[str] = []
        layers: list[MutableMapping[str, Any]] = []
        self._depth += 1
        try:
            while isinstance(schema, dict):
                layers.append(schema)
                if self._depth + len(layers) > MAX_DEPTH:
                    raise TooLarge
                reference = schema.get("$ref")
                if not isinstance(reference, str) or reference in self._open:
                    break
                opened.append(reference)
                self._open.add(reference)
                schema = self._find(reference)
            yield layers[0] if len(layers) == 1 else ChainMap(*layers) if layers else {}
        finally:
            self._depth -= 1
            self._open.difference_update(opened)

    def _find(self, reference: str) -> Any:
        found: Any = self._document
        for step in filter(None, reference.removeprefix("#").split("/")):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


class _Property(NamedTuple):
    """What stands before a property, its name, its type, and what stands behind it."""

    remark: str
    key: str
    type: str
    trailer: str


def _fit_in_a_line(properties: Iterable[_Property]) -> bool:
    return not any(each.remark or each.trailer for each in properties)


def _other_properties(schema: MutableMapping[str, Any]) -> str:
    return "[k: string]: any,\n" if schema.get("additionalProperties") is True else ""


def _names(required: Any) -> set[str]:
    return {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()


def _properties(schema: MutableMapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _heading(schema: MutableMapping[str, Any]) -> str:
    return "".join(_comment(schema.get(key)) for key in ("title", "description"))


def _bounds(schema: MutableMapping[str, Any]) -> str:
    return "".join(
        f"// - {key}: {_json(bound)}\n" for key in _BOUNDS if isinstance(bound := schema.get(key), int | float)
    )


def _default(schema: MutableMapping[str, Any]) -> str:
    return f" // default: {_json(schema['default'])}" if "default" in schema else ""


def _comment(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        return ""
    return "".join(f"// {line.strip()}".rstrip() + "\n" for line in text.strip().splitlines())


def _spaced(type_: str) -> str:
    return type_ if type_.startswith("{") and not type_.startswith("{ ") else f" {type_}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
