"""`SQLiteSession` of openai-agents, asked by many tasks for a second: `python agents_session.py DB append|list TASKS`.

It runs in that package's environment. The item comes as JSON on stdin; prints, as JSON, how many calls there were, for
how many seconds, of CPU too, and the 50th and 99th percentile of how long they took.
"""

import asyncio
import json
import sys
import time
from statistics import quantiles
from typing import Any

from agents import SQLiteSession  # type: ignore[import-not-found]

SECONDS = 1.0
LIST, STORED = 20, 1000


async def main(db: str, work: str, tasks: int, item: Any) -> None:
    growing, full = SQLiteSession("growing", db), SQLiteSession("full", db)
    if work == "list" and not await full.get_items(1):
        await full.add_items([item] * STORED)
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    async def call() -> None:
        while (began := time.perf_counter()) < end:
            if work == "append":
                await growing.add_items([item])
            else:
                await full.get_items(LIST)
            took.append(time.perf_counter() - began)

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call() for _ in range(tasks)))
    elapsed, used = time.perf_counter() - start, time.process_time() - cpu
    percentiles = quantiles(took, n=100)
    print(json.dumps([len(took), elapsed, used, percentiles[49], percentiles[98]]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.load(sys.stdin)))
