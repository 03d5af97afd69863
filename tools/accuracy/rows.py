"""Rows: the recorded requests of files in JSON Lines, and what each was counted as."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from convgrpc.tokens.families import Models

MODELS = Models()

# Keys of a request, and of an item, that a model does not read.
_IRRELEVANT = ("stream", "include", "store", "metadata")
_IDS = ("id", "call_id")


class Row(NamedTuple):
    """A line of the files: its number, where it was found, and what was recorded."""

    number: int
    source: str
    model: str
    category: str
    why: tuple[str, ...]
    request: dict[str, Any]
    recorded: int

    @property
    def family(self) -> str:
        return MODELS.resolve(self.model).family.name

    @property
    def label(self) -> str:
        return ", ".join(self.why) or self.category

    @property
    def repository(self) -> str:
        """The repository in which the row was found: `owner/name`."""
        return self.source.partition(":")[0] or "unknown"


def read(lines: Iterable[str]) -> Iterator[Row | str]:
    """Yields the rows, and for each line without a use the reason."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if row.get("endpoint") == "chat":
                yield "the endpoint is 'chat'"
                continue
            yield _row(number, row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"line {number} is not a recorded request: {describe(error)}"


def _row(number: int, row: Mapping[str, Any]) -> Row:
    request = dict(row["request"])
    return Row(
        number=number,
        source=str(row.get("source") or ""),
        model=row.get("model") or request.get("model") or "none",
        category=row.get("category") or "all",
        why=tuple(map(str, row.get("why") or ())),
        request=request,
        recorded=int(row["input_tokens"]),
    )


def describe(error: BaseException) -> str:
    """Returns an error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def ceiling(rows: Sequence[Row]) -> float:
    """Returns on how many rows, in percent, a function of the request can be exact: equal requests differ in counts."""
    recorded: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        recorded[identity(row)][row.recorded] += 1
    return 100 * sum(max(counts.values()) for counts in recorded.values()) / len(rows)


def identity(row: Row) -> str:
    """Returns the same text for requests that differ only in what a model does not read."""
    request = {key: value for key, value in row.request.items() if key not in _IRRELEVANT}
    if isinstance(items := request.get("input"), list):
        seen: dict[str, int] = {}
        request["input"] = [_numbered(item, seen) if isinstance(item, dict) else item for item in items]
    return json.dumps([row.model, request], sort_keys=True)


def _numbered(item: Mapping[str, Any], seen: dict[str, int]) -> dict[str, Any]:
    """Puts numbers in place of ids: that there is one, and which call an output belongs to, may count."""
    return {key: seen.setdefault(str(value), len(seen)) if key in _IDS else value for key, value in item.items()}
