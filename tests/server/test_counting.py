"""Counts of conversations: what is stored counts as much as if it were sent, whatever was remembered of it before."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from convgrpc.contract.decoder import decode
from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.storage.sqlite import queries
from convgrpc.testing import served
from convgrpc.tokens.encodings import ThreadCounter
from convgrpc.v1.conversations_service_pb2 import ListConversationsRequest
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest, InputTokenCount, ModelTokenCount
from convgrpc.v1.input_tokens_service_pb2_grpc import InputTokensServiceStub
from tests.conftest import FREE_PORT
from tests.contract.corpus import ROWS, Row

COUNT = "/v1/responses/input_tokens"
MODELS = ["gpt-5", "gpt-4o", "gpt-5.6", "gpt-4-turbo"]
SENT = [row for row in ROWS if row.kind != "item_reference"]
AT_ONCE = 20
"""How many items one request may append."""

WITHOUT_TOKENS = """
import sys
from pathlib import Path

sys.modules[{missing!r}] = None
import grpc
import httpx
from convgrpc.settings import Settings
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.input_tokens_service_pb2_grpc import InputTokensServiceStub
from convgrpc.testing import served
from tests.conftest import FREE_PORT

with served(Settings(db=sys.argv[1], grpc=FREE_PORT, http=FREE_PORT)) as server:
    with httpx.Client(base_url=f"http://{{server.http}}") as client:
        item = {{"role": "user", "content": "a"}}
        made = client.post("/v1/conversations", json={{"items": [item]}}).json()["id"]
        print(len(client.get(f"/v1/conversations/{{made}}/items").json()["data"]))
        refused = client.post("/v1/responses/input_tokens", json={{"input": "a"}})
        print(refused.status_code, refused.json()["error"]["message"])
        print(client.post("/v1/responses/input_tokens", json={{"fern": "a"}}).status_code)
    with grpc.insecure_channel(str(server.grpc)) as channel:
        try:
            InputTokensServiceStub(channel).CountInputTokens(CountInputTokensRequest())
        except grpc.RpcError as error:
            print(error.code().name, error.details())
"""


class Client:
    """Speaks to a server, by REST where things are stored and by gRPC where they are counted, which tells more."""

    def __init__(self, server: Running, http: httpx.Client, channel: grpc.Channel) -> None:
        self.server = server
        self.http = http
        self.conversations = ConversationsServiceStub(channel)
        self._stub = InputTokensServiceStub(channel)

    def conversation(self, *items: dict[str, Any]) -> str:
        made: str = self._answer(self.http.post("/v1/conversations", json={"items": items[:AT_ONCE]}))["id"]
        self.append(made, *items[AT_ONCE:])
        return made

    def append(self, conversation: str, *items: dict[str, Any]) -> None:
        for start in range(0, len(items), AT_ONCE):
            body = {"items": items[start : start + AT_ONCE]}
            self._answer(self.http.post(f"/v1/conversations/{conversation}/items", json=body))

    def items(self, conversation: str) -> list[dict[str, Any]]:
        """All of them, as they are listed."""
        listed: list[dict[str, Any]] = []
        has_more = True
        while has_more:
            after = {"after": listed[-1]["id"]} if listed else {}
            query = {"order": "asc", "limit": "100", **after}
            page = self._answer(self.http.get(f"/v1/conversations/{conversation}/items", params=query))
            listed += page["data"]
            has_more = page["has_more"]
        return listed

    def counted(self, **request: Any) -> InputTokenCount:
        models = request.pop("models", [])
        message = decode(CountInputTokensRequest, request)
        message.models.extend(models)
        answer: InputTokenCount = self._stub.CountInputTokens(message, timeout=30)
        return answer

    def whole(self, **request: Any) -> list[Any]:
        """What is counted for every family, but for the places of estimates."""
        return [content(each) for each in self.counted(models=MODELS, **request).counts]

    def _answer(self, response: httpx.Response) -> Any:
        assert response.status_code == 200, response.text
        return response.json()


def content(counted: ModelTokenCount) -> Any:
    plain = ModelTokenCount.FromString(counted.SerializeToString())
    plain.ClearField("first_kept_item_id")
    estimates = sorted((each.part, each.reason, each.input_tokens, each.count) for each in plain.estimates)
    plain.ClearField("estimates")
    return plain, estimates


def client_of(settings: Settings) -> Iterator[Client]:
    with (
        served(settings) as server,
        grpc.insecure_channel(str(server.grpc)) as channel,
        httpx.Client(base_url=f"http://{server.http}", timeout=30) as http,
    ):
        yield Client(server, http, channel)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a server that all tests share: each makes conversations of its own."""
    path = tmp_path_factory.mktemp("counting") / "convgrpc.db"
    yield from client_of(Settings(db=str(path), grpc=FREE_PORT, http=FREE_PORT))


