"""The unmodified package `openai-agents` keeps its sessions at the gateway."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.service.server import Running

SCRIPT = Path(__file__).parents[1] / "clients" / "agents_session.py"
PACKAGE = Path(sys.prefix) / "openai-agents"
TIMEOUT = 120


@pytest.mark.skipif(not PACKAGE.exists(), reason="openai-agents is not installed beside the other packages")
def test_an_unmodified_agents_session_lives_as_a_conversation(server: Running) -> None:
    """It is made, filled, read, shortened, cleared, copied into others, and keeps the turns of an agent."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), f"http://{server.http}/v1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["creation", "every item", "limits", "removal", "replay", "runs"]
