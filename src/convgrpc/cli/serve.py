"""`convgrpc serve`."""

import gc
import sys
from typing import Any

import click
import uvloop

from convgrpc import __version__
from convgrpc.cli.failure import fail
from convgrpc.cli.options import settings
from convgrpc.server import app
from convgrpc.server.listener import CannotListen
from convgrpc.server.logs import logging_to
from convgrpc.settings import Settings
from convgrpc.storage.sqlite.database import UnusableDatabase


@click.command()
@settings
def serve(**values: Any) -> None:
    """Serves until told to stop by SIGTERM or Ctrl-C."""
    try:
        wanted = Settings(**values)
    except ValueError as error:
        fail(str(error))

    def started(addresses: app.Running) -> None:
        # What there is by now stays, and the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        rest = f"{'https' if wanted.tls_cert else 'http'}://{addresses.http}/v1"
        more = f", metrics http://{addresses.metrics}/metrics" if addresses.metrics else ""
        click.echo(f"convgrpc {__version__}: gRPC {addresses.grpc}, REST {rest}, database {wanted.db}{more}")

    try:
        with logging_to(sys.stderr, wanted.log_level):
            uvloop.run(app.serve(wanted, started))
    except (app.CannotCount, app.CannotSecure, CannotListen, UnusableDatabase) as error:
        fail(str(error))
