"""The REST front, an ASGI application: routes, bodies and query strings to calls, and answers to JSON.

It calls the pipeline directly, in the process and on the event loop of the gRPC server.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Container, Mapping
from functools import partial
from importlib.metadata import version
from math import ceil
from typing import Any, TypeAlias

import orjson
from google.protobuf.message import Message

from convgrpc import errors
from convgrpc.contract import decoder, json_text, openapi, stored
from convgrpc.contract.faults import Path
from convgrpc.contract.item_policy import ItemPolicy
from convgrpc.contract.methods import Method
from convgrpc.contract.routes import Match, MethodNotAllowed, Routes, request_value
from convgrpc.contract.streams import stream_format
from convgrpc.errors import ConvgrpcError
from convgrpc.handlers.reply import Reply
from convgrpc.server.admission import Admission, Admitted
from convgrpc.server.call_log import CallRecord
from convgrpc.server.deadlines import DeadlineScheduler
from convgrpc.server.failures import Failures
from convgrpc.server.health import LIVES, Health
from convgrpc.server.http.streaming import Disconnected, Receive, Send, StreamedAnswer
from convgrpc.server.metrics import Metrics
from convgrpc.server.pipeline import Call, Pipeline, request_id
from convgrpc.v1.error_reason_pb2 import ErrorReason

Scope: TypeAlias = Mapping[str, Any]
Header: TypeAlias = tuple[bytes, bytes]
Answer: TypeAlias = tuple[int, bytes]

_HEALTH, _LIFE = "/healthz", "/livez"
_BEFORE_THE_BODY = (401, 413, 429)
"""The statuses that are told before the whole body is there."""
_GONE = 499
"""The status that is noted, by custom, of a request whose client did not wait for the answer."""
_DO_NOT_RETRY = (b"x-should-retry", b"false")
_ABOUT = orjson.dumps(
    {
        "name": "convgrpc",
        "version": version("convgrpc"),
        "description": "Stores LLM conversations and counts input tokens. Runs no model.",
        "openapi": "/openapi.json",
    }
)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::\d*)?")


class Gateway:
    """Answers HTTP requests by the methods that their routes mean."""

    def __init__(
        self,
        admission: Admission,
        health: Health,
        pipeline: Pipeline,
        metrics: Metrics,
        methods: Collection[Method],
        *,
        max_body_bytes: int,
        body_timeout: float,
        hosts: Container[str] | None,
        policy: ItemPolicy,
    ) -> None:
        self._admission = admission
        self._health = health
        self._pipeline = pipeline
        self._metrics = metrics
        self._routes = Routes(methods)
        self._formats = {method.path: stream_format(method) for method in methods if method.returns_stream}
        document = openapi.document(methods, version=version("convgrpc"), policy=policy)
        self._documents = {"/": _ABOUT, "/openapi.json": orjson.dumps(document)}
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._clock = DeadlineScheduler()
        self._hosts = hosts
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        identity = request_id(headers.get("x-request-id"))
        with CallRecord(self._metrics, identity) as record:
            record.status = _GONE
            try:
                with Failures(record):
                    answer, extra = await self._answer(scope, headers, receive, send, record), []
                if answer is None:
                    return
                status, body = answer
            except Disconnected:
                return
            except ConvgrpcError as error:
                record.refused(error)
                status, body = _refusal(error)
                extra = _advice(error, scope["method"], headers)
                if status in _BEFORE_THE_BODY and _has_body(headers):
                    # The body, or the rest of it, is on its way still, and not worth reading.
                    extra.append((b"connection", b"close"))
            record.status = status
        await _respond(send, status, body, identity, extra)

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send, record: CallRecord
    ) -> Answer | None:
        """Returns the answer to a request, or None if that was sent already."""
        try:
            return await self._answered(scope, headers, receive, send, record)
        except asyncio.CancelledError:
            # The server stops and cannot wait any longer; what was begun may yet be done.
            raise errors.deadline_exceeded() from None

    async def _answered(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send, record: CallRecord
    ) -> Answer | None:
        verb, path = scope["method"], scope["raw_path"].decode("latin-1")
        if path in (_HEALTH, _LIFE):
            _check_is_read(verb, path)
            return self._health.answer() if path == _HEALTH else LIVES
        self._check_site(headers)
        document = self._documents.get(path.rstrip("/") or "/")
        if document is not None:
            _check_is_read(verb, path)
            return 200, document
        match = self._routes.match(verb, path)
        record.method = match.method
        with await self._admission.enter(_authorization(scope)) as admitted:
            record.project = admitted.project
            body = await self._body(headers, receive, admitted)
            admitted.acquire_slot()
            query = scope["query_string"].decode("latin-1")
            decode = partial(_decode, match, headers, query, body, self._policy)
            call = Call(match.method, admitted, decode, stored.dump, len(body), None)
            if match.method.returns_stream:
                form = self._formats[match.method.path]
                answer = StreamedAnswer(receive, send, scope["state"]["cut"], form, record)
                await self._stream(call._replace(encode=partial(_once, form.piece)), answer, record)
                return None
            return 200, await self._pipeline.run(call)

    async def _stream(self, call: Call, answer: StreamedAnswer, record: CallRecord) -> None:
        """Sends an answer in pieces. Raises what it can before the first of them."""
        try:
            with Failures(record):
                await self._pipeline.stream(call, answer, record)
                await answer.end()
            record.status = 200
        except ConvgrpcError as error:
            if not answer.has_begun:
                raise
            record.refused(error)
            record.status = error.report.http
            await answer.fail(envelope(error))
        except asyncio.CancelledError:
            if not answer.has_begun:
                raise
            # The server stops, and the client does not read.
            await answer.break_off()

    def _check_site(self, headers: Mapping[str, str]) -> None:
        """Refuses what a web page can send from the browser of a user who can reach this server.

        A page tells its origin; one whose host name was made to mean this machine tells that name.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _host_name(host)
        if self._hosts is not None and (name is None or name not in self._hosts):
            raise _forbidden(f"the host '{host}' is not one of this server's")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _forbidden("the request comes from another site")
        if origin is not None and origin.partition("://")[2] != host:
            raise _forbidden(f"the origin '{origin}' is another site")

    async def _body(self, headers: Mapping[str, str], receive: Receive, admitted: Admitted) -> bytes:
        if not _has_body(headers):
            return b""
        if int(headers.get("content-length", 0)) > self._max_body_bytes:
            raise self._too_large()
        try:
            with self._clock.within(self._body_timeout):
                body = await self._received(receive, admitted)
        except TimeoutError:
            raise errors.deadline_exceeded() from None
        except asyncio.CancelledError:
            # The server stops, and cannot wait any longer for the rest.
            raise errors.shutting_down() from None
        if body:
            _check_is_json(headers)
        return body

    async def _received(self, receive: Receive, admitted: Admitted) -> bytes:
        body = bytearray()
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise Disconnected
            part = event.get("body", b"")
            more = event.get("more_body", False)
            if len(body) + len(part) > self._max_body_bytes:
                raise self._too_large()
            admitted.reserve_request_bytes(len(part))
            body += part
        return bytes(body)

    def _too_large(self) -> ConvgrpcError:
        message = f"Request too large. Expected a body of at most {self._max_body_bytes} bytes."
        return errors.failure(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, message)


