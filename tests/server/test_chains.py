"""Counts that follow recorded responses."""

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from convgrpc.server.app import Running

MODEL = "gpt-4o"


class Client:
    """Records and counts by REST."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def record(self, **body: Any) -> str:
        return str(self.post("x/responses", **body)["id"])

    def count(self, **body: Any) -> int:
        return int(self.post("responses/input_tokens", **{"model": MODEL, **body})["input_tokens"])


@pytest.fixture
def client(server: Running, http: httpx.Client) -> Client:
    return Client(http)


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answered(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def talk(source: random.Random, number: int) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """The input and output of a response: an answer, or a call that the next response answers."""
    call = {"type": "function_call", "call_id": f"call_{number}", "name": "grow", "arguments": '{"a": 1}'}
    output = {"type": "function_call_output", "call_id": f"call_{number}", "output": "fern " * source.randint(1, 9)}
    text = "moss " * source.randint(1, 9)
    if source.random() < 0.5:
        yield [said(text)], [answered(text)]
    else:
        yield [said(text)], [call]
        yield [output], [answered(text), said("and"), answered("or")]


@pytest.mark.parametrize("model", [MODEL, "gpt-5", "gpt-5.4", "gpt-5.6"])
def test_a_chain_counts_as_its_items_do(client: Client, model: str) -> None:
    """Of fifty responses, the input of each before its output."""
    source = random.Random(model)
    previous: dict[str, str] = {}
    items: list[dict[str, Any]] = []
    recorded = 0
    while recorded < 50:
        for given, made in talk(source, recorded):
            previous = {"previous_response_id": client.record(input=given, output=made, **previous)}
            items += [*given, *made]
            recorded += 1
    assert client.count(model=model, **previous) == client.count(model=model, input=items)
    more = [*items, said("more")]
    assert client.count(model=model, input="more", **previous) == client.count(model=model, input=more)
    assert client.count(model=model, **previous) == client.count(model=model, input=items)


def test_a_response_may_be_followed_by_several(client: Client) -> None:
    """Each goes on from there alone."""
    first = client.record(input=[said("fern")], output=[answered("moss")])
    one = client.record(input=[said("a a a")], previous_response_id=first)
    other = client.record(input=[said("b")], previous_response_id=first)
    before = [said("fern"), answered("moss")]
    assert client.count(previous_response_id=one) == client.count(input=[*before, said("a a a")])
    assert client.count(previous_response_id=other) == client.count(input=[*before, said("b")])
    assert client.count(previous_response_id=first) == client.count(input=before)


def test_a_response_on_a_conversation_has_all_before_it(client: Client) -> None:
    """And nothing that the conversation got later, but for what was deleted from it."""
    conversation = client.post("conversations", items=[said("one")])["id"]
    response = client.record(input=[said("two")], output=[answered("three")], conversation=conversation)
    late = client.post(f"conversations/{conversation}/items", items=[said("four")])["data"][0]
    following = client.record(input=[said("five")], previous_response_id=response)
    whole = [said("one"), said("two"), answered("three")]
    assert client.count(previous_response_id=response) == client.count(input=whole)
    assert client.count(previous_response_id=following) == client.count(input=[*whole, said("five")])
    assert late["id"]
    first = client._http.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"}).json()["data"][0]["id"]
    assert client._http.delete(f"/v1/conversations/{conversation}/items/{first}").status_code == 200
    assert client.count(previous_response_id=following) == client.count(input=[*whole[1:], said("five")])


def test_instructions_are_those_of_the_request(client: Client) -> None:
    """They are not recorded."""
    first = client.record(input=[said("fern")])
    counted = client.count(previous_response_id=first, instructions="Be brief.")
    assert counted == client.count(input="fern", instructions="Be brief.")


def test_what_was_deleted_is_not_found(client: Client) -> None:
    """In the words of the API."""
    first = client.record(input=[said("fern")])
    assert client.count(previous_response_id=first) > 0
    assert client._http.delete(f"/v1/x/responses/{first}").status_code == 200
    refused = client._http.post("/v1/responses/input_tokens", json={"previous_response_id": first})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")
