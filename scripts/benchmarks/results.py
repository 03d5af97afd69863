"""Measurements, and what comes of them: ratios with their spread, as a table or as JSON."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import quantiles
from typing import NamedTuple, TypeAlias

QUICK_SHARE = 20
SECONDS_EACH = 60
"""After how long a measurement ends, whatever rounds are left."""


class Unit(NamedTuple):
    """How values are shown, by which factor and with which sign, their unit in JSON, and which of two is better."""

    factor: float
    sign: str
    name: str
    more_is_better: bool = False


UNITS = {
    "ms": Unit(1e3, "", "s"),
    "µs": Unit(1e6, " µs", "s"),
    "MiB": Unit(1 / (1 << 20), " MiB", "bytes"),
    "rate": Unit(1, "/s", "1/s", more_is_better=True),
}


class Measurement(NamedTuple):
    """What is measured, what it is compared with, and from or up to which ratio that is good; None where it is only
    told.

    Both take the number of a round, and return seconds, bytes or a rate, as the unit says. `beside` is asked in the
    end for what else there is to tell, by its name. `lasts` tells that a round goes on for so long that its
    beginning is little of it.
    """

    name: str
    compared_with: str
    goal: float | None
    rounds: int
    measured: Callable[[int], float]
    reference: Callable[[int], float]
    unit: str = "ms"
    beside: Callable[[], Mapping[str, float]] = dict
    lasts: bool = False


class Spread(NamedTuple):
    """Samples in short."""

    p10: float
    median: float
    p90: float


class Result(NamedTuple):
    """What came of a measurement; `ratio` is that of the medians, and `ratios` the spread of those of the rounds.

    In results of `benchmarks.against`, `ratio` is the median of those of the rounds.
    """

    name: str
    compared_with: str
    goal: float | None
    rounds: int
    measured: Spread
    reference: Spread
    ratio: float
    ratios: Spread
    unit: str = "ms"
    beside: Mapping[str, float] = {}

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        is_good = self.ratio >= self.goal if UNITS[self.unit].more_is_better else self.ratio <= self.goal
        return "ok" if is_good else "missed"


class Unavailable(NamedTuple):
    """A measurement that could not be made, and why, in one line."""

    name: str
    compared_with: str
    reason: str
    verdict: str = "n/a"


class Effort(NamedTuple):
    """How much is done: all of it, or what can be done quickly."""

    quick: bool

    def rounds(self, number: int) -> int:
        return max(1, number // QUICK_SHARE) if self.quick else number

    def seconds(self, number: float) -> float:
        return number / 3 if self.quick else number


Group: TypeAlias = Callable[[Effort], AbstractContextManager[list[Measurement]]]


def spread(samples: Sequence[float]) -> Spread:
    deciles = quantiles([*samples, *samples] if len(samples) == 1 else samples, n=10, method="inclusive")
    return Spread(deciles[0], deciles[4], deciles[8])


def ratio(measured: float, reference: float) -> float:
    """How many times the reference; infinitely many where that took no time at all."""
    return measured / reference if reference else float("inf")


def summary(measurement: Measurement, samples: Sequence[tuple[float, float]]) -> Result:
    measured, reference = (spread(each) for each in zip(*samples, strict=True))
    ratios = spread([ratio(*pair) for pair in samples])
    found = ratio(measured.median, reference.median)
    beside = measurement.beside()
    return Result(*measurement[:3], len(samples), measured, reference, found, ratios, measurement.unit, beside)


def take(measurement: Measurement, rounds: int, *, warm_up: bool = True) -> Result:
    """Takes samples in turn, in either order; round 0 only warms up, if there is to be one."""
    give_up = time.monotonic() + SECONDS_EACH
    samples = []
    for number in range(0 if warm_up else 1, rounds + 1):
        if number % 2:
            measured, reference = measurement.measured(number), measurement.reference(number)
        else:
            reference, measured = measurement.reference(number), measurement.measured(number)
        samples.append((measured, reference))
        if time.monotonic() > give_up:
            break
    return summary(measurement, samples[warm_up:] or samples)


HEADING = ("", "ms", "p10-p90", "compared with", "ms", "p10-p90", "ratio", "p10-p90", "goal", "", "")
TO_THE_LEFT = {0, 3, 9, 10}


def table(results: Iterable[Result | Unavailable]) -> str:
    rows = [HEADING, *map(cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in TO_THE_LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def cells(result: Result | Unavailable) -> tuple[str, ...]:
    if isinstance(result, Unavailable):
        return (result.name, "", "", result.compared_with, *[""] * 5, result.verdict, result.reason)
    bound = ">=" if UNITS[result.unit].more_is_better else "<="
    return (
        result.name,
        *in_unit(result.measured, result.unit),
        result.compared_with,
        *in_unit(result.reference, result.unit),
        f"{result.ratio:.2g}" if result.ratio < 0.1 else f"{result.ratio:.2f}",
        f"{result.ratios.p10:.2f}-{result.ratios.p90:.2f}",
        "" if result.goal is None else f"{bound}{result.goal:.4g}",
        result.verdict,
        ", ".join(f"{name} {value:.3g}" for name, value in result.beside.items()),
    )


def in_unit(values: Spread, unit: str) -> tuple[str, str]:
    low, middle, high = (shown(each * UNITS[unit].factor) for each in values)
    return f"{middle}{UNITS[unit].sign}", f"{low}-{high}"


def shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_json(results: Iterable[Result | Unavailable], on: Mapping[str, str]) -> str:
    """Seconds and ratios as they are; an infinite ratio, which JSON does not have, is null. `on` is what it was taken
    on.
    """
    rows = [
        result._asdict()
        if isinstance(result, Unavailable)
        else {
            "name": result.name,
            "compared_with": result.compared_with,
            "goal": result.goal,
            "verdict": result.verdict or None,
            "rounds": result.rounds,
            "measured": result.measured._asdict(),
            "reference": result.reference._asdict(),
            "unit": UNITS[result.unit].name,
            "ratio": finite(result.ratio),
            "ratios": {key: finite(value) for key, value in result.ratios._asdict().items()},
            "beside": dict(result.beside),
        }
        for result in results
    ]
    return json.dumps({"on": dict(on), "rows": rows}, indent=2)


def finite(number: float) -> float | None:
    return None if number == float("inf") else number
