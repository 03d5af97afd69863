"""The conversation and item RPCs, by a generated stub."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import pytest

from convgrpc.v1.content_pb2 import ContentPart, ImageDetail, InputImage, InputText
from convgrpc.v1.conversation_pb2 import Conversation, Metadata
from convgrpc.v1.conversations_service_pb2 import (
    ConversationItemList,
    CreateConversationRequest,
    CreateItemsRequest,
    DeleteConversationRequest,
    DeleteItemRequest,
    GetConversationRequest,
    GetItemRequest,
    ListItemsRequest,
    Order,
    UpdateConversationRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.item_pb2 import ConversationItem, FunctionCall, ItemReference, ItemStatus, Message, Role


def message(text: str, item_id: str | None = None) -> ConversationItem:
    content = [ContentPart(input_text=InputText(text=text))]
    return ConversationItem(id=item_id, message=Message(role=Role.ROLE_USER, content=content))


def texts(items: Iterable[ConversationItem]) -> list[str]:
    return [item.message.content[0].input_text.text for item in items]


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value.code(), refusal.value.details() or ""


@pytest.fixture
def conversation(stub: ConversationsServiceStub) -> Conversation:
    return stub.CreateConversation(CreateConversationRequest())


@pytest.fixture
def append(stub: ConversationsServiceStub, conversation: Conversation) -> Callable[..., ConversationItemList]:
    def append(*items: ConversationItem) -> ConversationItemList:
        return stub.CreateItems(CreateItemsRequest(conversation_id=conversation.id, items=items))

    return append


def listed(stub: ConversationsServiceStub, conversation: Conversation, **values: Any) -> ConversationItemList:
    return stub.ListItems(ListItemsRequest(conversation_id=conversation.id, **values))


def test_a_conversation_has_an_id_a_time_and_metadata_even_when_none_was_sent(stub: ConversationsServiceStub) -> None:
    """Metadata is set, and empty, when the caller attached none."""
    conversation = stub.CreateConversation(CreateConversationRequest())
    assert re.fullmatch(r"conv_[0-9a-f]{48}", conversation.id)
    assert conversation.created_at > 1_700_000_000
    assert conversation.HasField("metadata")
    assert not conversation.metadata.pairs


def test_a_conversation_is_created_together_with_its_first_items(stub: ConversationsServiceStub) -> None:
    """The first items of a conversation are listed like any others."""
    request = CreateConversationRequest(items=[message("one"), message("two")], metadata=Metadata(pairs={"k": "v"}))
    conversation = stub.CreateConversation(request)
    assert conversation.metadata.pairs == {"k": "v"}
    assert texts(listed(stub, conversation, order=Order.ORDER_ASC).data) == ["one", "two"]


def test_an_update_replaces_the_metadata_as_a_whole(stub: ConversationsServiceStub) -> None:
    """Keys that an update leaves out are gone; the rest of the conversation stays as it was."""
    created = stub.CreateConversation(CreateConversationRequest(metadata=Metadata(pairs={"a": "1", "b": "2"})))
    request = UpdateConversationRequest(conversation_id=created.id, metadata=Metadata(pairs={"b": "3"}))
    updated = stub.UpdateConversation(request)
    assert updated.metadata.pairs == {"b": "3"}
    assert created.created_at == updated.created_at
    assert updated == stub.GetConversation(GetConversationRequest(conversation_id=created.id))


def test_an_update_without_metadata_is_refused(stub: ConversationsServiceStub, conversation: Conversation) -> None:
    """Leaving the metadata out does not remove it by accident."""
    code, details = refused(lambda: stub.UpdateConversation(UpdateConversationRequest(conversation_id=conversation.id)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "Missing required parameter: 'metadata'."


def test_a_deleted_conversation_is_gone_with_its_items(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """After deletion every call answers that there is no such conversation, a second deletion too."""
    item_id = append(message("one")).first_id
    deleted = stub.DeleteConversation(DeleteConversationRequest(conversation_id=conversation.id))
    assert deleted.deleted
    assert conversation.id == deleted.id
    expected = (grpc.StatusCode.NOT_FOUND, f"Conversation with id '{conversation.id}' not found.")
    for call in (
        lambda: stub.GetConversation(GetConversationRequest(conversation_id=conversation.id)),
        lambda: stub.DeleteConversation(DeleteConversationRequest(conversation_id=conversation.id)),
        lambda: stub.GetItem(GetItemRequest(conversation_id=conversation.id, item_id=item_id)),
        lambda: stub.DeleteItem(DeleteItemRequest(conversation_id=conversation.id, item_id=item_id)),
        lambda: listed(stub, conversation),
        lambda: append(message("two")),
    ):
        assert expected == refused(call)


def test_created_items_come_back_in_the_order_they_were_sent(append: Callable[..., ConversationItemList]) -> None:
    """The answer holds this request's items alone, whatever the conversation held before."""
    append(message("before"))
    created = append(message("one"), message("two"), message("three"))
    assert texts(created.data) == ["one", "two", "three"]
    assert (created.data[0].id, created.data[2].id) == (created.first_id, created.last_id)
    assert not created.has_more


