"""`scripts/accuracy`: its arithmetic, its tables and its rules, without the counters it compares with."""

import json
from pathlib import Path
from typing import Any

import pytest

from accuracy import command, counters
from accuracy.chat import chat
from accuracy.counters import cookbook_messages, cookbook_tools, counted, decoded, ours
from accuracy.report import report, report_by_source
from accuracy.rows import MODELS, Row, ceiling, identity, read
from accuracy.rules import RULES, Rule, switched_off
from accuracy.scores import Counted, Results, score
from accuracy.support import supports
from tests.tokens.asking import assistant, call, function, output, user
from tests.tokens.test_images import png, url

SHARED = Path(__file__).parents[2] / "shared" / "tokens"


def line(recorded: int, request: Any, **changes: Any) -> str:
    model = "gpt-4o"
    row = {"model": model, "category": "plain", "endpoint": "responses", "input_tokens": recorded}
    return json.dumps({**row, "request": {"model": model, **request}, **changes})


def rows(*lines: str) -> list[Row]:
    return [row for row in read(lines) if isinstance(row, Row)]


def results(*pairs: tuple[int, int | None]) -> Results:
    """Returns results, of what was recorded and what was counted."""
    return [(row, Counted(tokens)) for recorded, tokens in pairs for row in rows(line(recorded, {"input": "Hello"}))]


def printed(monkeypatch: pytest.MonkeyPatch, *lines: str, rows_too: bool = False) -> list[str]:
    monkeypatch.setattr(counters, "OTHERS", {})
    return list(report(lines, rows_too))


def test_a_score_tells_how_many_counts_are_exact_and_how_near_the_others_are() -> None:
    """One is exact, one is off by a token, one by 2 %, and one by a tenth."""
    scored = score(results((10, 10), (10, 11), (100, 98), (100, 110)))
    assert (scored.rows, scored.exact, scored.near, scored.close) == (4, 25, 50, 50)
    assert scored.error == pytest.approx((0 + 10 + 2 + 10) / 4)


def test_a_row_without_a_count_is_not_exact_and_has_no_part_in_the_mean_error() -> None:
    scored = score(results((10, 10), (10, None)))
    assert scored == (2, 50, 50, 50, 0)
    assert score(results((10, None))) == (1, 0, 0, 0, None)


def test_equal_requests_with_different_counts_lower_the_ceiling() -> None:
    """Of three that are equal two can be exact at once; a fourth is another request."""
    same = [line(recorded, {"input": "Hello"}) for recorded in (8, 9, 9)]
    assert ceiling(rows(*same)) == pytest.approx(200 / 3)
    assert ceiling(rows(*same, line(8, {"input": "Bye"}))) == 75


@pytest.mark.parametrize("change", [{"stream": True}, {"store": False}, {"include": []}, {"metadata": {"a": "b"}}])
def test_what_a_model_does_not_read_makes_no_other_request(change: dict[str, Any]) -> None:
    both = rows(line(8, {"input": "Hello"}), line(9, {"input": "Hello", **change}))
    assert ceiling(both) == 50


def exchange(first: str, second: str, *answered: str) -> dict[str, Any]:
    calls = [{"type": "function_call", "call_id": each, "name": "f", "arguments": "{}"} for each in (first, second)]
    outputs = [{"type": "function_call_output", "call_id": each, "output": "1"} for each in answered]
    return {"input": [*calls, *outputs]}


def test_requests_are_equal_whatever_their_ids_are_called() -> None:
    """But not if an output belongs to another call."""
    one, two, crossed = (
        identity(row)
        for row in rows(
            line(8, exchange("a", "b", "a", "b")),
            line(8, exchange("b", "c", "b", "c")),
            line(8, exchange("a", "b", "b", "a")),
        )
    )
    assert one == two
    assert one != crossed


