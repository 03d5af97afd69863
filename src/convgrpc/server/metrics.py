"""What is measured, for Prometheus. The names are those that other gRPC and HTTP servers use, where there are such.

No label has a value that a caller can make up.
"""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from convgrpc.contract.methods import Method
from convgrpc.storage.interface import Commit

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_NO_ROUTE = "none"
_TYPES = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}
"""By whether there is a stream of requests, and of answers."""


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        method = ("grpc_type", "grpc_service", "grpc_method")
        self._handled = Counter(
            "grpc_server_handled", "Calls by gRPC that were answered.", (*method, "grpc_code"), registry=self.registry
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "How long calls by gRPC took.",
            method,
            registry=self.registry,
            buckets=_SECONDS,
        )
        route = ("method", "route")
        self._requests = Counter(
            "http_requests", "Requests by REST that were answered.", (*route, "status"), registry=self.registry
        )
        self._requesting = Histogram(
            "http_request_duration_seconds",
            "How long requests by REST took.",
            route,
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._refused = Counter(
            "convgrpc_refused_calls", "Calls that were refused, by reason.", ("reason",), registry=self.registry
        )
        self._commits = Histogram(
            "convgrpc_store_commit_seconds",
            "How long commits took, with their sync to disk.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._syncs = Histogram(
            "convgrpc_store_sync_seconds",
            "How long the disk took for a commit.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._batches = Histogram(
            "convgrpc_store_commit_writes",
            "How many writes were committed together.",
            registry=self.registry,
            buckets=_WRITES,
        )
        messages = Counter(
            "convgrpc_stream_messages",
            "Messages of streams that were sent, by gRPC and by REST.",
            ("grpc_service", "grpc_method"),
            registry=self.registry,
        )
        self._sent = lru_cache(maxsize=None)(lambda path: messages.labels(*path.split("/")[1:]))
        self._grpc = lru_cache(maxsize=None)(self._grpc_children)
        self._http = lru_cache(maxsize=None)(self._http_children)

    def observe_gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Adds what has a value of its own at every moment."""
        Gauge(name, help, registry=self.registry).set_function(read)

    def observe_grpc(self, method: Method, code: str, seconds: float) -> None:
        """Counts an answer to a call, with the name of its status code."""
        handled, handling = self._grpc(method.path, _TYPES[method.takes_stream, method.returns_stream], code)
        handled.inc()
        if not method.returns_stream:
            handling.observe(seconds)

    def observe_http(self, method: Method | None, status: int, seconds: float) -> None:
        """Counts an answer to a request, which may have been none for any method."""
        verb, route = (method.verb, method.template) if method else (_NO_ROUTE, _NO_ROUTE)
        requests, requesting = self._http(verb, route, status)
        requests.inc()
        if not (method and method.returns_stream):
            requesting.observe(seconds)

    def observe_message(self, method: Method) -> None:
        """Counts a message of a stream that was sent. How long streams take is up to their callers, and not
        observed.
        """
        self._sent(method.path).inc()

    def observe_refusal(self, reason: str) -> None:
        """Counts a call that was refused, by the name of its `ErrorReason`."""
        self._refused.labels(reason).inc()

    def observe_commit(self, commit: Commit) -> None:
        """Counts a commit; called from the thread that writes."""
        self._commits.observe(commit.seconds)
        self._syncs.observe(commit.sync_seconds)
        self._batches.observe(commit.writes)

    def _grpc_children(self, path: str, kind: str, code: str) -> tuple[Counter, Histogram]:
        _, service, name = path.split("/")
        return self._handled.labels(kind, service, name, code), self._handling.labels(kind, service, name)

    def _http_children(self, verb: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(verb, route, str(status)), self._requesting.labels(verb, route)
