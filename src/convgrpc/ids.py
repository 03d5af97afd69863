"""Identifiers of conversations and items.

An id is a prefix and 48 hexadecimal digits. The last 16 of an item's are those of the conversation it was first added
to, so that all ids of a conversation lead to the same place.
"""

from secrets import token_hex


def conversation_id() -> str:
    """A new conversation's id: `conv_…`."""
    return f"conv_{token_hex(24)}"


def item_id(prefix: str, conversation: str, now: float) -> str:
    """A new item's id, given its kind's prefix, its conversation's id and the Unix time.

    Ids begin with the time, so that a database finds those of one moment side by side.
    """
    return f"{prefix}_{int(now):08x}{token_hex(12)}{conversation[-16:]}"


def request_id() -> str:
    """A new request's id: `req_…`."""
    return f"req_{token_hex(16)}"
