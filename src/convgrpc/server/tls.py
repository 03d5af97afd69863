"""The certificates by which a server shows who it is, and by which callers do: read again when their files change."""

import logging
import math
import os
import ssl
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import grpc

_log = logging.getLogger(__name__)

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME.
_NO_CHECK_TIME = 0x200000
_TURNS = 3
"""How often both sides have theirs in a handshake, by older versions of TLS too."""

_State: TypeAlias = tuple[tuple[int, int, int], ...]


class Files(NamedTuple):
    """PEM files: the server's certificate with those between it and its authority, its key, and the authorities of
    callers, who then need a certificate of their own; without these last ones anybody may call.
    """

    certificate: str
    key: str
    client_authorities: str


class _Loaded(NamedTuple):
    state: _State
    for_rest: ssl.SSLContext
    certificate: bytes
    key: bytes
    authorities: bytes | None
    expires_at: float

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        """A new configuration: gRPC destroys each that it is given, and must not be given one twice."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.authorities)


class Certificates:
    """What both fronts need for TLS. Each handshake is by the files as they are then.

    While what is in the files cannot be used, as when only one of two is written, the certificates before them stay.
    Raises `ValueError`, with a message for the operator, where the files cannot be used to begin with.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        # gRPC asks in threads of its own.
        self._lock = threading.Lock()
        self._loaded = self._load()
        self._last_reported_bad_state: _State | None = None

    @property
    def expires_at(self) -> float:
        """Until when the server's certificate is valid, in Unix time."""
        return self._current().expires_at

    def for_grpc(self) -> grpc.ServerCredentials:
        """Credentials for a gRPC server."""
        shown = self._current()

        def renewed() -> Any:
            nonlocal shown
            before, shown = shown, self._current()
            return None if shown is before else shown.for_grpc()

        return grpc.dynamic_ssl_server_credentials(shown.for_grpc(), renewed, bool(self._files.client_authorities))

    def for_rest(self) -> ssl.SSLContext:
        """A context for a server of asyncio's, or of uvloop's."""
        context = _ReloadingSSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.current = lambda: self._current().for_rest
        return context

    def _current(self) -> _Loaded:
        with self._lock:
            state = _state(self._files)
            if state != self._loaded.state:
                try:
                    self._loaded = self._load()
                    _log.warning("The certificates were read again")
                except ValueError as error:
                    # At the next handshake it may work, as when there were too many open files.
                    if state != self._last_reported_bad_state:
                        _log.error("The certificates stay as they were: %s", error)
                    self._last_reported_bad_state = state
            return self._loaded

    def _load(self) -> _Loaded:
        files, state = self._files, _state(self._files)
        try:
            # The defaults of Python: TLS 1.2 or newer, no compression, ciphers that are thought safe.
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            # By itself OpenSSL would ask for the password on the terminal.
            context.load_cert_chain(files.certificate, files.key, password=_refuse_password)
            certificate, key = Path(files.certificate).read_bytes(), Path(files.key).read_bytes()
            authorities = None
            if files.client_authorities:
                context.load_verify_locations(files.client_authorities)
                context.verify_mode = ssl.CERT_REQUIRED
                authorities = Path(files.client_authorities).read_bytes()
            _warn_of_mode(files.key)
        except (OSError, _HasPassword) as error:
            # SSLError is one of the system's.
            named = ", ".join(filter(None, files))
            why = getattr(error, "strerror", None) or error
            raise ValueError(f"cannot use the certificates in {named}: {why}") from None
        expires_at = _expiry(files)
        if expires_at < time.time():
            _log.warning("The certificate in %s has expired", files.certificate)
        return _Loaded(state, context, certificate, key, authorities, expires_at)


class _ReloadingSSLContext(ssl.SSLContext):
    """Leaves each connection to the context that is then current: one context cannot forget authorities."""

    current: Any

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        wrapped: ssl.SSLObject = self.current().wrap_bio(*arguments, **options)
        return wrapped


class _HasPassword(Exception):
    """A key cannot be read without a password, and there is nobody to ask for it."""


def _refuse_password() -> str:
    raise _HasPassword("the key has a password")


def _warn_of_mode(key: str) -> None:
    """Warns if other users can read a key. As with PostgreSQL, a group may read a key that root owns."""
    found = os.stat(key)
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~(0o640 if found.st_uid == 0 else 0o600) & 0o077:
        _log.warning("Other users can read the TLS key %s, which has the mode %04o: run chmod 600 %s", key, mode, key)


def _expiry(files: Files) -> float:
    """Until when the server's certificate is valid, in Unix time; not a number where that cannot be told.

    Python tells it of a certificate which the other side of a handshake showed, and which it trusts.
    """
    try:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(files.certificate, files.key)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        client.load_verify_locations(files.certificate)
        return ssl.cert_time_to_seconds(str(_shown(client, server)["notAfter"]))
    except (OSError, ValueError) as error:
        _log.warning("It is not known until when the certificate in %s is valid: %s", files.certificate, error)
        return math.nan


def _shown(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """The certificate that a server shows to a client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = client.wrap_bio(to_client, to_server)
    sides = [calling, server.wrap_bio(to_server, to_client, server_side=True)]
    for side in sides * _TURNS:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return calling.getpeercert() or {"notAfter": ""}


def _state(files: Files) -> _State:
    return tuple(_stat(path) for path in files if path)


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
