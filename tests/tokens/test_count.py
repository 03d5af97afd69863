"""What is around the items of a request, and which of them are left out."""

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from convgrpc.errors import InvalidArgument
from convgrpc.tokens.families import Models
from convgrpc.tokens.models_file import read_models
from tests.tokens.asking import (
    CORPUS,
    MODELS,
    asked,
    assistant,
    call,
    encoding,
    estimates,
    function,
    output,
    parts,
    tokens,
    user,
)

CITY = {"city": {"type": "string"}}
WEATHER = function("get_weather", type="object", properties=CITY, required=["city"])
VERSE = {"type": "custom", "name": "verse", "description": "Writes verse."}
CHOICES: list[tuple[str, Any, list[Any], int]] = [
    ("gpt-4o", "auto", [WEATHER], 0),
    ("gpt-4o", "none", [WEATHER], 1),
    ("gpt-4o", "required", [WEATHER], 7 + 2),
    ("gpt-4o", "required", [WEATHER, function("f")], 0),
    ("gpt-4o", {"type": "function", "name": "get_weather"}, [WEATHER], 7 + 2),
    ("gpt-4o", {"type": "function", "name": "get_weather"}, [WEATHER, function("f")], 7 + 2),
    ("gpt-4o", {"type": "allowed_tools", "mode": "auto", "tools": []}, [WEATHER], 0),
    ("gpt-4o", "none", [], 0),
    ("gpt-4o", "required", [], 0),
    ("gpt-5", "none", [WEATHER], 0),
    ("gpt-5", "required", [WEATHER], 0),
    ("gpt-5", {"type": "function", "name": "get_weather"}, [WEATHER], 0),
]


def t(text: str) -> int:
    return encoding("o200k_base").count(text)


@pytest.mark.parametrize(("model", "choice", "tools", "more"), CHOICES)
def test_the_choice_of_tools_counts_for_some_families(model: str, choice: Any, tools: list[Any], more: int) -> None:
    """7 and the name of what is forced, behind a point; 1 for none."""
    assert t(".get_weather") == 2
    free = tokens(model=model, tools=tools, input="a")
    assert tokens(model=model, tools=tools, input="a", tool_choice=choice) - free == more


DECLARED = [
    ("gpt-4o", 3, "namespace functions {"),
    ("gpt-5", 8, "namespace functions{"),
    ("gpt-5.4", 8, "namespace functions{"),
    ("o3", 5, "namespace functions{"),
    ("computer-use-preview", 3, "namespace functions {"),
]


@pytest.mark.parametrize(("model", "around", "opening"), DECLARED)
def test_functions_count_as_one_text(model: str, around: int, opening: str) -> None:
    """All together, with something around them."""
    text = f"{opening}\n\ntype get_weather = (_: {{ city: string }}) => any;\n\n// F.\ntype f = () => any;\n\n}} // namespace functions"
    assert parts(asked(model=model, tools=[WEATHER, function("f", "F.")]))["tools"] == around + t(text)


def test_a_custom_tool_counts_its_texts() -> None:
    """And its grammar, if it has one; all of it is an estimate."""
    words = t("verse") + t("Writes verse.")
    plain = asked(model="gpt-5", tools=[VERSE])
    assert parts(plain)["tools"] == 37 + words
    assert estimates(plain) == {("tools", "little_evidence"): (37 + words, 1, ["tools[0]"])}
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "fern"'}
    with_grammar = parts(asked(model="gpt-5", tools=[{**VERSE, "format": grammar}]))["tools"]
    assert 65 <= with_grammar - words - t('start: "fern"') <= 75


def test_a_tool_that_the_service_runs_is_an_estimate() -> None:
    """By its place among the tools."""
    answer = asked(model="gpt-4.1", input="a", tools=[WEATHER, {"type": "web_search"}, {"type": "web_search_preview"}])
    assert estimates(answer) == {("tools", "hosted_tool"): (588, 2, ["tools[1]", "tools[2]"])}
    assert answer.input_tokens == tokens(model="gpt-4.1", input="a", tools=[WEATHER]) + 588


@pytest.mark.parametrize(
    ("model", "kind", "more"),
    [
        ("computer-use-preview", "computer_use_preview", 484),
        ("gpt-5.4-mini", "web_search", 4436),
        ("gpt-5.4-mini-2026-03-17", "web_search_preview", 4295),
        ("gpt-5.4-nano", "web_search", 4295),
        ("gpt-5.4", "web_search", 4295),
        ("gpt-4o-mini", "web_search", 294),
    ],
)
def test_hosted_tool_counts_as_recorded_with_the_model(model: str, kind: str, more: int) -> None:
    screen = {"environment": "linux", "display_width": 1024, "display_height": 768}
    tool = {"type": kind, **(screen if kind == "computer_use_preview" else {})}
    assert tokens(model=model, input="a", tools=[tool]) == tokens(model=model, input="a") + more


