"""What single items and short exchanges count, by the rules that recorded requests show."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgrpc import ids
from convgrpc.contract.decoder import decode
from convgrpc.tokens.count import count
from convgrpc.tokens.families import FAMILIES
from convgrpc.tokens.history import History
from convgrpc.tokens.images import image
from convgrpc.tokens.items import ItemTokens, features
from convgrpc.tokens.reading import Reader
from convgrpc.tokens.tally import TokenAccumulator
from convgrpc.v1.content_pb2 import ImageDetail
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest
from convgrpc.v1.item_pb2 import ConversationItem
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
from tests.tokens.test_images import png, url

JOKE = "Tell me a joke."
OWN = "fc_0123456789abcdef0123456789abcdef0123456789abcdef"
"""An id of the hosted API's making."""
MINTED = ids.item_id("fc", ids.conversation_id(), 1_800_000_000)
ENCRYPTED = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 1400}
CITY = {"city": {"type": "string"}}
WEATHER = function("get_weather", "Get weather for a city.", type="object", properties=CITY, required=["city"])
ARGUMENTS = '{"city":"Paris"}'


def encrypted_tokens(length: int = 1400) -> int:
    """What encrypted reasoning of a length counts, alone."""
    item = {**ENCRYPTED, "encrypted_content": "x" * length}
    return parts(asked(model="gpt-5", input=[item])).get("reasoning", 0)


def t(text: str, name: str = "o200k_base") -> int:
    return encoding(name).count(text)


