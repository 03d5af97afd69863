"""Responses that were recorded, as clients see them."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import httpx
import pytest

from convgrpc import ids
from convgrpc.server.app import Running
from convgrpc.v1.content_pb2 import ContentPart, InputText, OutputText
from convgrpc.v1.conversation_pb2 import Metadata, ResponseConversation
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    ListItemsRequest,
    Order,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall, ItemReference, Message, Role
from convgrpc.v1.responses_service_pb2 import (
    DeletedResponse,
    DeleteResponseRequest,
    GetResponseRequest,
    RecordResponseRequest,
    Response,
)
from convgrpc.v1.responses_service_pb2_grpc import ResponsesServiceStub


def said(text: str, item_id: str | None = None) -> ConversationItem:
    content = [ContentPart(input_text=InputText(text=text))]
    return ConversationItem(id=item_id, message=Message(role=Role.ROLE_USER, content=content))


def answered(text: str, item_id: str | None = None) -> ConversationItem:
    content = [ContentPart(output_text=OutputText(text=text))]
    return ConversationItem(id=item_id, message=Message(role=Role.ROLE_ASSISTANT, content=content))


def reference(item_id: str) -> ConversationItem:
    return ConversationItem(id=item_id, item_reference=ItemReference())


def on(conversation_id: str) -> ResponseConversation:
    return ResponseConversation(conversation_id=conversation_id)


def refused(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value.code()


class Responses:
    """The RPCs, with their requests' fields as arguments."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ResponsesServiceStub(channel)

    def record(self, **fields: Any) -> Response:
        return self._stub.RecordResponse(RecordResponseRequest(**fields))

    def get(self, response_id: str) -> Response:
        return self._stub.GetResponse(GetResponseRequest(response_id=response_id))

    def delete(self, response_id: str) -> DeletedResponse:
        return self._stub.DeleteResponse(DeleteResponseRequest(response_id=response_id))


@pytest.fixture
def responses(server: Running) -> Iterator[Responses]:
    with grpc.insecure_channel(str(server.grpc)) as channel:
        yield Responses(channel)


@pytest.fixture
def conversation_id(stub: ConversationsServiceStub) -> str:
    return stub.CreateConversation(CreateConversationRequest(items=[said("before")])).id


def texts(stub: ConversationsServiceStub, conversation_id: str) -> list[str]:
    request = ListItemsRequest(conversation_id=conversation_id, order=Order.ORDER_ASC, limit=100)
    parts = [item.message.content[0] for item in stub.ListItems(request).data]
    return [part.input_text.text or part.output_text.text for part in parts]


def test_a_response_is_what_was_told_of_it(responses: Responses) -> None:
    """And comes back the same."""
    recorded = responses.record(
        model="gpt-5",
        input=[said("hello"), said("named", "msg_named")],
        output=[answered("hi")],
        metadata=Metadata(pairs={"job": "1"}),
    )
    assert re.fullmatch(r"resp_[0-9a-f]{48}", recorded.id)
    assert recorded.created_at > 1_700_000_000
    assert recorded.model == "gpt-5"
    assert recorded.metadata.pairs == {"job": "1"}
    assert not recorded.HasField("conversation")
    assert not recorded.HasField("previous_response_id")
    assert list(recorded.input_item_ids)[1:] == ["msg_named"]
    assert len(recorded.output_item_ids) == 1
    assert responses.get(recorded.id) == recorded


def test_an_empty_response_has_null_for_what_it_lacks(http: httpx.Client) -> None:
    """In JSON, each key is there."""
    recorded = http.post("/v1/x/responses", json={}).json()
    assert recorded == {
        "object": "response",
        "id": recorded["id"],
        "created_at": recorded["created_at"],
        "model": None,
        "previous_response_id": None,
        "conversation": None,
        "input_item_ids": [],
        "output_item_ids": [],
        "metadata": {},
    }
    assert http.get(f"/v1/x/responses/{recorded['id']}").json() == recorded
    assert http.delete(f"/v1/x/responses/{recorded['id']}").json() == {
        "object": "response.deleted",
        "id": recorded["id"],
        "deleted": True,
    }
    assert http.get(f"/v1/x/responses/{recorded['id']}").status_code == 404


def test_the_hosted_apis_ids_are_kept(responses: Responses) -> None:
    """Those of the response and of its items."""
    request = {"response_id": "resp_68a", "input": [said("hello")], "output": [answered("hi", "msg_68a")]}
    recorded = responses.record(**request)
    assert (recorded.id, list(recorded.output_item_ids)) == ("resp_68a", ["msg_68a"])
    assert responses.get("resp_68a") == recorded
    assert refused(lambda: responses.record(**request)) == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("response_id", [None, "resp_1", "resp_" + "-" * 100])
def test_items_get_ids_as_in_conversations(responses: Responses, response_id: str | None) -> None:
    """Which are told from the hosted API's, whatever the response's own id looks like."""
    call = ConversationItem(function_call=FunctionCall(call_id="c", name="f", arguments="{}"))
    recorded = responses.record(response_id=response_id, input=[said("hello")], output=[call])
    (read,), (made,) = recorded.input_item_ids, recorded.output_item_ids
    assert (read.partition("_")[0], made.partition("_")[0]) == ("msg", "fc")
    assert ids.is_minted(read)
    assert ids.is_minted(made)
    assert read[-16:] == made[-16:]


