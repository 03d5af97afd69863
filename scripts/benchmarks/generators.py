"""Makes calls with 64 of them open at once, by a program that costs less than what answers them.

That is h2load, which posts the frames of gRPC and speaks HTTP/1.1 as well; where it is not installed, `scripts/load`.
"""

import json
import math
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.processes import SCRIPTS, Process

OPEN_CALLS = 64
CONNECTIONS = 16
"""Of gRPC; by HTTP/1.1 each call has its own."""
SECONDS = 1.0
LONGEST = 60
FEWEST_CALLS = 2 * OPEN_CALLS
H2LOAD = shutil.which("h2load")
LOAD = SCRIPTS / "load"


class Request(NamedTuple):
    """What is asked again and again: where, by which method of gRPC or which paths of REST in turn, with which message
    or body, and by gRPC with `more` messages in turn, which only `by_load` sends.

    `answer` is the size of an answer in bytes, by which those that were refused are told from others; 0 if it differs.
    """

    address: str
    paths: Sequence[str]
    body: bytes
    answer: int
    key: str = ""
    is_grpc: bool = False
    more: Sequence[bytes] = ()


class Run(NamedTuple):
    """What came of some calls: how many and for how long, the CPU seconds of the server, how long they took each, and
    the CPU seconds of the server's event loop, where that is known.
    """

    calls: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    loop: float = math.nan

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_each(self) -> float:
        return self.cpu / self.calls

    @property
    def loop_each(self) -> float:
        return self.loop / self.calls


class Caller:
    """Makes one request for about some seconds, each time that it is told to; `acknowledged` counts the answers.

    Where a request has many paths, each of h2load's connections begins with the first: to go through them all,
    `by_load` does it.
    """

    def __init__(
        self,
        process: Process,
        request: Request,
        seconds: float,
        by: Callable[[Request, int], tuple[float, list[float]]] | None = None,
    ) -> None:
        self._process = process
        self._request = request
        self._seconds = seconds
        self._by = by or (by_h2load if H2LOAD else by_load)
        self._calls = 0
        self.acknowledged = 0

    def run(self) -> Run:
        if not self._calls:
            tried = self._run(FEWEST_CALLS)
            if tried.seconds > self._seconds / 2:
                return tried
        return self._run(self._calls)

    def _run(self, calls: int) -> Run:
        before, loop_before = self._process.cpu(), self._process.main_cpu()
        seconds, took = self._by(self._request, calls)
        cpu, loop = self._process.cpu() - before, self._process.main_cpu() - loop_before
        self.acknowledged += calls
        # Nobody waits at the end, when fewer and fewer calls are open.
        self._calls = max(FEWEST_CALLS, int(calls / seconds * self._seconds))
        percentiles = quantiles(took, n=100)
        return Run(calls, seconds, cpu, percentiles[49], percentiles[98], loop)


def name() -> str:
    """By what calls are made, with its version."""
    if not H2LOAD:
        return "scripts/load"
    return subprocess.run([H2LOAD, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def by_h2load(request: Request, calls: int) -> tuple[float, list[float]]:
    """For how many seconds it went, and how many each call took."""
    assert not request.more, "h2load sends one message alone"
    with TemporaryDirectory(prefix="convgrpc-bench-") as folder:
        log, body, urls = (Path(folder, name) for name in ("log", "body", "urls"))
        urls.write_text("".join(f"http://{request.address}{path}\n" for path in request.paths))
        body.write_bytes(framed(request.body) if request.is_grpc else request.body)
        kind = "grpc" if request.is_grpc else "json"
        headers = {"content-type": f"application/{kind}", "te": "trailers" if request.is_grpc else ""}
        headers["authorization"] = f"Bearer {request.key}" if request.key else ""
        command = ["h2load", f"--requests={calls}", f"--log-file={log}", f"--input-file={urls}"]
        command += [f"--header={key}: {value}" for key, value in headers.items() if value]
        command += [f"--data={body}"] if request.body or request.is_grpc else []
        each = OPEN_CALLS // CONNECTIONS
        shape = (f"--clients={CONNECTIONS}", f"--max-concurrent-streams={each}") if request.is_grpc else h1()
        told = subprocess.run([*command, *shape], capture_output=True, text=True, check=True, timeout=LONGEST).stdout
        lines = [line.split() for line in log.read_text().splitlines()]
    check(request, calls, [status for _, status, _ in lines].count("200"), told)
    return finished(told), [int(microseconds) / 1e6 for _, _, microseconds in lines]


def h1() -> Sequence[str]:
    return ("--h1", f"--clients={OPEN_CALLS}")


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it."""
    return struct.pack(">BI", 0, len(message)) + message


def finished(told: str) -> float:
    found = re.search(r"^finished in ([\d.]+)(us|ms|s),", told, re.MULTILINE)
    assert found, told
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


def check(request: Request, calls: int, served: int, told: str) -> None:
    """Ends the program where calls were refused: gRPC tells so in a trailer that h2load does not read."""
    found = re.search(r"\((\d+)\) data$", told, re.MULTILINE)
    wanted = calls * (request.answer + (5 if request.is_grpc else 0))
    if served != calls or not found or (request.answer and int(found[1]) != wanted):
        sys.exit(f"convgrpc: not all calls of {request.paths[0]} were answered as the first was:\n{told}")


def by_load(request: Request, calls: int) -> tuple[float, list[float]]:
    """For how many seconds it went, and how many each call took."""
    results = load({**sent(request), "seconds": LONGEST, "window": OPEN_CALLS, "calls": calls})
    if len(results) != calls or not all(served for _, _, served in results):
        sys.exit(f"convgrpc: not all calls of {request.paths[0]} were served")
    return max(sent + took for sent, took, _ in results), [took for _, took, _ in results]


def sent(request: Request) -> dict[str, Any]:
    """Returns the arguments of `scripts/load` for a request."""
    if request.is_grpc:
        messages = [framed(each) for each in (request.body, *request.more)]
    else:
        messages = [written(request, path) for path in request.paths]
    return {
        "port": int(request.address.rpartition(":")[2]),
        "path": request.paths[0] if request.is_grpc else "",
        "authorization": f"Bearer {request.key}" if request.key else "",
        "messages": [each.hex() for each in messages],
        "connections": CONNECTIONS if request.is_grpc else OPEN_CALLS,
    }


def load(order: dict[str, Any]) -> Any:
    """Runs `scripts/load`; returns what it prints."""
    command = [sys.executable, str(LOAD)]
    done = subprocess.run(command, input=json.dumps(order), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("convgrpc: scripts/load failed")
    return json.loads(done.stdout)


def in_turns(requests: Sequence[tuple[Process, Request]], calls: int, pairs: int) -> list[list[float]]:
    """Makes calls on two servers in turns; returns the CPU seconds of both servers in each pair of turns."""
    sides = [sent(request) | {"clock": process.cpu_clock} for process, request in requests]
    found: list[list[float]] = load({"sides": sides, "window": OPEN_CALLS, "calls": calls, "pairs": pairs})
    return found


def written(request: Request, path: str) -> bytes:
    """A request as HTTP/1.1 sends it."""
    verb = "POST" if request.body else "GET"
    head = f"{verb} {path} HTTP/1.1\r\nhost: {request.address}\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {request.key}\r\n" if request.key else ""
    return f"{head}content-length: {len(request.body)}\r\n\r\n".encode() + request.body
