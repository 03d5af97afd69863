"""Counting as a function: a request in, a count out, without a server."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from convgrpc.contract.decoder import decode
from convgrpc.contract.json_text import parse
from convgrpc.contract.validator import validate
from convgrpc.errors import not_here, not_json
from convgrpc.tokens.count import count, given_features
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import DEFAULT, Models
from convgrpc.tokens.history import History
from convgrpc.tokens.items import features
from convgrpc.tokens.reading import Reader
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ModelTokenCount
from convgrpc.v1.item_pb2 import ConversationItem

_MODELS = Models()
_encoding = cache(Encoding)


def count_input_tokens(
    request: CountInputTokensRequest | Mapping[str, Any],
    *,
    model: str | None = None,
    before: Iterable[ConversationItem | Mapping[str, Any]] = (),
    models: Models = _MODELS,
) -> ModelTokenCount:
    """Counts the tokens that a model would read if it were given a request.

    The request is a message, or a dict in the shape of `POST /v1/responses/input_tokens`, in which objects of the
    `openai` SDK may stand. `model` takes the place of the
    request's own, and of `models`, which are not counted here. `before` are the items of the conversation that the
    request goes on with. Nothing is read but the encoding's ranks, once; the result is the same as the service's.

    Raises `convgrpc.errors.InvalidArgument`, which names the field at fault, for a request that the service would
    refuse, and for one that names a conversation, an earlier response or a stored item, of which nothing is known here.
    """
    asked = request if isinstance(request, CountInputTokensRequest) else decode(CountInputTokensRequest, _json(request))
    validate(asked)
    _check_is_whole(asked)
    name = model or asked.model or DEFAULT
    resolved = models.resolve(name)
    encoding = _encoding(resolved.family.encoding)
    history = History()
    items = [each if isinstance(each, ConversationItem) else decode(ConversationItem, _json(each)) for each in before]
    places = [item.id or f"before[{number}]" for number, item in enumerate(items)]
    with Reader(encoding) as reader:
        history.items.extend(features(items, reader, places))
        counted = count(asked, resolved, reader, history, given_features(asked, reader))
    counted.model = name
    return counted


def _json(value: Any) -> Any:
    """The JSON value of what may hold tuples, and objects of the `openai` SDK."""
    try:
        text = json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise not_json(str(error)) from None
    return parse(text.encode())


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    raise TypeError(f"{type(value).__name__} is not a type of JSON")


def _check_is_whole(request: CountInputTokensRequest) -> None:
    for field in ("conversation", "previous_response_id"):
        if request.HasField(field):
            raise not_here(field)
    for number, item in enumerate(request.input.items.items):
        if item.HasField("item_reference"):
            raise not_here(f"input[{number}]")
