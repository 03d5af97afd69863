"""Who is let in: keys, over both transports."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from convgrpc import Client
from convgrpc.contract.methods import Method, methods
from convgrpc.errors import ConvgrpcError, Unauthenticated, Unavailable, store_unavailable
from convgrpc.handlers import conversations, input_tokens, responses
from convgrpc.server import admission as admission_module
from convgrpc.server import auth as keys_module
from convgrpc.server.admission import Admission, Limits
from convgrpc.server.app import Running
from convgrpc.server.auth import DEFAULT_PROJECT, Keys, new_key
from convgrpc.settings import Settings
from convgrpc.storage.sqlite.store import SqliteStore
from convgrpc.v1.error_reason_pb2 import ErrorReason
from tests.conftest import make_key

METHODS = methods([conversations.SERVICE, input_tokens.SERVICE, responses.SERVICE])
LIST = next(each for each in METHODS if each.name == "ListConversations")
HEEDED_WITHIN = 10.0
"""Seconds; a change is promised to be heeded within one, on a machine that is not busy."""

# What answers without a key: nothing that is stored can be learned by it.
OPEN_SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
OPEN_PATHS = ["/healthz", "/openapi.json"]


class Caller:
    """Lists conversations with an `authorization` header, or several, or none."""

    def __init__(self, channel: grpc.Channel, http: httpx.Client) -> None:
        self._channel = channel
        self._http = http

    def by_grpc(self, *authorization: str, path: str = LIST.path) -> grpc.RpcError | None:
        try:
            metadata = tuple(("authorization", each) for each in authorization)
            rpc: Any = self._channel.unary_unary(path)
            rpc(b"", timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return error
        return None

    def by_rest(self, *authorization: str) -> httpx.Response:
        headers = [(b"authorization", each.encode()) for each in authorization]
        return self._http.get("/v1/x/conversations", headers=headers)

    def gets_in(self, key: str) -> bool:
        by_grpc, by_rest = self.by_grpc(f"Bearer {key}"), self.by_rest(f"Bearer {key}")
        assert (by_grpc is None) == (by_rest.status_code == 200)
        return by_grpc is None


@pytest.fixture
def caller(channel: grpc.Channel, http: httpx.Client) -> Caller:
    return Caller(channel, http)


@pytest.fixture
def key(settings: Settings, server: Running) -> str:
    return make_key(settings, "alder")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "keys.db")
    yield opened
    asyncio.run(opened.close())


def test_without_keys_everybody_is_let_in_and_with_the_first_nobody_else(
    settings: Settings, caller: Caller, http: httpx.Client
) -> None:
    """A running server heeds it, and what was stored before is the default project's."""
    created = http.post("/v1/conversations", json={}).json()["id"]
    key = make_key(settings, DEFAULT_PROJECT)
    give_up = time.monotonic() + HEEDED_WITHIN
    while caller.by_grpc() is None and time.monotonic() < give_up:
        time.sleep(0.05)
    assert http.get(f"/v1/conversations/{created}").status_code == 401
    headers = {"authorization": f"Bearer {key}"}
    assert http.get(f"/v1/conversations/{created}", headers=headers).status_code == 200


@pytest.mark.parametrize("path", [method.path for method in METHODS])
def test_no_method_is_answered_without_a_key(path: str, caller: Caller, key: str) -> None:
    """Nor with one that is wrong."""
    for authorization in ([], ["Bearer cg_1"], [f"Bearer {key[:-1]}"]):
        error = caller.by_grpc(*authorization, path=path)
        assert error
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (admitted := caller.by_grpc(f"Bearer {key}", path=path)) is None or (
        admitted.code() is not grpc.StatusCode.UNAUTHENTICATED
    )


@pytest.mark.parametrize("method", [each for each in METHODS if each.template], ids=lambda method: method.name)
def test_no_route_is_answered_without_a_key(method: Method, key: str, http: httpx.Client) -> None:
    """Whatever is sent with it."""
    answer = http.request(method.verb, method.template.replace("{", "x").replace("}", ""))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_what_is_open_is_listed(caller: Caller, channel: grpc.Channel, key: str, http: httpx.Client) -> None:
    """Every other service that reflection tells of needs a key; health, reflection and the contract need none."""
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (told,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=20)
    services = {service.name for service in told.list_services_response.service}
    assert services == OPEN_SERVICES | {method.service for method in METHODS}
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert [http.get(path).status_code for path in OPEN_PATHS] == [200, 200]


