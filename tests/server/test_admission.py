"""How many calls of a project are let in."""

import asyncio
import socket
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from convgrpc import Client
from convgrpc.errors import ConvgrpcError, ResourceExhausted, Unavailable
from convgrpc.handlers.batches import BatchHandler, BatchResult
from convgrpc.server.admission import Admission, Admitted, Limits
from convgrpc.server.app import Running
from convgrpc.server.auth import Keys
from convgrpc.server.exchange import BatchedBidiStream
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    AppendItemsResponse,
    CreateItemsRequest,
    ListConversationsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role
from tests.conftest import make_key


class OneKey(Keys):
    """Takes the header for the name of the project."""

    def __init__(self) -> None:
        pass

    async def project(self, authorization: list[str]) -> str:
        return authorization[0]


@pytest.fixture
def limited(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, project_rate=0.001)) as addresses:
        yield addresses


def test_calls_by_the_second_are_bounded_for_each_project() -> None:
    """A second's share may come at once; after that they come one by one, and the refusal tells when."""
    now = 0.0
    admission = Admission(OneKey(), Limits(calls_per_second=4), ticks=lambda: now)

    async def call(project: str) -> None:
        with await admission.enter([project]) as admitted:
            assert admitted.project == project

    async def scenario() -> None:
        nonlocal now
        for _ in range(4):
            await call("alder")
        with pytest.raises(ResourceExhausted, match="4 calls a second") as refused:
            await call("alder")
        assert refused.value.retry_after == pytest.approx(0.25)
        await call("birch")
        now += 0.25
        await call("alder")
        with pytest.raises(ResourceExhausted):
            await call("alder")
        now += 60
        for _ in range(4):
            await call("alder")
        with pytest.raises(ResourceExhausted):
            await call("alder")

    asyncio.run(scenario())


def test_calls_at_once_are_bounded_for_each_project() -> None:
    """Until one of them is done, however it ended."""
    admission = Admission(OneKey(), Limits(calls_at_once=2))

    async def breaking() -> None:
        with await admission.enter(["alder"]):
            with pytest.raises(ResourceExhausted, match="2 calls at once"):
                await admission.enter(["alder"])
            with await admission.enter(["birch"]):
                pass
            raise ValueError("broken")

    async def scenario() -> None:
        with await admission.enter(["alder"]):
            with pytest.raises(ValueError, match="broken"):
                await breaking()
            with await admission.enter(["alder"]):
                pass

    asyncio.run(scenario())


def test_a_project_gets_no_more_room_than_is_left() -> None:
    """One that takes what it can takes half, and another finds room; what it took is free again when its calls
    leave.
    """
    admission = Admission(OneKey(), Limits(server_calls=8))

    async def work(project: str) -> Admitted:
        call = await admission.enter([project])
        try:
            call.acquire_slot()
        except ResourceExhausted:
            call.leave()
            raise
        return call

    async def scenario() -> None:
        working = [await work("alder") for _ in range(4)]
        with pytest.raises(ResourceExhausted, match=r"no room for more calls at once \(--max-calls\)") as refused:
            await work("alder")
        assert refused.value.retry_after == 1
        working += [await work("birch") for _ in range(2)]
        with pytest.raises(ResourceExhausted):
            await work("birch")
        working += [await work("cedar")]
        for call in working:
            call.leave()
        assert admission.running == 0
        assert len([await work("birch") for _ in range(4)]) == 4

    asyncio.run(scenario())


def test_calls_that_wait_for_their_requests_take_no_part_in_what_is_done_at_once() -> None:
    admission = Admission(OneKey(), Limits(server_calls=2))

    async def scenario() -> None:
        waiting = [await admission.enter(["alder"]) for _ in range(10)]
        waiting[0].acquire_slot()
        with pytest.raises(ResourceExhausted):
            waiting[1].acquire_slot()
        with pytest.raises(ResourceExhausted):
            await admission.enter(["alder"])

    asyncio.run(scenario())


