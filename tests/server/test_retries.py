"""Calls that are safe to repeat, and appends that depend on what is there."""

import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest

from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversation_pb2 import Metadata
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    ListConversationsRequest,
    ListItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role


def message(text: str) -> ConversationItem:
    content = [ContentPart(input_text=InputText(text=text))]
    return ConversationItem(message=Message(role=Role.ROLE_USER, content=content))


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value.code(), refusal.value.details() or ""


@pytest.fixture
def conversation_id(stub: ConversationsServiceStub) -> str:
    return stub.CreateConversation(CreateConversationRequest()).id


def test_a_repeated_creation_is_done_once(stub: ConversationsServiceStub) -> None:
    """The second call gives the first one's answer, however often it comes."""
    request = CreateConversationRequest(
        items=[message("one")], metadata=Metadata(pairs={"b": "2", "a": "1"}), request_id="create-1"
    )
    first = stub.CreateConversation(request)
    assert [stub.CreateConversation(request) for _ in range(3)] == [first] * 3
    assert len(stub.ListConversations(ListConversationsRequest()).data) == 1
    assert len(stub.ListItems(ListItemsRequest(conversation_id=first.id)).data) == 1


def test_a_repeated_append_is_done_once(stub: ConversationsServiceStub, conversation_id: str) -> None:
    """Also when other items were appended meanwhile."""
    request = CreateItemsRequest(
        conversation_id=conversation_id, items=[message("one"), message("two")], request_id="append-1"
    )
    first = stub.CreateItems(request)
    stub.CreateItems(CreateItemsRequest(conversation_id=conversation_id, items=[message("three")]))
    assert stub.CreateItems(request) == first
    assert len(stub.ListItems(ListItemsRequest(conversation_id=conversation_id)).data) == 3


def test_twins_that_come_at_once_are_done_once(stub: ConversationsServiceStub, conversation_id: str) -> None:
    """The second waits for the first."""
    request = CreateItemsRequest(conversation_id=conversation_id, items=[message("one")], request_id="twin")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: stub.CreateItems(request), range(48)))
    assert all(answer == answers[0] for answer in answers)
    assert len(stub.ListItems(ListItemsRequest(conversation_id=conversation_id)).data) == 1


