"""The RPCs of `convgrpc.v1.ResponsesService`. What each of them does is said in the contract."""

import time
from collections.abc import Callable

from convgrpc import ids
from convgrpc.handlers.context import Context
from convgrpc.handlers.input_context import input_context
from convgrpc.handlers.message_work import LARGE_REQUEST, MessageWork
from convgrpc.handlers.new_items import charge, new_items, request_key, reserve_answer
from convgrpc.storage.interface import NewResponse, RequestKey, Store
from convgrpc.v1 import responses_service_pb2
from convgrpc.v1.conversation_pb2 import ConversationReference
from convgrpc.v1.responses_service_pb2 import (
    DeletedResponse,
    DeleteResponseRequest,
    GetResponseRequest,
    RecordResponseRequest,
    Response,
)

SERVICE = responses_service_pb2.DESCRIPTOR.services_by_name["ResponsesService"]


class ResponsesService:
    """Answers the RPCs from a store."""

    def __init__(self, store: Store, work: MessageWork, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._work = work
        self._clock = clock

    async def RecordResponse(self, request: RecordResponseRequest, context: Context) -> Response:
        def prepare() -> tuple[RequestKey | None, NewResponse]:
            return request_key("RecordResponse", request), _new_response(request, self._clock())

        key, new = await self._work.do(context.project, context.size, prepare, large=LARGE_REQUEST)
        await charge(self._store, [*new.input, *new.output], context)
        stored = await self._store.record_response(context.project, new, context.deadline, request=key)
        return Response.FromString(stored)

    async def GetResponse(self, request: GetResponseRequest, context: Context) -> Response:
        data = await self._store.get_response(context.project, request.response_id)
        reserve_answer(context, len(data))
        return Response.FromString(data)

    async def DeleteResponse(self, request: DeleteResponseRequest, context: Context) -> DeletedResponse:
        await self._store.delete_response(context.project, request.response_id, context.deadline)
        return DeletedResponse(id=request.response_id, deleted=True)


def _new_response(request: RecordResponseRequest, now: float) -> NewResponse:
    """A response as it is to be stored, and its items."""
    conversation_id, previous = input_context(request)
    made = ids.response_id()
    # An id that was sent may not have the digits by which those of items lead to one place.
    holder = made if conversation_id is None else conversation_id
    read, written = new_items(request.input, holder, now), new_items(request.output, holder, now)
    response = Response(
        id=request.response_id if request.HasField("response_id") else made,
        created_at=int(now),
        model=request.model if request.HasField("model") else None,
        previous_response_id=previous,
        conversation=None if conversation_id is None else ConversationReference(id=conversation_id),
        input_item_ids=[item.id for item in read],
        output_item_ids=[item.id for item in written],
        metadata=request.metadata,
    )
    return NewResponse(response.id, response.SerializeToString(), previous, conversation_id, read, written)
