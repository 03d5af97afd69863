"""A service that keeps LLM conversations and counts their tokens, contract first.

Here are its clients, their errors, and `to_dict`. Each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convgrpc.client.async_client import AsyncClient
    from convgrpc.client.client import Client
    from convgrpc.contract.encoder import to_dict
    from convgrpc.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        ConvgrpcError,
        DeadlineExceeded,
        FailedPrecondition,
        InternalError,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )

    __version__: str

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "ConvgrpcError",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "to_dict",
]

_HOMES = {
    "AsyncClient": "convgrpc.client.async_client",
    "Client": "convgrpc.client.client",
    "to_dict": "convgrpc.contract.encoder",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("convgrpc")
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "convgrpc.errors")), name)
    raise AttributeError(f"module 'convgrpc' has no attribute '{name}'")
