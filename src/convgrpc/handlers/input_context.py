"""What comes before the input of a model: the items of a conversation or of earlier responses, or nothing."""

from typing import NamedTuple

from convgrpc import errors
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.responses_service_pb2 import RecordResponseRequest


class InputContext(NamedTuple):
    """The id of a conversation or of a response; at most one of them is set."""

    conversation_id: str | None
    response_id: str | None


def input_context(request: CountInputTokensRequest | RecordResponseRequest) -> InputContext:
    """What a request says comes before it. Raises when it says both."""
    conversation = request.conversation
    conversation_id = conversation.conversation_id or conversation.reference.id
    if request.HasField("conversation") and request.HasField("previous_response_id"):
        raise errors.two_predecessors()
    return InputContext(
        conversation_id if request.HasField("conversation") else None,
        request.previous_response_id if request.HasField("previous_response_id") else None,
    )