def test_the_tables_have_a_line_for_each_group_and_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greeting is 8 tokens with what is around it, for gpt-4o, and 7 for gpt-5."""
    lines = printed(
        monkeypatch,
        line(8, {"input": "Hello"}),
        line(9, {"input": "Hello"}),
        line(7, {"input": "Hello", "model": "gpt-5"}, model="gpt-5", category="other"),
    )
    figures = [each.split() for each in lines]
    assert ["plain", "2", "50.0", "100.0", "50.0", "5.56", "50.0"] in figures
    assert ["other", "1", "100.0", "100.0", "100.0", "0.00", "100.0"] in figures
    assert ["gpt-5", "1", "100.0", "100.0", "100.0", "0.00", "100.0"] in figures
    assert figures.count(["all", "3", "66.7", "100.0", "66.7", "3.70", "66.7"]) == 2


def test_hard_rows_are_told_by_what_makes_them_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, line(8, {"input": "Hello"}, why=["image", "file"]))
    assert any(each.startswith("class ") for each in lines)
    assert any(each.startswith("image, file ") for each in lines)


def test_rows_of_the_chat_api_and_lines_without_a_request_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, line(8, {}, endpoint="chat"), "{", line(8, {}, endpoint="chat"), "")
    assert lines[0] == "left out, 2 times: the endpoint is 'chat'"
    assert lines[1].startswith("left out, 1 times: line 2 is not a recorded request: JSONDecodeError")
    assert lines[2:] == ["There are no rows."]


def test_a_row_that_cannot_be_decoded_is_told_as_an_error_and_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, line(8, {"input": 5}), line(8, {"input": "Hello"}))
    assert lines[0].startswith("error: line 1, plain, gpt-4o: InvalidArgument")
    assert ["all", "2", "50.0"] in [each.split()[:3] for each in lines]


def test_rows_that_are_not_exact_are_told_with_what_was_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = {"input": "Hello", "tools": [{"type": "web_search"}]}
    lines = printed(monkeypatch, line(8, {"input": "Hello"}), line(300, tools), rows_too=True)
    assert lines[-1] == "   2 plain gpt-4o 300 +2 estimates: hosted_tool"


def test_a_counter_that_cannot_be_made_or_fails_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ImportError("No module named 'absent'")

    def failing() -> Any:
        return lambda model, request: {}[model]

    monkeypatch.setattr(counters, "OTHERS", {"absent": absent, "failing": failing})
    lines = list(report([line(8, {"input": "Hello"})], False))
    assert ["all", "failing", "1", "0.0", "0.0", "0.0", "-"] in [each.split() for each in lines]
    assert "absent: cannot be used (ImportError: No module named 'absent'); 1 rows left out" in lines
    assert "failing: 1 rows left out, as not exact and without a part in the mean error" in lines


def test_a_request_takes_the_form_of_the_chat_api() -> None:
    """Calls that were made together are in one message, and what that API does not have is left out."""
    stored_image = {"type": "input_image", "file_id": "file_1"}
    messages, tools = chat(
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hello"}, stored_image]},
                {"type": "reasoning", "summary": []},
                *exchange("a", "b", "a")["input"],
            ],
            "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        }
    )
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[1]["content"] == "Hello"
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["a", "b"]
    assert messages[3] == {"role": "tool", "tool_call_id": "a", "content": "1"}
    assert [tool["function"]["name"] for tool in tools] == ["f"]


def test_the_formula_of_the_cookbook_adds_its_constants() -> None:
    """Each text is one token here, so that what remains are the constants."""
    schema = {"type": "string", "description": "Where.", "enum": ["a", "b"]}
    tool = {"name": "f", "description": "Weather.", "parameters": {"type": "object", "properties": {"place": schema}}}
    messages = [{"role": "user", "name": "Ann", "content": "Hello"}]
    assert cookbook_messages(messages, lambda text: 1) == 3 + 3 + 1 + 1 + 1 + 1
    tools = [{"type": "function", "function": tool}]
    assert cookbook_tools(tools, lambda text: 1) == (7 + 1) + 3 + (3 + 1) + (-3 + 2 * (3 + 1)) + 12


def test_what_an_earlier_version_counted_stands_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By class, from what it saved."""
    monkeypatch.setattr(counters, "OTHERS", {})
    lines = [line(8, {"input": "Hello"}, why=["greeting"]), line(9, {"input": "Hello"}, why=["greeting"])]
    now = tmp_path / "now.json"
    list(report(lines, False, save=now))
    assert json.loads(now.read_text()) == {"1": 8, "2": 8}
    before = tmp_path / "before.json"
    before.write_text('{"1": 16, "2": 18}')
    told = [each.split() for each in report(lines, False, before=before)]
    (ours,) = (each for each in told if each[:2] == ["greeting", "convgrpc"])
    (earlier,) = (each for each in told if each[:2] == ["greeting", "before"])
    assert [ours[2], ours[3], earlier[3], earlier[-1]] == ["2", "50.0", "0.0", "100.00"]


