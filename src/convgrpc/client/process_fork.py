"""What gRPC makes of processes that fork.

The threads that gRPC runs do not follow into the child. gRPC starts them anew there, unless it is told not to, or finds
one in the midst of a call; its asyncio part does not start again at all. Where it does not, calls in the child wait for
ever, whatever their deadlines, or end the process.
"""

import os

_SETTING = "GRPC_ENABLE_FORK_SUPPORT"
_NO = {"0", "f", "false", "n", "no"}
_INSTEAD = "Start processes by 'spawn' or 'forkserver', or before the first call."


def check_forks_are_supported(*, during_call: bool) -> None:
    """Raises RuntimeError where a child cannot use gRPC as its parent did."""
    if os.environ.get(_SETTING, "").lower() in _NO:
        raise RuntimeError(f"this client was used before the process forked, and {_SETTING} is off. {_INSTEAD}")
    if during_call:
        raise RuntimeError(f"the process forked while a call of this client was running. {_INSTEAD}")


class AsyncHome:
    """The process that uses the asyncio part of gRPC: the first one, and none that forks off it."""

    def __init__(self) -> None:
        self._process: int | None = None

    def enter(self) -> None:
        """Raises RuntimeError in a process whose parent used an AsyncClient."""
        self._process = self._process or os.getpid()
        if self._process != os.getpid():
            raise RuntimeError(f"an AsyncClient was used before the process forked. {_INSTEAD}")


ASYNC_HOME = AsyncHome()
