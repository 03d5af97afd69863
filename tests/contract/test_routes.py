"""HTTP requests to methods."""

from typing import Any
from urllib.parse import quote

import pytest

from convgrpc.contract.decoder import decode
from convgrpc.contract.methods import Method, methods
from convgrpc.contract.routes import Routes, request_value
from convgrpc.errors import ConvgrpcError, InvalidArgument, NotFound, Unimplemented
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2

METHODS = methods(
    [
        *conversations_service_pb2.DESCRIPTOR.services_by_name.values(),
        *input_tokens_service_pb2.DESCRIPTOR.services_by_name.values(),
        *responses_service_pb2.DESCRIPTOR.services_by_name.values(),
    ]
)
ROUTES = Routes(METHODS)
LIST = "/v1/conversations/conv_1/items"


def value(verb: str, path: str, query: str = "", body: Any = None) -> dict[str, Any]:
    return request_value(ROUTES.match(verb, path), {}, query, {} if body is None else body)


def refusal(verb: str, path: str, query: str = "", body: Any = None) -> ConvgrpcError:
    with pytest.raises(InvalidArgument) as refused:
        value(verb, path, query, body)
    return refused.value


@pytest.mark.parametrize("method", [each for each in METHODS if each.template], ids=lambda method: method.name)
def test_every_method_is_found_by_its_own_route(method: Method) -> None:
    params = {"conversation_id": "conv_1", "item_id": "msg_1", "response_id": "resp_1"}
    match = ROUTES.match(method.verb, method.template.format(**params))
    assert match.method is method
    assert match.params == {name: params[name] for name in params if f"{{{name}}}" in method.template}


def test_methods_know_their_path_over_grpc() -> None:
    assert {method.path for method in METHODS} >= {
        "/convgrpc.v1.ConversationsService/ListItems",
        "/convgrpc.v1.InputTokensService/CountInputTokens",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v2/conversations",
        "/v1/conversations//",
        "/v1/conversations//items",
        f"{LIST}//",
        f"{LIST}/a/b",
    ],
)
def test_an_unknown_url_is_not_found(path: str) -> None:
    with pytest.raises(NotFound) as refused:
        ROUTES.match("POST", path)
    assert refused.value.message == f"Invalid URL (POST {path})"
    report = refused.value.report
    assert (report.http, report.type, report.code, refused.value.param) == (404, "invalid_request_error", None, None)


@pytest.mark.parametrize(
    ("verb", "path", "hint"),
    [
        ("PUT", "/v1/conversations", "POST"),
        ("GET", "/v1/responses/input_tokens", "POST"),
        ("PATCH", "/v1/conversations/conv_1", "GET or POST or DELETE"),
        ("get", "/v1/conversations/conv_1", "GET or POST or DELETE"),
    ],
)
def test_a_known_url_names_the_verbs_it_has(verb: str, path: str, hint: str) -> None:
    with pytest.raises(Unimplemented) as refused:
        ROUTES.match(verb, path)
    assert refused.value.report.http == 405
    assert refused.value.message == f"Not allowed to {verb} on {path}. (HINT: Perhaps you meant to use {hint}?)"


@pytest.mark.parametrize("name", ["a/b", "a?b", "a b", "%", "é", "..", "a+b", "a\nb", "items"])
def test_ids_in_paths_may_be_escaped(name: str) -> None:
    escaped = quote(name, safe="")
    assert ROUTES.match("GET", f"{LIST}/{escaped}").params == {"conversation_id": "conv_1", "item_id": name}


def test_escapes_that_are_not_utf8_still_name_something() -> None:
    assert ROUTES.match("GET", "/v1/conversations/%ff").params == {"conversation_id": "\ufffd"}