# By source


def sourced(recorded: int, request: Any, repository: str, **changes: Any) -> str:
    return line(recorded, request, source=f"{repository}:tests/cassettes/a.yaml", **changes)


def test_by_source_prints_a_line_for_each_repository() -> None:
    """A greeting is 8 tokens for gpt-4o."""
    lines = list(
        report_by_source(
            [
                sourced(8, {"input": "Hello"}, "fern/moss"),
                sourced(9, {"input": "Hello"}, "fern/moss"),
                sourced(8, {"input": "Hello"}, "lichen/rock"),
                line(8, {"input": "Hello"}),
                sourced(8, {"input": 5}, "lichen/rock"),
            ],
            True,
        )
    )
    told = [each.split()[:3] for each in lines]
    assert lines[0].startswith("error: line 5, plain, gpt-4o: InvalidArgument")
    assert ["fern/moss", "2", "50.0"] in told
    assert ["lichen/rock", "2", "50.0"] in told
    assert ["unknown", "1", "100.0"] in told
    assert "   2 plain gpt-4o 9 -1 estimates: none" in lines


def test_by_source_prints_a_line_and_a_description_for_each_rule() -> None:
    lines = list(report_by_source([sourced(8, {"input": "Hello"}, "fern/moss")], False))
    for rule in RULES:
        assert any(each.startswith(f"{rule.name} ") and each.endswith(rule.description) for each in lines)
    told = [each.split() for each in lines]
    assert ["request", "1", "1", "0", "0", "1", "one", "source:", "fern/moss"] in told
    assert ["commentary", "0", "0", "0", "0", "0"] in told


def test_by_source_of_no_rows_says_so() -> None:
    assert list(report_by_source([], False)) == ["There are no rows."]


def test_row_supports_or_contradicts_a_rule_or_is_unclear() -> None:
    """Without the rule, each counts 4 less: 4 of 8, which are recorded as 8, as 4 and as a thousand."""
    (rule,) = (each for each in RULES if each.name == "message")
    found = rows(
        sourced(8, {"input": "Hello"}, "fern/moss"),
        sourced(8, {"input": "Hello"}, "lichen/rock"),
        sourced(8, {"input": "Hello"}, "fern/moss"),
        sourced(4, {"input": "Hello"}, "alga/pond"),
        sourced(1000, {"input": "Hello"}, "alga/pond"),
        sourced(3, {}, "alga/pond"),
    )
    (support,) = supports([(row, ours(row)) for row in found], [rule])
    assert (support.changed, support.supporting, support.contradicting, support.unclear) == (5, 3, 1, 1)
    assert support.repositories == ["fern/moss", "lichen/rock"]


def test_rows_without_a_count_support_no_rule() -> None:
    (row,) = rows(line(8, {"input": 5}))
    assert [each.changed for each in supports([(row, ours(row))], RULES)] == [0] * len(RULES)


def test_names_of_rules_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_is_switched_off_only_within_its_context(rule: Rule) -> None:
    """What it replaces is there, and stands again afterwards."""
    (row,) = rows(line(8, REQUEST))
    before = ours(row)
    with switched_off(rule) as models:
        counted(decoded(row), models)
    assert ours(row) == before


