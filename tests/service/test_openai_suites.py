"""The tests of openai-python's own developers pass against the gateway."""

import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.service.server import Running
from tests.clients import openai_python_suite

FOLDER = Path(__file__).parents[2] / "build" / "openai-python"
TIMEOUT = 300


def test_the_newest_sdk_passes_its_own_tests(server: Running) -> None:
    """Sync, async and over aiohttp, with loose and with strict validation; see the script for what stands between."""
    ended = subprocess.run(
        [sys.executable, openai_python_suite.__file__, f"http://{server.http}/v1", str(FOLDER)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if ended.returncode == openai_python_suite.UNAVAILABLE:
        pytest.skip("the source distribution of openai and what its tests need cannot be fetched")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [
        "TestAsyncConversations",
        "TestAsyncInputTokens",
        "TestAsyncItems",
        "TestConversations",
        "TestInputTokens",
        "TestItems",
    ]
