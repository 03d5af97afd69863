"""The script that compares counts with recorded ones: its arithmetic, without the counters it compares with."""

import json
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "accuracy"


@pytest.fixture(scope="module")
def accuracy() -> Any:
    """The script as a module, without a file of its bytecode beside it."""
    loader = SourceFileLoader("accuracy", str(SCRIPT))
    spec = spec_from_loader("accuracy", loader)
    assert spec
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        loader.exec_module(module)
    return module


def line(recorded: int, request: Any, **changes: Any) -> str:
    model = "gpt-4o"
    row = {"model": model, "category": "plain", "endpoint": "responses", "input_tokens": recorded}
    return json.dumps({**row, "request": {"model": model, **request}, **changes})


def rows(accuracy: Any, *lines: str) -> list[Any]:
    return list(accuracy.read(lines))


def counted(accuracy: Any, *pairs: tuple[int, int | None]) -> list[Any]:
    """Results, of what was recorded and what was counted."""
    return [
        (row, accuracy.Counted(tokens))
        for recorded, tokens in pairs
        for row in rows(accuracy, line(recorded, {"input": "Hello"}))
    ]


def printed(accuracy: Any, monkeypatch: pytest.MonkeyPatch, *lines: str, rows_too: bool = False) -> list[str]:
    monkeypatch.setattr(accuracy, "OTHERS", {})
    return list(accuracy.report(lines, rows_too))


def test_a_score_tells_how_many_counts_are_exact_and_how_near_the_others_are(accuracy: Any) -> None:
    """One is exact, one is off by a token, one by 2 %, and one by a tenth."""
    score = accuracy.score(counted(accuracy, (10, 10), (10, 11), (100, 98), (100, 110)))
    assert (score.rows, score.exact, score.near, score.close) == (4, 25, 50, 50)
    assert score.error == pytest.approx((0 + 10 + 2 + 10) / 4)


def test_a_row_without_a_count_is_not_exact_and_has_no_part_in_the_mean_error(accuracy: Any) -> None:
    score = accuracy.score(counted(accuracy, (10, 10), (10, None)))
    assert score == (2, 50, 50, 50, 0)
    assert accuracy.score(counted(accuracy, (10, None))) == (1, 0, 0, 0, None)


def test_equal_requests_with_different_counts_lower_the_ceiling(accuracy: Any) -> None:
    """Of three that are equal two can be exact at once; a fourth is another request."""
    same = [line(recorded, {"input": "Hello"}) for recorded in (8, 9, 9)]
    assert accuracy.ceiling(rows(accuracy, *same)) == pytest.approx(200 / 3)
    assert accuracy.ceiling(rows(accuracy, *same, line(8, {"input": "Bye"}))) == 75


@pytest.mark.parametrize("change", [{"stream": True}, {"store": False}, {"include": []}, {"metadata": {"a": "b"}}])
def test_what_a_model_does_not_read_makes_no_other_request(accuracy: Any, change: dict[str, Any]) -> None:
    both = rows(accuracy, line(8, {"input": "Hello"}), line(9, {"input": "Hello", **change}))
    assert accuracy.ceiling(both) == 50


def exchange(first: str, second: str, *answered: str) -> dict[str, Any]:
    calls = [{"type": "function_call", "call_id": each, "name": "f", "arguments": "{}"} for each in (first, second)]
    outputs = [{"type": "function_call_output", "call_id": each, "output": "1"} for each in answered]
    return {"input": [*calls, *outputs]}


def test_requests_are_equal_whatever_their_ids_are_called(accuracy: Any) -> None:
    """But not if an output belongs to another call."""
    one, two, crossed = (
        accuracy.identity(row)
        for row in rows(
            accuracy,
            line(8, exchange("a", "b", "a", "b")),
            line(8, exchange("b", "c", "b", "c")),
            line(8, exchange("a", "b", "b", "a")),
        )
    )
    assert one == two
    assert one != crossed


