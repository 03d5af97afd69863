"""The life of conversations by the unmodified `openai` package, whichever version is on the path.

Run as `python openai_life.py BASE_URL CORPUS`. It prints the kinds of items that it kept, one a line, and fails at the
first difference. Responses are validated strictly: a shape that the package's own types do not have is an error.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from openai.types.conversations import ConversationItem

PER_REQUEST = 20

Refused = TypeVar("Refused", bound=APIStatusError)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def refusal(kind: type[Refused], call: Callable[[], object]) -> Refused:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("the call was not refused")


def known_items(corpus: Path) -> Iterator[dict[str, Any]]:
    """The corpus's items of the kinds, and in the shapes, that this version of the package has types for."""
    types = pydantic.TypeAdapter[Any](ConversationItem)
    for line in corpus.read_text().splitlines():
        value = json.loads(line)["value"]
        if value.get("id") is None:
            continue
        try:
            types.validate_python(value)
        except pydantic.ValidationError:
            continue
        yield value


def check_conversations(client: OpenAI) -> None:
    created = client.conversations.create(metadata={"topic": "demo"}, items=[{"role": "user", "content": "hello"}])
    assert created.object == "conversation"
    assert created.metadata == {"topic": "demo"}
    assert client.conversations.retrieve(created.id) == created
    updated = client.conversations.update(created.id, metadata={"topic": "other"})
    assert updated.metadata == {"topic": "other"}
    (item,) = client.conversations.items.list(created.id)
    assert item.type == "message"
    deleted = client.conversations.delete(created.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (created.id, "conversation.deleted", True)
    body = refusal(NotFoundError, lambda: client.conversations.retrieve(created.id)).body
    message = f"Conversation with id '{created.id}' not found."
    assert body == {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    assert client.conversations.create().metadata == {}


def check_paging(client: OpenAI) -> None:
    conversation = client.conversations.create()
    numbers = [str(number) for number in range(130)]
    for start in range(0, len(numbers), PER_REQUEST):
        batch = numbers[start : start + PER_REQUEST]
        client.conversations.items.create(
            conversation.id, items=[{"role": "user", "content": number} for number in batch]
        )
    for order, expected in (("asc", numbers), ("desc", numbers[::-1])):
        for limit in (100, 33):
            page = client.conversations.items.list(conversation.id, order=order, limit=limit)  # type: ignore[arg-type]
            assert len(page.data) == limit
            found = [item.to_dict()["content"][0]["text"] for item in page]  # type: ignore[index]
            assert found == expected, (order, limit)
    too_many: Any = [{"role": "user", "content": "x"}] * (PER_REQUEST + 1)
    refused = refusal(BadRequestError, lambda: client.conversations.items.create(conversation.id, items=too_many))
    assert refused.code == "array_above_max_length"


def check_kinds(client: OpenAI, items: list[dict[str, Any]]) -> None:
    conversation = client.conversations.create()
    for start in range(0, len(items), PER_REQUEST):
        batch = items[start : start + PER_REQUEST]
        created = client.conversations.items.create(
            conversation.id,
            items=batch,  # type: ignore[arg-type]
            include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        )
        assert len(created.data) == len(batch)
    listed = list(client.conversations.items.list(conversation.id, order="asc", limit=100))
    assert len(listed) == len(items)
    for sent, item in zip(items, listed, strict=True):
        raw = client.conversations.items.with_raw_response.retrieve(item.id or "", conversation_id=conversation.id)
        assert raw.parse() == item
        got = json.loads(raw.text if isinstance(raw.text, str) else raw.text())
        assert without_nulls(sent).items() <= without_nulls(got).items(), (sent, got)
    for item in listed:
        assert item.id
        assert client.conversations.items.delete(item.id, conversation_id=conversation.id).id == conversation.id
    assert list(client.conversations.items.list(conversation.id)) == []


def main(base_url: str, corpus: str) -> None:
    items = list(known_items(Path(corpus)))
    with OpenAI(base_url=base_url, api_key="unused", max_retries=0, _strict_response_validation=True) as client:
        check_conversations(client)
        check_paging(client)
        check_kinds(client, items)
    print("\n".join(sorted({item["type"] for item in items})))


if __name__ == "__main__":
    main(*sys.argv[1:])
