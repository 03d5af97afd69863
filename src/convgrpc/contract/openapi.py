"""The OpenAPI 3.1 document of the methods' REST routes: all of it is said in the contract, and read off descriptors."""

import re
from collections.abc import Collection, Iterable
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from convgrpc.contract import options, streams
from convgrpc.contract.comments import comment
from convgrpc.contract.item_policy import HOSTED, ItemPolicy
from convgrpc.contract.json_schema import PLACE, Schema, Schemas, described
from convgrpc.contract.methods import Method
from convgrpc.contract.validator import MAX_ARRAY_LENGTH, MAX_STRING_LENGTH
from convgrpc.errors import REPORTS
from convgrpc.v1.error_reason_pb2 import ErrorReason

_DESCRIPTION = f"""\
Keeps LLM conversations and counts their tokens, with OpenAI's REST API in front of typed gRPC contracts.

In requests, null is the same as absent, unless a key is said to differ. Keys that are not in this document are refused,
unless they are null.
Where no other limit is given, strings have up to {MAX_STRING_LENGTH} characters, arrays and maps up to
{MAX_ARRAY_LENGTH} entries, and values are nested up to {options.MAX_DEPTH} levels deep."""

_ERROR = "Error"
_REQUEST_ID = "RequestId"
_KEY = "ApiKey"
_PARAMETER = re.compile(r"{(\w+)}")
_FIRST_SENTENCE = re.compile(r".*?\.(?=\s|$)", re.DOTALL)


def document(methods: Collection[Method], *, version: str, policy: ItemPolicy = HOSTED) -> dict[str, Any]:
    """Returns the document of those methods that have routes, for a version of the service and the items it accepts."""
    methods = [method for method in methods if method.template]
    answers = [_descriptor(method.response) for method in methods]
    schemas = Schemas(answers, policy, taken=[(_ERROR, _error_schema())])
    paths: dict[str, dict[str, Any]] = {}
    for method in methods:
        paths.setdefault(method.template, {})[method.verb.lower()] = _operation(method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "convgrpc",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": _tags(methods),
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.by_name.items())),
            "responses": {_error_name(status): _error_response(status) for status in _statuses()},
            "headers": {_REQUEST_ID: _request_id()},
            "securitySchemes": {_KEY: _key()},
        },
        # None is needed as long as there are no keys.
        "security": [{}, {_KEY: []}],
    }


def _tags(methods: Iterable[Method]) -> list[Schema]:
    services = dict.fromkeys(method.service for method in methods)
    return [described(service, {"name": _last(service)}) for service in services]


def _descriptor(message: type[Message]) -> Descriptor:
    return cast(Descriptor, message.DESCRIPTOR)


def _last(full_name: str) -> str:
    return full_name.rpartition(".")[2]


# Operations.


def _operation(method: Method, schemas: Schemas) -> dict[str, Any]:
    text = comment(f"{method.service}.{method.name}")
    operation = {
        "operationId": method.name[0].lower() + method.name[1:],
        "summary": _first_sentence(text),
        "description": text,
        "tags": [_last(method.service)],
        "parameters": _parameters(method, schemas),
        "responses": {"200": _answer(method, schemas), **_refusals()},
    }
    return {**operation, "requestBody": _body(method, schemas)} if _has_body(method) else operation


def _first_sentence(text: str) -> str:
    found = _FIRST_SENTENCE.match(text)
    return found[0] if found else text


def _has_body(method: Method) -> bool:
    return method.verb not in ("GET", "DELETE")


def _path_fields(method: Method) -> list[str]:
    return _PARAMETER.findall(method.template)


def _parameters(method: Method, schemas: Schemas) -> list[dict[str, Any]]:
    in_path = [method.fields[name] for name in _path_fields(method)]
    in_query = [field for field in method.fields.values() if _is_in_query(method, field)]
    in_headers = [method.fields[name] for name in method.headers]
    return [
        *(_path_parameter(field, schemas) for field in in_path),
        *(_query_parameter(field, schemas) for field in in_query),
        *(_header_parameter(field, method.headers[field.name], schemas) for field in in_headers),
        *([_resumption(method)] if method.stream.resumes else []),
    ]


def _is_in_query(method: Method, field: FieldDescriptor) -> bool:
    """Whether a field makes sense in a query string: where there is a body, lists of words alone."""
    if field.name in method.headers or field.name in _path_fields(method):
        return False
    if _has_body(method):
        return field.is_repeated and field.enum_type is not None
    return field.message_type is None or options.is_text_map(field)


def _parameter(name: str, place: str, field: FieldDescriptor, schema: Schema) -> dict[str, Any]:
    parameter = {"name": name, "in": place, "required": options.is_required(field), "schema": schema}
    return described(field.full_name, parameter)


