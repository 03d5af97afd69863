"""Projects are apart: what one of them stores is, for another, not there at all.

Whatever a caller can name of another project (a conversation, an item, a response, a cursor, a reference, an
idempotency key) is answered as if it had been made up. A new RPC must come with the attacks on it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from convgrpc.contract.decoder import decode
from convgrpc.contract.methods import Method, methods
from convgrpc.handlers import conversations, input_tokens, responses
from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from tests.conftest import make_key
from tests.server import answers

METHODS = {each.name: each for each in methods([conversations.SERVICE, input_tokens.SERVICE, responses.SERVICE])}


class Ids(NamedTuple):
    """What a project has stored, by the ids that reach it."""

    conversation: str
    first: str
    last: str
    response: str
    own: str
    """An item of the response's own, on no conversation."""
    cursor: str
    """A place in the conversation."""


MADE_UP = Ids(
    "conv_" + "0" * 48,
    "msg_" + "1" * 32 + "0" * 16,
    "msg_" + "2" * 48,
    "resp_" + "4" * 48,
    "msg_" + "3" * 32 + "0" * 16,
    "cur_" + "0" * 22,
)
HELLO = {"role": "user", "content": "Hello!"}


def reference(item_id: str) -> dict[str, str]:
    return {"type": "item_reference", "id": item_id}


# What a caller sends who names, in one place each, what the ids are of. Those that are not refused say so themselves.
ATTACKS: Mapping[str, list[Callable[[Ids], dict[str, Any]]]] = {
    "CreateConversation": [
        lambda ids: {"items": [reference(ids.first)]},
        lambda ids: {"items": [HELLO, reference(ids.own)]},
    ],
    "GetConversation": [lambda ids: {"conversation_id": ids.conversation}],
    "UpdateConversation": [lambda ids: {"conversation_id": ids.conversation, "metadata": {"taken": "over"}}],
    "DeleteConversation": [lambda ids: {"conversation_id": ids.conversation}],
    "ListConversations": [lambda ids: {"after": ids.conversation}],
    "CreateItems": [
        lambda ids: {"conversation_id": ids.conversation, "items": [HELLO]},
        lambda ids: {"conversation_id": ids.conversation, "items": [HELLO], "expected_last_item_id": ids.last},
    ],
    "ListItems": [
        lambda ids: {"conversation_id": ids.conversation},
        lambda ids: {"conversation_id": ids.conversation, "after": ids.first},
        lambda ids: {"conversation_id": ids.conversation, "order": "asc", "limit": 1},
    ],
    "GetItem": [lambda ids: {"conversation_id": ids.conversation, "item_id": ids.first}],
    "BatchGetItems": [lambda ids: {"conversation_id": ids.conversation, "item_ids": [ids.first, ids.last]}],
    "ForkConversation": [
        lambda ids: {"conversation_id": ids.conversation},
        lambda ids: {"conversation_id": ids.conversation, "last_item_id": ids.first},
    ],
    "AppendItems": [
        lambda ids: {"conversation_id": ids.conversation, "items": [HELLO]},
        lambda ids: {"conversation_id": ids.conversation, "items": [HELLO], "expected_last_item_id": ids.last},
    ],
    "ExportItems": [
        lambda ids: {"conversation_id": ids.conversation},
        lambda ids: {"conversation_id": ids.conversation, "after": ids.first},
        lambda ids: {"conversation_id": ids.conversation, "after": ids.cursor},
    ],
    "WatchItems": [
        lambda ids: {"conversation_id": ids.conversation},
        lambda ids: {"conversation_id": ids.conversation, "after": ids.last},
        lambda ids: {"conversation_id": ids.conversation, "after": ids.cursor},
        lambda ids: {"conversation_id": ids.conversation, "new_only": True},
    ],
    "DeleteItem": [lambda ids: {"conversation_id": ids.conversation, "item_id": ids.first}],
    "CountInputTokens": [
        lambda ids: {"conversation": ids.conversation},
        lambda ids: {"conversation": {"id": ids.conversation}, "input": "Hello!"},
        lambda ids: {"previous_response_id": ids.response, "input": "Hello!"},
        lambda ids: {"input": [reference(ids.first)]},
        lambda ids: {"input": [reference(ids.own)]},
    ],
    "RecordResponse": [
        lambda ids: {"conversation": ids.conversation, "output": [HELLO]},
        lambda ids: {"previous_response_id": ids.response, "output": [HELLO]},
        lambda ids: {"input": [reference(ids.first)], "output": [HELLO]},
        lambda ids: {"input": [HELLO], "output": [reference(ids.own)]},
    ],
    "GetResponse": [lambda ids: {"response_id": ids.response}],
    "DeleteResponse": [lambda ids: {"response_id": ids.response}],
}
EACH = [
    pytest.param(METHODS[name], attack, id=f"{name}-{number}")
    for name, attacks in ATTACKS.items()
    for number, attack in enumerate(attacks)
    if name in METHODS
]

