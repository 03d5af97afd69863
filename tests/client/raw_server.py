"""A server of gRPC that answers every call as a test says, for what the real one does not do."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

Handle: TypeAlias = Callable[[bytes, Any], bytes]


class _EveryMethod(grpc.GenericRpcHandler):
    def __init__(self, handle: Handle) -> None:
        self._handler: Any = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


@contextmanager
def answering(handle: Handle, credentials: grpc.ServerCredentials | None = None, *, port: int = 0) -> Iterator[int]:
    """Serves while the context lasts; gives the port on 127.0.0.1."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_EveryMethod(handle)], options=[("grpc.so_reuseport", 0)])
    if credentials:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    else:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
