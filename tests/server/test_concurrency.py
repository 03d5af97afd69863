"""Many writers and a reader on one conversation, through real clients."""

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import httpx

from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversations_service_pb2 import (
    CreateConversationRequest,
    CreateItemsRequest,
    ListItemsRequest,
    Order,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role

APPENDERS = 32
APPENDS = 12


def message(text: str) -> ConversationItem:
    content = [ContentPart(input_text=InputText(text=text))]
    return ConversationItem(message=Message(role=Role.ROLE_USER, content=content))


def walked(stub: ConversationsServiceStub, conversation_id: str, order: Order.ValueType) -> list[ConversationItem]:
    """A whole conversation, page by page."""
    request = ListItemsRequest(conversation_id=conversation_id, order=order, limit=9)
    found: list[ConversationItem] = []
    while True:
        page = stub.ListItems(request)
        found += page.data
        if not page.has_more:
            return found
        request.after = page.last_id


def test_no_item_of_many_appenders_is_lost_repeated_or_out_of_order(
    stub: ConversationsServiceStub, http: httpx.Client
) -> None:
    """32 appenders, half by gRPC and half by REST; a walk meanwhile never meets an item twice."""
    conversation_id = stub.CreateConversation(CreateConversationRequest()).id
    finished = threading.Event()

    def append(appender: int) -> list[str]:
        acknowledged = []
        for number in range(APPENDS):
            text = f"{appender}:{number}"
            if appender % 2:
                items = [message(text)]
                reply = stub.CreateItems(CreateItemsRequest(conversation_id=conversation_id, items=items))
                acknowledged.append(reply.first_id)
            else:
                body = {"items": [{"role": "user", "content": text}]}
                response = http.post(f"/v1/conversations/{conversation_id}/items", json=body)
                acknowledged.append(response.raise_for_status().json()["first_id"])
        return acknowledged

    def walk() -> int:
        walks = 0
        while not finished.is_set():
            for order in (Order.ORDER_ASC, Order.ORDER_DESC):
                ids = [item.id for item in walked(stub, conversation_id, order)]
                assert len(ids) == len(set(ids))
            walks += 1
        return walks

    with ThreadPoolExecutor(APPENDERS + 1) as pool:
        walker = pool.submit(walk)
        try:
            acknowledged = [item_id for ids in pool.map(append, range(APPENDERS)) for item_id in ids]
        finally:
            finished.set()
        assert walker.result() > 0
    items = walked(stub, conversation_id, Order.ORDER_ASC)
    assert sorted(item.id for item in items) == sorted(acknowledged)
    by_appender = defaultdict(list)
    for item in items:
        appender, _, number = item.message.content[0].input_text.text.partition(":")
        by_appender[appender].append(int(number))
    assert list(by_appender.values()) == [list(range(APPENDS))] * APPENDERS
