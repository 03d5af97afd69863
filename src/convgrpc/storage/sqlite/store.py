"""The store in one SQLite file, for one process that owns it."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from convgrpc.errors import deadline_exceeded, store_unavailable
from convgrpc.fairness.loop_turns import LoopTurns
from convgrpc.storage.interface import (
    NO_LIMITS,
    Append,
    BatchAppendResult,
    Commit,
    ConversationPage,
    HealthStatus,
    ItemSlice,
    NewConversation,
    NewItem,
    NewResponse,
    Origin,
    Page,
    PositionRange,
    Reference,
    RequestKey,
    ResponseChain,
    ResponseItems,
    Sizes,
    Store,
    StoredKey,
    Version,
)
from convgrpc.storage.sqlite import api_keys, database_health, fork_conversation, mutations, response_records
from convgrpc.storage.sqlite.change_notifier import ChangeNotifier, Topic
from convgrpc.storage.sqlite.checkpoints import Checkpoints
from convgrpc.storage.sqlite.cursors import Cursors
from convgrpc.storage.sqlite.database import Connection, ServerLock, connect, open_database
from convgrpc.storage.sqlite.database_health import DatabaseFiles, DatabaseHealth
from convgrpc.storage.sqlite.group_commit import GroupCommitter
from convgrpc.storage.sqlite.health_probe import HealthProbe
from convgrpc.storage.sqlite.idempotency import IdempotentWrite, RetentionWindow, measure_appended
from convgrpc.storage.sqlite.large_reads import ANY_SIZE, INLINE, LargeRead, LargeReads
from convgrpc.storage.sqlite.leftovers import check_leftovers
from convgrpc.storage.sqlite.queries import (
    find_brought,
    find_conversation,
    find_growth,
    find_items,
    find_referenced,
    find_references,
    find_secret,
    find_span,
    find_version,
    list_conversations,
    list_items,
)
from convgrpc.storage.sqlite.reserve import Reserve
from convgrpc.storage.sqlite.searches import Search
from convgrpc.storage.sqlite.write_queue import ITEM_COST

_FORK_SIZE = 2 << 20
"""What a fork counts for, which is not read before its turn: more than a commit of several writes may have, so that it
gets one of its own.
"""


_LOOKED_UP_AT_ONCE = 50
"""The most items that are looked up before others have a turn on the event loop."""

R = TypeVar("R")


class SqliteStore(Store):
    """Writes in one thread, by group commit; reads on the event loop, where they are cheaper than a thread's switch."""

    def __init__(
        self,
        reader: sqlite3.Connection,
        large_reads: LargeReads,
        writer: GroupCommitter,
        checkpoints: Checkpoints,
        files: DatabaseFiles,
        health: DatabaseHealth,
        window: Callable[[], RetentionWindow],
        sizes: Sizes,
        notifier: ChangeNotifier,
        reserve: Reserve | None,
    ) -> None:
        self._reader = reader
        self._large_reads = large_reads
        self._writer = writer
        self._health = health
        self._watch = HealthProbe(files, health, writer, checkpoints, self._read, reserve)
        self._window = window
        self._sizes = sizes
        self._notifier = notifier
        self._cursors = Cursors(find_secret(reader, "cursors"))
        self._turns = LoopTurns()
        self._closing_down = ExitStack()
        self._closing_lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        alone: bool = False,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        max_waiting_writes: int = 1024,
        max_waiting_bytes: int = 64 << 20,
        keep_requests: float = 86_400.0,
        sizes: Sizes = NO_LIMITS,
        clock: Callable[[], float] = time.time,
        observe: Callable[[Commit], None] = lambda commit: None,
    ) -> "SqliteStore":
        """Opens the database, creating or migrating it first where needed, or raises `UnusableDatabase`.

        This blocks: call it before the event loop serves. Anything but FULL loses acknowledged writes in a power cut.
        `alone` refuses a database that another store has opened so; without it, the log is copied only once nobody uses
        the database any more. `keep_requests` is for how many seconds the keys of requests are kept. `observe` is told
        of each commit, in the thread that writes.
        """
        # SQLite follows links, and puts its log beside the file itself.
        path = Path(path).resolve()

        # By the clock as it was at the start: one that steps ahead would forget requests that are still repeated.
        ahead = clock() - time.monotonic()

        def window() -> RetentionWindow:
            now = ahead + time.monotonic()
            return RetentionWindow(now - keep_requests, now)

        health = DatabaseHealth()
        with ExitStack() as stack:
            claim = stack.enter_context(closing(ServerLock(path))) if alone else None
            reserve = Reserve(path) if alone else None
            if reserve:
                check_leftovers(path)
                stack.callback(reserve.leave)
            opened = open_database(path, synchronous, busy_timeout, alone=alone, reserve=reserve)
            connection = stack.enter_context(closing(opened))
            if reserve:
                reserve.start()
            reader = stack.enter_context(closing(connect(path, synchronous, busy_timeout)))
            files = DatabaseFiles(path)

            def check() -> None:
                files.check()
                if claim:
                    claim.check()

            def make_room() -> None:
                if reserve:
                    reserve.spend()
                    # Zeros over deleted data would take as much of the log as the data have bytes.
                    connection.execute("PRAGMA secure_delete = FAST")
                    # What is copied into the file need not stay in the log, which begins anew.
                    checkpoints.copy()

            # A checkpoint that waits for other processes holds up the writer.
            copier = connect(path, synchronous, min(busy_timeout, 0.1))
            checkpoints = Checkpoints(path, copier, alone=alone, failed=health.record)
            stack.callback(checkpoints.close)
            notifier = ChangeNotifier()
            writer = GroupCommitter(
                connection,
                busy_timeout=busy_timeout,
                committed=checkpoints.committed,
                tidy=lambda connection: mutations.sweep(connection, window()),
                observe=observe,
                publish=notifier.publish,
                check=check,
                is_full=lambda: reserve is not None and reserve.is_spent,
                make_room=make_room,
                failed=health.record,
                max_writes=max_waiting_writes,
                max_bytes=max_waiting_bytes,
            )
            stack.callback(writer.close)
            large_reads = LargeReads(lambda: connect(path, synchronous, busy_timeout))
            stack.callback(large_reads.close)
            store = cls(reader, large_reads, writer, checkpoints, files, health, window, sizes, notifier, reserve)
            store._closing_down = stack.pop_all()
            return store

    async def create_conversation(
        self,
        project: str,
        conversation: NewConversation,
        items: Sequence[NewItem],
        deadline: float | None,
        *,
        request: RequestKey | None = None,
    ) -> bytes:
        def work(connection: Connection) -> bytes:
            attempt = self._attempt(request)
            return mutations.create_conversation(connection, project, conversation, items, attempt, sizes=self._sizes)

        size = len(conversation.data) + await self._size(project, items)
        return await self._writer.write(work, size=size, deadline=deadline, project=project)

    async def get_conversation(self, project: str, conversation_id: str) -> bytes:
        with self._snapshot() as connection:
            return find_conversation(connection, project, conversation_id).data

    async def list_conversations(
        self, project: str, deadline: float | None, *, after: str | None, limit: int, metadata: Mapping[str, str]
    ) -> ConversationPage:
        if len(metadata) > 1:
            return await self._search(project, Search(project, after=after, limit=limit, metadata=metadata), deadline)
        pair = next(iter(metadata.items()), None)

        def read(connection: sqlite3.Connection, max_read: int) -> ConversationPage:
            return list_conversations(connection, project, after=after, limit=limit, pair=pair, max_read=max_read)

        return await self._read_bounded(project, read)

    async def _search(self, project: str, search: Search, deadline: float | None) -> ConversationPage:
        """Runs a search in turns."""
        while True:
            await self._turns.turn(project)
            if deadline is not None and time.monotonic() > deadline:
                raise deadline_exceeded()
            with self._snapshot() as connection:
                page = search.turn(connection)
            if page is not None:
                return page

    async def update_conversation(
        self,
        project: str,
        conversation_id: str,
        metadata: Mapping[str, str],
        change: Callable[[bytes], bytes],
        deadline: float | None,
    ) -> bytes:
        def work(connection: Connection) -> bytes:
            return mutations.update_conversation(connection, project, conversation_id, metadata, change)

        size = sum(len(key) + len(value) for key, value in metadata.items())
        return await self._writer.write(work, size=size, deadline=deadline, project=project)

    async def fork_conversation(
        self,
        project: str,
        conversation_id: str,
        last_item_id: str | None,
        fork: Callable[[bytes], NewConversation],
        deadline: float | None,
        *,
        request: RequestKey | None = None,
    ) -> bytes:
        def work(connection: Connection) -> bytes:
            attempt = self._attempt(request)
            return fork_conversation.fork_conversation(
                connection, project, conversation_id, last_item_id, fork, attempt, sizes=self._sizes
            )

        return await self._writer.write(work, size=_FORK_SIZE, deadline=deadline, project=project)

    async def delete_conversation(self, project: str, conversation_id: str, deadline: float | None) -> None:
        work = partial(mutations.delete_conversation, project=project, conversation_id=conversation_id)
        topics = [Topic(project, conversation_id)]
        await self._writer.write(work, deadline=deadline, topics=topics, project=project, frees=True)

    async def append_items(
        self,
        project: str,
        conversation_id: str,
        items: Sequence[NewItem],
        deadline: float | None,
        *,
        request: RequestKey | None = None,
        expected_last: str | None = None,
    ) -> list[bytes]:
        new = Append(conversation_id, items, request, expected_last)

        def work(connection: Connection) -> list[bytes]:
            appended = mutations.append_items(connection, project, new, self._attempt(request), sizes=self._sizes)
            return [data for _, data in appended]

        topics = [Topic(project, conversation_id)]
        size = await self._size(project, items)
        return await self._writer.write(work, size=size, deadline=deadline, topics=topics, project=project)

    async def append_batch(self, project: str, appends: Sequence[Append], deadline: float | None) -> BatchAppendResult:
        def work(connection: Connection) -> BatchAppendResult:
            attempts = [(each, self._attempt(each.request)) for each in appends]
            return mutations.append_batch(connection, project, attempts, sizes=self._sizes)

        size = await self._size(project, [item for each in appends for item in each.items])
        topics = {Topic(project, each.conversation_id) for each in appends}
        return await self._writer.write(work, size=size, deadline=deadline, topics=topics, project=project)

    async def get_version(self, project: str, conversation_id: str) -> Version:
        with self._reading() as connection:
            return find_version(connection, project, conversation_id)

    async def list_items(
        self, project: str, conversation_id: str, *, after: str | None, limit: int, descending: bool, max_bytes: int
    ) -> Page:
        def read(connection: sqlite3.Connection, max_read: int) -> Page:
            version = find_version(connection, project, conversation_id)
            return list_items(
                connection,
                version,
                after=after,
                limit=limit,
                descending=descending,
                max_bytes=max_bytes,
                max_read=max_read,
            )

        return await self._read_bounded(project, read)

    async def get_item(self, project: str, conversation_id: str, item_id: str) -> bytes:
        (item,) = await self.get_items(project, conversation_id, [item_id], max_bytes=0)
        return item

    async def get_items(
        self, project: str, conversation_id: str, item_ids: Sequence[str], *, max_bytes: int
    ) -> list[bytes]:
        def read(connection: sqlite3.Connection, max_read: int) -> list[bytes]:
            conversation = find_conversation(connection, project, conversation_id)
            return find_items(connection, conversation, item_ids, max_bytes, max_read)

        return await self._read_bounded(project, read)

    async def read_after(
        self,
        project: str,
        conversation_id: str,
        position: int | None,
        *,
        last: int | None = None,
        limit: int,
        max_bytes: int,
        descending: bool = False,
    ) -> ItemSlice:
        def read(connection: sqlite3.Connection, max_read: int) -> ItemSlice:
            return find_growth(
                connection,
                project,
                conversation_id,
                position,
                last=last,
                limit=limit,
                max_bytes=max_bytes,
                descending=descending,
                max_read=max_read,
            )

        return await self._read_bounded(project, read)

    async def get_span(self, project: str, conversation_id: str, after: str | None) -> PositionRange:
        position = None if after is None else self._cursors.position(conversation_id, after)
        with self._snapshot() as connection:
            conversation = find_conversation(connection, project, conversation_id)
            return find_span(connection, conversation, after if position is None else position)

    def cursor(self, conversation_id: str, position: int) -> str:
        return self._cursors.cursor(conversation_id, position)

    def subscribe(
        self, project: str, conversation_id: str, callback: Callable[[], None]
    ) -> AbstractContextManager[None]:
        return self._notifier.subscribe(Topic(project, conversation_id), callback)

    async def brought(self, project: str, items: Sequence[NewItem]) -> int:
        named = [item for item in items if item.origin is not Origin.MINTED]
        sizes: dict[str, int] = {}
        size = 0
        for start in range(0, len(named), _LOOKED_UP_AT_ONCE):
            await self._turns.turn(project)
            with self._snapshot() as connection:
                size += find_brought(connection, project, named[start : start + _LOOKED_UP_AT_ONCE], sizes)
        return size

    async def measure_appended(self, project: str, request: RequestKey) -> int:
        with self._reading() as connection:
            return measure_appended(connection, project, IdempotentWrite(request, self._window()))

    async def find_references(self, project: str, item_ids: Sequence[str]) -> list[Reference]:
        with self._snapshot() as connection:
            return find_references(connection, project, item_ids)

    async def get_referenced(self, project: str, references: Sequence[Reference]) -> list[bytes]:
        def read(connection: sqlite3.Connection, max_read: int) -> list[bytes]:
            if any(reference.size > max_read for reference in references):
                raise LargeRead
            return find_referenced(connection, references)

        return await self._read_bounded(project, read)

    async def delete_item(self, project: str, conversation_id: str, item_id: str, deadline: float | None) -> bytes:
        work = partial(mutations.delete_item, project=project, conversation_id=conversation_id, item_id=item_id)
        topics = [Topic(project, conversation_id)]
        return await self._writer.write(work, deadline=deadline, topics=topics, project=project, frees=True)

    async def record_response(
        self, project: str, response: NewResponse, deadline: float | None, *, request: RequestKey | None = None
    ) -> bytes:
        def work(connection: Connection) -> bytes:
            return response_records.record_response(
                connection, project, response, self._attempt(request), sizes=self._sizes
            )

        size = len(response.data) + await self._size(project, [*response.input, *response.output])
        topics = [Topic(project, response.conversation)] if response.conversation else []
        return await self._writer.write(work, size=size, deadline=deadline, topics=topics, project=project)

    async def get_response(self, project: str, response_id: str) -> bytes:
        with self._snapshot() as connection:
            return response_records.find_response(connection, project, response_id).data

    async def delete_response(self, project: str, response_id: str, deadline: float | None) -> None:
        work = partial(response_records.delete_response, project=project, response_id=response_id)
        await self._writer.write(work, deadline=deadline, project=project, frees=True)

    async def get_response_chain(
        self, project: str, response_id: str, *, after: ResponseItems | None = None, limit: int
    ) -> ResponseChain:
        with self._snapshot() as connection:
            return response_records.find_lineage(connection, project, response_id, after, limit)

    async def get_segment(
        self, project: str, segment: ResponseItems, position: int, *, limit: int, max_bytes: int
    ) -> ItemSlice:
        def read(connection: sqlite3.Connection, max_read: int) -> ItemSlice:
            return response_records.find_segment(connection, segment, position, limit, max_bytes, max_read)

        return await self._read_bounded(project, read)

    @property
    def waiting_writes(self) -> int:
        return self._writer.waiting

    async def condition(self) -> HealthStatus:
        return await self._watch.condition()

    async def create_key(self, key: StoredKey) -> None:
        await self._writer.write(partial(api_keys.insert_key, key=key))

    async def get_key(self, key_id: str) -> StoredKey | None:
        with self._snapshot() as connection:
            return api_keys.find_key(connection, key_id)

    async def list_keys(self) -> list[StoredKey]:
        with self._snapshot() as connection:
            return api_keys.list_keys(connection)

    async def has_keys(self) -> bool:
        with self._snapshot() as connection:
            return api_keys.has_keys(connection)

    async def revoke_key(self, key_id: str, now: float) -> bool:
        return await self._writer.write(partial(api_keys.revoke_key, key_id=key_id, now=now), frees=True)

    async def close(self) -> None:
        """Finishes the writes that wait, and closes the database. Doing it again does nothing."""
        self._closed = True
        await asyncio.to_thread(self._close_down)

    def _close_down(self) -> None:
        with self._closing_lock:
            self._closing_down.close()

    def _read(self) -> int:
        """Reads something, and returns how many bytes of the file are free."""
        with self._snapshot() as connection:
            connection.execute("SELECT count(*) FROM projects").fetchone()
            pages, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
            )
            return int(pages * size)

    def _attempt(self, request: RequestKey | None) -> IdempotentWrite | None:
        return request and IdempotentWrite(request, self._window())

    async def _size(self, project: str, items: Sequence[NewItem]) -> int:
        """Returns what a write of new items counts for in a commit, with the items that they stand for."""
        size = sum(len(item.data) + ITEM_COST for item in items)
        return size if _all_minted(items) else size + await self.brought(project, items)

    async def _read_bounded(self, project: str, read: Callable[[sqlite3.Connection, int], R]) -> R:
        """Reads on the event loop, or in a thread what has many bytes. `read` takes the most bytes to read."""
        try:
            with self._snapshot() as connection:
                return read(connection, INLINE)
        except LargeRead:
            return await self._large_reads.run(project, partial(self._read_any, read))

    def _read_any(self, read: Callable[[sqlite3.Connection, int], R], connection: sqlite3.Connection) -> R:
        with self._snapshot(connection):
            return read(connection, ANY_SIZE)

    @contextmanager
    def _snapshot(self, connection: sqlite3.Connection | None = None) -> Iterator[sqlite3.Connection]:
        """One state of the database for several statements: the writer goes on meanwhile."""
        with self._reading(connection) as reader:
            reader.execute("BEGIN")
            try:
                yield reader
            finally:
                reader.rollback()

    @contextmanager
    def _reading(self, connection: sqlite3.Connection | None = None) -> Iterator[sqlite3.Connection]:
        """For one statement."""
        if self._closed:
            raise store_unavailable()
        try:
            yield connection or self._reader
        except sqlite3.Error as error:
            self._health.record_read(error)
            raise store_unavailable(database_health.describe(error)) from error


def _all_minted(items: Sequence[NewItem]) -> bool:
    return all(item.origin is Origin.MINTED for item in items)
