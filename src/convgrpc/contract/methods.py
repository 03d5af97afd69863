"""The contract's methods: their names, their messages, and their REST routes as `google.api.http` gives them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from convgrpc.contract import options
from convgrpc.contract.options import Stream, field_options, json_fields

_VERBS = ("get", "post", "put", "patch", "delete")


class Method(NamedTuple):
    """One RPC: its names, its messages, the fields of its request that JSON has, those of them that HTTP headers give
    (by the names of the headers), and its verb and path template over HTTP, which are empty where gRPC alone has it.

    On either side there may be a stream of messages, rather than one; `stream` says how REST tells that of an answer.
    """

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    fields: Mapping[str, FieldDescriptor]
    headers: Mapping[str, str]
    verb: str
    template: str
    takes_stream: bool
    returns_stream: bool
    stream: Stream

    @property
    def path(self) -> str:
        """The method's path over gRPC."""
        return f"/{self.service}/{self.name}"


def methods(services: Iterable[ServiceDescriptor]) -> list[Method]:
    """The methods of services, in the order of the contract."""
    return [_method(method) for service in services for method in service.methods]


def _method(method: MethodDescriptor) -> Method:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = next((verb for verb in _VERBS if rule.HasField(verb)), "")
    return Method(
        service=method.containing_service.full_name,
        name=method.name,
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        fields={field.name: field for field in json_fields(method.input_type)},
        headers={field.name: header for field in method.input_type.fields if (header := field_options(field).header)},
        verb=verb.upper(),
        template=getattr(rule, verb) if verb else "",
        takes_stream=method.client_streaming,
        returns_stream=method.server_streaming,
        stream=options.stream(method),
    )
