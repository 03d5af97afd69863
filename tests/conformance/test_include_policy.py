"""What is returned only on request, under `--include-policy strict`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from convgrpc.settings import Settings
from convgrpc.testing import served

ITEMS: dict[str, tuple[dict[str, Any], list[str | int]]] = {
    "file_search_call.results": (
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed", "results": [{"text": "t"}]},
        ["results"],
    ),
    "web_search_call.action.sources": (
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "q", "sources": [{"type": "url", "url": "https://example.com"}]},
        },
        ["action", "sources"],
    ),
    "message.input_image.image_url": (
        {
            "role": "user",
            "content": [
                {"type": "input_image", "detail": "low", "image_url": "https://example.com/a.png"},
                {"type": "input_text", "text": "look"},
            ],
        },
        ["content", 0, "image_url"],
    ),
    "computer_call_output.output.image_url": (
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": "https://example.com/b.png"},
        },
        ["output", "image_url"],
    ),
    "code_interpreter_call.outputs": (
        {
            "type": "code_interpreter_call",
            "id": "ci_1",
            "status": "completed",
            "code": "1",
            "container_id": "cntr_1",
            "outputs": [{"type": "logs", "logs": "1"}],
        },
        ["outputs"],
    ),
    "reasoning.encrypted_content": (
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        ["encrypted_content"],
    ),
    "message.output_text.logprobs": (
        {
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "hi",
                    "annotations": [],
                    "logprobs": [{"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}],
                }
            ],
        },
        ["content", 0, "logprobs"],
    ),
}


@pytest.fixture
def strict(settings: Settings) -> Iterator[httpx.Client]:
    with (
        served(replace(settings, include_policy="strict")) as server,
        httpx.Client(base_url=f"http://{server.http}/v1") as client,
    ):
        yield client


def at(item: Any, path: list[str | int]) -> Any:
    for step in path:
        item = item[step] if isinstance(step, int) else item.get(step)
    return item


@pytest.mark.parametrize("value", ITEMS)
def test_a_field_is_returned_only_to_those_who_ask_for_it(strict: httpx.Client, value: str) -> None:
    """By every call that returns items; the rest of the item is there all the same."""
    item, path = ITEMS[value]
    items = f"/conversations/{strict.post('/conversations', json={}).json()['id']}/items"
    created = strict.post(items, json={"items": [item]}).json()["data"][0]
    one = f"{items}/{created['id']}"
    asking = {"include[]": value}
    for answer in (created, strict.get(items).json()["data"][0], strict.get(one).json()):
        assert not at(answer, path)
        assert answer["id"] == created["id"]
    for answer in (strict.get(items, params=asking).json()["data"][0], strict.get(one, params=asking).json()):
        assert at(answer, path) == at(item, path)
    other = next(each for each in ITEMS if each != value)
    assert strict.get(one, params={"include[]": other}).json() == created


@pytest.mark.parametrize("value", ITEMS)
def test_a_field_is_hidden_in_an_item_that_has_unknown_keys(settings: Settings, value: str) -> None:
    """Stored by a server that keeps them, and returned by one that does not."""
    item, path = ITEMS[value]
    with (
        served(replace(settings, unknown="keep")) as server,
        httpx.Client(base_url=f"http://{server.http}/v1") as client,
    ):
        items = f"/conversations/{client.post('/conversations', json={}).json()['id']}/items"
        client.post(items, json={"items": [{**item, "mood": "calm"}]}).raise_for_status()
    with (
        served(replace(settings, include_policy="strict")) as server,
        httpx.Client(base_url=f"http://{server.http}/v1") as client,
    ):
        (hidden,) = client.get(items).json()["data"]
        (asked,) = client.get(items, params={"include[]": value}).json()["data"]
    assert not at(hidden, path)
    assert at(asked, path) == at(item, path)
    assert hidden["mood"] == asked["mood"] == "calm"


def test_asking_for_images_in_messages_is_no_matter_for_those_in_outputs(strict: httpx.Client) -> None:
    """An include value speaks of its own kind alone."""
    image = {"type": "input_image", "detail": "auto", "image_url": "https://example.com/a.png"}
    item = {"type": "function_call_output", "call_id": "c", "output": [image]}
    items = f"/conversations/{strict.post('/conversations', json={}).json()['id']}/items"
    assert strict.post(items, json={"items": [item]}).json()["data"][0]["output"] == [image]


def test_all_that_is_stored_is_returned_unless_the_policy_is_strict(http: httpx.Client) -> None:
    """A caller that replays a conversation loses nothing."""
    items = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}/items"
    for item, path in ITEMS.values():
        assert at(http.post(items, json={"items": [item]}).json()["data"][0], path) == at(item, path)
