"""Responses that were recorded: their items, what they follow, and what is left when something is deleted."""

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from convgrpc.errors import (
    AlreadyExists,
    ConvgrpcError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from convgrpc.storage.interface import NewConversation, NewItem, NewResponse, RequestKey, ResponseItems
from convgrpc.storage.sqlite import mutations, response_records
from convgrpc.storage.sqlite.database import Connection, connect, open_database
from convgrpc.storage.sqlite.idempotency import IdempotentWrite, RetentionWindow
from convgrpc.storage.sqlite.migrations import APPLICATION_ID, MIGRATIONS
from convgrpc.storage.sqlite.store import SqliteStore
from tests.storage.test_store import PROJECT, append, contents, create, minted, reference, run, sent, together

MUCH = 1 << 30


def response(
    response_id: str,
    previous: str | None = None,
    *,
    on: str | None = None,
    read: Sequence[NewItem] = (),
    made: Sequence[NewItem] = (),
    data: str | None = None,
) -> NewResponse:
    return NewResponse(response_id, (data or response_id).encode(), previous, on, read, made)


async def record(store: SqliteStore, new: NewResponse, project: str = PROJECT, name: str | None = None) -> str:
    """Records a response; `name` makes it safe to repeat."""
    request = None if name is None else RequestKey("record", name, new.data)
    return (await store.record_response(project, new, None, request=request)).decode()


async def segment_items(store: SqliteStore, segment: ResponseItems, *, limit: int = 100) -> list[str]:
    """All that a segment has, page by page."""
    found: list[str] = []
    position, has_more = 0, True
    while has_more:
        page = await store.get_segment(PROJECT, segment, position, limit=limit, max_bytes=MUCH)
        assert len(found) < 1000, "the walk does not end"
        found += [data.decode() for data in page.items]
        position, has_more = page.position, page.has_more
    return found


async def segments_of(store: SqliteStore, project: str, response_id: str) -> list[ResponseItems]:
    """The segments of a response and of those that it follows, the oldest first, read two at a time."""
    found: list[ResponseItems] = []
    has_more = True
    while has_more:
        lineage = await store.get_response_chain(project, response_id, after=found[-1] if found else None, limit=2)
        assert 0 < len(lineage.segments) <= 2
        found += lineage.segments
        has_more = lineage.has_more
    return found[::-1]


async def referenced(store: SqliteStore, item_id: str) -> list[bytes]:
    return await store.get_referenced(PROJECT, await store.find_references(PROJECT, [item_id]))


async def lineage(store: SqliteStore, response_id: str, *, project: str = PROJECT, limit: int = 100) -> list[str]:
    """The items that a follower of a response brings along."""
    segments = await segments_of(store, project, response_id)
    return [item for segment in segments for item in await segment_items(store, segment, limit=limit)]


async def refused(call: Any, kind: type[ConvgrpcError]) -> ConvgrpcError:
    with pytest.raises(kind) as told:
        await call
    return told.value


def rows(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / "convgrpc.db")) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)


async def swept(folder: Path) -> None:
    while rows(folder, "deleted_conversations"):
        await asyncio.sleep(0.01)


def test_a_response_keeps_what_it_read_before_what_it_made(tmp_path: Path) -> None:
    """On no conversation, the items are its own; it may also have none."""

    async def scenario(store: SqliteStore) -> None:
        new = response("resp_1", read=[minted("a"), sent("b", "b")], made=[minted("c")], data="stored")
        assert await record(store, new) == "stored"
        assert await store.get_response(PROJECT, "resp_1") == b"stored"
        assert await lineage(store, "resp_1") == ["a", "b", "c"]
        await record(store, response("resp_2"))
        assert await lineage(store, "resp_2") == []

    run(tmp_path, scenario)


