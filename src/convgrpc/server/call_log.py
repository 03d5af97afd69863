"""What is told of each call once it is done: to the metrics, and to the log at the level INFO.

Nothing that a caller sent is in it but the id of the request.
"""

import logging
import time
from types import TracebackType
from typing import Self

from convgrpc.contract.methods import Method
from convgrpc.errors import ConvgrpcError
from convgrpc.server.metrics import Metrics
from convgrpc.v1.error_reason_pb2 import ErrorReason

_log = logging.getLogger("convgrpc.calls")


class CallRecord:
    """What is to be told of a call; the front that answers it fills this in, and the end of the context tells it.

    `status` is the name of a gRPC status code, or an HTTP status.
    """

    def __init__(self, metrics: Metrics, request_id: str, method: Method | None = None) -> None:
        self._metrics = metrics
        self.request_id = request_id
        self.method = method
        self.project = ""
        self.status: str | int = "CANCELLED"
        self._sent = 0

    def refused(self, error: ConvgrpcError) -> None:
        """Notes why the call is refused."""
        self._metrics.observe_refusal(ErrorReason.Name(error.reason))

    def sent(self) -> None:
        """Notes that one message of a stream was sent."""
        self._sent += 1
        if self.method:
            self._metrics.observe_message(self.method)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        if isinstance(self.status, int):
            self._metrics.observe_http(self.method, self.status, seconds)
        elif self.method:
            self._metrics.observe_grpc(self.method, self.status, seconds)
        if _log.isEnabledFor(logging.INFO):
            _log.info("call", extra={"call": self._log_fields(seconds)})

    def _log_fields(self, seconds: float) -> dict[str, object]:
        return {
            "request_id": self.request_id,
            "project": self.project,
            "method": self.method.path if self.method else None,
            "transport": "rest" if isinstance(self.status, int) else "grpc",
            "status": self.status,
            "ms": round(seconds * 1000, 3),
            **({"messages": self._sent} if self.method and self.method.returns_stream else {}),
        }
