"""The bytes that a call is charged for before it gets them."""

from typing import Protocol


class Account(Protocol):
    """Takes room for the bytes of a call, from the share of its project."""

    def reserve_request_bytes(self, size: int) -> None:
        """Takes room for more bytes of the request, until the call ends. Raises `ResourceExhausted`."""

    def release_request_bytes(self, size: int) -> None:
        """Gives back room for bytes of the request that are no longer needed."""

    def reserve_response_bytes(self, size: int) -> None:
        """Takes room for the answer, until the call ends. Raises `ResourceExhausted`."""


class _Unbounded(Account):
    def reserve_request_bytes(self, size: int) -> None:
        """Takes no room."""

    def release_request_bytes(self, size: int) -> None:
        """Gives nothing back."""

    def reserve_response_bytes(self, size: int) -> None:
        """Takes no room."""


UNBOUNDED = _Unbounded()
"""An account without limits."""
