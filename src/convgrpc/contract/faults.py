"""The faults of a request, in the API's own words, and the path to the value at fault.

A path is a linked tuple that grows downwards, so that a request without faults never spells one.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from convgrpc.contract import options
from convgrpc.contract.item_policy import HOSTED, ItemPolicy
from convgrpc.errors import ConvgrpcError, failure
from convgrpc.v1.error_reason_pb2 import ErrorReason

_TYPE_WORDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    dict: "an object",
    list: "an array",
    type(None): "null",
}


# What Python makes of a named tuple's fields costs as much again.
_made = tuple.__new__


class Path(NamedTuple):
    """Where a value stands: the path to what holds it, its own step there, and how deep that is.

    The step is a key or an index. It may differ between JSON and the message (`step` and `field`), and is None where
    the one has a level that the other does not. The depth is that of the JSON. `policy` says which items are accepted.
    Within an item that keeps what the contract does not know, `unknown` collects the paths of such keys and values.
    """

    parent: "Path | None"
    step: str | int | None
    field: str | int | None
    depth: int
    policy: ItemPolicy
    unknown: list["Path"] | None

    @classmethod
    def root(cls, policy: ItemPolicy) -> "Path":
        """The path of a whole message."""
        return cls(None, None, None, 0, policy, None)

    def child(self, step: str | int | None, field: str | int | None) -> "Path":
        _, _, _, depth, policy, unknown = self
        return _made(Path, (self, step, field, depth + (step is not None), policy, unknown))

    def key(self, key: str | int) -> "Path":
        """The path of a value that has the same step in JSON and in the message."""
        _, _, _, depth, policy, unknown = self
        return _made(Path, (self, key, key, depth + 1, policy, unknown))

    def without_ids(self) -> "Path":
        """The same path, below which items may lack their ids."""
        return self._replace(policy=self.policy._replace(need_ids=False))

    @property
    def param(self) -> str:
        """The path as REST spells it: `items[0].content[1].text`."""
        return _spelled(path.step for path in self._from_root())

    @property
    def proto(self) -> str:
        """The path in the request message: `items[0].message.content[1].input_text.text`."""
        return _spelled(path.field for path in self._from_root())

    def _from_root(self) -> list["Path"]:
        steps: list[Path] = []
        path: Path | None = self
        while path is not None:
            steps.append(path)
            path = path.parent
        return steps[::-1]


ROOT = Path.root(HOSTED)


def _spelled(steps: Iterable[str | int | None]) -> str:
    spelled = ""
    for step in steps:
        if isinstance(step, int):
            spelled += f"[{step}]"
        elif step is not None:
            spelled += f".{step}" if spelled else step
    return spelled


def type_name(json_type: type) -> str:
    """What errors call the type of a JSON value: "a string"."""
    return _TYPE_WORDS.get(json_type) or f"a value of type {json_type.__name__}"


def elided(text: str) -> str:
    """A value as errors quote it: whole, unless it is long."""
    return text if len(text) <= 200 else f"{text[:100]}...{text[-3:]}"


def supported(field: FieldDescriptor) -> list[str]:
    """The JSON strings of an enum field that callers may send, as errors list them."""
    return list(options.field_options(field).accepted_values) or list(
        options.json_values(options.enum_of(field)).values()
    )


def noun(message: Descriptor) -> str:
    """What errors call a message, without its article: "input item"."""
    return options.shape(message).noun or "object"


def article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def listed(values: Iterable[str], conjunction: str = "and") -> str:
    """Quoted values as a list in prose: "'a', 'b', and 'c'"."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return f" {conjunction} ".join(quoted)
    return ", ".join(quoted[:-1]) + f", {conjunction} {quoted[-1]}"


def expected_value(field: FieldDescriptor) -> str:
    """What errors say a single value of a field should be: "a string", "one of 'asc' or 'desc'"."""
    if field.enum_type is not None:
        return f"one of {listed(supported(field), 'or')}"
    return type_name(options.json_type(field))


def expected_list(field: FieldDescriptor) -> str:
    """What errors say a repeated field should be: "an array of input items"."""
    return f"an array of {_plural(field)}"


def expected_of_union(fields: Iterable[FieldDescriptor]) -> str:
    """What errors say a bare union should be: "one of a string or array of input items"."""
    phrases: dict[type, str] = {}
    for field in fields:
        json_type = options.json_type(field)
        if field.enum_type is not None:
            phrases[json_type] = listed(options.json_values(field.enum_type).values(), "or")
        elif json_type is list:
            phrases[list] = f"array of {_plural(options.message_of(field).fields[0])}"
        else:
            phrases[json_type] = type_name(json_type).split()[-1]
    ordered = [phrases[each] for each in (dict, str, int, float, bool, list) if each in phrases]
    return f"one of {article(' or '.join(ordered))}"


