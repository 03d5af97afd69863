"""Keys, TLS, proxies, threads, event loops, and the end of a client."""

import asyncio
import gc
import logging
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import convgrpc
from convgrpc import AsyncClient, Client
from convgrpc.client.endpoint import is_local
from convgrpc.server.app import Running

from .raw_server import answering

KEY = "sk-a-very-secret-key"


class Recorder:
    """Answers every call with an empty message, and keeps the metadata of the last."""

    metadata: dict[str, Any]

    def __call__(self, request: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        return b""


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1:1", "127.8.9.1:1", "localhost:1", "localhost", "LOCALHOST:http", "[::1]:1", "[::1]", "::1",
     "dns:///localhost:1", "dns:localhost:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "unix:/run/a.sock",
     "unix:///run/a.sock", "unix-abstract:a"],
)  # fmt: skip
def test_targets_on_this_machine(target: str) -> None:
    assert is_local(target)


@pytest.mark.parametrize(
    "target",
    ["example.com:1", "10.0.0.1:1", "0.0.0.0:1", "127.0.0.1.example.com:1", "localhost.example.com:1", "[2001:db8::1]:1",
     "dns:///example.com", "dns://8.8.8.8/localhost:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "xds:///localhost", "", "127.0.0.1@example.com:1",
     "example.com:127.0.0.1"],
)  # fmt: skip
def test_targets_elsewhere(target: str) -> None:
    assert not is_local(target)


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_a_key_does_not_leave_this_machine_in_the_clear(client_class: Any) -> None:
    """Unless that is meant; and a key that is none is refused without being shown."""
    with pytest.raises(ValueError, match=r"'example\.com:443' in the clear") as refused:
        client_class("example.com:443", api_key=KEY)
    assert KEY not in str(refused.value)
    client_class("example.com:443", api_key=KEY, insecure=True)
    client_class("example.com:443", api_key=KEY, credentials=grpc.ssl_channel_credentials())
    # As it is read from a file.
    client_class(api_key=f"{KEY}\n")
    for key in ("", "\n", f"{KEY} {KEY}", f"{KEY}é"):
        with pytest.raises(ValueError, match="printable ASCII") as refused:
            client_class(api_key=key)
        assert KEY not in str(refused.value)


@pytest.mark.parametrize("target", ["", None, "http://127.0.0.1:50051", "https://example.com"])
def test_what_is_no_target_is_refused(target: Any) -> None:
    """At once, saying what is one."""
    with pytest.raises(ValueError, match="give HOST:PORT"):
        Client(target)


