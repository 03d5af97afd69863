"""How calls fail: always as one of the package's own exceptions."""

import asyncio
import pickle
import time
from typing import Any, NoReturn

import grpc
import pytest
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

import convgrpc
from convgrpc import AsyncClient, Client, errors
from convgrpc.server.app import Running
from convgrpc.v1.error_reason_pb2 import ErrorReason

from .raw_server import Handle, answering

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
NOT_SAID = ErrorReason.ERROR_REASON_UNSPECIFIED
ONCE = [("grpc.enable_retries", 0)]


def aborting(code: grpc.StatusCode, details: str = "no", trailers: Any = ()) -> Handle:
    def handle(request: bytes, context: Any) -> NoReturn:
        context.set_trailing_metadata(trailers)
        context.abort(code, details)
        raise AssertionError

    return handle


def refusal(client: Any) -> errors.ConvgrpcError:
    with pytest.raises(errors.ConvgrpcError) as raised:
        client.get_conversation("conv_1")
    return raised.value


def test_a_refusal_says_what_the_server_says(client: Any) -> None:
    """Its class, reason, message, param, field and request id; gRPC's own error is its cause."""
    with pytest.raises(convgrpc.NotFound) as raised:
        client.get_conversation("conv_1")
    error = raised.value
    assert error.reason == ErrorReason.ERROR_REASON_CONVERSATION_NOT_FOUND
    assert (error.message, str(error)) == ("Conversation with id 'conv_1' not found.",) * 2
    assert (error.param, error.field) == (None, None)
    assert isinstance(error.__cause__, grpc.RpcError)
    cause: Any = error.__cause__
    assert error.request_id == dict(cause.trailing_metadata())["x-request-id"]
    with pytest.raises(convgrpc.InvalidArgument) as raised_too:
        client.create_conversation(items=[{"role": "user", "content": [{"type": "refusal", "refusal": "a"}]}])
    fault = raised_too.value
    assert (fault.param, fault.field) == ("items[0].content[0]", "items[0].message.content[0]")
    assert fault.request_id
    assert fault.request_id != error.request_id


def test_errors_survive_the_way_to_another_process(client: Any) -> None:
    with pytest.raises(convgrpc.InvalidArgument) as raised:
        client.list_items("conv_1", limit=0)
    error = raised.value
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert vars(copy) == vars(error)
    assert vars(copy).keys() >= {"reason", "message", "param", "field", "request_id"}


@pytest.mark.parametrize("code", CODES, ids=[code.name for code in CODES])
def test_every_status_is_one_of_the_tree(code: grpc.StatusCode, client_class: Any) -> None:
    """Without details too, as those of a proxy are."""
    with answering(aborting(code)) as port, client_class(f"127.0.0.1:{port}", options=ONCE) as client:
        error = refusal(client)
    assert type(error) is errors.CLASSES[Code.Value(code.name)]
    assert error.message.endswith("no")
    assert (error.reason, error.request_id) == (NOT_SAID, None)


DETAILS = "grpc-status-details-bin"
FOREIGN, NEWER = Status(code=5, message="gone"), Status(code=5, message="gone")
FOREIGN.details.add().Pack(ErrorInfo(domain="example.com", reason="ERROR_REASON_ITEM_NOT_FOUND"))
NEWER.details.add().Pack(ErrorInfo(domain="convgrpc", reason="ERROR_REASON_OF_TOMORROW", metadata={"param": "a"}))
BROKEN = Status(code=5, message="gone")
BROKEN.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")