def test_a_wrong_key_has_one_answer_whatever_is_wrong_with_it(settings: Settings, caller: Caller, key: str) -> None:
    """Mistyped, made up, expired, revoked, without its secret, twice or not as Bearer: all the same to the last
    byte.
    """
    expired, revoked = make_key(settings, "alder", lifetime=1e-9), make_key(settings, "alder")

    async def revoke() -> None:
        store = SqliteStore.open(settings.db)
        assert await store.revoke_key(revoked.split("_")[1], time.time())
        await store.close()

    asyncio.run(revoke())
    wrong = [
        [f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}"],
        [f"Bearer {new_key('alder', '', 0, None).text}"],
        [f"Bearer {expired}"],
        [f"Bearer {revoked}"],
        [f"Bearer {key[:16]}"],
        [f"Basic {key}"],
        [key],
        [""],
        ["Bearer"],
        ["Bearer clé_1"],
        [f"Bearer {key}", f"Bearer {key}"],
    ]
    assert caller.gets_in(key)
    answers: set[tuple[Any, ...]] = set()
    for authorization in wrong:
        rest = caller.by_rest(*authorization)
        answers.add((rest.status_code, rest.text))
        if all(each.isascii() for each in authorization):
            error = caller.by_grpc(*authorization)
            assert error
            answers.add((error.code().name, error.details()))
            assert not any(part in str(error.trailing_metadata()) for part in key.split("_")[1:])
    envelope = (
        '{"error":{"message":"Incorrect API key provided.","type":"invalid_request_error","param":null,'
        '"code":"invalid_api_key"}}'
    )
    assert answers == {(401, envelope), ("UNAUTHENTICATED", "Incorrect API key provided.")}


def test_the_client_shows_its_key(server: Running, key: str) -> None:
    """Without one, or with a wrong one, it is told so as by any other error."""
    target = str(server.grpc)
    with Client(target, api_key=key) as client:
        assert list(client.iter_conversations()) == []
    for wrong in (None, f"{key}0"):
        with Client(target, api_key=wrong) as client, pytest.raises(Unauthenticated) as refused:
            client.list_conversations()
        assert refused.value.reason == ErrorReason.ERROR_REASON_UNAUTHENTICATED


def test_no_key_at_all_is_told_what_to_send(caller: Caller, key: str) -> None:
    """Over gRPC with the reason."""
    error = caller.by_grpc()
    assert error
    trailers: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, "Authorization: Bearer" in status.message) == ("ERROR_REASON_UNAUTHENTICATED", True)
    assert caller.by_rest().json()["error"]["code"] == "invalid_api_key"


def test_a_key_that_is_revoked_or_made_is_heeded_by_a_running_server(
    settings: Settings, caller: Caller, key: str
) -> None:
    """Within a second; new ones at once."""
    assert caller.gets_in(key)
    assert caller.gets_in(make_key(settings, "birch"))

    async def revoke() -> None:
        store = SqliteStore.open(settings.db)
        await store.revoke_key(key.split("_")[1], time.time())
        await store.close()

    asyncio.run(revoke())
    give_up = time.monotonic() + HEEDED_WITHIN
    while caller.by_grpc(f"Bearer {key}") is None and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not caller.gets_in(key)