@pytest.fixture(params=[200_000, 5], ids="remembers {}".format)
def remembering(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Client]:
    """Of a server that remembers what many items count, or hardly any."""
    yield from client_of(replace(settings, max_counted_items=request.param))


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def without_id(value: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key != "id"}


def acceptable(client: Client, value: dict[str, Any]) -> dict[str, Any]:
    """An item without its id, if it may come without one."""
    made = client.http.post("/v1/conversations", json={"items": [without_id(value)]})
    return without_id(value) if made.is_success else value


@pytest.mark.parametrize("row", SENT, ids=lambda row: row.name)
def test_a_stored_item_counts_as_much_as_one_that_is_sent(row: Row, client: Client) -> None:
    """As it was sent at first, and as it is listed with the id that it was given; also with an id of its own."""
    sent = acceptable(client, row.value)
    conversation = client.conversation(sent)
    listed = client.items(conversation)
    assert "id" in listed[0]
    assert client.whole(conversation=conversation) == client.whole(input=[sent]) == client.whole(input=listed)
    conversation = client.conversation(row.value)
    assert [item["id"] for item in client.items(conversation)] == [row.value["id"]]
    assert client.whole(conversation=conversation) == client.whole(input=[row.value])


def test_all_kinds_together_count_as_much_stored_as_sent(client: Client) -> None:
    """By ids of others' making, and by ids given here; as text in an object, or alone."""
    values = [row.value for row in SENT]
    random.Random(3).shuffle(values)
    minted = [acceptable(client, value) for value in values]
    for items in (values, minted):
        conversation = client.conversation(*items)
        sent = client.whole(input=items)
        assert client.whole(conversation=conversation) == sent
        assert client.whole(conversation={"id": conversation}) == sent
        assert client.whole(input=client.items(conversation)) == sent
        assert sent[0][0].input_tokens > 2000


def test_input_follows_a_conversation(client: Client) -> None:
    """Calls and outputs, and reasoning and a user, are of one exchange wherever the border is."""
    values = [acceptable(client, row.value) for row in SENT if row.kind in ("message", "reasoning")]
    values += [acceptable(client, row.value) for row in SENT if row.kind.startswith(("function", "custom"))]
    random.Random(5).shuffle(values)
    whole = client.whole(input=values)
    for border in range(0, len(values) + 1, 5):
        conversation = client.conversation(*values[:border])
        assert client.whole(conversation=conversation, input=values[border:]) == whole
    conversation = client.conversation(user("a"))
    assert client.whole(conversation=conversation, input="b") == client.whole(input=[user("a"), user("b")])


def test_an_empty_conversation_counts_nothing(client: Client) -> None:
    """As if there were none, and nothing is the first item."""
    counted = client.counted(conversation=client.conversation(), model="gpt-5")
    assert (counted.input_tokens, counted.counts[0].HasField("first_kept_item")) == (2, False)


def test_a_reference_counts_as_the_item(client: Client) -> None:
    """In whichever conversation that is."""
    values = [acceptable(client, row.value) for row in SENT][::3]
    listed = client.items(client.conversation(*values))
    references = [{"type": "item_reference", "id": item["id"]} for item in listed]
    assert client.whole(input=references) == client.whole(input=listed)
    short = client.whole(input=[user("a"), references[0], references[0], user("b")])
    assert short == client.whole(input=[user("a"), listed[0], listed[0], user("b")])


def test_an_unknown_reference_is_not_found(client: Client) -> None:
    """It is in the input that it is named; a known one beside it does not help."""
    known = client.items(client.conversation(user("a")))[0]["id"]
    references = [{"type": "item_reference", "id": each} for each in (known, "msg_unknown")]
    refused = client.http.post(COUNT, json={"input": references})
    assert refused.status_code == 404
    assert refused.json()["error"]["param"] == "input"
    assert "'msg_unknown'" in refused.json()["error"]["message"]
    with pytest.raises(grpc.RpcError) as failed:
        client.counted(input=references)
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_reference_into_a_deleted_conversation_is_not_found(client: Client) -> None:
    """What is deleted is gone at once."""
    conversation = client.conversation(user("a"))
    reference = {"type": "item_reference", "id": client.items(conversation)[0]["id"]}
    assert client.http.post(COUNT, json={"input": [reference]}).status_code == 200
    client.http.delete(f"/v1/conversations/{conversation}")
    assert client.http.post(COUNT, json={"input": [reference]}).status_code == 404


