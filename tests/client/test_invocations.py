"""What a client hands to gRPC, and takes from it, as no server can see or do."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc_testing
import pytest

from convgrpc import Client, Unavailable
from convgrpc.v1 import conversations_service_pb2

SERVICE = conversations_service_pb2.DESCRIPTOR.services_by_name["ConversationsService"]
TIMEOUT = 20


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A channel that leads to no server: the test answers."""
    made = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
    monkeypatch.setattr(grpc, "insecure_channel", lambda target, options: made)
    return made


def test_a_status_that_says_nothing_is_told_by_its_name(channel: Any) -> None:
    """Without words, details or trailers; what went out had the key, and an id by which it can be repeated."""
    with Client(api_key="secret") as client, ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.create_items, "conv_1", items=[{"role": "user", "content": "Hello!"}])
        metadata, request, rpc = channel.take_unary_unary(SERVICE.methods_by_name["CreateItems"])
        rpc.terminate(None, None, grpc.StatusCode.UNAVAILABLE, None)
        error = call.exception(TIMEOUT)
    assert dict(metadata)["authorization"] == "Bearer secret"
    assert (request.conversation_id, len(request.items)) == ("conv_1", 1)
    assert request.request_id
    assert type(error) is Unavailable
    assert (error.message, error.request_id, error.retry_after) == ("UNAVAILABLE", None, None)