# Fields by which something stored can be named, beside those that end with `_id` or `_ids`; and, of those, the ones by
# which a caller gives an id to something new.
NAMING = {"after", "conversation", "items", "input", "output"}
GIVEN = {"RecordResponse": {"request_id", "response_id"}}


class Answer(NamedTuple):
    """What came of a call: a code, and all that was said."""

    code: str
    said: str

    def without(self, ids: Ids) -> "Answer":
        """This, with the ids replaced by their names: those of two projects have the same."""
        said = self.said
        for name, value in ids._asdict().items():
            said = said.replace(value, f"<{name}>")
        return Answer(self.code, said)


class Caller:
    """A project's caller, by gRPC and by REST."""

    def __init__(self, channel: grpc.Channel, http: httpx.Client, key: str) -> None:
        self._channel = channel
        self._http = http
        self._authorization = f"Bearer {key}"

    def call(self, method: Method, value: dict[str, Any]) -> Message:
        metadata = (("authorization", self._authorization), ("x-request-id", "req_1"))
        data, _ = answers.by_grpc(
            self._channel, method, decode(method.request, value).SerializeToString(), metadata=metadata
        )
        return method.response.FromString(data[0])

    def by_grpc(self, method: Method, value: dict[str, Any]) -> Answer:
        try:
            return Answer("OK", json.dumps(MessageToDict(self.call(method, value))))
        except grpc.RpcError as error:
            trailers: Any = error.trailing_metadata()
            return Answer(error.code().name, f"{error.details()} {sorted(trailers)}")

    def by_rest(self, method: Method, value: dict[str, Any]) -> Answer:
        rest = dict(value)
        path = method.template
        for name in [name for name in value if f"{{{name}}}" in path]:
            path = path.replace(f"{{{name}}}", rest.pop(name))
        headers = {method.headers[name]: rest.pop(name) for name in list(rest) if name in method.headers}
        body = {"json": rest} if method.verb == "POST" else {"params": rest}
        told = answers.by_rest(
            self._http,
            method,
            path,
            headers={"authorization": self._authorization, "x-request-id": "req_1", **headers},
            **body,
        )
        heads = {key: value for key, value in told.headers.items() if key not in ("date", "content-length")}
        return Answer(str(told.status), f"{' '.join(told.texts)} {heads}")


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with served(replace(settings, include_policy="all")) as addresses:
        yield addresses


@pytest.fixture
def callers(server: Running, settings: Settings, channel: grpc.Channel, http: httpx.Client) -> tuple[Caller, Caller]:
    """Those of two projects."""
    return tuple(  # type: ignore[return-value]
        Caller(channel, http, make_key(settings, project)) for project in ("alder", "birch")
    )


def stored(caller: Caller) -> Ids:
    """Stores something of everything for a project."""
    conversation: Any = caller.call(METHODS["CreateConversation"], {"items": [HELLO], "metadata": {"a": "b"}})
    batch: Any = caller.call(METHODS["WatchItems"], {"conversation_id": conversation.id})
    caller.call(METHODS["CreateItems"], {"conversation_id": conversation.id, "items": [HELLO]})
    items: Any = caller.call(METHODS["ListItems"], {"conversation_id": conversation.id, "order": "asc"})
    response: Any = caller.call(METHODS["RecordResponse"], {"input": [HELLO], "output": [HELLO]})
    first, last, own = items.data[0].id, items.data[1].id, str(response.input_item_ids[0])
    return Ids(conversation.id, first, last, response.id, own, batch.cursor)


def everything(caller: Caller, ids: Ids) -> list[Answer]:
    """All that a project has, as it sees it itself."""
    reads = ["ListConversations", "GetConversation", "ListItems", "GetItem", "GetResponse", "CountInputTokens"]
    return [
        caller.by_grpc(METHODS[name], {} if name == "ListConversations" else attack(ids))
        for name in reads
        for attack in ATTACKS[name]
    ]


def test_every_rpc_is_attacked_in_every_field_that_can_name_something() -> None:
    """An RPC without attacks, or a field that none of them sets, is one that nobody looked at."""
    assert set(ATTACKS) == set(METHODS)
    for name, attacks in ATTACKS.items():
        naming = {field for field in METHODS[name].fields if field in NAMING or field.endswith(("_id", "_ids"))}
        attacked = {key for attack in attacks for key in attack(MADE_UP)}
        assert naming - attacked <= GIVEN.get(name, {"request_id"}), name


