"""Requests in JSON, as the API takes them, and what they come to."""

from functools import cache
from typing import Any

from convgrpc.contract.decoder import decode
from convgrpc.tokens.count import count, given_features
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import DEFAULT, Models
from convgrpc.tokens.history import History
from convgrpc.tokens.reading import Reader
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, EstimateReason, InputPart, ModelTokenCount
from tests.contract.corpus import ROWS

MODELS = Models()

encoding = cache(Encoding)

CORPUS = [row.value for row in ROWS if row.kind != "item_reference"]
"""Items of every kind that can stand for themselves."""


def asked(models: Models = MODELS, **request: Any) -> ModelTokenCount:
    """The count of a request without a conversation."""
    message = decode(CountInputTokensRequest, request)
    model = models.resolve(message.model or DEFAULT)
    encoded = encoding(model.family.encoding)
    with Reader(encoded) as reader:
        return count(message, model, reader, History(), given_features(message, reader))


def tokens(**request: Any) -> int:
    return asked(**request).input_tokens


def parts(answer: ModelTokenCount) -> dict[str, int]:
    """The tokens of each part, by its name."""
    return {InputPart.Name(each.part).removeprefix("INPUT_PART_").lower(): each.input_tokens for each in answer.parts}


def estimates(answer: ModelTokenCount) -> dict[tuple[str, str], tuple[int, int, list[str]]]:
    """The tokens, number and places of each estimate, by the names of its part and reason."""
    return {
        (
            InputPart.Name(each.part).removeprefix("INPUT_PART_").lower(),
            EstimateReason.Name(each.reason).removeprefix("ESTIMATE_REASON_").lower(),
        ): (each.input_tokens, each.count, list(each.places))
        for each in answer.estimates
    }


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **more}


def call(call_id: str, name: str = "dice", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **more}


def output(call_id: str, text: Any = "4", **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text, **more}


def function(name: str, description: str | None = None, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": description, "parameters": parameters, "strict": False}
