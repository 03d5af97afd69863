"""The command line: `convgrpc serve`, `count`, `keys`, `health`, `protos` and `version`."""

import os
import sys
from pathlib import Path

# gRPC writes to stderr on its own, such as a line for each handshake that fails.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

try:
    import click

    from convgrpc.cli.count import count
    from convgrpc.cli.failure import fail
    from convgrpc.cli.health import health
    from convgrpc.cli.keys import keys
    from convgrpc.cli.serve import serve
except ImportError as error:
    sys.exit(f"convgrpc: the command line needs '{error.name}'. Install it with: pip install 'convgrpc[server]'")

from convgrpc import __version__, protos


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Keeps LLM conversations, over gRPC and REST."""


for _command in (serve, count, keys, health):
    main.add_command(_command)


@main.command("protos")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Made if need be.")
def _protos(out: Path) -> None:
    """Writes the contract's .proto files, and those that they import, for generators of code."""
    try:
        protos.write(out)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


@main.command("version")
def _version() -> None:
    """Prints the version."""
    click.echo(__version__)
