"""Requests of one stream, which are done in batches."""

from typing import Any, NamedTuple, Protocol

from google.protobuf.message import Message

from convgrpc.errors import ConvgrpcError


class BatchResult(NamedTuple):
    """What came of a batch: the answer to those of its requests that were done, if any was, why the one after them
    was refused, None where none was, and how many are left for the next batch.
    """

    reply: Message | None
    refusal: ConvgrpcError | None
    left: int


class BatchHandler(Protocol):
    """Does the requests of one stream."""

    def prepare(self, request: Any) -> Any:
        """Makes of a valid request what `accept` takes. A thread may call it."""

    def accept(self, prepared: Any) -> None:
        """Takes a request up."""

    async def run_batch(self, deadline: float) -> BatchResult:
        """Does the requests that were taken up since, in their order, up to the first that is refused.

        `deadline` is when they must be done (`time.monotonic()`).
        """