def test_several_models_count_as_each_alone(client: Client) -> None:
    """In the order asked for, the first in the place of the only one."""
    conversation = client.conversation(*(acceptable(client, row.value) for row in SENT[::2]))
    together = client.counted(conversation=conversation, input="a", model="gpt-4o", models=[*MODELS, "fern"])
    assert [each.model for each in together.counts] == ["gpt-4o", *MODELS, "fern"]
    alone = [
        client.counted(conversation=conversation, input="a", model=each.model).counts[0] for each in together.counts
    ]
    assert list(together.counts) == alone
    assert together.input_tokens == together.counts[0].input_tokens
    assert client.counted(input="a").counts[0].model == "gpt-5.6"


def test_rest_says_as_much_as_the_hosted_api(client: Client) -> None:
    """And no more; of several models it knows nothing."""
    answered = client.http.post(COUNT, json={"model": "gpt-5", "input": "Tell me a joke."})
    assert (answered.status_code, answered.json()) == (200, {"object": "response.input_tokens", "input_tokens": 11})
    refused = client.http.post(COUNT, json={"input": "a", "models": ["gpt-5"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_parameter")


def test_the_first_kept_item_of_a_conversation_is_told_with_its_id(client: Client) -> None:
    """Of gpt-4's small window, the last items that fit."""
    conversation = client.conversation(*(user("fern " * 1000) for _ in range(12)))
    items = client.items(conversation)
    counted = client.counted(conversation=conversation, input="a", model="gpt-4", truncation="auto").counts[0]
    first = counted.first_kept_item
    assert (counted.first_kept_item_id, 0 < first < 12) == (items[first]["id"], True)
    assert counted.input_tokens == client.counted(input=[*items[first:], user("a")], model="gpt-4").input_tokens <= 8192
    assert client.counted(input=[*items[first - 1 :], user("a")], model="gpt-4").input_tokens > 8192
    untouched = client.counted(conversation=conversation, input="a", model="gpt-4", truncation="disabled").counts[0]
    assert (untouched.first_kept_item, untouched.first_kept_item_id) == (0, items[0]["id"])
    assert untouched.context_left < 0


def test_counts_follow_a_conversation_through_all_changes(remembering: Client) -> None:
    """Whatever happens to it, and to others, in whichever order: always as if nothing had been counted before."""
    chance = random.Random(11)
    values = [acceptable(remembering, row.value) for row in SENT if len(str(row.value)) < 600]
    conversations = [remembering.conversation() for _ in range(3)]
    done = dict.fromkeys(["append", "delete", "replace", "count"], 0)
    # So many that each action is taken more than twice.
    for step in range(100):
        place = chance.randrange(3)
        conversation = conversations[place]
        items = remembering.items(conversation)
        action = chance.choice(["append", "append", "delete", "count", "count", "replace" if step % 2 else "delete"])
        if action == "append":
            new = [without_id(each) if chance.random() < 0.5 else each for each in chance.sample(values, 4)]
            known = {item["id"] for item in items}
            new = [each for each in new if each.get("id", "") not in known]
            response = remembering.http.post(f"/v1/conversations/{conversation}/items", json={"items": new})
            action = "append" if response.is_success else "count"
        elif action == "delete" and items:
            doomed = chance.choice([items[-1], chance.choice(items)])["id"]
            assert remembering.http.delete(f"/v1/conversations/{conversation}/items/{doomed}").is_success
        elif action == "replace":
            assert remembering.http.delete(f"/v1/conversations/{conversation}").is_success
            gone = remembering.http.post(COUNT, json={"conversation": conversation})
            assert (gone.status_code, "not found" in gone.json()["error"]["message"]) == (404, True)
            conversations[place] = conversation = remembering.conversation()
        done[action] += 1
        model = chance.choice(MODELS)
        counted = remembering.counted(conversation=conversation, model=model, input="a")
        afresh = remembering.counted(input=[*remembering.items(conversation), user("a")], model=model)
        assert content(counted.counts[0]) == content(afresh.counts[0]), (step, action)
    assert min(done.values()) > 2


def test_the_last_item_deleted_and_another_added_between_two_counts_are_noticed(remembering: Client) -> None:
    """Although there are as many items, in the same places."""
    conversation = remembering.conversation(user("a"), user(" a a a"))
    assert remembering.counted(conversation=conversation, model="gpt-5").input_tokens == 2 + 2 * 4 + 1 + 3
    last = remembering.items(conversation)[-1]["id"]
    remembering.http.delete(f"/v1/conversations/{conversation}/items/{last}")
    remembering.append(conversation, user("b"))
    assert remembering.counted(conversation=conversation, model="gpt-5").input_tokens == 2 + 2 * 4 + 1 + 1
    first = remembering.items(conversation)[0]["id"]
    remembering.http.delete(f"/v1/conversations/{conversation}/items/{first}")
    assert remembering.counted(conversation=conversation, model="gpt-5").input_tokens == 2 + 4 + 1


def test_a_long_conversation_counts_page_by_page(remembering: Client) -> None:
    """1,200 items of 6 tokens, and what is added later, and with items left out."""
    conversation = remembering.conversation(*[user(" a b")] * 1200)
    assert remembering.counted(conversation=conversation, model="gpt-5").input_tokens == 2 + 1200 * 6
    remembering.append(conversation, user("a"), user("a"))
    counted = remembering.counted(conversation=conversation, model="gpt-4", models=["gpt-5"])
    assert [each.input_tokens for each in counted.counts] == [2 + 1200 * 6 + 2 * 5, 2 + 1200 * 6 + 2 * 5]
    cut = remembering.counted(conversation=conversation, model="gpt-4-0613", input="fern " * 3000, truncation="auto")
    assert cut.counts[0].first_kept_item > 300
    assert 8192 - 6 < cut.input_tokens <= 8192


def test_counts_at_once_agree(remembering: Client) -> None:
    """Of one conversation, for several models, that nobody counted before."""
    conversation = remembering.conversation(*(acceptable(remembering, row.value) for row in SENT))
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: remembering.counted(conversation=conversation, models=MODELS), range(16)))
    assert all(each == counts[0] for each in counts)
    listed = remembering.counted(input=remembering.items(conversation), models=MODELS)
    assert [content(each) for each in counts[0].counts] == [content(each) for each in listed.counts]


def test_growth_that_several_counts_read_at_once_counts_once(remembering: Client) -> None:
    """Of a conversation that was counted before, and got so much that it is read beside the event loop."""
    conversation = remembering.conversation(user("a"))
    text = "fern moss " * 300
    each = remembering.counted(input=text, model="gpt-5").input_tokens - 2
    with ThreadPoolExecutor(8) as pool:
        for times in range(1, 4):
            remembering.counted(conversation=conversation, model="gpt-5")
            remembering.append(conversation, *[user(text)] * AT_ONCE)
            counted = pool.map(lambda _: remembering.counted(conversation=conversation, model="gpt-5"), range(8))
            assert {count.input_tokens for count in counted} == {2 + 5 + times * AT_ONCE * each}


def test_counts_while_items_are_appended_are_of_whole_appends(remembering: Client) -> None:
    """Two messages at a time, and never fewer than before."""
    conversation = remembering.conversation()
    seen: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.append(remembering.counted(conversation=conversation, model="gpt-5").input_tokens)

    with ThreadPoolExecutor(3) as pool:
        watching = [pool.submit(watch) for _ in range(2)]
        for _ in range(40):
            remembering.append(conversation, user("a"), user("b"))
        ended.set()
        for each in watching:
            each.result()
    assert {(each - 2) % 10 for each in seen} == {0}
    assert remembering.counted(conversation=conversation, model="gpt-5").input_tokens == 2 + 80 * 5


def hold(monkeypatch: pytest.MonkeyPatch, text: str, reading: threading.Event, go_on: threading.Event) -> None:
    """Makes whoever counts a text say so, and wait."""
    count = ThreadCounter._count

    def held(self: ThreadCounter, given: str) -> int:
        if len(given) > 1000 and given in text:
            reading.set()
            assert go_on.wait(20)
        return count(self, given)

    monkeypatch.setattr(ThreadCounter, "_count", held)


@pytest.mark.parametrize("place", ["input", "instructions", "conversation"])
def test_a_long_text_does_not_hold_up_others(place: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a megabyte is read, other calls are answered, also counts."""
    text = "fern moss " * 100_000
    request: dict[str, Any] = {place: text, "model": "gpt-5"}
    if place == "conversation":
        request = {"conversation": client.conversation(user(text)), "model": "gpt-5"}
    expected = client.counted(input=text, model="gpt-5").input_tokens
    reading, go_on = threading.Event(), threading.Event()
    hold(monkeypatch, text, reading, go_on)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(client.counted, **request)
        assert reading.wait(10)
        try:
            client.conversations.ListConversations(ListConversationsRequest(), timeout=5)
            assert client.counted(input="a", model="gpt-5").input_tokens == 7
            assert not long.done()
        finally:
            go_on.set()
        assert long.result(20).input_tokens == expected


def test_the_caller_who_gives_up_does_not_spoil_later_counts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its count had begun is neither lost nor counted twice."""
    conversation = client.conversation(*(user("a") for _ in range(10)))
    client.counted(conversation=conversation, model="gpt-5")
    client.append(conversation, *(user("b") for _ in range(10)))
    reading, go_on = threading.Event(), threading.Event()
    text = "fern " * 10_000
    hold(monkeypatch, text, reading, go_on)
    stub_request = decode(
        CountInputTokensRequest, {"conversation": conversation, "instructions": text, "model": "gpt-5"}
    )
    given_up = client._stub.CountInputTokens.future(stub_request, timeout=20)
    assert reading.wait(10)
    given_up.cancel()
    client.append(conversation, user("c"))
    during = client.counted(conversation=conversation, model="gpt-5").input_tokens
    go_on.set()
    after = client.counted(conversation=conversation, model="gpt-5").input_tokens
    assert [during, after] == [2 + 21 * 5] * 2


def test_what_was_counted_is_not_read_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a conversation that grew, the store is asked for what it gained."""
    conversation = client.conversation(user("a"), user("b"))
    client.counted(conversation=conversation, model="gpt-5")
    client.append(conversation, user("c"))
    read: list[bytes] = []
    find = queries.find_growth

    def noted(*arguments: Any, **options: Any) -> Any:
        growth = find(*arguments, **options)
        read.extend(growth.items)
        return growth

    monkeypatch.setattr("convgrpc.storage.sqlite.store.find_growth", noted)
    assert client.counted(conversation=conversation, model="gpt-5", models=MODELS).input_tokens == 2 + 3 * 5
    encodings = 2
    assert len(read) == 1 + 3 * (encodings - 1)
    read.clear()
    assert client.counted(conversation=conversation, model="gpt-5", models=["gpt-5.4"]).input_tokens == 2 + 3 * 5
    assert read == []


def chain(length: int) -> dict[str, Any]:
    """A schema in which each definition is an array of the next."""
    defs = {f"d{n}": {"type": "array", "items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(length)}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}


@pytest.mark.parametrize(
    "parameters",
    [chain(5000), {"type": "object", "properties": {"a": {"minimum": -(10**300), "maximum": 10**307}}}],
    ids=["a long chain", "a large number"],
)
@pytest.mark.parametrize("place", ["tools", "conversation"])
def test_no_schema_is_the_servers_fault(place: str, parameters: Any, client: Client) -> None:
    """It counts, or is refused; in a conversation it counts, since nobody could mend it."""
    tool = {"type": "function", "name": "f", "parameters": parameters, "strict": False}
    if place == "tools":
        assert client.http.post(COUNT, json={"tools": [tool]}).status_code in (200, 400)
        return
    conversation = client.conversation({"type": "additional_tools", "role": "developer", "tools": [tool]})
    assert client.http.post(COUNT, json={"conversation": conversation}).status_code == 200


@pytest.mark.parametrize("missing", ["tiktoken", "imagesize"])
def test_a_server_that_cannot_count_does_all_else(missing: str, tmp_path: Path) -> None:
    """It says what to install, once a request is found to be in order."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TOKENS.format(missing=missing), str(tmp_path / "convgrpc.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/usr/bin:/bin"},
    )
    assert ended.returncode == 0, ended.stderr
    listed, rest, unknown, by_grpc = ended.stdout.splitlines()
    assert (listed, unknown) == ("1", "400")
    status, _, message = rest.partition(" ")
    code, _, details = by_grpc.partition(" ")
    assert (status, code, message) == ("501", "UNIMPLEMENTED", details)
    assert missing in message
    assert "convgrpc[tokens]" in message


def test_models_alone_are_counted_alone(client: Client) -> None:
    """The one that stands for none is not among them."""
    (counted,) = client._stub.CountInputTokens(CountInputTokensRequest(models=["gpt-4o"])).counts
    assert (counted.model, counted.input_tokens) == ("gpt-4o", 3)