def test_bytes_at_once_are_bounded() -> None:
    """Those of requests, and apart from them those of answers as long as they are kept."""
    admission = Admission(OneKey(), Limits(server_bytes=100))

    async def scenario() -> None:
        first, second = await admission.enter(["alder"]), await admission.enter(["alder"])
        first.reserve_request_bytes(30)
        first.reserve_request_bytes(20)
        with pytest.raises(ResourceExhausted):
            second.reserve_request_bytes(1)
        (await admission.enter(["birch"])).reserve_request_bytes(50)
        first.leave()
        second.reserve_request_bytes(50)
        taken = second.keep_response_bytes(60, may_refuse=False)
        with pytest.raises(ResourceExhausted):
            second.keep_response_bytes(1, may_refuse=True)
        second.leave()
        third = await admission.enter(["alder"])
        third.reserve_request_bytes(50)
        taken()
        third.keep_response_bytes(50, may_refuse=True)

    asyncio.run(scenario())


def test_after_the_end_nobody_is_let_in() -> None:
    """What is in may finish, within its time."""
    admission = Admission(OneKey(), Limits())

    async def scenario() -> None:
        with await admission.enter(["alder"]):
            await admission.finish(0.01)
            with pytest.raises(Unavailable):
                await admission.enter(["alder"])
        async with asyncio.timeout(10):
            await admission.finish(60)

    asyncio.run(scenario())


def test_the_end_lets_finish_what_may() -> None:
    """As an export, and ends at once what has no end of its own."""
    admission = Admission(OneKey(), Limits())
    ended: list[ConvgrpcError] = []
    finished: list[ConvgrpcError] = []

    async def scenario() -> None:
        with (
            await admission.enter(["alder"]) as one,
            await admission.enter(["alder"]) as other,
            one.cancel_on_revoke(ended.append),
            other.cancel_on_revoke(finished.append, may_finish=True),
        ):
            await admission.finish(0.01)

    asyncio.run(scenario())
    assert [len(ended), len(finished)] == [1, 0]


def test_a_project_past_its_limit_is_told_when_to_come_back(settings: Settings, limited: Running) -> None:
    """By both transports, in the ways that clients heed; another project is served meanwhile."""
    key, other = make_key(settings, "alder"), make_key(settings, "birch")
    with (
        grpc.insecure_channel(str(limited.grpc)) as channel,
        httpx.Client(base_url=f"http://{limited.http}", timeout=20) as http,
    ):
        stub = ConversationsServiceStub(channel)
        metadata = (("authorization", f"Bearer {key}"),)
        stub.ListConversations(ListConversationsRequest(), timeout=20, metadata=metadata)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListConversations(ListConversationsRequest(), timeout=20, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers: dict[str, Any] = dict(refused.value.trailing_metadata())  # type: ignore[arg-type]
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        hint = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(hint) for detail in status.details)
        assert 900 < hint.retry_delay.seconds <= 1000
        assert 900_000 < int(trailers["grpc-retry-pushback-ms"]) <= 1_000_000

        answer = http.get("/v1/x/conversations", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert 900 < int(answer.headers["retry-after"]) <= 1000
        assert http.get("/v1/x/conversations", headers={"authorization": f"Bearer {other}"}).status_code == 200


def test_a_connection_outlives_a_refusal(settings: Settings, limited: Running) -> None:
    """Unless a body is on its way that nobody will read."""
    key = make_key(settings, "alder")
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://{limited.http}", timeout=20, headers=headers) as http:
        assert http.get("/v1/x/conversations").status_code == 200
        refused = http.get("/v1/x/conversations")
        assert (refused.status_code, refused.headers.get("connection")) == (429, None)
        refused = http.post("/v1/conversations", json={})
        assert (refused.status_code, refused.headers.get("connection")) == (429, "close")


def test_the_client_is_told_when_to_come_back(settings: Settings, limited: Running) -> None:
    """In the exception, in seconds."""
    with Client(str(limited.grpc), api_key=make_key(settings, "alder")) as client:
        client.list_conversations()
        with pytest.raises(ResourceExhausted) as refused:
            client.list_conversations()
    assert refused.value.retry_after is not None
    assert 900 < refused.value.retry_after <= 1000


def test_calls_at_once_are_bounded_on_a_server(settings: Settings) -> None:
    """A call that waits for its body is one of them."""
    head = b"POST /v1/conversations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    with (
        served(replace(settings, project_concurrency=1)) as server,
        httpx.Client(base_url=f"http://{server.http}", timeout=20) as http,
        socket.create_connection(server.http, timeout=20) as connection,
    ):
        connection.sendall(head)
        give_up = time.monotonic() + 10
        while (answer := http.get("/v1/x/conversations")).status_code == 200 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert answer.status_code == 429
        connection.sendall(b"{}")
        assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
        assert http.get("/v1/x/conversations").status_code == 200


