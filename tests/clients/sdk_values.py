"""Everything that the installed `openai` package can hold in an answer, sent back to a server.

Run as `python sdk_values.py BASE_URL`. Prints the kinds of items that were sent and read back, one a line, and fails with
the values that were refused or came back changed.

The types of the package say what an answer can hold. For each type there are values with every optional key present,
absent and null, and with every member of every union. Each is sent as `model_dump()` and as
`model_dump(exclude_unset=True)`, each also with `by_alias=True`.
"""

import inspect
import json
import sys
import types
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import count, islice
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import openai
from openai.types.beta import BetaResponse, BetaResponseItem, BetaResponseOutputItem
from openai.types.conversations import ConversationItem
from openai.types.responses import Response, ResponseItem, ResponseOutputItem
from pydantic import BaseModel

from convgrpc.contract import options
from convgrpc.v1.item_pb2 import ConversationItem as Item

ITEMS = (ConversationItem, ResponseItem, ResponseOutputItem, BetaResponseItem, BetaResponseOutputItem)
ECHOES = ("tools", "tool_choice", "text", "reasoning", "truncation", "parallel_tool_calls")
"""The keys of a response that repeat what it was asked with."""

BATCH = 20

# Values within the bounds that the reference states in words, by the names of their keys.
BOUNDED: dict[str, Any] = {
    "country": "US",
    "name": "name",
    "partial_images": 2,
    "tunnel_id": "tunnel_" + "a" * 32,
}
NOT_EMPTY = {"allowed_callers", "allowed_domains", "domain_secrets"}
# Keys that are optional in the types, and one of which must be there all the same.
ALWAYS = {"mcp": "server_url", "input_image": "file_id", "json_schema": "schema"}
# Keys that exclude each other.
EXCLUSIVE = {"input_image": ("file_id", "image_url")}
# A valid filter. The types declare filters as plain objects.
FILTER = {"type": "eq", "key": "k", "value": "v"}

# Keys that the service fills in.
DEFAULTS = {"id", "status", "annotations", "logprobs", "detail", "execution"}


PYTHON_NAMES = {"async_", "schema_"}
"""The package's own names of the keys `async` and `schema`, which `model_dump()` uses. No API has such keys, so dumps that
have a value under them are the exception: only those with `by_alias=True` are sent."""


# Values of types.


def values(annotation: Any, name: str = "") -> list[Any]:
    """JSON values that a type can hold; `name` is the key that has them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(arguments[0], name)
    if origin in (Union, types.UnionType):
        return [value for each in arguments for value in values(each, name)]
    if origin is Literal:
        return list(arguments)
    if origin is list:
        return [*([] if name in NOT_EMPTY else [[]]), *([value] for value in values(arguments[0], name))]
    if origin is dict:
        return [{}, *({"key": value} for value in values(arguments[1]))]
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return list(objects(annotation))
    return scalars(annotation, name)


def scalars(annotation: Any, name: str) -> list[Any]:
    if name in BOUNDED:
        return [BOUNDED[name]]
    if annotation is object or annotation is Any:
        return [FILTER if name == "filters" else {"b": [1, None, "x"], "a": 1.5}]
    by_type: dict[Any, list[Any]] = {type(None): [None], str: ["text"], int: [7], float: [0.5], bool: [True, False]}
    return by_type[annotation]


@cache
def objects(model: type[BaseModel]) -> tuple[dict[str, Any], ...]:
    """Objects of a type: the least and the most of its keys, and these with each value of each key, and without it."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    choices = {name: [v for v in values(each.annotation, name) if v is not None] for name, each in fields.items()}
    tag = next(iter(choices.get("type", [""])))
    needed = {name for name, field in fields.items() if field.is_required()} | {ALWAYS.get(tag, "type")}
    least = {name: each[0] for name, each in choices.items() if name in needed}
    most = {name: next((value for value in each if value != []), each[0]) for name, each in choices.items()}
    nulls = {name: None for name in choices if name not in needed}
    found = [least, most, {**nulls, **least}]
    for name, each in choices.items():
        found += ({**least, name: value} for value in each)
        if name not in needed:
            found.append({**least, name: None})
            found.append({key: value for key, value in most.items() if key != name})
    distinct = {json.dumps(value): value for value in map(exclusive, found) if valid(value)}
    return tuple(distinct.values())


def exclusive(value: dict[str, Any]) -> dict[str, Any]:
    """The value without all but the last of several keys that exclude each other."""
    names = [name for name in EXCLUSIVE.get(value.get("type", ""), ()) if value.get(name) is not None]
    return {key: each for key, each in value.items() if key not in names[:-1]}


def valid(value: dict[str, Any]) -> bool:
    names = EXCLUSIVE.get(value.get("type", ""), ())
    return not names or any(value.get(name) is not None for name in names)


# Requests.


