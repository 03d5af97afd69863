"""Bytes by gRPC, right and wrong ones: nothing falls over, and what is stored can be read and sent again.

Requests are made from descriptors, then broken, so that a new RPC, kind or field is tried without a word here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convgrpc.contract import options
from convgrpc.contract.decoder import decode
from convgrpc.contract.encoder import dump
from convgrpc.contract.json_text import parse
from convgrpc.contract.methods import Method, methods
from convgrpc.contract.validator import validate
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2
from convgrpc.v1.conversations_service_pb2 import (
    BatchGetItemsRequest,
    ConversationItemBatch,
    ConversationItemList,
    CreateConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Reasoning
from convgrpc.v1.responses_service_pb2 import RecordResponseRequest
from convgrpc.v1.responses_service_pb2_grpc import ResponsesServiceStub
from tests.conftest import FREE_PORT
from tests.contract.strategies import messages
from tests.server import answers

METHODS = methods(
    [
        conversations_service_pb2.DESCRIPTOR.services_by_name["ConversationsService"],
        input_tokens_service_pb2.DESCRIPTOR.services_by_name["InputTokensService"],
        responses_service_pb2.DESCRIPTOR.services_by_name["ResponsesService"],
    ]
)
FAULTS_OF_THE_CALLER = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
REPLACED_AT = 60
"""How many items a conversation has before it is left alone, so that a page shows all of it."""

each_method = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
COMMON: dict[str, Any] = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
SHORT = settings(max_examples=25, derandomize=True, **COMMON)
LONG = settings(max_examples=500, **COMMON)


# Broken requests.


_STRINGS = st.sampled_from(
    [
        "",
        "\0",
        " ",
        "é",
        "𐀀" * 600,
        "a" * 65,
        "a" * 200,
        "../..",
        "'; --",
        "{}",
        "[1]",
        "msg_\n",
        "%00",
        "\ufeff",
        "\u2028",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_JSON_TEXTS = st.sampled_from(
    [
        "",
        "{",
        " [1 ] ",
        "null",
        "NaN",
        "1e999",
        "-0",
        "1" * 40,
        '"\\ud800"',
        '"\\u0000"',
        '{"a\\"":1}',
        '{"a":1,"a":2}',
        '{"\\u0061":1,"a":[{"b":1,"b":2}]}',
        "[" * 62 + "]" * 62,
        "[" * 2000,
        "\ufeff1",
        "1 2",
        '{"a":1,}',
        "'a'",
        "1\n",
    ]
)
_VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _STRINGS,
    FieldDescriptor.TYPE_ENUM: st.sampled_from([-(2**31), -1, 0, 1, 2, 3, 77, 2**31 - 1]),
    FieldDescriptor.TYPE_INT64: st.sampled_from([-(2**63), -1, 0, 1, 101, 2**53 + 1, 2**63 - 1]),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from([float("nan"), float("inf"), -0.0, 1e308, 5e-324]),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
}


@st.composite
def broken_messages(draw: st.DrawFn, message: Any) -> bytes:
    """The message with some of its fields, at any depth, changed, removed, or multiplied."""
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(message))
        holder, field = draw(st.sampled_from(places))
        if options.is_map(field):
            _break_map(draw, holder, field)
        elif field.is_repeated:
            _break_list(draw, holder, field)
        elif field.message_type is None:
            json_text = options.shape(field.containing_type).json_text
            setattr(holder, field.name, draw(_JSON_TEXTS if json_text else _VALUES[field.type]))
        elif holder.HasField(field.name) and draw(st.booleans()):
            holder.ClearField(field.name)
        else:
            getattr(holder, field.name).SetInParent()
    data: bytes = message.SerializeToString()
    return data


def _places(message: Any) -> Iterator[tuple[Any, FieldDescriptor]]:
    """All fields of a message and of those that it holds, set or not."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.message_type is not None and not options.is_map(field):
            value = getattr(message, field.name)
            for each in value if field.is_repeated else [value] if message.HasField(field.name) else []:
                yield from _places(each)


