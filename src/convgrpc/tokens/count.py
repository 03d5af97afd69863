"""Counts a whole request: its items, and what is around them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from convgrpc.tokens.families import DEFAULT, Resolved
from convgrpc.tokens.formats import count_format
from convgrpc.tokens.history import History
from convgrpc.tokens.items import ItemTokens, Turn, features
from convgrpc.tokens.reading import Reader
from convgrpc.tokens.tally import PARTS, TokenAccumulator
from convgrpc.tokens.tools import Count, count_choice, count_search, count_tools
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_ENCRYPTED,
    ESTIMATE_REASON_FILE,
    ESTIMATE_REASON_HOSTED_TOOL,
    ESTIMATE_REASON_HOSTED_TOOL_CALL,
    ESTIMATE_REASON_IMAGE_OUT_OF_REACH,
    ESTIMATE_REASON_IMAGE_UNREADABLE,
    ESTIMATE_REASON_LITTLE_EVIDENCE,
    ESTIMATE_REASON_UNANSWERED_CALL,
    ESTIMATE_REASON_UNKNOWN_ITEM,
    ESTIMATE_REASON_UNKNOWN_MODEL,
    INPUT_PART_IMAGES,
    INPUT_PART_INSTRUCTIONS,
    INPUT_PART_REASONING,
    INPUT_PART_REQUEST,
    INPUT_PART_RESPONSE_FORMAT,
    INPUT_PART_TOOLS,
    REASONING_CONTEXT_ALL_TURNS,
    REASONING_CONTEXT_AUTO,
    REASONING_CONTEXT_UNSPECIFIED,
    TRUNCATION_AUTO,
    CountInputTokensRequest,
    InputPart,
    ModelTokenCount,
    TokenCountPart,
    TokenEstimate,
)
from convgrpc.v1.item_pb2 import ConversationItem

_EXPLANATIONS = {
    ESTIMATE_REASON_UNKNOWN_MODEL: f"Nothing is known of this model: counted as for {DEFAULT}.",
    ESTIMATE_REASON_UNKNOWN_ITEM: (
        "The item's kind, or a part or key of it, is not known. "
        "Unknown keys are not counted. Where the kind or a part is unknown, all of the item's JSON is counted."
    ),
    ESTIMATE_REASON_ENCRYPTED: "The content is encrypted: its length alone is known.",
    ESTIMATE_REASON_HOSTED_TOOL: "The model's service adds text of its own for this tool.",
    ESTIMATE_REASON_HOSTED_TOOL_CALL: "The model's service shows the model more of this than it tells.",
    ESTIMATE_REASON_IMAGE_OUT_OF_REACH: "The image is elsewhere: counted as one of a usual size.",
    ESTIMATE_REASON_IMAGE_UNREADABLE: "This is no image of a known kind: counted as one of a usual size.",
    ESTIMATE_REASON_FILE: "The text of the file is not known: it counts as an empty one.",
    ESTIMATE_REASON_UNANSWERED_CALL: "What a call costs is known together with its output alone.",
    ESTIMATE_REASON_LITTLE_EVIDENCE: "Few or no counts of the API's own are known with something like this.",
}

_TRIED = 50
"""How many places truncation tries one by one where leaving out items may cost more."""


def given_features(
    request: CountInputTokensRequest, reader: Reader, referenced: Mapping[str, ItemTokens] = MappingProxyType({})
) -> list[ItemTokens]:
    """Reads the items of the request itself. `referenced` has the features of stored items, by their ids."""
    if request.input.HasField("text"):
        return [ItemTokens(Turn.USER, reader.count(request.input.text), "input")]
    items = request.input.items.items
    own = [(item, item.id or f"input[{number}]") for number, item in enumerate(items) if not _is_reference(item)]
    read = iter(features([item for item, _ in own], reader, [place for _, place in own]))
    return [referenced[item.id] if _is_reference(item) else next(read) for item in items]


def _is_reference(item: ConversationItem) -> bool:
    return item.HasField("item_reference")


def count(
    request: CountInputTokensRequest, model: Resolved, reader: Reader, history: History, given: Sequence[ItemTokens]
) -> ModelTokenCount:
    """Counts a request for a model, given the items before its own and its own, all in the reader's encoding.

    Raises `InvalidArgument` for a schema that grows too large once its references are replaced.
    """
    keeps = keeps_reasoning(request, model)
    around = list(_around(request, model, reader))
    room = model.context_window - sum(each.tokens for _, each in around)
    tally = history.tally(model, keeps, reader.check_time)
    for item in given:
        tally.add(item)
    dropped = 0
    if request.truncation == TRUNCATION_AUTO and _whole(tally, request, model) > room:
        items = [*history.items, *given]
        dropped = _dropped(request, model, keeps, items, room, reader.check_time)
        tally = added_up(items[dropped:], model, keeps, reader.check_time)
    tally.finish()
    for part, each in [*around, *_beside(tally, request, model)]:
        tally.add_count(part, each)
    answer = _answer(model, tally)
    _tell_first(answer, dropped, history, given, request)
    return answer


def keeps_reasoning(request: CountInputTokensRequest, model: Resolved) -> bool:
    """Whether reasoning from before the user's last message is counted."""
    context = request.reasoning.context
    if context in (REASONING_CONTEXT_UNSPECIFIED, REASONING_CONTEXT_AUTO):
        return model.family.all_reasoning
    return context == REASONING_CONTEXT_ALL_TURNS


