"""What callers give as arguments, and the request messages that are made of it."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Protocol, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from convgrpc import ids
from convgrpc.contract import faults, options
from convgrpc.contract.decoder import build
from convgrpc.contract.faults import ROOT, Path

M = TypeVar("M", bound=Message)

REQUEST_ID = "request_id"
"""The field that makes a creating call safe to repeat."""


class Dumps(Protocol):
    """A model of pydantic, such as the objects that the package `openai` returns."""

    def model_dump(self, *, mode: str, exclude_unset: bool) -> dict[str, Any]: ...


JsonObject: TypeAlias = Mapping[str, object] | Dumps
"""An object in the shape of OpenAI's API. Parts of it may be messages."""


def request(message_class: type[M], arguments: Mapping[str, Any]) -> M:
    """The request message of a call's arguments, with an id of its own if it creates something and was given none.

    Raises InvalidArgument, naming the argument at fault.
    """
    plain = {name: _plain(value, ROOT.key(name)) for name, value in arguments.items()}
    message: Any = message_class.DESCRIPTOR
    values = {field.name: _worded(field, plain[field.name]) for field in message.fields}
    if REQUEST_ID in values and values[REQUEST_ID] is None:
        values[REQUEST_ID] = ids.request_id()
    return build(message_class, values)


def _plain(value: Any, path: Path) -> Any:
    """A value as a parser of JSON would give it, but for the messages in it."""
    if isinstance(value, Message) or value is None:
        return value
    if isinstance(value, str):
        return _encodable(str(value), path)
    if isinstance(value, bool | int):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    if path.depth > options.MAX_DEPTH:
        raise faults.too_deep(path)
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(each, path.key(key)) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(each, path.key(index)) for index, each in enumerate(value)]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json", exclude_unset=True), path)
    raise faults.no_json(path, value)


def _key(key: Any, path: Path) -> str:
    if not isinstance(key, str):
        raise faults.no_json(path, key)
    return _encodable(str(key), path)


def _encodable(text: str, path: Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise faults.no_json(path, text) from None
    return text


def _worded(field: FieldDescriptor, value: Any) -> Any:
    """The value of an enum's field in the words that JSON has for it; any other value as it is."""
    if isinstance(value, list):
        return [_worded(field, each) for each in value]
    if field.enum_type is None or type(value) is not int:
        return value
    # Zero means not given.
    return options.words(field.enum_type).get(value, value) if value else None
