"""Space on the disk that is kept for deletions, so that they work while the disk is full."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from convgrpc.storage.sqlite import database_health

SIZE = 16 << 20
"""The bytes that are kept: room to copy the write-ahead log into the file, and for the deletions themselves."""
_FREE_BYTES = 8 << 20
"""The bytes of free pages in the file with which all writes go on."""
_LEAST = 1 << 16
"""The bytes of the index of the log, which SQLite needs to read."""
_MARGIN = 1 << 20
"""The bytes that must be free beside them, so that the disk is not full again at once."""


class Reserve:
    """A file beside the database, which is removed when the disk is full, and made again when there is room.

    While `is_spent`, only writes that make room are done: the disk was found full, and there is no room yet on the disk
    or in free pages of the database file. Threads may share it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(f"{path}-reserve")
        self.is_spent = False
        self._lock = threading.Lock()

    @property
    def is_wanted(self) -> bool:
        """Tells whether the file has to be made, or other writes than deletions are not done."""
        return self.is_spent or self._size() != SIZE

    def start(self) -> None:
        """Makes the file at the start of a server. Without room for it, the disk counts as full."""
        self.is_spent = self.is_spent or not self.make()

    def make(self) -> bool:
        """Makes the file, unless it is there. Returns whether it is."""
        with self._lock:
            if self._size() == SIZE:
                return True
            return _has_room(self.path.parent, SIZE + _MARGIN) and self._allocate(SIZE)

    def spend(self) -> None:
        """Removes the file, because the disk is full."""
        with self._lock:
            self._remove()
            self.is_spent = True

    def leave(self) -> None:
        """Makes the file at the end of a server, of the space that its log had, so that the next one can start."""
        with self._lock:
            if not self._size():
                any(map(self._allocate, (SIZE, _LEAST)))

    def recover(self, free_bytes: int) -> bool:
        """Makes the file again if there is room. Returns whether all writes can be done.

        `free_bytes` are those of free pages in the database file, which writes use before the file grows.
        """
        if self.make() or free_bytes >= _FREE_BYTES:
            self.is_spent = False
        return not self.is_spent

    def _allocate(self, size: int) -> bool:
        try:
            with open(self.path, "wb", opener=_private) as file:
                _fill(file, size)
        except OSError:
            self._remove()
            return False
        return True

    def _size(self) -> int:
        with suppress(OSError):
            return self.path.stat().st_size
        return 0

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def is_full(error: BaseException) -> bool:
    """Tells whether the disk has no room."""
    return database_health.describe(error) == database_health.FULL


def _fill(file: BinaryIO, size: int) -> None:
    """Gives a file so many bytes of the disk. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        # Some file systems give zeros no space.
        file.write(os.urandom(size))


def _has_room(folder: Path, size: int) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize >= size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
