"""HTTP requests to methods: which RPC a verb and a path mean, and the JSON value of its request message."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from google.protobuf.descriptor import FieldDescriptor

from convgrpc.contract import faults, options, streams
from convgrpc.contract.faults import ROOT
from convgrpc.contract.methods import Method
from convgrpc.errors import Unimplemented, failure
from convgrpc.v1.error_reason_pb2 import ErrorReason

_MAX_QUERY_FIELDS = 200
_BRACKETS = re.compile(r"([^\[\]]+)\[(.*)\]", re.DOTALL)
_INTEGER = re.compile(r"[+-]?\d{1,30}")
_BOOLEANS = {"true": True, "false": False}
_VERSION_KEYS = {"beta", "api-version"}
"""Query keys by which SDKs select a version of the hosted API. They have no effect here."""

_NOT_SERVED = re.compile(
    r"/v1/(assistants|audio|batches|chat|completions|containers|embeddings|evals|files|fine_tuning|images|models"
    r"|moderations|realtime|responses|threads|uploads|vector_stores|videos)(/.*)?"
)
"""Paths of the hosted API that this server does not serve."""


class Match(NamedTuple):
    """The method that a request means, and the fields of its request message that the path gives."""

    method: Method
    params: Mapping[str, str]


class _Route(NamedTuple):
    pattern: re.Pattern[str]
    by_verb: dict[str, Method]


class Routes:
    """Finds the method that an HTTP request means."""

    def __init__(self, methods: Iterable[Method]) -> None:
        by_template: dict[str, dict[str, Method]] = {}
        for method in (method for method in methods if method.template):
            by_template.setdefault(method.template, {})[method.verb] = method
        self._routes = [_Route(_pattern(template), by_verb) for template, by_verb in by_template.items()]

    def match(self, verb: str, path: str) -> Match:
        """The method for a verb and a path in which escapes are still in place; a slash at its end does not matter.

        Raises NotFound for an unknown path, and MethodNotAllowed for a path without that verb.
        """
        without_slash = path.removesuffix("/")
        for route in self._routes:
            found = route.pattern.fullmatch(without_slash)
            if found:
                method = route.by_verb.get(verb)
                if method is None:
                    raise MethodNotAllowed(verb, path, route.by_verb)
                return Match(method, {name: unquote(value) for name, value in found.groupdict().items()})
        raise failure(ErrorReason.ERROR_REASON_URL_NOT_FOUND, f"Invalid URL ({verb} {path}){_hint(path)}")


def _hint(path: str) -> str:
    if not _NOT_SERVED.fullmatch(path):
        return ""
    return (
        ". This server stores conversations and counts input tokens; it runs no model. GET /openapi.json lists the"
        " routes that it serves."
    )


class MethodNotAllowed(Unimplemented):
    """A path without the verb that was asked for; `allowed` are those it has."""

    def __init__(self, verb: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = list(allowed)
        hint = f"Perhaps you meant to use {' or '.join(self.allowed)}?"
        super().__init__(
            ErrorReason.ERROR_REASON_METHOD_NOT_ALLOWED, f"Not allowed to {verb} on {path}. (HINT: {hint})"
        )


def request_value(match: Match, headers: Mapping[str, str], query: str, body: Any) -> dict[str, Any]:
    """The JSON value of the request message that path, headers, query string and parsed body make together.

    Raises InvalidArgument for a body that is no object, and for keys that are none of the message's fields or are not
    the body's or the query string's to give.
    """
    if type(body) is not dict:
        raise faults.invalid_type(ROOT, "an object", body)
    given = {**match.params, **_header_value(match.method, headers)}
    for name, value in body.items():
        if (name in match.params or name in match.method.headers) and value is not None:
            raise faults.unknown_field(ROOT.key(name))
    asked = _query_value(match, query)
    for name in asked:
        if body.get(name) is not None:
            raise faults.unknown_field(ROOT.key(name))
    return {**body, **asked, **streams.resumption(match.method, headers), **given}


def _header_value(method: Method, headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[header] for name, header in method.headers.items() if header in headers}


def _query_value(match: Match, query: str) -> dict[str, Any]:
    """The fields that a query string gives.

    A repeated field may be spelled `name`, `name[]` or `name[0]`; a pair of a map is `name[key]=value`.
    """
    value: dict[str, Any] = {}
    for spelled, text in _query_pairs(query):
        name, key = _spelling(spelled)
        if spelled in _VERSION_KEYS:
            continue
        field = match.method.fields.get(name)
        if field is None or name in match.params or name in match.method.headers:
            raise faults.unknown_field(ROOT.key(spelled))
        if options.is_text_map(field) and key:
            value.setdefault(name, {})[key] = text
        elif field.message_type is None and field.is_repeated and (not key or key.isdecimal()):
            value.setdefault(name, []).append(_typed(field, text))
        elif field.message_type is None and not field.is_repeated and key is None:
            value[name] = _typed(field, text)
        else:
            raise faults.unknown_field(ROOT.key(spelled))
    return value


def _spelling(name: str) -> tuple[str, str | None]:
    """A parameter's name, and what stands in brackets behind it, if anything does."""
    found = _BRACKETS.fullmatch(name)
    return (found[1], found[2]) if found else (name, None)


def _query_pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        message = f"Invalid query string: expected at most {_MAX_QUERY_FIELDS} parameters."
        raise failure(ErrorReason.ERROR_REASON_OBJECT_ABOVE_MAX_PROPERTIES, message) from None


def _typed(field: FieldDescriptor, text: str) -> Any:
    """The JSON value that a text stands for; the text itself where it is not of the field's type."""
    if field.type == FieldDescriptor.TYPE_INT64 and _INTEGER.fullmatch(text):
        return int(text)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _BOOLEANS.get(text, text)
    return text


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template)))
