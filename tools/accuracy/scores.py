"""Scores: how near counts come to those that were recorded."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from accuracy.rows import Row


class Counted(NamedTuple):
    """The count of a row: no tokens if the counter fails, and why; else the reasons why they are an estimate."""

    tokens: int | None
    reasons: tuple[str, ...] = ()
    error: str = ""


class Score(NamedTuple):
    """How near counts come to those recorded, in percent of the rows; `error` is the mean of those with a count."""

    rows: int
    exact: float
    near: float
    close: float
    error: float | None


Results: TypeAlias = list[tuple[Row, Counted]]


def is_close(error: int, recorded: int) -> bool:
    """Tells whether a difference is at most 2 % of what was recorded."""
    return 50 * abs(error) <= recorded


def score(results: Results) -> Score:
    """Returns the score of rows as they were counted."""
    errors = [(counted.tokens - row.recorded, row.recorded) for row, counted in results if counted.tokens is not None]

    def percent(near: Callable[[int, int], bool]) -> float:
        return 100 * sum(near(error, recorded) for error, recorded in errors) / len(results)

    return Score(
        rows=len(results),
        exact=percent(lambda error, _: error == 0),
        near=percent(lambda error, _: abs(error) <= 1),
        close=percent(is_close),
        error=100 * sum(abs(error) / max(1, recorded) for error, recorded in errors) / len(errors) if errors else None,
    )


def grouped(results: Results, key: Callable[[Row], str]) -> dict[str, Results]:
    """Returns the rows of each group, in the order of the groups' names."""
    groups: dict[str, Results] = defaultdict(list)
    for row, counted in results:
        groups[key(row)].append((row, counted))
    return dict(sorted(groups.items()))
