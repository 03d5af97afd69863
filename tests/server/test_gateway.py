"""The REST front: shapes, query strings, error envelopes, bodies that are none."""

import gzip
import socket
from dataclasses import replace
from typing import Any

import httpx
import pytest

from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served

TEXT = {"role": "user", "content": "hello"}


@pytest.fixture
def conversation(http: httpx.Client) -> str:
    return f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}"


def error(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, whose envelope must be whole."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert {"message", "type", "param", "code"} == body["error"].keys()
    assert isinstance(body["error"]["message"], str)
    return dict(body["error"])


def test_a_conversation_lives_and_dies(http: httpx.Client) -> None:
    """Create, retrieve, update, delete: the shapes of the API."""
    created = http.post("/v1/conversations", json={"metadata": {"a": "1"}}).json()
    assert {"id", "object", "created_at", "metadata"} == created.keys()
    assert (created["object"], created["metadata"]) == ("conversation", {"a": "1"})
    path = f"/v1/conversations/{created['id']}"
    assert created == http.get(path).json()
    assert {**created, "metadata": {"b": "2"}} == http.post(path, json={"metadata": {"b": "2"}}).json()
    assert {**created, "metadata": {}} == http.post(path, json={"metadata": {}}).json()
    deleted = http.delete(path).json()
    assert {"id": created["id"], "object": "conversation.deleted", "deleted": True} == deleted
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("content", [b"", b"{}", b'{"items":[]}', b'{"items":null,"metadata":null}', b" {} \n"])
def test_a_conversation_needs_no_body(http: httpx.Client, content: bytes) -> None:
    """Absent, empty and null are the same."""
    response = http.post("/v1/conversations", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 200
    assert response.json()["metadata"] == {}


def test_an_empty_list_has_null_ids(http: httpx.Client, conversation: str) -> None:
    """The list of a conversation without items."""
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert empty == http.get(f"{conversation}/items").json()


def test_items_are_created_listed_retrieved_and_deleted(http: httpx.Client, conversation: str) -> None:
    """The created items alone come back, then the page, then one, then the conversation."""
    http.post(f"{conversation}/items", json={"items": [TEXT]})
    created = http.post(f"{conversation}/items", json={"items": [{"role": "assistant", "content": "hi"}]}).json()
    item = created["data"][0]
    expected = {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
    assert ([expected], "assistant", "completed", "message") == (
        item["content"],
        item["role"],
        item["status"],
        item["type"],
    )
    assert (item["id"], item["id"], False) == (created["first_id"], created["last_id"], created["has_more"])
    page = http.get(f"{conversation}/items", params={"limit": 1}).json()
    assert ([item], True) == (page["data"], page["has_more"])
    assert item == http.get(f"{conversation}/items/{item['id']}").json()
    assert http.delete(f"{conversation}/items/{item['id']}").json()["object"] == "conversation"
    assert len(http.get(f"{conversation}/items").json()["data"]) == 1


@pytest.mark.parametrize("name", ["include", "include[]", "include[0]"])
def test_include_may_be_spelled_as_any_sdk_does(http: httpx.Client, conversation: str, name: str) -> None:
    """Bare, with brackets, or with an index; repeated in each form."""
    values = ["reasoning.encrypted_content", "code_interpreter_call.outputs"]
    assert http.get(f"{conversation}/items", params={name: values}).status_code == 200
    refusal = error(http.get(f"{conversation}/items", params={name: [values[0], "bogus.thing"]}))
    assert (refusal["param"], refusal["code"]) == ("include[1]", "invalid_value")
    assert refusal["message"].startswith(
        "Invalid value: 'bogus.thing'. Supported values are: 'file_search_call.results'"
    )


def test_include_goes_with_every_call_that_returns_items(http: httpx.Client, conversation: str) -> None:
    """Creating and retrieving take it too."""
    params = {"include[]": "message.output_text.logprobs"}
    item = http.post(f"{conversation}/items", params=params, json={"items": [TEXT]}).json()["data"][0]
    assert item == http.get(f"{conversation}/items/{item['id']}", params=params).json()


@pytest.mark.parametrize(
    ("query", "status", "param", "code", "message"),
    [
        ("limit=0", 400, "limit", "integer_below_min_value", "Expected a value >= 1, but got 0 instead."),
        ("limit=101", 400, "limit", "integer_above_max_value", "Expected a value <= 100, but got 101 instead."),
        ("limit=ten", 400, "limit", "invalid_type", "expected an integer, but got a string instead."),
        ("limit=", 400, "limit", "invalid_type", "expected an integer, but got a string instead."),
        ("limit=1.5", 400, "limit", "invalid_type", "expected an integer, but got a string instead."),
        ("limit=" + "9" * 25, 400, "limit", "integer_above_max_value", "integer above maximum value."),
        ("limit=" + "9" * 5000, 400, "limit", "invalid_type", "expected an integer, but got a string instead."),
        ("order=newest", 400, "order", "invalid_value", "Supported values are: 'asc' and 'desc'."),
        ("order=ASC", 400, "order", "invalid_value", "Supported values are: 'asc' and 'desc'."),
        ("after=msg_x", 404, "after", None, "No item found with id 'msg_x'"),
        ("limt=5", 400, "limt", "unknown_parameter", "Unknown parameter: 'limt'."),
        ("conversation_id=conv_x", 400, "conversation_id", "unknown_parameter", "Unknown parameter"),
        ("order[]=asc", 400, "order[]", "unknown_parameter", "Unknown parameter"),
        ("&".join(["include=x"] * 300), 400, None, "object_above_max_properties", "at most 200"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_query_strings_are_refused(
    http: httpx.Client, conversation: str, query: str, status: int, param: str, code: str, message: str
) -> None:
    """Each with the parameter, and in the API's words."""
    response = http.get(f"{conversation}/items?{query}")
    refusal = error(response)
    assert (status, param, code) == (response.status_code, refusal["param"], refusal["code"])
    assert message in refusal["message"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'{"items":[}', {}, 400, "invalid_json"),
        (b'{"metadata":{"k":NaN}}', {}, 400, "invalid_json"),
        (b'{"metadata":{"k":"\\ud800"}}', {}, 400, "invalid_json"),
        (b'{"metadata":{"k":"\xff"}}', {}, 400, "invalid_json"),
        (b"[" * 1_000, {}, 400, "invalid_json"),
        (b"[" * 100_000, {}, 400, "nesting_too_deep"),
        (b"[]", {}, 400, "invalid_type"),
        (b"null", {}, 400, "invalid_type"),
        (b'"x"', {}, 400, "invalid_type"),
        (b'{"zzz":1}', {}, 400, "unknown_parameter"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_content_type"),
        (gzip.compress(b"{}", mtime=0), {"content-encoding": "gzip"}, 415, "unsupported_content_type"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_bodies_are_refused(
    http: httpx.Client, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Broken, of another type, or not JSON at all."""
    response = http.post("/v1/conversations", content=content, headers={"content-type": "application/json", **headers})
    assert (status, code) == (response.status_code, error(response)["code"])


def test_a_body_cannot_give_what_the_path_gives(http: httpx.Client, conversation: str) -> None:
    """The conversation's id is not a key of the body."""
    body = {"items": [TEXT], "conversation_id": "conv_other"}
    assert error(http.post(f"{conversation}/items", json=body))["param"] == "conversation_id"


def test_a_body_may_name_its_charset(http: httpx.Client) -> None:
    """`application/json; charset=utf-8` is JSON."""
    headers = {"content-type": "application/json; charset=utf-8"}
    assert http.post("/v1/conversations", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/conversation", 404),
        ("POST", "/v1/conversations/conv_x/messages", 404),
        ("GET", "/v1/conversations//", 404),
        ("GET", "/v1/conversations/", 405),
        ("POST", "/", 405),
        ("PUT", "/v1/conversations", 405),
        ("GET", "/v1/conversations", 405),
        ("PATCH", "/v1/conversations/conv_x", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_unknown_urls_and_methods_have_an_envelope_too(http: httpx.Client, method: str, path: str, status: int) -> None:
    """404 for a URL that is none, 405 for one that has other methods."""
    response = http.request(method, path)
    refusal = error(response)
    assert (status, "invalid_request_error", None, None) == (
        response.status_code,
        refusal["type"],
        refusal["param"],
        refusal["code"],
    )
    if status == 404:
        assert f"Invalid URL ({method} {path})" == refusal["message"]


def test_ids_in_paths_are_unescaped_once(http: httpx.Client) -> None:
    """An escaped slash is part of an id, not of the path."""
    message = error(http.get("/v1/conversations/conv_a%2Fitems%252F"))["message"]
    assert message == "Conversation with id 'conv_a/items%2F' not found."


def test_a_body_over_the_limit_is_refused(settings: Settings) -> None:
    """Whether its length is told beforehand or not."""
    with served(replace(settings, max_message_bytes=10_000)) as server:
        base = f"http://{server.http}"

        def chunks() -> Any:
            for _ in range(20):
                yield b" " * 1_000

        for content in (b" " * 20_000, chunks()):
            response = httpx.post(
                f"{base}/v1/conversations", content=content, headers={"content-type": "application/json"}
            )
            assert (response.status_code, error(response)["code"]) == (413, "request_too_large")
        metadata = {str(number): "x" * 500 for number in range(15)}
        assert httpx.post(f"{base}/v1/conversations", json={"metadata": metadata}).status_code == 200


def test_a_body_that_never_ends_is_given_up(settings: Settings) -> None:
    """A client that stops in the middle does not hold the server for ever."""
    with served(replace(settings, transfer_timeout=0.2)) as server, socket.create_connection(server.http) as client:
        client.sendall(b"POST /v1/conversations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
        client.settimeout(30)
        assert client.recv(100).startswith(b"HTTP/1.1 504")


def test_a_client_that_goes_away_harms_nobody(server: Running, http: httpx.Client) -> None:
    """A request that ends in its middle is forgotten."""
    with socket.create_connection(server.http) as client:
        client.sendall(b"POST /v1/conversations HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
    assert http.post("/v1/conversations", json={}).status_code == 200


def pipelined(server: Running, number: int) -> list[bytes]:
    """What is answered to as many requests in one piece, the last of which closes the connection."""
    lines = b"GET /v1/conversations/conv_%d HTTP/1.1\r\nhost: localhost\r\n"
    asks = b"\r\n".join(lines % each for each in range(number))
    with socket.create_connection(server.http) as client:
        client.settimeout(30)
        client.sendall(asks + b"connection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).split(b"HTTP/1.1 ")[1:]


@pytest.mark.parametrize(("sent", "answered"), [(20, 20), (33, 33), (200, 33)])
def test_requests_need_not_wait_for_answers(server: Running, sent: int, answered: int) -> None:
    """Each is answered in its turn. Past some dozens the connection closes, by word of the last that is answered."""
    answers = pipelined(server, sent)
    assert len(answers) == answered
    assert all(b"'conv_%d'" % number in answer for number, answer in enumerate(answers))
    assert [b"connection: close" in answer for answer in answers] == [False] * (answered - 1) + [True]


def test_every_answer_has_a_request_id(http: httpx.Client) -> None:
    """The caller's own, or one the server made; errors too."""
    assert http.get("/healthz").headers["x-request-id"].startswith("req_")
    response = http.get("/v1/conversations/conv_x", headers={"x-request-id": "mine-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (404, "mine-1")


def test_healthz_says_ok(http: httpx.Client) -> None:
    """While the server serves."""
    assert ((response := http.get("/healthz")).status_code, response.json()) == (200, {"status": "ok"})


def test_a_fault_in_the_server_is_told_without_its_details(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller learns the request id, the log the cause."""

    def broken(*_: object) -> None:
        raise ValueError("secret")

    monkeypatch.setattr("convgrpc.ids.conversation_id", broken)
    response = http.post("/v1/conversations", json={}, headers={"x-request-id": "mine-2"})
    assert (response.status_code, error(response)["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "mine-2" in caplog.text
    assert "secret" in caplog.text


def test_a_refused_request_stores_nothing(http: httpx.Client, conversation: str) -> None:
    """Twenty items and one more: none of them is there."""
    refusal = error(http.post(f"{conversation}/items", json={"items": [TEXT] * 21}))
    assert (refusal["param"], refusal["code"]) == ("items", "array_above_max_length")
    assert http.get(f"{conversation}/items").json()["data"] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": ""}, 403),
        ({"host": "proxied.example"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
        ({"host": "localhost:9", "origin": "http://localhost:9"}, 200),
    ],
    ids=str,
)
def test_a_web_page_cannot_reach_a_server_on_this_machine(
    settings: Settings, headers: dict[str, str], status: int
) -> None:
    """Neither by its origin, nor by a name of its own that means this machine."""
    with served(replace(settings, allowed_hosts="proxied.example")) as server:
        response = httpx.post(f"http://{server.http}/v1/conversations", json={}, headers=headers)
        assert response.status_code == status
        if status == 403:
            assert error(response)["code"] == "forbidden_site"


def test_a_browser_learns_of_no_permission(http: httpx.Client) -> None:
    """A preflight request is answered without the headers that would let a page go on."""
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = http.options("/v1/conversations", headers=headers)
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_sdks_are_told_what_not_to_repeat(settings: Settings) -> None:
    """They repeat whatever gives 5xx: also a write that may have happened, unless they are told."""
    with served(replace(settings, request_timeout=0.0)) as server:
        url = f"http://{server.http}/v1/conversations"
        late = httpx.post(url, json={})
        keyed = httpx.post(url, json={}, headers={"idempotency-key": "k"})
    assert [late.status_code, keyed.status_code] == [504, 504]
    assert [response.headers.get("x-should-retry") for response in (late, keyed)] == ["false", None]


@pytest.mark.parametrize("host", ["", "evil.example", "localhost:80x", "localhost:80:80", "[::1", "a b", "[localhost]"])
def test_a_host_that_is_none_of_the_servers_is_refused(http: httpx.Client, host: str) -> None:
    """Also one that is no host at all, with the settings that a server has by itself."""
    for headers in ({"host": host}, {"host": host, "origin": f"http://{host}"}):
        assert http.get("/v1/conversations/conv_x", headers=headers).status_code == 403


def test_a_key_that_stands_twice_among_very_many_is_found(http: httpx.Client) -> None:
    """The time that this takes grows with the keys, not with their square."""
    pairs = [f'"{number}":""' for number in range(100_000)]
    body = '{"metadata":{' + ",".join([*pairs, pairs[-1]]) + "}}"
    response = http.post("/v1/conversations", content=body, headers={"content-type": "application/json"})
    assert error(response)["message"] == "Invalid body: the key '99999' stands twice in one object."


def test_a_query_string_does_not_change_what_the_body_says(http: httpx.Client) -> None:
    """A field is given once."""
    refusal = error(http.post("/v1/conversations?metadata[a]=query", json={"metadata": {"a": "body"}}))
    assert (refusal["param"], refusal["code"]) == ("metadata", "unknown_parameter")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/v1/conversations/conv_1", "localhost", 404),
        ("http://127.0.0.1:9/v1/conversations/conv_1", "evil.example", 404),
        ("HTTP://LOCALHOST/v1/conversations/conv_1?a", "", 400),
        ("https://[::1]:80/v1/conversations/conv_1", "localhost", 404),
        ("http://user:word@localhost/v1/conversations/conv_1", "localhost", 404),
        ("http://localhost", "localhost", 200),
        ("http://localhost?a=b", "localhost", 200),
        ("http://evil.example/v1/conversations/conv_1", "localhost", 403),
        ("HTTPS://EVIL.example:80/v1/conversations/conv_1", "localhost", 403),
        ("http://localhost@evil.example/v1/conversations/conv_1", "localhost", 403),
        ("http://evil.example", "localhost", 403),
        ("http:///v1/conversations/conv_1", "localhost", 403),
        ("http://localhost.evil.example?/localhost", "localhost", 403),
        ("http://a@b@evil.example/v1/conversations/conv_1", "localhost", 403),
        ("http://localhost:80x/v1/conversations/conv_1", "localhost", 403),
        ("http://[::1", "localhost", 403),
        ("ftp://evil.example/v1/conversations/conv_1", "localhost", 403),
        ("http://evil.example\\@localhost/v1/conversations/conv_1", "localhost", 400),
        ("h2+http://localhost/v1/conversations/conv_1", "localhost", 400),
        ("evil.example:443", "localhost", 400),
        ("//evil.example/v1/conversations/conv_1", "localhost", 404),
    ],
)
def test_authority_of_an_absolute_target_is_checked_like_a_host(
    server: Running, target: str, host: str, status: int
) -> None:
    """It overrides the Host header (RFC 9112, section 3.2.2)."""
    with socket.create_connection(server.http, timeout=30) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        assert int(client.recv(65536).split()[1]) == status


def test_authority_of_a_target_counts_for_its_own_request_only(server: Running) -> None:
    """The next request of the connection is checked by its own target and Host."""
    asks = [
        b"GET http://localhost/v1/conversations/conv_1 HTTP/1.1\r\nhost: evil.example\r\n\r\n",
        b"GET http://evil.example/v1/conversations/conv_1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/conversations/conv_1 HTTP/1.1\r\nhost: evil.example\r\n\r\n",
        b"GET /v1/conversations/conv_1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ]
    with socket.create_connection(server.http, timeout=30) as client:
        client.sendall(b"".join(asks))
        answers = b"".join(iter(lambda: client.recv(65536), b"")).split(b"HTTP/1.1 ")[1:]
    assert [int(answer.split()[0]) for answer in answers] == [404, 403, 403, 404]


@pytest.mark.parametrize("authority", ["evil.example:443", "localhost:443"])
def test_connect_is_refused(server: Running, authority: str) -> None:
    """The server is no proxy, not even to itself."""
    with socket.create_connection(server.http, timeout=30) as client:
        client.sendall(f"CONNECT {authority} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert int(client.recv(65536).split()[1]) == 400