WORKED: dict[str, tuple[dict[str, Any], int]] = {
    "a text, gpt-5": ({"model": "gpt-5", "input": JOKE}, 11),
    "a text, gpt-4o-mini": ({"model": "gpt-4o-mini", "input": JOKE}, 12),
    "instructions and an empty message": (
        {"model": "gpt-4.1-mini", "instructions": "Follow the system instructions.", "input": [user("")]},
        16,
    ),
    "a tool, gpt-5.4": ({"model": "gpt-5.4", "input": "What is the weather?", "tools": [WEATHER]}, 47),
    "nothing at all, gpt-4o": ({"model": "gpt-4o"}, 3),
    "nothing at all, gpt-4": ({"model": "gpt-4"}, 2),
    "nothing at all, o3": ({"model": "o3"}, 2),
    "no items": ({"model": "gpt-5", "input": []}, 2),
    "an empty text": ({"model": "gpt-5", "input": ""}, 6),
    "a message of the developer": ({"model": "gpt-5", "input": [{"role": "developer", "content": JOKE}]}, 11),
    "a message of the system": ({"model": "gpt-5", "input": [{"role": "system", "content": JOKE}]}, 11),
    "an answer, gpt-5": ({"model": "gpt-5", "input": [assistant(JOKE)]}, 13),
    "an answer, gpt-4o": ({"model": "gpt-4o", "input": [assistant(JOKE)]}, 12),
    "an answer, o3": ({"model": "o3", "input": [assistant(JOKE)]}, 11),
    "a remark along the way, gpt-5": ({"model": "gpt-5", "input": [assistant(JOKE, phase="commentary")]}, 14),
    "a remark along the way, gpt-4o": ({"model": "gpt-4o", "input": [assistant(JOKE, phase="commentary")]}, 12),
    "an answer, o4-mini": ({"model": "o4-mini", "input": [assistant(JOKE)]}, 13),
    "an answer, o3-mini": ({"model": "o3-mini", "input": [assistant(JOKE)]}, 11),
    "a text, computer-use-preview": ({"model": "computer-use-preview", "input": JOKE}, 12),
    "a tool, computer-use-preview": (
        {"model": "computer-use-preview", "input": "What is the weather?", "tools": [WEATHER]},
        3 + 4 + 5 + 3 + 27,
    ),
    "the last answer, gpt-5": ({"model": "gpt-5", "input": [assistant(JOKE, phase="final_answer")]}, 13),
    "parts of one text": (
        {"model": "gpt-5", "input": [{"role": "user", "content": [{"type": "input_text", "text": each} for each in ("Tell m", "e a jo", "ke.")]}]},
        11,
    ),
    "a refusal": (
        {"model": "gpt-4o", "input": [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": JOKE}]}]},
        12,
    ),
    "settings that are not read": (
        {
            "model": "gpt-5", "input": JOKE, "truncation": "disabled", "parallel_tool_calls": False,
            "reasoning": {"effort": "high", "summary": "auto"}, "text": {"format": {"type": "json_object"}, "verbosity": "low"},
            "tool_choice": "required",
        },
        11,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "expected"), WORKED.values(), ids=WORKED)
def test_a_request_counts_as_recorded_or_as_the_rules_say(request_: dict[str, Any], expected: int) -> None:
    """Exactly, without estimates."""
    answer = asked(**request_)
    assert (answer.input_tokens, list(answer.estimates)) == (expected, [])
    assert answer.context_left == answer.context_window - expected


def exchange(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [user("Roll."), *items]


def calls_of(model: str, *items: dict[str, Any]) -> int:
    return parts(asked(model=model, input=exchange(*items)))["tool_calls"]


def test_a_request_with_a_call_counts_as_recorded() -> None:
    """gpt-5: 92 for a developer's and a user's message, a tool whose declaration is 32 tokens, a call and its
    output.
    """
    answer = asked(
        model="gpt-5",
        input=[
            {"role": "developer", "content": "Use the tool to roll."},
            user("Please roll a die for me now"),
            call("c1", "dice", '{"sides":6,"count":1}'),
            output("c1", "4"),
        ],
        tools=[function("dice", "Roll some dice.", type="object", properties={"sides": {"type": "integer"}})],
    )
    counted = parts(answer)
    assert counted["request"] == 2
    assert counted["messages"] == 8 + t("Use the tool to roll.") + t("Please roll a die for me now")
    declared = "namespace functions{\n\n// Roll some dice.\ntype dice = (_: { sides?: number }) => any;\n\n} // namespace functions"
    assert counted["tools"] == 8 + t(declared)
    assert counted["tool_calls"] == t('{"sides":6,"count":1}') + t("4") + 2 * t(".dice") + 17
    assert sum(counted.values()) == answer.input_tokens


def test_the_name_of_a_call_counts_behind_a_point() -> None:
    """Which makes two tokens of one: as in the recorded pair of 8 + 1 + 2 + 1 + 17."""
    assert (t("dice"), t(".dice")) == (1, 2)


PAIRS = [
    ("gpt-4o", 11, 3),
    ("gpt-4.1", 11, 3),
    ("gpt-4", 11, 3),
    ("o4-mini", 17, 3),
    ("gpt-5", 17, 3),
    ("gpt-5.4", 20, 0),
    ("gpt-5.6", 20, 0),
]


@pytest.mark.parametrize(("model", "pair", "kept"), PAIRS)
@pytest.mark.parametrize("status", [{}, {"status": "completed"}], ids=["no status", "status"])
@pytest.mark.parametrize(
    ("identity", "is_own"),
    [(None, False), (OWN, True), (MINTED, False), ("fc_1", True)],
    ids=["none", "own", "minted", "other"],
)
def test_call_and_output_count_more_with_the_id_of_the_api(
    model: str, pair: int, kept: int, identity: str | None, is_own: bool, status: dict[str, str]
) -> None:
    """Three more in the families that show it; the gpt-4 families want the call's status too."""
    name = MODELS.resolve(model).family.encoding
    text = t(ARGUMENTS, name) + t("fine", name) + 2 * t(".get_weather", name)
    made = call("c1", "get_weather", ARGUMENTS, **({"id": identity} if identity else {}), **status)
    is_kept = is_own and (bool(status) or not model.startswith("gpt-4"))
    assert calls_of(model, made, output("c1", "fine")) == text + pair + (kept if is_kept else 0)


SMALL_IMAGE = {"type": "input_image", "image_url": url(png(32, 32))}
LONE = {"role": "user", "content": [SMALL_IMAGE]}
CAPTIONED = {"role": "user", "content": [{"type": "input_text", "text": "Look."}, SMALL_IMAGE]}
LONE_IMAGES: dict[str, tuple[str, list[Any], int]] = {
    "after a user": ("gpt-4.1", [user("Look."), LONE], 1),
    "after the system": ("gpt-4.1-mini", [{"role": "system", "content": "Look."}, LONE], 1),
    "after another image": ("gpt-4.1-nano", [LONE, LONE], 1),
    "twice": ("gpt-4.1", [user("Look."), LONE, LONE], 2),
    "first": ("gpt-4.1", [LONE, user("Look.")], 0),
    "beside a text": ("gpt-4.1", [user("Look."), CAPTIONED], 0),
    "two in one message": ("gpt-4.1", [user("Look."), {"role": "user", "content": [SMALL_IMAGE, SMALL_IMAGE]}], 0),
    "another family": ("gpt-4o", [user("Look."), LONE], 0),
    "another family, small": ("gpt-4o-mini", [user("Look."), LONE], 0),
}


@pytest.mark.parametrize(("model", "items", "more"), LONE_IMAGES.values(), ids=LONE_IMAGES)
def test_lone_image_after_a_message_counts_one_more_for_gpt_4_1(model: str, items: list[Any], more: int) -> None:
    texts = sum(t(part["text"]) for item in items for part in _parts(item) if "text" in part)
    assert parts(asked(model=model, input=items))["messages"] == 4 * len(items) + texts + more


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    content = item["content"]
    return [{"text": content}] if isinstance(content, str) else content


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("identity", [OWN, None])
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5", "gpt-5.4", "o3"])
def test_calls_made_together_count_in_their_own_way(model: str, number: int, identity: str | None) -> None:
    """11 or 17 each; for gpt-5.4, 22 and 14 each; whether their ids are the API's own or not."""
    together = {"gpt-4o": 11 * number, "gpt-5": 17 * number, "o3": 17 * number, "gpt-5.4": 22 + 14 * number}[model]
    own = {"id": identity, "status": "completed"} if identity else {}
    calls = [call(f"c{n}", "get_weather", ARGUMENTS, **own) for n in range(number)]
    outputs = [output(f"c{n}", "fine") for n in range(number)]
    text = number * (t(ARGUMENTS) + t("fine") + 2 * t(".get_weather"))
    assert calls_of(model, *calls, *outputs) == text + together


def test_calls_with_something_between_them_were_not_made_together() -> None:
    """Each counts as one that was made alone."""
    alone = calls_of("gpt-5.4", call("c1"), output("c1"))
    assert calls_of("gpt-5.4", call("c1"), output("c1"), call("c2"), output("c2")) == 2 * alone
    assert calls_of("gpt-5.4", call("c1"), assistant("Well."), call("c2"), output("c1"), output("c2")) == 2 * alone


def test_calls_made_together_count_as_recorded() -> None:
    """gpt-5.4: 176 for two calls of one tool, with texts of our own that have as many tokens."""
    declared = function("get_weather", "Get weather for a city.", type="object", properties=CITY, required=["city"])
    items = [call("c1", "get_weather", ARGUMENTS), call("c2", "get_weather", ARGUMENTS), output("c1"), output("c2")]
    fixed = 2 + 4 + (8 + 28) + 2 * t(ARGUMENTS) + 2 * t("4") + 4 * t(".get_weather") + 22 + 2 * 14
    text = " fern" * (176 - fixed)
    assert t(text) == 176 - fixed
    assert tokens(model="gpt-5.4", input=[user(text), *items], tools=[declared]) == 176


@pytest.mark.parametrize(("model", "compact"), [("gpt-5", False), ("gpt-5.4", True)])
def test_spaces_between_arguments_count_for_some_families(model: str, compact: bool) -> None:
    """gpt-5.4 reads them without; what is no JSON stays as it is."""
    spaced, dense = '{"a": 1231, "b": [2331, "x, y: é"]}', '{"a":1231,"b":[2331,"x, y: é"]}'
    assert t(spaced) > t(dense)
    counts = [calls_of(model, call("c1", "f", each), output("c1")) for each in (spaced, dense)]
    assert (counts[0] == counts[1]) is compact
    broken = [calls_of(model, call("c1", "f", each), output("c1")) - t(each) for each in ('{"a": ', "[1, 2", dense)]
    assert len(set(broken)) == 1


def test_long_arguments_with_spaces_are_estimates() -> None:
    """They are counted as they are, because no other thread runs while they are parsed."""
    for times, is_estimate in ((100, False), (100_000, True)):
        call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": f"[{'1, ' * times}1]"}
        output = {"type": "function_call_output", "call_id": "call_1", "output": "fern"}
        found = estimates(asked(model="gpt-5.4", input=[call, output]))
        assert (("tool_calls", "little_evidence") in found) is is_estimate
        compact = {**call, "arguments": f"[{'1,' * times}1]"}
        assert estimates(asked(model="gpt-5.4", input=[compact, output])) == {}


def test_an_output_without_its_call_has_a_name_of_two_tokens() -> None:
    """So has one that comes before it, or whose call has another id."""
    bare = 4 + 2 + t("4")
    assert calls_of("gpt-5", output("c1")) == bare
    named = calls_of("gpt-5", call("c1", "get_weather"), output("c1"))
    assert calls_of("gpt-5", call("c1", "get_weather"), output("c2")) == named - t(".get_weather") + 2
    assert calls_of("gpt-5", output("c1"), call("c1", "get_weather")) == named - t(".get_weather") + 2


def test_an_output_in_parts_counts_as_one_text() -> None:
    """Images in it count as elsewhere."""
    textual = [{"type": "input_text", "text": each} for each in ("fi", "ne")]
    assert calls_of("gpt-5", call("c1"), output("c1", textual)) == calls_of("gpt-5", call("c1"), output("c1", "fine"))
    seen = asked(model="gpt-5", input=[output("c1", [{"type": "input_image", "image_url": "https://ferns.example"}])])
    assert parts(seen)["images"] >= 70 + 140


def test_a_call_without_output_is_an_estimate() -> None:
    """By its id, or its place in the request."""
    answer = asked(model="gpt-5", input=exchange(call("c1"), call("c2", id=MINTED), output("c1"), call("c3")))
    assert estimates(answer) == {("tool_calls", "unanswered_call"): (2 * 13, 2, [MINTED, "input[4]"])}


def test_places_of_estimates_end_at_sixteen() -> None:
    """Their number and their tokens do not."""
    answer = asked(model="gpt-5", input=[call(f"c{n}") for n in range(40)])
    assert estimates(answer) == {
        ("tool_calls", "unanswered_call"): (40 * 13, 40, [f"input[{number}]" for number in range(16)])
    }


READ = [
    ("gpt-5", None, [ENCRYPTED], 1),
    ("gpt-5", None, [user("a"), ENCRYPTED], 1),
    ("gpt-5", None, [user("a"), ENCRYPTED, user("b")], 0),
    ("gpt-5", None, [user("a"), ENCRYPTED, assistant("b"), user("c"), ENCRYPTED], 1),
    ("gpt-5", None, [user("a"), ENCRYPTED, call("c"), output("c"), ENCRYPTED], 2),
    ("gpt-5", None, [user("a"), ENCRYPTED, {"role": "developer", "content": "b"}], 1),
    ("gpt-5", "auto", [ENCRYPTED, user("b")], 0),
    ("gpt-5", "current_turn", [ENCRYPTED, user("b")], 0),
    ("gpt-5", "all_turns", [ENCRYPTED, user("b"), ENCRYPTED], 2),
    ("gpt-5.4", None, [ENCRYPTED, user("b")], 0),
    ("gpt-5.6", None, [ENCRYPTED, user("b")], 1),
    ("gpt-5.6", "auto", [ENCRYPTED, user("b")], 1),
    ("gpt-5.6", "current_turn", [ENCRYPTED, user("b")], 0),
    ("gpt-5.6", "all_turns", [ENCRYPTED, user("b")], 1),
]


@pytest.mark.parametrize(("model", "context", "items", "times"), READ)
def test_reasoning_counts_until_the_user_speaks(model: str, context: str | None, items: list[Any], times: int) -> None:
    """Unless the request, or the family, keeps it for all turns; what is forgotten is no estimate either."""
    answer = asked(model=model, input=items, reasoning={"context": context} if context else None)
    assert parts(answer).get("reasoning", 0) == times * encrypted_tokens()
    places = [f"input[{number}]" for number, item in enumerate(items) if item is ENCRYPTED][-times or len(items) :]
    known = {("reasoning", "encrypted"): (times * encrypted_tokens(), times, places)} if times else {}
    assert {key: value for key, value in estimates(answer).items() if key[0] == "reasoning"} == known


def test_reasoning_of_no_tokens_is_forgotten_too() -> None:
    """An estimate of something that is not counted tells nothing."""
    little = {**ENCRYPTED, "encrypted_content": "x"}
    assert estimates(asked(model="gpt-5", input=[little, user("a")])) == {}


def test_a_user_in_the_phase_of_commentary_is_a_user() -> None:
    """The phase is the assistant's."""
    assert tokens(model="gpt-5", input=[{**user("a"), "phase": "commentary"}]) == tokens(model="gpt-5", input="a")


OBSERVED = [(1400, 87), (1508, 96), (2232, 197), (2916, 281), (3532, 382), (6200, 815), (9420, 1364)]


@pytest.mark.parametrize(("length", "observed"), OBSERVED)
def test_encrypted_reasoning_counts_by_its_length(length: int, observed: int) -> None:
    """About as much as is observed."""
    assert encrypted_tokens(length) == pytest.approx(observed, rel=0.2)


def test_encrypted_reasoning_never_counts_less_than_nothing() -> None:
    """Short as it may be; and the longer it is the more."""
    counts = [encrypted_tokens(length) for length in (0, 1, 500, 1400, 3000, 9000)]
    assert counts[:3] == [0, 0, 0] < counts[3:] == sorted(counts[3:])


def test_reasoning_in_words_counts_its_words() -> None:
    """Not its summary."""
    words = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Short."}],
        "content": [{"type": "reasoning_text", "text": JOKE}],
    }
    answer = asked(model="gpt-5", input=[words])
    assert estimates(answer) == {("reasoning", "little_evidence"): (5, 1, ["input[0]"])}
    assert answer.input_tokens == 2 + 5


def test_images_and_files_are_estimates_with_their_places() -> None:
    """An image elsewhere, one that is none, and a file."""
    content = [
        {"type": "input_image", "image_url": "https://ferns.example"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_id": "file-2"},
    ]
    answer = asked(model="gpt-4o", input=[user("a"), {"role": "user", "content": content}])
    elsewhere = sum(
        MODELS.resolve("gpt-4o").images.tokens(image(url, ImageDetail.IMAGE_DETAIL_AUTO))
        for url in ("https://ferns.example", "")
    )
    assert elsewhere >= 2 * (85 + 170)
    assert parts(answer) == {"request": 3, "messages": 9, "images": elsewhere + 85, "files": 4}
    assert estimates(answer) == {
        ("images", "image_out_of_reach"): (elsewhere, 2, ["input[1]", "input[1]"]),
        ("images", "image_unreadable"): (85, 1, ["input[1]"]),
        ("files", "file"): (4, 1, ["input[1]"]),
    }


def test_a_model_of_which_nothing_is_known_is_an_estimate() -> None:
    """It counts as the default."""
    answer = asked(model="fern-9", input=JOKE)
    assert estimates(answer) == {("request", "unknown_model"): (0, 1, ["model"])}
    assert answer.input_tokens == tokens(input=JOKE) == tokens(model="gpt-5.6", input=JOKE)
    assert estimates(asked(input=JOKE)) == {}


# -- All kinds of items


MODEL_NAMES = ["gpt-4o", "gpt-4", "gpt-5", "gpt-5.4", "gpt-5.6", "o4-mini", "gpt-4.1-mini"]
ITEMS = [decode(ConversationItem, value) for value in CORPUS]
READY = {
    name: features(ITEMS, Reader(encoding(name)), [item.id for item in ITEMS]) for name in ("o200k_base", "cl100k_base")
}
EXCHANGES = st.lists(st.integers(0, len(ITEMS) - 1), max_size=25)


def ready(chosen: list[int], model: str) -> list[ItemTokens]:
    name = MODELS.resolve(model).family.encoding.replace("o200k_harmony", "o200k_base")
    return [READY[name][number] for number in chosen]


def tallied(model: str, keeps: bool, items: list[ItemTokens]) -> TokenAccumulator:
    tally = TokenAccumulator(MODELS.resolve(model), keeps)
    for item in items:
        tally.add(item)
    return tally


def state(tally: TokenAccumulator) -> Any:
    tally.finish()
    return tally.parts, tally.estimates, tally.tokens


@settings(deadline=None, max_examples=100)
@given(EXCHANGES, st.sampled_from(MODEL_NAMES), st.sampled_from(["auto", "disabled", None]))
def test_parts_are_all_there_is(chosen: list[int], model: str, truncation: str | None) -> None:
    """They sum up to the count, and no estimate is more than its part."""
    request = CountInputTokensRequest(model=model)
    history = History()
    history.items.extend(ready(chosen, model))
    answer = count(request, MODELS.resolve(model), Reader(encoding("o200k_base")), history, [])
    assert sum(part.input_tokens for part in answer.parts) == answer.input_tokens
    assert all(part.input_tokens > 0 for part in answer.parts)
    counted = parts(answer)
    for (part, _), (estimated, times, places) in estimates(answer).items():
        assert 0 <= estimated <= counted.get(part, 0)
        assert len(places) == min(times, 16) > 0
        assert set(places) <= {item.place for item in history.items}


@settings(deadline=None, max_examples=200)
@given(EXCHANGES, st.lists(st.integers(0, 25), max_size=4), st.sampled_from(MODEL_NAMES), st.booleans())
def test_a_tally_goes_on_where_a_copy_of_it_was_made(
    chosen: list[int], cuts: list[int], model: str, keeps: bool
) -> None:
    """As if it had counted all from the beginning; and what is copied stays as it was."""
    items = ready(chosen, model)
    tally, start = TokenAccumulator(MODELS.resolve(model), keeps), 0
    left_behind = []
    for cut in sorted(cuts):
        for item in items[start:cut]:
            tally.add(item)
        start = max(start, cut)
        left_behind.append((tally, cut))
        tally = tally.copy()
    for item in items[start:]:
        tally.add(item)
    assert state(tally) == state(tallied(model, keeps, items))
    for left, cut in left_behind:
        assert state(left) == state(tallied(model, keeps, items[:cut]))


def test_what_a_copy_hears_of_is_not_known_to_the_tally() -> None:
    """The name of a call that the copy counted does not stand before an output that the tally counts."""
    items = [decode(ConversationItem, value) for value in (call("c1", "get_the_weather_of_tomorrow"), output("c1"))]
    made, returned = features(items, Reader(encoding("o200k_base")), "xx")
    tally = TokenAccumulator(MODELS.resolve("gpt-5"), False)
    tally.copy().add(made)
    tally.add(returned)
    assert state(tally) == state(tallied("gpt-5", False, [returned]))


def test_copy_of_a_tally_knows_of_a_message_before() -> None:
    """A lone image counts one more in it."""
    items = [decode(ConversationItem, {"type": "message", **value}) for value in (user("Look."), LONE)]
    spoken, lone = features(items, Reader(encoding("o200k_base")), "xx")
    tally = tallied("gpt-4.1", False, [spoken]).copy()
    tally.add(lone)
    assert state(tally) == state(tallied("gpt-4.1", False, [spoken, lone]))


@settings(deadline=None, max_examples=100)
@given(EXCHANGES, st.lists(st.tuples(st.integers(0, 25), st.sampled_from(MODEL_NAMES[2:6]), st.booleans()), max_size=6))
def test_a_history_counts_what_it_gained(chosen: list[int], asks: list[tuple[int, str, bool]]) -> None:
    """For each family and each context of reasoning, whichever was asked for before."""
    items = ready(chosen, "gpt-5")
    history = History()
    for end, model, keeps in sorted(asks, key=lambda ask: ask[0]):
        history.items.extend(items[len(history.items) : end])
        assert state(history.tally(MODELS.resolve(model), keeps).copy()) == state(
            tallied(model, keeps, list(history.items))
        )


def test_every_kind_of_item_counts_the_same_in_any_company() -> None:
    """Beside calls, outputs and reasoning, what an item counts does not depend on those before it."""
    plain = [number for number, item in enumerate(READY["o200k_base"]) if item.turn not in (1, 4, 5, 6)]
    alone = [tallied("gpt-5", False, ready([number], "gpt-5")).tokens for number in plain]
    shuffled = plain.copy()
    random.Random(7).shuffle(shuffled)
    assert tallied("gpt-5", False, ready(shuffled, "gpt-5")).tokens == sum(alone) > 1000
    assert set(FAMILIES) >= {MODELS.resolve(name).family.name for name in MODEL_NAMES}


@pytest.mark.parametrize("value", CORPUS, ids=lambda value: f"{value['type']}-{value['id'][-4:]}")
def test_an_item_counts_the_same_however_it_is_stored(value: dict[str, Any]) -> None:
    """Its JSON, and the message that the store keeps of it, are one."""
    item = decode(ConversationItem, value)
    again = ConversationItem.FromString(item.SerializeToString())
    one, other = features([again, item], Reader(encoding("o200k_base")), "xx")
    assert one == other


@pytest.mark.parametrize(
    "item",
    [
        {"type": "agent_message", "author": "a", "recipient": "b"},
        {"type": "message", "id": "msg_1", "role": "user"},
    ],
    ids=["agent_message", "message"],
)
def test_encrypted_content_is_estimated_by_its_length(item: dict[str, Any]) -> None:
    """As encrypted reasoning is, and never as nothing."""

    def counted(length: int) -> Any:
        part = {"type": "encrypted_content", "encrypted_content": "x" * length}
        return asked(model="gpt-5", input=[{**item, "content": [part]}])

    short, long = counted(1400), counted(24_000)
    assert long.input_tokens - short.input_tokens == encrypted_tokens(24_000) - encrypted_tokens()
    assert long.input_tokens > 1000
    assert [reason for _, reason in estimates(long)] == ["encrypted"]