def _plural(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return f"{noun(field.message_type)}s"
    return type_name(options.json_type(field)).split()[-1] + "s"


def _fault(reason: ErrorReason.ValueType, path: Path, message: str) -> ConvgrpcError:
    return failure(reason, message, param=path.param or None, field=path.proto or None)


def invalid_type(path: Path, expected: str, value: Any) -> ConvgrpcError:
    got = type_name(type(value))
    if value is None and expected in _SCALARS:
        got = "an object"
    what = f"Invalid type for '{_elided_path(path.param)}'" if path.param else "Invalid body"
    return _fault(ErrorReason.ERROR_REASON_INVALID_TYPE, path, f"{what}: expected {expected}, but got {got} instead.")


def _elided_path(param: str) -> str:
    """A path as some errors spell it, with long names cut short: `pre..._id`."""
    return _NAME.sub(lambda name: f"{name[0][:3]}...{name[0][-3:]}" if len(name[0]) >= _LONG_NAME else name[0], param)


_NAME = re.compile(r"[^.\[\]]+")
_LONG_NAME = 20
_SCALARS = frozenset(_TYPE_WORDS[scalar] for scalar in (str, bool, int, float))


def not_json(path: Path, value: Any) -> ConvgrpcError:
    """A value of Python that JSON does not have, and that is no message either."""
    message = f"Invalid '{path.param}': expected a JSON value or a message, but got {_described(value)} instead."
    return _fault(ErrorReason.ERROR_REASON_INVALID_TYPE, path, message)


def _described(value: Any) -> str:
    if isinstance(value, str):
        return "text that is not Unicode"
    return str(value) if isinstance(value, float) else f"a value of type {type(value).__name__}"


def unsupported_value(path: Path, value: str, supported: Iterable[str]) -> ConvgrpcError:
    return _fault(ErrorReason.ERROR_REASON_INVALID_VALUE, path, _unsupported(value, supported))


def _unsupported(value: str, supported: Iterable[str]) -> str:
    return f"Invalid value: '{elided(value)}'. Supported values are: {listed(supported)}."


def invalid_value(path: Path, value: str, expected: str) -> ConvgrpcError:
    message = f"Invalid '{path.param}': '{value}'. Expected {expected}."
    return _fault(ErrorReason.ERROR_REASON_INVALID_VALUE, path, message)


def wrong_prefix(path: Path, value: str, prefix: str) -> ConvgrpcError:
    return invalid_value(path, elided(value), f"an ID that begins with '{prefix}'")


def missing_field(path: Path) -> ConvgrpcError:
    message = f"Missing required parameter: '{path.param}'."
    return _fault(ErrorReason.ERROR_REASON_MISSING_REQUIRED_PARAMETER, path, message)


def unknown_field(path: Path, candidates: Iterable[str] = ()) -> ConvgrpcError:
    message = f"Unknown parameter: '{path.param}'."
    meant = next((each for each in sorted(candidates) if _is_near(str(path.step), each)), None)
    if meant:
        message += f" Did you mean '{meant}'?"
    return _fault(ErrorReason.ERROR_REASON_UNKNOWN_PARAMETER, path, message)


def _is_near(one: str, other: str) -> bool:
    """Whether at most two letters have to be inserted, removed or changed to make the one of the other."""
    if abs(len(one) - len(other)) > _NEAR:
        return False
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            changed = previous + (letter != against)
            previous, row[j] = row[j], min(changed, row[j] + 1, row[j - 1] + 1)
    return row[-1] <= _NEAR


_NEAR = 2


def no_field_of_several(path: Path, fields: Iterable[str], number: str) -> ConvgrpcError:
    """None of several fields is set; `number` says how many must be: "exactly one"."""
    message = (
        f"Missing mutually exclusive parameters: '{path.param}'. Ensure you are providing {number} of: "
        f"{listed(fields, 'or')}."
    )
    return _fault(ErrorReason.ERROR_REASON_MISSING_MUTUALLY_EXCLUSIVE_PARAMETERS, path, message)


def several_fields(path: Path, fields: Iterable[str]) -> ConvgrpcError:
    message = (
        f"Mutually exclusive parameters: '{path.param}'. Ensure you are only providing one of: {listed(fields, 'or')}."
    )
    return _fault(ErrorReason.ERROR_REASON_MUTUALLY_EXCLUSIVE_PARAMETERS, path, message)


def invalid_item(path: Path) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_INVALID_ITEM, "Invalid item", param="item", field=path.proto)


def duplicate_key(key: str) -> ConvgrpcError:
    message = f"Invalid body: the key '{elided(key)}' stands twice in one object."
    return failure(ErrorReason.ERROR_REASON_INVALID_JSON, message)


