"""Threads that projects share fairly."""

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple, TypeVar

R = TypeVar("R")


class FairThreads:
    """A thread pool for which projects queue: they take turns, and each has at most half of the threads at once.

    The first of the free threads is used: what threads keep for themselves is then kept by few. `close` it when it is
    no longer needed. Threads may use it as well as the event loop.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._new_thread = partial(ThreadPoolExecutor, 1, thread_name_prefix=name)
        self._threads = [self._new_thread() for _ in range(threads)]
        # A heap of numbers of threads.
        self._free = list(range(threads))
        self._most = max(1, threads // 2)
        self._busy: Counter[str] = Counter()
        # The projects with work that waits, the one whose turn is next first.
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._is_closed = False
        self._lock = threading.Lock()
        # One thread does all work in the end, even if the system has no room for others.
        self._threads[0].submit(int).result()

    async def run(self, project: str, work: Callable[[], R]) -> R:
        """Does work in a thread, once one is free and it is the project's turn.

        Work that was begun goes on when the task is cancelled, and its thread is busy until it ends. Raises
        `RuntimeError` after `close`.
        """
        job = _Job(work, Future())
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the threads are closed")
            self._waiting.setdefault(project, deque()).append(job)
            self._start_waiting()
        try:
            result: R = await asyncio.wrap_future(job.outcome)
            return result
        except asyncio.CancelledError:
            self._forget(project, job)
            raise

    def try_run(self, project: str, work: Callable[[], R]) -> "Future[R] | None":
        """Starts work in another thread, or returns None if none is free for the project now."""
        job = _Job(work, Future())
        with self._lock:
            if not self._has_thread(project):
                return None
            self._start(project, job)
        return job.outcome

    def close(self) -> None:
        """Drops the work that waits, and lets the threads end after the work that was begun."""
        with self._lock:
            for jobs in self._waiting.values():
                for job in jobs:
                    job.outcome.cancel()
            self._waiting.clear()
            self._is_closed = True
        for thread in self._threads:
            thread.shutdown(wait=False)

    def _has_thread(self, project: str) -> bool:
        return not self._is_closed and bool(self._free) and self._busy[project] < self._most

    def _start_waiting(self) -> None:
        while project := next(filter(self._has_thread, self._waiting), None):
            jobs = self._waiting[project]
            self._start(project, jobs.popleft())
            self._waiting.move_to_end(project)
            if not jobs:
                del self._waiting[project]

    def _start(self, project: str, job: "_Job") -> None:
        number = heappop(self._free)
        self._busy[project] += 1
        work = partial(self._do, number, project, job)
        try:
            self._threads[number].submit(work)
        except RuntimeError:
            # The system has no room for another thread now. What was submitted is in its queue.
            self._threads[number] = self._new_thread()
            self._threads[0].submit(work)

    def _do(self, number: int, project: str, job: "_Job") -> None:
        if job.outcome.set_running_or_notify_cancel():
            try:
                job.outcome.set_result(job.work())
            except BaseException as error:
                job.outcome.set_exception(error)
        with self._lock:
            heappush(self._free, number)
            self._busy[project] -= 1
            self._start_waiting()

    def _forget(self, project: str, job: "_Job") -> None:
        """Takes work that waits out of its queue."""
        with self._lock:
            jobs = self._waiting.get(project)
            if jobs and job in jobs:
                jobs.remove(job)
                if not jobs:
                    del self._waiting[project]


class _Job(NamedTuple):
    work: Callable[[], Any]
    outcome: "Future[Any]"
