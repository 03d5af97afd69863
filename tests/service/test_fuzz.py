"""Requests made from the OpenAPI document, right and wrong ones: nothing falls over, and answers are as it says."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from convgrpc.service.server import Running

CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
SHORT = settings(max_examples=15, derandomize=True, **COMMON)
LONG = settings(max_examples=1000, **COMMON)


@pytest.fixture
def api(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"http://{server.http}/openapi.json")


def check(case: Any, response: Any) -> None:
    unimplemented = response.status_code == 501
    case.validate_response(response, checks=CHECKS if unimplemented else [not_a_server_error, *CHECKS])


def fuzz(api: Any, bounds: settings, mode: GenerationMode) -> None:
    """Calls each operation by itself, with requests that agree with the document or that do not."""
    for operation in (each.ok() for each in api.get_all_operations()):
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # no path is of the wrong shape

        @bounds
        @given(operation.as_strategy(generation_mode=mode))
        def call(case: Any) -> None:
            check(case, case.call())

        call()


each_mode = pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)


@each_mode
def test_requests_are_answered_as_the_document_says(api: Any, mode: GenerationMode) -> None:
    fuzz(api, SHORT, mode)


@pytest.mark.long
@each_mode
def test_many_requests_are_answered_as_the_document_says(api: Any, mode: GenerationMode) -> None:
    fuzz(api, LONG, mode)
