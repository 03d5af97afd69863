"""Response formats: what a model reads of the schema that its answer must follow."""

import json
from typing import Any

from convgrpc.contract import json_text
from convgrpc.tokens.families import Family
from convgrpc.tokens.reading import Reader
from convgrpc.v1.input_tokens_service_pb2 import ResponseTextFormat

# Keywords of JSON Schema that the model does not read: they bind what it may write, without its knowing.
_UNREAD = frozenset(
    [
        "required",
        "additionalProperties",
        "$schema",
        "minLength",
        "maxLength",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
    ]
)
_OF_SCHEMAS = frozenset(("properties", "$defs", "definitions", "patternProperties"))
_OF_VALUES = frozenset(("enum", "const", "default", "examples"))


def count_format(form: ResponseTextFormat, family: Family, reader: Reader) -> int:
    """Returns the tokens of a response format: 0 unless it has a schema."""
    if form.WhichOneof("format") != "json_schema":
        return 0
    wanted = form.json_schema
    description = f"// {wanted.description}\n" if wanted.description else ""
    schema = json.dumps(_read(json_text.load(wanted.schema.text)), ensure_ascii=False, separators=(",", ":"))
    text = f"# Response Formats\n\n## {wanted.name}\n\n{description}{schema}"
    return family.json_schema + reader.count(text)


def _read(schema: Any) -> Any:
    """A schema without the keywords that the model does not read."""
    if isinstance(schema, list):
        return [_read(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _value(key, value) for key, value in schema.items() if key not in _UNREAD}


def _value(key: str, value: Any) -> Any:
    if key in _OF_SCHEMAS and isinstance(value, dict):
        # Its keys are names, of which any may look like a keyword.
        return {name: _read(each) for name, each in value.items()}
    return value if key in _OF_VALUES else _read(value)
