"""Reading in several threads: the same numbers, sooner."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from convgrpc.errors import DeadlineExceeded
from convgrpc.tokens.encodings import ThreadCounter
from convgrpc.tokens.reading import CallLimits, Reader
from tests.tokens.asking import encoding

LONG_TEXTS = [
    "fern moss " * 5_000,
    "fern's Moss\n" * 5_000,
    "wald und 苔 🌿 " * 4_000,
    "fern " * 5_000 + " " * 30_000 + "moss " * 5_000,
    "fern moss " * 100_000 + " " * 400_000 + "fern " * 20_000,
    "a" * 50_000,
    "fern " * 5_000 + "\ud800",
    "",
]


@pytest.mark.parametrize("workers", [1, 2])
def test_as_much_is_counted_in_threads_as_in_one(workers: int) -> None:
    """Of long texts and of many; a reader whose threads are all at work, as it is in the only one, reads by itself."""
    texts = [*LONG_TEXTS, *(f"moss {n}" * n for n in range(300))]
    with ThreadPoolExecutor(workers) as threads:
        alone, shared = Reader(encoding("o200k_base")), Reader(encoding("o200k_base"), other_thread=threads.submit)
        expected = list(map(alone.count, texts))
        assert threads.submit(lambda: list(map(shared.count, texts))).result(60) == expected
        assert threads.submit(shared.each, Reader.counts, texts).result(60) == expected


def noted(patch: pytest.MonkeyPatch) -> list[int]:
    """The threads that count from here on, once each time; each takes long enough for others to be needed."""
    counting: list[int] = []

    def slow(count: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*arguments: Any) -> Any:
            counting.append(threading.get_ident())
            time.sleep(0.02)
            return count(*arguments)

        return slowly

    for name in ("__call__", "each"):
        patch.setattr(ThreadCounter, name, slow(getattr(ThreadCounter, name)))
    return counting


def test_another_thread_takes_half_of_a_long_text() -> None:
    """And of many, but nothing of a few short ones."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(int).result()
        for texts, is_shared in ((["fern moss " * 5_000], True), (["fern"] * 100, True), (["fern"] * 10, False)):
            with pytest.MonkeyPatch.context() as patch:
                counting = noted(patch)
                Reader(encoding("o200k_base"), other_thread=threads.submit).each(Reader.counts, texts)
            assert len(set(counting)) == 1 + is_shared


def test_no_text_is_counted_after_the_deadline() -> None:
    """Not in another thread either."""
    with ThreadPoolExecutor(2) as threads, pytest.raises(DeadlineExceeded):
        Reader(encoding("o200k_base"), CallLimits(time.monotonic() - 1), other_thread=threads.submit).each(
            Reader.counts, ["fern"] * 300
        )


@pytest.mark.parametrize("texts", [["fern moss " * 500_000], ["fern moss " * 2_000] * 100], ids=["one", "many"])
def test_counting_ends_soon_after_the_deadline(texts: list[str]) -> None:
    """Within the texts that are counted together, and within a long one: not all of them are begun."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as threads:
        counting = noted(patch)
        reader = Reader(encoding("o200k_base"), CallLimits(time.monotonic() + 0.05), other_thread=threads.submit)
        with pytest.raises(DeadlineExceeded):
            reader.each(Reader.counts, texts)
    assert 0 < len(counting) < 20


def test_reader_without_a_free_thread_reads_all_itself() -> None:
    reader = Reader(encoding("o200k_base"), other_thread=lambda work: None)
    assert reader.each(Reader.counts, ["fern"] * 100) == [1] * 100
