"""The tables, and the steps by which a database of an older version gets them.

Everything is found by numbers that stand for the long names: a project's and a conversation's. Numbers and positions
are never used again (AUTOINCREMENT), so that what was deleted cannot be mistaken for what came later.
"""

import sqlite3
from contextlib import closing
from secrets import token_bytes

from google.protobuf.unknown_fields import UnknownFieldSet
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from convgrpc.v1.item_pb2 import ConversationItem

APPLICATION_ID = 0x436E7667
"""Marks a SQLite file as ours: "Cnvg"."""

MIGRATIONS = Migrations("convgrpc")


@MIGRATIONS()
def create_tables(database: Database) -> None:
    # A blob that is large goes on in other pages: it stands last, so that the other columns are read without it.
    statements = (
        """
        CREATE TABLE projects (
            number INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE
        ) STRICT
        """,
        """
        CREATE TABLE conversations (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            project INTEGER NOT NULL,
            id TEXT NOT NULL,
            data BLOB NOT NULL,
            UNIQUE (project, id)
        ) STRICT
        """,
        "CREATE INDEX conversations_by_project ON conversations (project)",
        # Each pair of metadata once more, by which conversations are found.
        """
        CREATE TABLE metadata (
            conversation INTEGER NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            project INTEGER NOT NULL,
            PRIMARY KEY (conversation, key)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX metadata_by_pair ON metadata (project, key, value, conversation)",
        # Writes that are safe to repeat, with what they stored: a conversation, or items between two positions.
        """
        CREATE TABLE requests (
            project INTEGER NOT NULL,
            method TEXT NOT NULL,
            id TEXT NOT NULL,
            digest BLOB NOT NULL,
            created_at REAL NOT NULL,
            conversation INTEGER NOT NULL,
            first_position INTEGER NOT NULL,
            last_position INTEGER NOT NULL,
            PRIMARY KEY (project, method, id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX requests_by_age ON requests (created_at)",
        # Their items are still there, seen by nobody, until they are swept.
        """
        CREATE TABLE deleted_conversations (
            number INTEGER PRIMARY KEY
        ) STRICT
        """,
        # The position gives the order within a conversation. One id may stand in many conversations, and several times
        # in one. `minted`: the id is of this store's making, so that all items which bear it have the same content.
        """
        CREATE TABLE items (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            project INTEGER NOT NULL,
            conversation INTEGER NOT NULL,
            id TEXT NOT NULL,
            minted INTEGER NOT NULL,
            data BLOB NOT NULL
        ) STRICT
        """,
        # Each index ends with the position, as that is the rowid.
        "CREATE INDEX items_by_conversation ON items (conversation)",
        # `minted` before the conversation: among a million items that clients named alike, the one that counts is found
        # at once. What is sought in one conversation is sought with `minted IN (0, 1)`.
        "CREATE INDEX items_by_id ON items (project, id, minted, conversation)",
    )
    for statement in statements:
        database.execute(statement)


@MIGRATIONS()
def count_removals(database: Database) -> None:
    # Whoever keeps something derived from a conversation's items learns by it that some of them are gone.
    database.execute("ALTER TABLE conversations ADD COLUMN removals INTEGER NOT NULL DEFAULT 0")


@MIGRATIONS()
def create_responses(database: Database) -> None:
    statements = (
        # `holder` has the items: a conversation, or the response itself, which is then minus its number, here and in
        # the other tables. `previous` is the response that it follows, and `origin` the conversation on which the
        # first of them is, if any is. The model read what the holder has up to `last_position`, or made it.
        """
        CREATE TABLE responses (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            project INTEGER NOT NULL,
            id TEXT NOT NULL,
            previous INTEGER,
            origin INTEGER,
            holder INTEGER NOT NULL,
            last_position INTEGER NOT NULL,
            data BLOB NOT NULL,
            UNIQUE (project, id)
        ) STRICT
        """,
        "CREATE INDEX responses_by_previous ON responses (previous)",
        "CREATE INDEX responses_by_origin ON responses (origin)",
    )
    for statement in statements:
        database.execute(statement)


@MIGRATIONS()
def create_keys(database: Database) -> None:
    # Of the key itself there is a digest alone. Times are Unix times, in seconds.
    database.execute(
        """
        CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            project TEXT NOT NULL,
            name TEXT NOT NULL,
            digest BLOB NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL,
            revoked_at REAL
        ) STRICT
        """
    )


@MIGRATIONS()
def count_contents(database: Database) -> None:
    # How much there is of what has a limit, so that a write need not count it.
    statements = (
        "ALTER TABLE conversations ADD COLUMN items INTEGER NOT NULL DEFAULT 0",
        "UPDATE conversations SET items = (SELECT count(*) FROM items WHERE conversation = conversations.number)",
        "ALTER TABLE projects ADD COLUMN conversations INTEGER NOT NULL DEFAULT 0",
        "UPDATE projects SET conversations = (SELECT count(*) FROM conversations WHERE project = projects.number)",
    )
    for statement in statements:
        database.execute(statement)


@MIGRATIONS()
def count_bytes(database: Database) -> None:
    # Of what was deleted it counts what is there still.
    statements = (
        "ALTER TABLE projects ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
        """
        UPDATE projects SET bytes = sizes.bytes
        FROM (SELECT project, sum(length(data)) AS bytes FROM items GROUP BY project) AS sizes
        WHERE sizes.project = projects.number
        """,
    )
    for statement in statements:
        database.execute(statement)


@MIGRATIONS()
def create_secrets(database: Database) -> None:
    # By the one of the cursors their positions are hidden.
    database.execute("CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT")
    database.execute("INSERT INTO secrets (name, value) VALUES ('cursors', ?)", [token_bytes(32)])


@MIGRATIONS()
def type_listing_errors(database: Database) -> None:
    # The error of `mcp_list_tools` was a string in its field 3. The tag of `mcp_list_tools` is CA 01. The search finds
    # other items too, which `_with_typed_error` leaves as they are.
    rows = database.execute("SELECT position, project, data FROM items WHERE instr(data, X'CA01')")
    changed = [
        (new, len(new) - len(old), position, project)
        for position, project, old in rows
        if (new := _with_typed_error(old)) != old
    ]
    for new, growth, position, project in changed:
        database.execute("UPDATE items SET data = ? WHERE position = ?", [new, position])
        database.execute("UPDATE projects SET bytes = bytes + ? WHERE number = ?", [growth, project])


def _with_typed_error(data: bytes) -> bytes:
    item = ConversationItem.FromString(data)
    if not item.HasField("mcp_list_tools"):
        return data
    listing = item.mcp_list_tools
    unknown = UnknownFieldSet(listing)
    fields = [unknown[index] for index in range(len(unknown))]
    texts = [field.data for field in fields if field.field_number == 3]
    if not texts:
        return data
    listing.DiscardUnknownFields()
    listing.error.text = texts[-1].decode()
    return item.SerializeToString()


def unknown_migrations(database: Database) -> list[str]:
    """The migrations applied to a database of which this version knows nothing."""
    with closing(sqlite3.connect(":memory:")) as empty:
        known = {migration.name for migration in MIGRATIONS.pending(Database(empty, execute_plugins=False))}
    return [migration.name for migration in MIGRATIONS.applied(database) if migration.name not in known]
