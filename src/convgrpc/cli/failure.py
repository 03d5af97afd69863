"""How a command ends that cannot do its work."""

import sys
from typing import NoReturn

import click


def fail(message: str) -> NoReturn:
    """Writes a message to stderr, and ends the process with 1."""
    click.echo(f"convgrpc: {message}", err=True)
    sys.exit(1)
