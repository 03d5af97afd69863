"""Processes that are measured: started, watched from outside, and ended."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
DATABASES = SCRIPTS.parent / "build"
"""Where databases are made: on the disk that holds this folder, since others may be none."""
STARTED_WITHIN = 60


class Process:
    """A process of which it is known what it takes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """The seconds that all its threads have run."""
        return self._ran("stat")

    def main_cpu(self) -> float:
        """The seconds that its first thread has run, which is that of the event loop."""
        return self._ran(f"task/{self.pid}/stat")

    def cpu_of(self, work: Callable[[], Any], times: int) -> float:
        """The seconds that it runs for a call; it takes many, as the clock ticks slowly."""
        before = self.cpu()
        for _ in range(times):
            work()
        return (self.cpu() - before) / times

    def _ran(self, file: str) -> float:
        # The name of the process, which may hold anything, is in brackets.
        fields = Path(f"/proc/{self.pid}/{file}").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """The bytes that it occupies."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def python(module: str, *arguments: object) -> list[object]:
    """The command that runs a module as a program."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def started(command: Sequence[object]) -> Iterator[tuple[int, str]]:
    """Runs a program while the context lasts; gives its pid, and the first line that it prints."""
    with _running(command, {}, subprocess.PIPE) as process:
        timer = Timer(STARTED_WITHIN, process.kill)
        timer.start()
        line = process.stdout.readline() if process.stdout else ""
        timer.cancel()
        if not line:
            sys.exit(f"convgrpc: this did not start: {' '.join(map(str, command))}")
        yield process.pid, line


@contextmanager
def running(command: Sequence[object], environment: dict[str, str]) -> Iterator[int]:
    """Runs a program that has nothing to say while the context lasts; gives its pid."""
    with _running(command, environment, subprocess.DEVNULL) as process:
        yield process.pid


@contextmanager
def _running(command: Sequence[object], environment: dict[str, str], output: int) -> Iterator[subprocess.Popen[str]]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CONVGRPC_")}
    error = output if output == subprocess.DEVNULL else None
    with subprocess.Popen(
        list(map(str, command)), stdout=output, stderr=error, text=True, cwd=SCRIPTS, env=inherited | environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
