"""Requests made from the OpenAPI document, right and wrong ones: nothing falls over, and answers are as it says."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from convgrpc.server.app import Running
from tests.contract.corpus import ROWS

CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
SHORT = settings(max_examples=12, derandomize=True, **COMMON)
LONG = settings(max_examples=150, **COMMON)


@pytest.fixture
def conversation(http: httpx.Client) -> dict[str, str]:
    """The path parameters of an item in a conversation that has one of each kind."""
    items = list({row.kind: row.value for row in ROWS if row.kind != "item_reference"}.values())
    path = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}"
    for start in range(0, len(items), 20):
        http.post(f"{path}/items", json={"items": items[start : start + 20]}).raise_for_status()
    return {"conversation_id": path.rpartition("/")[2], "item_id": items[0]["id"]}


@pytest.fixture
def operations(server: Running) -> list[Any]:
    """All but those whose answers have no end."""
    api: Any = schemathesis.openapi.from_url(f"http://{server.http}/openapi.json")
    found = [each.ok() for each in api.get_all_operations()]
    return [each for each in found if "text/event-stream" not in each.definition.raw["responses"]["200"]["content"]]


def fuzz(operation: Any, mode: GenerationMode, path: dict[str, str], bounds: settings) -> None:
    """Calls an operation with requests that agree with the document, or that do not, at a path if one is given."""

    @bounds
    @given(operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        if case.method != "DELETE":
            case.path_parameters.update({name: path[name] for name in case.path_parameters if name in path})
        response = case.call()
        case.validate_response(response, checks=[not_a_server_error, *CHECKS])

    call()


def fuzz_all(operations: list[Any], conversation: dict[str, str], bounds: settings) -> None:
    for operation in operations:
        fuzz(operation, GenerationMode.POSITIVE, conversation, bounds)
        if operation.body or operation.query:  # no path is of the wrong shape
            fuzz(operation, GenerationMode.NEGATIVE, {}, bounds)


def test_requests_are_answered_as_the_document_says(operations: list[Any], conversation: dict[str, str]) -> None:
    fuzz_all(operations, conversation, SHORT)


@pytest.mark.long
def test_many_requests_are_answered_as_the_document_says(operations: list[Any], conversation: dict[str, str]) -> None:
    fuzz_all(operations, conversation, LONG)
