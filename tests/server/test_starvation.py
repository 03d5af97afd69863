"""One project cannot starve another: attacks by callers with a valid key, while another project makes its calls.

Each attack is made by every transport that can make it. The other project's calls all succeed. Each takes at most
`MULTIPLE` times as long as a count of 1 MB took before the attack, and the server's memory stays within a bound.
"""

import base64
import random
import string
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from convgrpc.contract.decoder import decode
from convgrpc.settings import Settings
from convgrpc.v1.conversations_service_pb2 import (
    AppendItemsRequest,
    CreateItemsRequest,
    ExportItemsRequest,
    ForkConversationRequest,
    ListConversationsRequest,
    ListItemsRequest,
)
from convgrpc.v1.conversations_service_pb2_grpc import ConversationsServiceStub
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.input_tokens_service_pb2_grpc import InputTokensServiceStub
from tests.conftest import make_key
from tests.server.test_hostile import Victim, served
from tests.tokens.test_files import pdf, shown

TIMEOUT = 120
MIB = 1 << 20
MULTIPLE = 16
"""How many times as long as a count of 1 MB, made before the attack, another project's call may take."""
REFUSED = (429, 504)
REFUSED_CODES = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
LETTERS = 700_000
CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

Call = Callable[[], None]


class Caller:
    """A project's clients, one for each transport."""

    def __init__(self, victim: Victim, key: str, stack: ExitStack) -> None:
        headers = {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=None)
        url = f"http://127.0.0.1:{victim.http}/v1"
        self._http = stack.enter_context(
            httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, limits=limits, trust_env=False)
        )
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{victim.grpc}", options=CHANNEL))
        self._conversations, self._tokens = ConversationsServiceStub(channel), InputTokensServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {key}")]
        self.served = 0

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def conversation(self, *texts: str) -> tuple[str, list[str]]:
        """Stores a conversation of messages. Returns its id, and those of its items."""
        conversation = self.post("/conversations")["id"]
        added = [
            self.post(f"/conversations/{conversation}/items", items=[{"role": "user", "content": text}])["data"][0]
            for text in texts
        ]
        return conversation, [item["id"] for item in added]

    # Each of these makes one call, which may be refused.

    def rest(self, verb: str, path: str, body: Any = None) -> None:
        # A connection that reads too slowly is closed.
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):
            answer = self._http.request(verb, path, json=body)
            assert answer.status_code in (200, *REFUSED), answer.text
            self.served += answer.status_code == 200

    def count_by_grpc(self, body: dict[str, Any]) -> None:
        self._call(self._tokens.CountInputTokens, decode(CountInputTokensRequest, body))

    def create_by_grpc(self, body: dict[str, Any]) -> None:
        self._call(self._conversations.CreateItems, decode(CreateItemsRequest, body))

    def append_by_stream(self, bodies: list[dict[str, Any]]) -> None:
        requests = [decode(AppendItemsRequest, body) for body in bodies]
        self._call(lambda given, **options: list(self._conversations.AppendItems(iter(given), **options)), requests)

    def export_by_grpc(self, conversation: str) -> None:
        request = ExportItemsRequest(conversation_id=conversation)
        self._call(lambda given, **options: list(self._conversations.ExportItems(given, **options)), request)

    def list_by_grpc(self, conversation: str, tokens: int) -> None:
        request = ListItemsRequest(conversation_id=conversation)
        request.budget.input_tokens = tokens
        self._call(self._conversations.ListItems, request)

    def fork_by_grpc(self, conversation: str) -> None:
        self._call(self._conversations.ForkConversation, ForkConversationRequest(conversation_id=conversation))

    def search_by_grpc(self, request: ListConversationsRequest) -> None:
        for _ in range(5):
            self._call(self._conversations.ListConversations, request)

    def _call(self, method: Any, request: Message | Sequence[Message]) -> None:
        try:
            method(request, timeout=TIMEOUT, metadata=self._metadata)
            self.served += 1
        except grpc.RpcError as error:
            if error.code() not in REFUSED_CODES:
                raise


class Site(NamedTuple):
    """A server, the project that attacks, and the other one with what it has stored."""

    victim: Victim
    attacker: Caller
    other: Caller


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("starvation")
    settings = Settings(db=str(folder / "hostile.db"))
    keys = [make_key(settings, project) for project in ("attacker", "other")]
    with served(folder, "--transfer-timeout", "30") as ports, ExitStack() as stack:
        victim = Victim(*ports, "")
        attacker, other = (Caller(victim, key, stack) for key in keys)
        conversation, _ = other.conversation("fern")
        yield Site(victim._replace(conversation=conversation), attacker, other)


def reference(item_id: str) -> dict[str, str]:
    return {"type": "item_reference", "id": item_id}


def letters(seed: int, size: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=size))


