"""What the API does not have: lists of conversations, and several items at once."""

from typing import Any

import httpx
import pytest


@pytest.fixture
def created(http: httpx.Client) -> list[dict[str, Any]]:
    """Twelve conversations, oldest first; every third one's topic is "b"."""
    bodies = [{"metadata": {"n": str(n), "topic": "b" if n % 3 == 0 else "a"}} for n in range(12)]
    return [http.post("/v1/conversations", json=body).json() for body in bodies]


def test_conversations_are_listed_newest_first(http: httpx.Client, created: list[dict[str, Any]]) -> None:
    """With the envelope of any list."""
    page = http.get("/v1/x/conversations").json()
    assert page["data"] == created[::-1]
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == (
        "list",
        created[-1]["id"],
        created[0]["id"],
        False,
    )


@pytest.mark.parametrize(("query", "expected"), [("", 12), ("&metadata[topic]=a", 8), ("&metadata[topic]=b", 4)])
def test_a_walk_through_conversations_meets_each_once(
    http: httpx.Client, created: list[dict[str, Any]], query: str, expected: int
) -> None:
    """Page by page, with and without a filter, while new ones are made."""
    found = []
    url = f"/v1/x/conversations?limit=3{query}"
    page = http.get(url).json()
    while page["has_more"]:
        assert len(page["data"]) == 3
        found += page["data"]
        http.post("/v1/conversations", json={"metadata": {"topic": "a"}})
        page = http.get(f"{url}&after={page['last_id']}").json()
    found += page["data"]
    assert [each["id"] for each in found] == [each["id"] for each in created[::-1] if each in found]
    assert len(found) == expected


def test_a_filter_may_name_several_pairs(http: httpx.Client, created: list[dict[str, Any]]) -> None:
    """All of them must be there."""
    params = {"metadata[topic]": "b", "metadata[n]": "9"}
    assert http.get("/v1/x/conversations", params=params).json()["data"] == [created[9]]
    assert http.get("/v1/x/conversations", params={**params, "metadata[n]": "1"}).json()["data"] == []
    assert http.get("/v1/x/conversations", params={"metadata[nothing]": ""}).json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_list_follows_updates_and_deletions(http: httpx.Client, created: list[dict[str, Any]]) -> None:
    """A conversation is found by the metadata that it has now."""
    one, two = created[0]["id"], created[3]["id"]
    http.post(f"/v1/conversations/{one}", json={"metadata": {"topic": "c"}})
    http.delete(f"/v1/conversations/{two}")
    topics = {
        topic: {each["id"] for each in http.get(f"/v1/x/conversations?metadata[topic]={topic}").json()["data"]}
        for topic in "bc"
    }
    assert topics == {"b": {created[6]["id"], created[9]["id"]}, "c": {one}}
    refusal = http.get(f"/v1/x/conversations?after={two}")
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (404, "after")
    assert refusal.json()["error"]["message"] == f"No conversation found with id '{two}'"


def test_several_items_come_in_the_order_of_their_ids(http: httpx.Client) -> None:
    """One more than once, if asked for so; all or nothing."""
    items = [{"role": "user", "content": str(number)} for number in range(4)]
    conversation = http.post("/v1/conversations", json={"items": items}).json()["id"]
    listed = http.get(f"/v1/conversations/{conversation}/items").json()["data"]
    url = f"/v1/x/conversations/{conversation}/items:batchGet"
    wanted = [listed[2], listed[0], listed[2]]
    assert http.get(url, params={"item_ids[]": [each["id"] for each in wanted]}).json()["data"] == wanted
    missing = http.get(url, params={"item_ids": [listed[0]["id"], "msg_x"]})
    assert (missing.status_code, missing.json()["error"]["message"]) == (
        404,
        "Item with id 'msg_x' not found in conversation.",
    )
    assert http.get(url).json()["error"]["code"] == "missing_required_parameter"
    too_many = http.get(url, params={"item_ids": ["x"] * 100 + ["y"]})
    assert too_many.json()["error"]["code"] == "array_above_max_length"


@pytest.mark.parametrize("query", ["metadata=x", "metadata[]=x", "limit[x]=1", "metadata[a", "[a]=1", "after[0]=x"])
def test_parameters_in_brackets_are_refused_where_they_make_no_sense(http: httpx.Client, query: str) -> None:
    """Brackets are for lists and for pairs."""
    assert http.get(f"/v1/x/conversations?{query}").json()["error"]["code"] == "unknown_parameter"


def test_several_items_are_refused_where_a_client_could_not_receive_them(http: httpx.Client) -> None:
    """One large item alone is returned; the same twice is too much."""
    item = {"role": "user", "content": "x" * 2_000_000}
    conversation = http.post("/v1/conversations", json={"items": [item]}).json()["id"]
    item_id = http.get(f"/v1/conversations/{conversation}/items").json()["first_id"]
    url = f"/v1/x/conversations/{conversation}/items:batchGet"
    assert http.get(url, params={"item_ids": item_id}).status_code == 200
    refusal = http.get(url, params={"item_ids": [item_id, item_id]})
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (413, "item_ids")


def test_references_cannot_make_a_small_request_large(http: httpx.Client) -> None:
    """What one request copies is bounded, and nothing of it is stored when it is more."""
    item = {"role": "user", "content": "x" * 4_000_000}
    first = http.post("/v1/conversations", json={"items": [item]}).json()["id"]
    item_id = http.get(f"/v1/conversations/{first}/items").json()["first_id"]
    second = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}/items"
    refusal = http.post(second, json={"items": [{"type": "item_reference", "id": item_id}] * 20})
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (413, "items")
    assert http.get(second).json()["data"] == []


def test_the_page_after_the_last_conversation_is_empty(http: httpx.Client, created: list[dict[str, Any]]) -> None:
    """It has no ids."""
    page = http.get("/v1/x/conversations", params={"after": created[0]["id"]}).json()
    assert (page["data"], page["first_id"], page["last_id"], page["has_more"]) == ([], None, None, False)
