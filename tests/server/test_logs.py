"""The log of a server: its lines, and what is never in them."""

import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from convgrpc import Client, NotFound
from convgrpc.server import logs
from convgrpc.server.logs import ConsoleFormatter, JsonFormatter, logging_by, logging_to

TIMEOUT = 30
SECRET = "launch-code-0000"


def record(error: BaseException | None = None) -> logging.LogRecord:
    made = logging.LogRecord("convgrpc.calls", logging.INFO, "calls.py", 1, "call %s", ("one",), None)
    made.created = 1_795_329_683.25
    made.call = {"request_id": "req_1", "ms": 1.5}
    if error:
        made.exc_info = (type(error), error, error.__traceback__)
    return made


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_a_line_in_a_file_is_a_json_object() -> None:
    """With the time in UTC, and what is told of a call beside the message."""
    assert json.loads(JsonFormatter().format(record())) == {
        "time": "2026-11-22T06:41:23.250+00:00",
        "level": "info",
        "logger": "convgrpc.calls",
        "message": "call one",
        "request_id": "req_1",
        "ms": 1.5,
    }


def test_a_line_on_a_terminal_is_for_people() -> None:
    """Short, and with the same things."""
    assert ConsoleFormatter().format(record()) == "06:41:23Z info call one request_id=req_1 ms=1.5"


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
def test_an_exception_tells_its_type_and_place_and_not_what_it_says(formatter: logging.Formatter) -> None:
    """It may quote a caller; what the operating system says is told."""
    line = formatter.format(record(raised(ValueError(SECRET))))
    assert SECRET not in line
    assert "ValueError" in line
    assert "test_logs.py" in line
    assert "No space left" in formatter.format(record(raised(OSError(28, "No space left on device"))))


@pytest.mark.parametrize(("opened", "form"), [(os.pipe, r'\{"time": '), (os.openpty, r"\d\d:\d\d:\d\dZ warning ")])
def test_the_form_is_that_of_where_the_log_goes(opened: Callable[[], tuple[int, int]], form: str) -> None:
    """JSON, unless somebody looks at it; nothing below the level asked for."""
    ends = opened()
    reader, writer = ends if opened is os.pipe else ends[::-1]
    with open(reader, closefd=False) as read, open(writer, "w", closefd=False) as stream:
        with logging_to(stream, "warning"):
            logging.getLogger("convgrpc.x").info("unseen")
            logging.getLogger("convgrpc.x").warning("seen")
        assert re.match(rf"{form}.*\bseen\b", read.readline())
    for end in ends:
        os.close(end)


def test_the_level_is_as_before_at_the_end() -> None:
    before = logging.getLogger().level
    with logging_by(lambda text: None, JsonFormatter(), "info"):
        assert logging.getLogger().level == logging.INFO
    assert logging.getLogger().level == before


def test_a_slow_reader_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is dropped, and how much it was is told at the end."""
    monkeypatch.setattr(logs, "_MAX_WAITING", 10)
    go_on, writing = threading.Event(), threading.Event()
    lines: list[str] = []

    def write(text: str) -> None:
        writing.set()
        assert go_on.wait(TIMEOUT)
        lines.append(text)

    with logging_by(write, JsonFormatter(), "info"):
        log = logging.getLogger("convgrpc.x")
        log.info("first")
        assert writing.wait(TIMEOUT)
        for _ in range(100):
            log.info("more")
        go_on.set()
    assert len(lines) == 12
    assert lines[-1] == "convgrpc: 90 lines of the log were dropped\n"


def test_what_waits_keeps_nothing_alive_but_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what the frames of an exception hold, nor more of a message than fits a line."""
    # pytest has handlers of its own, which keep all of it.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    go_on = threading.Event()
    lines: list[str] = []

    class Body:
        pass

    def failing() -> "weakref.ref[Body]":
        body = Body()
        try:
            raise ValueError(body)
        except ValueError:
            logging.getLogger("convgrpc.x").exception("failed: %s", "x" * 100_000)
        return weakref.ref(body)

    def write(text: str) -> None:
        assert go_on.wait(TIMEOUT)
        lines.append(text)

    with logging_by(write, JsonFormatter(), "info"):
        body = failing()
        gc.collect()
        assert body() is None
        go_on.set()
    assert len(lines[0]) < 10_000
    assert "ValueError" in lines[0]


def test_a_reader_who_reads_no_more_does_not_keep_the_server() -> None:
    """It ends when told to, with lines that nobody takes."""
    script = "import sys, logging; from convgrpc.server.logs import logging_to\n"
    script += "with logging_to(sys.stderr, 'info'):\n    [logging.info('x' * 1000) for _ in range(1000)]\nprint('done')"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(TIMEOUT) == 0
        assert process.stdout
        assert process.stdout.read() == b"done\n"


def test_each_call_is_logged_by_a_server_that_is_told_to(tmp_path: Path) -> None:
    """By both transports, with its request id, project, method, status and time, and without a word of its content."""
    free = "127.0.0.1:0"
    arguments = ["--db", str(tmp_path / "a.db"), "--grpc", free, "--http", free, "--log-level", "info"]
    with subprocess.Popen(
        [sys.executable, "-m", "convgrpc", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        address, url = re.findall(r"gRPC (\S+), REST (\S+),", process.stdout.readline())[0]
        with httpx.Client(timeout=TIMEOUT, headers={"authorization": f"Bearer {SECRET}"}) as http:
            body = {"items": [{"role": "user", "content": SECRET}], "metadata": {"a": SECRET}}
            headers = {"x-request-id": "req_1"}
            created = http.post(f"{url}/conversations", json=body, headers=headers).json()["id"]
            assert http.get(f"{url}/conversations/{created}/items/{SECRET}").status_code == 404
            assert http.get(f"{url}/{SECRET}").status_code == 404
        with Client(address) as client:
            client.create_items(created, items=[{"role": "user", "content": SECRET}])
            with pytest.raises(NotFound):
                client.get_item(created, SECRET)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT)
    assert SECRET not in log
    calls = [line for line in map(json.loads, log.splitlines()) if line["logger"] == "convgrpc.calls"]
    assert [line["status"] for line in calls] == [200, 404, 404, "OK", "NOT_FOUND"]
    assert [line["transport"] for line in calls] == ["rest"] * 3 + ["grpc"] * 2
    assert calls[0].pop("ms") > 0
    told = {"request_id": "req_1", "project": "default", "transport": "rest", "status": 200}
    assert calls[0].items() >= {**told, "method": "/convgrpc.v1.ConversationsService/CreateConversation"}.items()
