"""What requests bring to be stored: items, and the key that makes them safe to repeat."""

from collections.abc import Collection
from hashlib import sha256
from typing import TypeAlias

from convgrpc import ids
from convgrpc.contract import options
from convgrpc.contract.defaults import fill_in
from convgrpc.contract.json_text import with_id
from convgrpc.store.protocol import NewItem, Origin, RequestKey
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
    noises = ids.noises(len(items))
    return [_new_item(item, holder, now, noise) for item, noise in zip(items, noises, strict=True)]


def _new_item(item: ConversationItem, holder: str, now: float, noise: str) -> NewItem:
    kind = _KINDS.get(item.WhichOneof("kind") or "", _UNKNOWN_KIND)
    if kind.reference:
        return NewItem(item.id, b"", Origin.REFERENCE)
    origin = Origin.SENT if item.HasField("id") else Origin.MINTED
    if origin is Origin.MINTED:
        item.id = ids.item_id(kind.id_prefix, holder, now, noise)
        if item.HasField("source_json"):
            item.source_json = with_id(item.source_json, item.id)
    fill_in(item)
    return NewItem(item.id, item.SerializeToString(), origin)
