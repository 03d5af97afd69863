"""What services ask of a counter of tokens, and what stands in its place where there is none."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from convgrpc import errors
from convgrpc.handlers.context import Context
from convgrpc.handlers.input_context import InputContext
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, ModelTokenCount


class Fitting(NamedTuple):
    """The newest serialized items of a conversation that fit, oldest first, and whether there are older ones."""

    items: list[bytes]
    has_more: bool


class TokenCounter(Protocol):
    """What counts: `convgrpc.handlers.stored_token_counter.Counter`, where its packages are installed."""

    async def count(
        self, request: CountInputTokensRequest, context: Context, before: InputContext
    ) -> Sequence[ModelTokenCount]:
        """Counts a request for each of its models, after what comes before it."""

    async def fit(self, context: Context, conversation_id: str, model: str, tokens: int, *, max_bytes: int) -> Fitting:
        """Finds the newest items of a conversation that fit into a number of tokens, and into `max_bytes`."""


class UnavailableTokenCounter(TokenCounter):
    """In the place of what counts, where something is missing; `why` says what."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def count(
        self, request: CountInputTokensRequest, context: Context, before: InputContext
    ) -> Sequence[ModelTokenCount]:
        raise errors.unimplemented(self._why)

    async def fit(self, context: Context, conversation_id: str, model: str, tokens: int, *, max_bytes: int) -> Fitting:
        raise errors.unimplemented(self._why)
