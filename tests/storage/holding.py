"""Holds up the writer of a store, so that what is asked of it meanwhile waits together."""

import asyncio
import threading
from collections.abc import Awaitable

from convgrpc.storage.sqlite.store import SqliteStore


async def together(store: SqliteStore, project: str, conversation: str, *writes: Awaitable[object]) -> list[object]:
    """What comes of writes that wait while a conversation is changed."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait(data: bytes) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return data

    async with asyncio.timeout(60):
        holding = asyncio.ensure_future(store.update_conversation(project, conversation, {}, wait, None))
        await begun.wait()
        tasks = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0)
        go_on.set()
        await holding
        return await asyncio.gather(*tasks, return_exceptions=True)
