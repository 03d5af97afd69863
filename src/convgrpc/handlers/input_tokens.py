"""The RPCs of `convgrpc.v1.InputTokensService`. What each of them does is said in the contract."""

from convgrpc.handlers.context import Context
from convgrpc.handlers.input_context import input_context
from convgrpc.handlers.token_counter import TokenCounter
from convgrpc.v1 import input_tokens_service_pb2
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, InputTokenCount

SERVICE = input_tokens_service_pb2.DESCRIPTOR.services_by_name["InputTokensService"]


class InputTokensService:
    """Answers the RPCs from a counter."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter

    async def CountInputTokens(self, request: CountInputTokensRequest, context: Context) -> InputTokenCount:
        before = input_context(request)
        counts = await self._counter.count(request, context, before)
        return InputTokenCount(input_tokens=counts[0].input_tokens, counts=counts)
