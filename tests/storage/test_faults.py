"""What a server does when its disk, its files or its clock fail, by real means."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convgrpc.errors import NotFound, Unavailable
from convgrpc.handlers.conversations import ConversationsService
from convgrpc.server.app import Running
from convgrpc.server.auth import Keys
from convgrpc.settings import Address, Settings
from convgrpc.storage.interface import Commit, HealthStatus, NewConversation, RequestKey
from convgrpc.storage.sqlite import reserve
from convgrpc.storage.sqlite.database import UnusableDatabase
from convgrpc.storage.sqlite.database_health import FULL
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.testing import served
from tests.conftest import FREE_PORT, make_key
from tests.storage.holding import together
from tests.storage.test_store import minted

from .disks import broken, failing_disk, fill, immutable, remount, small_disk
from .load import Ledger, loaded, losses
from .power_cut import PowerCut

TIMEOUT = 20
SIZE = 20_000
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the database more often than there is need to, so that tests are short."""
    monkeypatch.setattr("convgrpc.server.health._EVERY", 0.1)


class Patient:
    """A server whose database is broken, and how it is."""

    def __init__(self, settings: Settings, running: Running, stack: ExitStack) -> None:
        self.database = Path(settings.db)
        self.running = running
        self.http = stack.enter_context(
            httpx.Client(base_url=f"http://{self.running.http}", timeout=TIMEOUT, trust_env=False)
        )
        channel = stack.enter_context(grpc.insecure_channel(str(self.running.grpc)))
        self._health = health_pb2_grpc.HealthStub(channel)

    def create(self, *texts: str) -> httpx.Response:
        items = [{"role": "user", "content": text} for text in texts]
        return self.http.post("/v1/conversations", json={"items": items})

    def delete(self, conversation: str) -> httpx.Response:
        return self.http.delete(f"/v1/conversations/{conversation}")

    def texts(self, conversation: str) -> list[str]:
        items = self.http.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"}).json()["data"]
        return [item["content"][0]["text"] for item in items]

    def health(self, service: str = "") -> tuple[int, int, dict[str, str]]:
        """What gRPC, the status of REST, and its body tell."""
        told = self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
        answer = self.http.get("/healthz")
        return told.status, answer.status_code, answer.json()

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://{self.running.metrics}/metrics", timeout=TIMEOUT, trust_env=False).text
        return float(text.split(f"\n{name} ")[1].split()[0])

    def turns(self, *, bad: str | None) -> None:
        """Waits until the health tells of a trouble, or that there is none, everywhere alike."""
        failing = NOT_SERVING, 503, {"status": "failing", "database": bad}
        expected = failing if bad else (SERVING, 200, {"status": "ok"})

        def seen() -> list[object]:
            service = self.health("convgrpc.v1.ConversationsService")
            return [self.health(), service, self.metric("convgrpc_store_failing")]

        # All at one moment: on a slow disk each commit that is done is good news until the next.
        eventually(lambda: seen() == [expected, expected, bool(bad)], seen)
        assert self.http.get("/livez").status_code == 200


def eventually(condition: Callable[[], bool], seen: Callable[[], Any] = lambda: None) -> None:
    give_up = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < give_up, seen()
        time.sleep(0.05)


@contextmanager
def patient(settings: Settings) -> Iterator[Patient]:
    with ExitStack() as stack:
        running = stack.enter_context(served(replace(settings, metrics=FREE_PORT)))
        yield Patient(settings, running, stack)


