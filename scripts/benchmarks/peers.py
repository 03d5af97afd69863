"""The group `peers`: the same work by others that keep conversations, where they can be installed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.generators import OPEN_CALLS, SECONDS, Caller, Run
from benchmarks.processes import DATABASES, SCRIPTS, STARTED_WITHIN, Process, free_port, running
from benchmarks.rest_calls import answer, asking, user_message
from benchmarks.results import Effort, Measurement
from benchmarks.service import serving
from benchmarks.turns import Turns

LENGTH = 850
ITEMS, AT_ONCE = 1000, 20
SECONDS_THERE = 4.0
"""For which others are asked: a call may take half a second there."""
ROUNDS = 3
APPEND, LIST, GET = "REST append 1", "REST list 20 of 1,000", "REST get item"
GOALS = {APPEND: 25, LIST: 60, GET: 100}
P99 = 0.02
SESSION_WORK = {"append": APPEND, "list": LIST}
SESSION = Path(__file__).with_name("agents_session.py")


@contextmanager
def peers(effort: Effort) -> Iterator[list[Measurement]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        server = stack.enter_context(serving(folder / "server.db"))
        runs = calls(server, server.http, server.key, effort.seconds(SECONDS))
        turns = Turns(runs, ROUNDS)
        measurements: list[Measurement] = []
        if python := installed("ogx"):
            ogx = stack.enter_context(ogx_server(python, folder))
            runs |= {f"OGX: {name}": run for name, run in calls(*ogx, "", effort.seconds(SECONDS_THERE)).items()}
            measurements += [turns.rates(name, f"OGX: {name}", goal) for name, goal in GOALS.items()]
            measurements += [turns.slowest(name, f"OGX: {name}", P99) for name in GOALS]
        if python := installed("agents"):
            for work, name in SESSION_WORK.items():
                inside = f"SQLiteSession in process: {work}"
                runs[inside] = partial(in_session, python, folder / "session.db", work)
                measurements.append(turns.rates(name, inside, None))
        yield measurements


def installed(purpose: str) -> str | None:
    """The Python of an environment; says on stderr why there is none."""
    made = subprocess.run([SCRIPTS / "environment", purpose], capture_output=True, text=True, check=False)
    if made.returncode:
        why = (made.stderr.splitlines() or ["no reason given"])[-1].removeprefix("convgrpc: ")
        print(f"convgrpc: not compared with {purpose}, which cannot be installed here: {why}", file=sys.stderr)
        return None
    return made.stdout.strip()


def calls(process: Process, address: str, key: str, seconds: float) -> dict[str, Callable[[], Run]]:
    """What is asked of a server: of a conversation that has items, and of one that gets them."""
    message = user_message(LENGTH)
    full, growing = (
        f"/v1/conversations/{json.loads(answer(address, '/v1/conversations', b'{}', key))['id']}/items"
        for _ in range(2)
    )
    many = json.dumps({"items": message["items"] * AT_ONCE}).encode()
    for _ in range(ITEMS // AT_ONCE):
        stored = json.loads(answer(address, full, many, key))
    requests = {
        APPEND: asking(address, [growing], message, key),
        LIST: asking(address, [full], key=key),
        GET: asking(address, [f"{full}/{stored['data'][0]['id']}"], key=key),
    }
    return {name: Caller(process, request, seconds).run for name, request in requests.items()}


@contextmanager
def ogx_server(python: str, folder: Path) -> Iterator[tuple[Process, str]]:
    """Its conversations on SQLite, and no other part of it; otherwise as it is by default."""
    port = free_port()
    backends = {kind: {"type": f"{kind}_sqlite", "db_path": str(folder / f"{kind}.db")} for kind in ("kv", "sql")}
    config = {
        "version": 2,
        "distro_name": "bench",
        "apis": ["conversations", "inspect"],
        "providers": {},
        "storage": {"backends": {f"{kind}_default": backend for kind, backend in backends.items()}},
        "server": {"host": "127.0.0.1", "port": port},
    }
    # YAML is a superset of JSON.
    file = folder / "ogx.yaml"
    file.write_text(json.dumps(config))
    command = [str(Path(python).with_name("ogx")), "run", str(file), "--insecure"]
    quietly = {"OGX_LOGGING": "all=error", "SQLITE_STORE_DIR": str(folder), "HOME": str(folder)}
    with running(command, quietly) as pid:
        address = f"127.0.0.1:{port}"
        wait_for(f"http://{address}/v1/health")
        yield Process(pid), address


def wait_for(url: str) -> None:
    give_up = time.monotonic() + STARTED_WITHIN
    while True:
        try:
            with urlopen(url, timeout=1):
                return
        except (URLError, OSError):
            if time.monotonic() > give_up:
                sys.exit(f"convgrpc: nothing answers at {url}")
            time.sleep(0.2)


def in_session(python: str, db: Path, work: str) -> Run:
    """What a session of openai-agents does in a process of its own, for as many tasks as there are callers."""
    quietly = {"OPENAI_AGENTS_DISABLE_TRACING": "1"}
    command = [python, str(SESSION), str(db), work, str(OPEN_CALLS)]
    item = json.dumps(user_message(LENGTH)["items"][0])
    done = subprocess.run(command, input=item, capture_output=True, text=True, check=True, env=os.environ | quietly)
    return Run(*json.loads(done.stdout))
