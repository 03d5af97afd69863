"""A server that is killed under load, again and again, during commits and during checkpoints."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .load import Ledger, loaded, losses, resume
from .servers import Servers, servers

SMALL, LARGE = 200, 60_000
"""Sizes of items: of commits that come fast, and of those that fill the log, so that it is copied all the time."""


@pytest.fixture(scope="module")
def starter() -> Iterator[Servers]:
    with servers() as started:
        yield started


def wait_for_change(path: Path) -> None:
    """Waits until a file is written: the log by a commit, the database itself by a checkpoint and nothing else."""
    before, give_up = os.stat(path).st_mtime_ns, time.monotonic() + 20
    while os.stat(path).st_mtime_ns == before:
        assert time.monotonic() < give_up
        time.sleep(0.0002)


def kill_under_load(starter: Servers, folder: Path, turn: int) -> list[str]:
    """Kills a server while it writes; returns what is wrong with what it leaves behind."""
    in_checkpoint = turn % 2 == 1
    size = LARGE if in_checkpoint else SMALL
    path = folder / f"{turn % 10}-{size}.db"
    ledger = Ledger()
    server = starter.start(str(path))
    with loaded(server.running, ledger, size=size):
        give_up = time.monotonic() + 20
        while ledger.acknowledged < 8:
            assert time.monotonic() < give_up
            time.sleep(0.001)
        wait_for_change(path if in_checkpoint else Path(f"{path}-wal"))
        time.sleep(random.Random(turn).random() * 0.003)
        assert starter.end(server, signal.SIGKILL) == -signal.SIGKILL
    after = starter.start(str(path))
    found = losses(after.running, ledger)
    resume(after.running, ledger, size=size)
    streamed = {conversation: ledger.batches[conversation] for conversation in ledger.streamed}
    found += losses(after.running, _exactly(streamed))
    assert starter.end(after, signal.SIGTERM) == 0
    with closing(sqlite3.connect(path)) as connection:
        found += [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    return found


def _exactly(batches: dict[str, int]) -> Ledger:
    """Where each batch was acknowledged, and no other was sent."""
    ledger = Ledger()
    ledger.batches = batches
    return ledger


def test_what_was_acknowledged_survives_the_kill_of_a_server(starter: Servers, tmp_path: Path) -> None:
    """All of it, in order, no request by half, in a database that is whole and opens again. A stream that is taken up
    where it was acknowledged does nothing twice.
    """
    assert [kill_under_load(starter, tmp_path, turn) for turn in range(20)] == [[]] * 20


@pytest.mark.long
def test_what_was_acknowledged_survives_a_thousand_kills(starter: Servers, tmp_path: Path) -> None:
    """The same, often enough for what is rare."""
    assert [kill_under_load(starter, tmp_path, turn) for turn in range(20, 1020)] == [[]] * 1000
