"""What requests bring to be stored: items, and the key that makes them safe to repeat."""

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import TypeAlias

from convgrpc import ids
from convgrpc.contract import options
from convgrpc.contract.defaults import fill_in
from convgrpc.contract.json_text import with_id
from convgrpc.handlers.context import Context
from convgrpc.handlers.message_work import LARGE
from convgrpc.storage.interface import MAX_COPIED_BYTES, NewItem, Origin, RequestKey, Store
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    CreateConversationRequest,
    CreateItemsRequest,
    ForkConversationRequest,
)
from convgrpc.v1.item_pb2 import ConversationItem
from convgrpc.v1.responses_service_pb2 import RecordResponseRequest

Repeatable: TypeAlias = (
    CreateConversationRequest
    | ForkConversationRequest
    | CreateItemsRequest
    | AppendItemsRequest
    | RecordResponseRequest
)
"""The requests that may have an id."""

_UNKNOWN_KIND = options.Kind(id_prefix="item")
_KINDS = {
    field.name: options.kind(field) or options.Kind()
    for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields
}


def request_key(method: str, request: Repeatable) -> RequestKey | None:
    """What makes a request safe to repeat, if its caller gave it an id. The request must be as it was sent."""
    if not request.HasField("request_id"):
        return None
    return RequestKey(method, request.request_id, sha256(request.SerializeToString(deterministic=True)).digest())


def new_items(items: Collection[ConversationItem], holder: str, now: float) -> list[NewItem]:
    """Items as they are to be stored in a conversation or response: with ids, and with everything the contract says a
    stored item has.
    """
    return [_new_item(item, holder, now) for item in items]


async def charge(store: Store, items: Sequence[NewItem], context: Context) -> int:
    """Charges a call for the stored items that its new items stand for, before they are read. Returns their bytes.

    Raises `ResourceExhausted`.
    """
    if all(item.origin is Origin.MINTED for item in items):
        return 0
    brought = min(await store.brought(context.project, items), MAX_COPIED_BYTES)
    context.account.reserve_request_bytes(brought)
    return brought


async def charge_answer(store: Store, items: Sequence[NewItem], context: Context, key: RequestKey | None) -> None:
    """Does what `charge` does, and takes room for an answer with the items, or with those of an earlier attempt."""
    size = await charge(store, items, context) + sum(len(item.data) for item in items)
    earlier = await store.measure_appended(context.project, key) if key else 0
    if earlier > size:
        # The ids stood for other items then.
        context.account.reserve_request_bytes(earlier - size)
    reserve_answer(context, max(size, earlier))


def reserve_answer(context: Context, size: int) -> None:
    """Takes room for an answer that is large, before it is written. Raises `ResourceExhausted`."""
    if size > LARGE:
        context.account.reserve_response_bytes(size)


def _new_item(item: ConversationItem, holder: str, now: float) -> NewItem:
    kind = _KINDS.get(item.WhichOneof("kind") or "", _UNKNOWN_KIND)
    if kind.reference:
        return NewItem(item.id, b"", Origin.REFERENCE)
    origin = Origin.SENT if item.HasField("id") else Origin.MINTED
    if origin is Origin.MINTED:
        item.id = ids.item_id(kind.id_prefix, holder, now)
        if item.HasField("source_json"):
            item.source_json = with_id(item.source_json, item.id)
    fill_in(item)
    return NewItem(item.id, item.SerializeToString(), origin)
