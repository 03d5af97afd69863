"""What `scripts/bench` is made of: its arithmetic on made-up numbers, and what makes calls and databases. No test depends
on a time that it measures.
"""

import json
import math
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import httpx
import pytest

from benchmarks import against, checkouts, generators, grpc_calls, results
from benchmarks.against import Call, Pair
from benchmarks.checkouts import HERE
from benchmarks.dialogues import message
from benchmarks.generators import Caller, Request, Run
from benchmarks.library import fill
from benchmarks.processes import Process
from benchmarks.results import Effort, Measurement, Result, Spread, Unavailable
from benchmarks.turns import Turns
from convgrpc.server.app import Running
from convgrpc.settings import Settings
from convgrpc.testing import served
from convgrpc.v1.conversations_service_pb2 import CreateItemsRequest
from convgrpc.v1.item_pb2 import Role


def measurement(
    measured: list[float], reference: list[float], goal: float | None = 2, order: list[str] | None = None
) -> Any:
    """One whose samples are known; `order` takes the turns in which they are asked for."""

    def sampler(name: str, samples: list[float]) -> Any:
        def sample(number: int) -> float:
            if order is not None:
                order.append(f"{name}{number}")
            return samples[number]

        return sample

    return Measurement("a", "b", goal, len(measured) - 1, sampler("a", measured), sampler("b", reference))


def result(ratio: float, goal: float | None) -> Any:
    spread = Spread(0.0005, 0.00075, 0.0123456)
    return Result("a count", "a call", goal, 10, spread, spread, ratio, Spread(0.5, ratio, 3.25))


def test_a_spread_has_the_median_and_the_outer_deciles() -> None:
    """In any order, and between two samples where none stands at the decile itself."""
    assert results.spread([10, 3, 1, 2, 4, 5, 6, 8, 7, 9, 0]) == Spread(1, 5, 9)
    assert results.spread([1, 2]) == pytest.approx((1.1, 1.5, 1.9))


def test_a_single_sample_is_its_own_spread() -> None:
    assert results.spread([7]) == Spread(7, 7, 7)


def test_one_slow_sample_does_not_move_the_ratio() -> None:
    """The ratio is that of the medians, and not that of the means."""
    found = results.summary(measurement([], []), [(2, 1), (2, 1), (2, 1), (2, 1), (500, 1)])
    assert found.ratio == 2
    assert found.rounds == 5
    assert found.ratios.median == 2


def test_the_spread_of_ratios_is_that_of_the_rounds() -> None:
    """What slows both sides of a round alike does not show in it."""
    found = results.summary(measurement([], []), [(2, 1), (20, 10), (4, 2)])
    assert found.ratios == Spread(2, 2, 2)
    assert found.measured.p90 > found.measured.median


def test_a_reference_that_took_no_time_is_beaten_without_end() -> None:
    found = results.summary(measurement([], []), [(1, 0), (1, 0)])
    assert found.ratio == float("inf")
    assert found.verdict == "missed"


@pytest.mark.parametrize(("goal", "verdict"), [(1.49, "missed"), (1.5, "ok"), (1.51, "ok"), (None, "")])
def test_a_goal_is_met_by_a_ratio_that_is_no_greater(goal: float | None, verdict: str) -> None:
    assert result(1.5, goal).verdict == verdict


def test_both_sides_take_turns() -> None:
    """Neither is always the first."""
    order: list[str] = []
    results.take(measurement([0, 1, 2], [0, 1, 2], order=order), 2)
    assert order == ["b0", "a0", "a1", "b1", "b2", "a2"]


def test_the_round_that_warms_up_does_not_count() -> None:
    found = results.take(measurement([900, 3, 3], [1, 1, 1]), 2)
    assert (found.rounds, found.ratio, found.measured.p90) == (2, 3, 3)


def test_without_a_round_that_warms_up_all_count() -> None:
    found = results.take(measurement([900, 3, 3], [1, 1, 1]), 2, warm_up=False)
    assert (found.rounds, found.measured.p10, found.measured.p90) == (2, 3, 3)


