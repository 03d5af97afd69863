"""Counting as a function."""

from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from convgrpc.contract.decoder import decode
from convgrpc.errors import InvalidArgument
from convgrpc.tokens import count_input_tokens
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem
from tests.tokens.asking import CORPUS

JOKE = {"model": "gpt-5", "input": "Tell me a joke."}


def test_a_dict_and_a_message_count_alike() -> None:
    assert count_input_tokens(JOKE).input_tokens == 11
    assert count_input_tokens(decode(CountInputTokensRequest, JOKE)) == count_input_tokens(JOKE)


def test_a_model_takes_the_place_of_the_requests_own() -> None:
    counted = count_input_tokens(JOKE, model="gpt-4o-mini")
    assert (counted.model, counted.input_tokens) == ("gpt-4o-mini", 12)


def test_items_before_count_as_the_first_of_the_input() -> None:
    """As messages or as dicts."""
    text = {"role": "user", "content": "Tell me a joke."}
    whole = count_input_tokens({"model": "gpt-5", "input": [*CORPUS, text]}).input_tokens
    messages = [decode(ConversationItem, value) for value in CORPUS]
    assert count_input_tokens(JOKE, before=CORPUS).input_tokens == whole
    assert count_input_tokens(JOKE, before=messages).input_tokens == whole


def test_what_a_model_returned_may_be_put_in_as_it_is() -> None:
    """Objects of the SDK, and tuples."""
    call = ResponseFunctionToolCall(type="function_call", call_id="c", name="grow", arguments="{}", id="fc_1")
    text = ResponseOutputText(type="output_text", text="fern", annotations=[])
    message = ResponseOutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[text])
    dicts = [
        {"type": "function_call", "call_id": "c", "name": "grow", "arguments": "{}", "id": "fc_1"},
        {"id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "fern", "annotations": []}]},
    ]
    expected = count_input_tokens({"model": "gpt-5", "input": dicts})
    assert count_input_tokens({"model": "gpt-5", "input": (call, message)}) == expected


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"input": b"x"}, "bytes is not a type of JSON"),
        ({"input": {1}}, "set is not a type of JSON"),
        ({"input": "\ud800"}, "failed to parse JSON"),
        ({1: {2}}, "cannot be written as JSON"),
        ("text", "expected an object, but got a string"),
        ({"modle": "x"}, "Unknown parameter: 'modle'"),
        ({"conversation": "conv_1"}, "Invalid 'conversation'"),
        ({"previous_response_id": "resp_1"}, "Invalid 'previous_response_id'"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "Invalid 'input[0]'"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_refused(request_: Any, says: str) -> None:
    """In words, with the field at fault."""
    with pytest.raises(InvalidArgument) as refused:
        count_input_tokens(request_)
    assert says in refused.value.message
