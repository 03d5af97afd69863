"""The tests that the developers of OpenAI's SDKs wrote pass against the gateway."""

import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.service.server import Running
from tests.clients import openai_python_suite

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "openai-python"
TIMEOUT = 300


def test_openai_python_passes_its_own_tests(server: Running) -> None:
    """They run sync, async and over aiohttp, with loose and with strict validation of responses."""
    ended = subprocess.run(
        [sys.executable, "-m", openai_python_suite.__name__, f"http://{server.http}/v1", str(FOLDER)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if ended.returncode == openai_python_suite.UNAVAILABLE:
        pytest.skip("the source distribution of openai and what its tests need cannot be fetched")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [
        "beta.responses.test_input_tokens.TestAsyncInputTokens",
        "beta.responses.test_input_tokens.TestInputTokens",
        "conversations.test_items.TestAsyncItems",
        "conversations.test_items.TestItems",
        "responses.test_input_tokens.TestAsyncInputTokens",
        "responses.test_input_tokens.TestInputTokens",
        "test_conversations.TestAsyncConversations",
        "test_conversations.TestConversations",
    ]
