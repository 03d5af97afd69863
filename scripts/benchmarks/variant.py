"""The service with one thing changed, to see what that one costs: `python -m benchmarks.variant VARIANT serve …`."""

import sys
from functools import partial

from convgrpc.cli.main import main
from convgrpc.handlers.context import Context
from convgrpc.handlers.conversations import ConversationsService
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.conversation_pb2 import Conversation
from convgrpc.v1.conversations_service_pb2 import GetConversationRequest


def at_normal() -> None:
    """Commits do not wait for the disk: a power cut loses the last of them."""
    SqliteStore.open = staticmethod(partial(SqliteStore.open, synchronous="NORMAL"))  # type: ignore[method-assign]


def without_work() -> None:
    """A call passes the whole chain, and its handler does nothing."""

    async def nothing(self: ConversationsService, request: GetConversationRequest, context: Context) -> Conversation:
        return Conversation(id=request.conversation_id)

    ConversationsService.GetConversation = nothing  # type: ignore[method-assign]


VARIANTS = {"normal": at_normal, "no-op": without_work}

if __name__ == "__main__":
    VARIANTS[sys.argv.pop(1)]()
    main()
