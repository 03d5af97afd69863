"""Checks of the files of a database that a server finds when it starts."""

import logging
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger(__name__)

_SUFFIXES = ("", "-wal", "-shm", "-lock", "-reserve")

# The format of the log: https://sqlite.org/fileformat2.html#the_write_ahead_log
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = (0x377F0682, 0x377F0683)


def check_leftovers(path: Path) -> None:
    """Makes the files private, and logs what is wrong with them. Call it before the database is opened."""
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            _make_private(f"{path}{suffix}")
    with suppress(FileNotFoundError), open(f"{path}-wal", "rb") as log:
        if is_cut_off(log):
            _log.warning(
                "The write-ahead log %s-wal ends within a transaction. After a kill, that one was not acknowledged. "
                "If the file was copied, the last acknowledged transactions may be missing",
                path,
            )


def _make_private(file: str) -> None:
    mode = stat.S_IMODE(os.stat(file).st_mode)
    if not mode & 0o077:
        return
    try:
        os.chmod(file, mode & ~0o077)
        _log.warning("Other users could read %s, which had the mode %04o: it is private now", file, mode)
    except PermissionError:
        _log.warning("Other users can read %s, which has the mode %04o: run chmod 600 %s", file, mode, file)


def is_cut_off(log: BinaryIO) -> bool:
    """Tells whether a write-ahead log ends within its header or within a transaction.

    A log that was cut between two transactions looks like a whole one. Frames of an earlier use of the file follow
    those of the last transaction. So does what is left of a transaction that a killed server had begun there.
    """
    size = os.fstat(log.fileno()).st_size
    if not size:
        return False
    header = log.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return True
    magic, _, page_size, _, *salts = _HEADER.unpack(header)[:6]
    if magic not in _MAGIC:
        return True
    is_within = False
    place = _HEADER.size
    while place < size:
        log.seek(place)
        frame = log.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            return is_within
        _, pages_after_commit, *frame_salts = _FRAME.unpack(frame)[:4]
        if frame_salts != salts:
            return False
        place += _FRAME.size + page_size
        is_within = place > size or not pages_after_commit
    return is_within
