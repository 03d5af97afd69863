"""The keys of callers in the database."""

import sqlite3

from convgrpc.storage.interface import StoredKey

_COLUMNS = ", ".join(StoredKey._fields)


def insert_key(connection: sqlite3.Connection, key: StoredKey) -> None:
    """Adds a key."""
    places = ", ".join("?" for _ in key)
    connection.execute(f"INSERT INTO keys ({_COLUMNS}) VALUES ({places})", key)


def find_key(connection: sqlite3.Connection, key_id: str) -> StoredKey | None:
    """Finds a key, revoked or not."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()
    return row and StoredKey(*row)


def list_keys(connection: sqlite3.Connection) -> list[StoredKey]:
    """All keys, those revoked too, the oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")
    return [StoredKey(*row) for row in rows]


def has_keys(connection: sqlite3.Connection) -> bool:
    """Whether there is a key, or was one."""
    return connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None


def revoke_key(connection: sqlite3.Connection, key_id: str, now: float) -> bool:
    """Revokes a key, unless that was done before; tells whether there is such a key."""
    connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
    return find_key(connection, key_id) is not None
