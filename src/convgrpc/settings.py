"""What an operator can set. Each setting is a flag of `convgrpc serve` and an environment variable `CONVGRPC_…`."""

import ipaddress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

IncludePolicy: TypeAlias = Literal["all", "strict"]
UnknownPolicy: TypeAlias = Literal["refuse", "keep"]
IdPolicy: TypeAlias = Literal["hosted", "any"]
LogLevel: TypeAlias = Literal["error", "warning", "info"]


class Address(NamedTuple):
    """Where a server listens: `HOST:PORT`, with an IPv6 host in brackets. Port 0 means any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads `HOST:PORT`. Raises ValueError, saying what is wrong with it."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"'{text}' is not HOST:PORT")
        if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
            raise ValueError(f"'{port}' is not a port: expected a number from 0 to 65535")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"'{text}' is not HOST:PORT: an IPv6 host stands in brackets")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def reachable(self) -> "Address":
        """The address at which this machine itself reaches a server that listens on all of its addresses."""
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return Address(loopback.get(self.host, self.host), self.port)


@dataclass(frozen=True)
class Settings:
    """The settings of a server."""

    db: str = field(default="./convgrpc.db", metadata={"help": "The SQLite database; made when it does not exist."})
    grpc: Address = field(
        default=Address("127.0.0.1", 50051),
        metadata={"help": "Where gRPC is served, HOST:PORT; port 0 takes a free one."},
    )
    http: Address = field(
        default=Address("127.0.0.1", 8080),
        metadata={"help": "Where REST is served, HOST:PORT; port 0 takes a free one."},
    )
    metrics: Address | None = field(
        default=None,
        metadata={"help": "Where metrics are served for Prometheus, HOST:PORT/metrics; nowhere unless given."},
    )
    log_level: LogLevel = field(default="warning", metadata={"help": "What is logged; each call is at 'info'."})
    insecure: bool = field(
        default=False,
        metadata={"help": "Serve other machines although there are no keys: everybody may read and write everything."},
    )
    allowed_hosts: str = field(
        default="",
        metadata={"help": "More host names for REST on a loopback address, as a proxy passes them; commas between."},
    )
    tls_cert: str = field(
        default="",
        metadata={"help": "A PEM file with the server's certificate and those between it and its authority: TLS only."},
    )
    tls_key: str = field(default="", metadata={"help": "A PEM file with the certificate's key, without a password."})
    tls_client_ca: str = field(
        default="",
        metadata={"help": "A PEM file of authorities: only callers with a certificate of theirs are let in."},
    )
    include_policy: IncludePolicy = field(
        default="all",
        metadata={"help": "'all' returns everything stored; 'strict' returns what include can name only when it does."},
    )
    ids: IdPolicy = field(
        default="hosted",
        metadata={
            "help": "'hosted' requires item ids in the form of OpenAI's API;"
            " 'any' accepts ids of other engines and makes missing ones."
        },
    )
    unknown: UnknownPolicy = field(
        default="refuse",
        metadata={
            "help": "'refuse' rejects unknown kinds and keys of items; 'keep' stores them and returns them over REST."
        },
    )
    models: str = field(
        default="", metadata={"help": "A TOML file of more models, with what is to be known to count their tokens."}
    )
    max_counted_items: int = field(
        default=200_000,
        metadata={"help": "Size of the cache of token counts, in stored items."},
    )
    keep_requests: float = field(
        default=86_400.0, metadata={"help": "Seconds for which the ids of requests are kept, to answer repeated ones."}
    )
    max_message_bytes: int = field(
        default=32 * 1024 * 1024, metadata={"help": "The largest request, by gRPC and by REST alike."}
    )
    max_item_bytes: int = field(
        default=0, metadata={"help": "The largest item, in bytes as it is stored; 0 is no limit."}
    )
    max_conversation_items: int = field(
        default=0, metadata={"help": "The most items that a conversation may have; 0 is no limit."}
    )
    max_project_conversations: int = field(
        default=0, metadata={"help": "The most conversations that a project may have; 0 is no limit."}
    )
    max_project_bytes: int = field(
        default=0, metadata={"help": "The most bytes that the items of a project may have, as stored; 0 is no limit."}
    )
    project_rate: float = field(
        default=0.0,
        metadata={"help": "The most calls that a project may make in a second; 0 is no limit.", "unit": "CALLS"},
    )
    project_concurrency: int = field(
        default=0, metadata={"help": "The most calls that a project may make at once; 0 is no limit."}
    )
    max_calls: int = field(
        default=1024,
        metadata={"help": "The most calls at work at once; a project gets no more of them than are left."},
    )
    max_request_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata={"help": "The most bytes of requests at once; a project gets no more of them than are left."},
    )
    max_connections: int = field(
        default=1000, metadata={"help": "The most connections at once, by gRPC and by REST each."}
    )
    max_watchers: int = field(
        default=10_000,
        metadata={
            "help": "The most callers that watch at once, by REST as many as half the connections;"
            " a project gets no more of them than are left."
        },
    )
    transfer_timeout: float = field(
        default=30.0, metadata={"help": "Seconds that a client may take to send a request, and to take its answer."}
    )
    request_timeout: float = field(
        default=60.0, metadata={"help": "Seconds after which a request is given up, whatever its own deadline."}
    )
    shutdown_grace: float = field(
        default=10.0,
        metadata={"help": "Seconds that requests in flight have to finish once the server is told to stop."},
    )
    reflection: bool = field(default=True, metadata={"help": "Let tools such as grpcurl ask for the contract."})

    def __post_init__(self) -> None:
        """Raises ValueError for settings that exclude each other."""
        if self.unknown == "keep" and self.include_policy == "strict":
            raise ValueError(
                "--unknown keep returns all keys of an item, and --include-policy strict does not: choose one"
            )
        if self.max_request_bytes < 2 * self.max_message_bytes:
            raise ValueError("--max-request-bytes must be at least twice --max-message-bytes")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("--tls-cert and --tls-key go together")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
