"""A stream of appends, by a real server: what is acknowledged, what is refused, and how it ends."""

import asyncio
import json
import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from convgrpc.server import exchange
from convgrpc.server.app import Running, open_store
from convgrpc.settings import Settings
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.testing import served
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    AppendItemsResponse,
    CreateConversationRequest,
    ListItemsRequest,
    Order,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role
from tests.conftest import make_key

TIMEOUT = 30
PATH = "/convgrpc.v1.ConversationsService/AppendItems"


def append(conversation: str, *texts: str, **fields: Any) -> AppendItemsRequest:
    contents = [ContentPart(input_text=InputText(text=text)) for text in texts]
    items = [ConversationItem(message=Message(role=Role.ROLE_USER, content=[content])) for content in contents]
    return AppendItemsRequest(conversation_id=conversation, items=items, **fields)


class Stream:
    """An open stream, over which requests are sent one by one."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._requests: queue.Queue[AppendItemsRequest | bytes | None] = queue.Queue()
        rpc: Any = channel.stream_stream(PATH, _serialized, AppendItemsResponse.FromString)
        self.call: Any = rpc(iter(self._requests.get, None), timeout=TIMEOUT, metadata=metadata)

    def send(self, *requests: AppendItemsRequest | bytes) -> None:
        for request in requests:
            self._requests.put(request)

    def close(self) -> None:
        self._requests.put(None)

    def settle(self) -> None:
        """Waits until gRPC takes no more of what is to be sent."""
        left = -1
        while left != self._requests.qsize():
            left = self._requests.qsize()
            time.sleep(0.7)

    def answer(self, requests: int) -> list[str]:
        """The ids that were acknowledged up to a request."""
        ids: list[str] = []
        while True:
            response = next(self.call)
            ids += response.item_ids
            assert response.requests <= requests
            if response.requests == requests:
                return ids

    def refusal(self) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
        """Why the stream ends, with no more answers."""
        with pytest.raises(grpc.RpcError):
            next(self.call)
        return self._reason()

    def end(self) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
        """Why the stream ends, whatever is answered before."""
        with pytest.raises(grpc.RpcError):
            list(self.call)
        return self._reason()

    def _reason(self) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
        status = status_pb2.Status.FromString(dict(self.call.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        return self.call.code(), info


def _serialized(request: AppendItemsRequest | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


@contextmanager
def opened(channel: grpc.Channel, **options: Any) -> Iterator[Stream]:
    stream = Stream(channel, **options)
    try:
        yield stream
    finally:
        stream.call.cancel()
        stream.close()


@pytest.fixture
def stream(channel: grpc.Channel) -> Iterator[Stream]:
    with opened(channel) as stream:
        yield stream


@pytest.fixture
def conversation(stub: ConversationsServiceStub) -> str:
    return stub.CreateConversation(CreateConversationRequest()).id


def listed(stub: ConversationsServiceStub, conversation: str, **call: Any) -> list[ConversationItem]:
    request = ListItemsRequest(conversation_id=conversation, order=Order.ORDER_ASC, limit=100)
    return list(stub.ListItems(request, **call).data)


def texts(stub: ConversationsServiceStub, conversation: str, **call: Any) -> list[str]:
    return [item.message.content[0].input_text.text for item in listed(stub, conversation, **call)]


def test_requests_are_acknowledged_with_the_ids_of_their_items(
    stub: ConversationsServiceStub, stream: Stream, conversation: str
) -> None:
    """Before the stream ends, and in the order in which they were sent; each may be for another conversation."""
    other = stub.CreateConversation(CreateConversationRequest()).id
    stream.send(append(conversation, "one", "two"), append(other, "else"), append(conversation, "three"))
    ids = stream.answer(3)
    first, second = listed(stub, conversation), listed(stub, other)
    assert ids == [first[0].id, first[1].id, second[0].id, first[2].id]
    stream.send(append(conversation, "four"))
    stream.answer(4)
    assert texts(stub, conversation) == ["one", "two", "three", "four"]
    stream.close()
    assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK
    assert dict(stream.call.trailing_metadata())["x-request-id"].startswith("req_")


def test_a_stream_without_requests_does_nothing(stream: Stream) -> None:
    stream.close()
    assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("refused", "code", "reason", "param"),
    [
        (append("conv_none", "x"), grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND", ""),
        (append("{}"), grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_ARRAY", "items"),
        (append("{}", *"x" * 101), grpc.StatusCode.INVALID_ARGUMENT, "ARRAY_ABOVE_MAX_LENGTH", "items"),
        (append("{}", "x", request_id=""), grpc.StatusCode.INVALID_ARGUMENT, "STRING_BELOW_MIN_LENGTH", "request_id"),
        (append("{}", "x", expected_last_item_id=""), grpc.StatusCode.ABORTED, "CONVERSATION_CHANGED",
         "expected_last_item_id"),
        (b"\xff" * 9, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE", ""),
    ],
)  # fmt: skip
def test_the_first_request_that_is_refused_ends_the_stream(
    stub: ConversationsServiceStub,
    stream: Stream,
    conversation: str,
    refused: AppendItemsRequest | bytes,
    code: grpc.StatusCode,
    reason: str,
    param: str,
) -> None:
    """Those before it are acknowledged first, those after it are not done, and the error tells its number."""
    if isinstance(refused, AppendItemsRequest):
        refused.conversation_id = refused.conversation_id.format(conversation)
    stream.send(append(conversation, "one"), append(conversation, "two"), refused, append(conversation, "three"))
    assert len(stream.answer(2)) == 2
    told, info = stream.refusal()
    assert (told, info.reason) == (code, f"ERROR_REASON_{reason}")
    assert (info.metadata["request"], info.metadata["param"]) == ("3", param)
    assert texts(stub, conversation) == ["one", "two"]


def test_a_request_that_was_done_is_acknowledged_and_not_done_again(
    channel: grpc.Channel, stub: ConversationsServiceStub, conversation: str
) -> None:
    """With the ids of the first time: on the same stream, and on one that takes it up."""
    requests = [append(conversation, text, request_id=text) for text in ("one", "two")]
    with opened(channel) as stream:
        stream.send(*requests, requests[0])
        ids = stream.answer(3)
    with opened(channel) as stream:
        stream.send(*requests, append(conversation, "three", request_id="three"))
        again = stream.answer(3)
    assert ids[0] == ids[2]
    assert again[:2] == ids[:2]
    assert texts(stub, conversation) == ["one", "two", "three"]


def test_what_came_while_a_batch_was_written_is_written_together(
    stub: ConversationsServiceStub, stream: Stream, conversation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And answered once."""
    writes: list[int] = []
    free = threading.Event()
    real = SqliteStore.append_batch

    async def slow(self: SqliteStore, project: str, appends: Any, deadline: float | None) -> Any:
        writes.append(len(appends))
        await asyncio.to_thread(free.wait, TIMEOUT)
        return await real(self, project, appends, deadline)

    monkeypatch.setattr(SqliteStore, "append_batch", slow)
    stream.send(append(conversation, "0"))
    while not writes:
        time.sleep(0.001)
    stream.send(*(append(conversation, str(number)) for number in range(1, 40)))
    # Until they are there.
    time.sleep(0.5)
    free.set()
    assert len(stream.answer(40)) == 40
    assert writes == [1, 39]
    assert texts(stub, conversation) == [str(number) for number in range(40)]


