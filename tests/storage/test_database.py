import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlite_utils import Database

from convgrpc.storage.interface import NewConversation, NewItem, Origin
from convgrpc.storage.sqlite import mutations
from convgrpc.storage.sqlite.database import Connection, ServerLock, UnusableDatabase, connect, open_database
from convgrpc.storage.sqlite.migrations import APPLICATION_ID, MIGRATIONS


def write_text(path: Path) -> None:
    path.write_text("It was a dark and stormy night")


def write_zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def write_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (theirs)")
        connection.execute("PRAGMA application_id = 7")


def write_foreign_and_crash(path: Path) -> None:
    """Leaves a write-ahead log behind, which SQLite would copy into the file."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE theirs (theirs)")
        connection.execute("PRAGMA wal_checkpoint")
        connection.execute("CREATE TABLE more (theirs)")
        copy_with_log(other, path)
    other.unlink()


def write_ours(path: Path) -> None:
    with closing(open_database(path, "FULL", 5)) as connection:
        items = [NewItem(f"msg_{n}", bytes(1000), Origin.MINTED) for n in range(100)]
        mutations.create_conversation(connection, "default", NewConversation("conv_1", b"", {}), items)


def write_truncated(path: Path) -> None:
    write_ours(path)
    os.truncate(path, path.stat().st_size // 2)


def write_broken_schema(path: Path) -> None:
    write_ours(path)
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xff" * 3900
    path.write_bytes(content)


def write_newer(path: Path) -> None:
    write_ours(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('convgrpc', 'add_colours', '')"
        )


def write_newer_and_crash(path: Path) -> None:
    other = path.with_name("other.db")
    write_newer(other)
    with closing(open_newer(other)) as connection:
        mutations.create_conversation(connection, "default", NewConversation("conv_2", b"", {}), [])
        copy_with_log(other, path)
    other.unlink()


def open_newer(path: Path) -> Connection:
    return connect(path, "FULL", 5)


def copy_with_log(source: Path, target: Path) -> None:
    shutil.copy(source, target)
    shutil.copy(f"{source}-wal", f"{target}-wal")


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (write_text, "it is not a SQLite database"),
        (write_zeros, "it is not a SQLite database"),
        (write_foreign, "it is a SQLite database of another program"),
        (write_foreign_and_crash, "it is a SQLite database of another program"),
        (write_truncated, "it is corrupt"),
        (write_broken_schema, "it is corrupt"),
        (write_newer, "it was written by a newer convgrpc: add_colours"),
        (write_newer_and_crash, "it was written by a newer convgrpc: add_colours"),
    ],
)
def test_refused_file_stays_as_it_is(tmp_path: Path, write: Callable[[Path], None], why: str) -> None:
    """A file that is not ours to use is refused in words, byte for byte as it was, with nothing beside it."""
    path = tmp_path / "convgrpc.db"
    write(path)
    before = snapshot(tmp_path)
    with pytest.raises(UnusableDatabase) as refusal:
        open_database(path, "FULL", 5)
    assert str(refusal.value) == f"Cannot use the database {path}: {why}."
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/convgrpc.db", "its folder does not exist"),
        ("file/convgrpc.db", "its folder does not exist"),
        ("folder", "it is not a file"),
    ],
)
def test_unusable_place_is_refused(tmp_path: Path, name: str, why: str) -> None:
    """A path where no file can be is refused in words."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UnusableDatabase) as refusal:
        open_database(tmp_path / name, "FULL", 5)
    assert refusal.value.why == why
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_folder_that_takes_no_files_is_refused() -> None:
    """A folder that cannot be written is refused, whether permissions say so or only the attempt shows it."""
    with pytest.raises(UnusableDatabase) as refusal:
        open_database(Path("/proc/convgrpc.db"), "FULL", 5)
    assert refusal.value.why in ("its folder cannot be written", "it cannot be opened")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_permissions_are_named(tmp_path: Path) -> None:
    """A folder or a file without write permission is refused in words."""
    path = tmp_path / "convgrpc.db"
    write_ours(path)
    path.chmod(0o400)
    with pytest.raises(UnusableDatabase, match="it cannot be read and written"):
        open_database(path, "FULL", 5)
    path.chmod(0o600)
    tmp_path.chmod(0o500)
    with pytest.raises(UnusableDatabase, match="its folder cannot be written"):
        open_database(path, "FULL", 5)
    tmp_path.chmod(0o700)


def test_locked_database_is_refused(tmp_path: Path) -> None:
    """A database that another process holds for too long is refused in words."""
    path = tmp_path / "convgrpc.db"
    write_ours(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnusableDatabase, match="another process is using it"):
            open_database(path, "FULL", 0.05)