def _break_list(draw: st.DrawFn, holder: Any, field: FieldDescriptor) -> None:
    elements = getattr(holder, field.name)
    if elements and draw(st.booleans()):
        elements.extend(list(elements) * draw(st.sampled_from([1, 25, 110])))
    elif elements and draw(st.booleans()):
        del elements[draw(st.integers(0, len(elements) - 1)) :]
    elif field.message_type is not None:
        elements.add()
    else:
        elements.append(draw(_VALUES[field.type]))


def _break_map(draw: st.DrawFn, holder: Any, field: FieldDescriptor) -> None:
    entries, value = getattr(holder, field.name), options.map_value(field)
    for key in [draw(_STRINGS) for _ in range(draw(st.sampled_from([1, 17])))]:
        if value.message_type is None:
            entries[key] = draw(_VALUES[value.type])
        else:
            entries[key].SetInParent()


@st.composite
def broken_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some of them changed, removed, inserted or repeated."""
    for _ in range(draw(st.integers(1, 3))):
        # What is drawn must not depend on the ids in the bytes, whose lengths differ from time to time.
        start = draw(st.integers(0, 1000)) % (len(data) + 1)
        end = start + draw(st.integers(0, 6))
        piece = draw(st.none() | st.binary(max_size=4) | st.sampled_from(_UNKNOWN))
        data = data[:start] + (data[start:end] * 2 if piece is None else piece) + data[end:]
    return data


_UNKNOWN = [b"\xc2\x3e\x02hi", b"\xc8\x3e\x01", b"\x8a\x02\x00", b"\xc2\x02\x02{}", b"\x0b\x0c"]
"""Fields that the contract does not have, one of them of ConversationItem's next kind, and an empty group."""


# The server, and what may be said of it.