def test_no_more_is_read_than_there_is_room_for(
    channel: grpc.Channel, stub: ConversationsServiceStub, conversation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is written, gRPC holds the caller back: in number, and by the size of what is read."""
    free = threading.Event()
    taken: list[int] = []
    real = SqliteStore.append_batch

    async def slow(self: SqliteStore, project: str, appends: Any, deadline: float | None) -> Any:
        taken.append(len(appends))
        await asyncio.to_thread(free.wait, TIMEOUT)
        return await real(self, project, appends, deadline)

    monkeypatch.setattr(SqliteStore, "append_batch", slow)
    for text, most in (("x", exchange.MAX_REQUESTS), ("x" * 200_000, 1 + exchange.MAX_BYTES // 200_000)):
        free.clear()
        taken.clear()
        with opened(channel) as stream:
            stream.send(*(append(conversation, text) for _ in range(4 * most)))
            stream.close()
            stream.settle()
            free.set()
            assert len(stream.answer(4 * most)) == 4 * most
        assert max(taken) == most


def test_a_caller_that_does_not_take_its_answers_is_held_back(settings: Settings) -> None:
    """What it sends is not read beyond some answers that wait; it is told once it takes them."""
    with (
        served(replace(settings, transfer_timeout=1.0)) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        opened(channel) as stream,
    ):
        stub = ConversationsServiceStub(channel)
        conversation = stub.CreateConversation(CreateConversationRequest()).id
        stream.send(*[append(conversation, *"x" * 100)] * 10_000)
        newest, last = ListItemsRequest(conversation_id=conversation, limit=1), ""
        while (now := stub.ListItems(newest).last_id) != last or not now:
            # For longer than an answer may take.
            last = now
            time.sleep(2)
        code, info = stream.end()
        assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ERROR_REASON_TOO_SLOW")


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log has of streams that are over."""
    calls = [record.__dict__["call"] for record in caplog.records if "call" in record.__dict__]
    return [call for call in calls if call["method"] == PATH]


def test_a_caller_that_sends_nothing_for_long_is_told_so(settings: Settings) -> None:
    """What came before is acknowledged."""
    with (
        served(replace(settings, transfer_timeout=0.3)) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        opened(channel) as stream,
    ):
        conversation = ConversationsServiceStub(channel).CreateConversation(CreateConversationRequest()).id
        stream.send(append(conversation, "one"))
        stream.answer(1)
        time.sleep(0.2)
        stream.send(append(conversation, "two"))
        stream.answer(2)
        code, info = stream.refusal()
        assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "ERROR_REASON_STREAM_IDLE")
        assert "request" not in info.metadata