def test_the_tables_have_a_line_for_each_group_and_one_for_all(accuracy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A greeting is 8 tokens with what is around it, for gpt-4o, and 7 for gpt-5."""
    lines = printed(
        accuracy,
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


def test_hard_rows_are_told_by_what_makes_them_hard(accuracy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(accuracy, monkeypatch, line(8, {"input": "Hello"}, why=["image", "file"]))
    assert any(each.startswith("class ") for each in lines)
    assert any(each.startswith("image, file ") for each in lines)


def test_rows_of_the_chat_api_and_lines_without_a_request_are_left_out(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(accuracy, monkeypatch, line(8, {}, endpoint="chat"), "{", line(8, {}, endpoint="chat"), "")
    assert lines[0] == "left out, 2 times: the endpoint is 'chat'"
    assert lines[1].startswith("left out, 1 times: line 2 is not a recorded request: JSONDecodeError")
    assert lines[2:] == ["There are no rows."]


def test_a_row_that_cannot_be_decoded_is_told_as_an_error_and_is_not_exact(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(accuracy, monkeypatch, line(8, {"input": 5}), line(8, {"input": "Hello"}))
    assert lines[0].startswith("error: line 1, plain, gpt-4o: InvalidArgument")
    assert ["all", "2", "50.0"] in [each.split()[:3] for each in lines]


def test_rows_that_are_not_exact_are_told_with_what_was_estimated(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {"input": "Hello", "tools": [{"type": "web_search"}]}
    lines = printed(accuracy, monkeypatch, line(8, {"input": "Hello"}), line(300, tools), rows_too=True)
    assert lines[-1] == "   2 plain gpt-4o 300 +2 estimates: hosted_tool"


def test_a_counter_that_cannot_be_made_or_fails_is_told_and_stops_nothing(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> Any:
        raise ImportError("No module named 'absent'")

    def failing() -> Any:
        return lambda model, request: {}[model]

    monkeypatch.setattr(accuracy, "OTHERS", {"absent": absent, "failing": failing})
    lines = list(accuracy.report([line(8, {"input": "Hello"})], False))
    assert ["all", "failing", "1", "0.0", "0.0", "0.0", "-"] in [each.split() for each in lines]
    assert "absent: cannot be used (ImportError: No module named 'absent'); 1 rows left out" in lines
    assert "failing: 1 rows left out, as not exact and without a part in the mean error" in lines


def test_a_request_takes_the_form_of_the_chat_api(accuracy: Any) -> None:
    """Calls that were made together are in one message, and what that API does not have is left out."""
    stored_image = {"type": "input_image", "file_id": "file_1"}
    messages, tools = accuracy.chat(
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


def test_the_formula_of_the_cookbook_adds_its_constants(accuracy: Any) -> None:
    """Each text is one token here, so that what remains are the constants."""
    schema = {"type": "string", "description": "Where.", "enum": ["a", "b"]}
    tool = {"name": "f", "description": "Weather.", "parameters": {"type": "object", "properties": {"place": schema}}}
    messages = [{"role": "user", "name": "Ann", "content": "Hello"}]
    assert accuracy.cookbook_messages(messages, lambda text: 1) == 3 + 3 + 1 + 1 + 1 + 1
    tools = [{"type": "function", "function": tool}]
    assert accuracy.cookbook_tools(tools, lambda text: 1) == (7 + 1) + 3 + (3 + 1) + (-3 + 2 * (3 + 1)) + 12


def test_what_an_earlier_version_counted_stands_beside(
    accuracy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By class, from what it saved."""
    monkeypatch.setattr(accuracy, "OTHERS", {})
    lines = [line(8, {"input": "Hello"}, why=["greeting"]), line(9, {"input": "Hello"}, why=["greeting"])]
    now = tmp_path / "now.json"
    list(accuracy.report(lines, False, save=now))
    assert json.loads(now.read_text()) == {"1": 8, "2": 8}
    before = tmp_path / "before.json"
    before.write_text('{"1": 16, "2": 18}')
    told = [each.split() for each in accuracy.report(lines, False, before=before)]
    (ours,) = (each for each in told if each[:2] == ["greeting", "convgrpc"])
    (earlier,) = (each for each in told if each[:2] == ["greeting", "before"])
    assert [ours[2], ours[3], earlier[3], earlier[-1]] == ["2", "50.0", "0.0", "100.00"]
