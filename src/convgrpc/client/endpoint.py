"""Where a client connects to, with which options, and as whom."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any, TypeAlias

import grpc

from convgrpc.client.retries import service_config

Options: TypeAlias = Sequence[tuple[str, Any]]

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 60.0

_KEY = re.compile(r"[!-~]+")
_NO_TARGET = re.compile(r"(?:https?://.*)?")
_SCHEME = re.compile(r"(?:dns|ipv4|ipv6):(?:///)?")
_OPTIONS: Mapping[str, Any] = {
    # The server permits a ping every five seconds. Without them a connection that a firewall dropped is noticed only
    # when a call runs into its deadline.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    # By itself gRPC has all clients of a process share a connection, and with it the 100 calls open on it.
    "grpc.use_local_subchannel_pool": 1,
    # The server bounds what it takes, and what it returns may be as large.
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    # A request that does not fit into this is not repeated; the default is 256 KiB.
    "grpc.per_rpc_retry_buffer_size": 256 * 1024 * 1024,
    # What is repeated is not for the operator of a DNS server to say.
    "grpc.service_config_disable_resolution": 1,
    # A server that was away for long is found again within seconds; the default is two minutes.
    "grpc.max_reconnect_backoff_ms": 10_000,
}


class Endpoint:
    """A server, as a client is told of it. The API key is in `metadata` alone, and never in what is printed."""

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None,
        credentials: grpc.ChannelCredentials | None,
        insecure: bool,
        timeout: float | None,
        options: Options,
    ) -> None:
        if not isinstance(target, str) or _NO_TARGET.fullmatch(target):
            raise ValueError(f"{target!r} is no target: give HOST:PORT, without http://")
        api_key = api_key and api_key.strip()
        if api_key is not None:
            _check(api_key, target, is_private=credentials is not None or insecure or is_local(target))
        self.target = target
        self.credentials = credentials
        self.metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        self._timeout = timeout
        self._options = options

    def timeout(self, own: float | None) -> float | None:
        """The seconds that a call may take, given its own if it has one; None is no bound, and so is infinity."""
        seconds = self._timeout if own is None else own
        return None if seconds is None or isinf(seconds) else seconds

    def channel(self, api: Any) -> Any:
        """A channel of gRPC's, or of its asyncio part, whichever module is given."""
        if self.credentials is None:
            return api.insecure_channel(self.target, self.options)
        return api.secure_channel(self.target, self.credentials, self.options)

    @property
    def options(self) -> Options:
        """The options of a channel; those that the caller gave come before the others."""
        own = {**_OPTIONS, "grpc.service_config": service_config()}
        if is_local(self.target):
            own["grpc.enable_http_proxy"] = 0
        return list({**own, **dict(self._options)}.items())


def _check(api_key: str, target: str, *, is_private: bool) -> None:
    # gRPC would quote the key when it refuses it.
    if not _KEY.fullmatch(api_key):
        raise ValueError("api_key is empty, or has characters that are not printable ASCII")
    if not is_private:
        raise ValueError(
            f"an API key would go to '{target}' in the clear: give credentials=grpc.ssl_channel_credentials(), or "
            "insecure=True if that is meant"
        )


def is_local(target: str) -> bool:
    """Whether a target is on this machine alone: a loopback address, `localhost`, or a socket of the file system."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    addresses = _SCHEME.sub("", target, count=1)
    return all(_is_loopback(address) for address in addresses.split(","))


def _is_loopback(address: str) -> bool:
    host = re.sub(r":\w+$", "", address) if address.count(":") == 1 or "]" in address else address
    host = host.strip("[]").replace("%25", "%").partition("%")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
