"""Runs a script that may reach no machine but this: `python confined.py SCRIPT ARGUMENTS`."""

import runpy
import sys
from typing import Any

HERE = ("127.0.0.1", "::1", "localhost")


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuses connections to other machines, whichever thread makes them."""
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        if isinstance(address, tuple) and address[0] not in HERE:
            print(f"the script reached for {address[0]}", file=sys.stderr)
            raise PermissionError(address[0])


if __name__ == "__main__":
    sys.addaudithook(stay_here)
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
