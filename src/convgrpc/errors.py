"""Every failure a caller can see, and its form as `google.rpc.Status`.

ConvgrpcError
├── InvalidArgument      the request is at fault: repeating it as it is cannot help
├── NotFound             what the request names does not exist
├── AlreadyExists        what the request would make is there
├── FailedPrecondition   something else must be done first
├── Unauthenticated      the caller has no valid key
├── PermissionDenied     the caller may not do this
├── Aborted              the state of things is not what the caller expected
├── Unimplemented        the contract has it, this server does not
├── ResourceExhausted    a limit was reached: of size, for good; of load, for now
├── Unavailable          the server cannot do it now: repeat it later
├── DeadlineExceeded     time ran out
├── Cancelled            the call was given up
└── InternalError        the server is at fault

Each `ErrorReason` of the contract says, as an option, how it is reported by gRPC and by REST. Messages are in the words
of the hosted API, so that clients which read them find what they expect.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from google.rpc import code_pb2, error_details_pb2, status_pb2

from convgrpc.options.v1 import reason_pb2
from convgrpc.v1 import error_reason_pb2
from convgrpc.v1.error_reason_pb2 import ErrorReason

DOMAIN = "convgrpc"

# A status travels in HTTP/2 trailers, where some gRPC stacks stop reading at 8 KiB, and each byte of the message may
# take three there.
_MAX_MESSAGE_BYTES = 1_500
_MAX_PATH_BYTES = 500

_BREATH = 1.0
"""Seconds after which to ask a server again that has too much to do."""


class Report(NamedTuple):
    """How a reason is reported: the gRPC status code, the HTTP status, and the `type` and `code` of the REST error."""

    grpc: int
    http: int
    type: str
    code: str | None


def _reports() -> Mapping[int, Report]:
    reports = {}
    for value in error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values:
        option = value.GetOptions().Extensions[reason_pb2.reason]
        reports[value.number] = Report(option.grpc, option.http, option.type, option.code or None)
    return reports


REPORTS = _reports()


class ConvgrpcError(Exception):
    """A failure that a caller can see.

    `reason` says what went wrong, `message` says it in words, `param` names the field at fault as REST spells it and
    `field` names it by its path in the request message. `retry_after` is in how many seconds to try again, where that
    is known. `request_number` is that of the request at fault, from 1, where a stream of them was sent. `request_id`
    is set where a server told of the failure; its log has the details under that id. A failure of which no server of
    this contract told, such as a connection that is refused, has the reason `ERROR_REASON_UNSPECIFIED`.
    """

    retry_after: float | None = None
    request_number: int | None = None

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        param: str | None = None,
        field: str | None = None,
        request_id: str | None = None,
    ) -> None:
        self.reason = reason
        self.message = _clipped(message, _MAX_MESSAGE_BYTES)
        self.param = None if param is None else _clipped(param, _MAX_PATH_BYTES)
        self.field = self.param if field is None else _clipped(field, _MAX_PATH_BYTES)
        self.request_id = request_id
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Jobs hand exceptions from process to process; by default the message alone would be given to __init__.
        return type(self).__new__, (type(self), self.message), self.__dict__

    @property
    def report(self) -> Report:
        """How this failure is reported by gRPC and by REST.

        That of a failure of which no server of this contract told has no HTTP status, and none of REST's words.
        """
        if self.reason:
            return REPORTS[self.reason]
        code = next((code for code, cls in CLASSES.items() if cls is type(self)), code_pb2.UNKNOWN)
        return Report(code, 0, "", None)


class InvalidArgument(ConvgrpcError):
    """The request is at fault: repeating it as it is cannot help."""


class NotFound(ConvgrpcError):
    """What the request names does not exist."""


class AlreadyExists(ConvgrpcError):
    """What the request would make is there."""


class FailedPrecondition(ConvgrpcError):
    """Something else must be done first."""


class Unauthenticated(ConvgrpcError):
    """The caller has no valid key."""


class PermissionDenied(ConvgrpcError):
    """The caller may not do this."""


class Aborted(ConvgrpcError):
    """The state of things is not what the caller expected: look again, then repeat the call."""


class Unimplemented(ConvgrpcError):
    """The contract has it, this server does not."""


class ResourceExhausted(ConvgrpcError):
    """A limit was reached: of size, for good; of load, for now."""


class Unavailable(ConvgrpcError):
    """The server cannot do it now: repeat it later."""


class DeadlineExceeded(ConvgrpcError):
    """Time ran out. A write may have happened all the same."""


class Cancelled(ConvgrpcError):
    """The call was given up, by the client that was closed or by a server on the way. A write may have happened."""


class InternalError(ConvgrpcError):
    """The server is at fault. Its log has the details, under the request id."""


CLASSES: Mapping[int, type[ConvgrpcError]] = {
    code_pb2.CANCELLED: Cancelled,
    code_pb2.UNKNOWN: InternalError,
    code_pb2.INVALID_ARGUMENT: InvalidArgument,
    code_pb2.NOT_FOUND: NotFound,
    code_pb2.ALREADY_EXISTS: AlreadyExists,
    code_pb2.FAILED_PRECONDITION: FailedPrecondition,
    code_pb2.UNAUTHENTICATED: Unauthenticated,
    code_pb2.PERMISSION_DENIED: PermissionDenied,
    code_pb2.ABORTED: Aborted,
    code_pb2.OUT_OF_RANGE: InvalidArgument,
    code_pb2.UNIMPLEMENTED: Unimplemented,
    code_pb2.RESOURCE_EXHAUSTED: ResourceExhausted,
    code_pb2.UNAVAILABLE: Unavailable,
    code_pb2.DEADLINE_EXCEEDED: DeadlineExceeded,
    code_pb2.INTERNAL: InternalError,
    code_pb2.DATA_LOSS: InternalError,
}


def failure(
    reason: ErrorReason.ValueType, message: str, *, param: str | None = None, field: str | None = None
) -> ConvgrpcError:
    """The exception for a reason, of the class that its gRPC status code calls for."""
    return CLASSES[REPORTS[reason].grpc](reason, message, param=param, field=field)


def conversation_not_found(conversation_id: str) -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_CONVERSATION_NOT_FOUND, f"Conversation with id '{conversation_id}' not found."
    )


def item_not_found(item_id: str, *, param: str | None = None) -> ConvgrpcError:
    message = f"Item with id '{item_id}' not found in conversation."
    return failure(ErrorReason.ERROR_REASON_ITEM_NOT_FOUND, message, param=param)


def referenced_item_not_found(item_id: str, *, param: str | None = None) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_ITEM_NOT_FOUND, f"Item with id '{item_id}' not found.", param=param)


def cursor_not_found(item_id: str) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_CURSOR_NOT_FOUND, f"No item found with id '{item_id}'", param="after")


def previous_response_not_found(response_id: str) -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_PREVIOUS_RESPONSE_NOT_FOUND,
        f"Previous response with id '{response_id}' not found.",
        param="previous_response_id",
    )


def lineage_too_long(limit: int) -> ConvgrpcError:
    message = f"The response follows more than {limit} others, which are too many to look at."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param="previous_response_id")


def response_not_found(response_id: str) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_RESPONSE_NOT_FOUND, f"Response with id '{response_id}' not found.")


def response_already_exists(response_id: str) -> ConvgrpcError:
    message = f"Response with id '{response_id}' already exists."
    return failure(ErrorReason.ERROR_REASON_RESPONSE_ALREADY_EXISTS, message, param="response_id")


def response_in_use(response_id: str, follower: str) -> ConvgrpcError:
    message = f"Response with id '{response_id}' cannot be deleted before '{follower}', which follows it."
    return failure(ErrorReason.ERROR_REASON_RESPONSE_IN_USE, message, param="response_id")


def two_predecessors() -> ConvgrpcError:
    # The API's own words, with the gap that they have and the name cut short.
    message = "Mutually exclusive parameters: ''. Ensure you are only providing one of: 'pre..._id' or 'conversation'."
    return failure(ErrorReason.ERROR_REASON_MUTUALLY_EXCLUSIVE_PARAMETERS, message)


def not_json(why: str) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_INVALID_JSON, f"Invalid request: it cannot be written as JSON: {why}.")


def not_here(param: str) -> ConvgrpcError:
    message = f"Invalid '{param}': what it names is known to a server alone, and this is counted without one."
    return failure(ErrorReason.ERROR_REASON_INVALID_VALUE, message, param=param)


def budget_beside(other: str) -> ConvgrpcError:
    message = f"Mutually exclusive parameters. Ensure you are only providing one of: 'budget' or '{other}'."
    return failure(ErrorReason.ERROR_REASON_MUTUALLY_EXCLUSIVE_PARAMETERS, message, param="budget")


def unimplemented(why: str) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_UNIMPLEMENTED, f"This server cannot do that: {why}.")


def schema_too_large(param: str, name: str) -> ConvgrpcError:
    message = (
        f"Invalid '{param}': the schema of '{name}' is nested too deeply, or comes to too much text together with "
        "those before it, once references are replaced."
    )
    return failure(ErrorReason.ERROR_REASON_INVALID_VALUE, message, param=param)


def item_already_in_conversation(param: str) -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_ITEM_ALREADY_IN_CONVERSATION, "Item already in conversation", param=param)


def conversation_cursor_not_found(conversation_id: str) -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_CURSOR_NOT_FOUND, f"No conversation found with id '{conversation_id}'", param="after"
    )


def request_id_reused(request_id: str) -> ConvgrpcError:
    message = f"The request id '{request_id}' belongs to an earlier, different request."
    return failure(ErrorReason.ERROR_REASON_IDEMPOTENCY_KEY_REUSED, message, param="request_id")


def answer_gone() -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_CONVERSATION_NOT_FOUND, "The conversation that this request created was deleted since."
    )


def recorded_response_gone() -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_RESPONSE_NOT_FOUND, "The response that this request recorded was deleted since."
    )


def conversation_changed(expected: str, found: str) -> ConvgrpcError:
    message = (
        f"The last item of the conversation is {_named(found)}, not {_named(expected)} as expected. Nothing was stored."
    )
    return failure(ErrorReason.ERROR_REASON_CONVERSATION_CHANGED, message, param="expected_last_item_id")


def answer_too_large(limit: int) -> ConvgrpcError:
    message = f"The answer would have more than {limit} bytes. Please ask for fewer items at once."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param="item_ids")


def copies_too_large(limit: int, *, param: str) -> ConvgrpcError:
    message = f"The items that the request refers to have more than {limit} bytes. Please refer to fewer at once."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)


def fork_too_large(items: int, size: int, *, param: str) -> ConvgrpcError:
    message = (
        f"A fork copies at most {items} items, and {size} bytes. Nothing was stored; please copy up to another item."
    )
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)


def item_too_large(limit: int, *, param: str) -> ConvgrpcError:
    message = f"An item has more than {limit} bytes, as it is stored. Nothing was stored."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)


def conversation_full(limit: int, *, param: str) -> ConvgrpcError:
    message = f"The conversation would have more than {limit} items. Nothing was stored; please go on in another one."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)


def project_full(limit: int) -> ConvgrpcError:
    message = f"The project would have more than {limit} conversations. Nothing was stored; please delete some first."
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message)


def project_out_of_room(limit: int, *, param: str) -> ConvgrpcError:
    message = (
        f"The items of the project would have more than {limit} bytes. Nothing was stored; please delete some first."
    )
    return failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message, param=param)


def no_key() -> ConvgrpcError:
    message = "You didn't provide an API key. Send one with the call, as 'Authorization: Bearer KEY'."
    return failure(ErrorReason.ERROR_REASON_UNAUTHENTICATED, message)


def wrong_key() -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_UNAUTHENTICATED, "Incorrect API key provided.")


def rate_limited(limit: str, retry_after: float) -> ConvgrpcError:
    message = f"Rate limit reached: the project may make {limit}. Nothing was done; please retry later."
    return _later(failure(ErrorReason.ERROR_REASON_RATE_LIMITED, message), retry_after)


def overloaded(what: str) -> ConvgrpcError:
    """`what` is the resource of which the project has its share."""
    message = f"The server has too much to do: no room for more {what}. Nothing was stored; please retry later."
    return _later(failure(ErrorReason.ERROR_REASON_OVERLOADED, message), _BREATH)


def too_slow(seconds: float) -> ConvgrpcError:
    message = f"The stream was not read for {seconds:g} seconds. Please go on after what you read last."
    return failure(ErrorReason.ERROR_REASON_TOO_SLOW, message)


def store_unavailable(why: str | None = None) -> ConvgrpcError:
    refused = f"refused the request: {why}" if why else "refused the request"
    return failure(ErrorReason.ERROR_REASON_STORE_UNAVAILABLE, f"The server's database {refused}. Please retry later.")


def stream_shut_down() -> ConvgrpcError:
    message = "The server is shutting down. What was acknowledged is stored; please go on after it at another server."
    return failure(ErrorReason.ERROR_REASON_SHUTTING_DOWN, message)


def shutting_down() -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_SHUTTING_DOWN,
        "The server is shutting down. Nothing was stored; please ask another one.",
    )


def stream_idle(seconds: float) -> ConvgrpcError:
    message = f"No request came for {seconds:g} seconds. All before are done; please open another stream for the next."
    return failure(ErrorReason.ERROR_REASON_STREAM_IDLE, message)


def deadline_exceeded() -> ConvgrpcError:
    return failure(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "The deadline of the request has passed.")


def internal_error() -> ConvgrpcError:
    return failure(
        ErrorReason.ERROR_REASON_INTERNAL,
        "The server had an error while processing your request. Its log has the details under the request id.",
    )


def to_status(error: ConvgrpcError, request_id: str) -> status_pb2.Status:
    """The failure as gRPC carries it."""
    name = ErrorReason.Name(error.reason)
    info = error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN)
    status = status_pb2.Status(code=error.report.grpc, message=error.message)
    if error.param is not None:
        info.metadata["param"] = error.param
    if error.request_number is not None:
        info.metadata["request"] = str(error.request_number)
    status.details.add().Pack(info)
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message, reason=name
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        hint = error_details_pb2.RetryInfo()
        hint.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after))
        status.details.add().Pack(hint)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return status


def from_status(status: status_pb2.Status) -> ConvgrpcError:
    """The failure that a status tells of, whoever sent it: of the class that its code calls for, with what it says."""
    info, fault, call = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RequestInfo()
    hint = error_details_pb2.RetryInfo()
    for detail in status.details:
        for each in (info, fault, call, hint):
            detail.Unpack(each)
    ours = info.domain == DOMAIN
    error = CLASSES.get(status.code, InternalError)(
        # A newer server may know more reasons.
        dict(ErrorReason.items()).get(info.reason if ours else "", ErrorReason.ERROR_REASON_UNSPECIFIED),
        status.message,
        param=info.metadata.get("param") if ours else None,
        field=next((violation.field for violation in fault.field_violations), None),
        request_id=call.request_id or None,
    )
    number = info.metadata.get("request", "") if ours else ""
    if number.isascii() and number.isdecimal():
        error.request_number = int(number)
    if hint.HasField("retry_delay"):
        # Not all that others send can be a time.
        with suppress(OverflowError, ValueError):
            error.retry_after = hint.retry_delay.ToTimedelta().total_seconds()
    return error


def _later(error: ConvgrpcError, retry_after: float) -> ConvgrpcError:
    error.retry_after = retry_after
    return error


def _named(item_id: str) -> str:
    return f"'{item_id}'" if item_id else "none"


def _clipped(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore") + "…"
