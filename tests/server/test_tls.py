"""TLS on both transports, with certificates that change while the server runs."""

import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convgrpc import Client
from convgrpc.errors import ConvgrpcError
from convgrpc.server.app import CannotSecure, Running
from convgrpc.server.tls import Certificates, Files
from convgrpc.settings import Settings
from convgrpc.testing import served
from tests.conftest import FREE_PORT, make_key

TIMEOUT = 20


class Authority:
    """An authority, and what is made by it."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        return self.ca.cert_pem.bytes()

    def server(self) -> tuple[bytes, bytes]:
        """A server's certificate and its key."""
        return _pair(self.ca.issue_cert("127.0.0.1", "localhost"))

    def client(self) -> tuple[bytes, bytes]:
        """A caller's certificate and its key."""
        return _pair(self.ca.issue_cert("job@example.org"))


def _pair(made: trustme.LeafCert) -> tuple[bytes, bytes]:
    return b"".join(each.bytes() for each in made.cert_chain_pems), made.private_key_pem.bytes()


class Folder:
    """The files of a server's certificates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.certificate, self.key, self.authorities = (path / f"{name}.pem" for name in ("tls", "key", "clients"))

    def write(self, path: Path, content: bytes) -> None:
        """Puts a file in the place of another, as those do who renew certificates."""
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        os.replace(fresh, path)

    def write_pair(self, pair: tuple[bytes, bytes]) -> None:
        self.write(self.certificate, pair[0])
        self.write(self.key, pair[1])

    def files(self, *, mutual: bool = False) -> Files:
        return Files(str(self.certificate), str(self.key), str(self.authorities) if mutual else "")


class Caller:
    """Asks for the health over a new connection, trusting one authority, and showing a certificate if there is one."""

    def __init__(self, server: Running, authority: Authority, pair: tuple[bytes, bytes] | None = None) -> None:
        self._server = server
        self._authority = authority
        self._pair = pair

    def by_grpc(self) -> bool:
        certificate, key = self._pair or (None, None)
        credentials = grpc.ssl_channel_credentials(self._authority.pem, key, certificate)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(str(self._server.grpc), credentials, options) as channel:
            return answers(channel)

    def by_rest(self, folder: Path) -> bool:
        context = ssl.create_default_context(cadata=self._authority.pem.decode())
        if self._pair:
            path = folder / "caller.pem"
            path.write_bytes(b"".join(self._pair))
            context.load_cert_chain(path)
        try:
            with httpx.Client(verify=context, timeout=TIMEOUT) as http:
                return http.get(f"https://{self._server.http}/healthz").status_code == 200
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            return False

    def gets_in(self, folder: Path) -> bool:
        by_grpc, by_rest = self.by_grpc(), self.by_rest(folder)
        assert by_grpc == by_rest
        return by_grpc


def answers(channel: grpc.Channel) -> bool:
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Folder:
    made = Folder(tmp_path)
    made.write_pair(authority.server())
    made.write(made.authorities, authority.pem)
    return made


@pytest.fixture
def secure(settings: Settings, folder: Folder) -> Settings:
    return replace(settings, tls_cert=str(folder.certificate), tls_key=str(folder.key))


@pytest.fixture
def tls(secure: Settings) -> Iterator[Running]:
    with served(secure) as addresses:
        yield addresses


@pytest.fixture
def mutual(secure: Settings, folder: Folder) -> Iterator[Running]:
    with served(replace(secure, tls_client_ca=str(folder.authorities))) as addresses:
        yield addresses


def test_both_transports_speak_tls_and_nothing_else(tls: Running, authority: Authority, tmp_path: Path) -> None:
    """A caller who does not trust the certificate is not let in, nor is one who speaks plainly."""
    assert Caller(tls, authority).gets_in(tmp_path)
    assert not Caller(tls, Authority()).gets_in(tmp_path)
    with grpc.insecure_channel(str(tls.grpc)) as channel:
        assert not answers(channel)
    with httpx.Client(timeout=TIMEOUT) as http, pytest.raises(httpx.HTTPError):
        http.get(f"http://{tls.http}/healthz")


def test_the_client_speaks_tls(settings: Settings, tls: Running, authority: Authority) -> None:
    """And shows its key to nobody whose certificate it does not trust."""
    key = make_key(settings, "alder")
    trusting, others = (grpc.ssl_channel_credentials(each.pem) for each in (authority, Authority()))
    with Client(str(tls.grpc), api_key=key, credentials=trusting) as client:
        assert client.create_conversation().id
    with Client(str(tls.grpc), api_key=key, credentials=others, timeout=2) as client, pytest.raises(ConvgrpcError):
        client.create_conversation()


def test_callers_need_a_certificate_where_authorities_for_them_are_given(
    mutual: Running, authority: Authority, tmp_path: Path
) -> None:
    """One of these authorities', over both transports."""
    assert Caller(mutual, authority, authority.client()).gets_in(tmp_path)
    assert not Caller(mutual, authority).gets_in(tmp_path)
    assert not Caller(mutual, authority, Authority().client()).gets_in(tmp_path)