def test_a_conversation_gets_the_input_first(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """The items are then the conversation's, like any others."""
    recorded = responses.record(
        conversation=on(conversation_id), input=[said("one"), said("two")], output=[answered("three")]
    )
    assert recorded.conversation.id == conversation_id
    assert texts(stub, conversation_id) == ["before", "one", "two", "three"]
    assert all(each.endswith(conversation_id[-16:]) for each in [*recorded.input_item_ids, *recorded.output_item_ids])


def test_nothing_is_stored_of_a_response_that_is_refused(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """Not even what could have been."""
    code = refused(
        lambda: responses.record(
            response_id="resp_1",
            conversation=on(conversation_id),
            input=[said("one")],
            output=[reference("msg_nowhere")],
        )
    )
    assert code == grpc.StatusCode.NOT_FOUND
    assert texts(stub, conversation_id) == ["before"]
    assert refused(lambda: responses.get("resp_1")) == grpc.StatusCode.NOT_FOUND


def test_items_travel_between_responses_and_conversations(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """By reference, and by the id that the server made."""
    first = responses.record(output=[answered("made")])
    (made,) = first.output_item_ids
    second = responses.record(input=[reference(made), said("ignored", made)])
    assert list(second.input_item_ids) == [made, made]
    stub.CreateItems(CreateItemsRequest(conversation_id=conversation_id, items=[reference(made)]))
    assert texts(stub, conversation_id) == ["before", "made"]
    assert refused(lambda: responses.record(conversation=on(conversation_id), input=[reference(made)])) == (
        grpc.StatusCode.INVALID_ARGUMENT
    )


def test_a_response_names_its_items_also_after_they_are_gone(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """It tells what the model read, not what is left of it."""
    recorded = responses.record(conversation=on(conversation_id), input=[said("one")])
    (item_id,) = recorded.input_item_ids
    stub.DeleteItem(DeleteItemRequest(conversation_id=conversation_id, item_id=item_id))
    assert responses.get(recorded.id) == recorded


def test_responses_follow_what_is_there(responses: Responses, conversation_id: str) -> None:
    """One that is not there is refused, also by a response that would follow itself; so are two predecessors at
    once.
    """
    first = responses.record(input=[said("hello")])
    second = responses.record(previous_response_id=first.id)
    assert second.previous_response_id == first.id
    missing = grpc.StatusCode.NOT_FOUND
    assert refused(lambda: responses.record(previous_response_id="resp_nowhere")) == missing
    assert refused(lambda: responses.record(response_id="resp_1", previous_response_id="resp_1")) == missing
    assert refused(lambda: responses.record(previous_response_id=first.id, conversation=on(conversation_id))) == (
        grpc.StatusCode.INVALID_ARGUMENT
    )


def test_a_response_is_deleted_after_its_followers(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """Items on a conversation stay there."""
    first = responses.record(conversation=on(conversation_id), input=[said("one")])
    second = responses.record(previous_response_id=first.id, input=[said("two")])
    assert refused(lambda: responses.delete(first.id)) == grpc.StatusCode.FAILED_PRECONDITION
    assert responses.delete(second.id) == DeletedResponse(id=second.id, deleted=True)
    assert responses.delete(first.id) == DeletedResponse(id=first.id, deleted=True)
    assert refused(lambda: responses.delete(first.id)) == grpc.StatusCode.NOT_FOUND
    assert texts(stub, conversation_id) == ["before", "one"]


def test_a_refused_deletion_names_the_follower(http: httpx.Client) -> None:
    """And is a conflict in REST, as is the id of a response that is there."""
    url = "/v1/x/responses"
    http.post(url, json={"response_id": "resp_1"})
    http.post(url, json={"response_id": "resp_2", "previous_response_id": "resp_1"})
    in_use, twice = http.delete(f"{url}/resp_1"), http.post(url, json={"response_id": "resp_1"})
    assert (in_use.status_code, in_use.json()["error"]["code"]) == (409, "response_in_use")
    assert "'resp_2'" in in_use.json()["error"]["message"]
    assert (twice.status_code, twice.json()["error"]["code"]) == (409, "response_already_exists")


def test_a_deleted_conversation_takes_its_responses_along(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """And those that follow them."""
    first = responses.record(conversation=on(conversation_id))
    second = responses.record(previous_response_id=first.id)
    stub.DeleteConversation(DeleteConversationRequest(conversation_id=conversation_id))
    for each in (first.id, second.id):
        assert refused(partial(responses.get, each)) == grpc.StatusCode.NOT_FOUND
        assert refused(partial(responses.record, previous_response_id=each)) == grpc.StatusCode.NOT_FOUND


def test_a_repeated_recording_is_done_once(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """Also when its twins come at once; a change of it is refused."""
    fields = {"conversation": on(conversation_id), "output": [answered("one")], "request_id": "job-1"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: responses.record(**fields), range(24)))
    assert all(answer == answers[0] for answer in answers)
    assert texts(stub, conversation_id) == ["before", "one"]
    assert refused(lambda: responses.record(**{**fields, "model": "x"})) == grpc.StatusCode.INVALID_ARGUMENT


def test_of_twins_with_one_id_one_is_stored(
    responses: Responses, stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """The others are told that it is there, as they have no key."""

    def attempt(number: int) -> grpc.StatusCode | None:
        try:
            responses.record(response_id="resp_1", conversation=on(conversation_id), output=[answered(str(number))])
        except grpc.RpcError as refusal:
            return refusal.code()
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert outcomes.count(None) == 1
    assert outcomes.count(grpc.StatusCode.ALREADY_EXISTS) == 7
    assert len(texts(stub, conversation_id)) == 2
