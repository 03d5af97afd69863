"""The comments of the contract, which generated code does not have: `scripts/generate` keeps them in a file beside
it.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


def comment(full_name: str) -> str:
    """What the contract says of a message, field, enum, value, service or method; empty where it says nothing.

    Lines are joined, paragraphs are not. A value's name follows that of its enum: `convgrpc.v1.Order.ORDER_ASC`.
    """
    return _comments().get(full_name, "")


@cache
def _comments() -> Mapping[str, str]:
    text = files(__package__).joinpath("comments.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
