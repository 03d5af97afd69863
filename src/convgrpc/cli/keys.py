"""The command line for keys: `convgrpc keys create`, `convgrpc keys list`, `convgrpc keys revoke`."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from math import inf, isnan
from pathlib import Path
from typing import TypeVar

import click

from convgrpc.cli.failure import fail
from convgrpc.errors import ConvgrpcError
from convgrpc.server.app import open_store
from convgrpc.server.auth import is_valid, key_id, new_key
from convgrpc.settings import Settings
from convgrpc.storage.interface import Store, StoredKey
from convgrpc.storage.sqlite.database import UnusableDatabase

_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEAD = ("id", "project", "created", "expires", "state", "name")
_DAY = 86_400.0

T = TypeVar("T")

_database = click.option(
    "--db",
    type=click.Path(),
    default=Settings.db,
    show_default=True,
    envvar="CONVGRPC_DB",
    show_envvar=True,
    help="The SQLite database.",
)


@click.group()
def keys() -> None:
    """Makes, lists and revokes the keys by which callers act for a project.

    As soon as there is one, no call is answered without. A running server heeds changes within a second.
    """


@keys.command()
@click.argument("project")
@click.option("--name", default="", help="Whose it is, or what it is for.")
@click.option(
    "--days", type=click.FloatRange(0, 36_500, min_open=True), help="For how long it is valid, unless for good."
)
@_database
def create(project: str, name: str, days: float | None, db: str) -> None:
    """Makes a key for a project, and prints it: it is not shown again.

    A project is there as soon as it has a key. What is stored without keys belongs to the project 'default'.
    """
    if not _PROJECT.fullmatch(project):
        raise click.BadParameter(
            "a project is named by up to 64 letters, digits, '.', '_' and '-'", param_hint="PROJECT"
        )
    if days is not None and isnan(days):
        raise click.BadParameter("that is not a number", param_hint="--days")
    if not name.isprintable():
        raise click.BadParameter("a name is one line of text", param_hint="--name")
    is_new = not Path(db).exists()
    key = new_key(project, name, time.time(), None if days is None else days * _DAY)
    _with_store(db, lambda store: store.create_key(key.stored))
    if is_new:
        click.echo(f"convgrpc: made the database {db}, which was not there", err=True)
    click.echo(key.text)


@keys.command("list")
@_database
def list_keys(db: str) -> None:
    """Prints a line for each key, revoked and expired ones too; a key itself is known to nobody but its owner."""
    _check_exists(db)
    now = time.time()
    rows = [_HEAD, *(_row(key, now) for key in _with_store(db, lambda store: store.list_keys()))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@keys.command()
@click.argument("key", metavar="ID")
@_database
def revoke(key: str, db: str) -> None:
    """Makes a key invalid for good. Its id is what `list` shows, and follows `cg_` in the key, which may be given
    itself.
    """
    _check_exists(db)
    identity = key_id(key)
    # What is no id may be a key that was mistyped, and has no place in what others may read.
    if identity is None:
        fail("this is no id of a key, which has 12 digits from 0 to f")
    if not _with_store(db, lambda store: store.revoke_key(identity, time.time())):
        fail(f"there is no key with the id '{identity}'")
    click.echo(f"revoked {identity}")


def _check_exists(db: str) -> None:
    # Opening it would make one, without keys.
    if not Path(db).exists():
        fail(f"there is no database {db}")


def _row(key: StoredKey, now: float) -> tuple[str, ...]:
    state = "revoked" if key.revoked_at is not None else "valid" if is_valid(key, now) else "expired"
    return (key.id, key.project, _date(key.created_at), _date(key.expires_at), state, key.name)


def _date(moment: float | None) -> str:
    return "never" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _with_store(db: str, work: Callable[[Store], Awaitable[T]]) -> T:
    async def done() -> T:
        # What the server keeps, and for how long, is not for this command to know.
        store = await open_store(Settings(db=db, keep_requests=inf))
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(done())
    except (ConvgrpcError, UnusableDatabase) as error:
        fail(str(error))
