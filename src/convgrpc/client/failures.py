"""What gRPC raises, as the exceptions of this package."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from convgrpc.errors import ConvgrpcError, from_status

_DETAILS = "grpc-status-details-bin"
_REQUEST_ID = "x-request-id"
_RESET = "CANCELLED"
"""What gRPC says of a call that the other side reset without a word, as a server that is just ending does; of those
that this side ended it says so.
"""


def failure(error: grpc.RpcError, target: str) -> ConvgrpcError:
    """The exception for an error of a call to a target, whoever reported it: the server, something on the way, or
    gRPC.
    """
    found: Any = error
    code: grpc.StatusCode = found.code()
    if code is grpc.StatusCode.CANCELLED and found.details() == _RESET:
        code = grpc.StatusCode.UNAVAILABLE
    trailers: dict[str, Any] = dict(found.trailing_metadata() or ())
    status = Status(code=code.value[0], message=found.details() or code.name)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        # gRPC says neither where nor why, as when it could not connect before.
        status.message = f"no answer from {target} in time: {status.message}"
    try:
        told = Status.FromString(trailers.get(_DETAILS, b""))
        # Details that speak of another failure are not those of this one.
        exception = from_status(told if told.code == status.code else status)
    except DecodeError:
        exception = from_status(status)
    exception.request_id = exception.request_id or trailers.get(_REQUEST_ID)
    return exception
