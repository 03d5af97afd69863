"""The arithmetic of `scripts/bench`, on made-up numbers: nothing is timed here."""

import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture(scope="module")
def bench() -> Any:
    # The file has no suffix, by which its kind would be known.
    loader = SourceFileLoader("bench", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def measurement(
    bench: Any, measured: list[float], reference: list[float], goal: float | None = 2, order: list[str] | None = None
) -> Any:
    """One whose samples are known; `order` takes the turns in which they are asked for."""

    def sampler(name: str, samples: list[float]) -> Any:
        def sample(number: int) -> float:
            if order is not None:
                order.append(f"{name}{number}")
            return samples[number]

        return sample

    return bench.Measurement("a", "b", goal, len(measured) - 1, sampler("a", measured), sampler("b", reference))


def result(bench: Any, ratio: float, goal: float | None) -> Any:
    spread = bench.Spread(0.0005, 0.00075, 0.0123456)
    return bench.Result("a count", "a call", goal, 10, spread, spread, ratio, bench.Spread(0.5, ratio, 3.25))


def test_a_spread_has_the_median_and_the_outer_deciles(bench: Any) -> None:
    """In any order, and between two samples where none stands at the decile itself."""
    assert bench.spread([10, 3, 1, 2, 4, 5, 6, 8, 7, 9, 0]) == bench.Spread(1, 5, 9)
    assert bench.spread([1, 2]) == pytest.approx((1.1, 1.5, 1.9))


def test_a_single_sample_is_its_own_spread(bench: Any) -> None:
    assert bench.spread([7]) == bench.Spread(7, 7, 7)


def test_one_slow_sample_does_not_move_the_ratio(bench: Any) -> None:
    """The ratio is that of the medians, and not that of the means."""
    found = bench.summary(measurement(bench, [], []), [(2, 1), (2, 1), (2, 1), (2, 1), (500, 1)])
    assert found.ratio == 2
    assert found.rounds == 5
    assert found.ratios.median == 2


def test_the_spread_of_ratios_is_that_of_the_rounds(bench: Any) -> None:
    """What slows both sides of a round alike does not show in it."""
    found = bench.summary(measurement(bench, [], []), [(2, 1), (20, 10), (4, 2)])
    assert found.ratios == bench.Spread(2, 2, 2)
    assert found.measured.p90 > found.measured.median


def test_a_reference_that_took_no_time_is_beaten_without_end(bench: Any) -> None:
    found = bench.summary(measurement(bench, [], []), [(1, 0), (1, 0)])
    assert found.ratio == float("inf")
    assert found.verdict == "missed"


@pytest.mark.parametrize(("goal", "verdict"), [(1.49, "missed"), (1.5, "ok"), (1.51, "ok"), (None, "")])
def test_a_goal_is_met_by_a_ratio_that_is_no_greater(bench: Any, goal: float | None, verdict: str) -> None:
    assert result(bench, 1.5, goal).verdict == verdict


def test_both_sides_take_turns(bench: Any) -> None:
    """Neither is always the first."""
    order: list[str] = []
    bench.take(measurement(bench, [0, 1, 2], [0, 1, 2], order=order), 2)
    assert order == ["b0", "a0", "a1", "b1", "b2", "a2"]


def test_the_round_that_warms_up_does_not_count(bench: Any) -> None:
    found = bench.take(measurement(bench, [900, 3, 3], [1, 1, 1]), 2)
    assert (found.rounds, found.ratio, found.measured.p90) == (2, 3, 3)


def test_a_measurement_ends_when_its_time_is_over(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has by then, be it no more than the round that warms up."""
    monkeypatch.setattr(bench, "SECONDS_EACH", -1)
    found = bench.take(measurement(bench, [3, 8], [1, 1]), 1)
    assert (found.rounds, found.ratio) == (1, 3)


def test_the_table_has_a_line_for_each_result(bench: Any) -> None:
    """Names stand to the left and numbers to the right, in milliseconds."""
    assert bench.table([result(bench, 1.504, 1.15), result(bench, 0.5, None)]).splitlines() == [
        "           ms   p10-p90  compared with    ms   p10-p90  ratio    p10-p90  goal",
        "a count  0.75  0.5-12.3  a call         0.75  0.5-12.3   1.50  0.50-3.25  1.15  missed",
        "a count  0.75  0.5-12.3  a call         0.75  0.5-12.3   0.50  0.50-3.25",
    ]


def test_what_is_measured_in_bytes_is_told_in_mebibytes(bench: Any) -> None:
    spread = bench.Spread(1 << 20, 3 << 20, 5 << 20)
    found = bench.Result("memory", "before", 2, 3, spread, spread, 1, bench.Spread(1, 1, 1), "MiB")
    assert bench.cells(found)[1:3] == ("3 MiB", "1-5")
    assert json.loads(bench.as_json([found]))[0]["unit"] == "bytes"


def test_json_has_what_the_table_has(bench: Any) -> None:
    """Rounded nowhere; what JSON has no number for is null."""
    one, other = json.loads(bench.as_json([result(bench, 1.504, 1.15), result(bench, float("inf"), None)]))
    assert one["measured"] == {"p10": 0.0005, "median": 0.00075, "p90": 0.0123456}
    assert (one["name"], one["compared_with"], one["rounds"]) == ("a count", "a call", 10)
    assert (one["ratio"], one["goal"], one["verdict"]) == (1.504, 1.15, "missed")
    assert one["ratios"] == {"p10": 0.5, "median": 1.504, "p90": 3.25}
    assert (other["ratio"], other["goal"], other["verdict"]) == (None, None, None)