def _around(
    request: CountInputTokensRequest, model: Resolved, reader: Reader
) -> Iterator[tuple[InputPart.ValueType, Count]]:
    """What a request costs whatever its items are."""
    family, little = model.family, ESTIMATE_REASON_LITTLE_EVIDENCE
    yield INPUT_PART_REQUEST, Count(family.request)
    if not model.known:
        yield INPUT_PART_REQUEST, Count(0, ESTIMATE_REASON_UNKNOWN_MODEL, "model")
    if request.instructions:
        yield INPUT_PART_INSTRUCTIONS, Count(family.message + reader.count(request.instructions))
    for each in count_tools(request.tools, family, reader):
        yield INPUT_PART_TOOLS, each
    yield INPUT_PART_TOOLS, Count(count_choice(request.tool_choice, request.tools, family, reader.encoding))
    if request.tools and request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        yield INPUT_PART_TOOLS, Count(family.sequential_calls, little, "parallel_tool_calls")
    yield INPUT_PART_RESPONSE_FORMAT, Count(count_format(request.text.format, family, reader))
    if request.HasField("personality"):
        yield INPUT_PART_INSTRUCTIONS, Count(0, little, "personality")
    if request.reasoning.mode == "pro":
        yield INPUT_PART_REASONING, Count(family.pro_mode, little, "reasoning.mode")


def _beside(
    tally: TokenAccumulator, request: CountInputTokensRequest, model: Resolved
) -> Iterator[tuple[InputPart.ValueType, Count]]:
    """What a request costs because of some of its items."""
    if request.tools:
        yield INPUT_PART_TOOLS, count_search(request.tools, model.family, tally.loaded)
        if tally.parts[INPUT_PART_IMAGES]:
            yield INPUT_PART_IMAGES, Count(model.family.image_beside_tools)


def _whole(tally: TokenAccumulator, request: CountInputTokensRequest, model: Resolved) -> int:
    return tally.tokens + sum(each.tokens for _, each in _beside(tally, request, model))


def _dropped(
    request: CountInputTokensRequest,
    model: Resolved,
    keeps: bool,
    items: Sequence[ItemTokens],
    room: int,
    check: Callable[[], None],
) -> int:
    """The fewest items to leave out, from the first on, so that the others fit."""

    def fit(first: int) -> bool:
        return _whole(added_up(items[first:], model, keeps, check), request, model) <= room

    def fit_alone(first: int) -> bool:
        return added_up(items[first:], model, keeps, check).tokens <= room

    # What is beside the items may cost more when some of them go: tools are searched again that were found before.
    least = bisect_left(range(len(items)), True, key=fit_alone)
    near = next((first for first in range(least, min(len(items), least + _TRIED)) if fit(first)), None)
    return bisect_left(range(len(items)), True, least, key=fit) if near is None else near


def added_up(
    items: Iterable[ItemTokens], model: Resolved, keeps: bool, check: Callable[[], None] = lambda: None
) -> TokenAccumulator:
    """Returns the sum of items. `keeps` tells whether it has the reasoning from before the user's last message.

    `check` is called now and then, and may raise to give up.
    """
    tally = TokenAccumulator(model, keeps)
    tally.add_all(items, check)
    return tally


def _answer(model: Resolved, tally: TokenAccumulator) -> ModelTokenCount:
    tokens = tally.tokens
    return ModelTokenCount(
        family=model.family.name,
        encoding=model.family.encoding,
        input_tokens=tokens,
        parts=[
            TokenCountPart(part=part, input_tokens=tokens)
            for part, tokens in zip(PARTS, tally.parts, strict=True)
            if tokens
        ],
        context_window=model.context_window,
        context_left=model.context_window - tokens,
        estimates=[
            TokenEstimate(
                part=part,
                reason=reason,
                explanation=_EXPLANATIONS[reason],
                input_tokens=each.tokens,
                count=each.times,
                places=each.places,
            )
            for (part, reason), each in tally.estimates.items()
        ],
    )


def _tell_first(
    answer: ModelTokenCount,
    first: int,
    history: History,
    given: Sequence[ItemTokens],
    request: CountInputTokensRequest,
) -> None:
    """Says which item is the first that was counted."""
    known = len(history.items)
    if first < known + len(given):
        answer.first_kept_item = first
    if first < known:
        answer.first_kept_item_id = history.items[first].place
    elif request.input.HasField("items") and (item := request.input.items.items[first - known :][:1]) and item[0].id:
        answer.first_kept_item_id = item[0].id
