"""Files in a request, as they count."""

import base64
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from convgrpc.errors import DeadlineExceeded
from convgrpc.tokens.extraction import SECONDS, Confinement
from convgrpc.tokens.reading import CallLimits, Reader, WouldWait
from convgrpc.v1.content_pb2 import InputFile
from convgrpc.v1.input_tokens_service_pb2 import ESTIMATE_REASON_FILE, ESTIMATE_REASON_UNSPECIFIED
from tests.tokens.asking import asked, encoding, estimates, parts, tokens, user
from tests.tokens.test_files import pdf, replace_pdfium

MODEL = "gpt-5.4"


def url(data: bytes, media_type: str = "application/pdf") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def with_files(*files: dict[str, Any], text: str = "") -> list[dict[str, Any]]:
    parts = [{"type": "input_file", **file} for file in files]
    return [{"role": "user", "content": [*([{"type": "input_text", "text": text}] if text else []), *parts]}]


def t(text: str) -> int:
    return encoding("o200k_base").count(text)


def test_a_file_counts_as_a_message_of_its_own() -> None:
    """With the text of each page under a heading, and without what a message costs if there is nothing else in it."""
    data = {"filename": "note.txt", "file_data": url(b"Tide tables", "text/plain")}
    page = t("<PARSED TEXT FOR PAGE: 1 / 1>\nTide tables")
    alone = asked(model=MODEL, input=with_files(data))
    assert (alone.input_tokens, list(alone.estimates)) == (2 + 4 + page, [])
    assert tokens(model=MODEL, input=with_files(data, data)) == 2 + 2 * (4 + page)
    beside = asked(model=MODEL, input=with_files(data, text="What is this?"))
    assert parts(beside) == {"request": 2, "messages": 4 + t("What is this?"), "files": 4 + page}


def test_a_pdf_counts_by_its_text() -> None:
    """For models that may read its pages as images too, that is an estimate."""
    data = {"filename": "note.pdf", "file_data": url(pdf(b"Tide tables"))}
    assert list(asked(model=MODEL, input=with_files(data)).estimates) == []
    assert list(estimates(asked(model="gpt-5.6", input=with_files(data)))) == [("files", "little_evidence")]
    detailed = asked(model=MODEL, input=with_files({**data, "detail": "high"}))
    assert list(estimates(detailed)) == [("files", "little_evidence")]


@pytest.mark.parametrize(
    "file",
    [
        {"file_id": "file-1"},
        {"file_url": "https://example.com/a.pdf"},
        {"filename": "a.pdf", "file_data": "data:application/pdf;base64,%%%"},
        {"filename": "a.pdf", "file_data": url(b"%PDF-1.7 fern")},
        {"filename": "a.bin", "file_data": url(b"\x00\x01", "application/octet-stream")},
    ],
    ids=["by id", "elsewhere", "no base64", "broken", "unknown"],
)
def test_a_file_whose_text_is_not_known_is_an_estimate(file: dict[str, Any]) -> None:
    answer = asked(model=MODEL, input=with_files(file, text="fern"))
    assert estimates(answer) == {("files", "file"): (4, 1, ["input[0]"])}


def test_a_sheet_is_an_estimate() -> None:
    data = {"filename": "a.csv", "file_data": url(b"a,b\n1,2\n", "text/csv")}
    assert list(estimates(asked(model=MODEL, input=with_files(data)))) == [("files", "little_evidence")]


def test_a_file_is_left_to_those_who_may_wait() -> None:
    """At once nothing is read of it, and after the deadline neither."""
    part = InputFile(filename="a.pdf", file_data=url(pdf(b"fern")))
    with pytest.raises(WouldWait):
        Reader(encoding("o200k_base"), may_wait=False).file(part)
    with pytest.raises(DeadlineExceeded):
        Reader(encoding("o200k_base"), CallLimits(time.monotonic() - 1)).file(part)
    with Reader(encoding("o200k_base")) as reader:
        assert reader.file(part).tokens > 4


def files_read(reader: Reader, number: int) -> list[int]:
    """The reasons of as many small PDFs: 0 for one that was read."""
    part = InputFile(filename="a.pdf", file_data=url(pdf(b"fern")))
    return [reader.file(part).reason for _ in range(number)]


def test_both_threads_of_a_call_share_its_file_budget_and_process() -> None:
    """All files past the budget are estimates, whichever thread reads them."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(Confinement().start())
        return started[-1]

    limits = CallLimits()
    limits.files.files = 5
    with (
        ThreadPoolExecutor(1) as threads,
        Reader(encoding("o200k_base"), limits, other_thread=threads.submit, start_process=start) as reader,
    ):
        one, other = reader.both(partial(files_read, number=4), partial(files_read, number=4))
    assert sorted(one + other) == [ESTIMATE_REASON_UNSPECIFIED] * 5 + [ESTIMATE_REASON_FILE] * 3
    assert len(started) == 1
    assert started[0].returncode == -signal.SIGKILL


def test_files_are_estimates_once_the_time_of_the_call_is_used_up() -> None:
    limits = CallLimits()
    with Reader(encoding("o200k_base"), limits) as reader:
        assert files_read(reader, 2) == [ESTIMATE_REASON_UNSPECIFIED] * 2
        assert limits.files.seconds < SECONDS
        limits.files.seconds = 0
        assert files_read(reader, 1) == [ESTIMATE_REASON_FILE]
    # The budget is that of the call, not of a reader.
    with Reader(encoding("o200k_base"), limits) as reader:
        assert files_read(reader, 1) == [ESTIMATE_REASON_FILE]


def test_closed_reader_starts_no_process() -> None:
    """The other thread of a call may go on for a moment after the call has ended."""

    def start() -> subprocess.Popen[bytes]:
        raise AssertionError

    with Reader(encoding("o200k_base"), start_process=start) as reader:
        pass
    assert files_read(reader, 1) == [ESTIMATE_REASON_FILE]


def test_call_that_ends_stops_the_reading_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed at once, and nothing is counted."""
    replace_pdfium(monkeypatch, "time.sleep(60)")
    limits = CallLimits()
    started = time.monotonic()
    threading.Timer(0.3, limits.end).start()
    with Reader(encoding("o200k_base"), limits) as reader, pytest.raises(DeadlineExceeded):
        files_read(reader, 1)
    assert time.monotonic() - started < 5


def test_a_message_without_files_costs_what_messages_do() -> None:
    """Also where it is empty."""
    assert tokens(model=MODEL, input=[user("")]) == 2 + 4
    assert tokens(model=MODEL, input=[{"role": "user", "content": []}]) == 2 + 4