def test_calls_one_by_one_count_for_gpt_5() -> None:
    """Where there are tools; it is an estimate."""
    answer = asked(model="gpt-5", tools=[WEATHER], parallel_tool_calls=False)
    assert answer.input_tokens == tokens(model="gpt-5", tools=[WEATHER]) + 78
    assert estimates(answer) == {("tools", "little_evidence"): (78, 1, ["parallel_tool_calls"])}
    assert tokens(model="gpt-5", tools=[WEATHER], parallel_tool_calls=True) == answer.input_tokens - 78
    assert tokens(model="gpt-5", parallel_tool_calls=False) == tokens(model="gpt-5")


def test_reasoning_like_a_pro_counts() -> None:
    """As once recorded."""
    answer = asked(model="gpt-5.6", input="a", reasoning={"mode": "pro"})
    assert parts(answer)["reasoning"] == 1531
    assert estimates(answer) == {("reasoning", "little_evidence"): (1531, 1, ["reasoning.mode"])}
    assert tokens(model="gpt-5.6", input="a", reasoning={"mode": "standard"}) == answer.input_tokens - 1531


SCHEMA = {
    "$schema": "x", "type": "object", "title": "", "required": ["format"], "additionalProperties": False,
    "properties": {"format": {"type": "string", "format": "date", "maxLength": 3}, "é": {"enum": [{"minimum": 1}]}},
}  # fmt: skip
READ = '{"type":"object","title":"","properties":{"format":{"type":"string"},"é":{"enum":[{"minimum":1}]}}}'


@pytest.mark.parametrize(("model", "around"), [("gpt-4o", 1), ("gpt-5", 0), ("gpt-5.4", 0)])
@pytest.mark.parametrize("description", [None, "Finds ferns."])
def test_a_schema_to_follow_counts_what_is_read_of_it(model: str, around: int, description: str | None) -> None:
    """Names of properties stay, whatever they are; so do values."""
    form = {"type": "json_schema", "name": "ferns", "schema": SCHEMA, "strict": True}
    text = "# Response Formats\n\n## ferns\n\n" + (f"// {description}\n" if description else "") + READ
    form |= {"description": description} if description else {}
    answer = asked(model=model, text={"format": form})
    assert parts(answer)["response_format"] == around + t(text)
    assert list(answer.estimates) == []


@pytest.mark.parametrize("form", [{"type": "text"}, {"type": "json_object"}])
def test_a_format_without_schema_is_free(form: dict[str, str]) -> None:
    """Any text, and any JSON."""
    assert tokens(model="gpt-5", text={"format": form}) == tokens(model="gpt-5")


@pytest.mark.parametrize("key", ["minimum", "maximum"])
def test_a_tool_with_a_number_of_any_size_counts(key: str) -> None:
    """The contract takes it."""
    huge = function("f", type="object", properties={"a": {"type": "integer", key: 10**250}, "b": {key: -(10**300)}})
    assert tokens(tools=[huge]) > tokens()


def test_a_tool_that_grows_too_large_is_refused() -> None:
    """By name; in an item of a conversation it is counted all the same, or nothing after it could be."""
    defs = {
        f"d{n}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}} for n in range(40)
    }
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}
    tool = {"type": "function", "name": "f", "parameters": schema, "strict": False}
    with pytest.raises(InvalidArgument) as refused:
        tokens(tools=[tool])
    assert refused.value.param == "tools"
    assert tokens(input=[{"type": "additional_tools", "role": "developer", "tools": [tool]}]) > 100


# -- What does not fit


@pytest.fixture
def small(tmp_path: Path) -> Models:
    """Models with a window of 120 tokens."""
    path = tmp_path / "models.toml"
    row = '[[models]]\npattern = "small-{0}"\nfamily = "{0}"\ncontext_window = 120\n'
    path.write_text("".join(row.format(name) for name in ("gpt-4o", "gpt-5", "gpt-5.4", "gpt-5.6")))
    return read_models(path)


REASONING = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 1100}
IMAGE = {"role": "user", "content": [{"type": "input_image", "detail": "low", "file_id": "file-1"}]}
SHORT = [
    user("a"),
    user("fern " * 20),
    assistant("b " * 9),
    call("c1"),
    call("c2"),
    output("c1"),
    output("c2"),
    REASONING,
]


