"""`convgrpc health`."""

from pathlib import Path
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convgrpc.cli.failure import fail
from convgrpc.cli.options import setting

_TIMEOUT = 5.0
_NO_PROXY = [("grpc.enable_http_proxy", 0)]


@click.command()
@setting("grpc")
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
def health(tls_ca: Any, tls_server_name: str | None, tls_cert: str | None, tls_key: str | None, **values: Any) -> None:
    """Tells whether the server at an address serves: exits with 0 if it does, with 1 if not.

    A server that speaks TLS is asked by --tls-ca; to one that asks for a certificate, its own is shown unless there is
    another for this.
    """
    address = values["grpc"].reachable
    if bool(tls_cert) != bool(tls_key):
        fail("--tls-cert and --tls-key go together")
    if tls_cert and tls_ca is None:
        fail("with --tls-cert the server speaks TLS: say by --tls-ca whose certificate it has")
    try:
        pair = [Path(path).read_bytes() if path else None for path in (tls_key, tls_cert)]
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    credentials = None if tls_ca is None else grpc.ssl_channel_credentials(tls_ca.read() or b"-", *pair)
    try:
        with _channel(str(address), credentials, tls_server_name) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
    except grpc.RpcError as error:
        fail(f"{address}: {error.code().name}: {error.details()}")
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        fail(f"{address}: {status}")
    click.echo(status)


def _channel(address: str, credentials: grpc.ChannelCredentials | None, server_name: str | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, options=_NO_PROXY)
    name = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    return grpc.secure_channel(address, credentials, options=[*_NO_PROXY, *name])
