"""The tests that the developers of OpenAI's SDKs wrote pass against the gateway."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.server.app import Running
from tests.clients import openai_python_suite
from tests.clients.suite_proxy import suite_proxy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "openai-python"
TIMEOUT = 300

CHECKOUT = Path(os.environ.get("OPENAI_NODE") or os.devnull)
NODE_SUITES = {
    "tests/api-resources/conversations/conversations.test.ts",
    "tests/api-resources/conversations/items.test.ts",
    "tests/api-resources/responses/input-tokens.test.ts",
    "tests/api-resources/beta/responses/input-tokens.test.ts",
}


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


@pytest.mark.skipif(
    not (CHECKOUT / "node_modules" / ".bin" / "jest").exists(),
    reason="OPENAI_NODE names no checkout of openai-node with its packages installed",
)
def test_openai_node_passes_its_own_tests(server: Running, tmp_path: Path) -> None:
    """They run by the checkout's own script, which takes the address of a server in the place of its mock."""
    report = tmp_path / "report.json"
    with suite_proxy(f"http://{server.http}/v1") as url:
        ended = subprocess.run(
            ["scripts/test", "--json", f"--outputFile={report}", *sorted(NODE_SUITES)],
            check=False,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={**os.environ, "OPENAI_TEST_SUITE": "generated", "TEST_API_BASE_URL": url},
        )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(report.read_text())
    assert {os.path.relpath(suite["name"], CHECKOUT.resolve()) for suite in results["testResults"]} == NODE_SUITES
    assert results["numPassedTests"] == results["numTotalTests"]
