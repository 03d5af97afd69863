"""Counters: the package's own, and those of other libraries to compare with, none of which uses the network."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from accuracy.chat import Chat, chat
from accuracy.rows import MODELS, Row, describe
from accuracy.scores import Counted, Results
from convgrpc.contract.decoder import decode
from convgrpc.tokens.count import count, given_features
from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import Models
from convgrpc.tokens.history import History
from convgrpc.tokens.reading import Reader
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, EstimateReason

# A row does not tell the items that were stored before.
_UNTOLD = ("previous_response_id", "conversation")
_READ = {field.name for field in CountInputTokensRequest.DESCRIPTOR.fields}.difference(_UNTOLD)

_encoding = cache(Encoding)


def ours(row: Row) -> Counted:
    """Counts a row by the package's own counter."""
    try:
        return counted(decoded(row), MODELS)
    except Exception as error:
        return Counted(None, error=describe(error))


def decoded(row: Row) -> CountInputTokensRequest:
    """Returns a row's request as a message. Raises `InvalidArgument` for one that the contract refuses."""
    return decode(CountInputTokensRequest, {key: row.request[key] for key in row.request if key in _READ})


def counted(request: CountInputTokensRequest, models: Models) -> Counted:
    """Counts a request by a table of models."""
    model = models.resolve(request.model)
    with Reader(_encoding(model.family.encoding)) as reader:
        answer = count(request, model, reader, History(), given_features(request, reader))
    prefix = "ESTIMATE_REASON_"
    reasons = dict.fromkeys(EstimateReason.Name(each.reason).removeprefix(prefix).lower() for each in answer.estimates)
    return Counted(answer.input_tokens, tuple(reasons))


def _theirs(counter: Callable[[str, Chat], int], row: Row) -> Counted:
    try:
        return Counted(counter(row.model, chat(row.request)))
    except Exception as error:
        return Counted(None, error=describe(error))


def cookbook_counter() -> Callable[[str, Chat], int]:
    """The formula of the OpenAI cookbook, which knows texts and functions."""
    import tiktoken

    @cache
    def encoded(model: str) -> tiktoken.Encoding:
        try:
            return tiktoken.encoding_for_model(model)
        except KeyError:
            return tiktoken.get_encoding("o200k_base")

    def tokens(model: str, request: Chat) -> int:
        def length(text: str) -> int:
            return len(encoded(model).encode_ordinary(text))

        messages, tools = request
        return cookbook_messages(messages, length) + cookbook_tools(tools, length)

    return tokens


def cookbook_messages(messages: Iterable[Mapping[str, Any]], length: Callable[[str], int]) -> int:
    tokens = 3
    for message in messages:
        tokens += 3 + length(message["role"]) + sum(map(length, texts(message)))
        if "name" in message:
            tokens += 1 + length(message["name"])
    return tokens


def texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content") or ""
    yield from [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        yield call["function"]["arguments"]


def cookbook_tools(tools: Sequence[Mapping[str, Any]], length: Callable[[str], int]) -> int:
    tokens = 12 if tools else 0
    for tool in tools:
        function = tool["function"]
        properties = (function["parameters"] or {}).get("properties") or {}
        tokens += 7 + length(f"{function['name']}:{function['description'].removesuffix('.')}")
        tokens += 3 if properties else 0
        for name, schema in properties.items():
            description = schema.get("description", "").removesuffix(".")
            tokens += 3 + length(f"{name}:{schema.get('type', '')}:{description}")
            if "enum" in schema:
                tokens += -3 + sum(3 + length(str(value)) for value in schema["enum"])
    return tokens


def litellm_counter() -> Callable[[str, Chat], int]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    def tokens(model: str, request: Chat) -> int:
        messages, tools = request
        # To look at an image that is elsewhere it would ask the network.
        elsewhere = any(url.startswith("http") for url in image_urls(messages))
        return int(
            litellm.token_counter(
                model=model, messages=messages, tools=tools or None, use_default_image_token_count=elsewhere
            )
        )

    return tokens


def image_urls(messages: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages:
        if isinstance(content := message["content"], list):
            yield from (part["image_url"]["url"] for part in content if "image_url" in part)


def langchain_counter() -> Callable[[str, Chat], int]:
    from langchain_core.messages import convert_to_messages
    from langchain_openai import ChatOpenAI

    @cache
    def client(model: str) -> ChatOpenAI:
        return ChatOpenAI(model=model, api_key="unused")

    def tokens(model: str, request: Chat) -> int:
        messages, tools = request
        # To look at an image that is elsewhere it would ask the network.
        elsewhere = any(url.startswith("http") for url in image_urls(messages))
        converted = convert_to_messages(messages)
        return int(
            client(model).get_num_tokens_from_messages(
                converted, tools=tools or None, allow_fetching_images=not elsewhere
            )
        )

    return tokens


OTHERS: Mapping[str, Callable[[], Callable[[str, Chat], int]]] = {
    "openai-cookbook": cookbook_counter,
    "litellm": litellm_counter,
    "langchain_openai": langchain_counter,
}


def compared(rows: Sequence[Row]) -> Iterator[tuple[str, Results | str]]:
    """Yields the counts of the rows by other counters, by their names, or the reason why one cannot be asked."""
    for name, make in OTHERS.items():
        try:
            counter = make()
        except Exception as error:
            yield name, f"cannot be used ({describe(error)})"
        else:
            yield name, [(row, _theirs(counter, row)) for row in rows]
