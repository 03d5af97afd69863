"""What those who operate a server ask by HTTP, at an address of its own: its metrics, and its health once more.

That needs neither a key nor a certificate: probes have none.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, make_asgi_app

from convgrpc.server.health import LIVES, Health

_JSON = [(b"content-type", b"application/json")]


class Operations:
    """An ASGI application with `/metrics`, `/healthz` and `/livez`."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._metrics = make_asgi_app(registry)
        self._answers: dict[str, Callable[[], tuple[int, bytes]]] = {
            "/healthz": health.answer,
            "/livez": lambda: LIVES,
        }

    async def __call__(self, scope: Mapping[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["path"] == "/metrics":
            await self._metrics(scope, receive, send)
            return
        answer = self._answers.get(scope["path"])
        status, body = answer() if answer else (404, b'{"status":"unknown path"}')
        await send({"type": "http.response.start", "status": status, "headers": _JSON})
        await send({"type": "http.response.body", "body": body})
