"""The unmodified package `openai-agents` keeps its sessions at the gateway."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.service.server import Running

CLIENTS = Path(__file__).parents[1] / "clients"
PACKAGE = Path(sys.prefix) / "openai-agents"
TIMEOUT = 120


@pytest.mark.skipif(not PACKAGE.exists(), reason="openai-agents is not installed beside the other packages")
def test_python_agents_session_stores_and_reads_back_every_item(server: Running) -> None:
    """A session is made, filled, read, shortened, cleared and copied. It keeps turns with local and hosted tools."""
    ended = subprocess.run(
        [sys.executable, str(CLIENTS / "agents_session.py"), f"http://{server.http}/v1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "creation",
        "every item",
        "limits",
        "removal",
        "replay",
        "runs",
        "hosted tools",
    ]
