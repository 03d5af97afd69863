"""`convgrpc keys`, in processes of its own."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from convgrpc import Client
from convgrpc.settings import Settings
from convgrpc.testing import served
from tests.conftest import FREE_PORT

TIMEOUT = 30
KEY = re.compile(r"cg_([0-9a-f]{12})_[0-9a-f]{64}\n")


def keys(db: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "convgrpc", "keys", *arguments, "--db", str(db)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)


def created(db: Path, *arguments: str) -> str:
    """Makes a key, and gives its id."""
    ended = keys(db, "create", *arguments)
    assert ended.returncode == 0, ended.stderr
    key = KEY.fullmatch(ended.stdout)
    assert key
    return key[1]


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    """A key is shown as it is made, and never again."""
    db = tmp_path / "convgrpc.db"
    first, second = created(db, "alder", "--name", "night job"), created(db, "birch", "--days", "0.5")
    third = created(db, "alder", "--days", "0.0000000001")
    assert keys(db, "revoke", first).returncode == 0
    lines = keys(db, "list").stdout.splitlines()
    assert lines[0].split() == ["id", "project", "created", "expires", "state", "name"]
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert list(rows) == [first, second, third]
    assert [rows[each][4] for each in rows] == ["revoked", "valid", "expired"]
    assert rows[first][1:4:2] == ["alder", "never"]
    assert rows[first][5:] == ["night", "job"]
    assert not KEY.search("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["create", ""], "PROJECT"),
        (["create", "a project"], "PROJECT"),
        (["create", "x" * 65], "PROJECT"),
        (["create", "alder", "--days", "0"], "--days"),
        (["create", "alder", "--days", "-1"], "--days"),
        (["create", "alder", "--days", "nan"], "--days"),
        (["create", "alder", "--name", "a\nb"], "--name"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], why: str, tmp_path: Path) -> None:
    """With the name of the argument, and nothing is stored."""
    db = tmp_path / "convgrpc.db"
    ended = keys(db, *arguments)
    assert ended.returncode != 0
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr
    if db.exists():
        with closing(sqlite3.connect(db)) as connection:
            assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)


def test_a_key_that_is_not_there_is_not_revoked(tmp_path: Path) -> None:
    """What is no id is not repeated: it may be a key."""
    db = tmp_path / "convgrpc.db"
    created(db, "alder")
    for given, why in (
        ("0123456789ab", "there is no key with the id '0123456789ab'"),
        ("cg_1", "this is no id of a key"),
    ):
        ended = keys(db, "revoke", given)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert why in ended.stderr
        assert "cg_1" not in ended.stderr


def test_a_key_is_revoked_by_itself_too(tmp_path: Path) -> None:
    """By somebody who has it and not its id."""
    db = tmp_path / "convgrpc.db"
    key = keys(db, "create", "alder").stdout.strip()
    ended = keys(db, "revoke", key)
    assert (ended.returncode, ended.stdout) == (0, f"revoked {key[3:15]}\n")
    assert keys(db, "list").stdout.splitlines()[1].split()[4] == "revoked"


def test_a_database_that_is_made_for_a_key_is_told(tmp_path: Path) -> None:
    """Somebody may have mistyped it, and would have a key that no server knows."""
    db = tmp_path / "convgrpc.db"
    assert f"made the database {db}" in keys(db, "create", "alder").stderr
    assert keys(db, "create", "alder").stderr == ""


def test_a_database_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """As `convgrpc serve` does."""
    db = tmp_path / "missing" / "convgrpc.db"
    ended = keys(db, "list")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert str(db) in ended.stderr


@pytest.mark.parametrize("arguments", [["list"], ["revoke", "0123456789ab"]], ids=["list", "revoke"])
def test_a_database_that_is_not_there_is_not_made(arguments: list[str], tmp_path: Path) -> None:
    """Somebody mistyped it, and would think that there are no keys."""
    db = tmp_path / "convgrpc.db"
    ended = keys(db, *arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"there is no database {db}" in ended.stderr
    assert not db.exists()


def test_keys_change_nothing_of_what_a_server_keeps(tmp_path: Path) -> None:
    """Requests that are kept for long are still known: repeating one stores nothing twice."""
    db = tmp_path / "convgrpc.db"
    settings = Settings(db=str(db), grpc=FREE_PORT, http=FREE_PORT, keep_requests=30 * 86_400.0)
    with served(settings) as server, Client(str(server.grpc)) as client:
        first = client.create_conversation(request_id="job-1")
        with closing(sqlite3.connect(db)) as connection, connection:
            connection.execute("UPDATE requests SET created_at = created_at - 10 * 86400")
        keys(db, "list")
        assert client.create_conversation(request_id="job-1") == first
