"""Processes that are measured: started, watched from outside, and ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
DATABASES = SCRIPTS.parent / "build"
"""Where databases are made: on the disk that holds this folder, since others may be none."""
STARTED_WITHIN = 60
CPUCLOCK_SCHED = 2
"""The kind of CPU-time clock that counts in nanoseconds: include/linux/posix-timers_types.h."""


class Process:
    """A process of which it is known what it takes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """Returns the CPU seconds, user and system, of all threads that it has or had.

        The clock counts nanoseconds; /proc/PID/stat counts in ticks of 10 ms.
        """
        return time.clock_gettime(self.cpu_clock)

    @property
    def cpu_clock(self) -> int:
        """The id of its CPU-time clock, as clock_getcpuclockid(3) returns it on Linux."""
        return (~self.pid << 3) | CPUCLOCK_SCHED

    def main_cpu(self) -> float:
        """The seconds that its first thread has run, which is that of the event loop."""
        # The name of the process, which may hold anything, is in brackets.
        fields = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_of(self, work: Callable[[], Any], times: int) -> float:
        """Returns the CPU seconds of a call: the average of many, because other work of the process counts too."""
        before = self.cpu()
        for _ in range(times):
            work()
        return (self.cpu() - before) / times

    def memory(self) -> float:
        """The bytes that it occupies."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def python(module: str, *arguments: object) -> list[object]:
    """The command that runs a module as a program."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def started(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, str]]:
    """Runs a program while the context lasts; gives its pid, and the first line that it prints."""
    with _running(command, environment or {}, subprocess.PIPE) as process:
        timer = Timer(STARTED_WITHIN, process.kill)
        timer.start()
        line = process.stdout.readline() if process.stdout else ""
        timer.cancel()
        if not line:
            sys.exit(f"convgrpc: this did not start: {' '.join(map(str, command))}")
        yield process.pid, line


@contextmanager
def running(command: Sequence[object], environment: Mapping[str, str]) -> Iterator[int]:
    """Runs a program that has nothing to say while the context lasts; gives its pid."""
    with _running(command, environment, subprocess.DEVNULL) as process:
        yield process.pid


@contextmanager
def _running(command: Sequence[object], environment: Mapping[str, str], output: int) -> Iterator[subprocess.Popen[str]]:
    error = output if output == subprocess.DEVNULL else None
    with subprocess.Popen(
        list(map(str, command)),
        stdout=output,
        stderr=error,
        text=True,
        cwd=SCRIPTS,
        env=inherited() | dict(environment),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def apart(*pids: int) -> Iterator[None]:
    """Moves processes to one CPU, and this process, with those that it starts, to the other CPUs, if there are any."""
    all_of_them = os.sched_getaffinity(0)
    own = {min(all_of_them)}
    if len(all_of_them) > 1:
        for pid in pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), own)
        os.sched_setaffinity(0, all_of_them - own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def inherited() -> dict[str, str]:
    """Returns the environment variables of this process without the settings of convgrpc."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CONVGRPC_")}


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