def _path_parameter(field: FieldDescriptor, schemas: Schemas) -> dict[str, Any]:
    return _parameter(field.name, "path", field, {**schemas.values(field, sent=True), "minLength": 1})


def _header_parameter(field: FieldDescriptor, header: str, schemas: Schemas) -> dict[str, Any]:
    return _parameter(header, "header", field, schemas.values(field, sent=True))


def _resumption(method: Method) -> dict[str, Any]:
    replaced = method.stream.resumes
    text = f"The id of the last event that was read, as clients send it that connect again, in place of `{replaced}`."
    schema = {"type": "string"}
    return {"name": streams.LAST_EVENT_ID, "in": "header", "required": False, "schema": schema, "description": text}


def _query_parameter(field: FieldDescriptor, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.values(field, sent=True)
    if field.message_type is not None:
        # `name[]` has no key.
        named = _parameter(field.name, "query", field, {**schema, "propertyNames": {"minLength": 1}})
        return {**named, "style": "deepObject", "explode": True}
    parameter = _parameter(field.name, "query", field, schema)
    if field.is_repeated:
        text = f"{comment(field.full_name)} The parameter may also be spelled `{field.name}[]`."
        return {**parameter, "style": "form", "explode": True, "description": text.lstrip()}
    return parameter


def _body(method: Method, schemas: Schemas) -> dict[str, Any]:
    elsewhere = [*_path_fields(method), *method.headers]
    required = any(options.is_required(field) for field in method.fields.values() if field.name not in elsewhere)
    message = _descriptor(method.request)
    body = {"required": required, "content": _json(schemas.ref_to_body(message, elsewhere))}
    return described(message.full_name, body)


def _answer(method: Method, schemas: Schemas) -> dict[str, Any]:
    message = _descriptor(method.response)
    content = _pieces(method, schemas) if method.returns_stream else _json(schemas.ref(message, sent=False))
    return _response(comment(message.full_name), content)


def _pieces(method: Method, schemas: Schemas) -> dict[str, Any]:
    """A stream: the schema of a piece stands where version 3.2 has it, under a name that 3.1 allows."""
    message, lines = _descriptor(method.response), method.stream.lines
    if lines:
        piece = schemas.ref(options.message_of(message.fields_by_name[lines]), sent=False)
    else:
        text = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": schemas.ref(message, sent=False),
        }
        piece = {"type": "object", "properties": {"id": {"type": "string"}, "data": text}, "required": ["data"]}
    return {streams.stream_format(method).media_type: {"schema": {"type": "string"}, "x-itemSchema": piece}}


def _response(text: str, content: dict[str, Any]) -> dict[str, Any]:
    headers = {"x-request-id": {"$ref": f"#/components/headers/{_REQUEST_ID}"}}
    return {"description": text, "headers": headers, "content": content}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _key() -> dict[str, Any]:
    return {"type": "http", "scheme": "bearer", "description": "A key of a project, once there are keys."}


def _request_id() -> dict[str, Any]:
    text = "The id of the request: the one that the caller sent in a header of this name, or a new one."
    return {"description": text, "required": True, "schema": {"type": "string"}}


# Errors.


def _statuses() -> list[int]:
    return sorted({report.http for number, report in REPORTS.items() if number})


def _error_name(status: int) -> str:
    return f"Error{status}"


def _refusals() -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{_error_name(status)}"} for status in _statuses()}


def _error_response(status: int) -> dict[str, Any]:
    """What the answers with a status have in common, with the reasons for it by the codes that they are reported by."""
    reasons = [(name, REPORTS[number].code) for name, number in ErrorReason.items() if REPORTS[number].http == status]
    enum = ErrorReason.DESCRIPTOR.full_name
    lines = [f"- `{code or 'null'}`: {comment(f'{enum}.{name}')}" for name, code in reasons]
    return _response("\n".join(["The request failed. By `code`:\n", *lines]), _json({"$ref": PLACE + _ERROR}))


def _error_schema() -> Schema:
    reports = [report for number, report in REPORTS.items() if number]
    codes = [report.code for report in reports if report.code]
    inner: Schema = {
        "description": "What went wrong.",
        "type": "object",
        "properties": {
            "message": {"description": "What went wrong, in words.", "type": "string"},
            "type": {
                "description": "Whose fault it is.",
                "type": "string",
                "enum": sorted({report.type for report in reports}),
            },
            "param": {"description": "The name of the parameter at fault.", "type": ["string", "null"]},
            "code": {
                "description": "The reason, for programs to act on; the status alone tells where it is null.",
                "type": ["string", "null"],
                "enum": [*dict.fromkeys(codes), None],
            },
        },
        "required": ["message", "type", "param", "code"],
    }
    return {
        "description": "Error says why a request failed.",
        "type": "object",
        "properties": {"error": inner},
        "required": ["error"],
    }
