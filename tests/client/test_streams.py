"""Streams of either client: what they give, how they are taken up where they broke, and how they end."""

import asyncio
import gc
import inspect
import random
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from math import inf
from typing import Any

import grpc
import pytest

import convgrpc
from convgrpc import AsyncClient, Client, errors
from convgrpc.client import resend_buffer
from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    AppendItemsResponse,
    ConversationItemBatch,
    ExportItemsRequest,
    WatchItemsRequest,
)
from convgrpc.v1.item_pb2 import ConversationItem

from .raw_server import streaming

TIMEOUT = 20


def hello(text: str = "Hello!") -> dict[str, Any]:
    return {"role": "user", "content": text}


def texts(items: Any) -> list[str]:
    return [item.message.content[0].input_text.text for item in items]


class Appends:
    """A server that acknowledges requests one by one, and breaks the streams after so many of them, one after the
    other.
    """

    def __init__(self, *breaks: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._breaks = list(breaks)
        self._code = code
        self.streams: list[list[AppendItemsRequest]] = []

    def __call__(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        taken: list[AppendItemsRequest] = []
        self.streams.append(taken)
        last = self._breaks.pop(0) if self._breaks else None
        for data in requests:
            taken.append(AppendItemsRequest.FromString(data))
            if len(taken) == last:
                # This one was taken, and is not acknowledged.
                context.abort(self._code, "broken")
            yield AppendItemsResponse(requests=len(taken), item_ids=[taken[-1].conversation_id]).SerializeToString()


def conversations(count: int) -> list[Any]:
    return [{"conversation_id": f"conv_{number}", "items": [hello()]} for number in range(count)]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken streams are taken up almost at once."""
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.02)


# Appends.


def test_appends_are_acknowledged(client: Any) -> None:
    """By both clients, of messages and of plain values; from iterators of any kind."""
    one, two = client.create_conversation(), client.create_conversation()
    message = AppendItemsRequest(conversation_id=two.id, items=client.create_conversation().metadata and [])
    message.items.add().CopyFrom(client.create_items(one.id, items=[hello("first")]).data[0])
    message.items[0].ClearField("id")
    requests = [{"conversation_id": one.id, "items": [hello("a"), hello("b")]}, message]
    answers = list(client.append_items(each for each in requests))
    assert answers[-1].requests == 2
    stored = list(client.iter_items(one.id, order="asc"))[1:] + list(client.iter_items(two.id))
    assert [item_id for answer in answers for item_id in answer.item_ids] == [item.id for item in stored]
    assert texts(stored) == ["a", "b", "first"]
    assert not message.request_id, "what the caller gave was changed"


def test_nothing_to_append_is_no_call() -> None:
    with Client("127.0.0.1:1") as client:
        assert list(client.append_items([])) == []


def test_asynchronous_iterables_are_taken_too(server: Running) -> None:
    async def scenario() -> None:
        async with AsyncClient(str(server.grpc)) as client:
            conversation = await client.create_conversation()

            async def requests() -> Any:
                for number in range(40):
                    await asyncio.sleep(0)
                    yield {"conversation_id": conversation.id, "items": [hello(str(number))]}

            counts = [answer.requests async for answer in client.append_items(requests())]
            assert counts == sorted(counts)
            assert counts[-1] == 40
            found = [item async for item in client.iter_items(conversation.id, order="asc", limit=100)]
            assert texts(found) == [str(number) for number in range(40)]

    asyncio.run(scenario())


def test_what_was_not_acknowledged_is_sent_again(client_class: Any) -> None:
    """Under the same ids, from the first of them on; the counts go on as if nothing had happened."""
    appends = Appends(3, 1, 4)
    with streaming(appends) as port, client_class(f"127.0.0.1:{port}") as client:
        requests = conversations(8)
        requests[3] = AppendItemsRequest(conversation_id="conv_3")
        requests[6] = AppendItemsRequest(conversation_id="conv_6")
        answers = list(client.append_items(requests))
    assert [answer.requests for answer in answers] == [*range(1, 9)]
    assert [each for answer in answers for each in answer.item_ids] == [f"conv_{number}" for number in range(8)]
    heads = [stream[0].conversation_id for stream in appends.streams]
    assert heads == ["conv_0", "conv_2", "conv_2", "conv_5"]
    ids: dict[str, set[str]] = {}
    for request in (request for stream in appends.streams for request in stream):
        ids.setdefault(request.conversation_id, set()).add(request.request_id)
    assert {len(each) for each in ids.values()} == {1}
    assert len(set.union(*ids.values())) == 8


def test_ids_that_were_given_stay(client_class: Any) -> None:
    appends = Appends()
    with streaming(appends) as port, client_class(f"127.0.0.1:{port}") as client:
        list(client.append_items([{**conversations(1)[0], "request_id": "mine"}]))
    assert [request.request_id for request in appends.streams[0]] == ["mine"]


def test_a_server_that_stays_away_is_asked_five_times(client_class: Any, hurried: None) -> None:
    """And again as often after each time that something was done."""
    appends = Appends(*[1] * 100)
    with streaming(appends) as port, client_class(f"127.0.0.1:{port}") as client:
        with pytest.raises(convgrpc.Unavailable):
            list(client.append_items(conversations(3)))
        assert len(appends.streams) == 5
        appends = Appends(1, 1, 1, 2, 1, 1, 1)
    with streaming(appends) as port, client_class(f"127.0.0.1:{port}") as client:
        assert list(client.append_items(conversations(3)))[-1].requests == 3
        assert len(appends.streams) == 8


def test_other_failures_end_the_stream_at_once(client_class: Any) -> None:
    appends = Appends(1, code=grpc.StatusCode.RESOURCE_EXHAUSTED)
    with (
        streaming(appends) as port,
        client_class(f"127.0.0.1:{port}") as client,
        pytest.raises(convgrpc.ResourceExhausted),
    ):
        list(client.append_items(conversations(1)))
    assert len(appends.streams) == 1


def test_the_request_that_is_refused_is_told_by_its_number(client: Any) -> None:
    """Whether the server finds the fault or the client does; those before it are done."""
    conversation = client.create_conversation()
    good = {"conversation_id": conversation.id, "items": [hello()]}
    for bad, error, param in (
        ({"conversation_id": "conv_none", "items": [hello()]}, convgrpc.NotFound, None),
        ({"conversation_id": conversation.id, "items": []}, convgrpc.InvalidArgument, "items"),
        (
            {"conversation_id": conversation.id, "items": [{**hello(), "role": 1}]},
            convgrpc.InvalidArgument,
            "items[0].role",
        ),
        ({"conversation_id": conversation.id, "thing": 1}, convgrpc.InvalidArgument, "thing"),
        ([], convgrpc.InvalidArgument, None),
    ):
        before = len(list(client.iter_items(conversation.id)))
        with pytest.raises(error) as refused:
            list(client.append_items([good, good, bad, good]))
        assert (refused.value.request_number, refused.value.param) == (3, param)
        assert len(list(client.iter_items(conversation.id))) == before + 2


class Refusing:
    """A server that breaks the stream at a request, and refuses it when it comes again; others it acknowledges."""

    def __init__(self, at: str) -> None:
        self._at = at
        self._has_broken = False

    def __call__(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for number, data in enumerate(requests, 1):
            if AppendItemsRequest.FromString(data).conversation_id == self._at:
                self._end(number, context)
            yield AppendItemsResponse(requests=number).SerializeToString()

    def _end(self, number: int, context: Any) -> None:
        if not self._has_broken:
            self._has_broken = True
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        error = errors.conversation_not_found(self._at)
        error.request_number = number
        status = errors.to_status(error, "req_1")
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, error.message)


def test_a_number_counts_the_requests_of_streams_before(client_class: Any, hurried: None) -> None:
    """Whatever else is on its way when the server refuses."""
    for _ in range(10):
        with (
            streaming(Refusing("conv_2")) as port,
            client_class(f"127.0.0.1:{port}") as client,
            pytest.raises(convgrpc.NotFound) as refused,
        ):
            list(client.append_items(conversations(20)))
        assert refused.value.request_number == 3


def test_a_source_that_waits_for_what_is_cancelled_does_not_end_well(server: Running) -> None:
    """What it would have said next is missing."""

    async def scenario() -> None:
        async with AsyncClient(str(server.grpc)) as client:
            conversation = await client.create_conversation()

            async def requests() -> Any:
                yield {"conversation_id": conversation.id, "items": [{"role": "user", "content": "one"}]}
                cancelled = asyncio.get_running_loop().create_future()
                cancelled.cancel()
                await cancelled

            answers = client.append_items(requests())
            assert (await anext(answers)).requests == 1
            with pytest.raises(asyncio.CancelledError):
                await anext(answers)

    asyncio.run(scenario())


def test_infinity_is_no_bound(client: Any) -> None:
    """As for other calls."""
    conversation = client.create_conversation(items=[{"role": "user", "content": "one"}])
    assert [item.id for item in client.iter_exported_items(conversation.id, timeout=inf)]


def test_what_is_raised_while_a_request_is_made_comes_back(client: Any) -> None:
    """Once those before it are acknowledged."""
    conversation = client.create_conversation()

    def requests() -> Iterator[dict[str, Any]]:
        for number in range(3):
            yield {"conversation_id": conversation.id, "items": [hello(str(number))]}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(client.append_items(requests()))
    assert len(list(client.iter_items(conversation.id))) == 3


def test_no_more_is_sent_than_may_be_sent_again(client_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made when there is room for them."""
    monkeypatch.setattr(resend_buffer, "MAX_REQUESTS", 3)
    made, most = 0, 0

    def requests() -> Iterator[dict[str, Any]]:
        nonlocal made
        for each in conversations(20):
            made += 1
            yield each

    def slow(sent: Iterator[bytes], context: Any) -> Iterator[bytes]:
        nonlocal most
        for number, _ in enumerate(sent, 1):
            time.sleep(0.01)
            most = max(most, made - number + 1)
            yield AppendItemsResponse(requests=number).SerializeToString()

    with streaming(slow) as port, client_class(f"127.0.0.1:{port}") as client:
        assert list(client.append_items(requests()))[-1].requests == 20
    # The one that comes next is made already by some.
    assert most in (3, 4)


def test_large_requests_are_bounded_by_their_bytes() -> None:
    """One alone may be larger."""
    window = resend_buffer.Window()
    window.add(bytes(resend_buffer.MAX_BYTES + 1))
    assert not window.has_room
    window.acknowledge(1)
    assert window.has_room
    window.add(b"1")
    assert window.has_room


def test_a_request_that_is_made_when_its_stream_breaks_goes_to_the_next() -> None:
    """The caller's iterable is never asked by two at once."""
    broken, asked = threading.Event(), 0

    def breaks_after_the_first(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for number, _ in enumerate(requests, 1):
            yield AppendItemsResponse(requests=number).SerializeToString()
            if not broken.is_set():
                broken.set()
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    def requests() -> Iterator[dict[str, Any]]:
        nonlocal asked
        for each in conversations(4):
            asked += 1
            if asked == 2:
                broken.wait(TIMEOUT)
                time.sleep(0.4)
            yield each

    with streaming(breaks_after_the_first) as port, Client(f"127.0.0.1:{port}") as client:
        assert [answer.requests for answer in client.append_items(requests())] == [1, 2, 3, 4]
    assert asked == 4


def test_a_stream_that_was_idle_is_opened_again(tmp_path: Any) -> None:
    """When there is a request to send, however long that takes."""
    free = convgrpc_free()
    settings = Settings(db=str(tmp_path / "a.db"), grpc=free, http=free, transfer_timeout=0.2)

    def requests(conversation: str) -> Iterator[dict[str, Any]]:
        for number in range(3):
            yield {"conversation_id": conversation, "items": [hello(str(number))]}
            time.sleep(1.0)

    with served(settings) as server, Client(str(server.grpc)) as client:
        conversation = client.create_conversation().id
        assert [answer.requests for answer in client.append_items(requests(conversation))] == [1, 2, 3]
        assert texts(client.iter_items(conversation, order="asc")) == ["0", "1", "2"]


def convgrpc_free() -> Any:
    from tests.conftest import FREE_PORT

    return FREE_PORT


# What is read.


def test_all_items_are_exported(client: Any) -> None:
    conversation = client.create_conversation()
    for start in range(0, 60, 20):
        client.create_items(conversation.id, items=[hello(str(start + number)) for number in range(20)])
    batches = list(client.export_items(conversation.id))
    expected = [str(number) for number in range(60)]
    assert [text for batch in batches for text in texts(batch.data)] == expected
    assert texts(client.iter_exported_items(conversation.id)) == expected
    tenth = next(item for item in batches[0].data if texts([item]) == ["9"])
    assert texts(client.iter_exported_items(conversation.id, after=tenth.id)) == expected[10:]
    with pytest.raises(convgrpc.NotFound):
        list(client.export_items("conv_none"))


class Batches:
    """A server whose streams give the batches after a cursor, two of them, and then break, until there are no more."""

    def __init__(self, message: type[Any], code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._message = message
        self._code = code
        self.cursors: list[str | None] = []

    def __call__(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        request = self._message.FromString(next(requests))
        self.cursors.append(request.after if request.HasField("after") else None)
        start = int(request.after or 0)
        for number in range(start + 1, min(start + 2, 5) + 1):
            item = ConversationItem(id=f"msg_{number}")
            yield ConversationItemBatch(data=[item], cursor=str(number)).SerializeToString()
        if start + 2 < 5:
            context.abort(self._code, "broken")


@pytest.mark.parametrize(
    ("name", "message"), [("export_items", ExportItemsRequest), ("watch_items", WatchItemsRequest)]
)
def test_a_stream_that_broke_goes_on_after_its_last_cursor(client_class: Any, name: str, message: type[Any]) -> None:
    """Nothing is missing and nothing comes twice."""
    server = Batches(message)
    with streaming(server) as port, client_class(f"127.0.0.1:{port}") as client:
        batches = list(getattr(client, name)("conv_1"))
    assert [batch.data[0].id for batch in batches] == [f"msg_{number}" for number in range(1, 6)]
    assert server.cursors == [None, "2", "4"]


def test_streams_that_break_for_another_reason_are_not_taken_up(client_class: Any) -> None:
    """A watcher that was too slow is told so."""
    server = Batches(WatchItemsRequest, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with (
        streaming(server) as port,
        client_class(f"127.0.0.1:{port}") as client,
        pytest.raises(convgrpc.ResourceExhausted),
    ):
        list(client.watch_items("conv_1"))
    assert server.cursors == [None]


def test_a_watch_has_what_is_there_and_what_comes(server: Running) -> None:
    with Client(str(server.grpc)) as client:
        conversation = client.create_conversation(items=[hello("there")])
        with closing(client.iter_watched_items(conversation.id)) as items:
            assert texts([next(items)]) == ["there"]
            list(client.append_items([{"conversation_id": conversation.id, "items": [hello("comes")]}]))
            assert texts([next(items)]) == ["comes"]


def test_a_watch_survives_the_restart_of_its_server(tmp_path: Any) -> None:
    """It is taken up by the next one, which has the same address."""
    from convgrpc.settings import Address

    free = convgrpc_free()
    settings = Settings(db=str(tmp_path / "a.db"), grpc=free, http=free)
    first = served(settings)
    running = first.__enter__()
    with Client(str(running.grpc)) as client:
        conversation = client.create_conversation(items=[hello("before")]).id
        with closing(client.iter_watched_items(conversation)) as items:
            assert texts([next(items)]) == ["before"]
            first.__exit__(None, None, None)
            again = Settings(db=settings.db, grpc=Address("127.0.0.1", running.grpc.port), http=free)
            with served(again):
                client.create_items(conversation, items=[hello("after")])
                assert texts([next(items)]) == ["after"]


# How they end.


def test_who_stops_reading_ends_the_call(client_class: Any) -> None:
    """By closing the stream, or by having it no more."""
    ended = threading.Semaphore(0)

    def endless(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.add_callback(ended.release)
        number = 0
        while context.is_active():
            number += 1
            yield ConversationItemBatch(cursor=str(number)).SerializeToString()
            time.sleep(0.01)

    with streaming(endless) as port:
        with Client(f"127.0.0.1:{port}") as client:
            batches = client.watch_items("conv_1")
            next(batches)
            batches.close()
            assert ended.acquire(timeout=TIMEOUT)
            for _ in client.watch_items("conv_1"):
                break
            gc.collect()
            assert ended.acquire(timeout=TIMEOUT)

        async def scenario() -> None:
            async with AsyncClient(f"127.0.0.1:{port}") as client:
                async with aclosing(client.watch_items("conv_1")) as batches:
                    await anext(batches)
                assert await asyncio.to_thread(ended.acquire, timeout=TIMEOUT)

        asyncio.run(scenario())


def test_a_client_that_is_closed_ends_its_streams(server: Running) -> None:
    """Whoever waits for one is told."""
    with Client(str(server.grpc)) as client:
        conversation = client.create_conversation(items=[hello()])
        batches = client.watch_items(conversation.id)
        next(batches)
        threading.Timer(0.2, client.close).start()
        with pytest.raises(convgrpc.Cancelled):
            next(batches)

    async def scenario() -> None:
        client = AsyncClient(str(server.grpc))
        batches = client.watch_items(conversation.id)
        await anext(batches)
        asyncio.get_running_loop().call_later(0.2, lambda: closings.append(asyncio.ensure_future(client.close())))
        with pytest.raises(convgrpc.Cancelled):
            await anext(batches)

    closings: list[Any] = []
    asyncio.run(scenario())


def test_streams_have_no_deadline_but_their_own(server: Running, client_class: Any) -> None:
    with client_class(str(server.grpc), timeout=0.5) as client:
        conversation = client.create_conversation(items=[hello()])

        def requests() -> Iterator[dict[str, Any]]:
            for _ in range(3):
                time.sleep(0.4)
                yield {"conversation_id": conversation.id, "items": [hello()]}

        assert list(client.append_items(requests()))[-1].requests == 3
        began = time.monotonic()
        with pytest.raises(convgrpc.DeadlineExceeded):
            list(client.watch_items(conversation.id, timeout=0.5))
        assert 0.4 < time.monotonic() - began < TIMEOUT / 2


def test_arguments_are_looked_at_before_anything_is_read(client_class: Any) -> None:
    """As with calls; those of a client that is closed too."""
    client = Client("127.0.0.1:1")
    with pytest.raises(convgrpc.InvalidArgument):
        client.watch_items(1)  # type: ignore[arg-type]
    assert inspect.isgenerator(client.watch_items("conv_1"))
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(client.watch_items("conv_1"))