@pytest.mark.parametrize("prepare", [lambda path: None, Path.touch, lambda path: sqlite3.connect(path).close()])
def test_absent_or_empty_file_is_created(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """Where there is nothing yet, the database is created, and says whose it is."""
    path = tmp_path / "a b?c#%41.db"
    prepare(path)
    for _ in range(2):
        with closing(open_database(path, "FULL", 5)) as connection:
            assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_crashed_database_is_recovered(tmp_path: Path) -> None:
    """What is only in the write-ahead log is there after opening, although the file alone lacks it."""
    path = tmp_path / "convgrpc.db"
    other = tmp_path / "other.db"
    with closing(open_database(other, "FULL", 5)) as connection:
        mutations.create_conversation(connection, "default", NewConversation("conv_1", b"kept", {}), [])
        copy_with_log(other, path)
    with closing(open_database(path, "FULL", 5)) as connection:
        assert connection.execute("SELECT data FROM conversations").fetchall() == [(b"kept",)]


def test_interrupted_checkpoint_is_recovered(tmp_path: Path) -> None:
    """A file that is corrupt without its write-ahead log, as a crash during a checkpoint leaves it, is opened."""
    path = tmp_path / "convgrpc.db"
    other = tmp_path / "other.db"
    with closing(open_database(other, "FULL", 5)) as connection:
        mutations.create_conversation(connection, "default", NewConversation("conv_1", bytes(100_000), {}), [])
        copy_with_log(other, path)
        connection.execute("PRAGMA wal_checkpoint")
        # Its first page says how large the file is, and it is not.
        path.write_bytes(other.read_bytes()[:4096] + path.read_bytes()[4096:])
    with closing(open_database(path, "FULL", 5)) as connection:
        assert connection.execute("SELECT data FROM conversations").fetchall() == [(bytes(100_000),)]


def test_failing_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails half-way is undone together with its record, and is done by the next attempt."""
    path = tmp_path / "convgrpc.db"
    write_ours(path)

    def add_colours(database: Database) -> None:
        database.execute("CREATE TABLE colours (colour TEXT)")
        database.execute("INSERT INTO nowhere VALUES (1)")

    with monkeypatch.context() as patch:
        patch.setattr(MIGRATIONS, "_migrations", list(MIGRATIONS._migrations))
        MIGRATIONS()(add_colours)
        with pytest.raises(UnusableDatabase, match="no such table: nowhere"):
            open_database(path, "FULL", 5)
    with closing(open_database(path, "FULL", 5)) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'colours'").fetchone() is None


def test_other_process_in_the_way_of_the_log_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning to a write-ahead log, where SQLite itself does not wait, waits for another process."""
    path = tmp_path / "convgrpc.db"
    write_ours(path)
    waits: list[float] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")

        def get_in_the_way(statement: str) -> None:
            if "journal_mode" in statement and not waits:
                other.execute("BEGIN IMMEDIATE")

        def get_out_of_the_way(seconds: float) -> None:
            waits.append(seconds)
            other.rollback()

        def watched(path: Path, synchronous: str, busy_timeout: float) -> sqlite3.Connection:
            connection = connect(path, synchronous, busy_timeout)
            connection.set_trace_callback(get_in_the_way)
            return connection

        monkeypatch.setattr("convgrpc.storage.sqlite.database.connect", watched)
        monkeypatch.setattr("time.sleep", get_out_of_the_way)
        with closing(open_database(path, "FULL", 5)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(waits) == 1


def open_with_others(path: Path, barrier: Barrier) -> None:
    for turn in range(5):
        barrier.wait(60)
        open_database(path.with_name(f"{turn}.db"), "FULL", 30).close()


def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    """Of several processes that create the same database at once, one does it and all can use it."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    processes = [context.Process(target=open_with_others, args=(tmp_path / "x.db", barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    for turn in range(5):
        with closing(open_database(tmp_path / f"{turn}.db", "FULL", 5)) as connection:
            applied = MIGRATIONS.applied(Database(connection, execute_plugins=False))
            assert [migration.name for migration in applied] == [
                "create_tables",
                "count_removals",
                "create_responses",
                "create_keys",
                "count_contents",
                "count_bytes",
                "create_secrets",
                "type_listing_errors",
            ]


def test_nobody_else_may_read_what_is_made(tmp_path: Path) -> None:
    """The database and what is beside it; a file that was there keeps its mode."""
    path, there = tmp_path / "a.db", tmp_path / "there.db"
    there.touch(0o640)
    with closing(ServerLock(path)), closing(open_database(path, "FULL", 5)), closing(open_database(there, "FULL", 5)):
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    made = ("a.db", "a.db-wal", "a.db-shm", "a.db-lock")
    assert modes == dict.fromkeys(made, 0o600) | dict.fromkeys(("there.db", "there.db-wal", "there.db-shm"), 0o640)
