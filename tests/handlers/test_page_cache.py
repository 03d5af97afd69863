"""Lists that are given again, without being read."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from convgrpc.contract.stored import RawList, dump
from convgrpc.errors import NotFound
from convgrpc.handlers import page_cache
from convgrpc.handlers.context import Context
from convgrpc.handlers.conversations import ConversationsService
from convgrpc.handlers.message_work import MessageWork
from convgrpc.handlers.page_cache import CachedPage, PageCache, PageKey
from convgrpc.handlers.responses import ResponsesService
from convgrpc.storage.interface import Version
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.content_pb2 import ContentPart, InputText
from convgrpc.v1.conversation_pb2 import Metadata, ResponseConversation
from convgrpc.v1.conversations_service_pb2 import (
    ConversationItemList,
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    ForkConversationRequest,
    ListItemsRequest,
    Order,
    UpdateConversationRequest,
)
from convgrpc.v1.item_pb2 import ConversationItem, Message, Role
from convgrpc.v1.responses_service_pb2 import RecordResponseRequest

ALDER, BIRCH = Context("alder", 1e12, 0), Context("birch", 1e12, 0)


def message(text: str) -> ConversationItem:
    content = [ContentPart(input_text=InputText(text=text))]
    return ConversationItem(message=Message(role=Role.ROLE_USER, content=content))


def run(path: Path, scenario: Callable[[SqliteStore, ConversationsService], Awaitable[None]]) -> None:
    async def bounded() -> None:
        store = SqliteStore.open(path / "convgrpc.db")
        try:
            async with asyncio.timeout(60):
                await scenario(store, service(store))
        finally:
            await store.close()

    asyncio.run(bounded())


def service(store: SqliteStore) -> ConversationsService:
    counter: Any = None
    return ConversationsService(store, counter, MessageWork())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The conversations whose items were listed from the database."""
    made: list[str] = []
    read = SqliteStore.list_items

    async def noted(self: SqliteStore, project: str, conversation_id: str, **page: Any) -> Any:
        made.append(conversation_id)
        return await read(self, project, conversation_id, **page)

    monkeypatch.setattr(SqliteStore, "list_items", noted)
    return made


def test_a_list_is_read_once_for_as_long_as_the_conversation_is_the_same(tmp_path: Path, reads: list[str]) -> None:
    """For both transports, and for each way of asking."""

    async def scenario(store: SqliteStore, conversations: ConversationsService) -> None:
        made = await conversations.CreateConversation(CreateConversationRequest(items=[message("a")]), ALDER)
        ways: list[dict[str, Any]] = [{}, {"order": Order.ORDER_ASC}, {"limit": 1}, {"limit": 20}]
        for _ in range(3):
            for way in ways:
                answer = await conversations.ListItems(ListItemsRequest(conversation_id=made.id, **way), ALDER)
                assert ConversationItemList.FromString(answer.SerializeToString()).data[0].id.encode() in dump(answer)
        assert len(reads) == 3, "a limit of 20 is the default"

    run(tmp_path, scenario)


def test_a_list_follows_every_change(tmp_path: Path, reads: list[str]) -> None:
    """After each it is what a service would give that was never asked before, and others' lists stay."""

    async def scenario(store: SqliteStore, conversations: ConversationsService) -> None:
        first = [message(text) for text in "abc"]
        made = await conversations.CreateConversation(CreateConversationRequest(items=first), ALDER)
        ways: list[dict[str, Any]] = [{}, {"order": Order.ORDER_ASC, "limit": 2}]

        async def lists() -> list[bytes]:
            asked = [ListItemsRequest(conversation_id=made.id, **way) for way in ways]
            given = [(await conversations.ListItems(each, ALDER)).SerializeToString() for each in asked]
            anew = [(await service(store).ListItems(each, ALDER)).SerializeToString() for each in asked]
            assert given == anew
            return given

        async def delete() -> None:
            page = await conversations.ListItems(ListItemsRequest(conversation_id=made.id), ALDER)
            last = ConversationItemList.FromString(page.SerializeToString()).first_id
            await conversations.DeleteItem(DeleteItemRequest(conversation_id=made.id, item_id=last), ALDER)

        async def append() -> None:
            new = [message("another")]
            await conversations.CreateItems(CreateItemsRequest(conversation_id=made.id, items=new), ALDER)

        async def replace() -> None:
            await delete()
            await append()

        async def record() -> None:
            output = [message("of a response")]
            recorded = RecordResponseRequest(conversation=ResponseConversation(conversation_id=made.id), output=output)
            await ResponsesService(store, MessageWork()).RecordResponse(recorded, ALDER)

        seen = [await lists()]
        for change in (append, delete, replace, record, replace, delete):
            await change()
            seen.append(await lists())
            reads.clear()
            assert await lists() == seen[-1]
            assert len(reads) == len(ways), "all but those of the new service were kept"
        assert all(earlier != later for earlier, later in pairwise(seen))

    run(tmp_path, scenario)


def test_what_leaves_the_items_as_they_are_leaves_the_list(tmp_path: Path, reads: list[str]) -> None:
    async def scenario(store: SqliteStore, conversations: ConversationsService) -> None:
        made = await conversations.CreateConversation(CreateConversationRequest(items=[message("a")]), ALDER)
        asked = ListItemsRequest(conversation_id=made.id)
        before = await conversations.ListItems(asked, ALDER)
        changed = UpdateConversationRequest(conversation_id=made.id, metadata=Metadata(pairs={"a": "b"}))
        await conversations.UpdateConversation(changed, ALDER)
        await conversations.ForkConversation(ForkConversationRequest(conversation_id=made.id), ALDER)
        assert await conversations.ListItems(asked, ALDER) is before

    run(tmp_path, scenario)


def test_a_list_is_kept_for_its_project_and_conversation_alone(tmp_path: Path) -> None:
    """Others are told what they would be told of a conversation that never was, and so is the project after it."""

    async def scenario(store: SqliteStore, conversations: ConversationsService) -> None:
        made = await conversations.CreateConversation(CreateConversationRequest(items=[message("a")]), ALDER)
        asked = ListItemsRequest(conversation_id=made.id)
        await conversations.ListItems(asked, ALDER)
        with pytest.raises(NotFound):
            await conversations.ListItems(asked, BIRCH)
        await conversations.DeleteConversation(DeleteConversationRequest(conversation_id=made.id), ALDER)
        with pytest.raises(NotFound):
            await conversations.ListItems(asked, ALDER)

    run(tmp_path, scenario)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list goes first that was not asked for the longest, and a large one is not kept at all."""
    monkeypatch.setattr(page_cache, "_MOST", 1000 + 3 * page_cache._LIST_BYTES)
    monkeypatch.setattr(page_cache, "_LARGEST", 500)
    kept, version = PageCache(), Version(1, 1, 1, 0)

    def asked(name: str) -> PageKey:
        return PageKey("alder", name, None, 20, True)

    def keep(name: str, size: int) -> None:
        items = [b"x" * size]
        kept.keep(asked(name), CachedPage(version, RawList(ConversationItemList(), "data", ConversationItem, items)))

    def names() -> list[str]:
        return [name for name in ("a", "b", "c", "large") if kept.find(asked(name))]

    keep("a", 400)
    keep("b", 400)
    keep("b", 300)
    assert kept.find(asked("a"))
    keep("c", 400)
    assert names() == ["a", "c"]
    keep("large", 501)
    keep("c", 501)
    assert names() == ["a"], "what is out of date is not kept either"
    for number in range(100):
        keep(f"empty {number}", 0)
    assert kept._given.weight == 3 * page_cache._LIST_BYTES
