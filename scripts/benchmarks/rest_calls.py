"""The group `rest`: requests by REST beside a bare application on the same HTTP stack."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from benchmarks.dialogues import prose
from benchmarks.generators import SECONDS, Caller, Request, by_load
from benchmarks.library import fill
from benchmarks.processes import DATABASES, Process, python, started
from benchmarks.results import Effort, Measurement
from benchmarks.service import TIMEOUT, serving
from benchmarks.turns import Turns

LENGTH = 850
CONVERSATIONS, ITEMS = 4000, 20
"""Enough that a list which was made is forgotten before it is asked for again."""
NOOP = "no-op ASGI on uvicorn"
WARM, COLD, APPEND, GET = "REST list 20, warm", "REST list 20, cold (by scripts/load)", "REST append 1", "REST get item"
ROUNDS = 7


@contextmanager
def rest_calls(effort: Effort) -> Iterator[list[Measurement]]:
    caller = partial(Caller, seconds=effort.seconds(SECONDS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=DATABASES)))
        stored = fill(folder / "rest.db", CONVERSATIONS, ITEMS, LENGTH)
        server = stack.enter_context(serving(folder / "rest.db"))
        noop, address = stack.enter_context(started(python("benchmarks.noop_http")))
        lists = [f"/v1/conversations/{each.id}/items" for each in stored]
        append = asking(server.http, lists[:1], user_message(LENGTH), server.key)
        callers = {
            NOOP: caller(Process(noop), asking(address.strip(), ["/"])),
            WARM: caller(server, asking(server.http, lists[1:2], key=server.key)),
            COLD: caller(server, asking(server.http, lists[2:], key=server.key), by=by_load),
            APPEND: caller(server, append),
            GET: caller(server, asking(server.http, [f"{lists[1]}/{stored[1].item_ids[0]}"], key=server.key)),
        }
        turns = Turns({name: caller.run for name, caller in callers.items()}, ROUNDS)
        before = server.stored()
        goals = {WARM: 0.40, COLD: None, GET: None, APPEND: None}
        yield [turns.rates(name, NOOP, goal) for name, goal in goals.items()]
        acknowledged = callers[APPEND].acknowledged
        assert server.stored() - before == acknowledged, "not all that was acknowledged is stored, or more is"


def user_message(length: int, times: int = 1) -> dict[str, Any]:
    """Returns the body of a request that appends a message, or the same message several times."""
    text = prose(random.Random(7), length)
    return {"items": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}] * times}


def asking(address: str, paths: Sequence[str], body: dict[str, Any] | None = None, key: str = "") -> Request:
    """A request that was made once, as to tell how large its answer is."""
    data = json.dumps(body).encode() if body else b""
    return Request(address, paths, data, len(answer(address, paths[0], data, key)), key)


def answer(address: str, path: str, data: bytes = b"", key: str = "") -> bytes:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = HttpRequest(f"http://{address}{path}", data or None, headers)
    with urlopen(request, timeout=TIMEOUT) as got:
        body: bytes = got.read()
    return body