def test_large_requests_are_done_in_their_order(
    stub: ConversationsServiceStub, stream: Stream, conversation: str
) -> None:
    """Those that are read beside the event loop too."""
    sizes = [10, 2_000_000, 10, 100_000, 10]
    stream.send(*(append(conversation, str(number).ljust(size, "x")) for number, size in enumerate(sizes)))
    assert len(stream.answer(5)) == 5
    assert [text[0] for text in texts(stub, conversation)] == ["0", "1", "2", "3", "4"]


def test_what_is_stored_takes_no_room(settings: Settings) -> None:
    """A stream may be larger than what the server takes of requests at once."""
    small = replace(settings, max_message_bytes=200_000, max_request_bytes=400_000)
    with (
        served(small) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        opened(channel) as stream,
    ):
        conversation = ConversationsServiceStub(channel).CreateConversation(CreateConversationRequest()).id
        for number in range(1, 7):
            stream.send(append(conversation, "x" * 100_000))
            stream.answer(number)


def test_a_server_that_stops_acknowledges_what_it_took(settings: Settings) -> None:
    """And then says that it stops; it does not wait for more."""
    context = served(replace(settings, shutdown_grace=TIMEOUT))
    server = context.__enter__()
    with grpc.insecure_channel(str(server.grpc)) as channel, opened(channel) as stream:
        conversation = ConversationsServiceStub(channel).CreateConversation(CreateConversationRequest()).id
        stream.send(*(append(conversation, str(number)) for number in range(5)))
        stream.answer(5)
        began = time.monotonic()
        context.__exit__(None, None, None)
        assert time.monotonic() - began < TIMEOUT / 2
        code, info = stream.refusal()
        assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "ERROR_REASON_SHUTTING_DOWN")


def test_a_key_that_is_revoked_ends_the_stream(settings: Settings, server: Running, channel: grpc.Channel) -> None:
    """Also one that waits for its next request; what was acknowledged is there."""
    key = make_key(settings, "alder")
    kept = (("authorization", f"Bearer {make_key(settings, 'alder')}"),)
    mine = (("authorization", f"Bearer {key}"),)
    stub = ConversationsServiceStub(channel)
    conversation = stub.CreateConversation(CreateConversationRequest(), metadata=mine).id
    with opened(channel, metadata=mine) as stream:
        stream.send(append(conversation, "one"))
        stream.answer(1)

        async def revoke() -> None:
            store = await open_store(settings)
            await store.revoke_key(key.split("_")[1], time.time())
            await store.close()

        asyncio.run(revoke())
        code, info = stream.refusal()
        assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "ERROR_REASON_UNAUTHENTICATED")
    assert texts(stub, conversation, metadata=kept) == ["one"]


def test_requests_wait_where_calls_by_the_second_are_bounded(settings: Settings) -> None:
    """Each is a call. None is refused: the stream goes on when it may."""
    with (
        served(replace(settings, project_rate=10)) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        opened(channel) as stream,
    ):
        conversation = ConversationsServiceStub(channel).CreateConversation(CreateConversationRequest()).id
        began = time.monotonic()
        stream.send(*(append(conversation, str(number)) for number in range(20)))
        assert len(stream.answer(20)) == 20
        # Ten were saved up, of which two went to the calls themselves.
        assert time.monotonic() - began > 0.8


def test_a_stream_is_one_call_in_the_log(
    stub: ConversationsServiceStub, stream: Stream, conversation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With how many answers it had, and nothing of what was sent."""
    with caplog.at_level(logging.INFO, logger="convgrpc.calls"):
        stream.send(append(conversation, "a secret"))
        stream.answer(1)
        assert not told(caplog)
        stream.close()
        assert list(stream.call) == []
        until = time.monotonic() + TIMEOUT
        while not (lines := told(caplog)):
            assert time.monotonic() < until
    (line,) = lines
    assert (line["status"], line["messages"], line["project"]) == ("OK", 1, "default")
    assert "secret" not in json.dumps(line)


def test_many_streams_at_once_lose_and_repeat_nothing(channel: grpc.Channel, stub: ConversationsServiceStub) -> None:
    """Into one conversation; the requests of each are in their order."""
    conversation = stub.CreateConversation(CreateConversationRequest()).id

    def run(name: str) -> None:
        with opened(channel) as stream:
            stream.send(*(append(conversation, f"{name}{number}") for number in range(12)))
            stream.answer(12)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    found = texts(stub, conversation)
    assert sorted(found) == sorted(f"{name}{number}" for name in "abcdefgh" for number in range(12))
    for name in "abcdefgh":
        assert [each for each in found if each[0] == name] == [f"{name}{number}" for number in range(12)]