def test_renewed_certificates_are_used_without_a_restart(mutual: Running, authority: Authority, folder: Folder) -> None:
    """The server's own and those of the callers' authorities; what is no longer there is trusted no longer."""
    other = Authority()
    folder.write_pair(other.server())
    assert Caller(mutual, other, authority.client()).gets_in(folder.path)
    assert not Caller(mutual, authority, authority.client()).gets_in(folder.path)
    folder.write(folder.authorities, other.pem)
    assert Caller(mutual, other, other.client()).gets_in(folder.path)
    assert not Caller(mutual, other, authority.client()).gets_in(folder.path)


@pytest.mark.parametrize(
    "broken",
    [
        lambda folder: folder.key.unlink(),
        lambda folder: folder.write(folder.key, Authority().server()[1]),
        lambda folder: folder.write(folder.certificate, b""),
        lambda folder: folder.write(folder.authorities, b"no certificate"),
    ],
    ids=["key missing", "key of another", "certificate empty", "authorities unreadable"],
)
def test_what_cannot_be_used_leaves_the_certificates_as_they_were(
    broken: Callable[[Folder], None],
    mutual: Running,
    authority: Authority,
    folder: Folder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once, and what comes after it is used."""
    caller = Caller(mutual, authority, authority.client())
    broken(folder)
    assert caller.gets_in(folder.path)
    assert caller.gets_in(folder.path)
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert str(folder.certificate) in logged[0].getMessage()
    other = Authority()
    folder.write_pair(other.server())
    folder.write(folder.authorities, other.pem)
    assert Caller(mutual, other, other.client()).gets_in(folder.path)


def encrypted_key(authority: Authority) -> bytes:
    """A key that needs a password."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(authority.server()[1], None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


@pytest.mark.parametrize(
    "broken",
    [
        lambda folder, _: folder.key.unlink(),
        lambda folder, _: folder.certificate.write_bytes(b""),
        lambda folder, authority: folder.key.write_bytes(encrypted_key(authority)),
        lambda folder, authority: folder.key.write_bytes(authority.server()[1]),
        lambda folder, _: folder.authorities.write_bytes(b""),
    ],
    ids=["no key", "empty certificate", "key with a password", "key of another", "no authorities"],
)
def test_a_server_does_not_start_with_files_that_cannot_be_used(
    broken: Callable[[Folder, Authority], None], folder: Folder, authority: Authority, secure: Settings
) -> None:
    """It names them, and neither asks for a password nor makes a database."""
    broken(folder, authority)
    with (
        pytest.raises(CannotSecure, match=str(folder.certificate)) as refused,
        served(replace(secure, tls_client_ca=str(folder.authorities))),
    ):
        pass
    is_encrypted = folder.key.exists() and b"ENCRYPTED" in folder.key.read_bytes()
    assert ("the key has a password" in str(refused.value)) == is_encrypted
    assert not Path(secure.db).exists()


def test_a_certificate_that_has_expired_is_told(
    authority: Authority, folder: Folder, secure: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Until when it is valid is measured, so that somebody is warned in time; callers refuse one that is not."""
    until = datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)
    with served(replace(secure, metrics=FREE_PORT, tls_client_ca=str(folder.authorities))) as server:

        def expires_at() -> float:
            page = httpx.get(f"http://{server.metrics}/metrics").text
            found = re.search(r"^convgrpc_tls_certificate_expires_at_seconds (\S+)$", page, re.MULTILINE)
            assert found
            return float(found[1])

        assert expires_at() > time.time()
        assert "expired" not in caplog.text
        old = authority.ca.issue_cert("localhost", not_before=until - timedelta(days=9), not_after=until)
        folder.write_pair(_pair(old))
        assert expires_at() == until.timestamp()
        assert f"The certificate in {folder.certificate} has expired" in caplog.text


def test_grpc_is_given_no_configuration_twice(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It destroys each: given the same again, it would read freed memory. Without a change it is given none."""
    given: list[Any] = []
    asked: list[Callable[[], Any]] = []

    def credentials(initial: Any, fetch: Callable[[], Any], require: bool) -> Any:
        given.append(initial)
        asked.append(fetch)

    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", credentials)
    Certificates(folder.files()).for_grpc()
    assert [asked[0]() for _ in range(3)] == [None] * 3
    for _ in range(2):
        folder.write_pair(Authority().server())
        given += [asked[0](), *(each for each in [asked[0]()] if each)]
    assert len({id(each) for each in given}) == len(given) == 3


def test_many_handshakes_at_once_do_no_harm(tls: Running, authority: Authority) -> None:
    """Each reads the certificates."""
    with ThreadPoolExecutor(16) as pool:
        callers = [Caller(tls, authority) for _ in range(200)]
        assert all(pool.map(Caller.by_grpc, callers))


def test_handshakes_that_fail_count_no_longer(secure: Settings, authority: Authority, tmp_path: Path) -> None:
    """Whether the other end is wrong or silent: as many connections as before may come after them."""
    with served(replace(secure, max_connections=4, transfer_timeout=0.2)) as server:
        for said in (b"no TLS at all", b"") * 4:
            with socket.create_connection(server.http, timeout=TIMEOUT) as connection:
                connection.sendall(said)
                with suppress(ConnectionError):
                    while connection.recv(1000):
                        pass
        # Those of whom the server still waits for something would make room for others.
        time.sleep(1)
        assert Caller(server, authority).by_rest(tmp_path)


def test_files_that_did_not_change_are_read_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many handshakes there are."""
    certificates = Certificates(folder.files())
    monkeypatch.setattr(Certificates, "_load", lambda self: pytest.fail("read again"))
    assert certificates._current() is certificates._current()


@pytest.mark.parametrize(
    "given",
    [{"tls_cert": "a.pem"}, {"tls_key": "a.pem"}, {"tls_client_ca": "a.pem"}],
    ids=["no key", "no certificate", "authorities alone"],
)
def test_settings_that_do_not_suffice_are_refused(given: dict[str, str]) -> None:
    """With the names of the flags."""
    with pytest.raises(ValueError, match="--tls-cert"):
        Settings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644, 0o660, 0o604])
@pytest.mark.parametrize("is_roots", [True, False])
def test_key_that_others_can_read_is_told(
    folder: Folder, caplog: pytest.LogCaptureFixture, mode: int, is_roots: bool
) -> None:
    """The warning names the file, its mode, and the command that mends it. A group may read a key of root's."""
    if os.geteuid() == 0:
        os.chown(folder.key, 0 if is_roots else 1000, -1)
    elif is_roots:
        pytest.skip("only root can make a file that is root's")
    folder.key.chmod(mode)
    Certificates(folder.files())
    warned = [record.getMessage() for record in caplog.records if "Other users can read" in record.getMessage()]
    may_read = 0o640 if is_roots else 0o600
    expected = (
        f"Other users can read the TLS key {folder.key}, which has the mode {mode:04o}: run chmod 600 {folder.key}"
    )
    assert warned == ([expected] if mode & ~may_read else [])


def test_new_key_that_others_can_read_is_told(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """The key is checked whenever it is read again."""
    certificates = Certificates(folder.files())
    folder.key.chmod(0o600)
    assert certificates.expires_at
    caplog.clear()
    folder.write_pair(Authority().server())
    folder.key.chmod(0o644)
    assert certificates.expires_at
    assert f"Other users can read the TLS key {folder.key}, which has the mode 0644" in caplog.text