NAMED = {"name": {"type": "string", "description": "Who.", "minLength": 1}}
NAMING = function("f", type="object", properties=NAMED)
STORED = call("c1", "f", "{}", id="fc_1")
BROKEN_IMAGE = url(png(32, 32)).replace("AA", "A\nA", 1)
REQUEST: dict[str, Any] = {
    "input": [user("Hello"), assistant("Hello"), STORED, output("c1")],
    "tools": [NAMING],
}
LONE: dict[str, Any] = {
    "input": [user("Hello"), {"role": "user", "content": [{"type": "input_image", "image_url": BROKEN_IMAGE}]}]
}
SCREEN = {"type": "computer_use_preview", "environment": "linux", "display_width": 9, "display_height": 9}
DIFFERENCES: list[tuple[str, str, dict[str, Any], int]] = [
    ("stored call with status", "gpt-4.1", REQUEST, -3),
    ("stored call with status", "gpt-5", REQUEST, 0),
    ("assistant o4-mini", "o4-mini", REQUEST, 2),
    ("assistant o4-mini", "gpt-5", REQUEST, 0),
    ("assistant", "gpt-5", REQUEST, 2),
    ("assistant", "o4-mini", REQUEST, 0),
    ("computer-use-preview", "computer-use-preview", {"input": "Hello"}, 1),
    ("tool computer_use_preview", "computer-use-preview", {"input": "Hello", "tools": [SCREEN]}, 484),
    ("lone image", "gpt-4.1", LONE, 1),
    ("lone image", "gpt-4o", LONE, 0),
    ("base64 with line breaks", "gpt-4o-mini", LONE, -5667),
    ("web_search gpt-5.4-mini", "gpt-5.4-mini", {"tools": [{"type": "web_search"}]}, 141),
    ("web_search gpt-5.4-mini", "gpt-5.4", {"tools": [{"type": "web_search"}]}, 0),
    ("minLength", "gpt-5", REQUEST, 7),
    (
        "minLength",
        "gpt-5",
        {"text": {"format": {"type": "json_schema", "name": "f", "schema": {"properties": NAMED}}}},
        0,
    ),
    ("forced function", "gpt-4o", {**REQUEST, "tool_choice": {"type": "function", "name": "f"}}, 7 + 1),
]


@pytest.mark.parametrize(("name", "model", "request_", "more"), DIFFERENCES)
def test_rule_makes_a_difference(name: str, model: str, request_: dict[str, Any], more: int) -> None:
    """Between the counts with the rule and without it."""
    (rule,) = (each for each in RULES if each.name == name)
    (row,) = rows(line(8, {**request_, "model": model}))
    by_all = counted(decoded(row), MODELS).tokens
    with switched_off(rule) as models:
        without = counted(decoded(row), models).tokens
    assert by_all is not None
    assert without is not None
    assert by_all - without == more


# The command


def test_command_reads_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines are numbered through all of them."""
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for file in files:
        file.write_text(sourced(9, {"input": "Hello"}, f"fern/{file.stem}") + "\n")
    monkeypatch.setattr("sys.argv", ["accuracy", "--by-source", "--rows", *map(str, files)])
    command.main()
    told = capsys.readouterr().out.splitlines()
    assert [each for each in told if each.startswith("   2 plain")] == ["   2 plain gpt-4o 9 -1 estimates: none"]
    assert any(each.startswith("fern/a ") for each in told)
    assert any(each.startswith("fern/b ") for each in told)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["absent.jsonl"], "there is no file absent.jsonl"),
        ([__file__, "--before", "absent.json"], "there is no file absent.json"),
        ([__file__, "--by-source", "--save", "a"], "--by-source"),
    ],
)
def test_command_refuses_what_it_cannot_do(
    arguments: list[str], wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["accuracy", *arguments])
    with pytest.raises(SystemExit):
        command.main()
    assert wrong in capsys.readouterr().err


# Recorded rows, where they are at hand. They are no part of the project.


@pytest.mark.parametrize(
    ("name", "exact"),
    # docs/token-counting.md says what keeps the other rows from being exact.
    [("recorded.jsonl", 98.4), ("recorded_third.jsonl", 97.5)],
)
def test_recorded_rows_of_plain_chat_are_counted_exactly(name: str, exact: float) -> None:
    """None of them is refused."""
    file = SHARED / name
    if not file.is_file():
        pytest.skip(f"{name} is not there")
    with file.open(encoding="utf-8") as lines:
        found = [(row, ours(row)) for row in read(lines) if isinstance(row, Row) and not row.why]
    assert [each.error for _, each in found if each.tokens is None] == []
    assert score(found).exact >= exact
