"""Policies for the items that a request may hold."""

from typing import NamedTuple


class ItemPolicy(NamedTuple):
    """The items that a request may hold, beyond those that the hosted API accepts.

    With `keep_unknown`, an item may have kinds and keys that the contract does not know. With `any_ids`, an item may
    have an id of another engine. Without `need_ids`, an item of any kind but a reference may lack its id.
    """

    keep_unknown: bool = False
    any_ids: bool = False
    need_ids: bool = True


HOSTED = ItemPolicy()
"""Accepts the items that the hosted API accepts."""
