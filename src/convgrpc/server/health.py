"""The health of a server: whether it should be sent calls, told over gRPC, REST and by metrics alike.

It is bad while the database cannot be written or read, and once the server is about to stop. What was found damaged in
a database that still works is told, and left to the operator.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import orjson

from convgrpc.storage.interface import HealthStatus, Store

_log = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between two looks at the database."""
LIVES = 200, b'{"status":"ok"}'
"""What is told of a server that is there."""


class Health:
    """What is known of a server's health; `tell` is told when the database begins or ceases to work.

    `draining` is set once the server is about to stop.
    """

    def __init__(self, store: Store, tell: Callable[[bool], Awaitable[None]]) -> None:
        self.draining = False
        self.condition = HealthStatus(None, None)
        self._store = store
        self._tell = tell

    def answer(self) -> tuple[int, bytes]:
        """What is told over HTTP: a status, and JSON."""
        trouble, damage = self.condition
        if self.draining:
            return 503, b'{"status":"draining"}'
        if trouble:
            return 503, orjson.dumps({"status": "failing", "database": trouble})
        if damage:
            return 200, orjson.dumps({"status": "damaged", "database": damage})
        return LIVES

    async def watch(self) -> None:
        """Looks at the database now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.probe()

    async def probe(self) -> None:
        """Looks at the database now."""
        before, self.condition = self.condition, await self._store.condition()
        trouble = self.condition.unavailable
        if trouble == before.unavailable:
            return
        if trouble:
            _log.error("The database cannot be used: %s", trouble)
        else:
            _log.warning("The database can be used again")
        await self._tell(trouble is None)