def test_a_key_goes_with_every_call_and_is_never_shown(client_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what a client prints, nor in its errors, nor in what is logged."""
    caplog.set_level(logging.DEBUG)
    recorder = Recorder()
    with answering(recorder) as port, client_class(f"127.0.0.1:{port}", api_key=KEY) as client:
        client.get_conversation("conv_1")
        assert recorder.metadata["authorization"] == f"Bearer {KEY}"
    with client_class(f"127.0.0.1:{port}", api_key=KEY, timeout=0.1) as client:
        with pytest.raises(convgrpc.ConvgrpcError) as refused:
            client.get_conversation("conv_1")
        shown = f"{client!r} {refused.value!r} {refused.value.__cause__!r} {caplog.text}"
    assert KEY not in shown
    assert repr(Client("example.com:1", insecure=True, api_key=KEY)) == "<convgrpc.Client 'example.com:1'>"
    assert repr(AsyncClient("example.com:1", insecure=True, api_key=KEY)) == "<convgrpc.AsyncClient 'example.com:1'>"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_tls(client_class: Any, tmp_path: Path) -> None:
    """With the credentials of gRPC; a server whose certificate is not trusted gets no key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    recorder = Recorder()
    served = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    trusting = grpc.ssl_channel_credentials(certificate.read_bytes())
    with answering(recorder, served) as port:
        with client_class(f"localhost:{port}", credentials=trusting, api_key=KEY) as client:
            client.get_conversation("conv_1")
        assert recorder.metadata.pop("authorization") == f"Bearer {KEY}"
        others = grpc.ssl_channel_credentials()
        with (
            client_class(f"localhost:{port}", credentials=others, api_key=KEY, timeout=1) as client,
            pytest.raises((convgrpc.Unavailable, convgrpc.DeadlineExceeded)),
        ):
            client.get_conversation("conv_1")
        assert "authorization" not in recorder.metadata


def test_no_proxy_stands_between_a_client_and_its_own_machine(
    server: Running, client_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with client_class(str(server.grpc), timeout=5) as client:
        assert client.create_conversation().id


def test_options_of_the_caller_come_first(server: Running, client_class: Any) -> None:
    options = [("grpc.max_receive_message_length", 10)]
    with client_class(str(server.grpc), options=options) as client, pytest.raises(convgrpc.ResourceExhausted):
        client.create_conversation()


def test_each_client_has_a_connection_of_its_own(client_class: Any) -> None:
    """Calls that stay open on one, as watches do, are not in the way of those on another."""
    peers: list[str] = []

    def handle(request: bytes, context: Any) -> bytes:
        peers.append(context.peer())
        return b""

    with (
        answering(handle) as port,
        client_class(f"127.0.0.1:{port}") as one,
        client_class(f"127.0.0.1:{port}") as other,
    ):
        for client in (one, other, one):
            client.get_conversation("conv_1")
    first, second, again = peers
    assert first == again != second


def test_a_client_that_is_closed_says_so(server: Running, client_class: Any) -> None:
    """However often it is closed, and whether it was used or not."""
    for used in (True, False):
        with client_class(str(server.grpc)) as client:
            if used:
                client.create_conversation()
            client.close()
            client.close()
            with pytest.raises(RuntimeError, match="this client is closed"):
                client.create_conversation()


def test_a_client_that_is_not_closed_leaves_no_noise(server: Running) -> None:
    """Warnings are errors here, those of collected objects too."""

    async def use() -> None:
        await AsyncClient(str(server.grpc)).create_conversation()

    Client(str(server.grpc)).create_conversation()
    asyncio.run(use())
    gc.collect()


def test_threads_use_one_client_at_once(server: Running) -> None:
    """From its first call on; all by one connection."""
    with Client(str(server.grpc)) as client:
        barrier = threading.Barrier(16)

        def work(number: int) -> str:
            barrier.wait(10)
            conversation = client.create_conversation(metadata={"n": str(number)})
            return client.get_conversation(conversation.id).metadata.pairs["n"]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(work, range(16))) == [str(number) for number in range(16)]
        assert len(client._channels) == 1


def test_tasks_use_one_client_at_once(server: Running) -> None:
    async def life() -> int:
        async with AsyncClient(str(server.grpc)) as client:
            made = await asyncio.gather(*(client.create_conversation() for _ in range(50)))
            return len({conversation.id for conversation in made})

    assert asyncio.run(life()) == 50


def test_an_async_client_outlives_its_event_loop(server: Running) -> None:
    """`asyncio.run` one after the other, as scripts and tests do."""
    client = AsyncClient(str(server.grpc))

    async def one() -> str:
        return (await client.create_conversation()).id

    assert asyncio.run(one()) != asyncio.run(one())
    asyncio.run(client.close())


def test_an_async_client_is_refused_in_a_second_event_loop(server: Running) -> None:
    """While the first one is there."""
    client = AsyncClient(str(server.grpc))

    async def life(during: Callable[[], object]) -> None:
        await client.create_conversation()
        await asyncio.to_thread(during)
        await client.close()

    def elsewhere() -> None:
        async def use() -> None:
            await client.create_conversation()

        with pytest.raises(RuntimeError, match="in use in another event loop"):
            asyncio.run(use())

    asyncio.run(life(elsewhere))
