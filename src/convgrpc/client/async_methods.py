"""Each RPC of the contract as a coroutine.

Generated from the contract by scripts/generate: what is changed here is lost.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf import message

from convgrpc.client.values import JsonObject
from convgrpc.client.literals import IncludeLiteral, OrderLiteral, ToolChoiceModeLiteral, TruncationLiteral
from convgrpc.v1.conversation_pb2 import (
    Conversation,
    DeletedConversation,
    Metadata,
    ResponseConversation,
)
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    AppendItemsResponse,
    BatchGetItemsRequest,
    ConversationItemBatch,
    ConversationItemList,
    ConversationList,
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    ExportItemsRequest,
    ForkConversationRequest,
    GetConversationRequest,
    GetItemRequest,
    Include,
    ListConversationsRequest,
    ListItemsRequest,
    Order,
    TokenBudget,
    UpdateConversationRequest,
    WatchItemsRequest,
)
from convgrpc.v1.input_tokens_service_pb2 import (
    CountInputTokensRequest,
    InputTokenCount,
    ResponseInput,
    ResponseReasoning,
    ResponseText,
    ToolChoice,
    Truncation,
)
from convgrpc.v1.item_pb2 import (
    ConversationItem,
)
from convgrpc.v1.responses_service_pb2 import (
    DeleteResponseRequest,
    DeletedResponse,
    GetResponseRequest,
    RecordResponseRequest,
    Response,
)
from convgrpc.v1.tool_pb2 import (
    Tool,
)

M = TypeVar("M", bound=message.Message)
R = TypeVar("R", bound=message.Message)


class AsyncMethods:
    """Each RPC of the contract as a coroutine."""

    async def _call(
        self,
        path: str,
        request: type[message.Message],
        reply: type[M],
        values: dict[str, Any],
        timeout: float | None,
    ) -> M:
        raise NotImplementedError

    def _stream(
        self,
        path: str,
        request: type[message.Message],
        reply: type[M],
        values: dict[str, Any],
        timeout: float | None,
    ) -> AsyncGenerator[M, None]:
        raise NotImplementedError

    def _exchange(
        self,
        path: str,
        request: type[R],
        reply: type[M],
        requests: AsyncIterable[R | JsonObject] | Iterable[R | JsonObject],
        timeout: float | None,
    ) -> AsyncGenerator[M, None]:
        raise NotImplementedError

    async def create_conversation(
        self,
        *,
        items: Sequence[ConversationItem | JsonObject] | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Creates a conversation together with its first items, all or nothing.

        - items are the conversation's first items, up to 20.
        - metadata is attached to the conversation.
        - request_id makes the call safe to repeat: the same call with the same id, within the time that the server
          keeps it, does nothing again and is answered by what the first one stored, as far as that is still there;
          another call with it is refused. The ids of a project and method are apart from those of others.
        """
        values: dict[str, Any] = {
            "items": items,
            "metadata": metadata,
            "request_id": request_id,
        }
        path = "/convgrpc.v1.ConversationsService/CreateConversation"
        return await self._call(path, CreateConversationRequest, Conversation, values, timeout)

    async def get_conversation(
        self,
        conversation_id: str,
        *,
        timeout: float | None = None,
    ) -> Conversation:
        """Returns a conversation.

        Raises `NotFound` if it does not exist.

        - conversation_id is the conversation's identifier.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
        }
        path = "/convgrpc.v1.ConversationsService/GetConversation"
        return await self._call(path, GetConversationRequest, Conversation, values, timeout)

    async def update_conversation(
        self,
        conversation_id: str,
        *,
        metadata: Metadata | Mapping[str, str],
        timeout: float | None = None,
    ) -> Conversation:
        """Replaces the metadata of a conversation.

        Raises `NotFound` if it does not exist.

        - conversation_id is the conversation's identifier.
        - metadata replaces the conversation's metadata. An empty map removes all of it.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "metadata": metadata,
        }
        path = "/convgrpc.v1.ConversationsService/UpdateConversation"
        return await self._call(path, UpdateConversationRequest, Conversation, values, timeout)

    async def delete_conversation(
        self,
        conversation_id: str,
        *,
        timeout: float | None = None,
    ) -> DeletedConversation:
        """Deletes a conversation with its items, the responses on it, and all that follow these.

        Copies of the items that other conversations and responses hold stay. Raises `NotFound` if it does not exist,
        also when it was deleted before.

        - conversation_id is the conversation's identifier.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
        }
        path = "/convgrpc.v1.ConversationsService/DeleteConversation"
        return await self._call(path, DeleteConversationRequest, DeletedConversation, values, timeout)

    async def list_conversations(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ConversationList:
        """Returns one page of the project's conversations, newest first.

        Raises `NotFound` if the cursor does not exist.

        - limit is the greatest number of conversations in the page, 1 to 100. Unset means 20.
        - after is the identifier of the conversation after which the page begins, towards older ones.
        - metadata asks for conversations that have all of these pairs. In a query string: `metadata[key]=value`.
        """
        values: dict[str, Any] = {
            "limit": limit,
            "after": after,
            "metadata": metadata,
        }
        path = "/convgrpc.v1.ConversationsService/ListConversations"
        return await self._call(path, ListConversationsRequest, ConversationList, values, timeout)

    async def iter_conversations(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Conversation]:
        """Iterates over what all pages of `list_conversations` hold, each of which is fetched when it is needed.

        The arguments are those of that method: `limit` is for a page, and `timeout` for the fetching of one. A page
        begins after the last of the one before: whoever deletes that meanwhile gets `NotFound`.
        """
        has_more = True
        while has_more:
            page = await self.list_conversations(
                limit=limit,
                after=after,
                metadata=metadata,
                timeout=timeout,
            )
            for each in page.data:
                yield each
            after, has_more = page.last_id, page.has_more

    async def create_items(
        self,
        conversation_id: str,
        *,
        items: Sequence[ConversationItem | JsonObject],
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        request_id: str | None = None,
        expected_last_item_id: str | None = None,
        timeout: float | None = None,
    ) -> ConversationItemList:
        """Appends items to a conversation, all or nothing, and returns them in the order they were sent.

        Raises `NotFound` if the conversation does not exist.

        - conversation_id is the conversation's identifier.
        - items are appended in this order: at least one, up to 20.
        - include names further fields to return.
        - request_id makes the call safe to repeat: the same call with the same id, within the time that the server
          keeps it, does nothing again and is answered by what the first one stored, as far as that is still there;
          another call with it is refused. The ids of a project and method are apart from those of others.
        - expected_last_item_id is the identifier of the item that the caller believes to be the last of the
          conversation; empty means that it believes the conversation to be empty. If it is not so, nothing is appended
          and the call raises `Aborted`.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "items": items,
            "include": include,
            "request_id": request_id,
            "expected_last_item_id": expected_last_item_id,
        }
        path = "/convgrpc.v1.ConversationsService/CreateItems"
        return await self._call(path, CreateItemsRequest, ConversationItemList, values, timeout)

    async def list_items(
        self,
        conversation_id: str,
        *,
        limit: int | None = None,
        order: Order.ValueType | OrderLiteral | None = None,
        after: str | None = None,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        budget: TokenBudget | JsonObject | None = None,
        timeout: float | None = None,
    ) -> ConversationItemList:
        """Returns one page of a conversation's items.

        Raises `NotFound` if the conversation or the cursor does not exist.

        - conversation_id is the conversation's identifier.
        - limit is the greatest number of items in the page, 1 to 100. Unset means 20. A page of large items may hold
          fewer: `has_more` tells whether items follow.
        - order is the direction of the walk. Unset means newest first.
        - after is the identifier of the item after which the page begins, in the direction of the walk. An item that
          stands in several places is found at the last of them, so that no walk loops.
        - include names further fields to return.
        - budget asks for the newest items that fit into a number of tokens, in place of a page: as many as there are
          from some item on, calls and what answers them kept together. It excludes `limit` and `after`. `has_more`
          tells whether there are older items. As with any page, large items may make it end earlier.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "limit": limit,
            "order": order,
            "after": after,
            "include": include,
            "budget": budget,
        }
        path = "/convgrpc.v1.ConversationsService/ListItems"
        return await self._call(path, ListItemsRequest, ConversationItemList, values, timeout)

    async def iter_items(
        self,
        conversation_id: str,
        *,
        limit: int | None = None,
        order: Order.ValueType | OrderLiteral | None = None,
        after: str | None = None,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[ConversationItem]:
        """Iterates over what all pages of `list_items` hold, each of which is fetched when it is needed.

        The arguments are those of that method: `limit` is for a page, and `timeout` for the fetching of one. A page
        begins after the last of the one before: whoever deletes that meanwhile gets `NotFound`.
        """
        has_more = True
        while has_more:
            page = await self.list_items(
                conversation_id,
                limit=limit,
                order=order,
                after=after,
                include=include,
                timeout=timeout,
            )
            for each in page.data:
                yield each
            after, has_more = page.last_id, page.has_more

    async def get_item(
        self,
        conversation_id: str,
        item_id: str,
        *,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> ConversationItem:
        """Returns one item.

        Raises `NotFound` if the conversation or the item does not exist.

        - conversation_id is the conversation's identifier.
        - item_id is the item's identifier.
        - include names further fields to return.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "item_id": item_id,
            "include": include,
        }
        path = "/convgrpc.v1.ConversationsService/GetItem"
        return await self._call(path, GetItemRequest, ConversationItem, values, timeout)

    async def batch_get_items(
        self,
        conversation_id: str,
        *,
        item_ids: Sequence[str],
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> ConversationItemList:
        """Returns several items of a conversation, all or nothing.

        Raises `NotFound` if the conversation or one of the items does not exist.

        - conversation_id is the conversation's identifier.
        - item_ids are the items' identifiers, up to 100. The items come back in this order.
        - include names further fields to return.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "item_ids": item_ids,
            "include": include,
        }
        path = "/convgrpc.v1.ConversationsService/BatchGetItems"
        return await self._call(path, BatchGetItemsRequest, ConversationItemList, values, timeout)

    async def delete_item(
        self,
        conversation_id: str,
        item_id: str,
        *,
        timeout: float | None = None,
    ) -> Conversation:
        """Removes an item from a conversation, in all places where it stands, and returns the conversation.

        Raises `NotFound` if the conversation or the item does not exist.

        - conversation_id is the conversation's identifier.
        - item_id is the item's identifier.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "item_id": item_id,
        }
        path = "/convgrpc.v1.ConversationsService/DeleteItem"
        return await self._call(path, DeleteItemRequest, Conversation, values, timeout)

    async def fork_conversation(
        self,
        conversation_id: str,
        *,
        last_item_id: str | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Makes a new conversation of the items of another, all of them or those up to one, with their identifiers.

        What is done to either of them later leaves the other as it is; responses are not copied. Raises `NotFound` if
        the conversation or the item does not exist, and `ResourceExhausted` if there are more than 10,000 items or 32
        MiB to copy.

        - conversation_id is the identifier of the conversation whose items are copied.
        - last_item_id is the identifier of the last item to copy. An item that stands in several places is found at the
          last of them. Unset means all.
        - metadata is attached to the new conversation. Unset means that of the other.
        - request_id makes the call safe to repeat: the same call with the same id, within the time that the server
          keeps it, does nothing again and is answered by what the first one stored, as far as that is still there;
          another call with it is refused. The ids of a project and method are apart from those of others.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "last_item_id": last_item_id,
            "metadata": metadata,
            "request_id": request_id,
        }
        path = "/convgrpc.v1.ConversationsService/ForkConversation"
        return await self._call(path, ForkConversationRequest, Conversation, values, timeout)

    def append_items(
        self,
        requests: AsyncIterable[AppendItemsRequest | JsonObject] | Iterable[AppendItemsRequest | JsonObject],
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[AppendItemsResponse, None]:
        """Appends items as they come, each request all or nothing, in the order in which they were sent, and answers
        once for all requests that were made durable together.

        The first request that is refused ends the stream with its error: those before it have been answered, those
        after it are not done. The error tells the number of the request, from 1, as `request` in the metadata of its
        `google.rpc.ErrorInfo`. A stream is ended with `Unavailable`, when all that the server took of it is answered,
        if no request comes for long, or the server stops. A stream that broke is taken up by sending again, on a new
        one, what was not answered, with the same request ids. Where the calls of a project are limited by the second,
        each request is one: the server takes it when it may be made.

        The requests are messages, or objects with the names below. Each is taken when there is room for it; what is
        raised while one is made comes back here, once those before it are acknowledged.

        - conversation_id is the conversation's identifier. Each request of a stream may name another.
        - items are appended in this order: at least one, up to 100.
        - request_id makes the request safe to repeat: the same request with the same id, within the time that the
          server keeps it, does nothing again and is answered by what the first one stored, as far as that is still
          there; another request with it is refused. The ids of a project and method are apart from those of others.
        - expected_last_item_id is the identifier of the item that the caller believes to be the last of the
          conversation; empty means that it believes the conversation to be empty. If it is not so, nothing is appended
          and the request is refused with `Aborted`.
        """
        path = "/convgrpc.v1.ConversationsService/AppendItems"
        return self._exchange(path, AppendItemsRequest, AppendItemsResponse, requests, timeout)

    def export_items(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[ConversationItemBatch, None]:
        """Returns all items of a conversation that are there when it is called, oldest first, in batches; what is
        removed meanwhile is left out.

        It ends with `ResourceExhausted` when the caller takes the batches too slowly. An export that broke goes on
        after the cursor of its last batch. Raises `NotFound` if the conversation or the cursor does not exist. By REST
        each item is a line of JSON, and `{"error": …}` is the last line of one that broke.

        - conversation_id is the conversation's identifier.
        - after is where to begin: the cursor of a batch, or the identifier of an item. An item that stands in several
          places is found at the last of them. Unset means at the first item.
        - include names further fields to return.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "after": after,
            "include": include,
        }
        path = "/convgrpc.v1.ConversationsService/ExportItems"
        return self._stream(path, ExportItemsRequest, ConversationItemBatch, values, timeout)

    async def iter_exported_items(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[ConversationItem, None]:
        """Iterates over what all batches of `export_items` hold, whose arguments are the same."""
        batches = self.export_items(conversation_id, after=after, include=include, timeout=timeout)
        async with aclosing(batches):
            async for batch in batches:
                for each in batch.data:
                    yield each

    def watch_items(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        new_only: bool | None = None,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[ConversationItemBatch, None]:
        """Returns the items of a conversation after a cursor, oldest first, and from then on those that are appended,
        as soon as they are durable, each once; what is removed before it was returned is left out.

        It goes on until the caller ends it, and without a deadline; a caller whose watch broke goes on after the cursor
        of its last batch. It ends with `NotFound` when the conversation is deleted, with `Unauthenticated` when the key
        is no longer valid, with `Unavailable` when the server stops, and with `ResourceExhausted` when the caller takes
        the batches too slowly. Raises `NotFound` if the conversation or the cursor does not exist. By REST the batches
        are Server-Sent Events with their cursors as ids, and an event `error` tells why the watch broke.

        - conversation_id is the conversation's identifier.
        - after is where to begin: the cursor of a batch, or the identifier of an item. An item that stands in several
          places is found at the last of them. Unset means at the first item.
        - new_only leaves out the items that are there already, where `after` is unset.
        - include names further fields to return.
        """
        values: dict[str, Any] = {
            "conversation_id": conversation_id,
            "after": after,
            "new_only": new_only,
            "include": include,
        }
        path = "/convgrpc.v1.ConversationsService/WatchItems"
        return self._stream(path, WatchItemsRequest, ConversationItemBatch, values, timeout)

    async def iter_watched_items(
        self,
        conversation_id: str,
        *,
        after: str | None = None,
        new_only: bool | None = None,
        include: Sequence[Include.ValueType | IncludeLiteral] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[ConversationItem, None]:
        """Iterates over what all batches of `watch_items` hold, whose arguments are the same."""
        batches = self.watch_items(conversation_id, after=after, new_only=new_only, include=include, timeout=timeout)
        async with aclosing(batches):
            async for batch in batches:
                for each in batch.data:
                    yield each

    async def count_input_tokens(
        self,
        *,
        model: str | None = None,
        input: ResponseInput | str | Sequence[ConversationItem | JsonObject] | None = None,
        instructions: str | None = None,
        tools: Sequence[Tool | JsonObject] | None = None,
        tool_choice: ToolChoice | ToolChoiceModeLiteral | JsonObject | None = None,
        conversation: ResponseConversation | str | JsonObject | None = None,
        previous_response_id: str | None = None,
        parallel_tool_calls: bool | None = None,
        reasoning: ResponseReasoning | JsonObject | None = None,
        text: ResponseText | JsonObject | None = None,
        truncation: Truncation.ValueType | TruncationLiteral | None = None,
        personality: str | None = None,
        models: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> InputTokenCount:
        """Counts the tokens that a model would read if it were given the request.

        Nothing is stored, no model is asked, and nothing is fetched. Raises `NotFound` if the conversation, or an item
        that the input refers to, does not exist, and `InvalidArgument` for a schema that grows too large once its
        references are replaced.

        - model is the name of the model, on which the count depends. Unset, or a name of which nothing is known, stands
          for `gpt-5.6`.
        - input is what the model is to answer.
        - instructions come before everything else, as a message of the system.
        - tools are the tools that the model may call.
        - tool_choice says which tools the model may or must call.
        - conversation is the conversation whose items come before the input. It excludes `previous_response_id`.
        - previous_response_id is the identifier of the response that the input follows, and which was recorded: its
          input and output come before, after those of all that it follows, but no instructions. It excludes
          `conversation`.
        - parallel_tool_calls lets the model call several tools at once.
        - reasoning says how the model reasons.
        - text says how the model's text looks.
        - truncation is what happens to input that is too long for the model.
        - personality is the manner in which the model writes, such as `friendly` or `pragmatic`.
        - models are more models to count for, after `model` if that is set.
        """
        values: dict[str, Any] = {
            "model": model,
            "input": input,
            "instructions": instructions,
            "tools": tools,
            "tool_choice": tool_choice,
            "conversation": conversation,
            "previous_response_id": previous_response_id,
            "parallel_tool_calls": parallel_tool_calls,
            "reasoning": reasoning,
            "text": text,
            "truncation": truncation,
            "personality": personality,
            "models": models,
        }
        path = "/convgrpc.v1.InputTokensService/CountInputTokens"
        return await self._call(path, CountInputTokensRequest, InputTokenCount, values, timeout)

    async def record_response(
        self,
        *,
        response_id: str | None = None,
        model: str | None = None,
        previous_response_id: str | None = None,
        conversation: ResponseConversation | str | JsonObject | None = None,
        input: Sequence[ConversationItem | JsonObject] | None = None,
        output: Sequence[ConversationItem | JsonObject] | None = None,
        metadata: Metadata | Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Stores which items a response of a model consumed and produced, all or nothing.

        On a conversation, they are appended to it, the input first; otherwise they are the response's own. Raises
        `NotFound` if the conversation, the previous response or an item that is referred to does not exist, and
        `AlreadyExists` if the response does.

        - response_id is the identifier that the response has already, such as the one that the hosted API gave it.
          Unset means a new one.
        - model is the name of the model.
        - previous_response_id is the identifier of the response that this one follows: the model read its input and
          output, and all before, too. It excludes `conversation`.
        - conversation is the conversation to which the items are appended. It excludes `previous_response_id`.
        - input are the items that were new to the model, up to 1,000. A reference may name any item of the project.
        - output are the items that the model made, up to 1,000. A reference may name any item of the project.
        - metadata is attached to the response.
        - request_id makes the call safe to repeat: the same call with the same id, within the time that the server
          keeps it, does nothing again and is answered by what the first one stored, as far as that is still there;
          another call with it is refused. The ids of a project and method are apart from those of others.
        """
        values: dict[str, Any] = {
            "response_id": response_id,
            "model": model,
            "previous_response_id": previous_response_id,
            "conversation": conversation,
            "input": input,
            "output": output,
            "metadata": metadata,
            "request_id": request_id,
        }
        path = "/convgrpc.v1.ResponsesService/RecordResponse"
        return await self._call(path, RecordResponseRequest, Response, values, timeout)

    async def get_response(
        self,
        response_id: str,
        *,
        timeout: float | None = None,
    ) -> Response:
        """Returns a response.

        Raises `NotFound` if it does not exist, also when the conversation was deleted that it, or the first of the
        responses that it follows, is on.

        - response_id is the response's identifier.
        """
        values: dict[str, Any] = {
            "response_id": response_id,
        }
        path = "/convgrpc.v1.ResponsesService/GetResponse"
        return await self._call(path, GetResponseRequest, Response, values, timeout)

    async def delete_response(
        self,
        response_id: str,
        *,
        timeout: float | None = None,
    ) -> DeletedResponse:
        """Deletes a response together with the items that are its own; those on a conversation stay there.

        Raises `NotFound` if it does not exist, and `FailedPrecondition` if another response follows it, which needs its
        items: that one is to be deleted first.

        - response_id is the response's identifier.
        """
        values: dict[str, Any] = {
            "response_id": response_id,
        }
        path = "/convgrpc.v1.ResponsesService/DeleteResponse"
        return await self._call(path, DeleteResponseRequest, DeletedResponse, values, timeout)