def test_the_body_of_a_call_without_a_key_is_not_read(key: str, server: Running) -> None:
    """Whoever has none cannot make the server read."""

    head = b"POST /v1/conversations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    with socket.create_connection(server.http, timeout=20) as connection:
        connection.sendall(head + b"content-length: 30000000\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in answer


def test_a_digest_alone_is_stored(settings: Settings, key: str) -> None:
    """Neither the key nor its secret is in any file of the database."""
    secret = key.split("_")[2].encode()
    for path in Path(settings.db).parent.glob("convgrpc.db*"):
        assert secret not in path.read_bytes()


def test_keys_are_read_again_when_they_may_have_changed(store: SqliteStore) -> None:
    """Within a second what was read is believed; after it, the store is asked."""
    now = 1000.0
    keys = Keys(store, clock=lambda: now, ticks=lambda: now)
    key = new_key("alder", "laptop", now, 60)
    header = [f"bearer {key.text}"]

    async def scenario() -> None:
        nonlocal now
        assert await keys.project([]) == DEFAULT_PROJECT
        await store.create_key(key.stored)
        assert await keys.project([]) == DEFAULT_PROJECT
        now += 1
        assert await keys.project(header) == "alder"
        await store.revoke_key(key.stored.id, now)
        assert await keys.project(header) == "alder"
        now += 1
        for refused in (header, []):
            with pytest.raises(Unauthenticated):
                await keys.project(refused)

    asyncio.run(scenario())


def test_a_call_that_lasts_is_ended_within_a_second_of_its_key(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the key is read just before it is revoked, wherever between two looks that is."""
    now, turn = 1000.0, asyncio.sleep

    async def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds
        await turn(0)

    async def lasted(phase: float) -> float:
        nonlocal now
        admission = Admission(Keys(store, clock=lambda: now, ticks=lambda: now), Limits())
        key = new_key("alder", "", now, None)
        await store.create_key(key.stored)
        ended: list[float] = []

        def end(error: ConvgrpcError) -> None:
            ended.append(now)
            checking.cancel()

        with await admission.enter([f"Bearer {key.text}"]) as call, call.cancel_on_revoke(end):
            revoked = now
            await store.revoke_key(key.stored.id, revoked)
            now += phase
            checking = asyncio.create_task(admission.check())
            await asyncio.wait([checking])
        return ended[0] - revoked

    async def scenario() -> list[float]:
        return [await lasted(tenth / 10 * admission_module._EVERY) for tenth in range(10)]

    monkeypatch.setattr(asyncio, "sleep", pass_time)
    assert max(asyncio.run(scenario())) <= 1


def test_a_database_that_cannot_be_read_lets_nobody_in(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is concluded from a read that failed, now or later."""
    key = new_key("alder", "", 1.0, None)
    keys = Keys(store, ticks=lambda: 5.0)

    async def failing(self: SqliteStore) -> bool:
        raise store_unavailable()

    async def scenario() -> None:
        await store.create_key(key.stored)
        with monkeypatch.context() as broken:
            broken.setattr(SqliteStore, "has_keys", failing)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await keys.project([])
        with pytest.raises(Unauthenticated):
            await keys.project([])

    asyncio.run(scenario())


def test_no_more_keys_are_remembered_than_there_is_room_for(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were not used for longest are read again."""
    monkeypatch.setattr(keys_module, "_MAX_KNOWN", 2)
    keys = Keys(store, clock=lambda: 1.0, ticks=lambda: 5.0)
    three = [new_key("alder", "", 1.0, None) for _ in range(3)]

    async def scenario() -> None:
        for key in three:
            await store.create_key(key.stored)
        for key in three:
            assert await keys.project([f"Bearer {key.text}"]) == "alder"
        for key in three:
            await store.revoke_key(key.stored.id, 2.0)
        for key in three[1:]:
            assert await keys.project([f"Bearer {key.text}"]) == "alder"
        with pytest.raises(Unauthenticated):
            await keys.project([f"Bearer {three[0].text}"])

    asyncio.run(scenario())


def test_a_key_expires_to_the_moment(store: SqliteStore) -> None:
    """Also while what was read of it is believed still."""
    now = 1000.0
    keys = Keys(store, clock=lambda: now, ticks=lambda: 0.0)
    key = new_key("alder", "", now, 60)

    async def scenario() -> None:
        nonlocal now
        await store.create_key(key.stored)
        now = 1059.9
        assert await keys.project([f"Bearer {key.text}"]) == "alder"
        now = 1060.0
        with pytest.raises(Unauthenticated):
            await keys.project([f"Bearer {key.text}"])

    asyncio.run(scenario())


def test_keys_that_are_there_already_are_not_forgotten(store: SqliteStore) -> None:
    """A key that is revoked still counts as one: the server does not open again."""
    key = new_key("alder", "", 1.0, None)

    async def scenario() -> None:
        assert not await store.has_keys()
        await store.create_key(key.stored)
        assert await store.revoke_key(key.stored.id, 2.0)
        assert await store.revoke_key(key.stored.id, 3.0)
        assert not await store.revoke_key("other", 3.0)
        assert await store.get_key("other") is None
        assert await store.has_keys()
        assert await store.list_keys() == [key.stored._replace(revoked_at=2.0)]

    asyncio.run(scenario())
