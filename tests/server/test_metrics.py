"""What is measured of a server."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest, GetConversationRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from tests.conftest import FREE_PORT, make_key

TIMEOUT = 20


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, metrics=FREE_PORT)) as addresses:
        yield addresses


@pytest.fixture
def measured(server: Running) -> "Measured":
    return Measured(f"http://{server.metrics}/metrics")


class Measured:
    """What a server tells Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def text(self) -> str:
        answer = httpx.get(self._url, timeout=TIMEOUT)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return answer.text

    def value(self, name: str, **labels: str) -> float:
        """The value of what has this name and these labels, 0 if there is none."""
        samples = (sample for family in text_string_to_metric_families(self.text()) for sample in family.samples)
        return sum(each.value for each in samples if each.name == name and each.labels == labels)


def test_calls_by_grpc_are_counted_and_timed(stub: ConversationsServiceStub, measured: Measured) -> None:
    """By method and code, under the names that other servers use."""
    stub.CreateConversation(CreateConversationRequest(), timeout=TIMEOUT)
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            stub.GetConversation(GetConversationRequest(conversation_id="conv_1"), timeout=TIMEOUT)
    method = {"grpc_type": "unary", "grpc_service": "convgrpc.v1.ConversationsService"}
    for name, code, times in (("CreateConversation", "OK", 1), ("GetConversation", "NOT_FOUND", 2)):
        labels = {**method, "grpc_method": name}
        assert measured.value("grpc_server_handled_total", **labels, grpc_code=code) == times
        assert measured.value("grpc_server_handling_seconds_count", **labels) == times
        assert 0 < measured.value("grpc_server_handling_seconds_sum", **labels) < TIMEOUT
    assert measured.value("convgrpc_refused_calls_total", reason="ERROR_REASON_CONVERSATION_NOT_FOUND") == 2


def test_requests_by_rest_are_counted_and_timed(http: httpx.Client, measured: Measured) -> None:
    """By route and status; what has no route counts together, so that nobody can make up labels."""
    http.post("/v1/conversations", json={})
    for number in range(3):
        http.get(f"/v1/conversations/conv_{number}")
        http.get(f"/nowhere/{number}")
    route = {"method": "GET", "route": "/v1/conversations/{conversation_id}"}
    assert measured.value("http_requests_total", method="POST", route="/v1/conversations", status="200") == 1
    assert measured.value("http_requests_total", **route, status="404") == 3
    assert measured.value("http_request_duration_seconds_count", **route) == 3
    assert measured.value("http_requests_total", method="none", route="none", status="404") == 3


def test_health_is_told_where_metrics_are(settings: Settings, tmp_path: Path) -> None:
    """To probes, which have neither a key nor a certificate; nothing else is there."""
    key = make_key(settings, "alder")
    with served(replace(settings, metrics=FREE_PORT)) as server:
        for path in ("/healthz", "/livez"):
            answer = httpx.get(f"http://{server.metrics}{path}")
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        for path in ("/", "/metrics/", "/v1/conversations"):
            answer = httpx.get(f"http://{server.metrics}{path}", headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 404
        os.rename(settings.db, tmp_path / "away.db")
        give_up = time.monotonic() + TIMEOUT
        while (answer := httpx.get(f"http://{server.metrics}/healthz")).status_code != 503:
            assert time.monotonic() < give_up
        assert answer.json()["database"] == "the file was deleted or moved away"
        assert httpx.get(f"http://{server.metrics}/livez").status_code == 200


def test_the_store_is_measured(http: httpx.Client, measured: Measured) -> None:
    """How many writes wait, how many are committed together, and how long that takes."""
    before = measured.value("convgrpc_store_commit_writes_sum")
    for _ in range(5):
        http.post("/v1/conversations", json={})
    assert measured.value("convgrpc_store_commit_writes_sum") == before + 5
    synced, committed = (measured.value(f"convgrpc_store_{what}_seconds_sum") for what in ("sync", "commit"))
    assert 0 < synced < committed < TIMEOUT
    assert measured.value("convgrpc_store_waiting_writes") == 0
    assert measured.value("convgrpc_calls_in_flight") == 0
    assert measured.value("process_resident_memory_bytes") > 0


def test_no_label_has_what_a_caller_made_up(settings: Settings, http: httpx.Client, measured: Measured) -> None:
    """Neither ids nor keys nor words."""
    key = make_key(settings, "alder")
    for path in ("/v1/conversations/conv_secret", "/secret", "/v1/conversations/x/items/secret?after=secret"):
        http.get(path, headers={"authorization": f"Bearer {key}", "x-request-id": "secret"})
        http.get(path, headers={"authorization": "Bearer secret"})
    text = measured.text()
    assert "secret" not in text
    assert key not in text


def test_metrics_have_an_address_of_their_own(http: httpx.Client, server: Running) -> None:
    """They are not served where the API is, nor the API where they are."""
    assert http.get("/metrics").status_code == 404
    httpx.post(f"http://{server.metrics}/v1/conversations", json={}, timeout=TIMEOUT)
    assert http.get("/v1/x/conversations").json()["data"] == []