def test_a_response_on_a_conversation_appends_to_it(tmp_path: Path) -> None:
    """What was there before is what the model read, too; what comes later is not."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await record(store, response("resp_1", on="conv_1", read=[minted("b")], made=[minted("c")]))
        await append(store, "conv_1", minted("later"))
        assert await contents(store, "conv_1") == ["a", "b", "c", "later"]
        assert await lineage(store, "resp_1") == ["a", "b", "c"]
        await record(store, response("resp_2", on="conv_1"))
        assert await lineage(store, "resp_2") == ["a", "b", "c", "later"]

    run(tmp_path, scenario)


def test_a_lineage_has_every_response_the_oldest_first(tmp_path: Path) -> None:
    """Of 50 that follow each other, whatever branches off; page by page."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("said"))
        previous = None
        for number in range(50):
            new = response(
                f"resp_{number}",
                previous,
                on=None if number else "conv_1",
                read=[minted(f"in {number}")],
                made=[minted(f"out {number}"), minted(f"more {number}")],
            )
            await record(store, new)
            await record(store, response(f"resp_branch_{number}", f"resp_{number}", read=[minted(f"branch {number}")]))
            previous = f"resp_{number}"
        segments = await segments_of(store, PROJECT, "resp_49")
        assert [segment.response_id for segment in segments] == [f"resp_{number}" for number in range(50)]
        assert len({segment.number for segment in segments}) == 50
        assert [segment.holder > 0 for segment in segments] == [True] + [False] * 49
        expected = [f"{what} {number}" for number in range(50) for what in ("in", "out", "more")]
        for limit in (1, 2, 100):
            assert await lineage(store, "resp_49", limit=limit) == ["said", *expected]
        assert await lineage(store, "resp_branch_0") == ["said", "in 0", "out 0", "more 0", "branch 0"]

    run(tmp_path, scenario)


def test_a_segment_comes_in_pages(tmp_path: Path) -> None:
    """Of so many items and bytes; an item that is larger comes alone. The removals are those of the conversation."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), minted("b"))
        await record(store, response("resp_1", on="conv_1", read=[minted("c")]))
        await store.delete_item(PROJECT, "conv_1", "b", None)
        (segment,) = await segments_of(store, PROJECT, "resp_1")
        first = await store.get_segment(PROJECT, segment, 0, limit=1, max_bytes=MUCH)
        assert (first.items, first.has_more, first.removals) == ([b"a"], True, 1)
        second = await store.get_segment(PROJECT, segment, first.position, limit=1, max_bytes=0)
        assert (second.items, second.has_more) == ([b"c"], False)
        await record(store, response("resp_2", "resp_1", read=[minted("d")]))
        own = (await segments_of(store, PROJECT, "resp_2"))[1]
        assert (await store.get_segment(PROJECT, own, 0, limit=9, max_bytes=0)).removals == 0

    run(tmp_path, scenario)


def test_nothing_is_stored_of_a_response_that_is_refused(tmp_path: Path) -> None:
    """Neither it nor any of its items, whatever is wrong; the error says where."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await record(store, response("resp_1", read=[minted("b")]))
        before = rows(tmp_path, "items"), rows(tmp_path, "responses")
        fine = [minted("new"), sent("other", "x")]
        cases: list[tuple[NewResponse, type[ConvgrpcError], str | None]] = [
            (response("resp_1", read=fine), AlreadyExists, "response_id"),
            (response("resp_2", "resp_nowhere", read=fine), NotFound, "previous_response_id"),
            (response("resp_2", "", read=fine), NotFound, "previous_response_id"),
            (response("resp_2", on="conv_nowhere", read=fine), NotFound, None),
            (response("resp_2", read=fine, made=[reference("nowhere")]), NotFound, None),
            (response("resp_2", on="conv_1", read=[reference("a")], made=fine), InvalidArgument, "input"),
            (response("resp_2", on="conv_1", read=fine, made=[sent("a", "x")]), InvalidArgument, "output"),
        ]
        for new, kind, param in cases:
            assert (await refused(record(store, new), kind)).param == param
        assert (rows(tmp_path, "items"), rows(tmp_path, "responses")) == before
        await refused(store.get_response(PROJECT, "resp_2"), NotFound)
        assert await contents(store, "conv_1") == ["a"]

    run(tmp_path, scenario)


