"""The unmodified npm package `openai` against the gateway."""

import json
from pathlib import Path

import pytest

from convgrpc.service.server import Running
from tests.node_packages import NODE, installed, needs_node, run

SCRIPT = Path(__file__).parents[1] / "clients" / "openai_life.mjs"
CORPUS = Path(__file__).parents[1] / "corpus" / "items.jsonl"

pytestmark = needs_node


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
    ended = run(NODE or "", SCRIPT, f"http://{server.http}/v1", CORPUS, installed("openai", version))
    assert ended.returncode == 0, ended.stderr
    corpus = CORPUS.read_text().splitlines()
    assert set(ended.stdout.split()) == {json.loads(line)["kind"] for line in corpus}
