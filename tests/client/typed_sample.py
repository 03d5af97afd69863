"""How the client is used, for type checkers alone: what they accept, and what they must not.

Each `type: ignore` is one that is needed: an unused one is an error.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from typing import assert_type

from openai.types.responses import EasyInputMessageParam, ResponseInputItemParam, ResponseOutputMessage

import convgrpc
from convgrpc import AsyncClient, Client, ConvgrpcError, NotFound
from convgrpc.v1.conversation_pb2 import Conversation, Metadata
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    AppendItemsResponse,
    ConversationItemBatch,
    ConversationItemList,
    Order,
    TokenBudget,
)
from convgrpc.v1.input_tokens_service_pb2 import InputTokenCount
from convgrpc.v1.item_pb2 import ConversationItem


def values(client: Client, message: ConversationItem, output: ResponseOutputMessage) -> None:
    """Dictionaries, messages and models; words and enums."""
    typed: EasyInputMessageParam = {"role": "user", "content": "Hello!"}
    params: list[ResponseInputItemParam] = [typed]
    conversation = client.create_conversation(
        items=[{"role": "user", "content": "Hello!"}, message], metadata={"a": "b"}
    )
    assert_type(conversation, Conversation)
    client.create_conversation(metadata=Metadata(pairs={"a": "b"}))
    client.create_items(conversation.id, items=params)
    client.create_items(conversation.id, items=[typed, message, output])
    page = client.list_items(conversation.id, order="asc", include=["reasoning.encrypted_content"], timeout=1)
    assert_type(page, ConversationItemList)
    client.create_items(conversation.id, items=page.data)
    client.list_items(conversation.id, order=Order.ORDER_ASC, budget=TokenBudget(input_tokens=100))
    client.update_conversation(conversation.id, metadata={})
    assert_type(client.count_input_tokens(input="Hello!", tool_choice="auto", models=["gpt-5"]), InputTokenCount)
    client.count_input_tokens(input=[typed, message], conversation=conversation.id, reasoning={"effort": "low"})
    assert_type(convgrpc.to_dict(message)["id"] is None, bool)


def pages(client: Client) -> list[str]:
    for item in client.iter_items("conv_1", limit=10):
        assert_type(item, ConversationItem)
    return [conversation.id for conversation in client.iter_conversations()]


def streams(client: Client) -> list[str]:
    requests: list[AppendItemsRequest] = [AppendItemsRequest(conversation_id="conv_1")]
    for answer in client.append_items(requests):
        assert_type(answer, AppendItemsResponse)
    mixed = client.append_items([*requests, {"conversation_id": "conv_1", "items": [{}], "request_id": "1"}])
    assert_type(next(mixed).requests, int)
    assert_type(next(client.watch_items("conv_1", new_only=True)), ConversationItemBatch)
    with closing(client.iter_watched_items("conv_1", after="msg_1")) as items:
        assert_type(next(items), ConversationItem)
    assert_type(client.fork_conversation("conv_1", last_item_id="msg_1", metadata={"a": "b"}), Conversation)
    return [item.id for item in client.iter_exported_items("conv_1", include=["reasoning.encrypted_content"])]


async def asynchronous_streams(client: AsyncClient) -> None:
    async def requests() -> AsyncIterator[AppendItemsRequest]:
        yield AppendItemsRequest(conversation_id="conv_1")

    async for answer in client.append_items(requests()):
        assert_type(answer, AppendItemsResponse)
    async for answer in client.append_items([{"conversation_id": "conv_1", "items": [{}]}]):
        print(answer.item_ids)
    async with aclosing(client.watch_items("conv_1")) as batches:
        async for batch in batches:
            assert_type(batch, ConversationItemBatch)
    async for item in client.iter_exported_items("conv_1"):
        assert_type(item, ConversationItem)


async def asynchronously(client: AsyncClient) -> list[str]:
    async with AsyncClient("127.0.0.1:1", api_key="a") as other:
        assert_type(await other.get_conversation("conv_1"), Conversation)
    return [item.id async for item in client.iter_items("conv_1")]


def failures(client: Client) -> str | None:
    try:
        with client:
            client.get_item("conv_1", "msg_1")
    except NotFound as error:
        return error.param or error.message
    except ConvgrpcError as error:
        return error.request_id
    return None


def mistakes(client: Client, aclient: AsyncClient) -> None:
    client.get_conversation()  # type: ignore[call-arg]
    client.get_conversation(1)  # type: ignore[arg-type]
    client.get_conversation("conv_1", 1.0)  # type: ignore[call-arg]
    client.create_items("conv_1")  # type: ignore[call-arg]
    client.create_items("conv_1", items="Hello!")  # type: ignore[arg-type]
    client.create_items("conv_1", items=["Hello!"])  # type: ignore[list-item]
    client.list_items("conv_1", order="newest")  # type: ignore[arg-type]
    client.list_items("conv_1", limit="10")  # type: ignore[arg-type]
    client.update_conversation("conv_1")  # type: ignore[call-arg]
    client.create_conversation(metadata={"a": 1})  # type: ignore[dict-item]
    client.create_conversation(item=[])  # type: ignore[call-arg]
    print(client.get_conversation("conv_1").name)  # type: ignore[attr-defined]
    client.delete_everything()  # type: ignore[attr-defined]
    Client(port=1)  # type: ignore[call-arg]
    for _ in aclient.iter_items("conv_1"):  # type: ignore[attr-defined]
        pass
    client.append_items("conv_1")  # type: ignore[arg-type]
    client.append_items([1])  # type: ignore[list-item]
    client.export_items("conv_1", limit=1)  # type: ignore[call-arg]