def test_what_a_response_copies_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input and the output together."""
    monkeypatch.setattr(mutations, "MAX_COPIED_BYTES", 10)

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a", "sixsix"))
        await record(store, response("resp_1", read=[reference("a")], made=[minted("large", "1234567890")]))
        new = response("resp_2", read=[reference("a")], made=[reference("a")])
        assert (await refused(record(store, new), ResourceExhausted)).param == "output"

    run(tmp_path, scenario)


def test_references_reach_whatever_is_there(tmp_path: Path) -> None:
    """From a response to a conversation, to a response and to the same request, and from a conversation to a
    response.
    """

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"), sent("mine", "as sent"))
        await record(store, response("resp_1", read=[reference("a"), minted("b")], made=[reference("b")]))
        await record(store, response("resp_2", read=[reference("b"), reference("mine"), sent("a", "ignored")]))
        assert await lineage(store, "resp_1") == ["a", "b", "b"]
        assert await lineage(store, "resp_2") == ["b", "as sent", "a"]
        await append(store, "conv_1", reference("b"))
        assert await contents(store, "conv_1") == ["a", "as sent", "b"]
        assert await referenced(store, "b") == [b"b"]

    run(tmp_path, scenario)


def test_an_id_of_the_callers_stands_for_what_a_conversation_has(tmp_path: Path) -> None:
    """Even if a response with an item of the same id came later."""

    async def scenario(store: SqliteStore) -> None:
        await record(store, response("resp_1", read=[sent("rs_1", "of a response")]))
        assert await referenced(store, "rs_1") == [b"of a response"]
        await create(store, "conv_1", sent("rs_1", "of a conversation"))
        await record(store, response("resp_2", read=[sent("rs_1", "of another")]))
        assert await referenced(store, "rs_1") == [b"of a conversation"]
        assert await lineage(store, "resp_2") == ["of another"]

    run(tmp_path, scenario)


def test_a_repeated_recording_is_done_once(tmp_path: Path) -> None:
    """Another one with the same key is refused, and so is the same one once the response is gone."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        new = response("resp_1", on="conv_1", read=[minted("a")], data="first")
        for _ in range(3):
            assert await record(store, new, name="key") == "first"
        # The second attempt mints other ids.
        other = response("resp_2", on="conv_1", read=[minted("b")], data="first")
        assert await record(store, other, name="key") == "first"
        assert await contents(store, "conv_1") == ["a"]
        await refused(record(store, new._replace(data=b"another"), name="key"), InvalidArgument)
        await store.delete_response(PROJECT, "resp_1", None)
        gone = await refused(record(store, new, name="key"), NotFound)
        assert "deleted" in gone.message
        assert await contents(store, "conv_1") == ["a"]

    run(tmp_path, scenario)


def test_twins_in_one_commit_are_done_once(tmp_path: Path) -> None:
    """With a key both get the answer; without one the second is refused."""

    async def scenario(store: SqliteStore) -> None:
        new = response("resp_1", read=[minted("a")])
        keyed = response("resp_2", read=[minted("b")])
        first, second, third, fourth = await together(
            store, record(store, new), record(store, new), *(record(store, keyed, name="key") for _ in range(2))
        )
        assert (first, third, fourth) == ("resp_1", "resp_2", "resp_2")
        assert isinstance(second, AlreadyExists)
        assert (rows(tmp_path, "responses"), rows(tmp_path, "items")) == (2, 2)

    run(tmp_path, scenario)


def test_a_response_in_one_commit_with_what_it_follows(tmp_path: Path) -> None:
    """And with deletions of both: what came first decides."""

    async def scenario(store: SqliteStore) -> None:
        await record(store, response("resp_1"))
        followed, kept, deleted, unfollowed = await together(
            store,
            record(store, response("resp_2", "resp_1")),
            store.delete_response(PROJECT, "resp_1", None),
            store.delete_response(PROJECT, "resp_2", None),
            record(store, response("resp_3", "resp_2")),
        )
        assert (followed, deleted) == ("resp_2", None)
        assert isinstance(kept, FailedPrecondition)
        assert isinstance(unfollowed, NotFound)

    run(tmp_path, scenario)


def test_a_response_that_is_followed_stays(tmp_path: Path) -> None:
    """It can be deleted after those that follow it; the error names one of them."""

    async def scenario(store: SqliteStore) -> None:
        await record(store, response("resp_1", read=[minted("a")]))
        await record(store, response("resp_2", "resp_1", read=[minted("b")]))
        told = await refused(store.delete_response(PROJECT, "resp_1", None), FailedPrecondition)
        assert "'resp_2'" in told.message
        assert await lineage(store, "resp_2") == ["a", "b"]
        for each in ("resp_2", "resp_1"):
            await store.delete_response(PROJECT, each, None)
            await refused(store.get_response(PROJECT, each), NotFound)
            await refused(store.delete_response(PROJECT, each, None), NotFound)

    run(tmp_path, scenario)


