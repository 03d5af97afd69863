"""`convgrpc count` counts the requests of a file, without a server."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from convgrpc.cli.main import main
from convgrpc.tokens import count_input_tokens

JOKE = {"model": "gpt-5", "input": "Tell me a joke."}
SEARCH = {"model": "gpt-4o", "input": "Tell me a joke.", "tools": [{"type": "web_search"}]}


def run(*arguments: str, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["count", *arguments], input=given)


def test_one_request_is_told_by_its_parts() -> None:
    """And with what can only be estimated, and why."""
    ended = run("-", given=json.dumps(SEARCH))
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.split("\n") == [
        "     1     about 306  gpt-4o, 127,694 of 128,000 left",
        "                   3  request",
        "                   9  messages",
        "                 294  tools",
        "                 294  estimated, tools[0]: The model's service adds text of its own for this tool.",
        "",
    ]


@pytest.mark.parametrize("text", [json.dumps(JOKE), json.dumps(JOKE) + "\n", json.dumps(JOKE, indent=2)])
def test_a_request_may_stand_on_one_line_or_on_several(tmp_path: Path, text: str) -> None:
    path = tmp_path / "request.json"
    path.write_text(text)
    ended = run(str(path))
    assert ended.exit_code == 0
    assert ended.stdout.split()[:3] == ["1", "11", "gpt-5,"]


def test_several_requests_have_a_line_each_and_a_sum() -> None:
    """Of one model. Empty lines are none, and keep their numbers."""
    ended = run("-", given=f"{json.dumps({**JOKE, 'model': 'gpt-4o'})}\n\n{json.dumps(SEARCH)}\n")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["1", "3", "total"]
    assert ended.stdout.splitlines()[-1].split() == ["total", "about", "318"]


def test_several_models_have_a_line_each() -> None:
    """In place of the request's own."""
    ended = run("-", "--json", "--model", "gpt-4o", "--model", "gpt-5.4", given=json.dumps(JOKE))
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(each["line"], each["model"], each["input_tokens"]) for each in told] == [
        (1, "gpt-4o", 12),
        (1, "gpt-5.4", 11),
    ]


def test_json_tells_all_that_the_rpc_does() -> None:
    ended = run("-", "--json", given=json.dumps(SEARCH))
    (told,) = map(json.loads, ended.stdout.splitlines())
    counted = count_input_tokens(SEARCH)
    assert told["estimates"][0]["reason"] == "ESTIMATE_REASON_HOSTED_TOOL"
    assert (told["context_left"], told["parts"][0]["input_tokens"]) == (counted.context_left, 3)


def test_whatever_else_a_response_takes_does_not_count() -> None:
    ended = run("-", given=json.dumps({**JOKE, "stream": True, "temperature": 0.5, "max_output_tokens": 9}))
    assert ended.stdout.split()[1] == "11"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"modle": "gpt-5"}', "line 1: Unknown parameter: 'modle'. Did you mean 'model'?"),
        ("[1]", "line 1: it is not a JSON object"),
        ("", "line 1: it is not JSON: Expecting value"),
        ('{"input": ', "line 1: it is not JSON: Expecting value"),
        ('{"input": ' + "[" * 3000 + "]" * 3000 + "}", "line 1: it is nested too deeply"),
        ('{"input": [{"role": "bot", "content": ""}]}', "line 1: Invalid value: 'bot'."),
        (b"\xff\xfe{", "line 1: "),
        ('{"conversation": "conv_1"}', "line 1: Invalid 'conversation'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str | bytes, fault: str) -> None:
    ended = run("-", given=text)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"convgrpc: {fault}")
    assert ended.stdout == ""


def test_one_that_is_wrong_does_not_keep_the_others_from_being_counted() -> None:
    ended = run("-", given=f"{json.dumps(JOKE)}\n{{\n{json.dumps(JOKE)}\n")
    assert ended.exit_code == 1
    assert "line 2: " in ended.stderr
    assert ended.stdout.splitlines()[-1].split() == ["total", "22"]


def test_models_of_a_file_are_known(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[[models]]\npattern = "fern"\nfamily = "gpt-4o"\ncontext_window = 100\n')
    ended = run("-", "--models", str(models), "--model", "fern", given=json.dumps(JOKE))
    assert ended.stdout.splitlines()[0].split(maxsplit=2) == ["1", "12", "fern, 88 of 100 left"]
    models.write_text("families = 3")
    ended = run("-", "--models", str(models), given=json.dumps(JOKE))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "models.toml" in ended.stderr
