"""What importing the client brings along: not the server."""

import subprocess
import sys

import pytest

SERVER = {
    "click", "convgrpc.contract.validator", "convgrpc.handlers", "convgrpc.server", "convgrpc.storage", "convgrpc.tokens", "httptools",
    "imagesize", "orjson", "pytest", "sqlite3", "sqlite_utils", "tiktoken", "uvicorn", "uvloop",
}  # fmt: skip
WITHOUT_ORJSON = "import sys; sys.modules['orjson'] = None; "


def imported(program: str) -> set[str]:
    """The modules that a program of its own has imported in the end."""
    code = f"{program}\nimport sys\nprint(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_imports_nothing() -> None:
    """Neither gRPC nor protobuf: it is looked at by many who use one part of it."""
    assert [name for name in imported("import convgrpc") if name.startswith(("convgrpc.", "grpc", "google"))] == []


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "NotFound", "to_dict"])
def test_the_client_does_not_import_the_server(name: str) -> None:
    """Where orjson is not installed, neither it nor anything else of the server's is missed."""
    modules = imported(f"{WITHOUT_ORJSON}from convgrpc import {name}; {name}")
    assert modules & SERVER == set()


def test_the_server_does_not_import_the_client() -> None:
    assert [name for name in imported("import convgrpc.server.app") if name.startswith("convgrpc.client")] == []


def test_what_is_offered_is_there() -> None:
    """All names, and no others."""
    imported("import convgrpc; [getattr(convgrpc, name) for name in convgrpc.__all__]; convgrpc.__version__")
    imported("from convgrpc import *; Client; Unavailable")
    with pytest.raises(subprocess.CalledProcessError):
        imported("import convgrpc; convgrpc.Clients")


def test_calls_are_made_without_orjson() -> None:
    """Free-form JSON, too, is read and written by the standard library."""
    program = f"""
{WITHOUT_ORJSON}
from convgrpc import to_dict
from convgrpc.client.values import request
from convgrpc.v1.conversations_service_pb2 import CreateConversationRequest
item = {{"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [{{"name": "t", "input_schema": {{"a": 2**70}}}}]}}
made = request(CreateConversationRequest, {{"items": [item], "metadata": None, "request_id": None}})
assert to_dict(made.items[0]) == item
"""
    assert "convgrpc.contract.json_standard" in imported(program)
