"""Files in a request, as they count."""

import base64
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from convgrpc.errors import DeadlineExceeded
from convgrpc.tokens import reading
from convgrpc.tokens.extraction import Extractor
from convgrpc.tokens.files import Document
from convgrpc.tokens.reading import Reader, WouldWait
from convgrpc.v1.content_pb2 import InputFile
from tests.tokens.asking import asked, encoding, estimates, parts, tokens, user
from tests.tokens.test_files import pdf

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
        Reader(encoding("o200k_base"), deadline=time.monotonic() - 1).file(part)
    assert Reader(encoding("o200k_base"), deadline=math.inf).file(part).tokens > 4


def test_all_files_have_one_time_whichever_thread_reads_them() -> None:
    """What one thread took of it, the other does not have."""
    given: list[float] = []
    is_read = threading.Event()

    class Slow(Extractor):
        def __init__(self, timeout: float) -> None:
            given.append(timeout)
            super().__init__(timeout)

        def pages(self, document: Document) -> list[str]:
            time.sleep(0.3)
            return super().pages(document)

    def read(reader: Reader) -> None:
        reader.file(InputFile(filename="a.txt", file_data=url(b"fern", "text/plain")))
        is_read.set()

    def read_next(reader: Reader) -> None:
        assert is_read.wait(10)
        read(reader)

    with ThreadPoolExecutor(1) as threads, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_SECONDS_ALL_FILES", 0.5)
        patch.setattr(reading, "Extractor", Slow)
        Reader(encoding("o200k_base"), threads=threads).both(read, read_next)
    assert given[0] == 0.5
    assert given[1] <= 0.2


def test_a_message_without_files_costs_what_messages_do() -> None:
    """Also where it is empty."""
    assert tokens(model=MODEL, input=[user("")]) == 2 + 4
    assert tokens(model=MODEL, input=[{"role": "user", "content": []}]) == 2 + 4