def test_an_item_gets_the_prefix_of_its_kind_and_the_end_of_its_conversations_id(
    conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """Ids lead from an item to its conversation."""
    call = ConversationItem(function_call=FunctionCall(call_id="call_1", name="f", arguments="{}"))
    first, second = append(message("one"), call).data
    assert re.fullmatch(r"msg_[0-9a-f]{32}" + conversation.id[-16:], first.id)
    assert re.fullmatch(r"fc_[0-9a-f]{32}" + conversation.id[-16:], second.id)


def test_what_a_caller_left_out_is_filled_in(append: Callable[..., ConversationItemList]) -> None:
    """A stored message is completed, and an image in it has a detail."""
    image = ContentPart(input_image=InputImage(image_url="https://example.com/a.png"))
    item = ConversationItem(message=Message(role=Role.ROLE_USER, content=[image]))
    stored = append(item).data[0].message
    assert stored.status == ItemStatus.ITEM_STATUS_COMPLETED
    assert stored.content[0].input_image.detail == ImageDetail.IMAGE_DETAIL_AUTO


def test_what_a_caller_sent_is_not_overwritten(append: Callable[..., ConversationItemList]) -> None:
    """Defaults are only for fields that were left out."""
    item = ConversationItem(
        id="msg_mine", message=Message(role=Role.ROLE_ASSISTANT, status=ItemStatus.ITEM_STATUS_INCOMPLETE)
    )
    assert item == append(item).data[0]


def test_a_field_from_a_newer_contract_is_still_there_when_the_item_is_read_back(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """Unknown fields survive at every level: in the item, in its kind, and in a content part."""
    unknown = bytes.fromhex("aa3f03") + b"new"  # field 1013, a string
    item = message("one")
    part = ContentPart.FromString(item.message.content[0].SerializeToString() + unknown)
    del item.message.content[:]
    item.message.content.append(part)
    item.message.MergeFromString(unknown)
    item.MergeFromString(unknown)
    stored = append(item).data[0]
    read = stub.GetItem(GetItemRequest(conversation_id=conversation.id, item_id=stored.id))
    assert stored == read
    assert read.SerializeToString().count(unknown) == 3


def test_items_are_listed_newest_first_unless_asked_otherwise(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """The default order is descending."""
    append(message("one"), message("two"), message("three"))
    assert texts(listed(stub, conversation).data) == ["three", "two", "one"]
    assert texts(listed(stub, conversation, order=Order.ORDER_DESC).data) == ["three", "two", "one"]
    assert texts(listed(stub, conversation, order=Order.ORDER_ASC).data) == ["one", "two", "three"]


@pytest.mark.parametrize("order", [Order.ORDER_ASC, Order.ORDER_DESC])
def test_pages_join_into_the_whole_conversation(
    stub: ConversationsServiceStub,
    conversation: Conversation,
    append: Callable[..., ConversationItemList],
    order: Order.ValueType,
) -> None:
    """A walk of 45 items by pages of 7 meets each once, in order, and learns where it ends."""
    names = [str(number) for number in range(45)]
    for start in range(0, 45, 15):
        append(*map(message, names[start : start + 15]))
    found: list[str] = []
    after = None
    while True:
        page = listed(stub, conversation, order=order, limit=7, after=after)
        found += texts(page.data)
        if not page.has_more:
            break
        after = page.last_id
    assert (names if order == Order.ORDER_ASC else names[::-1]) == found


def test_a_page_holds_twenty_items_unless_asked_otherwise(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """The default limit is 20, the greatest 100."""
    for _ in range(6):
        append(*(message(str(number)) for number in range(20)))
    assert len(listed(stub, conversation).data) == 20
    page = listed(stub, conversation, limit=100)
    assert (len(page.data), page.has_more) == (100, True)


def test_an_empty_page_has_no_ids(stub: ConversationsServiceStub, conversation: Conversation) -> None:
    """The ids of an empty page are unset."""
    page = listed(stub, conversation)
    assert not page.HasField("first_id")
    assert not page.HasField("last_id")
    assert not page.has_more


def test_a_page_stops_before_a_stub_could_not_receive_it(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """Twelve items of 1 MB come in pages that fit a stub's limit of 4 MiB, with `has_more`."""
    for number in range(12):
        append(message(f"{number:02}" + "x" * 1_000_000))
    found: list[str] = []
    page = listed(stub, conversation, order=Order.ORDER_ASC, limit=100)
    while page.has_more:
        found += texts(page.data)
        page = listed(stub, conversation, order=Order.ORDER_ASC, limit=100, after=page.last_id)
    found += texts(page.data)
    assert [f"{number:02}" for number in range(12)] == [text[:2] for text in found]


def test_an_unknown_cursor_is_refused_with_the_apis_own_words(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """So is the cursor of an item that was deleted."""
    item_id = append(message("one"), message("two")).last_id
    stub.DeleteItem(DeleteItemRequest(conversation_id=conversation.id, item_id=item_id))
    for cursor in ("msg_unknown", item_id):
        expected = (grpc.StatusCode.NOT_FOUND, f"No item found with id '{cursor}'")
        assert expected == refused(lambda cursor=cursor: listed(stub, conversation, after=cursor))  # type: ignore[misc]


def test_deleting_an_item_returns_the_conversation_and_removes_the_item_everywhere(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """An id that stands twice is removed from both places."""
    append(message("one", "msg_twice"), message("two"), message("three", "msg_twice"))
    request = DeleteItemRequest(conversation_id=conversation.id, item_id="msg_twice")
    assert conversation == stub.DeleteItem(request)
    assert texts(listed(stub, conversation).data) == ["two"]
    not_found = (grpc.StatusCode.NOT_FOUND, "Item with id 'msg_twice' not found in conversation.")
    assert not_found == refused(lambda: stub.DeleteItem(request))
    assert not_found == refused(
        lambda: stub.GetItem(GetItemRequest(conversation_id=conversation.id, item_id="msg_twice"))
    )


def test_an_item_in_the_conversation_already_is_refused_and_nothing_is_stored(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """A refusal takes the whole request with it."""
    item_id = append(message("one")).first_id
    code, details = refused(lambda: append(message("two"), message("one", item_id)))
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, "Item already in conversation")
    assert texts(listed(stub, conversation).data) == ["one"]


def test_a_bad_item_keeps_its_good_neighbours_out(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """One item without a role refuses the request it came in, and the request that would have created a
    conversation.
    """
    bad = ConversationItem(message=Message(content=[]))
    for call in (
        lambda: append(message("one"), bad),
        lambda: stub.CreateConversation(CreateConversationRequest(items=[message("one"), bad])),
    ):
        code, details = refused(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert details == "Invalid value: ''. Supported values are: 'assistant', 'system', 'developer', and 'user'."
    assert not listed(stub, conversation).data


def test_a_reference_stands_for_the_item_it_names(
    stub: ConversationsServiceStub, conversation: Conversation, append: Callable[..., ConversationItemList]
) -> None:
    """The referenced item itself is stored, and returned; a reference to nothing is refused."""
    other = stub.CreateConversation(CreateConversationRequest(items=[message("elsewhere")]))
    item = listed(stub, other).data[0]
    assert item == append(ConversationItem(id=item.id, item_reference=ItemReference())).data[0]
    code, details = refused(lambda: append(ConversationItem(id="msg_nowhere", item_reference=ItemReference())))
    assert (code, details) == (grpc.StatusCode.NOT_FOUND, "Item with id 'msg_nowhere' not found.")
    assert texts(listed(stub, conversation).data) == ["elsewhere"]


def test_the_id_of_an_item_that_the_service_made_stands_for_that_item(
    stub: ConversationsServiceStub, append: Callable[..., ConversationItemList]
) -> None:
    """What is sent with such an id is ignored; with an id that a caller made up, it is stored."""
    other = stub.CreateConversation(CreateConversationRequest(items=[message("original"), message("mine", "msg_mine")]))
    mine, original = listed(stub, other).data
    assert texts(append(message("changed", original.id)).data) == ["original"]
    assert mine.id == "msg_mine"
    assert texts(append(message("changed", mine.id)).data) == ["changed"]
