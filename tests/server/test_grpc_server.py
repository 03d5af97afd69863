"""The gRPC front: bytes that are no message, error details, health, reflection, limits."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convgrpc import Client, InternalError
from convgrpc.server.app import Running
from convgrpc.server.auth import Keys
from convgrpc.server.listener import CannotListen
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.conversation_pb2 import Metadata
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.error_reason_pb2 import ErrorReason

CREATE = "/convgrpc.v1.ConversationsService/CreateConversation"
BUF = Path(sys.executable).with_name("buf")


def failed(call: grpc.RpcError) -> tuple[grpc.StatusCode, dict[str, object]]:
    """The code of a failed call, and its details by type."""
    trailers: dict[str, Any] = dict(iter(call.trailing_metadata() or ()))  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    details: dict[str, object] = {"x-request-id": trailers["x-request-id"]}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        detail = kind()
        assert packed.Unpack(detail)
        details[kind.__name__] = detail
    assert call.code().value[0] == status.code
    return call.code(), details


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 40,
        b"\x0a\xff\xff\xff\xff\x0f",
        CreateConversationRequest(metadata=Metadata(pairs={"key": "value"})).SerializeToString()[:-1],
        b"\x12\x0a\x0a\x08\x0a\x01k\x12\x03\xff\xfe\xfd",
        b"\x0b" * 200,
    ],
    ids=["garbage", "length beyond the end", "cut short", "not UTF-8", "groups nested too deeply"],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(channel: grpc.Channel, data: bytes) -> None:
    """Never UNKNOWN, which is what grpcio makes of them."""
    with pytest.raises(grpc.RpcError) as refusal:
        channel.unary_unary(CREATE, bytes, bytes)(data)
    code, details = failed(refusal.value)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    info = details["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.reason == "ERROR_REASON_INVALID_MESSAGE"


def test_an_error_says_its_reason_its_field_and_its_request(stub: ConversationsServiceStub) -> None:
    """The details name the field by its proto path, and by the name REST gives it."""
    request = CreateConversationRequest(metadata=Metadata(pairs={"k": "v" * 513}))
    with pytest.raises(grpc.RpcError) as refusal:
        stub.CreateConversation(request, metadata=(("x-request-id", "mine-1"),))
    code, details = failed(refusal.value)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    info, bad = details["ErrorInfo"], details["BadRequest"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert (info.reason, info.domain) == ("ERROR_REASON_STRING_ABOVE_MAX_LENGTH", "convgrpc")
    assert info.metadata["param"] == "metadata.k"
    assert [violation.field for violation in bad.field_violations] == ["metadata.pairs.k"]
    assert details["x-request-id"] == "mine-1"
    assert error_details_pb2.RequestInfo(request_id="mine-1") == details["RequestInfo"]


def test_an_error_about_a_huge_value_still_reaches_the_caller(stub: ConversationsServiceStub) -> None:
    """Trailers have a limit of their own; what errors quote is cut short of it."""
    with pytest.raises(grpc.RpcError) as refusal:
        stub.GetConversation(GetConversationRequest(conversation_id="conv" + "é" * 100_000))
    code, _ = failed(refusal.value)
    assert code == grpc.StatusCode.NOT_FOUND


def test_more_calls_than_a_connection_takes_wait_and_are_all_served(server: Running) -> None:
    """Those of a client that repeats nothing, all at once on one connection."""
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(str(server.grpc), options=options) as channel:
        create = ConversationsServiceStub(channel).CreateConversation
        calls = [create.future(CreateConversationRequest(), timeout=60) for _ in range(700)]
        assert len({call.result().id for call in calls}) == 700


def test_no_call_of_dozens_of_full_connections_is_ended_without_a_word(server: Running) -> None:
    """Each is served, or refused with a hint when to try again; gRPC itself would end some with CANCELLED."""

    async def outcome(create: Any) -> tuple[grpc.StatusCode, bool]:
        try:
            await create(CreateConversationRequest(), timeout=60)
        except grpc.aio.AioRpcError as refusal:
            return refusal.code(), "grpc-retry-pushback-ms" in dict(refusal.trailing_metadata() or ())
        return grpc.StatusCode.OK, False

    async def outcomes() -> set[tuple[grpc.StatusCode, bool]]:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(str(server.grpc), options=options))
                for _ in range(30)
            ]
            creates = [ConversationsServiceStub(channel).CreateConversation for channel in channels]
            return set(await asyncio.gather(*(outcome(create) for create in creates * 100)))

    assert asyncio.run(outcomes()) <= {(grpc.StatusCode.OK, False), (grpc.StatusCode.RESOURCE_EXHAUSTED, True)}


def test_every_answer_has_a_request_id(stub: ConversationsServiceStub) -> None:
    """The caller's own, or one the server made; one that cannot stand in a header line is replaced."""
    for sent, kept in (("mine-2", True), ("x" * 129, False)):
        _, call = stub.CreateConversation.with_call(CreateConversationRequest(), metadata=(("x-request-id", sent),))
        answered = dict(call.trailing_metadata())["x-request-id"]
        assert kept == (sent == answered)
        assert answered


