"""Clients that ping while nothing happens."""

import time
from typing import Any

import grpc
import pytest

from convgrpc.client.endpoint import Endpoint
from convgrpc.server.app import Running
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub

PING_MS = 10_000
QUIET = 45.0


OWN = [("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
PYTHON_CLIENT = list(
    Endpoint("127.0.0.1", api_key=None, credentials=None, insecure=False, timeout=None, options=()).options
)


@pytest.mark.long
@pytest.mark.parametrize("given", [OWN, PYTHON_CLIENT], ids=["by its own options", "Python client"])
def test_a_client_that_pings_while_it_is_quiet_keeps_its_connection(
    server: Running, given: list[tuple[str, Any]]
) -> None:
    """By default a server ends the connection of a client that pings more than once in five minutes without data."""
    options = [
        *(option for option in given if option[0] != "grpc.keepalive_time_ms"),
        ("grpc.keepalive_time_ms", PING_MS),
    ]
    with grpc.insecure_channel(str(server.grpc), options=options) as channel:
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        stub = ConversationsServiceStub(channel)
        stub.CreateConversation(CreateConversationRequest())
        time.sleep(QUIET)
        stub.CreateConversation(CreateConversationRequest())
        ready = grpc.ChannelConnectivity.READY
        assert states[states.index(ready) :] == [ready]
