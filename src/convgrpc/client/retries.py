"""Which calls gRPC repeats on its own, and how.

`service_config.json` names those that are safe to repeat by themselves, for clients in any language. This client sets a
`request_id` in every call that takes one, which makes these safe as well.
"""

import json
from functools import cache
from importlib.resources import files

from convgrpc.client.values import REQUEST_ID
from convgrpc.v1 import conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2

_FILES = (conversations_service_pb2, input_tokens_service_pb2, responses_service_pb2)


@cache
def service_config() -> str:
    """The service config of this client, as JSON."""
    config = json.loads(files(__package__).joinpath("service_config.json").read_text(encoding="utf-8"))
    services = [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]
    config["methodConfig"][0]["name"] += [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if REQUEST_ID in method.input_type.fields_by_name
    ]
    return json.dumps(config)
