"""The unmodified npm package `openai` against the gateway."""

import json
from pathlib import Path

import pytest

from convgrpc.server.app import Running
from tests.node_packages import NODE, installed, needs_node, run, skip_before_node

CLIENTS = Path(__file__).parents[1] / "clients"
LIFE, CALLS = CLIENTS / "openai_life.mjs", CLIENTS / "openai_calls.mjs"
CORPUS = Path(__file__).parents[1] / "corpus" / "items.jsonl"

METHODS = [
    "conversations.create",
    "conversations.retrieve",
    "conversations.update",
    "conversations.delete",
    "conversations.items.create",
    "conversations.items.retrieve",
    "conversations.items.list",
    "conversations.items.delete",
    "responses.inputTokens.count",
    "beta.responses.inputTokens.count",
]

pytestmark = needs_node


@pytest.fixture(
    params=[pytest.param(("6.49.0", 20), id="newest-for-node-20"), pytest.param(("7.59.0", 22), id="newest")]
)
def package(request: pytest.FixtureRequest) -> Path:
    version, oldest = request.param
    skip_before_node(oldest, f"openai {version}")
    return installed("openai", version)


def test_openai_node_keeps_conversations_with_every_kind_of_item(server: Running, package: Path) -> None:
    """Conversations and items are created, paged in both orders, retrieved, copied, updated and deleted."""
    ended = run(NODE or "", LIFE, f"http://{server.http}/v1", CORPUS, package)
    assert ended.returncode == 0, ended.stderr
    corpus = CORPUS.read_text().splitlines()
    assert set(ended.stdout.split()) == {json.loads(line)["kind"] for line in corpus}


def test_openai_node_makes_every_call_with_every_parameter(server: Running, package: Path) -> None:
    """The calls of conversations, items and token counts, with the beta ones, are answered or refused as expected."""
    ended = run(NODE or "", CALLS, f"http://{server.http}/v1", package)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.split() == METHODS