def test_a_deleted_response_takes_its_own_items_along(tmp_path: Path) -> None:
    """At once for those who look, copies stay, and its id is free again."""

    async def scenario(store: SqliteStore) -> None:
        await record(store, response("resp_1", read=[minted("a"), minted("b")]))
        await record(store, response("resp_2", read=[reference("a")]))
        (segment,) = await segments_of(store, PROJECT, "resp_1")
        await store.delete_response(PROJECT, "resp_1", None)
        await refused(referenced(store, "b"), NotFound)
        await refused(segments_of(store, PROJECT, "resp_1"), NotFound)
        await refused(store.get_segment(PROJECT, segment, 0, limit=9, max_bytes=MUCH), NotFound)
        assert await lineage(store, "resp_2") == ["a"]
        await record(store, response("resp_1", read=[minted("c")]))
        assert await lineage(store, "resp_1") == ["c"]
        await swept(tmp_path)
        assert await lineage(store, "resp_1") == ["c"]
        assert rows(tmp_path, "items") == 2

    run(tmp_path, scenario)


def test_a_deleted_response_leaves_the_conversation_as_it_is(tmp_path: Path) -> None:
    """Its items are the conversation's."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        await record(store, response("resp_1", on="conv_1", read=[minted("a")], made=[minted("b")]))
        await store.delete_response(PROJECT, "resp_1", None)
        await swept(tmp_path)
        assert await contents(store, "conv_1") == ["a", "b"]

    run(tmp_path, scenario)


def test_a_deleted_conversation_takes_its_responses_along(tmp_path: Path) -> None:
    """And those that follow them, with their items: at once for those who look, and for good once they are swept."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1", minted("a"))
        await record(store, response("resp_1", on="conv_1", read=[minted("b")]), name="key")
        await record(store, response("resp_2", "resp_1", read=[minted("c")]))
        await record(store, response("resp_3", "resp_2", read=[minted("d")]))
        await record(store, response("resp_other", read=[reference("c"), minted("e")]))
        segments = await segments_of(store, PROJECT, "resp_3")

        async def check() -> None:
            for each in ("resp_1", "resp_2", "resp_3"):
                await refused(store.get_response(PROJECT, each), NotFound)
                await refused(store.delete_response(PROJECT, each, None), NotFound)
                await refused(segments_of(store, PROJECT, each), NotFound)
                told = await refused(record(store, response("resp_new", each)), NotFound)
                assert told.param == "previous_response_id"
            for segment in segments:
                await refused(store.get_segment(PROJECT, segment, 0, limit=9, max_bytes=MUCH), NotFound)
            for each in ("a", "b", "d"):
                await refused(referenced(store, each), NotFound)
            await refused(record(store, response("resp_1", on="conv_1", data="resp_1"), name="key"), NotFound)
            assert await lineage(store, "resp_other") == ["c", "e"]

        await store.delete_conversation(PROJECT, "conv_1", None)
        await check()
        await swept(tmp_path)
        await check()
        assert (rows(tmp_path, "responses"), rows(tmp_path, "items")) == (1, 2)

    run(tmp_path, scenario)


@pytest.fixture
def gone(tmp_path: Path) -> Connection:
    """A conversation that was deleted and not yet swept, with more responses than one transaction removes."""
    connection = open_database(tmp_path / "convgrpc.db", "OFF", 5)
    mutations.create_conversation(connection, PROJECT, NewConversation("conv_1", b"", {}), [minted("a")])
    response_records.record_response(connection, PROJECT, response("resp_0", on="conv_1", read=[minted("b")]))
    for number in range(mutations.SWEPT_AT_ONCE):
        new = response(f"resp_{number + 1}", f"resp_{number}", read=[minted(f"item_{number}")])
        response_records.record_response(connection, PROJECT, new)
    mutations.delete_conversation(connection, PROJECT, "conv_1")
    return connection