class Target:
    """A conversation of a server, at which requests aim."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub = ConversationsServiceStub(channel)
        self._responses = ResponsesServiceStub(channel)
        self._create()

    def _create(self) -> None:
        request = CreateConversationRequest(items=[ConversationItem(reasoning=Reasoning(encrypted_content="x"))] * 3)
        self.conversation = self._stub.CreateConversation(request).id
        self.items = self._item_ids()
        self.response = self._responses.RecordResponse(RecordResponseRequest()).id

    def aim(self, draw: Callable[[st.SearchStrategy[Any]], Any], request: Any) -> None:
        """Gives the request ids that exist, but not always."""
        known = {
            "conversation": self.conversation,
            "first": self.items[0],
            "last": self.items[-1],
            "response": self.response,
        }
        names = st.sampled_from([*known, "conv_nowhere", "", "a\0b"])

        def chosen(usual: str) -> str:
            name = usual if draw(st.sampled_from([True, True, True, False])) else draw(names)
            return known.get(name, name)

        for field in request.DESCRIPTOR.fields:
            is_set = not field.has_presence or request.HasField(field.name)
            if field.name == "conversation_id":
                request.conversation_id = chosen("conversation")
            elif field.name == "conversation" and is_set:
                request.conversation.conversation_id = chosen("conversation")
            elif field.name in ("response_id", "previous_response_id") and is_set:
                setattr(request, field.name, chosen("response"))
            elif field.name == "item_ids":
                request.item_ids[:] = [chosen("first"), chosen("last")]
            elif field.name in ("item_id", "after", "expected_last_item_id") and is_set:
                setattr(request, field.name, chosen("last"))
            elif field.name == "request_id" and is_set and draw(st.booleans()):
                request.ClearField("request_id")

    def check(self, method: Method, data: bytes) -> None:
        """Sends bytes; whatever they are, the answer and what is stored afterwards are in order."""
        before = self._stored()
        replies, call = self._send(method, data)
        if replies is None:
            assert call.code() in FAULTS_OF_THE_CALLER, call.details()
            assert self._stored() == before
        else:
            for reply in replies:
                self._check_reply(method, method.response.FromString(reply))
        self._replace()

    def _send(self, method: Method, data: bytes) -> tuple[list[bytes] | None, Any]:
        try:
            return answers.by_grpc(self._channel, method, data)
        except grpc.RpcError as refusal:
            return None, refusal

    def _check_reply(self, method: Method, reply: Any) -> None:
        if isinstance(reply, ConversationItem):
            _check_can_be_sent_again(reply)
        elif isinstance(reply, ConversationItemList | ConversationItemBatch):
            for item in reply.data:
                _check_can_be_sent_again(item)
        if method.name == "CreateItems":
            newest = list(self._list(self.conversation).data)[: len(reply.data)]
            assert newest[::-1] == list(reply.data)
            ids = [item.id for item in reply.data]
            request = BatchGetItemsRequest(conversation_id=self.conversation, item_ids=ids)
            assert [item.id for item in self._stub.BatchGetItems(request).data] == ids
        elif method.name == "CreateConversation":
            assert self._stub.GetConversation(GetConversationRequest(conversation_id=reply.id)) == reply
            for item in self._list(reply.id).data:
                _check_can_be_sent_again(item)

    def _item_ids(self) -> list[str]:
        """The ids of all items, the oldest first."""
        return [item.id for item in self._list(self.conversation).data][::-1]

    def _list(self, conversation: str) -> ConversationItemList:
        return self._stub.ListItems(ListItemsRequest(conversation_id=conversation, limit=100))

    def _stored(self) -> tuple[bytes, bytes]:
        """What a request could have changed: the newest conversations, and the items of this one."""
        newest = self._stub.ListConversations(ListConversationsRequest(limit=5))
        return newest.SerializeToString(deterministic=True), self._list(self.conversation).SerializeToString(
            deterministic=True
        )

    def _replace(self) -> None:
        """Takes another conversation where this one is gone, or too long for a page."""
        try:
            left = self._item_ids()
        except grpc.RpcError:
            left = []
        if not REPLACED_AT > len(left) > 1:
            self._create()
        else:
            self.items = left[-3:]


def _check_can_be_sent_again(item: ConversationItem) -> None:
    validate(decode(ConversationItem, parse(dump(item))))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    settings = Settings(db=str(tmp_path_factory.mktemp("fuzz") / "convgrpc.db"), grpc=FREE_PORT, http=FREE_PORT)
    with served(settings) as server, grpc.insecure_channel(str(server.grpc)) as channel:
        yield Target(channel)


def request_of(method: Method, target: Target, data: st.DataObject) -> Any:
    """A valid request, aimed at what is there."""
    descriptor: Any = method.request.DESCRIPTOR
    request = data.draw(messages(descriptor))
    target.aim(data.draw, request)
    return request


def fuzz(bounds: settings, test: Callable[[st.DataObject], None]) -> None:
    bounds(given(st.data())(test))()


def try_bytes(method: Method, target: Target, bounds: settings) -> None:
    fuzz(bounds, lambda data: target.check(method, data.draw(st.binary(max_size=100))))


def try_requests(method: Method, target: Target, bounds: settings) -> None:
    fuzz(bounds, lambda data: target.check(method, request_of(method, target, data).SerializeToString()))


def try_broken_requests(method: Method, target: Target, bounds: settings) -> None:
    def test(data: st.DataObject) -> None:
        broken = data.draw(broken_messages(request_of(method, target, data)))
        target.check(method, broken)

    fuzz(bounds, test)


def try_broken_bytes(method: Method, target: Target, bounds: settings) -> None:
    def test(data: st.DataObject) -> None:
        valid = request_of(method, target, data).SerializeToString()
        target.check(method, data.draw(broken_bytes(valid)))

    fuzz(bounds, test)


each_way = pytest.mark.parametrize(
    "attempt", [try_bytes, try_requests, try_broken_requests, try_broken_bytes], ids=lambda attempt: attempt.__name__
)


@each_way
@each_method
def test_bytes_do_no_harm(method: Method, target: Target, attempt: Callable[..., None]) -> None:
    """Refused ones store nothing; accepted ones are listed, and what is listed can be sent again."""
    attempt(method, target, SHORT)


@pytest.mark.long
@each_way
@each_method
def test_many_bytes_do_no_harm(method: Method, target: Target, attempt: Callable[..., None]) -> None:
    """The same with other examples each time, and more of them."""
    attempt(method, target, LONG)
