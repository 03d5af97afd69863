"""Disks to break: small ones that are mounted for a test, and files that nothing may write."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TIMEOUT = 20


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mounts something while the context lasts, or skips the test where that is not allowed."""
    folder.mkdir()
    _do("mount", *arguments, str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=TIMEOUT)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 MiB, in memory."""
    with mounted(folder, "-t", "tmpfs", "-o", "size=64m", "tmpfs") as disk:
        yield disk


@contextmanager
def failing_disk(folder: Path) -> Iterator[Path]:
    """A disk with a journal, which can be `broken`."""
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _do("mkfs.ext4", "-q", str(image))
    with mounted(folder, "-o", "loop", str(image)) as disk:
        yield disk


def broken(disk: Path) -> None:
    """Lets a disk become read-only as its file system does by itself when its device fails."""
    _do("mount", "-o", "remount,abort", str(disk))


def remount(disk: Path, mode: str) -> None:
    """Lets a disk that nobody writes to be read-only, `ro`, or not, `rw`."""
    _do("mount", "-o", f"remount,{mode}", str(disk))


def fill(disk: Path) -> Path:
    """Leaves no room on a disk, until the file that this returns is removed."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


@contextmanager
def immutable(*files: Path) -> Iterator[None]:
    """Lets nothing write to files, whoever has opened them; skips the test where that cannot be done."""
    names = [str(file) for file in files]
    _do("chattr", "+i", *names)
    try:
        yield
    finally:
        _do("chattr", "-i", *names)


def _do(*command: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may break a disk")
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not let '{' '.join(command[:2])}' break a disk: {error}")