def test_path_query_and_body_make_one_request() -> None:
    made = value("POST", LIST, "include[]=reasoning.encrypted_content", {"items": [{"role": "user"}]})
    assert made == {
        "items": [{"role": "user"}],
        "include": ["reasoning.encrypted_content"],
        "conversation_id": "conv_1",
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("limit=10&order=asc&after=msg_1", {"limit": 10, "order": "asc", "after": "msg_1"}),
        ("limit=%2B5", {"limit": 5}),
        ("limit=-1", {"limit": -1}),
        ("limit=ten", {"limit": "ten"}),
        ("limit=1.0", {"limit": "1.0"}),
        ("limit=", {"limit": ""}),
        ("limit= 5", {"limit": " 5"}),
        (f"limit={'9' * 5000}", {"limit": "9" * 5000}),
        ("after=", {"after": ""}),
        ("after=a%20b+c%26", {"after": "a b c&"}),
        ("limit=1&limit=2", {"limit": 2}),
        ("include=a", {"include": ["a"]}),
        ("include=a&include=b", {"include": ["a", "b"]}),
        ("include[]=a&include[]=b", {"include": ["a", "b"]}),
        ("include%5B%5D=a&include%5B1%5D=b", {"include": ["a", "b"]}),
        ("include[0]=a&include[1]=b", {"include": ["a", "b"]}),
    ],
)
def test_queries_give_fields(query: str, expected: dict[str, Any]) -> None:
    """What is not of the field's type stays text, which the decoder refuses by name."""
    assert value("GET", LIST, query) == {**expected, "conversation_id": "conv_1"}


def test_queries_give_the_pairs_of_a_map_one_by_one() -> None:
    query = "metadata[a]=1&metadata%5Bb%20c%5D=&metadata[a]=2&metadata[x[0]]=y"
    assert value("POST", "/v1/conversations", query) == {"metadata": {"a": "2", "b c": "", "x[0]": "y"}}


@pytest.mark.parametrize("given", ["req_1", ""])
def test_headers_give_the_fields_that_are_theirs(given: str) -> None:
    match = ROUTES.match("POST", LIST)
    headers = {"idempotency-key": given, "x-expected-last-item-id": "msg_9", "content-type": "application/json"}
    assert request_value(match, headers, "", {}) == {
        "conversation_id": "conv_1",
        "request_id": given,
        "expected_last_item_id": "msg_9",
    }


@pytest.mark.parametrize("name", ["request_id", "expected_last_item_id"])
def test_what_headers_give_the_body_must_not(name: str) -> None:
    assert refusal("POST", LIST, "", {name: "x", "items": []}).message == f"Unknown parameter: '{name}'."


def test_a_limit_that_is_no_integer_is_named() -> None:
    match = ROUTES.match("GET", LIST)
    with pytest.raises(InvalidArgument) as refused:
        decode(match.method.request, request_value(match, {}, "limit=ten", {}))
    assert refused.value.message == "Invalid type for 'limit': expected an integer, but got a string instead."


@pytest.mark.parametrize(
    ("verb", "path", "query", "param"),
    [
        ("GET", LIST, "bogus=1", "bogus"),
        ("GET", LIST, "=1", ""),
        ("GET", LIST, "limit[]=1", "limit[]"),
        ("GET", LIST, "limit[0]=1", "limit[0]"),
        ("GET", LIST, "include[x]=1", "include[x]"),
        ("GET", LIST, "conversation_id=conv_2", "conversation_id"),
        ("POST", LIST, "items=1", "items"),
        ("POST", "/v1/conversations", "metadata=x", "metadata"),
        ("POST", "/v1/conversations", "metadata[]=x", "metadata[]"),
        ("POST", "/v1/conversations", "request_id=x", "request_id"),
        ("POST", LIST, "items[0]=x", "items[0]"),
    ],
)
def test_queries_give_no_other_fields(verb: str, path: str, query: str, param: str) -> None:
    refused = refusal(verb, path, query)
    assert refused.message == f"Unknown parameter: '{param}'."
    assert (refused.report.code, refused.param) == ("unknown_parameter", param or None)


def test_queries_have_an_end() -> None:
    assert len(value("GET", LIST, "&".join(["include=a"] * 200))["include"]) == 200
    refused = refusal("GET", LIST, "&".join(["include=a"] * 201))
    assert refused.message == "Invalid query string: expected at most 200 parameters."
    assert refused.report.http == 400


@pytest.mark.parametrize(
    ("body", "got"), [([], "an array"), ("x", "a string"), (5, "an integer"), (1.5, "a decimal"), (True, "a boolean")]
)
def test_a_body_is_an_object(body: Any, got: str) -> None:
    refused = refusal("POST", "/v1/conversations", "", body)
    assert (refused.report.code, refused.param) == ("invalid_type", None)
    assert refused.message == f"Invalid body: expected an object, but got {got} instead."


@pytest.mark.parametrize("given", ["conv_1", "conv_2", ""])
def test_what_the_path_gives_the_body_must_not(given: str | None) -> None:
    refused = refusal("POST", LIST, "", {"conversation_id": given, "items": []})
    assert refused.message == "Unknown parameter: 'conversation_id'."
