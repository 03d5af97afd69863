"""The command line: `convgrpc serve`, `count`, `keys`, `health`, `protos` and `version`."""

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn, get_args

# gRPC writes to stderr on its own, such as a line for each handshake that fails.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    import click
    import grpc
    import uvloop
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from convgrpc.cli.count import count
    from convgrpc.cli.keys import keys
    from convgrpc.server.app import CannotCount, CannotListen, CannotSecure, Running, serve
    from convgrpc.storage.sqlite.database import UnusableDatabase
except ImportError as error:
    sys.exit(f"convgrpc: the command line needs '{error.name}'. Install it with: pip install 'convgrpc[server]'")

from convgrpc import __version__, protos
from convgrpc.server.logs import logging_to
from convgrpc.settings import Address, IdPolicy, IncludePolicy, LogLevel, Settings, UnknownPolicy

_HEALTH_TIMEOUT = 5.0
_NO_PROXY = [("grpc.enable_http_proxy", 0)]
_BY_NAME = {setting.name: setting for setting in fields(Settings)}


class _AddressType(click.ParamType[Address]):
    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return value if isinstance(value, Address) else Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _FiniteFloat(click.FloatRange):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


_TYPES: dict[Any, Any] = {
    str: str,
    bool: bool,
    int: click.IntRange(1, 2**31 - 1),
    float: _FiniteFloat(0, min_open=True),
    Address: _AddressType(),
    Address | None: _AddressType(),
    IncludePolicy: click.Choice(get_args(IncludePolicy)),
    IdPolicy: click.Choice(get_args(IdPolicy)),
    UnknownPolicy: click.Choice(get_args(UnknownPolicy)),
    LogLevel: click.Choice(get_args(LogLevel), case_sensitive=False),
}


# Where 0, the default, means that there is no limit.
_OR_NONE: dict[Any, Any] = {int: click.IntRange(0, 2**63 - 1), float: _FiniteFloat(0)}


def _setting(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The flag of a setting, with its twin in the environment."""
    setting = _BY_NAME[name]
    assert setting.default is not MISSING
    flag = f"--{name.replace('_', '-')}"
    return click.option(
        f"{flag}/--no{flag[1:]}" if setting.type is bool else flag,
        name,
        type=_OR_NONE[setting.type] if setting.default == 0 and setting.type in _OR_NONE else _TYPES[setting.type],
        default=str(setting.default) if setting.type is Address else setting.default,
        show_default=True,
        envvar=f"CONVGRPC_{name.upper()}",
        show_envvar=True,
        metavar=setting.metadata.get("unit"),
        help=setting.metadata["help"],
    )


def _settings(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(_BY_NAME):
        command = _setting(name)(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Keeps LLM conversations, over gRPC and REST."""


@main.command("serve")
@_settings
def _serve(**values: Any) -> None:
    """Serves until told to stop by SIGTERM or Ctrl-C."""
    try:
        settings = Settings(**values)
    except ValueError as error:
        _fail(str(error))

    def started(addresses: Running) -> None:
        # What there is by now stays, and the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        rest = f"{'https' if settings.tls_cert else 'http'}://{addresses.http}/v1"
        more = f", metrics http://{addresses.metrics}/metrics" if addresses.metrics else ""
        click.echo(f"convgrpc {__version__}: gRPC {addresses.grpc}, REST {rest}, database {settings.db}{more}")

    try:
        with logging_to(sys.stderr, settings.log_level):
            uvloop.run(serve(settings, started))
    except (CannotCount, CannotListen, CannotSecure, UnusableDatabase) as error:
        _fail(str(error))


main.add_command(count)
main.add_command(keys)


@main.command("health")
@_setting("grpc")
@click.option(
    "--tls-ca",
    type=click.File("rb"),
    envvar="CONVGRPC_TLS_CA",
    show_envvar=True,
    help="A PEM file of the authority of the server's certificate: asks by TLS.",
)
@click.option(
    "--tls-server-name",
    envvar="CONVGRPC_TLS_SERVER_NAME",
    show_envvar=True,
    help="The name that the server's certificate is for, where it is not that of the address.",
)
@click.option(
    "--tls-cert",
    envvar=["CONVGRPC_HEALTH_TLS_CERT", "CONVGRPC_TLS_CERT"],
    show_envvar=True,
    help="A PEM file with a certificate to show, where the server asks for one.",
)
@click.option(
    "--tls-key",
    envvar=["CONVGRPC_HEALTH_TLS_KEY", "CONVGRPC_TLS_KEY"],
    show_envvar=True,
    help="A PEM file with the certificate's key.",
)
def _health(tls_ca: Any, tls_server_name: str | None, tls_cert: str | None, tls_key: str | None, **values: Any) -> None:
    """Tells whether the server at an address serves: exits with 0 if it does, with 1 if not.

    A server that speaks TLS is asked by --tls-ca; to one that asks for a certificate, its own is shown unless there is
    another for this.
    """
    address = values["grpc"].reachable
    if bool(tls_cert) != bool(tls_key):
        _fail("--tls-cert and --tls-key go together")
    if tls_cert and tls_ca is None:
        _fail("with --tls-cert the server speaks TLS: say by --tls-ca whose certificate it has")
    try:
        pair = [Path(path).read_bytes() if path else None for path in (tls_key, tls_cert)]
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    credentials = None if tls_ca is None else grpc.ssl_channel_credentials(tls_ca.read() or b"-", *pair)
    try:
        with _channel(str(address), credentials, tls_server_name) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT)
    except grpc.RpcError as error:
        _fail(f"{address}: {error.code().name}: {error.details()}")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        _fail(f"{address}: {status}")
    click.echo(status)


def _channel(address: str, credentials: grpc.ChannelCredentials | None, server_name: str | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, options=_NO_PROXY)
    name = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    return grpc.secure_channel(address, credentials, options=[*_NO_PROXY, *name])


@main.command("protos")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Made if need be.")
def _protos(out: Path) -> None:
    """Writes the contract's .proto files, and those that they import, for generators of code."""
    try:
        protos.write(out)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


@main.command("version")
def _version() -> None:
    """Prints the version."""
    click.echo(__version__)


def _fail(message: str) -> NoReturn:
    click.echo(f"convgrpc: {message}", err=True)
    sys.exit(1)
