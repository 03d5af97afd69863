"""The unmodified `openai` package against the gateway, newest and old, under strict validation of responses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.server.app import Running

SCRIPT = Path(__file__).parents[1] / "clients" / "openai_life.py"
CORPUS = Path(__file__).parents[1] / "corpus" / "items.jsonl"
OLD = Path(sys.prefix) / "openai-2.30.0"
TIMEOUT = 120

REFERENCE_KINDS = {
    *("message", "function_call", "function_call_output", "file_search_call", "web_search_call"),
    *("image_generation_call", "computer_call", "computer_call_output", "tool_search_call", "tool_search_output"),
    *("reasoning", "compaction", "code_interpreter_call", "local_shell_call", "local_shell_call_output"),
    *("shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output", "mcp_list_tools"),
    *("mcp_approval_request", "mcp_approval_response", "mcp_call", "custom_tool_call", "custom_tool_call_output"),
}
NEWER_KINDS = {"additional_tools", "program", "program_output", "configuration_update"}


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        pytest.param("", REFERENCE_KINDS | NEWER_KINDS, id="newest"),
        pytest.param(
            str(OLD),
            REFERENCE_KINDS,
            id="2.30.0",
            marks=pytest.mark.skipif(not OLD.exists(), reason="openai 2.30.0 is not installed beside the newest"),
        ),
    ],
)
def test_an_unmodified_sdk_keeps_conversations_with_every_kind_of_item(
    server: Running, path: str, kinds: set[str]
) -> None:
    """Conversations and items of every kind that the package knows: created, paged, retrieved, updated, deleted."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), f"http://{server.http}/v1", str(CORPUS)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ended.returncode == 0, ended.stderr
    assert set(ended.stdout.split()) == kinds
