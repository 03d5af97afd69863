"""Sockets that listen."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from convgrpc.settings import Address

BACKLOG = 1024
"""How many connections wait to be accepted."""
_SEND_BUFFER = 256 << 10
_MAX_OPTION = 2**31 - 1


class CannotListen(Exception):
    """An address cannot be served; the message says why, for the operator."""


@contextmanager
def listening(address: Address, what: str, user_timeout: float = 0) -> Iterator[socket.socket]:
    """Listens on an address while the context lasts. Raises `CannotListen`.

    `what` names the front for the operator. A client that acknowledges nothing for `user_timeout` seconds is given up.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # As gRPC does: all addresses are those of IPv4, too.
    is_dual = address.host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except OSError as error:
        raise CannotListen(f"cannot serve {what} on {address}: {_reason(error)}") from None
    with listener:
        # By itself the kernel takes some megabytes of answers that are not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if user_timeout and sys.platform == "linux":
            # Nor does it give up a client whose machine is gone before a quarter of an hour has passed.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds(user_timeout))
        yield listener


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def milliseconds(seconds: float) -> int:
    """Returns seconds as the value of an option, which holds at most 31 bits of milliseconds: 24 days and a half."""
    return min(ceil(seconds * 1000), _MAX_OPTION)
