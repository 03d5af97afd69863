"""Counts a whole request: its items, and what is around them."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice

from convgrpc.tokens.encodings import Encoding
from convgrpc.tokens.families import DEFAULT, Resolved
from convgrpc.tokens.formats import count_format
from convgrpc.tokens.images import Rule
from convgrpc.tokens.items import Features, Turn, features
from convgrpc.tokens.tally import Tally
from convgrpc.tokens.tools import Count, count_choice, count_tools
from convgrpc.v1.input_tokens_service_pb2 import (
    CountInputTokensRequest,
    EstimateReason,
    InputPart,
    ModelTokenCount,
    ReasoningContext,
    TokenCountPart,
    TokenEstimate,
    Truncation,
)

_EXPLANATIONS = {
    EstimateReason.ESTIMATE_REASON_UNKNOWN_MODEL: f"Nothing is known of this model: counted as for {DEFAULT}.",
    EstimateReason.ESTIMATE_REASON_UNKNOWN_ITEM: "Nothing is known of items of this kind: all of their JSON is counted.",
    EstimateReason.ESTIMATE_REASON_ENCRYPTED: "The content is encrypted: its length alone is known.",
    EstimateReason.ESTIMATE_REASON_HOSTED_TOOL: "The model's service adds text of its own for this tool.",
    EstimateReason.ESTIMATE_REASON_HOSTED_TOOL_CALL: "The model's service shows the model more of this than it tells.",
    EstimateReason.ESTIMATE_REASON_IMAGE_OUT_OF_REACH: "The image is elsewhere: counted as one of 512 by 512 pixels.",
    EstimateReason.ESTIMATE_REASON_IMAGE_UNREADABLE: "This is no image: counted as one of 512 by 512 pixels.",
    EstimateReason.ESTIMATE_REASON_FILE: "The text of the file is not known.",
    EstimateReason.ESTIMATE_REASON_UNANSWERED_CALL: "What a call costs is known together with its output alone.",
    EstimateReason.ESTIMATE_REASON_LITTLE_EVIDENCE: "Few or no counts of the API's own are known with something like this.",
}


class History:
    """Items that come before a request's own, in one encoding, and what they come to for each family of models."""

    def __init__(self) -> None:
        self.items: list[Features] = []
        self._tallies: dict[tuple[str, Rule, bool], tuple[Tally, int]] = {}

    def tally(self, model: Resolved, keeps_reasoning: bool) -> Tally:
        """The sum of all items, of which only those are counted now that are new since the last time."""
        key = model.family.name, model.images, keeps_reasoning
        tally, counted = self._tallies.get(key) or (Tally(model, keeps_reasoning), 0)
        for item in islice(self.items, counted, None):
            tally.add(item)
        self._tallies[key] = tally, len(self.items)
        return tally


def given_features(request: CountInputTokensRequest, encoding: Encoding) -> list[Features]:
    """The items of the request itself, in an encoding."""
    if request.input.HasField("text"):
        return [Features(Turn.USER, encoding.count(request.input.text), "input")]
    items = request.input.items.items
    return [features(item, encoding, item.id or f"input[{number}]") for number, item in enumerate(items)]


def count(
    request: CountInputTokensRequest, model: Resolved, encoding: Encoding, history: History, given: Sequence[Features]
) -> ModelTokenCount:
    """Counts a request for a model, given the items before its own and its own.

    Raises `InvalidArgument` for a schema that grows too large once its references are replaced.
    """
    keeps_reasoning = _keeps_reasoning(request, model)
    around = list(_around(request, model, encoding))
    tally = history.tally(model, keeps_reasoning).copy()
    for item in given:
        tally.add(item)
    dropped = 0
    room = model.context_window - sum(each.tokens for _, each in around)
    if request.truncation == Truncation.TRUNCATION_AUTO and tally.tokens > room:
        items = [*history.items, *given]
        dropped = _dropped(model, keeps_reasoning, items, room)
        tally = _tallied(model, keeps_reasoning, items[dropped:])
    tally.finish()
    for part, each in around:
        tally.add_count(part, each)
    answer = _answer(model, tally)
    _tell_first(answer, dropped, history, request)
    return answer


def _keeps_reasoning(request: CountInputTokensRequest, model: Resolved) -> bool:
    context = request.reasoning.context
    if context in (ReasoningContext.REASONING_CONTEXT_UNSPECIFIED, ReasoningContext.REASONING_CONTEXT_AUTO):
        return model.family.all_reasoning
    return context == ReasoningContext.REASONING_CONTEXT_ALL_TURNS


def _around(
    request: CountInputTokensRequest, model: Resolved, encoding: Encoding
) -> Iterator[tuple[InputPart.ValueType, Count]]:
    """What a request costs beside its items."""
    family, little = model.family, EstimateReason.ESTIMATE_REASON_LITTLE_EVIDENCE
    yield InputPart.INPUT_PART_REQUEST, Count(family.request)
    if not model.known:
        yield InputPart.INPUT_PART_REQUEST, Count(0, EstimateReason.ESTIMATE_REASON_UNKNOWN_MODEL, "model")
    if request.instructions:
        yield InputPart.INPUT_PART_INSTRUCTIONS, Count(family.message + encoding.count(request.instructions))
    for each in count_tools(request.tools, family, encoding):
        yield InputPart.INPUT_PART_TOOLS, each
    yield InputPart.INPUT_PART_TOOLS, Count(count_choice(request.tool_choice, request.tools, family, encoding))
    if request.tools and request.HasField("parallel_tool_calls") and not request.parallel_tool_calls:
        yield InputPart.INPUT_PART_TOOLS, Count(family.sequential_calls, little, "parallel_tool_calls")
    yield InputPart.INPUT_PART_RESPONSE_FORMAT, Count(count_format(request.text.format, family, encoding))
    if request.reasoning.mode == "pro":
        yield InputPart.INPUT_PART_REASONING, Count(family.pro_mode, little, "reasoning.mode")


def _dropped(model: Resolved, keeps_reasoning: bool, items: Sequence[Features], room: int) -> int:
    """The fewest items to leave out, from the first on, so that the others fit."""

    def fit(first: int) -> bool:
        return _tallied(model, keeps_reasoning, items[first:]).tokens <= room

    return bisect_left(range(len(items)), True, key=fit)


def _tallied(model: Resolved, keeps_reasoning: bool, items: Sequence[Features]) -> Tally:
    tally = Tally(model, keeps_reasoning)
    for item in items:
        tally.add(item)
    return tally


def _answer(model: Resolved, tally: Tally) -> ModelTokenCount:
    tokens = tally.tokens
    return ModelTokenCount(
        family=model.family.name,
        encoding=model.family.encoding,
        input_tokens=tokens,
        parts=[
            TokenCountPart(part=part, input_tokens=tokens)
            for part, tokens in zip(InputPart.values(), tally.parts, strict=True)
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


def _tell_first(answer: ModelTokenCount, first: int, history: History, request: CountInputTokensRequest) -> None:
    """Says which item is the first that was counted."""
    if first < len(history.items):
        answer.first_kept_item = first
        answer.first_kept_item_id = history.items[first].place
        return
    given = request.input.items.items
    if request.input.HasField("text") or first - len(history.items) < len(given):
        answer.first_kept_item = first
