"""The log of a server: its lines, and what is never in them."""

import io
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from convgrpc import logs
from convgrpc.logs import ConsoleFormatter, JsonFormatter, logging_to

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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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
    assert ConsoleFormatter().format(record()) == "06:41:23 info call one request_id=req_1 ms=1.5"


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
def test_an_exception_tells_its_type_and_place_and_not_what_it_says(formatter: logging.Formatter) -> None:
    """It may quote a caller; what the operating system says is told."""
    line = formatter.format(record(raised(ValueError(SECRET))))
    assert SECRET not in line
    assert "ValueError" in line
    assert "test_logs.py" in line
    assert "No space left" in formatter.format(record(raised(OSError(28, "No space left on device"))))


@pytest.mark.parametrize(("stream", "form"), [(io.StringIO(), r'\{"time": '), (Terminal(), r"\d\d:\d\d:\d\d warning ")])
def test_the_form_is_that_of_where_the_log_goes(stream: io.StringIO, form: str) -> None:
    """JSON, unless somebody looks at it; nothing below the level asked for."""
    with logging_to(stream, "warning"):
        logging.getLogger("convgrpc.x").info("unseen")
        logging.getLogger("convgrpc.x").warning("seen")
    (line,) = stream.getvalue().splitlines()
    assert re.match(form, line)
    assert "seen" in line


def test_a_slow_reader_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is dropped, and how much it was is told at the end."""
    monkeypatch.setattr(logs, "_MAX_WAITING", 10)
    go_on, writing = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            # By the listener, which takes one line out of the queue to do so.
            writing.set()
            assert go_on.wait(TIMEOUT)
            return super().write(text)

    stream = Slow()
    with logging_to(stream, "info"):
        log = logging.getLogger("convgrpc.x")
        log.info("first")
        assert writing.wait(TIMEOUT)
        for _ in range(100):
            log.info("more")
        go_on.set()
    assert len(stream.getvalue().splitlines()) == 11
    assert "90 lines of the log were dropped" in capsys.readouterr().err


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
        url = re.findall(r"REST (\S+),", process.stdout.readline())[0]
        with httpx.Client(timeout=TIMEOUT, headers={"authorization": f"Bearer {SECRET}"}) as http:
            body = {"items": [{"role": "user", "content": SECRET}], "metadata": {"a": SECRET}}
            headers = {"x-request-id": "req_1"}
            created = http.post(f"{url}/conversations", json=body, headers=headers).json()["id"]
            assert http.get(f"{url}/conversations/{created}/items/{SECRET}").status_code == 404
            assert http.get(f"{url}/{SECRET}").status_code == 404
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT)
    assert SECRET not in log
    calls = [line for line in map(json.loads, log.splitlines()) if line["logger"] == "convgrpc.calls"]
    assert [line["status"] for line in calls] == [200, 404, 404]
    assert calls[0].pop("ms") > 0
    told = {"request_id": "req_1", "project": "default", "transport": "rest", "status": 200}
    assert calls[0].items() >= {**told, "method": "/convgrpc.v1.ConversationsService/CreateConversation"}.items()