def test_an_id_that_comes_with_another_request_is_refused(stub: ConversationsServiceStub, conversation_id: str) -> None:
    """Nothing is stored; the same id with another method is another id."""
    request = CreateItemsRequest(conversation_id=conversation_id, items=[message("one")], request_id="once")
    stub.CreateItems(request)
    request.items[0].message.content[0].input_text.text = "two"
    code, details = refused(lambda: stub.CreateItems(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "The request id 'once' belongs to an earlier, different request."
    assert len(stub.ListItems(ListItemsRequest(conversation_id=conversation_id)).data) == 1
    assert stub.CreateConversation(CreateConversationRequest(request_id="once")).id != conversation_id


def test_a_refused_request_may_be_mended_under_its_id(stub: ConversationsServiceStub, conversation_id: str) -> None:
    """Only what was done is remembered."""
    request = CreateItemsRequest(conversation_id=conversation_id, items=[ConversationItem()], request_id="mended")
    assert refused(lambda: stub.CreateItems(request))[0] == grpc.StatusCode.INVALID_ARGUMENT
    del request.items[:]
    request.items.append(message("one"))
    assert len(stub.CreateItems(request).data) == 1


def test_what_was_deleted_since_is_not_answered_again(stub: ConversationsServiceStub, http: httpx.Client) -> None:
    """The keys of requests hold references, not content."""
    request = CreateConversationRequest(request_id="gone")
    http.delete(f"/v1/conversations/{stub.CreateConversation(request).id}")
    code, details = refused(lambda: stub.CreateConversation(request))
    assert (code, details) == (
        grpc.StatusCode.NOT_FOUND,
        "The conversation that this request created was deleted since.",
    )


def test_ids_are_forgotten_after_a_while(settings: Settings) -> None:
    """`--keep-requests` says after how long."""
    with (
        served(replace(settings, keep_requests=0.2)) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
    ):
        stub = ConversationsServiceStub(channel)
        request = CreateConversationRequest(request_id="short")
        first = stub.CreateConversation(request)
        time.sleep(0.3)
        assert stub.CreateConversation(request) != first


def test_rest_takes_the_id_from_its_header_and_from_nowhere_else(http: httpx.Client) -> None:
    """`Idempotency-Key`, as elsewhere; in a body or a query string it is unknown."""
    headers = {"idempotency-key": "rest-1"}
    first = http.post("/v1/conversations", json={"metadata": {"a": "1"}}, headers=headers).json()
    assert http.post("/v1/conversations", json={"metadata": {"a": "1"}}, headers=headers).json() == first
    other = http.post("/v1/conversations", json={"metadata": {"a": "2"}}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert other.headers["x-request-id"] != "rest-1"
    for response in (
        http.post("/v1/conversations", json={"request_id": "x"}),
        http.post("/v1/conversations?request_id=x", json={}),
    ):
        assert response.json()["error"]["code"] == "unknown_parameter"
    empty = http.post("/v1/conversations", json={}, headers={"idempotency-key": ""})
    assert (empty.status_code, empty.json()["error"]["param"]) == (400, "request_id")


@pytest.fixture
def cut(server: Running) -> Callable[[bytes], None]:
    """Sends a request and cuts the connection before the answer is read."""

    def send(request: bytes) -> None:
        with socket.create_connection(server.http) as client:
            client.sendall(request)
            # The first byte of the answer is there: the write was committed. The rest is lost.
            assert client.recv(1)

    return send


def test_an_answer_lost_on_its_way_is_given_again(http: httpx.Client, cut: Callable[[bytes], None]) -> None:
    """For every creating call: nothing is stored twice."""
    conversation = http.post("/v1/conversations", json={}).json()["id"]
    body = b'{"items":[{"role":"user","content":"once"}]}'
    for path in ("/v1/conversations", f"/v1/conversations/{conversation}/items"):
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        head += f"idempotency-key: lost\r\ncontent-length: {len(body)}\r\n\r\n"
        cut(head.encode() + body)
        headers = {"content-type": "application/json", "idempotency-key": "lost"}
        assert http.post(path, content=body, headers=headers).status_code == 200
    assert len(http.get("/v1/x/conversations").json()["data"]) == 2
    assert len(http.get(f"/v1/conversations/{conversation}/items").json()["data"]) == 1


def test_an_append_may_depend_on_the_last_item(stub: ConversationsServiceStub, conversation_id: str) -> None:
    """ABORTED, and nothing appended, where the conversation is not as its caller believes."""

    def append(text: str, expected: str) -> str:
        items = [message(text)]
        request = CreateItemsRequest(conversation_id=conversation_id, items=items, expected_last_item_id=expected)
        return stub.CreateItems(request).last_id

    one = append("one", "")
    assert refused(lambda: append("two", "")) == (
        grpc.StatusCode.ABORTED,
        f"The last item of the conversation is '{one}', not none as expected. Nothing was stored.",
    )
    two = append("two", one)
    assert refused(lambda: append("three", one))[0] == grpc.StatusCode.ABORTED
    assert [item.id for item in stub.ListItems(ListItemsRequest(conversation_id=conversation_id)).data] == [two, one]


def test_of_many_that_append_after_the_same_item_one_succeeds(
    stub: ConversationsServiceStub, conversation_id: str
) -> None:
    """Compare and append is one step."""

    def append(number: int) -> grpc.StatusCode:
        request = CreateItemsRequest(
            conversation_id=conversation_id, items=[message(str(number))], expected_last_item_id=""
        )
        try:
            stub.CreateItems(request)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(16) as pool:
        codes = Counter(pool.map(append, range(32)))
    assert codes == {grpc.StatusCode.OK: 1, grpc.StatusCode.ABORTED: 31}


def test_a_repeated_append_is_answered_although_the_conversation_went_on(http: httpx.Client) -> None:
    """Its condition was true when it was done; by REST it is a header, and the failure is 412."""
    items = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}/items"
    body = {"items": [{"role": "user", "content": "one"}]}
    headers = {"x-expected-last-item-id": "", "idempotency-key": "first"}
    first = http.post(items, json=body, headers=headers)
    assert http.post(items, json=body, headers=headers).json() == first.json()
    failed = http.post(items, json=body, headers={"x-expected-last-item-id": ""})
    assert (failed.status_code, failed.json()["error"]["code"]) == (412, "conversation_changed")
    assert len(http.get(items).json()["data"]) == 1
