"""Watches: what a conversation has and then what comes, each item once, for as long as the caller likes."""

import asyncio
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convgrpc.contract.decoder import decode
from convgrpc.server.app import open_store
from convgrpc.server.http import streaming
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2 import WatchItemsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem
from tests.conftest import FREE_PORT, make_key
from tests.server.streams import TIMEOUT, Site, Talk, read_to_the_end, reason, texts
from tests.server.test_metrics import Measured

PATIENCE = 1.0
"""Seconds that clients of these servers have to take an answer."""
SOON = 5.0
"""Seconds within which something is noticed that is promised at once, on a machine that is busy."""
LARGE = "x" * 100_000
MANY = 300
STREAMS_OF_A_CONNECTION = 100
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def serving(settings: Settings, patience: float = PATIENCE) -> Iterator[Site]:
    with (
        served(replace(settings, metrics=FREE_PORT, transfer_timeout=patience)) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        httpx.Client(base_url=f"http://{server.http}", timeout=TIMEOUT) as http,
    ):
        yield Site(server, channel, http)


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    with serving(settings) as site:
        yield site


@pytest.fixture
def talk(site: Site) -> Talk:
    return Talk(site, "one", "two")


@pytest.fixture
def watchers(site: Site) -> Callable[[], float]:
    """How many watch, as the server says."""
    return lambda: Measured(f"http://{site.server.metrics}/metrics").value("convgrpc_watchers")


def becomes(read: Callable[[], object], value: object) -> bool:
    """Whether something has a value soon."""
    give_up = time.monotonic() + SOON
    while read() != value and time.monotonic() < give_up:
        time.sleep(0.02)
    return read() == value


def ended(watch: Any) -> grpc.RpcError:
    """Why a watch ended, whatever came before."""
    with pytest.raises(grpc.RpcError) as end:
        list(watch)
    return end.value


# What is told.


def test_a_watch_has_what_is_there_and_then_what_comes(talk: Talk) -> None:
    """Also from a place in it, or what is new alone; by REST the events have the batches' cursors as their ids."""
    watch = talk.watch()
    first = next(watch)
    later, new = talk.watch(after=first.data[0].id), talk.watch(new_only=True)
    assert (texts(first), texts(next(later)), texts(next(new))) == (["one", "two"], ["two"], [])
    with talk.events() as events:
        event = next(events)
        assert (event.texts, event.cursor) == (["one", "two"], first.cursor)
        assert event.value["cursor"] == first.cursor
        for said in ("three", "four"):
            talk.say(said)
            batches = [next(each) for each in (watch, later, new)]
            assert [texts(batch) for batch in batches] == [[said]] * 3
            assert len({batch.cursor for batch in batches}) == 1
            event = next(events)
            assert (event.name, event.texts, event.cursor) == ("message", [said], batches[0].cursor)


def test_a_watch_of_nothing_begins_with_an_empty_batch(site: Site) -> None:
    """Its cursor is the place before the first item."""
    talk = Talk(site)
    first = next(talk.watch())
    assert (texts(first), first.has_more) == ([], False)
    talk.say("one")
    assert texts(next(talk.watch(after=first.cursor))) == ["one"]


def test_clients_that_connect_again_go_on_where_they_were(talk: Talk) -> None:
    """By the id of the last event, which counts more than where they began."""
    with talk.events() as events:
        cursor = next(events).cursor
    ids = talk.say("three", "four")
    for headers, query in (({"last-event-id": cursor}, {}), ({}, {"after": cursor})):
        with talk.events(headers, **query) as events:
            assert next(events).texts == ["three", "four"]
    with talk.events({"Last-Event-ID": cursor}, after=ids[0]) as events:
        assert next(events).texts == ["three", "four"]
    with talk.events({"last-event-id": ""}) as events:
        assert next(events).texts == ["one", "two", "three", "four"]


def test_items_that_were_removed_are_not_told(talk: Talk) -> None:
    """Those before a cursor leave it as good as it was; what comes after one that was removed is told."""
    watch = talk.watch()
    cursor, ids = next(watch).cursor, talk.say("three")
    assert texts(next(watch)) == ["three"]
    talk.remove(ids[0])
    talk.say("four")
    assert texts(next(watch)) == ["four"]
    assert texts(next(talk.watch(after=cursor))) == ["four"]