def test_a_measurement_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has by then, be it no more than the round that warms up."""
    monkeypatch.setattr(results, "SECONDS_EACH", -1)
    found = results.take(measurement([3, 8], [1, 1]), 1)
    assert (found.rounds, found.ratio) == (1, 3)


def test_the_table_has_a_line_for_each_result() -> None:
    """Names stand to the left and numbers to the right, in milliseconds."""
    assert results.table([result(1.504, 1.15), result(0.5, None)]).splitlines() == [
        "           ms   p10-p90  compared with    ms   p10-p90  ratio    p10-p90    goal",
        "a count  0.75  0.5-12.3  a call         0.75  0.5-12.3   1.50  0.50-3.25  <=1.15  missed",
        "a count  0.75  0.5-12.3  a call         0.75  0.5-12.3   0.50  0.50-3.25",
    ]


def test_of_rates_the_higher_is_the_better() -> None:
    """And what there is to tell beside stands at the end."""
    spread = Spread(900, 1000, 1100)
    good, bad = (
        Result("a", "b", 0.5, 3, spread, spread, ratio, spread, "rate", {"µs": 157.4}) for ratio in (0.5, 0.49)
    )
    assert (good.verdict, bad.verdict) == ("ok", "missed")
    assert results.cells(good)[1:3] == ("1000/s", "900-1100")
    assert results.cells(good)[-3:] == (">=0.5", "ok", "µs 157")


def test_quickly_is_a_share_of_it() -> None:
    assert (Effort(False).rounds(10), Effort(False).seconds(3)) == (10, 3)
    assert (Effort(True).rounds(100), Effort(True).rounds(1), Effort(True).seconds(3)) == (5, 1, 1)


def test_runs_take_turns() -> None:
    """Each is made once a round, in one order and then in the other, whoever asks first and how often."""
    order: list[str] = []

    def run(name: str) -> Run:
        order.append(name)
        return Run(100, 2.0, 0.5, 0.010, 0.030, 0.4 if name == "a" else math.nan)

    turns = Turns({name: partial(run, name) for name in ("a", "b", "c")}, 1)
    found = [results.take(each, 1) for each in (turns.rates("a", "c", 1, items=20), turns.slowest("b", "b", 2.5))]
    assert order == ["c", "b", "a", "a", "b", "c"]
    assert [(each.ratio, each.verdict) for each in found] == [(20, "ok"), (3, "missed")]
    assert found[0].beside == {"server µs/call": 5000, "event loop": 4000, "there": 5000}


def test_what_is_measured_in_bytes_is_told_in_mebibytes() -> None:
    spread = Spread(1 << 20, 3 << 20, 5 << 20)
    found = Result("memory", "before", 2, 3, spread, spread, 1, Spread(1, 1, 1), "MiB")
    assert results.cells(found)[1:3] == ("3 MiB", "1-5")
    assert json.loads(results.as_json([found], {}))["rows"][0]["unit"] == "bytes"


def test_json_has_what_the_table_has() -> None:
    """Rounded nowhere; what JSON has no number for is null."""
    one, other = json.loads(results.as_json([result(1.504, 1.15), result(float("inf"), None)], {}))["rows"]
    assert one["measured"] == {"p10": 0.0005, "median": 0.00075, "p90": 0.0123456}
    assert (one["name"], one["compared_with"], one["rounds"]) == ("a count", "a call", 10)
    assert (one["ratio"], one["goal"], one["verdict"]) == (1.504, 1.15, "missed")
    assert one["ratios"] == {"p10": 0.5, "median": 1.504, "p90": 3.25}
    assert (other["ratio"], other["goal"], other["verdict"]) == (None, None, None)


with_each_generator = pytest.mark.parametrize(
    "generator",
    [
        pytest.param("h2load", marks=pytest.mark.skipif(not shutil.which("h2load"), reason="there is no h2load")),
        "scripts/load",
    ],
)


@pytest.fixture
def caller(generator: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Request], Caller]:
    if generator == "scripts/load":
        monkeypatch.setattr(generators, "H2LOAD", None)
    return lambda request: Caller(Process(os.getpid()), request, 0.1)


def appends(server: Running, http: httpx.Client, *, is_grpc: bool) -> Request:
    conversation = http.post("/v1/conversations", json={}).json()["id"]
    item = {"type": "message", "role": "user", "content": "Hello"}
    path = f"/v1/conversations/{conversation}/items"
    made = http.post(path, json={"items": [item]}).content
    if not is_grpc:
        return Request(str(server.http), [path], json.dumps({"items": [item]}).encode(), len(made))
    data = CreateItemsRequest(
        conversation_id=conversation, items=[message(Role.ROLE_USER, "Hello").item]
    ).SerializeToString()
    method = "/convgrpc.v1.ConversationsService/CreateItems"
    with grpc.insecure_channel(str(server.grpc)) as channel:
        call: Any = channel.unary_unary(method)
        answer: bytes = call(data)
    return Request(str(server.grpc), [method], data, len(answer), is_grpc=True)


def stored(settings: Settings) -> int:
    with closing(sqlite3.connect(settings.db)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM items").fetchone()
    return int(count)


@with_each_generator
@pytest.mark.parametrize("is_grpc", [True, False])
def test_as_many_calls_are_made_as_are_counted(
    caller: Callable[[Request], Caller], settings: Settings, server: Running, http: httpx.Client, is_grpc: bool
) -> None:
    """The first time a few more, by which it is found out how many take so long."""
    appending = caller(appends(server, http, is_grpc=is_grpc))
    before = stored(settings)
    appending.run()
    known = appending.acknowledged
    assert stored(settings) - before == known
    run = appending.run()
    assert stored(settings) - before - known == appending.acknowledged - known == run.calls > 0
    assert 0 < run.p50 <= run.p99 < run.seconds


@with_each_generator
@pytest.mark.parametrize("is_grpc", [True, False])
def test_calls_that_are_refused_are_no_measurement(
    caller: Callable[[Request], Caller], server: Running, http: httpx.Client, is_grpc: bool
) -> None:
    """gRPC refuses with a status that HTTP does not know."""
    request = appends(server, http, is_grpc=is_grpc)
    path = request.paths[0].replace("conv_", "conv_0")
    refused = request._replace(paths=[path], body=request.body.replace(b"conv_", b"conv-"))
    with pytest.raises(SystemExit, match="not all calls"):
        caller(refused).run()


@with_each_generator
def test_load_splits_a_message_into_frames(
    caller: Callable[[Request], Caller], server: Running, http: httpx.Client
) -> None:
    """A frame has at most 16,384 bytes, and a message of 20 items has more."""
    request = appends(server, http, is_grpc=True)
    large = CreateItemsRequest.FromString(request.body)
    large.items.extend([message(Role.ROLE_USER, "Hello " * 1000).item] * 5)
    found = caller(request._replace(body=large.SerializeToString(), answer=0)).run()
    assert found.calls > 0


def test_two_servers_get_the_same_calls_in_turns(settings: Settings, server: Running, http: httpx.Client) -> None:
    """The pair of turns that warms up is not among the results."""
    request, other = appends(server, http, is_grpc=True), appends(server, http, is_grpc=False)
    before, process = stored(settings), Process(os.getpid())
    found = generators.in_turns([(process, request), (process, other)], 10, 3)
    assert stored(settings) - before == 2 * 10 * (3 + 1)
    assert [len(pair) for pair in found] == [2, 2, 2]
    assert all(cpu > 0 for pair in found for cpu in pair)


def test_refused_calls_in_turns_end_the_program(server: Running, http: httpx.Client) -> None:
    request = appends(server, http, is_grpc=True)
    refused = request._replace(body=request.body.replace(b"conv_", b"conv-"))
    process = Process(os.getpid())
    with pytest.raises(SystemExit, match="scripts/load failed"):
        generators.in_turns([(process, request), (process, refused)], 10, 1)


def test_cpu_time_includes_threads_that_ended() -> None:
    process = Process(os.getpid())
    ran: list[float] = []

    def work() -> None:
        sum(range(1_000_000))
        ran.append(time.thread_time())

    before = process.cpu()
    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert process.cpu() - before >= ran[0] > 0


def pairs(ratios: list[float], speed: float = 1) -> list[Pair]:
    return [Pair(ratio * speed, speed) for ratio in ratios]


def test_equal_checkouts_are_within_the_goal() -> None:
    found = against.judged("a", "b", [pairs([1.01, 0.99, 1.0])] * 8)
    assert (found.ratio, found.goal, found.verdict) == (1.0, 1.03, "ok")


def test_a_slower_checkout_misses_the_goal() -> None:
    found = against.judged("a", "b", [pairs([1.1, 1.09, 1.11])] * 8)
    assert (found.ratio, found.goal, found.verdict) == (1.1, 1.03, "missed")


def test_a_faster_checkout_is_within_the_goal() -> None:
    assert against.judged("a", "b", [pairs([0.5])] * 8).verdict == "ok"


def test_a_goal_is_as_wide_as_half_of_the_spread() -> None:
    """The ratios of the rounds range from 1.0 to 1.1, so that p10 is 1.01 and p90 1.09."""
    found = against.judged("a", "b", [pairs([1 + number / 100]) for number in range(11)])
    assert found.goal == pytest.approx(1.04)
    assert found.ratio == pytest.approx(1.05)
    assert found.verdict == "missed"


def test_a_change_of_speed_between_pairs_cancels() -> None:
    """Nor does one pair count in which the speed changed."""
    found = against.judged("a", "b", [pairs([1.0, 1.0], 2) + pairs([1.0, 1.0, 1.8])] * 8)
    assert (found.ratio, found.ratios) == (1.0, Spread(1, 1, 1))


def test_a_checkout_is_compared_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each call, also for an RPC or a route that a checkout lacks."""
    monkeypatch.setattr(against, "DATABASES", tmp_path)
    monkeypatch.setattr(against, "FEWEST_ROUNDS", 1)
    monkeypatch.setattr(against, "QUICK_PAIRS", 1)
    monkeypatch.setitem(
        against.CALLS, "grpc/None", Call(lambda target, _: grpc_calls.asking(target.server, "None", b""))
    )
    monkeypatch.setitem(against.CALLS, "rest/None", Call(lambda target, _: against.rest(target, ["/v1/none"])))
    names = ["grpc/GetItem", "rest/ListItems-20", "tokens/conversation-first-100kB", "grpc/None", "rest/None"]
    found = against.against(HERE, Effort(True), names)
    assert [each.name for each in found] == names
    assert [each.verdict in ("ok", "missed") for each in found] == [True, True, True, False, False]
    assert [each.reason.partition(" ")[2] for each in found if isinstance(each, Unavailable)] == [
        "UNIMPLEMENTED Method not found!",
        "HTTP 404 Not Found",
    ]
    lines = results.table(found).splitlines()
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[4].split()[1:3] == [HERE.commit, "n/a"]
    rows = json.loads(results.as_json(found, {}))["rows"]
    assert [(row["name"], row["verdict"]) for row in rows] == [(each.name, each.verdict) for each in found]
    assert not list(tmp_path.iterdir())


