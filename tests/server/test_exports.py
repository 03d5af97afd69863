"""Exports: a conversation as it is when it is asked for, batch by batch, and from any place on."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest

from convgrpc.server.app import Running, open_store
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.content_pb2 import Json
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest, Include
from convgrpc.v1.item_pb2 import ConversationItem, ToolSearchCall
from tests.conftest import make_key
from tests.server.streams import Site, Talk, read_to_the_end, reason, texts

PATIENCE = 1.0
"""Seconds that clients of these servers have to take an answer."""
SAID = [str(number) for number in range(250)]
LONG = [f"{number} " + "x" * 50_000 for number in range(200)]
"""More than fits into all that is between a server and a client who does not read."""


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, transfer_timeout=PATIENCE)) as addresses:
        yield addresses


@pytest.fixture
def site(server: Running, channel: grpc.Channel, http: httpx.Client) -> Site:
    return Site(server, channel, http)


@pytest.fixture
def talk(site: Site) -> Talk:
    return Talk(site, *SAID)


@pytest.fixture
def long_talk(site: Site) -> Talk:
    return Talk(site, *LONG)


def test_all_items_come_in_batches_the_oldest_first(talk: Talk) -> None:
    """No batch is larger than a page, and the last one says that it is the last; of nothing there is none."""
    batches = list(talk.export())
    assert [text for batch in batches for text in texts(batch)] == SAID
    assert [len(batch.data) for batch in batches] == [100, 100, 50]
    assert [batch.has_more for batch in batches] == [True, True, False]
    assert list(Talk(talk.site).export()) == []


def test_a_batch_of_large_items_has_fewer(site: Site) -> None:
    """One that is larger than any batch comes alone."""
    sizes = [20_000] * 7 + [1_000_000, 1]
    batches = list(Talk(site, *("x" * size for size in sizes)).export())
    assert [len(text) for batch in batches for text in texts(batch)] == sizes
    assert [len(batch.data) for batch in batches] == [3, 3, 1, 1, 1]


def test_an_export_goes_on_after_any_batch(site: Site) -> None:
    """By its cursor exactly, although one id stands in several places, and the items before it are gone."""
    source, talk = Talk(site, *LONG[:5]), Talk(site)
    items = source.export_lines()
    body = {"items": [*items, items[0], *items[1:], items[0]]}
    talk.rest("POST", f"/v1/conversations/{talk.id}/items", json=body)
    everything = list(talk.export())
    assert [item.id for batch in everything for item in batch.data] == [item["id"] for item in body["items"]]
    for number, batch in enumerate(everything):
        assert list(talk.export(after=batch.cursor)) == everything[number + 1 :]
    assert list(talk.export(after=items[0]["id"])) == [], "an id alone means the last place"
    talk.remove(items[1]["id"])
    rest = [item.id for batch in talk.export(after=everything[1].cursor) for item in batch.data]
    assert rest == [item.id for batch in everything[2:] for item in batch.data if item.id != items[1]["id"]]


def test_what_comes_later_is_no_part_of_it_and_what_is_removed_is_left_out(long_talk: Talk) -> None:
    """As long as it is not sent: the rest is read as the caller takes it."""
    last = list(long_talk.export())[-1].data[-1].id
    export = long_talk.export()
    first = next(export)
    long_talk.say("later")
    long_talk.remove(last)
    assert [*texts(first), *(text for batch in export for text in texts(batch))] == LONG[:-1]


def test_an_export_ends_when_the_conversation_is_deleted(long_talk: Talk) -> None:
    export = long_talk.export()
    next(export)
    long_talk.delete()
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        list(export)


def test_a_caller_who_does_not_read_is_told_so(long_talk: Talk) -> None:
    """And goes on after what it has."""
    export = long_talk.export()
    read = [next(export)]
    time.sleep(1.5 * PATIENCE)
    with pytest.raises(grpc.RpcError) as refusal:
        read.extend(export)
    assert (refusal.value.code(), reason(refusal.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_SLOW")
    rest = long_talk.export(after=read[-1].cursor)
    assert [text for batch in (*read, *rest) for text in texts(batch)] == LONG


def test_who_does_not_read_is_not_at_work_for_long(settings: Settings) -> None:
    """Others have the room, although gRPC holds what it was given to send."""
    with (
        served(replace(settings, transfer_timeout=PATIENCE, max_calls=2)) as server,
        grpc.insecure_channel(str(server.grpc), options=[("grpc.enable_http_proxy", 0)]) as channel,
        httpx.Client(base_url=f"http://{server.http}") as http,
    ):
        talk = Talk(Site(server, channel, http), *LONG)
        export = talk.export()
        next(export)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            talk.say("too early")
        time.sleep(1.5 * PATIENCE)
        talk.say("in time")
        export.cancel()


def slowly(parts: Iterable[Any]) -> Iterator[Any]:
    """What comes, with a pause after each part, until it ends, well or not."""
    with suppress(grpc.RpcError, httpx.TransportError):
        for part in parts:
            yield part
            time.sleep(0.03)


def test_a_key_that_is_revoked_ends_its_exports(settings: Settings) -> None:
    """However slowly they are taken, by both transports; those who read lines are told in the last."""
    keys = [make_key(settings, "alder"), make_key(settings, "alder")]

    async def revoke(key: str) -> None:
        store = await open_store(settings)
        assert await store.revoke_key(key.split("_")[1], time.time())
        await store.close()

    with (
        served(settings) as server,
        grpc.insecure_channel(str(server.grpc), options=[("grpc.enable_http_proxy", 0)]) as channel,
        httpx.Client(base_url=f"http://{server.http}") as http,
    ):
        by_grpc, by_rest = (Talk(Site(server, channel, http), *LONG, key=key) for key in keys)
        export = by_grpc.export()
        next(export)
        asyncio.run(revoke(keys[0]))
        list(slowly(export))
        assert export.code() is grpc.StatusCode.UNAUTHENTICATED

        path = f"/v1/x/conversations/{by_rest.id}/items:export"
        with http.stream("GET", path, headers=by_rest.headers) as answer:
            lines = slowly(answer.iter_lines())
            next(lines)
            asyncio.run(revoke(keys[1]))
            *_, last = lines
        assert json.loads(last)["error"]["code"] == "invalid_api_key"


def refused(talk: Talk) -> str:
    """Why nothing more is taken, as soon as that is so."""
    while True:
        try:
            talk.say("late")
        except grpc.RpcError as refusal:
            return str(refusal)


def test_a_server_that_stops_lets_exports_finish(settings: Settings) -> None:
    """Within its grace, by both transports, while it refuses other calls."""
    context = served(settings)
    server = context.__enter__()
    with (
        ThreadPoolExecutor(1) as pool,
        grpc.insecure_channel(str(server.grpc), options=[("grpc.enable_http_proxy", 0)]) as channel,
        httpx.Client(base_url=f"http://{server.http}") as http,
    ):
        talk = Talk(Site(server, channel, http), *LONG)
        export = talk.export()
        first = next(export)
        with http.stream("GET", f"/v1/x/conversations/{talk.id}/items:export") as answer:
            lines = answer.iter_lines()
            line = next(lines)
            stopped = pool.submit(context.__exit__, None, None, None)
            assert "UNAVAILABLE" in refused(talk)
            assert [text for batch in (first, *export) for text in texts(batch)] == LONG
            assert [json.loads(each)["content"][0]["text"] for each in (line, *lines)] == LONG
        stopped.result()


def test_by_rest_every_item_is_a_line(talk: Talk) -> None:
    """The same as in a list; the id of any line is where to go on."""
    path = f"/v1/conversations/{talk.id}/items"
    listed = talk.rest("GET", path, params={"order": "asc", "limit": 100}).json()["data"]
    lines = talk.export_lines()
    assert [line["content"][0]["text"] for line in lines] == SAID
    assert lines[:100] == listed
    assert talk.export_lines(after=lines[149]["id"]) == lines[150:]
    assert talk.export_lines(after=next(talk.export()).cursor) == lines[100:]
    assert talk.export_lines(after=lines[-1]["id"]) == []


def test_a_line_has_no_line_breaks(site: Site) -> None:
    """Not even where JSON that is kept as it was sent has some."""
    talk = Talk(site)
    call = ToolSearchCall(arguments=Json(text='{"a":\r\n"b\\r\\n"}'))
    request = CreateItemsRequest(conversation_id=talk.id, items=[ConversationItem(tool_search_call=call)])
    talk.stub.CreateItems(request, **talk.call)
    (line,) = talk.export_lines()
    assert line["arguments"] == {"a": "b\r\n"}
    with talk.events() as events:
        assert next(events).value["data"] == [line]


def test_by_rest_what_is_wrong_at_first_has_a_status(talk: Talk) -> None:
    """And the usual envelope."""
    for path, param in ((f"{talk.id}/items:export?after=x", "after"), ("conv_1/items:export", None)):
        answer = talk.site.http.get(f"/v1/x/conversations/{path}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, param)
        assert answer.headers["content-type"] == "application/json"
    assert talk.site.http.head(f"/v1/x/conversations/{talk.id}/items:export").status_code == 405


def test_by_rest_an_export_that_breaks_can_be_told_from_one_that_ends(long_talk: Talk) -> None:
    """Its last line says why, and the answer is cut off, so that no tool takes it for whole."""
    with long_talk.unread("export") as connection:
        head = connection.recv(100)
        assert head.startswith(b"HTTP/1.1 200")
        long_talk.delete()
        found = read_to_the_end(connection)
    assert b'{"error":{"message":"Conversation with id' in found
    assert not found.endswith(b"0\r\n\r\n")


def test_by_rest_a_caller_who_does_not_read_is_dropped(long_talk: Talk) -> None:
    with long_talk.unread("export") as connection:
        time.sleep(3 * PATIENCE)
        found = read_to_the_end(connection)
    assert len(found) < sum(map(len, LONG)) / 2
    assert not found.endswith(b"0\r\n\r\n")


def test_what_include_reveals_is_hidden_by_policy(settings: Settings) -> None:
    """By both transports, from exports and watches alike."""
    secret = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "secret"}
    include = Include.INCLUDE_REASONING_ENCRYPTED_CONTENT
    with (
        served(replace(settings, include_policy="strict")) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        httpx.Client(base_url=f"http://{server.http}", timeout=30) as http,
    ):
        talk = Talk(Site(server, channel, http))
        talk.rest("POST", f"/v1/conversations/{talk.id}/items", json={"items": [secret]})
        for included, expected in (([], ""), ([include], "secret")):
            for batch in (next(talk.export(include=included)), next(talk.watch(include=included))):
                assert batch.data[0].reasoning.encrypted_content == expected
        (hidden,), (shown,) = talk.export_lines(), talk.export_lines(include="reasoning.encrypted_content")
        assert ("encrypted_content" in hidden, shown["encrypted_content"]) == (False, "secret")