def by_grpc(server: Running, conversation: str) -> str:
    with grpc.insecure_channel(str(server.grpc)) as channel:
        try:
            request = CreateItemsRequest(conversation_id=conversation, items=items())
            ConversationsServiceStub(channel).CreateItems(request, timeout=20)
        except grpc.RpcError as refusal:
            return str(refusal.code().name)
    return "OK"


def by_rest(server: Running, conversation: str) -> str:
    url = f"http://{server.http}/v1/conversations/{conversation}/items"
    answer = httpx.post(url, json={"items": [{"role": "user", "content": LARGE}]}, timeout=20)
    return {200: "OK", 429: "RESOURCE_EXHAUSTED"}[answer.status_code]


def by_stream(server: Running, conversation: str) -> str:
    with grpc.insecure_channel(str(server.grpc)) as channel:
        try:
            request = AppendItemsRequest(conversation_id=conversation, items=items())
            list(ConversationsServiceStub(channel).AppendItems(iter([request]), timeout=20))
        except grpc.RpcError as refusal:
            return str(refusal.code().name)
    return "OK"


LARGE = "x" * 60_000


def items() -> list[ConversationItem]:
    content = [ContentPart(input_text=InputText(text=LARGE))]
    return [ConversationItem(message=Message(role=Role.ROLE_USER, content=content))]


@pytest.mark.parametrize("way", [by_grpc, by_rest, by_stream])
def test_requests_take_room_by_their_bytes_until_they_are_done(
    way: Callable[[Running, str], str], settings: Settings
) -> None:
    """In whichever way they came: while one waits for the database, there is no room for another."""
    with (
        served(replace(settings, max_message_bytes=65_000, max_request_bytes=130_000)) as server,
        closing(sqlite3.connect(settings.db, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        with Client(str(server.grpc)) as client:
            conversation = client.create_conversation().id
        other.execute("BEGIN IMMEDIATE")
        first = pool.submit(way, server, conversation)
        time.sleep(0.5)
        assert way(server, conversation) == "RESOURCE_EXHAUSTED"
        other.execute("ROLLBACK")
        assert first.result(20) == "OK"
        assert way(server, conversation) == "OK"


class OneByOne(BatchHandler):
    """Does one request at a time, and leaves the others."""

    def __init__(self) -> None:
        self._left = 0

    def prepare(self, request: object) -> object:
        return request

    def accept(self, prepared: object) -> None:
        self._left += 1

    async def run_batch(self, deadline: float) -> BatchResult:
        self._left -= 1
        return BatchResult(AppendItemsResponse(), None, self._left)


def test_what_is_left_of_a_batch_takes_room_until_it_is_done() -> None:
    admission = Admission(OneKey(), Limits(server_bytes=300))

    async def messages() -> AsyncGenerator[bytes]:
        for _ in range(2):
            yield bytes(50)

    async def decode(data: bytes) -> AppendItemsRequest:
        return AppendItemsRequest()

    async def scenario() -> None:
        with await admission.enter(["alder"]) as stream, await admission.enter(["birch"]) as other:
            replies = BatchedBidiStream(OneByOne(), stream, messages(), decode, timeout=10).replies()
            await anext(replies)
            with pytest.raises(ResourceExhausted):
                other.reserve_request_bytes(201)
            await anext(replies)
            other.reserve_request_bytes(201)
            assert [reply async for reply in replies] == []

    asyncio.run(scenario())
