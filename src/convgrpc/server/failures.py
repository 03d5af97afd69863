"""Translates exceptions into the errors of the API, for both transports."""

import logging
from types import TracebackType

from convgrpc import errors
from convgrpc.server.call_log import CallRecord

_log = logging.getLogger(__name__)


class CallerGone(Exception):
    """A failure of a transport to reach the caller, who has cancelled the call or lost the connection."""


class Failures:
    """A context around the work for a call. Of exceptions, only `ConvgrpcError` and `CallerGone` leave it.

    `TimeoutError` becomes `DeadlineExceeded`. All others are logged and become `InternalError`. Cancellation passes.
    """

    __slots__ = ("_record",)

    def __init__(self, record: CallRecord) -> None:
        self._record = record

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, (errors.ConvgrpcError, CallerGone)):
            return
        if isinstance(error, TimeoutError):
            raise errors.deadline_exceeded() from None
        method = self._record.method
        path = method.path if method else "no method"
        _log.error("unexpected error in %s, request %s", path, self._record.request_id, exc_info=error)
        raise errors.internal_error() from None
