"""What callers give as arguments, and the request messages that are made of it."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Protocol, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from convgrpc import ids
from convgrpc.contract import faults, options
from convgrpc.contract.decoder import build
from convgrpc.contract.faults import ROOT, Path
from convgrpc.errors import ConvgrpcError

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
    for field in message.fields:
        if values[field.name] is None and options.is_required(field) and not options.field_options(field).nullable:
            raise faults.missing_field(ROOT.key(field.name))
    return build(message_class, values)


def streamed(message_class: type[M], requests: Iterable[M | JsonObject]) -> Iterator[bytes]:
    """The requests of a stream, serialized, each with an id of its own if it was given none.

    Raises InvalidArgument, naming the request and the value at fault.
    """
    for number, each in enumerate(requests, 1):
        yield _streamed(message_class, each, number)


async def streamed_asynchronously(
    message_class: type[M], requests: AsyncIterable[M | JsonObject] | Iterable[M | JsonObject]
) -> AsyncGenerator[bytes, None]:
    """The same, for requests that come one by one, perhaps."""
    if isinstance(requests, Iterable):
        for request in streamed(message_class, requests):
            yield request
        return
    number = 0
    async for each in requests:
        number += 1
        yield _streamed(message_class, each, number)


def _streamed(message_class: type[M], given: M | JsonObject, number: int) -> bytes:
    try:
        message = given if isinstance(given, message_class) else _of_stream(message_class, given)
    except ConvgrpcError as error:
        error.request_number = number
        raise
    data = message.SerializeToString()
    if message.HasField(REQUEST_ID):
        return data
    # What follows a message is merged with it: the caller's own stays as it is.
    return data + message_class(**{REQUEST_ID: ids.request_id()}).SerializeToString()


def _of_stream(message_class: type[M], given: Any) -> M:
    plain = _plain(given, ROOT)
    if not isinstance(plain, dict):
        raise faults.invalid_type(ROOT, "an object", plain)
    names = message_class.DESCRIPTOR.fields_by_name
    for name in plain:
        if name not in names:
            raise faults.unknown_field(ROOT.key(name))
    return request(message_class, {name: plain.get(name) for name in names})


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
    raise faults.not_json(path, value)


def _key(key: Any, path: Path) -> str:
    if not isinstance(key, str):
        raise faults.not_json(path, key)
    return _encodable(str(key), path)


def _encodable(text: str, path: Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise faults.not_json(path, text) from None
    return text


def _worded(field: FieldDescriptor, value: Any) -> Any:
    """The value of an enum's field in the words that JSON has for it; any other value as it is."""
    if isinstance(value, list):
        return [_worded(field, each) for each in value]
    if field.enum_type is None or type(value) is not int:
        return value
    # Zero means not given.
    return options.json_values(field.enum_type).get(value, value) if value else None
