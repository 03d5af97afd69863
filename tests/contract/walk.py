"""The descriptors of the contract, as lists."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor

from convgrpc.contract import options
from convgrpc.v1 import (
    content_pb2,
    conversation_pb2,
    conversations_service_pb2,
    error_reason_pb2,
    input_tokens_service_pb2,
    item_pb2,
    responses_service_pb2,
    tool_pb2,
)

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        content_pb2,
        conversation_pb2,
        conversations_service_pb2,
        error_reason_pb2,
        input_tokens_service_pb2,
        item_pb2,
        responses_service_pb2,
        tool_pb2,
    )
]

MESSAGES: list[Descriptor] = [message for file in FILES for message in file.message_types_by_name.values()]

METHODS: list[MethodDescriptor] = [
    method for file in FILES for service in file.services_by_name.values() for method in service.methods
]


def reachable(*messages: Descriptor) -> list[Descriptor]:
    """The messages, and those they can hold in JSON, but for the entries of maps."""
    found: dict[str, Descriptor] = {}
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            waiting += _held(message)
    return list(found.values())


def _held(message: Descriptor) -> Iterator[Descriptor]:
    for field in message.fields:
        if options.field_options(field).rpc_only:
            continue
        held = options.map_value(field).message_type if options.is_map(field) else field.message_type
        if held is not None:
            yield held
