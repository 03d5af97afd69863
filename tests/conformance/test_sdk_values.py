"""Whatever the `openai` package can hold in an answer is accepted when it is sent back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgrpc.server.app import Running
from convgrpc.v1.item_pb2 import ConversationItem

SCRIPT = Path(__file__).parents[1] / "clients" / "sdk_values.py"
TIMEOUT = 600

NEVER_ANSWERED = {"compaction_trigger", "item_reference"}
KINDS = {field.name for field in ConversationItem.DESCRIPTOR.oneofs_by_name["kind"].fields} - NEVER_ANSWERED


def sent_back(server: Running, path: str) -> set[str]:
    """Runs the script with the packages of a folder before the installed ones; returns the kinds that came back."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), f"http://{server.http}/v1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


def test_values_of_the_sdk_come_back_as_they_were_sent(server: Running) -> None:
    assert sent_back(server, "") == KINDS


@pytest.mark.long
def test_values_of_the_latest_sdk_come_back_as_they_were_sent(server: Running, tmp_path: Path) -> None:
    """Shows kinds and keys of a newer package, if there is one, that the contract lacks."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1", "install"]
    installed = subprocess.run([*pip, "--upgrade", "--target", tmp_path, "openai"], check=False, capture_output=True)
    if installed.returncode:
        pytest.skip("the latest openai package cannot be fetched")
    assert sent_back(server, str(tmp_path)) >= KINDS
