"""A power cut for SQLite: what was written but not synced is lost.

`PowerCut` puts itself between SQLite and the operating system (https://sqlite.org/vfs.html), in the very library that
Python's sqlite3 uses. Files stay as they are; beside them it keeps what would be left of them.
"""

import _sqlite3
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_void_p
from pathlib import Path
from typing import Any

import pytest

_OPEN_MAIN_JOURNAL = 0x00000800
_OPEN_WAL = 0x00080000
_IOERR = 10
_IOERR_FSYNC = 1034

_XOpen = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_XDelete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_XSync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("max_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", _XOpen),
        ("delete", _XDelete),
        ("others", c_void_p * 14),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("version", c_int),
        ("close_read_write_truncate", c_void_p * 4),
        ("sync", _XSync),
        ("others", c_void_p * 13),
    )


class _File(ctypes.Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


_installed: list["PowerCut"] = []
"""SQLite may call back as long as a connection is open, so that nothing here may ever be freed."""


class PowerCut:
    """Watches what SQLite syncs, and knows what a power cut at this moment would leave."""

    def __init__(self, real: _Vfs) -> None:
        self.fail_syncs = False
        self.seconds_per_sync = 0.0
        self._real = real
        self._lock = threading.RLock()
        self._paths: dict[int, str] = {}
        self._surviving: dict[str, bytes] = {}
        # A file that was deleted comes back, until its folder is synced. SQLite syncs the folder together with a
        # journal or log that it created.
        self._deleted: set[str] = set()
        self._syncs_folder: set[int] = set()
        self._methods: dict[int, _Methods] = {}
        self._real_syncs: dict[int, Callable[[int, int], int]] = {}
        self._vfs = _Vfs.from_buffer_copy(real)
        self._vfs.name = b"power-cut"
        self._vfs.next = None
        self._vfs.open = _XOpen(_never_raising(self._open))
        self._vfs.delete = _XDelete(_never_raising(self._delete))
        self._sync_callback = _XSync(_never_raising(self._sync))
        _installed.append(self)

    @classmethod
    @contextmanager
    def installed(cls) -> Iterator["PowerCut"]:
        """Makes this the way in which SQLite opens files; skips the test where that cannot be done."""
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        try:
            find, register, unregister = (
                library.sqlite3_vfs_find,
                library.sqlite3_vfs_register,
                library.sqlite3_vfs_unregister,
            )
        except AttributeError:
            pytest.skip("SQLite is linked into Python, and its functions cannot be reached")
        find.restype = POINTER(_Vfs)
        real = find(None).contents
        power_cut = cls(real)
        register(ctypes.byref(power_cut._vfs), 1)
        try:
            yield power_cut
        finally:
            unregister(ctypes.byref(power_cut._vfs))
            register(ctypes.byref(real), 1)

    def image(self, database: Path, folder: Path) -> Path:
        """Writes what would be left of a database into a folder, and returns where it is now."""
        with self._lock:
            left = {suffix: self._surviving.get(f"{database}{suffix}") for suffix in ("", "-journal", "-wal")}
        folder.mkdir()
        for suffix, content in left.items():
            if content is not None:
                (folder / f"{database.name}{suffix}").write_bytes(content)
        return folder / database.name

    def _open(self, _: int, name: int | None, file: int, flags: int, out_flags: Any) -> int:
        result: int = self._real.open(ctypes.addressof(self._real), name, file, flags, out_flags)
        opened = _File.from_address(file)
        if result or not name or not opened.methods:
            return result
        with self._lock:
            self._paths[file] = _path(name)
            self._syncs_folder.discard(file)
            if flags & (_OPEN_MAIN_JOURNAL | _OPEN_WAL):
                self._syncs_folder.add(file)
            real_methods = ctypes.addressof(opened.methods.contents)
            if real_methods not in self._methods:
                self._methods[real_methods] = _Methods.from_buffer_copy(opened.methods.contents)
                self._methods[real_methods].sync = self._sync_callback
            # SQLite knows a file by its address, so that the file may stay what it is, with another way to sync.
            opened.methods = ctypes.pointer(self._methods[real_methods])
            self._real_syncs[file] = _Methods.from_address(real_methods).sync
        return result

    def _sync(self, file: int, flags: int) -> int:
        time.sleep(self.seconds_per_sync)
        # One at a time: else a checkpoint's sync of the log could end after that of a later commit, and undo it here.
        with self._lock:
            if self.fail_syncs:
                return _IOERR_FSYNC
            path = self._paths[file]
            # Read before the sync, as others may write meanwhile. What they write then is not covered by it.
            content = Path(path).read_bytes()
            result = self._real_syncs[file](file, flags)
            if result == 0:
                if file in self._syncs_folder:
                    self._syncs_folder.discard(file)
                    self._forget_deleted()
                self._deleted.discard(path)
                self._surviving[path] = content
            return result

    def _delete(self, _: int, name: int, sync_folder: int) -> int:
        with self._lock:
            result: int = self._real.delete(ctypes.addressof(self._real), name, sync_folder)
            if result == 0:
                self._deleted.add(_path(name))
                if sync_folder:
                    self._forget_deleted()
            return result

    def _forget_deleted(self) -> None:
        for path in self._deleted:
            self._surviving.pop(path, None)
        self._deleted.clear()


def _path(name: int) -> str:
    return ctypes.string_at(name).decode()


def _never_raising(callback: Callable[..., int]) -> Callable[..., int]:
    def guarded(*arguments: Any) -> int:
        try:
            return callback(*arguments)
        except Exception:
            return _IOERR

    return guarded
