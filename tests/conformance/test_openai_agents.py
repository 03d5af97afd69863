"""The unmodified packages of OpenAI's agents SDK, for Python and for JavaScript, keep their sessions at the gateway."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from tests.node_packages import NODE, installed, needs_node, run, skip_before_node

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


@needs_node
@pytest.mark.parametrize(
    ("version", "oldest", "openai"),
    [
        pytest.param("0.14.3", 20, "6.49.0", id="newest-for-node-20"),
        pytest.param("0.20.0", 22, "7.59.0", id="newest"),
    ],
)
def test_javascript_agents_session_stores_hosted_tool_calls_without_ids(
    settings: Settings, version: str, oldest: int, openai: str
) -> None:
    """A session keeps turns with hosted and local tools, and is read, copied, shortened and cleared."""
    skip_before_node(oldest, f"@openai/agents {version}")
    package = installed("@openai/agents", version, f"openai@{openai}", "zod@4.6.7")
    with served(replace(settings, ids="any")) as server:
        ended = run(NODE or "", CLIENTS / "agents_session.mjs", f"http://{server.http}/v1", package)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "creation",
        "hosted tools",
        "local tools",
        "history",
        "reading",
        "replay",
        "removal",
    ]
