"""The RPCs of `convgrpc.v1.InputTokensService`. What each of them does is said in the contract."""

import asyncio

from convgrpc.service.chain import Context
from convgrpc.service.counts import Counts
from convgrpc.service.predecessors import predecessor
from convgrpc.store.protocol import Store
from convgrpc.v1 import input_tokens_service_pb2
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, InputTokenCount

SERVICE = input_tokens_service_pb2.DESCRIPTOR.services_by_name["InputTokensService"]

_MAX_REFERENCED_BYTES = 32 << 20
_REFERENCES_AT_ONCE = 100


class InputTokensService:
    """Answers the RPCs from a store and a counter."""

    def __init__(self, store: Store, counter: Counts) -> None:
        self._store = store
        self._counter = counter

    async def CountInputTokens(self, request: CountInputTokensRequest, context: Context) -> InputTokenCount:
        before = predecessor(request)
        await self._dereference(request, context.project)
        counts = await self._counter.count(request, context.project, before, context.deadline)
        return InputTokenCount(input_tokens=counts[0].input_tokens, counts=counts)

    async def _dereference(self, request: CountInputTokensRequest, project: str) -> None:
        """Puts what references refer to in their places."""
        left = _MAX_REFERENCED_BYTES
        references = [item for item in request.input.items.items if item.HasField("item_reference")]
        for start in range(0, len(references), _REFERENCES_AT_ONCE):
            some = references[start : start + _REFERENCES_AT_ONCE]
            found = await self._store.get_referenced(project, [item.id for item in some], max_bytes=left)
            for item, data in zip(some, found, strict=True):
                item.ParseFromString(data)
                left -= len(data)
            await asyncio.sleep(0)
