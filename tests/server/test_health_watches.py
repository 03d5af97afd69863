"""Health checks and reflection, which need no key: what one caller opens does not keep out others."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from h2.events import StreamEnded
from h2.settings import SettingCodes

from convgrpc.server.app import Running
from convgrpc.server.grpc.health_reflection import HEALTH_WATCHES, REFLECTION_STREAMS, Bounds, _Displaced, _Streams
from convgrpc.v1.conversations_service_pb2 import GetConversationRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from tests.server.attacks import Http2, Target, message

TIMEOUT = 60
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(server: Running, stack: ExitStack) -> grpc.Channel:
    return stack.enter_context(grpc.insecure_channel(str(server.grpc), options=OWN_CONNECTION))


def watch(channel: grpc.Channel) -> Any:
    """A watch that has had its first answer."""
    opened = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    assert next(opened).status == SERVING
    return opened


def ended(stream: Any) -> grpc.StatusCode:
    """The status with which a stream ends."""
    with pytest.raises(grpc.RpcError) as failure:
        next(stream)
    return failure.value.code()


def test_watch_of_a_connection_past_its_bound_ends_the_oldest_of_it(server: Running, stack: ExitStack) -> None:
    """It ends with UNIMPLEMENTED, for which clients assume that the server is healthy. Others go on."""
    other = watch(connected(server, stack))
    channel = connected(server, stack)
    watches = [watch(channel) for _ in range(HEALTH_WATCHES.connection + 1)]
    assert ended(watches[0]) is grpc.StatusCode.UNIMPLEMENTED
    assert all(each.is_active() for each in [other, *watches[1:]])


def test_many_watches_of_an_address_keep_out_nobody(server: Running, stack: ExitStack) -> None:
    """New watches are served. For each of them, the oldest of a busier connection ends."""
    channels = [connected(server, stack) for _ in range(HEALTH_WATCHES.address // HEALTH_WATCHES.connection + 1)]
    watches = [watch(channel) for channel in channels for _ in range(HEALTH_WATCHES.connection)]
    oldest = watches[: HEALTH_WATCHES.address : HEALTH_WATCHES.connection]
    for each in oldest:
        assert ended(each) is grpc.StatusCode.UNIMPLEMENTED
    assert all(each.is_active() for each in watches if each not in oldest)
    health = health_pb2_grpc.HealthStub(connected(server, stack))
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status == SERVING


def test_reflection_and_health_do_not_share_a_bound(server: Running, stack: ExitStack) -> None:
    channel = connected(server, stack)
    watches = [watch(channel) for _ in range(HEALTH_WATCHES.connection)]
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield request
        release.wait(TIMEOUT)

    release = threading.Event()
    streams = [
        reflection.ServerReflectionInfo(requests(), timeout=TIMEOUT) for _ in range(REFLECTION_STREAMS.connection)
    ]
    for stream in streams:
        assert next(stream).list_services_response.service
    newest = reflection.ServerReflectionInfo(iter([request]), timeout=TIMEOUT)
    assert next(newest).list_services_response.service
    assert ended(streams[0]) is grpc.StatusCode.RESOURCE_EXHAUSTED
    release.set()
    assert all(each.is_active() for each in watches)


def test_list_tells_the_health_of_every_service(server: Running, stack: ExitStack) -> None:
    health = health_pb2_grpc.HealthStub(connected(server, stack))
    listed = health.List(health_pb2.HealthListRequest(), timeout=TIMEOUT).statuses
    assert {name: each.status for name, each in listed.items()} == {
        "": SERVING,
        "convgrpc.v1.ConversationsService": SERVING,
        "convgrpc.v1.InputTokensService": SERVING,
        "convgrpc.v1.ResponsesService": SERVING,
    }


def test_client_with_health_checks_is_served_beside_a_strangers_idle_watches(server: Running, stack: ExitStack) -> None:
    """A stranger opens more watches than the server bounds, on as many connections as they need."""
    config = json.dumps({"healthCheckConfig": {"serviceName": ""}, "loadBalancingConfig": [{"round_robin": {}}]})
    options = [*OWN_CONNECTION, ("grpc.service_config", config)]
    for _ in range(2):
        strangers = [connected(server, stack) for _ in range(HEALTH_WATCHES.server // HEALTH_WATCHES.connection)]
        for channel in strangers:
            for _ in range(HEALTH_WATCHES.connection):
                watch(channel)
        with grpc.insecure_channel(str(server.grpc), options=options) as channel:
            stub = ConversationsServiceStub(channel)
            for _ in range(5):
                with pytest.raises(grpc.RpcError) as failure:
                    stub.GetConversation(GetConversationRequest(conversation_id="conv_1"), timeout=TIMEOUT)
                assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def displaced(bounds: Bounds, peers: list[str]) -> list[str]:
    """Opens a stream of each peer, and returns the peers of those that end for others."""
    streams = _Streams(bounds)
    ended: list[str] = []

    async def hold(peer: str) -> None:
        try:
            async with streams.opened(peer):
                await asyncio.sleep(TIMEOUT)
        except _Displaced:
            ended.append(peer)

    async def hold_all() -> None:
        tasks = []
        for peer in peers:
            tasks.append(asyncio.create_task(hold(peer)))
            # Until the stream is open, the one before it has ended, and its call is over.
            for _ in range(4):
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not streams._open
        assert not streams._calls

    asyncio.run(hold_all())
    return ended


def test_address_with_the_most_streams_makes_room_at_the_bound_of_the_server() -> None:
    """Other addresses keep what they have, although it is older."""
    many = [f"ipv4:10.0.0.2:{port}" for port in range(20)]
    bounds = Bounds(connection=4, address=20, server=12)
    assert displaced(bounds, ["ipv4:10.0.0.1:1", "ipv4:10.0.0.1:2", *many]) == many[:10]


def test_connection_with_the_most_streams_makes_room_at_the_bound_of_an_address() -> None:
    """Other connections of the address keep what they have, although it is older."""
    bounds = Bounds(connection=4, address=6, server=12)
    other, busy, busier = "ipv4:10.0.0.1:1", "ipv4:10.0.0.1:2", "ipv4:10.0.0.1:3"
    assert displaced(bounds, [other, *[busy] * 2, *[busier] * 4]) == [busier]
    assert displaced(bounds, [other, *[busy] * 4, *[busier] * 3]) == [busy, busy]


def test_every_watch_of_a_burst_ends_with_a_status_or_lasts(server: Running, stack: ExitStack) -> None:
    """Also one that ends while its first message is sent."""
    health = health_pb2_grpc.HealthStub(connected(server, stack))

    def status_of_watch(_: int) -> grpc.StatusCode:
        opened = health.Watch(health_pb2.HealthCheckRequest(), timeout=5)
        with suppress(grpc.RpcError):
            list(opened)
        code: grpc.StatusCode = opened.code()
        return code

    with ThreadPoolExecutor(90) as pool:
        statuses = Counter(pool.map(status_of_watch, range(90)))
    most = HEALTH_WATCHES.connection
    assert statuses == {grpc.StatusCode.UNIMPLEMENTED: 90 - most, grpc.StatusCode.DEADLINE_EXCEEDED: most}


REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
DESCRIBE = reflection_pb2.ServerReflectionRequest(file_containing_symbol="convgrpc.v1.ConversationsService")


def test_stream_that_is_displaced_in_a_write_ends_with_a_status(server: Running) -> None:
    """Its client learns the status once it takes what was sent before."""
    connection = Http2(Target(server.grpc.port, server.http.port, ""), INITIAL_WINDOW_SIZE=0)
    request = message(DESCRIBE.SerializeToString())
    first, *_ = streams = [connection.ask(REFLECTION) for _ in range(REFLECTION_STREAMS.connection + 1)]
    for stream in streams:
        # Of so much, gRPC does not take all before the client lets it through.
        connection.send(stream, request * 3, end=False)
        connection.socket.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                connection.receive()
    connection.socket.settimeout(TIMEOUT)
    connection.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    connection.push()
    assert connection.status(first) == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])


def test_stream_takes_room_until_its_answer_is_taken(server: Running) -> None:
    """Streams of which nothing is let through displace others at first, and are refused then."""
    connection = Http2(Target(server.grpc.port, server.http.port, ""), INITIAL_WINDOW_SIZE=0)
    request, most = message(DESCRIBE.SerializeToString()), REFLECTION_STREAMS.connection
    for _ in range(10 * most):
        connection.send(connection.ask(REFLECTION), request * 2)
    refused = 0
    while refused < 8 * most:
        refused += sum(isinstance(event, StreamEnded) for event in connection.receive())


def test_descriptor_of_reflection_does_not_clash_with_that_of_another_package(server: Running) -> None:
    """Packages such as grpclib add it to protobuf's pool, under a name of their own, whenever they are imported."""
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileContainingSymbol("grpc.reflection.v1.ServerReflection")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_and_describes_itself(server: Running, stack: ExitStack, version: str) -> None:
    """Tools ask for either version, and then for its descriptor."""
    name = f"grpc.reflection.{version}.ServerReflection"
    call = connected(server, stack).stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{name}.ServerReflectionInfo"),
    ]
    listed, *files = list(call(iter(requests), timeout=TIMEOUT))
    services = {service.name for service in listed.list_services_response.service}
    assert {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= services
    for file in files:
        (data,) = file.file_descriptor_response.file_descriptor_proto
        described = descriptor_pb2.FileDescriptorProto.FromString(data)
        assert (described.package, described.service[0].name) == (f"grpc.reflection.{version}", "ServerReflection")