def test_responses_are_swept_in_chunks(gone: Connection) -> None:
    """No transaction removes more than so many of them, and in the end nothing is left."""

    def left() -> list[int]:
        tables = ("responses", "items", "deleted_conversations")
        return [gone.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    with closing(gone):
        count = mutations.SWEPT_AT_ONCE
        assert left() == [count + 1, count + 2, 1]
        assert mutations.sweep(gone, RetentionWindow(0, 1))
        assert left() == [1, count, count + 1]
        while mutations.sweep(gone, RetentionWindow(0, 1)):
            pass
        assert left() == [0, 0, 0]


def test_large_responses_are_swept_one_by_one(tmp_path: Path) -> None:
    """About one MiB at once, but always one: writes that come meanwhile wait no longer."""
    with closing(open_database(tmp_path / "convgrpc.db", "OFF", 5)) as connection:
        mutations.create_conversation(connection, PROJECT, NewConversation("conv_1", b"", {}), [])
        for at, size in enumerate([2 << 20, 600 << 10, 600 << 10, 10]):
            new = response(f"resp_{at}", on="conv_1", data="x" * size)
            response_records.record_response(connection, PROJECT, new)
        mutations.delete_conversation(connection, PROJECT, "conv_1")
        left = []
        while mutations.sweep(connection, RetentionWindow(0, 1)):
            left += connection.execute("SELECT count(*) FROM responses").fetchone()
        # What each of them leaves is swept between.
        assert sorted(set(left), reverse=True) == [3, 1, 0]


def test_an_id_is_free_before_it_is_swept(gone: Connection) -> None:
    """As far as anybody can see, there is no response with it."""
    with closing(gone):
        response_records.record_response(gone, PROJECT, response("resp_0", read=[minted("again")]))
        response_records.record_response(gone, PROJECT, response("resp_5", "resp_0", data="new"))
        while mutations.sweep(gone, RetentionWindow(0, 1)):
            pass
        assert response_records.find_response(gone, PROJECT, "resp_5").data == b"new"
        lineage = response_records.find_lineage(gone, PROJECT, "resp_5", None, 9)
        assert [segment.response_id for segment in lineage.segments] == [
            "resp_5",
            "resp_0",
        ]
        assert gone.execute("SELECT id FROM items").fetchall() == [("again",)]


def test_projects_do_not_see_each_other(tmp_path: Path) -> None:
    """Not their responses, nor the items of those; ids and keys are each project's own."""

    async def scenario(store: SqliteStore) -> None:
        await create(store, "conv_1")
        await record(store, response("resp_1", read=[minted("a")], data="mine"), name="key")
        for call in (
            store.get_response("another", "resp_1"),
            segments_of(store, "another", "resp_1"),
            store.delete_response("another", "resp_1", None),
            record(store, response("resp_2", "resp_1"), "another"),
            record(store, response("resp_2", on="conv_1"), "another"),
            record(store, response("resp_2", read=[reference("a")]), "another"),
        ):
            await refused(call, NotFound)
        assert (
            await record(store, response("resp_1", read=[sent("a", "x")], data="theirs"), "another", "key") == "theirs"
        )
        assert await lineage(store, "resp_1", project="another") == ["x"]
        assert await store.get_response(PROJECT, "resp_1") == b"mine"
        assert await lineage(store, "resp_1") == ["a"]

    run(tmp_path, scenario)


def test_responses_survive_a_restart(tmp_path: Path) -> None:
    """Numbers are not used again: what is remembered by them stays true."""
    numbers: list[int] = []

    async def recording(store: SqliteStore) -> None:
        await record(store, response("resp_1", read=[minted("a")]))
        await record(store, response("resp_2", "resp_1", read=[minted("b")]))
        numbers.extend(segment.number for segment in await segments_of(store, PROJECT, "resp_2"))
        await store.delete_response(PROJECT, "resp_2", None)

    async def looking(store: SqliteStore) -> None:
        assert await lineage(store, "resp_1") == ["a"]
        await record(store, response("resp_2", "resp_1", read=[minted("c")]))
        first, second = await segments_of(store, PROJECT, "resp_2")
        assert first.number == numbers[0]
        assert second.number not in numbers
        assert await lineage(store, "resp_2") == ["a", "c"]

    run(tmp_path, recording)
    run(tmp_path, looking)


def test_a_database_of_an_older_version_gets_responses(tmp_path: Path) -> None:
    """What it has stays, and may be referred to."""
    with closing(connect(tmp_path / "convgrpc.db", "FULL", 5)) as connection:
        MIGRATIONS.apply(Database(connection, execute_plugins=False), stop_before="create_responses")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("INSERT INTO projects (number, name) VALUES (1, ?)", (PROJECT,))
        connection.execute("INSERT INTO conversations (project, id, data) VALUES (1, 'conv_1', x'')")
        connection.execute("INSERT INTO items (project, conversation, id, minted, data) VALUES (1, 1, 'a', 1, x'61')")

    async def scenario(store: SqliteStore) -> None:
        await record(store, response("resp_1", read=[reference("a")]))
        await record(store, response("resp_2", on="conv_1", read=[minted("b")]))
        assert [await lineage(store, each) for each in ("resp_1", "resp_2")] == [["a"], ["a", "b"]]

    run(tmp_path, scenario)


def everything(connection: Connection, suffix: str) -> None:
    """Does all that is done with responses, each in the ways that use different statements."""
    attempt = IdempotentWrite(RequestKey("record", suffix, b"digest"), RetentionWindow(0, 1))
    first = response(f"resp_{suffix}", on="conv_first", read=[minted(f"msg_{suffix}")])
    for _ in range(2):
        response_records.record_response(connection, PROJECT, first, attempt)
    items = [reference("msg_first"), sent("rs_1", "x"), sent(f"rs_{suffix}", "x"), reference(f"msg_{suffix}")]
    response_records.record_response(connection, PROJECT, response(f"resp_2_{suffix}", f"resp_{suffix}", made=items))
    response_records.find_response(connection, PROJECT, f"resp_{suffix}")
    for segment in response_records.find_lineage(connection, PROJECT, f"resp_2_{suffix}", None, 9).segments:
        response_records.find_segment(connection, segment, 0, 2, MUCH, MUCH)
    with pytest.raises(FailedPrecondition):
        response_records.delete_response(connection, PROJECT, f"resp_{suffix}")
    for each in (f"resp_2_{suffix}", f"resp_{suffix}"):
        response_records.delete_response(connection, PROJECT, each)
    for _ in range(2):
        mutations.sweep(connection, RetentionWindow(0, 1))


def filled(path: Path) -> Connection:
    connection = open_database(path, "OFF", 5)
    new = NewConversation("conv_first", b"", {})
    mutations.create_conversation(connection, PROJECT, new, [minted("msg_first"), sent("rs_1", "x")])
    return connection


def test_statements_use_indexes(tmp_path: Path) -> None:
    """No statement reads a whole table or index, or sorts; a lineage is the queue of its own rows."""
    statements: list[str] = []
    with closing(filled(tmp_path / "convgrpc.db")) as connection:
        connection.set_trace_callback(statements.append)
        everything(connection, "traced")
        connection.set_trace_callback(None)
        asked = [statement for statement in statements if not statement.startswith(("BEGIN", "COMMIT"))]
        assert len(asked) > 20
        for statement in asked:
            for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                assert "SCAN" not in re.sub("SCAN (CONSTANT ROW|lineage)", "", detail), statement
                assert "TEMP B-TREE" not in detail, statement


def test_cost_does_not_grow(tmp_path: Path) -> None:
    """What is done with responses costs as much among many responses, and many items of the same id, as among none."""
    with closing(filled(tmp_path / "convgrpc.db")) as connection:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        def cost(suffix: str) -> int:
            nonlocal steps
            steps = 0
            connection.set_progress_handler(count, 1)
            everything(connection, suffix)
            connection.set_progress_handler(None, 1)
            return steps

        cost("warm")
        small = cost("small")
        for number in range(1000):
            items = [sent("rs_1", "x"), reference("msg_first"), minted(f"msg_more_{number}")]
            previous = f"resp_more_{number - 1}" if number % 2 else None
            response_records.record_response(connection, PROJECT, response(f"resp_more_{number}", previous, made=items))
        assert cost("large") < 1.1 * small