@pytest.mark.parametrize(("method", "attack"), EACH)
def test_what_is_another_projects_is_answered_as_if_it_were_made_up(
    method: Method, attack: Callable[[Ids], dict[str, Any]], callers: tuple[Caller, Caller]
) -> None:
    """By both transports, in every word and header; and its owner finds everything as it was."""
    alder, birch = callers
    ids = stored(alder)
    before = everything(alder, ids)
    for way in (Caller.by_grpc, Caller.by_rest) if method.verb else (Caller.by_grpc,):
        stolen, made_up = way(birch, method, attack(ids)), way(birch, method, attack(MADE_UP))
        assert stolen.without(ids) == made_up.without(MADE_UP)
        assert stolen.code in ("NOT_FOUND", "404", "400"), stolen
    assert everything(alder, ids) == before
    assert alder.by_grpc(method, attack(ids)).code == "OK", "the attack proves nothing: its owner is refused as well"


def test_a_project_lists_its_own_conversations_alone(callers: tuple[Caller, Caller]) -> None:
    """Also by metadata that another project's have."""
    alder, birch = callers
    ids = stored(alder)
    for value in ({}, {"metadata": {"a": "b"}}):
        page: Any = birch.call(METHODS["ListConversations"], value)
        assert (list(page.data), page.has_more) == ([], False)
        own: Any = alder.call(METHODS["ListConversations"], value)
        assert [each.id for each in own.data] == [ids.conversation]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "request_id" in method.fields])
def test_idempotency_keys_are_each_projects_own(name: str, callers: tuple[Caller, Caller]) -> None:
    """The same key, for another request, is neither refused nor answered by what another project stored."""
    requests: dict[str, Callable[[Ids, str], dict[str, Any]]] = {
        "CreateConversation": lambda ids, text: {"items": [{"role": "user", "content": text}]},
        "CreateItems": lambda ids, text: {
            "conversation_id": ids.conversation,
            "items": [{"role": "user", "content": text}],
        },
        "ForkConversation": lambda ids, text: {"conversation_id": ids.conversation, "metadata": {"of": text}},
        "AppendItems": lambda ids, text: {
            "conversation_id": ids.conversation,
            "items": [{"role": "user", "content": text}],
        },
        "RecordResponse": lambda ids, text: {"output": [{"role": "assistant", "content": text}]},
    }
    replies: list[Any] = []
    for caller, text in zip(callers, ("fern", "moss"), strict=True):
        ids = stored(caller)
        request = {**requests[name](ids, text), "request_id": "job-1"}
        replies += [caller.call(METHODS[name], request), caller.call(METHODS[name], request)]
    first, again, others, others_again = replies
    assert first == again
    assert others == others_again
    assert first != others


def test_ids_that_callers_made_up_are_each_projects_own(callers: tuple[Caller, Caller]) -> None:
    """Two projects may have items, and responses, of one id; each finds its own."""
    texts = {}
    for caller, text in zip(callers, ("fern", "moss"), strict=True):
        item = {"type": "message", "role": "user", "content": text, "id": "msg_1"}
        conversation: Any = caller.call(METHODS["CreateConversation"], {"items": [item]})
        caller.call(METHODS["RecordResponse"], {"response_id": "resp_1", "output": [reference("msg_1")]})
        texts[text] = caller, conversation.id
    for text, (caller, conversation_id) in texts.items():
        found: Any = caller.call(METHODS["GetItem"], {"conversation_id": conversation_id, "item_id": "msg_1"})
        assert found.message.content[0].input_text.text == text
        response: Any = caller.call(METHODS["GetResponse"], {"response_id": "resp_1"})
        copy: Any = caller.call(METHODS["CreateConversation"], {"items": [reference("msg_1")]})
        copied: Any = caller.call(METHODS["ListItems"], {"conversation_id": copy.id})
        assert response.output_item_ids == ["msg_1"]
        assert copied.data[0].message.content[0].input_text.text == text


def test_what_was_counted_for_one_project_is_not_told_to_another(callers: tuple[Caller, Caller]) -> None:
    """Although what its items count is remembered."""
    alder, birch = callers
    ids = stored(alder)
    count = METHODS["CountInputTokens"]
    assert alder.by_rest(count, {"conversation": ids.conversation}).code == "200"
    assert birch.by_rest(count, {"conversation": ids.conversation}).code == "404"
    assert alder.by_rest(count, {"previous_response_id": ids.response}).code == "200"
    assert birch.by_rest(count, {"previous_response_id": ids.response}).code == "400"