@pytest.mark.parametrize("family", ["gpt-4o", "gpt-5", "gpt-5.4", "gpt-5.6"])
@pytest.mark.parametrize("seed", range(12))
def test_truncation_leaves_out_the_fewest_items(family: str, seed: int, small: Models) -> None:
    """From the first on, until the others fit, as counting what is left shows."""
    chance = random.Random(seed)
    items = [chance.choice([*SHORT, *SHORT, IMAGE, chance.choice(CORPUS)]) for _ in range(12)]
    items = [{**item, "id": f"{item['id']}{n}"} if "id" in item else item for n, item in enumerate(items)]
    request: dict[str, Any] = {"model": f"small-{family}", "tools": [WEATHER] if seed % 2 else []}
    counts = [tokens(models=small, input=items[first:], **request) for first in range(len(items) + 1)]
    answer = asked(small, input=items, truncation="auto", **request)
    first = next((first for first, counted in enumerate(counts) if counted <= 120), len(items))
    assert answer.input_tokens == counts[first]
    assert answer.HasField("first_kept_item") == (first < len(items))
    assert answer.first_kept_item == (first if first < len(items) else 0)
    assert {place for *_, places in estimates(answer).values() for place in places}.isdisjoint(
        {item.get("id") or f"input[{number}]" for number, item in enumerate(items[:first])}
    )
    for truncation in ({"truncation": "disabled"}, {}):
        whole = asked(small, input=items, **request, **truncation)
        assert (whole.input_tokens, whole.first_kept_item) == (counts[0], 0)
        assert whole.context_left == 120 - counts[0]


def test_what_is_cut_does_not_fit(small: Models) -> None:
    """The items above, all together; and fewer items are fewer tokens."""
    counts = [tokens(models=small, model="small-gpt-5", input=SHORT[first:]) for first in range(len(SHORT) + 1)]
    assert counts[0] > 120 > counts[-1]
    assert all(more >= less for more, less in pairwise(counts))


def test_the_first_item_that_is_left_is_told_with_its_id(small: Models) -> None:
    """Where it has one."""
    items = [user("fern " * 90), {**user("fern " * 30), "id": "msg_2"}, user("moss")]
    answer = asked(small, model="small-gpt-5", input=items, truncation="auto")
    assert (answer.first_kept_item, answer.first_kept_item_id) == (1, "msg_2")
    answer = asked(small, model="small-gpt-5", input=[user("fern " * 900), items[2]], truncation="auto")
    assert (answer.first_kept_item, answer.HasField("first_kept_item_id")) == (1, False)


@pytest.mark.parametrize("given", ["fern " * 200, [user("fern " * 200)], [user("a"), user("fern " * 200)], [], ""])
def test_nothing_is_left_beside_instructions_that_fill_the_window(given: Any, small: Models) -> None:
    """The instructions count all the same; no item is the first."""
    answer = asked(small, model="small-gpt-5", instructions="fern " * 150, input=given, truncation="auto")
    assert answer.input_tokens == tokens(models=small, model="small-gpt-5", instructions="fern " * 150, input=[])
    assert answer.input_tokens > 120
    assert answer.context_left == 120 - answer.input_tokens < 0
    assert not answer.HasField("first_kept_item")


def test_a_text_that_fills_the_window_alone_is_left_out(small: Models) -> None:
    """Then there is no first item."""
    answer = asked(small, model="small-gpt-5", input="fern " * 200, truncation="auto")
    assert (answer.input_tokens, answer.HasField("first_kept_item")) == (2, False)
    assert MODELS.resolve("gpt-5").context_window == 400_000


def test_what_is_searched_again_is_not_forgotten_when_items_go(tmp_path: Path) -> None:
    """Without the tools that an item brings, their search counts: leaving out that item may be worse than keeping
    it.
    """
    path = tmp_path / "models.toml"
    path.write_text('[[models]]\npattern = "middling"\nfamily = "gpt-5.4"\ncontext_window = 300\n')
    models = read_models(path)
    tool = {"type": "function", "name": "f", "parameters": {}, "defer_loading": True}
    found = {"type": "tool_search_output", "tools": [tool], "call_id": "c"}
    request = {"tools": [tool, {"type": "tool_search"}], "truncation": "auto"}
    items = [user("fern " * 250), found, user("moss")]
    fits = asked(models, model="middling", input=items[1:], **request)
    assert fits.input_tokens == 135
    answer = asked(models, model="middling", input=items, **request)
    assert (answer.first_kept_item, answer.input_tokens) == (1, fits.input_tokens)
