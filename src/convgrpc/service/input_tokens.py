"""The RPCs of `convgrpc.v1.InputTokensService`. What each of them does is said in the contract."""

from typing import NoReturn

from convgrpc import errors
from convgrpc.service.chain import Context
from convgrpc.store.protocol import Store
from convgrpc.v1 import input_tokens_service_pb2
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ResponseConversation

SERVICE = input_tokens_service_pb2.DESCRIPTOR.services_by_name["InputTokensService"]


class InputTokensService:
    """Checks what a request follows. Counting itself is not in this version."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def CountInputTokens(self, request: CountInputTokensRequest, context: Context) -> NoReturn:
        if request.HasField("conversation") and request.HasField("previous_response_id"):
            raise errors.two_predecessors()
        if request.HasField("conversation"):
            await self._store.get_conversation(context.project, _conversation_id(request.conversation))
        if request.HasField("previous_response_id"):
            raise errors.previous_response_not_found(request.previous_response_id)
        raise errors.unimplemented("Counting input tokens")


def _conversation_id(conversation: ResponseConversation) -> str:
    return conversation.conversation_id or conversation.reference.id
