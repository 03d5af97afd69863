"""How much a serialized message may say, whatever its size."""

import pytest

from convgrpc.contract import wire
from convgrpc.errors import ResourceExhausted
from convgrpc.v1.content_pb2 import ContentPart
from convgrpc.v1.conversation_pb2 import Metadata
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest
from convgrpc.v1.item_pb2 import ConversationItem, Message


@pytest.fixture(autouse=True)
def _few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_VALUES", 5)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x00" * 6,
        CreateConversationRequest(
            items=[ConversationItem(message=Message(content=[ContentPart()] * 4))]
        ).SerializeToString(),
        CreateConversationRequest(metadata=Metadata(pairs={"a": "b", "c": "d"})).SerializeToString(),
        b"\xc2\x3e\x00" * 6,
        b"\xc0\x3e\x01" * 6,
        b"\xc5\x3e0000" * 6,
    ],
    ids=["messages", "parts", "pairs", "unknown bytes", "unknown numbers", "unknown words"],
)
def test_too_many_values_are_refused(data: bytes) -> None:
    """On each level alike, and of fields that are not known."""
    with pytest.raises(ResourceExhausted, match="at most 5 values"):
        wire.check_size(data, CreateConversationRequest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\x00" * 5,
        CreateConversationRequest(items=[ConversationItem(id="\x0a\x00" * 1000)]).SerializeToString(),
        b"\x0a\xff\xff\xff\xff\x7f",
        b"\x0a",
        b"\xff" * 100,
        b"\x0b" * 5,
        b"\xc1\x3e0",
    ],
)
def test_what_has_few_values_is_left_to_the_parser(data: bytes) -> None:
    """However long they are, and where it is no message at all."""
    wire.check_size(data, CreateConversationRequest)