class Killable(Patient):
    """A server in a process of its own."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        command = [sys.executable, "-m", "convgrpc", "serve", "--db", settings.db]
        self._process = subprocess.Popen(
            [*command, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        stack.enter_context(self._process)
        stack.callback(self._process.terminate)
        assert self._process.stdout
        ports = re.findall(r"127\.0\.0\.1:(\d+)", self._process.stdout.readline())
        super().__init__(settings, Running(*(Address("127.0.0.1", int(port)) for port in ports)), stack)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT)


@contextmanager
def killable(settings: Settings) -> Iterator[Killable]:
    with ExitStack() as stack:
        yield Killable(settings, stack)


def refused(answer: httpx.Response, why: str) -> bool:
    message = f"The server's database refused the request: {why}. Please retry later."
    expected = {"message": message, "type": "server_error", "param": None, "code": "store_unavailable"}
    return answer.status_code == 503 and answer.json()["error"] == expected


def test_full_disk_refuses_writes_until_there_is_room(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers, health and metrics tell why; reads go on; all is well again by itself, and nothing that was acknowledged
    is lost, not even when the server starts again.
    """
    ledger = Ledger()
    with small_disk(tmp_path / "disk") as disk:
        settings = replace(settings, db=str(disk / "convgrpc.db"))
        with patient(settings) as server:
            kept = server.create("kept").json()["id"]
            with loaded(server.running, ledger, size=SIZE):
                eventually(lambda: ledger.acknowledged > 5)
                ballast = fill(disk)
                server.turns(bad="the disk is full")
                assert refused(server.create("x" * 500_000), "the disk is full")
                assert server.texts(kept) == ["kept"]
            # Too little room does not count, or health would turn with the size of each write.
            monkeypatch.setattr("convgrpc.storage.sqlite.reserve._MARGIN", 1 << 60)
            ballast.unlink()
            time.sleep(0.5)
            server.turns(bad="the disk is full")
            monkeypatch.undo()
            server.turns(bad=None)
            before = ledger.acknowledged
            with loaded(server.running, ledger, size=10):
                eventually(lambda: ledger.acknowledged > before)
            assert set(ledger.refusals) >= {
                "UNAVAILABLE The server's database refused the request: the disk is full. Please retry later.",
            }
            assert losses(server.running, ledger) == []
        with patient(settings) as server:
            assert losses(server.running, ledger) == []
        assert integrity(settings.db) == ["ok"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_full_disk_takes_deletions_and_a_restarted_server_reads(
    settings: Settings, tmp_path: Path, is_killed: bool
) -> None:
    """Other writes do not eat the space that is kept for deletions. All is well again once there is room."""
    with small_disk(tmp_path / "disk") as disk:
        settings = replace(settings, db=str(disk / "convgrpc.db"))
        with ExitStack() as stack:
            server = stack.enter_context(killable(settings))
            ids = [server.create("x" * 10_000).json()["id"] for _ in range(60)]
            ballast = fill(disk)
            with ThreadPoolExecutor(10) as threads:
                assert all(refused(each, FULL) for each in threads.map(server.create, ["x" * 300_000] * 100))
            eventually(lambda: server.health() == (NOT_SERVING, 503, {"status": "failing", "database": FULL}))
            assert [server.delete(each).status_code for each in ids[:20]] == [200] * 20
            item = server.http.get(f"/v1/conversations/{ids[20]}/items").json()["data"][0]["id"]
            assert server.http.delete(f"/v1/conversations/{ids[20]}/items/{item}").status_code == 200
            assert refused(server.create("x"), FULL)
            if is_killed:
                server.kill()
        more = disk / "more"
        more.write_bytes(b"")
        with suppress(OSError), more.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with killable(settings) as server:
            assert server.health() == (NOT_SERVING, 503, {"status": "failing", "database": FULL})
            assert [server.http.get(f"/v1/conversations/{each}").status_code for each in ids[:21]] == [404] * 20 + [200]
            assert server.texts(ids[30]) == ["x" * 10_000]
            assert server.texts(ids[20]) == []
            assert [server.delete(each).status_code for each in ids[21:41]] == [200] * 20
            assert refused(server.create("x"), FULL)
            ballast.unlink()
            more.unlink()
            eventually(lambda: server.health() == (SERVING, 200, {"status": "ok"}))
            assert server.create("x").status_code == 200
            assert Path(f"{settings.db}-reserve").stat().st_size == reserve.SIZE
        assert integrity(settings.db) == ["ok"]


def test_free_pages_of_the_file_let_writes_go_on(settings: Settings, tmp_path: Path) -> None:
    """On a disk that stays full, as much as was deleted can be stored again."""
    with small_disk(tmp_path / "disk") as disk:
        settings = replace(settings, db=str(disk / "convgrpc.db"))
        with killable(settings) as server:
            ids = [server.create("x" * 300_000).json()["id"] for _ in range(35)]
            fill(disk)
            eventually(lambda: refused(server.create("x" * 300_000), FULL))
            assert refused(server.create("x"), FULL)
            for each in ids:
                assert server.delete(each).status_code == 200
            eventually(lambda: server.create("x").status_code == 200)
            kept = [server.create("x" * 20_000).json()["id"] for _ in range(20)]
            assert server.texts(kept[-1]) == ["x" * 20_000]
            assert [server.delete(each).status_code for each in kept] == [200] * 20
            # Once there is room, the reserve is made again while others write.
            remount(disk, "size=128m")
            reserved = Path(f"{settings.db}-reserve")
            eventually(lambda: server.create("x").status_code == 200 and reserved.exists())


def test_large_item_can_be_deleted_on_a_full_disk(settings: Settings, tmp_path: Path) -> None:
    """Its space is used again."""
    with small_disk(tmp_path / "disk") as disk, killable(replace(settings, db=str(disk / "convgrpc.db"))) as server:
        large = server.create("x" * 10_000_000).json()["id"]
        fill(disk)
        eventually(lambda: refused(server.create("x" * 300_000), FULL))
        assert server.delete(large).status_code == 200
        eventually(lambda: server.create("x").status_code == 200)


def test_deletions_in_a_batch_that_finds_the_disk_full_are_done(tmp_path: Path) -> None:
    """The other writes of the batch are refused."""

    async def scenario(disk: Path) -> None:
        store = SqliteStore.open(disk / "convgrpc.db", alone=True)
        try:
            for name in ("conv_1", "conv_2"):
                await create(store, name)
            await store.append_items("default", "conv_1", [minted("of conv_1")], None)
            fill(disk)
            large = minted("large", "x" * (1 << 20))
            outcomes = await together(
                store,
                "default",
                "conv_1",
                store.append_items("default", "conv_1", [large], None),
                store.delete_conversation("default", "conv_2", None),
                store.delete_item("default", "conv_1", "of conv_1", None),
                store.append_items("default", "conv_1", [minted("small")], None),
            )
            assert [isinstance(each, Unavailable) for each in outcomes] == [True, False, False, True]
            with pytest.raises(NotFound):
                await store.get_conversation("default", "conv_2")
            assert (await store.condition()).unavailable == FULL
        finally:
            await store.close()

    with small_disk(tmp_path / "disk") as disk:
        asyncio.run(scenario(disk))


def integrity(path: str | Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        try:
            return [line for (line,) in connection.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as error:
            return [str(error)]


def test_files_that_cannot_be_written_refuse_writes_until_they_can(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads go on, the log has it once, and recovery is by itself."""
    with patient(settings) as server:
        kept = server.create("kept").json()["id"]
        with immutable(server.database, Path(f"{settings.db}-wal")):
            assert refused(server.create("lost"), "the disk fails")
            assert refused(server.create("lost"), "the disk fails")
            server.turns(bad="the disk fails")
            assert server.texts(kept) == ["kept"]
        server.turns(bad=None)
        assert server.texts(server.create("later").json()["id"]) == ["later"]
        assert len(server.http.get("/v1/x/conversations").json()["data"]) == 2
    told = [record.getMessage() for record in caplog.records if record.name.startswith("convgrpc")]
    assert told.count("The database cannot be used: the disk fails") == 1
    assert told.count("The database can be used again") == 1
    assert sum("SQLITE_IOERR_WRITE" in line for line in told) == 1


def test_log_that_cannot_be_copied_is_a_trouble(settings: Settings) -> None:
    """Before it fills the disk: writes still work, but for how long?"""
    with patient(settings) as server, immutable(server.database):
        for _ in range(6):
            assert server.create("x" * 1_000_000).status_code == 200
        server.turns(bad="the disk fails")


def test_file_system_that_gives_up_leaves_reads(settings: Settings, tmp_path: Path) -> None:
    """As when the device below it fails; what was acknowledged is there on the next start elsewhere."""
    with failing_disk(tmp_path / "disk") as disk:
        with patient(replace(settings, db=str(disk / "convgrpc.db"))) as server:
            kept = server.create("kept").json()["id"]
            broken(disk)
            assert refused(server.create("lost"), "the disk fails")
            server.turns(bad="the disk fails")
            assert server.texts(kept) == ["kept"]
        for suffix in ("", "-wal"):
            if (source := disk / f"convgrpc.db{suffix}").exists():
                shutil.copy(source, f"{settings.db}{suffix}")
    with patient(settings) as server:
        assert server.texts(kept) == ["kept"]


@pytest.mark.parametrize(
    ("suffix", "what"),
    [("", "the file"), ("-wal", "the write-ahead log"), ("-shm", "the index of the write-ahead log")],
)
def test_file_that_is_not_where_it_was_takes_no_writes(settings: Settings, suffix: str, what: str) -> None:
    """Nobody would find them there. Reads go on; once the file is back, so do writes."""
    with patient(settings) as server:
        kept = server.create("kept").json()["id"]
        path = Path(f"{settings.db}{suffix}")
        away = path.rename(path.with_name("away"))
        assert refused(server.create("lost"), f"{what} was deleted or moved away")
        server.turns(bad=f"{what} was deleted or moved away")
        path.write_bytes(b"another")
        assert refused(server.create("lost"), f"{what} was replaced")
        server.turns(bad=f"{what} was replaced")
        assert server.texts(kept) == ["kept"]
        away.rename(path)
        server.turns(bad=None)
        assert server.texts(server.create("later").json()["id"]) == ["later"]
    with patient(settings) as server:
        assert len(server.http.get("/v1/x/conversations").json()["data"]) == 2


def test_deleted_log_loses_nothing_when_the_server_stops(settings: Settings) -> None:
    """What was acknowledged before is copied from it into the database."""
    with patient(settings) as server:
        kept = server.create("kept").json()["id"]
        Path(f"{settings.db}-wal").unlink()
        assert refused(server.create("lost"), "the write-ahead log was deleted or moved away")
    with patient(settings) as server:
        assert server.texts(kept) == ["kept"]
        assert len(server.http.get("/v1/x/conversations").json()["data"]) == 1


def corrupt(path: Path, marker: bytes) -> None:
    """Overwrites the page of a database that has these bytes."""
    content = path.read_bytes()
    page = content.index(marker) // 4096
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)


def test_corrupt_page_breaks_what_is_on_it(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Other conversations are read and written; the damage is in the log, the health and the metrics, and SQLite finds
    it.
    """
    marker = "here " * 300
    with patient(settings) as server:
        before, hit, after = (server.create(text).json()["id"] for text in ("x" * 20_000, marker, "y" * 20_000))
    corrupt(Path(settings.db), marker.encode())
    with patient(settings) as server:
        assert server.health() == (SERVING, 200, {"status": "ok"})
        for _ in range(3):
            assert refused(server.http.get(f"/v1/conversations/{hit}/items"), "it is corrupt")
        damaged = {"status": "damaged", "database": "it is corrupt"}
        eventually(lambda: server.health() == (SERVING, 200, damaged), server.health)
        assert server.metric("convgrpc_store_damaged") == 1
        assert server.texts(before) == ["x" * 20_000]
        assert server.texts(after) == ["y" * 20_000]
        assert server.texts(server.create("later").json()["id"]) == ["later"]
    assert "The database is damaged: SQLITE_CORRUPT" in caplog.text
    assert caplog.text.count("A read failed") == 1
    assert integrity(settings.db) != ["ok"]


@pytest.fixture
def power_cut() -> Iterator[PowerCut]:
    with PowerCut.installed() as installed:
        yield installed


def test_slow_disk_is_a_trouble_while_it_lasts(
    settings: Settings, power_cut: PowerCut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that takes too long turns the health; others read meanwhile, more writes are refused, and it is
    acknowledged at last.
    """
    monkeypatch.setattr("convgrpc.storage.sqlite.group_commit.STALLED", 0.3)
    monkeypatch.setattr("convgrpc.storage.sqlite.health_probe.STALLED", 0.3)
    ledger = Ledger()
    with patient(settings) as server:
        kept = server.create("kept").json()["id"]
        with loaded(server.running, ledger, size=100):
            power_cut.seconds_per_sync = 2.5
            server.turns(bad="the disk is too slow")
            assert server.texts(kept) == ["kept"]
            assert refused(server.create("refused"), "the disk is too slow")
            power_cut.seconds_per_sync = 0
            server.turns(bad=None)
        assert ledger.refusals == []
        assert losses(server.running, ledger) == []


def test_disk_that_is_always_slow_is_no_better_between_two_commits(
    settings: Settings, power_cut: PowerCut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health stays bad until a commit is done in time."""
    monkeypatch.setattr("convgrpc.storage.sqlite.group_commit.STALLED", 0.2)
    monkeypatch.setattr("convgrpc.storage.sqlite.health_probe.STALLED", 0.2)

    async def scenario() -> None:
        async with opened(settings) as store:
            power_cut.seconds_per_sync = 0.4
            for name in ("conv_1", "conv_2"):
                await create(store, name)
                assert await store.condition() == HealthStatus("the disk is too slow", None)
                # What was tried for that is on its way still.
                await asyncio.sleep(0.5)
            power_cut.seconds_per_sync = 0
            while await store.condition() != HealthStatus(None, None):
                await asyncio.sleep(0.05)

    run(scenario())


def test_dropped_syncs_are_a_trouble_until_they_are_done(settings: Settings, power_cut: PowerCut) -> None:
    """A write that the disk did not confirm is not acknowledged."""
    with patient(settings) as server:
        power_cut.fail_syncs = True
        assert refused(server.create("lost"), "the disk fails")
        server.turns(bad="the disk fails")
        power_cut.fail_syncs = False
        server.turns(bad=None)
        assert server.create("kept").status_code == 200


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs a scenario; whatever hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT):
            await scenario

    asyncio.run(bounded())


@asynccontextmanager
async def opened(settings: Settings, **options: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(settings.db, **options)
    try:
        yield store
    finally:
        await store.close()


async def create(store: SqliteStore, name: str, request: RequestKey | None = None) -> bytes:
    conversation = NewConversation(name, name.encode(), {})
    return await store.create_conversation("default", conversation, [], None, request=request)


def test_locked_database_is_a_trouble_while_it_lasts(settings: Settings) -> None:
    """Another program that keeps a transaction open holds up all writes: the first for long, so that it may yet end."""

    async def scenario() -> None:
        async with opened(settings, busy_timeout=2) as store:
            with closing(sqlite3.connect(settings.db, isolation_level=None)) as other:
                for least, most in ((2, TIMEOUT), (0, 2), (0, 2)):
                    other.execute("BEGIN IMMEDIATE")
                    began = time.monotonic()
                    with pytest.raises(Unavailable, match="another process is using it"):
                        await create(store, "conv_1")
                    assert least <= time.monotonic() - began < most
                    assert await store.condition() == HealthStatus("another process is using it", None)
                    other.execute("ROLLBACK")
                assert await store.condition() == HealthStatus(None, None)
                other.execute("BEGIN IMMEDIATE")
                waiting = asyncio.create_task(create(store, "conv_2"))
                await asyncio.sleep(0.5)
                other.execute("ROLLBACK")
                await waiting
            assert await store.condition() == HealthStatus(None, None)

    run(scenario())


def test_idle_database_is_tried_now_and_then(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is known to be broken before the next caller finds out; no more often than that."""

    async def scenario() -> None:
        commits: list[Commit] = []
        async with opened(settings, observe=commits.append) as store:
            for _ in range(3):
                assert await store.condition() == HealthStatus(None, None)
            assert len(commits) == 1
            with immutable(Path(f"{settings.db}-wal")):
                assert await store.condition() == HealthStatus(None, None)
                monkeypatch.setattr("convgrpc.storage.sqlite.health_probe._IDLE", 0)
                assert await store.condition() == HealthStatus("the disk fails", None)

    run(scenario())


@pytest.mark.parametrize("step", [-10 * 86_400, 10 * 86_400], ids=["back", "forward"])
def test_clock_that_steps_makes_no_write_happen_twice(settings: Settings, step: int) -> None:
    """The keys of requests are kept for as long as was promised, whatever the clock says meanwhile."""
    now = time.time()
    key = RequestKey("create", "job-1", b"digest")

    async def scenario() -> None:
        nonlocal now
        async with opened(settings, clock=lambda: now) as store:
            first = await create(store, "conv_1", key)
            now += step
            # What is forgotten is forgotten once something else was written.
            await create(store, "conv_2")
            assert await create(store, "conv_3", key) == first
            now -= step
            assert await create(store, "conv_4", key) == first

    run(scenario())


def test_clock_that_steps_breaks_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is newer comes first whatever its time, items keep their order, and a key is valid by the clock as it is."""
    real, step = time.time, 0.0
    for service in (Keys, ConversationsService):
        defaults = service.__init__.__kwdefaults__
        assert defaults
        monkeypatch.setitem(defaults, "clock", lambda: real() + step)
    with patient(settings) as server:
        server.http.headers["authorization"] = f"Bearer {make_key(settings, 'default', lifetime=3600)}"
        created = [server.create("1").json()]
        for step in (-86_400.0, 1800.0, -1.0):
            created.append(server.create("1").json())
            answer = server.http.post(
                f"/v1/conversations/{created[0]['id']}/items", json={"items": [{"role": "user", "content": f"{step}"}]}
            )
            assert answer.status_code == 200
        assert server.texts(created[0]["id"]) == ["1", "-86400.0", "1800.0", "-1.0"]
        assert server.http.get("/v1/x/conversations").json()["data"] == created[::-1]
        step = 7200.0
        assert server.create("1").status_code == 401
        step = 0.0
        assert server.create("1").status_code == 200


def test_disk_that_cannot_be_used_is_named_at_the_start(settings: Settings, tmp_path: Path) -> None:
    """Read-only, or full without a reserve; once it can be written, the server starts."""
    with small_disk(tmp_path / "disk") as disk:
        at = [replace(settings, db=str(disk / f"{name}.db")) for name in ("there", "new")]
        with patient(at[0]) as server:
            kept = server.create("kept").json()["id"]
        ballast = fill(disk)
        with pytest.raises(UnusableDatabase, match="the disk is full"), served(at[1]):
            pass
        ballast.unlink()
        remount(disk, "ro")
        for each in at:
            with pytest.raises(UnusableDatabase, match="its folder cannot be written"), served(each):
                pass
        remount(disk, "rw")
        with patient(at[0]) as server:
            assert server.texts(kept) == ["kept"]


def test_server_beside_a_server_is_refused(settings: Settings) -> None:
    """The database has one server at a time; keys and sqlite3 work beside it, and what a killed one left is no
    hindrance.
    """
    with patient(settings) as server:
        with pytest.raises(UnusableDatabase, match="another server is using it"), served(settings):
            pass
        make_key(settings, "alder")
        with closing(sqlite3.connect(settings.db)) as other:
            assert other.execute("SELECT count(*) FROM keys").fetchone() == (1,)
        eventually(lambda: server.create("no key").status_code == 401)
    assert os.path.exists(f"{settings.db}-lock")
    with served(settings):
        pass


def test_lock_that_was_taken_away_is_taken_again(settings: Settings) -> None:
    """By the server, with its next write; if another was faster, that one has the database."""
    lock = Path(f"{settings.db}-lock")
    with patient(settings) as server:
        lock.unlink()
        assert server.create("kept").status_code == 200
        with pytest.raises(UnusableDatabase, match="another server is using it"), served(settings):
            pass
        lock.unlink()
        with patient(settings) as other:
            assert refused(server.create("refused"), "another server is using it")
            server.turns(bad="another server is using it")
            assert other.create("kept").status_code == 200
        server.turns(bad=None)
        assert server.create("kept").status_code == 200


def test_backup_beside_a_server_is_whole(settings: Settings, tmp_path: Path) -> None:
    """Under load, by SQLite's own means."""
    ledger, copies = Ledger(), [tmp_path / "backup.db", tmp_path / "vacuum.db"]
    with patient(settings) as server, loaded(server.running, ledger, size=SIZE):
        eventually(lambda: ledger.acknowledged > 5)
        acknowledged = dict(ledger.batches)
        with closing(sqlite3.connect(settings.db)) as source, closing(sqlite3.connect(copies[0])) as target:
            source.backup(target)
            source.execute("VACUUM INTO ?", (str(copies[1]),))
    for copy in copies:
        assert integrity(copy) == ["ok"]
        with patient(replace(settings, db=str(copy))) as server:
            counts = {name: len(server.texts(name)) for name in acknowledged}
            assert all(counts[name] >= min(20, 3 * batches) for name, batches in acknowledged.items())
