"""Runs that take turns, so that whatever else the machine does slows all of them alike."""

from collections.abc import Callable, Mapping
from math import isnan
from statistics import median

from benchmarks.generators import Run
from benchmarks.results import Measurement


class Turns:
    """Makes each of several runs once a round, whichever measurement asks first, in one order and then in the other."""

    def __init__(self, runs: Mapping[str, Callable[[], Run]], rounds: int) -> None:
        self._runs = runs
        self._number = rounds
        self._rounds: dict[int, dict[str, Run]] = {}

    def rates(
        self, name: str, compared_with: str, goal: float | None, *, items: int = 1, beside: "Beside | None" = None
    ) -> Measurement:
        """Compares the rates of two runs; where each call of the first has several items, it is that of the items."""
        return Measurement(
            name,
            compared_with,
            goal,
            self._number,
            lambda number: self.run(name, number).rate * items,
            lambda number: self.run(compared_with, number).rate,
            "rate",
            lambda: self.cost(name, compared_with) | (beside() if beside else {}),
            lasts=True,
        )

    def slowest(self, name: str, compared_with: str, goal: float | None) -> Measurement:
        """Compares the 99th percentile of a run with that of another, or with its own median."""

        def reference(number: int) -> float:
            run = self.run(compared_with, number)
            return run.p50 if compared_with == name else run.p99

        return Measurement(
            f"{name}: p99",
            "its median" if compared_with == name else f"{compared_with}: p99",
            goal,
            self._number,
            lambda number: self.run(name, number).p99,
            reference,
            lasts=True,
        )

    def run(self, name: str, number: int) -> Run:
        if number not in self._rounds:
            names = list(self._runs)[:: 1 if number % 2 else -1]
            self._rounds[number] = {each: self._runs[each]() for each in names}
        return self._rounds[number][name]

    def cost(self, name: str, compared_with: str) -> dict[str, float]:
        """The microseconds that the servers ran for a call, and their event loops, but for the round that warmed up."""
        rounds = [runs for number, runs in self._rounds.items() if number] or list(self._rounds.values())
        here, loop, there, loop_there = (
            1e6 * median(getattr(runs[each], cost) for runs in rounds)
            for each in (name, compared_with)
            for cost in ("cpu_each", "loop_each")
        )
        costs = {"server µs/call": here, "event loop": loop, "there": there, "event loop there": loop_there}
        return {what: cost for what, cost in costs.items() if not isnan(cost)}


Beside = Callable[[], dict[str, float]]
