"""The RPCs of `convgrpc.v1.ConversationsService`. What each of them does is said in the contract."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable

from convgrpc import errors, ids
from convgrpc.contract import options
from convgrpc.contract.includes import hide
from convgrpc.contract.stored import Answer, RawList, RawMessage
from convgrpc.handlers.append_stream import Appending
from convgrpc.handlers.context import Context
from convgrpc.handlers.message_work import LARGE_REQUEST, MessageWork
from convgrpc.handlers.new_items import charge, charge_answer, new_items, request_key, reserve_answer
from convgrpc.handlers.page_cache import CachedPage, PageCache, PageKey
from convgrpc.handlers.reply import Reply
from convgrpc.handlers.token_counter import TokenCounter
from convgrpc.handlers.watch import ReadSpec, WatchHub
from convgrpc.settings import IncludePolicy
from convgrpc.storage.interface import NewConversation, NewItem, RequestKey, Store
from convgrpc.v1 import conversations_service_pb2
from convgrpc.v1.conversation_pb2 import Conversation, DeletedConversation
from convgrpc.v1.conversations_service_pb2 import (
    BatchGetItemsRequest,
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
    UpdateConversationRequest,
    WatchItemsRequest,
)
from convgrpc.v1.item_pb2 import ConversationItem

SERVICE = conversations_service_pb2.DESCRIPTOR.services_by_name["ConversationsService"]

_DEFAULT_LIMIT = 20

# Stubs refuse replies of more than 4 MiB unless told otherwise, and JSON is larger than protobuf.
_MAX_PAGE_BYTES = 3_500_000


class ConversationsService:
    """Answers the RPCs from a store, and where tokens matter, from a counter."""

    def __init__(
        self,
        store: Store,
        counter: TokenCounter,
        work: MessageWork,
        *,
        include_policy: IncludePolicy = "all",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._counter = counter
        self._work = work
        self._watch_hub = WatchHub(store)
        self._page_cache = PageCache()
        self._hides = include_policy == "strict"
        self._clock = clock

    async def CreateConversation(self, request: CreateConversationRequest, context: Context) -> Conversation:
        now = self._clock()
        conversation = Conversation(id=ids.conversation_id(), created_at=int(now), metadata=request.metadata)

        def prepare() -> tuple[RequestKey | None, list[NewItem]]:
            return request_key("CreateConversation", request), new_items(request.items, conversation.id, now)

        key, items = await self._work.do(context.project, context.size, prepare, large=LARGE_REQUEST)
        await charge(self._store, items, context)
        stored = await self._store.create_conversation(
            context.project, _new(conversation), items, context.deadline, request=key
        )
        return Conversation.FromString(stored)

    async def GetConversation(self, request: GetConversationRequest, context: Context) -> Conversation:
        return Conversation.FromString(await self._store.get_conversation(context.project, request.conversation_id))

    async def ListConversations(self, request: ListConversationsRequest, context: Context) -> Answer:
        page = await self._store.list_conversations(
            context.project,
            context.deadline,
            after=request.after if request.HasField("after") else None,
            limit=request.limit if request.HasField("limit") else _DEFAULT_LIMIT,
            metadata=request.metadata.pairs,
        )
        reserve_answer(context, sum(map(len, page.conversations)))
        result = ConversationList(has_more=page.has_more)
        if page.conversations:
            result.first_id = Conversation.FromString(page.conversations[0]).id
        if page.cursor is not None and (page.conversations or page.has_more):
            result.last_id = page.cursor
        return RawList(result, "data", Conversation, page.conversations)

    async def UpdateConversation(self, request: UpdateConversationRequest, context: Context) -> Conversation:
        def change(data: bytes) -> bytes:
            conversation = Conversation.FromString(data)
            conversation.metadata.CopyFrom(request.metadata)
            return conversation.SerializeToString()

        stored = await self._store.update_conversation(
            context.project, request.conversation_id, request.metadata.pairs, change, context.deadline
        )
        return Conversation.FromString(stored)

    async def DeleteConversation(self, request: DeleteConversationRequest, context: Context) -> DeletedConversation:
        await self._store.delete_conversation(context.project, request.conversation_id, context.deadline)
        return DeletedConversation(id=request.conversation_id, deleted=True)

    async def ForkConversation(self, request: ForkConversationRequest, context: Context) -> Conversation:
        conversation = Conversation(id=ids.conversation_id(), created_at=int(self._clock()))

        def fork(data: bytes) -> NewConversation:
            cached = request.HasField("metadata")
            conversation.metadata.CopyFrom(request.metadata if cached else Conversation.FromString(data).metadata)
            return _new(conversation)

        stored = await self._store.fork_conversation(
            context.project,
            request.conversation_id,
            request.last_item_id if request.HasField("last_item_id") else None,
            fork,
            context.deadline,
            request=request_key("ForkConversation", request),
        )
        return Conversation.FromString(stored)

    async def CreateItems(self, request: CreateItemsRequest, context: Context) -> Answer:
        def prepare() -> tuple[RequestKey | None, list[NewItem]]:
            key = request_key("CreateItems", request)
            return key, new_items(request.items, request.conversation_id, self._clock())

        key, items = await self._work.do(context.project, context.size, prepare, large=LARGE_REQUEST)
        await charge_answer(self._store, items, context, key)
        stored = await self._store.append_items(
            context.project,
            request.conversation_id,
            items,
            context.deadline,
            request=key,
            expected_last=request.expected_last_item_id if request.HasField("expected_last_item_id") else None,
        )
        return self._list(stored, request.include, has_more=False)

    async def ListItems(self, request: ListItemsRequest, context: Context) -> Answer:
        if request.HasField("budget"):
            return await self._fitting(request, context)
        page_key = PageKey(
            context.project,
            request.conversation_id,
            request.after if request.HasField("after") else None,
            request.limit if request.HasField("limit") else _DEFAULT_LIMIT,
            request.order != Order.ORDER_ASC,
        )
        cached = self._page_cache.find(page_key)
        if cached and cached.version == await self._store.get_version(page_key.project, page_key.conversation_id):
            return cached.items
        page = await self._store.list_items(
            page_key.project,
            page_key.conversation_id,
            after=page_key.after,
            limit=page_key.limit,
            descending=page_key.descending,
            max_bytes=_MAX_PAGE_BYTES,
        )
        reserve_answer(context, sum(map(len, page.items)))
        answer = self._list(page.items, request.include, has_more=page.has_more)
        if isinstance(answer, RawList):
            self._page_cache.keep(page_key, CachedPage(page.version, answer))
        return answer

    async def GetItem(self, request: GetItemRequest, context: Context) -> Answer:
        data = await self._store.get_item(context.project, request.conversation_id, request.item_id)
        reserve_answer(context, len(data))
        if not self._hides:
            return RawMessage(ConversationItem, data)
        item = ConversationItem.FromString(data)
        _hide(item, request.include)
        return item

    async def BatchGetItems(self, request: BatchGetItemsRequest, context: Context) -> Answer:
        items = await self._store.get_items(
            context.project, request.conversation_id, request.item_ids, max_bytes=_MAX_PAGE_BYTES
        )
        reserve_answer(context, sum(map(len, items)))
        return self._list(items, request.include, has_more=False)

    async def DeleteItem(self, request: DeleteItemRequest, context: Context) -> Conversation:
        return Conversation.FromString(
            await self._store.delete_item(context.project, request.conversation_id, request.item_id, context.deadline)
        )

    def AppendItems(self, project: str) -> Appending:
        return Appending(self._store, project, self._clock)

    def ExportItems(self, request: ExportItemsRequest, context: Context) -> AsyncGenerator[Reply]:
        return self._watch_hub.export(self._spec(request, context))

    def WatchItems(self, request: WatchItemsRequest, context: Context) -> AsyncGenerator[Reply]:
        return self._watch_hub.watch(self._spec(request, context), new_only=request.new_only)

    def _spec(self, request: ExportItemsRequest | WatchItemsRequest, context: Context) -> ReadSpec:
        after = request.after if request.HasField("after") else None
        include = frozenset(_words(request.include)) if self._hides else None
        return ReadSpec(context.project, request.conversation_id, after, include)

    async def _fitting(self, request: ListItemsRequest, context: Context) -> Answer:
        for other in ("limit", "after"):
            if request.HasField(other):
                raise errors.budget_beside(other)
        budget = request.budget
        found = await self._counter.fit(
            context,
            request.conversation_id,
            budget.model,
            budget.input_tokens,
            max_bytes=_MAX_PAGE_BYTES,
        )
        reserve_answer(context, sum(map(len, found.items)))
        items = found.items if request.order == Order.ORDER_ASC else found.items[::-1]
        return self._list(items, request.include, has_more=found.has_more)

    def _list(self, items: list[bytes], include: Iterable[int], *, has_more: bool) -> Answer:
        result = ConversationItemList(has_more=has_more)
        if items:
            first = last = ConversationItem.FromString(items[0])
            if len(items) > 1:
                last = ConversationItem.FromString(items[-1])
            result.first_id, result.last_id = first.id, last.id
        if not self._hides:
            return RawList(result, "data", ConversationItem, items)
        result.data.extend(map(ConversationItem.FromString, items))
        for item in result.data:
            _hide(item, include)
        return result


def _new(conversation: Conversation) -> NewConversation:
    return NewConversation(conversation.id, conversation.SerializeToString(), conversation.metadata.pairs)


_INCLUDES = options.json_values(Include.DESCRIPTOR)


def _hide(item: ConversationItem, include: Iterable[int]) -> None:
    """Clears what the contract returns on request alone, and was not asked for."""
    hide(item, "kind", _words(include))


def _words(include: Iterable[int]) -> set[str]:
    return {_INCLUDES[value] for value in include}
