"""What a server says of the files that it finds when it starts."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from convgrpc.storage.sqlite.leftovers import is_cut_off
from convgrpc.storage.sqlite.store import SqliteStore
from tests.storage.test_store import append, create, minted

FRAME = 24 + 4096


def opened(path: Path) -> None:
    async def scenario() -> None:
        await SqliteStore.open(path, alone=True).close()

    asyncio.run(scenario())


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The database that a killed server leaves, with a log of several transactions."""
    path = tmp_path / "left.db"

    async def scenario() -> None:
        store = SqliteStore.open(tmp_path / "used.db", alone=True)
        await create(store, "conv_1")
        for number in range(5):
            await append(store, "conv_1", minted(f"msg_{number}", "x" * 10_000))
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"used.db{suffix}", f"{path}{suffix}")
        await store.close()

    asyncio.run(scenario())
    return path


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def commits(log: Path) -> list[int]:
    """The sizes of a log after each of its transactions."""
    data = log.read_bytes()
    frames = range(32, len(data), FRAME)
    return [place + FRAME for place in frames if data[place + 4 : place + 8] != bytes(4)]


def test_whole_log_is_not_told(left: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(left)
    assert warnings(caplog, "write-ahead log") == []


def test_log_that_was_cut_off_is_told(left: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Path(f"{left}-wal")
    os.truncate(log, commits(log)[-2] + FRAME + 100)
    opened(left)
    (warning,) = warnings(caplog, "write-ahead log")
    assert str(log) in warning
    assert "may be missing" in warning


def test_log_is_whole_after_each_transaction_and_cut_off_elsewhere(left: Path, tmp_path: Path) -> None:
    data = Path(f"{left}-wal").read_bytes()
    whole = {0, 32, *commits(Path(f"{left}-wal"))}
    assert len(whole) > 6
    for size in {*range(100), *range(32, len(data), 1000), *range(32, len(data), FRAME), len(data), *whole}:
        cut = tmp_path / "cut"
        cut.write_bytes(data[:size])
        with cut.open("rb") as log:
            # Less than the head of a frame may be left of one that was never begun.
            expected = size not in whole and not any(end < size < end + 24 for end in whole)
            assert is_cut_off(log) is (expected or 0 < size < 32), size


def test_frames_of_an_earlier_use_are_not_told(left: Path, tmp_path: Path) -> None:
    """The log began anew: what follows its transactions is older, and may be cut anywhere."""
    data = bytearray(Path(f"{left}-wal").read_bytes())
    end = commits(Path(f"{left}-wal"))[2]
    for place in range(end, len(data), FRAME):
        data[place + 8 : place + 16] = b"\1" * 8
    for size in (len(data), end + FRAME + 100, end + 30):
        cut = tmp_path / "cut"
        cut.write_bytes(data[:size])
        with cut.open("rb") as log:
            assert not is_cut_off(log)


def test_files_that_others_can_read_are_made_private(left: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Path(f"{left}-wal")
    left.chmod(0o644)
    log.chmod(0o660)
    opened(left)
    assert left.stat().st_mode & 0o777 == 0o600
    told = warnings(caplog, "it is private now")
    assert told == [
        f"Other users could read {left}, which had the mode 0644: it is private now",
        f"Other users could read {log}, which had the mode 0660: it is private now",
    ]


def test_files_of_another_owner_are_told(
    left: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    left.chmod(0o644)
    monkeypatch.setattr(os, "chmod", refuse)
    opened(left)
    assert warnings(caplog, "run chmod 600") == [
        f"Other users can read {left}, which has the mode 0644: run chmod 600 {left}"
    ]
