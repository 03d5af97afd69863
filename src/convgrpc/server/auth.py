"""Keys: by which callers show for which project they act.

A key is `cg_`, its id, and a secret. It is shown once; what is stored is a digest of it, which suffices as nobody can
guess a secret of 256 bits. Keys that are made, revoked or expire while a server runs are heeded within a second.
"""

import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from secrets import token_hex
from typing import NamedTuple

from convgrpc.errors import no_key, wrong_key
from convgrpc.storage.interface import Store, StoredKey

DEFAULT_PROJECT = "default"
"""The project of all callers as long as there are no keys."""

_KEY = re.compile(r"cg_([0-9a-f]{12})_[0-9a-f]{64}")
_KEY_OR_ID = re.compile(rf"{_KEY.pattern}|([0-9a-f]{{12}})")
_HEADER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_MAX_KNOWN, _MAX_HEADER = 4096, 128
"""How many headers are remembered, and how long they may be: blanks in them mean nothing."""
_FRESH = 0.5
"""Seconds for which what was read of a key is believed. Streams heed a key within this and `admission._EVERY`."""
_NO_DIGEST = bytes(sha256().digest_size)


class NewKey(NamedTuple):
    """A key to give away, and what is kept of it."""

    text: str
    stored: StoredKey


def new_key(project: str, name: str, now: float, lifetime: float | None) -> NewKey:
    """Makes a key that is valid from now on for `lifetime` seconds, or until it is revoked."""
    identity = token_hex(6)
    text = f"cg_{identity}_{token_hex(32)}"
    expires_at = None if lifetime is None else now + lifetime
    return NewKey(text, StoredKey(identity, project, name, _digest(text), now, expires_at, None))


def key_id(text: str) -> str | None:
    """The id of a key, given the key or its id; None where it is neither."""
    found = _KEY_OR_ID.fullmatch(text)
    return found and (found[1] or found[2])


def is_valid(key: StoredKey, now: float) -> bool:
    """Whether a key is neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


class Keys:
    """Tells for which project a caller acts. As long as there is no key, it is the same one for all."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._ticks = ticks
        # By the headers that gave them: those that were right.
        self._known: OrderedDict[str, tuple[StoredKey, float]] = OrderedDict()
        self._are_needed = False
        self._looked_at = float("-inf")

    async def project(self, authorization: list[str]) -> str:
        """The project of a caller who sent these headers. Raises `Unauthenticated`."""
        if not (self._are_needed or await self.are_needed()):
            return DEFAULT_PROJECT
        if not authorization:
            raise no_key()
        key = await self._key(authorization[0]) if len(authorization) == 1 else None
        if not (key and is_valid(key, self._clock())):
            raise wrong_key()
        return key.project

    async def are_needed(self) -> bool:
        """Whether there is a key, or was one: then nobody gets in without."""
        if not self._are_needed and self._ticks() - self._looked_at >= _FRESH:
            self._are_needed = await self._store.has_keys()
            # Not before: a read that failed says nothing of whether there are keys.
            self._looked_at = self._ticks()
        return self._are_needed

    async def _key(self, header: str) -> StoredKey | None:
        """The key that a header gives, if there is such a key, be it valid or not."""
        known = self._known.get(header)
        if known and self._ticks() - known[1] < _FRESH:
            return known[0]
        key = await self._found(header)
        if key and len(header) <= _MAX_HEADER:
            self._known[header] = key, self._ticks()
            self._known.move_to_end(header)
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return key

    async def _found(self, header: str) -> StoredKey | None:
        given = _HEADER.fullmatch(header)
        shape = _KEY.fullmatch(given[1]) if given else None
        key = await self._store.get_key(shape[1]) if shape else None
        is_right = hmac.compare_digest(key.digest if key else _NO_DIGEST, _digest(shape[0] if shape else ""))
        return key if is_right else None


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="replace")).digest()
