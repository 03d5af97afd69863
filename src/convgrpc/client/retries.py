"""Which calls gRPC repeats on its own, and how; and how long this client waits for streams, which it takes up itself.

`service_config.json` names those that are safe to repeat by themselves, for clients in any language. This client sets a
`request_id` in every call that takes one, which makes these safe as well.
"""

import json
import math
import random
import time
from functools import cache
from importlib.resources import files
from typing import Any

from convgrpc.client.values import REQUEST_ID
from convgrpc.errors import ConvgrpcError
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2

_FILES = (conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2)


_JITTER = 0.2


@cache
def service_config() -> str:
    """The service config of this client, as JSON."""
    config = _shipped()
    services = [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]
    config["methodConfig"][0]["name"] += [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if REQUEST_ID in method.input_type.fields_by_name and not method.server_streaming
    ]
    return json.dumps(config)


class StreamRetry:
    """How often a stream that broke is taken up, and after how long: as a call is repeated, but counted anew each time
    that it got on.

    `timeout` is the seconds that it may take with all its pauses; None sets no bound, nor does infinity.
    """

    def __init__(self, timeout: float | None) -> None:
        policy: dict[str, Any] = _shipped()["methodConfig"][0]["retryPolicy"]
        self._attempts: int = policy["maxAttempts"]
        self._first, self._longest = (float(policy[name].rstrip("s")) for name in ("initialBackoff", "maxBackoff"))
        self._multiplier: float = policy["backoffMultiplier"]
        self._end = None if timeout is None or math.isinf(timeout) else time.monotonic() + timeout
        self._failures = 0

    @property
    def left(self) -> float | None:
        """The seconds that are left."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def progress(self) -> None:
        """Notes that the stream got on."""
        self._failures = 0

    def pause(self, error: ConvgrpcError) -> float:
        """The seconds after which to take up a stream that an error ended; raises that when it has been often
        enough.
        """
        self._failures += 1
        if self._failures >= self._attempts:
            raise error
        pause = min(self._first * self._multiplier ** (self._failures - 1), self._longest)
        pause *= random.uniform(1 - _JITTER, 1 + _JITTER)
        return pause if self.left is None else min(pause, self.left)


def _shipped() -> Any:
    return json.loads(files(__package__).joinpath("service_config.json").read_text(encoding="utf-8"))
