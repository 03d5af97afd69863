"""Calls that clients cancel during the answer: they are CANCELLED in the log and in the metrics, and no error."""

import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from convgrpc.contract.methods import Method
from convgrpc.server.app import Running
from convgrpc.server.grpc.server import GrpcServer
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    CreateConversationRequest,
    CreateItemsRequest,
    ExportItemsRequest,
    GetItemRequest,
    WatchItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from tests.conftest import FREE_PORT
from tests.server.test_concurrency import message
from tests.server.test_metrics import Measured

TIMEOUT = 30
CALLS = 150
"""How many calls of each method a test cancels."""
CALLERS = 10


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, metrics=FREE_PORT)) as addresses:
        yield addresses


class Calls:
    """Begins calls on two conversations: a large one to read, and one to append to."""

    def __init__(self, stub: ConversationsServiceStub) -> None:
        self._stub = stub
        self._large, self._other = [
            stub.CreateConversation(CreateConversationRequest(), timeout=TIMEOUT).id for _ in range(2)
        ]
        some = CreateItemsRequest(conversation_id=self._large, items=[message("x" * 50_000)] * 20)
        for _ in range(10):
            stub.CreateItems(some, timeout=TIMEOUT)
        item = CreateItemsRequest(conversation_id=self._large, items=[message("x" * 1_000_000)])
        self._item = stub.CreateItems(item, timeout=TIMEOUT).data[0].id

    def export(self) -> Any:
        return self._stub.ExportItems(ExportItemsRequest(conversation_id=self._large), timeout=TIMEOUT)

    def watch(self) -> Any:
        return self._stub.WatchItems(WatchItemsRequest(conversation_id=self._large), timeout=TIMEOUT)

    def append(self) -> Any:
        request = AppendItemsRequest(conversation_id=self._other, items=[message("y" * 1000)])
        return self._stub.AppendItems((request for _ in range(10_000)), timeout=TIMEOUT)

    def get(self) -> Any:
        request = GetItemRequest(conversation_id=self._large, item_id=self._item)
        return self._stub.GetItem.future(request, timeout=TIMEOUT)


def statuses(caplog: pytest.LogCaptureFixture) -> dict[str, Counter[str]]:
    """Counts the finished calls in the log by method and status."""
    told: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in caplog.records:
        if record.name == "convgrpc.calls":
            call: dict[str, str] = record.__dict__["call"]
            told[call["method"].rpartition("/")[2]][call["status"]] += 1
    return told


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def cancel_calls(begin: Callable[[], Any], *, is_stream: bool) -> None:
    """Begins calls, some at a time, and cancels each after a random part of its answer or a random time."""
    chance = random.Random(1)

    def cancel_one(messages: int, seconds: float) -> None:
        call = begin()
        if is_stream:
            for _ in zip(range(messages), call, strict=False):
                pass
        else:
            time.sleep(seconds)
        call.cancel()

    with ThreadPoolExecutor(CALLERS) as callers:
        parts = [(chance.randint(0, 20), chance.random() * 0.02) for _ in range(CALLS)]
        list(callers.map(cancel_one, *zip(*parts, strict=True)))


def test_calls_that_clients_cancel_are_cancelled_in_log_and_metrics(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls that a client cancels cause no error in the log, and no refusal in the metrics."""
    caplog.set_level(logging.INFO)
    with grpc.insecure_channel(str(server.grpc)) as channel:
        calls = Calls(ConversationsServiceStub(channel))
        for begin in (calls.export, calls.watch, calls.append):
            cancel_calls(begin, is_stream=True)
        cancel_calls(calls.get, is_stream=False)
    # The server learns last of the last calls.
    time.sleep(0.5)
    told = statuses(caplog)
    assert warnings(caplog) == []
    # The server may have sent a whole answer before it learns that the client has cancelled the call.
    for method, allowed in {
        "ExportItems": {"CANCELLED", "OK"},
        "WatchItems": {"CANCELLED"},
        "AppendItems": {"CANCELLED"},
        "GetItem": {"CANCELLED", "OK"},
    }.items():
        assert told[method]["CANCELLED"]
        assert set(told[method]) <= allowed
    measured = Measured(f"http://{server.metrics}/metrics").text()
    assert "convgrpc_refused_calls_total{" not in measured
    assert 'grpc_code="INTERNAL"' not in measured


class GoneContext:
    """The context of a call whose client is gone: one of its methods fails as grpcio's does, after some calls of it."""

    def __init__(self, context: Any, failing: str, successes: int) -> None:
        self._context = context
        self._failing = failing
        self._successes = successes

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._failing else getattr(self._context, name)

    async def _fail(self, *arguments: Any) -> Any:
        if self._successes:
            self._successes -= 1
            return await getattr(self._context, self._failing)(*arguments)
        # A private name: a release of grpcio without it may raise another error, which the server must know.
        raise cygrpc.ExecuteBatchError('Failed "execute_batch"')


UNKNOWN = "conv_unknown"


@pytest.mark.parametrize(
    ("method", "request_", "failing", "successes"),
    [
        ("GetItem", GetItemRequest(conversation_id=UNKNOWN, item_id="msg_1"), "read", 0),
        ("GetItem", GetItemRequest(conversation_id=UNKNOWN, item_id="msg_1"), "abort", 0),
        ("ExportItems", ExportItemsRequest(conversation_id=UNKNOWN), "read", 0),
        ("ExportItems", ExportItemsRequest(conversation_id=UNKNOWN), "abort", 0),
        ("WatchItems", WatchItemsRequest(), "write", 0),
        ("AppendItems", AppendItemsRequest(items=[message("a")]), "read", 0),
        ("AppendItems", AppendItemsRequest(items=[message("a")]), "read", 1),
        ("AppendItems", AppendItemsRequest(items=[message("a")]), "write", 0),
        ("AppendItems", AppendItemsRequest(conversation_id=UNKNOWN, items=[message("a")]), "abort", 0),
    ],
)
def test_failure_to_reach_the_client_ends_the_call_as_cancelled(
    method: str,
    request_: Any,
    failing: str,
    successes: int,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A read, a write or an abort that grpcio fails is no internal error, and no refusal."""
    caplog.set_level(logging.INFO)
    serve = GrpcServer._serve

    async def gone(server: GrpcServer, called: Method, answer: Any, requests: object, context: Any) -> bytes | None:
        met = GoneContext(context, failing, successes) if called.name == method else context
        return await serve(server, called, answer, requests, met)

    monkeypatch.setattr(GrpcServer, "_serve", gone)
    with served(replace(settings, metrics=FREE_PORT)) as server, grpc.insecure_channel(str(server.grpc)) as channel:
        stub = ConversationsServiceStub(channel)
        conversation = stub.CreateConversation(CreateConversationRequest(), timeout=TIMEOUT).id
        request = type(request_).FromString(request_.SerializeToString())
        request.conversation_id = request.conversation_id or conversation
        sent = iter([request]) if method == "AppendItems" else request
        # grpcio leaves the client of a cancelled call without a status.
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(getattr(stub, method)(sent, timeout=0.5))
        measured = Measured(f"http://{server.metrics}/metrics").text()
    (told,) = statuses(caplog)[method]
    assert told == "CANCELLED"
    assert warnings(caplog) == []
    assert "convgrpc_refused_calls_total{" not in measured