def has_python_names(value: Any) -> bool:
    if isinstance(value, dict):
        return any(value.get(name) is not None for name in PYTHON_NAMES) or any(map(has_python_names, value.values()))
    return isinstance(value, list) and any(map(has_python_names, value))


def models(union: Any) -> Iterator[type[BaseModel]]:
    yield from get_args(get_args(union)[0])


def dumps(made: BaseModel) -> list[dict[str, Any]]:
    """The dumps of a value: whole and of what is set, under the names of Python and under those of the API."""
    return [
        made.model_dump(by_alias=by_alias, exclude_unset=exclude_unset)
        for by_alias in (False, True)
        for exclude_unset in (False, True)
    ]


def items() -> Iterator[dict[str, Any]]:
    """Each distinct dump of an item, with an id of its own."""
    kinds = {field.name: options.kind(field) for field in Item.DESCRIPTOR.oneofs_by_name["kind"].fields}
    seen: set[str] = set()
    numbers = count(1)
    for model in (each for union in ITEMS for each in models(union)):
        for value in objects(model):
            kind = kinds[value["type"]]
            assert kind
            prefix = kind.accepted_prefix or kind.id_prefix
            for dumped in dumps(model.construct(**value)):
                key = json.dumps({**dumped, "id": dumped.get("id") is not None}, sort_keys=True)
                if key in seen or has_python_names(dumped):
                    continue
                seen.add(key)
                yield {**dumped, "id": f"{prefix}_{next(numbers)}"} if dumped.get("id") else dumped


def echoes() -> Iterator[dict[str, Any]]:
    """Each distinct dump of a key of a response that may be asked with."""
    seen: set[str] = set()
    for model in (Response, BetaResponse):
        for name in ECHOES:
            for value in values(model.model_fields[name].annotation, name):
                for whole in dumps(model.construct(**{name: value})):
                    dumped = {name: whole[name]}
                    key = json.dumps(dumped, sort_keys=True)
                    if key not in seen and not has_python_names(dumped):
                        seen.add(key)
                        yield dumped


# What comes back.


def same(got: Any, sent: Any) -> bool:
    """Whether a value came back; null is the same as absent, and the service may fill in defaults."""
    if isinstance(sent, dict) and isinstance(got, dict):
        keys = sent.keys() | got.keys()
        return all(same(got.get(key), sent.get(key)) or (key in DEFAULTS and sent.get(key) is None) for key in keys)
    if isinstance(sent, list) and isinstance(got, list):
        return len(got) == len(sent) and all(map(same, got, sent))
    return bool(got == sent)


def keys_of(value: Any) -> set[str]:
    """The keys of all objects in a value."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return set(value if isinstance(value, dict) else ()).union(*map(keys_of, inner))


def batches(of: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(of)
    while batch := list(islice(rest, BATCH)):
        yield batch


def sent_and_read(client: openai.OpenAI, conversation: str, batch: list[dict[str, Any]]) -> list[Any]:
    """Sends items, counts them, and reads them back, as the JSON that the server answers with."""
    client.responses.input_tokens.count(model="gpt-5", input=batch)  # type: ignore[arg-type]
    answer = client.conversations.items.with_raw_response.create(conversation, items=batch)  # type: ignore[arg-type]
    return list(json.loads(answer.text)["data"])


def failures(client: openai.OpenAI, conversation: str, batch: list[dict[str, Any]]) -> Iterator[str]:
    try:
        answered = sent_and_read(client, conversation, batch)
    except openai.BadRequestError as error:
        if len(batch) == 1:
            yield f"refused: {error.message}: {json.dumps(batch[0])}"
            return
        for item in batch:
            yield from failures(client, conversation, [item])
    else:
        for got, item in zip(answered, batch, strict=True):
            if not same(got, item):
                yield f"changed: {json.dumps(item)} came back as {json.dumps(got)}"


def uncounted(client: openai.OpenAI, echo: dict[str, Any]) -> Iterator[str]:
    try:
        client.responses.input_tokens.count(model="gpt-5", input="x", **echo)
    except openai.BadRequestError as error:
        yield f"refused: {error.message}: {json.dumps(echo)}"


def main(base_url: str) -> None:
    with openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0) as client:
        conversation = client.conversations.create().id
        kinds: set[str] = set()
        failed: list[str] = []
        sent_keys: set[str] = set()
        for batch in batches(items()):
            kinds |= {item["type"] for item in batch}
            sent_keys |= keys_of(batch)
            failed += failures(client, conversation, batch)
        for echo in echoes():
            failed += uncounted(client, echo)
    for name in PYTHON_NAMES:
        assert name.removesuffix("_") in sent_keys, f"no value has {name.removesuffix('_')}"
    print("\n".join(sorted(kinds)))
    if failed:
        sys.exit("\n".join(failed[:50]))


if __name__ == "__main__":
    main(*sys.argv[1:])