def file(number: int) -> dict[str, str]:
    data = base64.b64encode(pdf(shown(str(number)))).decode()
    return {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}


# Each prepares an attack, and returns the calls that are made at once.


def referenced_counts(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Counts of 3 stored items of 10 MiB, each in a request of some 300 bytes."""
    _, items = attacker.conversation(*[f"{number}" + "fern " * (2 * MIB - 1) for number in range(3)])
    body = {"model": "gpt-4o", "input": [reference(item) for item in items]}
    return counts(attacker, body, 30, by_grpc=by_grpc)


def unbroken_counts(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Counts of stored texts without a space."""
    conversations = [attacker.conversation(*[letters(n * 3 + part, LETTERS) for part in range(3)])[0] for n in range(4)]
    return [
        call
        for conversation in conversations
        for call in counts(attacker, {"model": "gpt-4o", "conversation": conversation}, 1, by_grpc=by_grpc)
    ]


def sent_unbroken_counts(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Counts of texts without a space that come with the request."""
    return counts(attacker, {"model": "gpt-4", "input": letters(9, 3 * LETTERS)}, 4, by_grpc=by_grpc)


def files(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Counts of 300 tiny PDFs each."""
    content = [file(number) for number in range(300)]
    body = {"model": "gpt-4o", "input": [{"role": "user", "content": content}]}
    return counts(attacker, body, 4, by_grpc=by_grpc)


def chains(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Counts of a chain of 1,500 responses."""
    previous: dict[str, str] = {}
    for number in range(1500):
        said = [{"role": "user", "content": f"fern {number}"}]
        previous = {"previous_response_id": attacker.post("/x/responses", input=said, **previous)["id"]}
    return counts(attacker, {"model": "gpt-4o", **previous}, 30, by_grpc=by_grpc)


def large_json(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Counts of calls with 2 MiB of JSON, and of tools with as many values as a request may have."""
    arguments = '{"a": [' + "1, " * (2 * MIB // 3) + "1]}"
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments}
    tool = {"type": "function", "name": "f", "parameters": {"enum": list(range(400_000))}}
    conversation = attacker.post("/conversations", items=[call])["id"]
    return [
        *counts(attacker, {"model": "gpt-4o", "input": [call]}, 4, by_grpc=by_grpc),
        *counts(attacker, {"model": "gpt-4o", "input": "fern", "tools": [tool]}, 3, by_grpc=by_grpc),
        *counts(attacker, {"model": "gpt-4o", "conversation": conversation}, 3, by_grpc=by_grpc),
    ]


def searches(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Searches by 16 pairs of metadata, of which 1,000 conversations lack the last."""
    pairs = {f"key {number}": "v" * 500 for number in range(16)}
    for _ in range(1000):
        attacker.post("/conversations", metadata={**pairs, "key 15": "other"})
    if by_grpc:
        request = ListConversationsRequest()
        request.metadata.pairs.update(pairs)
        return [partial(attacker.search_by_grpc, request)] * 40
    query = "&".join(f"metadata[{key}]={value}" for key, value in pairs.items())
    return [lambda: attacker.rest("GET", f"/x/conversations?{query}")] * 40


def counts(attacker: Caller, body: dict[str, Any], times: int, *, by_grpc: bool) -> list[Call]:
    if by_grpc:
        return [lambda: attacker.count_by_grpc(body)] * times
    return [lambda: attacker.rest("POST", "/responses/input_tokens", body)] * times


def copies(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Appends of some 230 bytes that copy 3 items of 10 MiB each, and are answered with them."""
    _, items = attacker.conversation(*[f"{number}" + "fern " * (2 * MIB - 1) for number in range(3)])
    calls: list[Call] = []
    for _ in range(30):
        conversation, _ = attacker.conversation()
        body = {"items": [reference(item) for item in items]}
        if by_grpc:
            calls.append(partial(attacker.create_by_grpc, {**body, "conversation_id": conversation}))
        else:
            calls.append(partial(attacker.rest, "POST", f"/conversations/{conversation}/items", body))
    return calls


def forks(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Forks of a conversation of 20 MiB."""
    conversation, _ = attacker.conversation(*[letters(number, 10 * MIB - 1) for number in range(2)])
    if by_grpc:
        return [lambda: attacker.fork_by_grpc(conversation)] * 15
    return [lambda: attacker.rest("POST", f"/x/conversations/{conversation}:fork", {})] * 15


def streamed_copies(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Streams of appends that copy 3 items of 10 MiB each."""
    _, items = attacker.conversation(*[f"{number}" + "fern " * (2 * MIB - 1) for number in range(3)])
    calls: list[Call] = []
    references = [reference(item) for item in items]
    for _ in range(8):
        bodies = [{"conversation_id": attacker.conversation()[0], "items": references} for _ in range(3)]
        calls.append(partial(attacker.append_by_stream, bodies))
    return calls


def budget_lists(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Lists of as much of a conversation of large items as fits into a number of tokens."""
    conversation, _ = attacker.conversation(*[letters(number, LETTERS) for number in range(3)])
    return [lambda: attacker.list_by_grpc(conversation, 1_000_000)] * 8


def exports(attacker: Caller, by_grpc: bool) -> list[Call]:
    """Exports of conversations of large items."""
    conversation, _ = attacker.conversation(*[letters(number, 8 * MIB) for number in range(3)])
    if by_grpc:
        return [lambda: attacker.export_by_grpc(conversation)] * 20
    return [lambda: attacker.rest("GET", f"/x/conversations/{conversation}/items:export")] * 20


Attack = Callable[[Caller, bool], list[Call]]
ATTACKS: list[Attack] = [
    referenced_counts,
    unbroken_counts,
    sent_unbroken_counts,
    files,
    chains,
    large_json,
    searches,
    copies,
    forks,
    streamed_copies,
    budget_lists,
    exports,
]
ONLY_BY_GRPC = (streamed_copies, budget_lists)
LONG = {
    (large_json, True),
    (searches, False),
    (forks, True),
    (sent_unbroken_counts, False),
    (unbroken_counts, False),
    (sent_unbroken_counts, True),
    (referenced_counts, True),
    (exports, False),
    (chains, True),
}
"""Attacks by the other transport, which do the same to the server."""
MEMORY = 300 * MIB
"""How much more memory a server may have during an attack, unless it is said below."""
MEMORY_OF: dict[Attack, int] = {exports: 700 * MIB}
MULTIPLE_OF: dict[Attack, int] = {copies: 24, forks: 24, streamed_copies: 24}
"""A write waits for the write before it, which is one of 30 MiB here."""


def parameters() -> Iterator[Any]:
    for attack in ATTACKS:
        for by_grpc in (False, True):
            if by_grpc or attack not in ONLY_BY_GRPC:
                marks = [pytest.mark.long] if (attack, by_grpc) in LONG else []
                name = f"{attack.__name__}-{'grpc' if by_grpc else 'rest'}"
                yield pytest.param(attack, by_grpc, id=name, marks=marks)


class Seen(NamedTuple):
    """The slowest call of the other project, in seconds, and the most memory of the server, in bytes."""

    slowest: dict[str, float]
    memory: list[int]


@contextmanager
def observed(site: Site) -> Iterator[Seen]:
    """Makes calls of the other project, one after the other, and looks at the memory while the context lasts."""
    seen, over, failures = Seen({}, []), threading.Event(), []

    def look() -> None:
        while not over.wait(0.01):
            seen.memory.append(site.victim.memory())

    def make_calls() -> None:
        while not over.wait(0.02):
            for name, call in other_calls(site).items():
                began = time.perf_counter()
                try:
                    call()
                except Exception as failure:
                    failures.append(failure)
                seen.slowest[name] = max(seen.slowest.get(name, 0), time.perf_counter() - began)

    threads = [threading.Thread(target=each) for each in (look, make_calls)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


def other_calls(site: Site) -> dict[str, Call]:
    other, conversation = site.other, site.victim.conversation
    text = "fern moss " * 2000

    def read() -> None:
        assert other._http.get(f"/conversations/{conversation}/items").status_code == 200

    def append() -> None:
        other.post(f"/conversations/{conversation}/items", items=[{"role": "user", "content": "moss"}])

    def count() -> None:
        other.post("/responses/input_tokens", model="gpt-4o", input=text)

    def count_file() -> None:
        other.post("/responses/input_tokens", model="gpt-4o", input=[{"role": "user", "content": [file(0)]}])

    return {"read": read, "append": append, "count": count, "count_file": count_file}


def slowest(call: Callable[[], object]) -> float:
    """The time of the slowest of some calls."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return max(times)


def at_once(calls: list[Call]) -> None:
    failures = []

    def make(call: Call) -> None:
        try:
            call()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=make, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(("attack", "by_grpc"), list(parameters()))
def test_other_project_is_served_during(site: Site, attack: Attack, by_grpc: bool) -> None:
    megabyte = "fern moss " * 100_000
    usual = slowest(lambda: site.other.post("/responses/input_tokens", model="gpt-4o", input=megabyte))
    before = {name: max(usual, slowest(call)) for name, call in other_calls(site).items()}
    calls = attack(site.attacker, by_grpc)
    memory = site.victim.memory()
    served = site.attacker.served
    with observed(site) as seen:
        at_once(calls)
    assert site.attacker.served > served, "an attack of which all calls are refused shows nothing"
    multiple = MULTIPLE_OF.get(attack, MULTIPLE)
    assert {name: each for name, each in seen.slowest.items() if each > multiple * before[name]} == {}
    assert max(seen.memory) - memory < MEMORY_OF.get(attack, MEMORY)
