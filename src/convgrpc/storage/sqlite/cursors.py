"""Cursors: names for places in a conversation, which stay good when the items are removed.

Positions count what all projects store, and must not be told. A cursor is a position that only this database can read,
and only for the conversation that it was made for; whatever else there is in its place is no cursor.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

_CURSOR = re.compile(r"cur_([a-zA-Z0-9_-]{22})")
_PART = 8
"""How many bytes a position has, and what proves it."""


class Cursors:
    """Those that are made with a secret: anyone who has it can make and read them."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def cursor(self, conversation_id: str, position: int) -> str:
        """Names a position of a conversation, by the same name each time."""
        plain = position.to_bytes(_PART)
        proof = self._digest(b"proof", conversation_id, plain)
        hidden = _xor(plain, self._digest(b"mask", conversation_id, proof))
        return "cur_" + urlsafe_b64encode(proof + hidden).decode().rstrip("=")

    def position(self, conversation_id: str, text: str) -> int | None:
        """The position that a text names; None where it is no cursor of the conversation."""
        shape = _CURSOR.fullmatch(text)
        if shape is None:
            return None
        data = urlsafe_b64decode(shape[1] + "==")
        proof, hidden = data[:_PART], data[_PART:]
        position = int.from_bytes(_xor(hidden, self._digest(b"mask", conversation_id, proof)))
        # Whole: of the last character some bits mean nothing.
        known = position < 1 << 63 and hmac.compare_digest(self.cursor(conversation_id, position), text)
        return position if known else None

    def _digest(self, purpose: bytes, conversation_id: str, data: bytes) -> bytes:
        message = data + conversation_id.encode(errors="replace")
        return blake2b(message, digest_size=_PART, key=self._secret, person=purpose).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
