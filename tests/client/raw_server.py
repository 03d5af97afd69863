"""A server of gRPC that answers every call as a test says, for what the real one does not do."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import grpc

Handle: TypeAlias = Callable[[bytes, Any], bytes]
HandleStream: TypeAlias = Callable[[Iterator[bytes], Any], Iterator[bytes]]


class _EveryMethod(grpc.GenericRpcHandler):
    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


def answering(
    handle: Handle, credentials: grpc.ServerCredentials | None = None, *, port: int = 0
) -> AbstractContextManager[int]:
    """Serves while the context lasts; gives the port on 127.0.0.1."""
    return _serving(grpc.unary_unary_rpc_method_handler(handle), credentials, port)


def streaming(handle: HandleStream, *, port: int = 0) -> AbstractContextManager[int]:
    """The same, for calls whose requests and answers are streams."""
    return _serving(grpc.stream_stream_rpc_method_handler(handle), None, port)


@contextmanager
def _serving(handler: Any, credentials: grpc.ServerCredentials | None, port: int) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_EveryMethod(handler)], options=[("grpc.so_reuseport", 0)])
    if credentials:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    else:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
