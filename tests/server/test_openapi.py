"""The REST front's own description."""

from importlib.metadata import version

import httpx
import pytest
from openapi_spec_validator import validate


def test_the_document_is_served(http: httpx.Client) -> None:
    """With the version of the package; what it says is tested with the contract."""
    response = http.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.headers["x-request-id"].startswith("req_")
    document = response.json()
    validate(document)
    assert document["info"]["version"] == version("convgrpc")
    assert document["servers"] == [{"url": "/"}], "the host by which it came"


def test_every_path_of_the_document_is_a_route(http: httpx.Client) -> None:
    """Some method of the path would have answered; the verb is not one of its own."""
    for path in http.get("/openapi.json").json()["paths"]:
        assert http.put(path).status_code == 405


def test_the_head_of_the_document_is_served(http: httpx.Client) -> None:
    """As a client asks that has the document already."""
    whole, head = http.get("/openapi.json"), http.head("/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE"])
def test_the_document_is_only_read(http: httpx.Client, verb: str) -> None:
    """The refusal names the verb that works."""
    response = http.request(verb, "/openapi.json")
    assert response.status_code == 405
    assert response.json()["error"]["message"] == (
        f"Not allowed to {verb} on /openapi.json. (HINT: Perhaps you meant to use GET or HEAD?)"
    )


def test_web_pages_do_not_get_the_document(http: httpx.Client) -> None:
    """No more than they get anything else."""
    assert http.get("/openapi.json", headers={"host": "example.com"}).status_code == 403
    assert http.get("/openapi.json", headers={"origin": "https://example.com"}).status_code == 403
