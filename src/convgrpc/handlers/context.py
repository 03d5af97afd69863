"""What a handler knows of the call that it answers."""

from typing import NamedTuple

from convgrpc.handlers.accounts import UNBOUNDED, Account


class Context(NamedTuple):
    """The project of a call, its deadline (`time.monotonic()`), the bytes of its request, and the account that is
    charged for its work.

    An answer in several messages has no deadline: each of them has its own.
    """

    project: str
    deadline: float
    size: int
    account: Account = UNBOUNDED