def test_calls_are_chosen_by_name_and_by_group() -> None:
    """In the order of the table, and each once."""
    assert against.chosen([]) == list(against.CALLS)
    assert against.chosen(["rest/GetItem", "grpc/GetItem"]) == ["grpc/GetItem", "rest/GetItem"]
    assert against.chosen(["tokens", "tokens/text-2kB"]) == [
        each for each in against.CALLS if each.startswith("tokens/")
    ]
    with pytest.raises(ValueError, match="there is no call or group tokens/none: expected some of grpc, grpc/Cr"):
        against.chosen(["tokens/none"])


def test_a_folder_without_the_source_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkout of convgrpc: it has no pyproject"):
        checkouts.checkout(tmp_path)


def test_a_checkout_with_other_dependencies_has_its_own_environment(tmp_path: Path) -> None:
    (tmp_path / "src" / "convgrpc").mkdir(parents=True)
    (tmp_path / "src" / "convgrpc" / "__main__.py").touch()
    project = (HERE.root / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(project)
    assert checkouts.checkout(tmp_path) == checkouts.Checkout(tmp_path, HERE.python)
    (tmp_path / "pyproject.toml").write_text(project.replace("grpcio>=", "grpcio>"))
    environment = tmp_path / "scripts" / "environment"
    environment.parent.mkdir()
    environment.write_text("#!/bin/sh\necho python-for-$1\n")
    environment.chmod(0o755)
    assert checkouts.checkout(tmp_path) == checkouts.Checkout(tmp_path, "python-for-serve")


def test_an_option_that_a_checkout_lacks_is_found(tmp_path: Path) -> None:
    assert HERE.has_keys()
    assert HERE.has_metrics()
    (tmp_path / "src" / "convgrpc").mkdir(parents=True)
    (tmp_path / "src" / "convgrpc" / "__init__.py").touch()
    (tmp_path / "src" / "convgrpc" / "__main__.py").write_text("import sys\nsys.exit(2 if 'keys' in sys.argv else 0)\n")
    older = checkouts.Checkout(tmp_path)
    assert not older.has_keys()
    assert not older.has_metrics()


def test_a_database_that_is_filled_is_one_of_the_service(settings: Settings) -> None:
    """In the order of the items, with their texts, and as many as it counts; others follow."""
    first, _ = fill(Path(settings.db), 2, 30, 100)
    with served(settings) as addresses, httpx.Client(base_url=f"http://{addresses.http}") as client:
        path = f"/v1/conversations/{first.id}/items"
        page = client.get(path, params={"limit": 100}).json()
        assert [item["id"] for item in page["data"]] == first.item_ids
        assert len(page["data"][0]["content"][0]["text"]) in range(90, 101)
        added = client.post(path, json={"items": [{"type": "message", "role": "user", "content": "Hello"}]}).json()
        assert client.get(path, params={"limit": 1}).json()["data"] == added["data"]
        assert client.delete(f"{path}/{first.item_ids[3]}").status_code == 200
        assert len(client.get(path, params={"limit": 100}).json()["data"]) == 30