def test_health_is_told_for_the_server_and_for_each_service(channel: grpc.Channel) -> None:
    """An unknown service is NOT_FOUND."""
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", *(f"convgrpc.v1.{name}Service" for name in ("Conversations", "InputTokens", "Responses"))):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refusal:
        health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_message_over_the_limit_is_refused_and_one_under_it_is_not(settings: Settings) -> None:
    """The limit is the setting's, not grpcio's 4 MiB."""
    limit = 5_000_000
    with (
        served(replace(settings, max_message_bytes=limit)) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
    ):
        stub = ConversationsServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.GetConversation(GetConversationRequest(conversation_id="conv" + "x" * (limit - 100)))
        assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as refusal:
            stub.GetConversation(GetConversationRequest(conversation_id="x" * (limit + 1)))
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_write_whose_time_is_over_is_not_done_and_says_so(settings: Settings) -> None:
    """The server's own limit is told like any other fault, and nothing is stored."""
    with served(replace(settings, request_timeout=0.0)) as server, grpc.insecure_channel(str(server.grpc)) as channel:
        stub = ConversationsServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.CreateConversation(CreateConversationRequest())
        code, details = failed(refusal.value)
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert details["RequestInfo"]
        assert not stub.ListConversations(ListConversationsRequest()).data


def test_a_taken_port_is_an_error(settings: Settings) -> None:
    """Two servers never share a port, for either front."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = settings.grpc._replace(port=taken.getsockname()[1])
        for values in ({"grpc": address}, {"http": address}):
            with pytest.raises(CannotListen, match=str(address)), served(replace(settings, **values)):  # type: ignore[arg-type]
                pass


def test_two_servers_cannot_take_the_same_grpc_port(settings: Settings, server: Running, tmp_path: Path) -> None:
    """grpcio would let them share it, and clients would reach either."""
    second = replace(settings, grpc=server.grpc, db=str(tmp_path / "second.db"))
    with pytest.raises(CannotListen, match="gRPC"), served(second):
        pass


def buf_curl(server: Running, *arguments: str) -> str:
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed beside this Python")
@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
def test_a_tool_learns_the_contract_by_reflection_and_uses_it(server: Running, protocol: str) -> None:
    """buf curl lists the methods and creates an item, with no .proto at hand, by either reflection protocol."""
    url = f"http://{server.grpc}"
    reflect = ["--reflect-protocol", protocol]
    methods = buf_curl(server, *reflect, "--list-methods", url).split()
    assert "convgrpc.v1.ConversationsService/CreateItems" in methods
    assert "convgrpc.v1.InputTokensService/CountInputTokens" in methods
    assert "convgrpc.v1.ResponsesService/RecordResponse" in methods
    service = f"{url}/convgrpc.v1.ConversationsService"
    conversation = json.loads(buf_curl(server, *reflect, "-d", "{}", f"{service}/CreateConversation"))
    items = [{"message": {"role": "ROLE_USER", "content": [{"input_text": {"text": "hello"}}]}}]
    request = json.dumps({"conversation_id": conversation["id"], "items": items})
    created = json.loads(buf_curl(server, *reflect, "-d", request, f"{service}/CreateItems"))
    assert created["data"][0]["message"]["content"][0]["inputText"]["text"] == "hello"


GRPCURL = shutil.which("grpcurl")


@pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")
def test_grpcurl_describes_the_contract_and_uses_it(server: Running) -> None:
    """grpcurl lists and describes the services by reflection, and creates a conversation."""

    def grpcurl(*arguments: str) -> str:
        command = [str(GRPCURL), "-plaintext", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    address = str(server.grpc)
    assert "convgrpc.v1.ConversationsService" in grpcurl(address, "list").split()
    assert "rpc CreateItems" in grpcurl(address, "describe", "convgrpc.v1.ConversationsService")
    assert "rpc GetItem" in grpcurl(address, "describe", "convgrpc.v1.ConversationsService.GetItem")
    with pytest.raises(subprocess.CalledProcessError):
        grpcurl(address, "describe", "convgrpc.v1.ConversationsService.GetNothing")
    created = json.loads(grpcurl(address, "convgrpc.v1.ConversationsService/CreateConversation"))
    assert created["id"].startswith("conv_")


def test_without_reflection_the_contract_is_not_told(settings: Settings) -> None:
    """`--no-reflection` leaves the calls as they are."""
    with served(replace(settings, reflection=False)) as server:
        with grpc.insecure_channel(str(server.grpc)) as channel:
            ConversationsServiceStub(channel).CreateConversation(CreateConversationRequest())
        with pytest.raises(subprocess.CalledProcessError):
            buf_curl(server, "--list-methods", f"http://{server.grpc}")


def test_what_nobody_expected_is_told_in_fixed_words(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """By both transports, also before the call is let in; what it was is for the log."""

    async def failing(self: Keys, authorization: list[str]) -> str:
        raise RuntimeError(f"secret {authorization}")

    monkeypatch.setattr(Keys, "project", failing)
    with served(settings) as server, Client(str(server.grpc), api_key="cg_1") as client:
        with pytest.raises(InternalError) as refused:
            client.list_conversations()
        answer = httpx.get(f"http://{server.http}/v1/x/conversations")
    assert answer.status_code == 500
    assert refused.value.reason == ErrorReason.ERROR_REASON_INTERNAL
    assert refused.value.request_id
    for text in (str(refused.value), repr(refused.value.__cause__), answer.text):
        assert "secret" not in text
        assert "cg_1" not in text
