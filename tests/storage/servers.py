"""Starts servers within a tenth of a second, in processes of their own that can be killed.

Run as a program, it loads what a server needs, and then for each path of a database on its standard input forks a
process that serves it. That prints its id and its addresses; when it ended, a line tells how.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import uvloop

from convgrpc.server.app import Running, serve
from convgrpc.settings import Address, Settings
from convgrpc.tokens.encodings import load_copies

TIMEOUT = 120.0

_FREE = Address("127.0.0.1", 0)


class Server(NamedTuple):
    """A server in a process of its own."""

    pid: int
    running: Running


class Servers:
    """One server after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._running: set[int] = set()

    def start(self, database: str) -> Server:
        """Starts a server and waits until it serves."""
        assert self._process.stdin
        print(database, file=self._process.stdin, flush=True)
        pid, grpc_address, http_address = self._line().split()
        self._running.add(int(pid))
        return Server(int(pid), Running(Address.parse(grpc_address), Address.parse(http_address)))

    def end(self, server: Server, number: signal.Signals) -> int:
        """Sends a signal to a server; returns its exit code once it ended, negative if it was killed."""
        os.kill(server.pid, number)
        self._running.discard(server.pid)
        return int(self._line())

    def close(self) -> None:
        """Kills what still runs."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)

    def _line(self) -> str:
        assert self._process.stdout
        timer = threading.Timer(TIMEOUT, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        assert line, "the server did not start, or did not end"
        return line


@contextmanager
def servers() -> Iterator[Servers]:
    """Can start servers while the context lasts."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            with closing(Servers(process)) as started:
                yield started
        finally:
            process.communicate()


def main() -> None:
    load_copies("o200k_base")
    for line in sys.stdin:
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        else:
            uvloop.run(serve(Settings(db=line.strip(), grpc=_FREE, http=_FREE), _print))
            os._exit(0)


def _print(running: Running) -> None:
    print(os.getpid(), running.grpc, running.http, flush=True)


if __name__ == "__main__":
    main()
