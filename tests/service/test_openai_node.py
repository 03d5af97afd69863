"""The unmodified npm package `openai` against the gateway."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from convgrpc.service.server import Running

SCRIPT = Path(__file__).parents[1] / "clients" / "openai_life.mjs"
CORPUS = Path(__file__).parents[1] / "corpus" / "items.jsonl"
FOLDER = Path(__file__).parents[2] / "build" / "node"
TIMEOUT = 120

NODE, NPM = shutil.which("node"), shutil.which("npm")

pytestmark = pytest.mark.skipif(not (NODE and NPM), reason="node and npm are not installed")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)


def installed(version: str) -> Path:
    """A folder that has this version of the package in its node_modules."""
    folder = FOLDER / f"openai-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"openai-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists():
            options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
            ended = run(NPM or "", "install", *options, "--fetch-retries=1", "--prefix", folder, f"openai@{version}")
            if ended.returncode:
                pytest.skip(f"the npm package openai {version} cannot be fetched")
            done.touch()
    return folder


@pytest.mark.parametrize(
    ("version", "oldest"),
    [pytest.param("6.49.0", 20, id="newest-for-node-20"), pytest.param("7.57.0", 22, id="newest")],
)
def test_an_unmodified_sdk_for_javascript_keeps_conversations_with_every_kind_of_item(
    server: Running, version: str, oldest: int
) -> None:
    """Created, paged in both orders, retrieved, copied, referred to, updated, deleted; and refused, as its errors."""
    found = run(NODE or "", "--version").stdout
    if int(found.removeprefix("v").partition(".")[0]) < oldest:
        pytest.skip(f"openai {version} needs Node {oldest}, and this is {found.strip()}")
    ended = run(NODE or "", SCRIPT, f"http://{server.http}/v1", CORPUS, installed(version))
    assert ended.returncode == 0, ended.stderr
    corpus = CORPUS.read_text().splitlines()
    assert set(ended.stdout.split()) == {json.loads(line)["kind"] for line in corpus}
