"""The life of a conversation, by the stubs for Python. The programs in the other languages do the same, step by
step.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from convgrpc.v1.content_pb2 import ContentPart, InputText, Json, OutputText
from convgrpc.v1.conversation_pb2 import Conversation, ConversationReference, Metadata, ResponseConversation
from convgrpc.v1.conversations_service_pb2 import (
    BatchGetItemsRequest,
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    GetConversationRequest,
    GetItemRequest,
    ListConversationsRequest,
    ListItemsRequest,
    Order,
    UpdateConversationRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ResponseInput
from convgrpc.v1.input_tokens_service_pb2_grpc import InputTokensServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, ItemReference, Message, Role
from convgrpc.v1.responses_service_pb2 import DeleteResponseRequest, GetResponseRequest, RecordResponseRequest
from convgrpc.v1.responses_service_pb2_grpc import ResponsesServiceStub
from convgrpc.v1.tool_pb2 import FunctionTool, Tool

ITEMS_PER_REQUEST = 20
ITEMS_PER_PAGE = 7
TIMEOUT = 30
UNKNOWN = b"\xc2\x3e\x03new"  # field 1000, a string


class Life:
    """Calls, and what came of them, by the names of the steps."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.conversations = ConversationsServiceStub(channel)
        self.responses = ResponsesServiceStub(channel)
        self.seen: dict[str, Any] = {}

    def see(self, step: str, message: ProtoMessage) -> None:
        self.seen[step] = MessageToDict(message)

    def live(self, items: list[ConversationItem]) -> dict[str, Any]:
        """What each step returned, as protobuf's JSON."""
        self.see("health", HealthStub(self.channel).Check(HealthCheckRequest(), timeout=TIMEOUT))
        conversation = self.create()
        first = self.append(conversation, items)
        self.read(conversation, first)
        self.refer(first)
        self.refuse(conversation)
        self.keep_unknown_fields()
        self.count()
        self.respond(conversation)
        self.delete(conversation, first)
        return self.seen

    def create(self) -> str:
        metadata = Metadata(pairs={"topic": "ferns"})
        request = CreateConversationRequest(metadata=metadata, request_id="create")
        conversation = self.conversations.CreateConversation(request, timeout=TIMEOUT)
        self.see("created", conversation)
        self.see("created_again", self.conversations.CreateConversation(request, timeout=TIMEOUT))
        return conversation.id

    def append(self, conversation: str, items: list[ConversationItem]) -> str:
        batches = [items[start : start + ITEMS_PER_REQUEST] for start in range(0, len(items), ITEMS_PER_REQUEST)]
        requests = [
            CreateItemsRequest(conversation_id=conversation, items=batch, request_id=f"append-{number}")
            for number, batch in enumerate(batches)
        ]
        replies = [self.conversations.CreateItems(request, timeout=TIMEOUT) for request in requests]
        self.seen["appended"] = [MessageToDict(reply) for reply in replies]
        again = self.conversations.CreateItems(requests[0], timeout=TIMEOUT)
        self.seen["appended_again"] = [item.id for item in again.data]
        return replies[0].data[0].id

    def read(self, conversation: str, item: str) -> None:
        self.seen["ascending"] = list(self.pages(conversation, Order.ORDER_ASC))
        self.seen["descending"] = list(self.pages(conversation, Order.ORDER_DESC))
        request = GetItemRequest(conversation_id=conversation, item_id=item)
        self.see("item", self.conversations.GetItem(request, timeout=TIMEOUT))
        ids = [item, self.seen["descending"][0][0]]
        batch = BatchGetItemsRequest(conversation_id=conversation, item_ids=ids)
        self.see("items", self.conversations.BatchGetItems(batch, timeout=TIMEOUT))
        metadata = Metadata(pairs={"topic": "mosses", "grown": "yes"})
        update = UpdateConversationRequest(conversation_id=conversation, metadata=metadata)
        self.see("updated", self.conversations.UpdateConversation(update, timeout=TIMEOUT))
        self.see("got", self.get(conversation))
        query = ListConversationsRequest(metadata=Metadata(pairs={"topic": "mosses"}))
        self.see("conversations", self.conversations.ListConversations(query, timeout=TIMEOUT))

    def pages(self, conversation: str, order: Order.ValueType) -> Iterator[list[str]]:
        request = ListItemsRequest(conversation_id=conversation, order=order, limit=ITEMS_PER_PAGE)
        more = True
        while more:
            page = self.conversations.ListItems(request, timeout=TIMEOUT)
            yield [item.id for item in page.data]
            request.after = page.last_id
            more = page.has_more

    def get(self, conversation: str) -> Conversation:
        request = GetConversationRequest(conversation_id=conversation)
        return self.conversations.GetConversation(request, timeout=TIMEOUT)

    def refer(self, item: str) -> None:
        reference = ConversationItem(id=item, item_reference=ItemReference())
        created = self.conversations.CreateConversation(CreateConversationRequest(items=[reference]), timeout=TIMEOUT)
        request = ListItemsRequest(conversation_id=created.id)
        self.see("copied", self.conversations.ListItems(request, timeout=TIMEOUT))

    def refuse(self, conversation: str) -> None:
        request = CreateItemsRequest(conversation_id=conversation, items=[ConversationItem(message=Message())])
        self.seen["refused"] = refusal(lambda: self.conversations.CreateItems(request, timeout=TIMEOUT))
        self.seen["missing"] = refusal(lambda: self.get("conv_missing"))

    def keep_unknown_fields(self) -> None:
        item = says(Role.ROLE_USER, "What is new?")
        item.MergeFromString(UNKNOWN)
        created = self.conversations.CreateConversation(CreateConversationRequest(items=[item]), timeout=TIMEOUT)
        page = self.conversations.ListItems(ListItemsRequest(conversation_id=created.id), timeout=TIMEOUT)
        field = UnknownFieldSet(page.data[0])[0]
        self.seen["unknown"] = [field.field_number, field.data.decode()]

    def count(self) -> None:
        function = FunctionTool(
            name="get_weather",
            description="Tells the weather.",
            parameters=Json(text='{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'),
            strict=True,
        )
        request = CountInputTokensRequest(
            input=ResponseInput(text="Do ferns grow in Oslo?"),
            instructions="Be brief.",
            tools=[Tool(function=function)],
            models=["gpt-5", "gpt-4o", "fern-1"],
        )
        counted = InputTokensServiceStub(self.channel).CountInputTokens(request, timeout=TIMEOUT)
        self.see("counted", counted)

    def respond(self, conversation: str) -> None:
        request = RecordResponseRequest(
            model="gpt-5",
            conversation=ResponseConversation(reference=ConversationReference(id=conversation)),
            input=[says(Role.ROLE_USER, "Do ferns flower?")],
            output=[says(Role.ROLE_ASSISTANT, "They do not.")],
            metadata=Metadata(pairs={"run": "1"}),
            request_id="respond",
        )
        recorded = self.responses.RecordResponse(request, timeout=TIMEOUT)
        self.see("recorded", recorded)
        self.see("response", self.responses.GetResponse(GetResponseRequest(response_id=recorded.id), timeout=TIMEOUT))
        delete = DeleteResponseRequest(response_id=recorded.id)
        self.see("response_deleted", self.responses.DeleteResponse(delete, timeout=TIMEOUT))

    def delete(self, conversation: str, item: str) -> None:
        of_item = DeleteItemRequest(conversation_id=conversation, item_id=item)
        self.see("item_deleted", self.conversations.DeleteItem(of_item, timeout=TIMEOUT))
        request = DeleteConversationRequest(conversation_id=conversation)
        self.see("deleted", self.conversations.DeleteConversation(request, timeout=TIMEOUT))
        self.seen["gone"] = refusal(lambda: self.get(conversation))


def says(role: Role.ValueType, text: str) -> ConversationItem:
    user = role == Role.ROLE_USER
    part = ContentPart(input_text=InputText(text=text)) if user else ContentPart(output_text=OutputText(text=text))
    return ConversationItem(message=Message(role=role, content=[part]))


def refusal(call: Callable[[], object]) -> dict[str, Any]:
    """How a call is refused: its code, and what the details of the status tell."""
    try:
        call()
    except grpc.RpcError as error:
        trailers: dict[str, Any] = dict(iter(error.trailing_metadata() or ()))  # type: ignore[arg-type]
        status = Status.FromString(trailers["grpc-status-details-bin"])
        info, fault = ErrorInfo(), BadRequest()
        for detail in status.details:
            detail.Unpack(info) or detail.Unpack(fault)
        return {
            "code": status.code,
            "message": status.message,
            "reason": info.reason,
            "param": info.metadata.get("param", ""),
            "fields": [violation.field for violation in fault.field_violations],
        }
    raise AssertionError("the call was not refused")
