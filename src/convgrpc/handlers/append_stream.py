"""One stream of `AppendItems`: requests that are stored as soon as those before them are."""

from collections.abc import Callable
from itertools import chain

from convgrpc.handlers.batches import BatchHandler, BatchResult
from convgrpc.handlers.new_items import new_items, request_key
from convgrpc.storage.interface import Append, Store
from convgrpc.v1.conversations_service_pb2 import AppendItemsRequest, AppendItemsResponse


class Appending(BatchHandler):
    """Appends to the conversations of a project, and acknowledges what is durable."""

    def __init__(self, store: Store, project: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._project = project
        self._clock = clock
        self._taken: list[Append] = []
        self._done = 0

    def prepare(self, request: AppendItemsRequest) -> Append:
        # Before the items get their ids: the key is that of what was sent.
        key = request_key("AppendItems", request)
        items = new_items(request.items, request.conversation_id, self._clock())
        expected = request.expected_last_item_id if request.HasField("expected_last_item_id") else None
        return Append(request.conversation_id, items, key, expected)

    def accept(self, append: Append) -> None:
        self._taken.append(append)

    async def run_batch(self, deadline: float) -> BatchResult:
        taken, self._taken = self._taken, []
        item_ids, refusal = await self._store.append_batch(self._project, taken, deadline)
        self._done += len(item_ids)
        left = [] if refusal else taken[len(item_ids) :]
        self._taken = left + self._taken
        if refusal:
            refusal.request_number = self._done + 1
        reply = AppendItemsResponse(requests=self._done, item_ids=chain.from_iterable(item_ids))
        return BatchResult(reply if item_ids else None, refusal, len(left))