@pytest.mark.parametrize(
    ("details", "message", "param"),
    [
        (b"\xff\xff", "no", None),
        (BROKEN.SerializeToString(), "no", None),
        (Status(code=3, message="other").SerializeToString(), "no", None),
        (FOREIGN.SerializeToString(), "gone", None),
        (NEWER.SerializeToString(), "gone", "a"),
    ],
    ids=["garbage", "broken detail", "another code", "foreign", "newer"],
)
def test_details_that_mean_nothing_do_no_harm(details: bytes, message: str, param: str | None) -> None:
    """The status counts; the request id is read from its own trailer too."""
    trailers = ((DETAILS, details), ("x-request-id", "req_1"))
    handle = aborting(grpc.StatusCode.NOT_FOUND, trailers=trailers)
    with answering(handle) as port, Client(f"127.0.0.1:{port}") as client:
        error = refusal(client)
    assert type(error) is convgrpc.NotFound
    assert (error.message, error.param, error.reason, error.request_id) == (message, param, NOT_SAID, "req_1")


def test_a_server_that_is_not_there_is_unavailable(client_class: Any) -> None:
    with answering(aborting(grpc.StatusCode.OK)) as port:
        pass
    with client_class(f"127.0.0.1:{port}", options=ONCE) as client:
        error = refusal(client)
    assert type(error) is convgrpc.Unavailable
    assert "refused" in error.message


def test_a_call_ends_when_its_time_is_over(client_class: Any) -> None:
    """That of the client, or of the call; a repetition does not prolong it."""

    def slow(request: bytes, context: Any) -> bytes:
        time.sleep(1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return b""

    with answering(slow) as port:
        for options, arguments in (({"timeout": 0.1}, {}), ({}, {"timeout": 0.1}), ({"timeout": 1.2}, {})):
            began = time.monotonic()
            with client_class(f"127.0.0.1:{port}", **options) as client, pytest.raises(convgrpc.DeadlineExceeded):
                client.get_conversation("conv_1", **arguments)
            assert time.monotonic() - began < 2


def test_a_task_that_is_cancelled_is_cancelled() -> None:
    """CancelledError goes through, and the server is told."""
    ended: list[bool] = []

    def wait(request: bytes, context: Any) -> bytes:
        context.add_callback(lambda: ended.append(True))
        time.sleep(0.3)
        return b""

    async def life(port: int) -> None:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            task = asyncio.create_task(client.get_conversation("conv_1"))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.get_conversation("conv_1")
            await asyncio.sleep(0.1)
            assert ended

    with answering(wait) as port:
        asyncio.run(life(port))


def test_a_call_whose_client_is_closed_meanwhile_is_cancelled() -> None:
    """In asyncio this does not look like the cancellation of the task."""

    async def life(port: int) -> None:
        client = AsyncClient(f"127.0.0.1:{port}")
        task = asyncio.create_task(client.get_conversation("conv_1"))
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(convgrpc.Cancelled):
            await task

    with answering(lambda request, context: time.sleep(0.5) or b"") as port:  # type: ignore[func-returns-value]
        asyncio.run(life(port))


def test_requests_beyond_the_limit_of_the_server(server: Running) -> None:
    """Whatever is larger than the server takes is told as such, once."""
    item = {"role": "user", "content": "a" * 10_000_000}
    with Client(str(server.grpc)) as client, pytest.raises(convgrpc.ResourceExhausted):
        client.create_conversation(items=[item] * 4)


def test_large_items_come_back(client: Any) -> None:
    """Also those beyond the 4 MiB that gRPC clients take by default."""
    item = {"role": "user", "content": "a" * 6_000_000}
    conversation = client.create_conversation(items=[item, item])
    assert [len(each.SerializeToString()) > 6_000_000 for each in client.iter_items(conversation.id)] == [True, True]


def test_a_call_that_the_server_reset_may_be_repeated() -> None:
    """As one that comes at the very end of a server. One that this side ended may not."""
    with answering(aborting(grpc.StatusCode.CANCELLED, "CANCELLED")) as port, Client(f"127.0.0.1:{port}") as client:
        assert type(refusal(client)) is errors.Unavailable
    with answering(aborting(grpc.StatusCode.CANCELLED, "enough")) as port, Client(f"127.0.0.1:{port}") as client:
        assert type(refusal(client)) is errors.Cancelled