def array_too_long(path: Path, limit: int, length: int) -> ConvgrpcError:
    message = (
        f"Invalid '{path.param}': array too long. Expected an array with maximum length {limit}, "
        f"but got an array with length {length} instead."
    )
    return _fault(ErrorReason.ERROR_REASON_ARRAY_ABOVE_MAX_LENGTH, path, message)


def array_too_short(path: Path, limit: int, length: int) -> ConvgrpcError:
    empty = length == 0
    message = (
        f"Invalid '{path.param}': {'empty array' if empty else 'array too short'}. Expected an array with minimum "
        f"length {limit}, but got an {'empty array' if empty else f'array with length {length}'} instead."
    )
    return _fault(ErrorReason.ERROR_REASON_EMPTY_ARRAY, path, message)


def string_too_long(path: Path, limit: int, length: int) -> ConvgrpcError:
    message = (
        f"Invalid '{path.param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead."
    )
    return _fault(ErrorReason.ERROR_REASON_STRING_ABOVE_MAX_LENGTH, path, message)


def string_too_short(path: Path, limit: int, length: int) -> ConvgrpcError:
    message = (
        f"Invalid '{path.param}': {'empty string' if length == 0 else 'string too short'}. Expected a string with "
        f"minimum length {limit}, but got {'an empty string' if length == 0 else f'a string with length {length}'} "
        "instead."
    )
    return _fault(ErrorReason.ERROR_REASON_STRING_BELOW_MIN_LENGTH, path, message)


def integer_too_large(path: Path, limit: int, value: int) -> ConvgrpcError:
    return _above(ErrorReason.ERROR_REASON_INTEGER_ABOVE_MAX_VALUE, path, "integer", limit, value)


def integer_too_small(path: Path, limit: int, value: int) -> ConvgrpcError:
    return _below(ErrorReason.ERROR_REASON_INTEGER_BELOW_MIN_VALUE, path, "integer", limit, value)


def decimal_too_large(path: Path, limit: int, value: float) -> ConvgrpcError:
    return _above(ErrorReason.ERROR_REASON_DECIMAL_ABOVE_MAX_VALUE, path, "decimal", limit, value)


def decimal_too_small(path: Path, limit: int, value: float) -> ConvgrpcError:
    return _below(ErrorReason.ERROR_REASON_DECIMAL_BELOW_MIN_VALUE, path, "decimal", limit, value)


def _above(reason: ErrorReason.ValueType, path: Path, kind: str, limit: int, value: float) -> ConvgrpcError:
    message = (
        f"Invalid '{path.param}': {kind} above maximum value. Expected a value <= {limit}, but got {value} instead."
    )
    return _fault(reason, path, message)


def _below(reason: ErrorReason.ValueType, path: Path, kind: str, limit: int, value: float) -> ConvgrpcError:
    message = (
        f"Invalid '{path.param}': {kind} below minimum value. Expected a value >= {limit}, but got {value} instead."
    )
    return _fault(reason, path, message)


def too_many_properties(path: Path, limit: int, count: int) -> ConvgrpcError:
    message = (
        f"Invalid '{path.param}': too many properties. Expected an object with at most {limit} properties, "
        f"but got an object with {count} properties instead."
    )
    return _fault(ErrorReason.ERROR_REASON_OBJECT_ABOVE_MAX_PROPERTIES, path, message)


def property_name_too_long(path: Path, limit: int, name: str) -> ConvgrpcError:
    message = (
        f"Invalid property name in '{path.param}': '{name[:3]}...{name[-3:]}' is too long. Expected a string with "
        f"maximum length {limit}, but got a string with length {len(name)} instead."
    )
    return _fault(ErrorReason.ERROR_REASON_PROPERTY_NAME_ABOVE_MAX_LENGTH, path.key(name), message)


def too_deep(path: Path) -> ConvgrpcError:
    message = f"Invalid request: objects or arrays are nested too deeply. Expected at most {options.MAX_DEPTH} levels."
    return _fault(ErrorReason.ERROR_REASON_NESTING_TOO_DEEP, path, message)


def invalid_json() -> ConvgrpcError:
    message = (
        "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON. (Common errors "
        "include trailing commas, missing closing brackets, missing quotation marks, etc.)"
    )
    return failure(ErrorReason.ERROR_REASON_INVALID_JSON, message)


def invalid_message(full_name: str) -> ConvgrpcError:
    message = f"Invalid message: failed to parse the bytes of the request as {full_name}."
    return failure(ErrorReason.ERROR_REASON_INVALID_MESSAGE, message)


def too_many_values(limit: int) -> ConvgrpcError:
    message = f"Request too large. Expected a body of at most {limit} values, each element and each key counted as one."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message)
