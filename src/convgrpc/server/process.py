"""The process of a server: its signals, its memory, and its limit of open files."""

import asyncio
import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FRONTS = 3
"""gRPC, REST and metrics."""
_OTHER_FILES = 200
_MMAP_THRESHOLD = -3
"""The option of that name of glibc's `mallopt`."""
_MMAP_SIZE = 128 << 10
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def raise_open_files(connections: int) -> None:
    """Raises the limit of open files to what so many connections of each front need, as far as the system allows."""
    wanted = _FRONTS * connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def give_memory_back() -> None:
    """Has the C library take large pieces of memory apart, so that the system gets each back as soon as it is free."""
    with suppress(AttributeError):
        # Not every C library has it.
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _MMAP_SIZE)


@contextmanager
def stop_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Sets an event at the first signal to stop, and ends the process at the second, while the context lasts."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for number in _STOP_SIGNALS:
            # Not the default action: the first process of a container has none.
            signal.signal(number, lambda number, _: os._exit(128 + number))

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
