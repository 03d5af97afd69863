"""Whatever the contract allows survives the trip to JSON and back.

Messages are made from descriptors, so that a new kind, field or limit is tried without a word here.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.contract.encoder import dump
from convgrpc.contract.json_text import parse
from convgrpc.contract.validator import validate
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.conversations_service_pb2 import ConversationItemList
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem
from convgrpc.v1.tool_pb2 import Tool

from .strategies import messages

KINDS = [field.name for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields]
TOOLS = [field.name for field in Tool.DESCRIPTOR.oneofs_by_name["tool"].fields]

# The same examples each time: a failure is a failure for everybody.
some = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(message: Any) -> None:
    validate(message)
    value = parse(dump(message))
    constant = options.shape(message.DESCRIPTOR).object
    if constant:
        # Only answers have it: requests do not.
        assert value.pop("object") == constant
    assert decode(type(message), value) == message
    assert type(message).FromString(message.SerializeToString()) == message


@pytest.mark.parametrize("kind", KINDS)
@some
@given(st.data())
def test_items_of_every_kind_survive(kind: str, data: st.DataObject) -> None:
    item: Any = data.draw(messages(ConversationItem.DESCRIPTOR, kind))
    assert item.WhichOneof("kind") == kind
    check(item)


@pytest.mark.parametrize("kind", TOOLS)
@some
@given(st.data())
def test_tools_of_every_kind_survive(kind: str, data: st.DataObject) -> None:
    tool: Any = data.draw(messages(Tool.DESCRIPTOR, kind))
    assert tool.WhichOneof("tool") == kind
    check(tool)


@pytest.mark.parametrize("message_class", [Conversation, ConversationItemList, CountInputTokensRequest])
@some
@given(st.data())
def test_conversations_pages_and_requests_survive(message_class: Any, data: st.DataObject) -> None:
    check(data.draw(messages(message_class.DESCRIPTOR)))