def _check_is_read(verb: str, path: str) -> None:
    if verb not in ("GET", "HEAD"):
        raise MethodNotAllowed(verb, path, ["GET", "HEAD"])


def _refusal(error: ConvgrpcError) -> Answer:
    return error.report.http, envelope(error)


def envelope(error: ConvgrpcError) -> bytes:
    """The body of an error's REST answer."""
    report = error.report
    return orjson.dumps(
        {"error": {"message": error.message, "type": report.type, "param": error.param, "code": report.code}}
    )


def _host_name(host: str) -> str | None:
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else None


def _forbidden(why: str) -> ConvgrpcError:
    message = f"This server does not answer web pages: {why}."
    return errors.failure(ErrorReason.ERROR_REASON_FORBIDDEN_SITE, message)


def _decode(match: Match, headers: Mapping[str, str], query: str, body: bytes, policy: ItemPolicy) -> Message:
    value = request_value(match, headers, query, json_text.parse(body) if body else {})
    return decoder.decode(match.method.request, value, Path.root(policy))


def _once(make: Callable[[bytes], bytes], reply: Reply) -> bytes:
    return reply.cached_encoding(make)


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _authorization(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]


def _check_is_json(headers: Mapping[str, str]) -> None:
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if content_type != "application/json" or encoding != "identity":
        got = f"'{content_type}'" if encoding == "identity" else f"content encoding '{encoding}'"
        message = f"Unsupported content type: expected 'application/json', not compressed, but got {got}."
        raise errors.failure(ErrorReason.ERROR_REASON_UNSUPPORTED_CONTENT_TYPE, message)


def _advice(error: ConvgrpcError, verb: str, headers: Mapping[str, str]) -> list[Header]:
    """The headers that tell what a client may do after an error.

    SDKs repeat whatever gives 5xx. What is not implemented stays so, and a write whose deadline passed may have
    happened: without its key it would happen twice.
    """
    advice = []
    if isinstance(error, errors.Unauthenticated):
        advice.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        advice.append((b"retry-after", str(ceil(error.retry_after)).encode()))
        advice.append((b"retry-after-ms", str(ceil(error.retry_after * 1000)).encode()))
    if isinstance(error, MethodNotAllowed):
        advice.append((b"allow", ", ".join(error.allowed).encode()))
    is_unkeyed_write = verb != "GET" and "idempotency-key" not in headers
    if isinstance(error, errors.Unimplemented) or (isinstance(error, errors.DeadlineExceeded) and is_unkeyed_write):
        advice.append(_DO_NOT_RETRY)
    return advice


async def _respond(send: Send, status: int, body: bytes, identity: str, extra: Collection[Header]) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", identity.encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
