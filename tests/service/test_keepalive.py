"""Clients that ping while nothing happens."""

import time

import grpc
import pytest

from convgrpc.service.server import Running
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub

PING_MS = 10_000
QUIET = 45.0


@pytest.mark.long
def test_a_client_that_pings_while_it_is_quiet_keeps_its_connection(server: Running) -> None:
    """By default a server ends the connection of a client that pings more than once in five minutes without data."""
    options = [
        ("grpc.keepalive_time_ms", PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
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
