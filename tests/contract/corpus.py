"""The items that codec tests send: the project's own, and those of the conformance collection where it is there.

`tests/corpus/items.jsonl` holds items in the shape in which the API returns them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT.parent / "shared" / "conformance" / "items.jsonl"


class Row(NamedTuple):
    """One item: what it shows, its `type`, and its JSON value."""

    name: str
    kind: str
    value: dict[str, Any]


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


ROWS = [Row(**line) for line in _lines(ROOT / "tests" / "corpus" / "items.jsonl")]


def conformance_rows() -> list[dict[str, Any]]:
    """The rows of the conformance collection: each with a `kind`, a `variant` and a `value`."""
    return _lines(CONFORMANCE) if CONFORMANCE.exists() else []