def test_recorded_responses_are_told(talk: Talk) -> None:
    """Whatever appends to a conversation."""
    watch = talk.watch()
    next(watch)
    body = {"conversation": talk.id, "output": [{"role": "user", "content": "three"}]}
    talk.rest("POST", "/v1/x/responses", json=body)
    assert texts(next(watch)) == ["three"]


def test_a_long_history_comes_in_batches(site: Site) -> None:
    said = [str(number) for number in range(230)]
    talk = Talk(site, *said)
    watch = talk.watch()
    batches = [next(watch) for _ in range(3)]
    assert [text for batch in batches for text in texts(batch)] == said
    assert [batch.has_more for batch in batches] == [True, True, False]


def test_what_is_wrong_at_first_has_a_status(talk: Talk) -> None:
    for path, param in ((f"{talk.id}/items:watch?after=x", "after"), ("conv_1/items:watch", None)):
        answer = talk.site.http.get(f"/v1/x/conversations/{path}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, param)
    error = ended(talk.watch(after="x"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "CURSOR_NOT_FOUND")
    assert talk.site.http.head(f"/v1/x/conversations/{talk.id}/items:watch").status_code == 405


# How it ends.


def test_a_watch_ends_with_its_conversation(talk: Talk, watchers: Callable[[], float]) -> None:
    watch = talk.watch()
    next(watch)
    with talk.events() as events:
        next(events)
        talk.delete()
        assert ended(watch).code() is grpc.StatusCode.NOT_FOUND
        event = next(events)
        assert (event.name, event.value["error"]["message"]) == (
            "error",
            f"Conversation with id '{talk.id}' not found.",
        )
        assert next(events, None) is None
    assert becomes(watchers, 0)


def test_who_goes_away_is_forgotten(talk: Talk, watchers: Callable[[], float]) -> None:
    """At once, although nothing happens in the conversation."""
    watch = talk.watch()
    next(watch)
    with talk.events() as events:
        next(events)
        assert watchers() == 2
    assert becomes(watchers, 1)
    watch.cancel()
    assert becomes(watchers, 0)


def test_a_deadline_is_the_callers_own(settings: Settings) -> None:
    """A watch outlasts the time that the server gives to requests, and to take an answer."""
    with serving(replace(settings, request_timeout=0.2)) as site:
        talk = Talk(site)
        watch = talk.watch()
        next(watch)
        with talk.events() as events:
            next(events)
            time.sleep(1.5 * PATIENCE)
            talk.say("one")
            assert (texts(next(watch)), next(events).texts) == (["one"], ["one"])
        mine = talk.stub.WatchItems(WatchItemsRequest(conversation_id=talk.id), timeout=0.2)
        assert ended(mine).code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_who_reads_too_slowly_is_told_and_goes_on_later(site: Site, watchers: Callable[[], float]) -> None:
    """Others hear everything meanwhile, at once."""
    talk = Talk(site)
    slow, other = talk.watch(), talk.watch()
    read = [next(slow)]
    next(other)
    for _ in range(100):
        talk.say(LARGE)
        assert texts(next(other)) == [LARGE]
    time.sleep(1.5 * PATIENCE)
    with pytest.raises(grpc.RpcError) as refusal:
        read.extend(slow)
    assert (refusal.value.code(), reason(refusal.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_SLOW")
    assert becomes(watchers, 1)
    rest = talk.watch(after=read[-1].cursor)
    while sum(map(len, map(texts, read))) < 100:
        read.append(next(rest))
    assert [text for batch in read for text in texts(batch)] == [LARGE] * 100


def test_by_rest_who_does_not_read_is_dropped(site: Site, watchers: Callable[[], float]) -> None:
    talk = Talk(site)
    with talk.unread("watch") as connection:
        assert becomes(watchers, 1)
        for _ in range(100):
            talk.say(LARGE)
        assert becomes(watchers, 0)
        assert len(read_to_the_end(connection)) < 100 * len(LARGE)


def test_a_key_that_is_revoked_ends_its_watches(settings: Settings, site: Site) -> None:
    """And those of nobody else; so does one that expires."""
    keys = [make_key(settings, "alder"), make_key(settings, "alder"), make_key(settings, "birch", lifetime=3)]
    alder, other, birch = (Talk(site, key=key) for key in keys)
    watches = [each.watch() for each in (alder, other, birch)]
    for watch in watches:
        next(watch)

    async def revoke() -> None:
        store = await open_store(settings)
        assert await store.revoke_key(keys[0].split("_")[1], time.time())
        await store.close()

    with alder.events() as events:
        next(events)
        asyncio.run(revoke())
        assert ended(watches[0]).code() is grpc.StatusCode.UNAUTHENTICATED
        assert next(events).value["error"]["code"] == "invalid_api_key"
    assert ended(watches[2]).code() is grpc.StatusCode.UNAUTHENTICATED
    other.say("one")
    assert texts(next(watches[1])) == ["one"]


def test_the_first_key_ends_the_watches_of_those_who_have_none(settings: Settings, site: Site) -> None:
    watch = Talk(site).watch()
    next(watch)
    make_key(settings, "alder")
    assert ended(watch).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_server_that_stops_ends_watches_and_the_next_one_goes_on_with_them(settings: Settings) -> None:
    """It does not wait for them, whatever its grace; their cursors are good for as long as the database is."""
    with ExitStack() as first:
        server = first.enter_context(served(replace(settings, shutdown_grace=600)))
        with (
            grpc.insecure_channel(str(server.grpc)) as channel,
            httpx.Client(base_url=f"http://{server.http}", timeout=TIMEOUT) as http,
        ):
            talk = Talk(Site(server, channel, http), "one")
            watch = talk.watch()
            cursor = next(watch).cursor
            with talk.events() as events:
                next(events)
                stopping = time.monotonic()
                first.close()
                error = ended(watch)
                assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
                assert next(events).value["error"]["code"] == "shutting_down"
                assert time.monotonic() - stopping < SOON
    with serving(settings) as site:
        again = Talk(site)
        again.id = talk.id
        watch = again.watch(after=cursor)
        assert texts(next(watch)) == []
        again.say("two")
        with again.events({"last-event-id": cursor}) as events:
            assert next(events).texts == texts(next(watch)) == ["two"]


# What it costs.


def test_who_watches_is_not_at_work(settings: Settings) -> None:
    """Watches count neither as calls at once, of the server or of a project, nor among those of health."""
    with serving(replace(settings, max_calls=4, project_concurrency=2)) as site, ExitStack() as stack:
        talk = Talk(site)
        measured = Measured(f"http://{site.server.metrics}/metrics")
        watches: list[Any] = []
        for _ in range(150):
            channel = stack.enter_context(grpc.insecure_channel(str(site.server.grpc), options=OWN_CONNECTION))
            watches.append(ConversationsServiceStub(channel).WatchItems(WatchItemsRequest(conversation_id=talk.id)))
            next(watches[-1])
        assert (measured.value("convgrpc_watchers"), measured.value("convgrpc_calls_in_flight")) == (150, 0)
        health = health_pb2_grpc.HealthStub(site.channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        talk.say("one")


def test_a_watch_with_a_request_behind_it_ends_with_its_connection(
    talk: Talk, watchers: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although that request has not begun: when nothing can be sent any more, as nothing is read."""
    monkeypatch.setattr(streaming, "_SILENCE", 0.3)
    watch = f"GET /v1/x/conversations/{talk.id}/items:watch HTTP/1.1\r\nhost: localhost\r\n\r\n"
    behind = f"GET /v1/conversations/{talk.id} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with socket.create_connection(talk.site.server.http) as client:
        client.sendall(watch.encode())
        assert client.recv(10)
        client.sendall(behind.encode())
        assert becomes(watchers, 1)
    assert becomes(watchers, 0)


def test_what_is_sent_to_many_at_once_waits_for_room(settings: Settings) -> None:
    """Who reads is told of it, however many there are."""
    small = replace(settings, max_message_bytes=1 << 20, max_request_bytes=2 << 20)
    with serving(small) as site, ExitStack() as stack:
        talk = Talk(site)
        channels = [stack.enter_context(grpc.insecure_channel(str(site.server.grpc), OWN_CONNECTION)) for _ in range(4)]
        said: list[list[str]] = []

        def watch(number: int) -> None:
            stub = ConversationsServiceStub(channels[number % 4])
            batches = stub.WatchItems(WatchItemsRequest(conversation_id=talk.id), timeout=TIMEOUT)
            next(batches)
            opened.release()
            said.append(texts(next(batches)))
            batches.cancel()

        opened = threading.Semaphore(0)
        with ThreadPoolExecutor(40) as threads:
            watches = [threads.submit(watch, number) for number in range(40)]
            for _ in watches:
                assert opened.acquire(timeout=TIMEOUT)
            talk.say(LARGE * 2)
            for each in watches:
                each.result(TIMEOUT)
        assert said == [[LARGE * 2]] * 40


def test_there_are_so_many_who_may_watch(settings: Settings) -> None:
    """A project gets no more than what is left for others, so that these find room."""
    with serving(replace(settings, max_watchers=4)) as site:
        alder, birch = (Talk(site, key=make_key(settings, project)) for project in ("alder", "birch"))
        watches = [alder.watch(), alder.watch()]
        for watch in watches:
            next(watch)
        error = ended(alder.watch())
        assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        other = birch.watch()
        assert texts(next(other)) == []
        path = f"/v1/x/conversations/{alder.id}/items:watch"
        assert site.http.get(path, headers=alder.headers).status_code == 429
        for watch in watches:
            watch.cancel()
        assert becomes(lambda: Measured(f"http://{site.server.metrics}/metrics").value("convgrpc_watchers"), 1)
        assert texts(next(alder.watch())) == []
        other.cancel()


def test_watches_by_rest_leave_connections_to_others(settings: Settings) -> None:
    """A project gets half of the half that all of them may take."""
    with serving(replace(settings, max_connections=12)) as site, ExitStack() as stack:
        talk = Talk(site)
        watches = [stack.enter_context(talk.events()) for _ in range(3)]
        for watch in watches:
            next(watch)
        assert site.http.get(f"/v1/x/conversations/{talk.id}/items:watch").status_code == 429
        assert texts(next(talk.watch())) == []


def test_watches_are_counted_and_not_timed(talk: Talk) -> None:
    """How long they last is up to their callers; it is no latency."""
    measured = Measured(f"http://{talk.site.server.metrics}/metrics")
    watch = talk.watch()
    next(watch)
    talk.say("three")
    next(watch)
    watch.cancel()
    with talk.events() as events:
        next(events)
    names = {"grpc_service": "convgrpc.v1.ConversationsService", "grpc_method": "WatchItems"}
    kind = {"grpc_type": "server_stream", **names}
    assert becomes(lambda: measured.value("grpc_server_handled_total", **kind, grpc_code="CANCELLED"), 1)
    route = {"method": "GET", "route": "/v1/x/conversations/{conversation_id}/items:watch"}
    assert becomes(lambda: measured.value("http_requests_total", **route, status="200"), 1)
    assert measured.value("convgrpc_stream_messages_total", **names) == 3
    assert measured.value("grpc_server_handling_seconds_count", **kind) == 0
    assert measured.value("http_request_duration_seconds_count", **route) == 0


def test_the_end_of_a_watch_is_logged(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    """With how many messages it had."""
    with caplog.at_level(logging.INFO, "convgrpc.calls"):
        with talk.events() as events:
            next(events)
        watch = talk.watch()
        next(watch)
        watch.cancel()

        def told() -> list[tuple[object, ...]]:
            calls = [getattr(record, "call", {}) for record in caplog.records]
            names = ("transport", "status", "messages")
            return sorted(tuple(call[name] for name in names) for call in calls if "messages" in call)

        assert becomes(told, [("grpc", "CANCELLED", 1), ("rest", 200, 1)])


def test_silence_is_broken_by_comments(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that proxies do not give the connection up; readers leave comments out."""
    monkeypatch.setattr(streaming, "_SILENCE", 0.05)
    with talk.unread("watch") as connection:
        found = b""
        while found.count(b":\n\n") < 3:
            found += connection.recv(1 << 16)
        talk.say("three")
        while b"three" not in found:
            found += connection.recv(1 << 16)


# How many there may be.


async def watched(site: Site, talks: list[Talk], number: int) -> None:
    """Has so many watch, over several connections, in turn each of the conversations; all hear what is said."""
    connections = range(-(-number // STREAMS_OF_A_CONNECTION))
    channels = [grpc.aio.insecure_channel(str(site.server.grpc), options=OWN_CONNECTION) for _ in connections]
    said = [f"{number}" for number in range(5)]

    async def watch(place: int) -> list[str]:
        stub: Any = ConversationsServiceStub(channels[place // STREAMS_OF_A_CONNECTION])
        call = stub.WatchItems(WatchItemsRequest(conversation_id=talks[place % len(talks)].id))
        heard = texts(await call.read())
        ready.release()
        while len(heard) < len(said):
            heard += texts(await call.read())
        call.cancel()
        return heard

    ready = asyncio.Semaphore(0)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watches = [group.create_task(watch(place)) for place in range(number)]
        for _ in watches:
            await ready.acquire()
        for text in said:
            await asyncio.gather(*(asyncio.to_thread(talk.say, text) for talk in talks))
    assert [each.result() for each in watches] == [said] * number
    for channel in channels:
        await channel.close()


@pytest.mark.parametrize("conversations", [1, 50])
def test_hundreds_may_watch(settings: Settings, conversations: int) -> None:
    """They watch one conversation or many. On a busy machine, their client may take some seconds to read."""
    with serving(settings, patience=60) as site:
        asyncio.run(watched(site, [Talk(site) for _ in range(conversations)], MANY))
        page = Measured(f"http://{site.server.metrics}/metrics")
        assert becomes(lambda: page.value("convgrpc_watchers"), 0)


@pytest.mark.long
@pytest.mark.parametrize("conversations", [1, 1000])
def test_thousands_may_watch(site: Site, watchers: Callable[[], float], conversations: int) -> None:
    asyncio.run(watched(site, [Talk(site) for _ in range(conversations)], 3000))
    assert becomes(watchers, 0)


# Each item once.


class Chatter:
    """A conversation to which some write, and from which some is removed, while others watch it.

    They watch from places that they or others have seen, and begin anew now and then.
    """

    WRITERS, WRITES, WATCHERS = 3, 30, 12
    END = "the end"

    def __init__(self, talk: Talk, source: random.Random) -> None:
        self.talk = talk
        self.source = source
        self.cursors: list[str | None] = [None]
        self.removed: set[str] = set()

    def write(self, writer: int) -> None:
        for number in range(self.WRITES):
            time.sleep(self.source.random() / 50)
            said = [f"{writer}:{number}:{part}" for part in range(self.source.randint(1, 3))]
            ids = self.talk.say(*said, "x" * self.source.choice([1, 1, 1, 70_000]))
            if self.source.random() < 0.1:
                self.removed.add(ids[0])
                self.talk.remove(ids[0])

    def watch(self, number: int) -> None:
        """Sees each item once, from some moment and place on."""
        time.sleep(self.source.random())
        began = after = self.source.choice(self.cursors)
        seen: list[str] = []
        is_over = False
        while not is_over:
            with (self.batches if number % 2 else self.events)(after) as batches:
                for _ in range(self.source.randint(1, 20)):
                    after, items = next(batches)
                    seen += items
                    is_over = items[-1:] == [self.END]
                    if is_over:
                        break
                    self.cursors.append(after)
        assert len(seen) == len(set(seen))
        there = [self.name(item) for batch in self.talk.export(after=began) for item in batch.data]
        assert [each for each in seen if each not in self.removed] == there

    def name(self, item: ConversationItem) -> str:
        """The id of an item, but for the last one."""
        return self.END if item.message.content[0].input_text.text == self.END else item.id

    @contextmanager
    def batches(self, after: str | None) -> Iterator[Iterator[tuple[str, list[str]]]]:
        watch = self.talk.watch(after=after)
        yield ((batch.cursor, list(map(self.name, batch.data))) for batch in watch)
        watch.cancel()

    @contextmanager
    def events(self, after: str | None) -> Iterator[Iterator[tuple[str, list[str]]]]:
        with self.talk.events({"last-event-id": after} if after else {}) as events:
            yield (
                (event.cursor, [self.name(decode(ConversationItem, item)) for item in event.value["data"]])
                for event in events
            )

    def run(self) -> None:
        with ThreadPoolExecutor(self.WRITERS + self.WATCHERS) as pool:
            watching = [pool.submit(self.watch, number) for number in range(self.WATCHERS)]
            for each in [pool.submit(self.write, writer) for writer in range(self.WRITERS)]:
                each.result(TIMEOUT)
            self.talk.say(self.END)
            for each in watching:
                each.result(TIMEOUT)


def test_each_item_is_seen_once_and_in_order(site: Site) -> None:
    """By whoever watches, from whatever moment and place on, by gRPC and by Server-Sent Events."""
    Chatter(Talk(site), random.Random(1)).run()


@pytest.mark.long
def test_each_item_is_seen_once_many_times(site: Site) -> None:
    for seed in range(20):
        Chatter(Talk(site), random.Random(seed)).run()
