"""The sum of a sequence of items, for a family of models: item by item, so that it can go on where it stopped."""

from collections import ChainMap
from collections.abc import Callable, Iterable, MutableMapping
from itertools import islice
from typing import NamedTuple

from convgrpc.tokens.families import Resolved
from convgrpc.tokens.images import Image
from convgrpc.tokens.items import ItemTokens, Stored, Turn
from convgrpc.tokens.reading import File
from convgrpc.tokens.tools import Count
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_LITTLE_EVIDENCE,
    ESTIMATE_REASON_UNANSWERED_CALL,
    ESTIMATE_REASON_UNSPECIFIED,
    INPUT_PART_FILES,
    INPUT_PART_IMAGES,
    INPUT_PART_MESSAGES,
    INPUT_PART_OTHER,
    INPUT_PART_REASONING,
    INPUT_PART_TOOL_CALLS,
    INPUT_PART_TOOLS,
    EstimateReason,
    InputPart,
)

MAX_PLACES = 16
_UNCHECKED = 1000
"""Items that are added up between two checks whether the call has ended."""
PARTS = tuple(InputPart.values())
"""The places of what `TokenAccumulator.parts` counts."""


class Estimated(NamedTuple):
    """What one reason makes uncertain: how many tokens, in how many places, and the first of those."""

    tokens: int = 0
    times: int = 0
    places: tuple[str, ...] = ()

    def plus(self, tokens: int, place: str) -> "Estimated":
        places = (*self.places, place) if len(self.places) < MAX_PLACES else self.places
        return Estimated(self.tokens + tokens, self.times + 1, places)


_PARTS = {
    **dict.fromkeys((Turn.SYSTEM, Turn.USER, Turn.ASSISTANT, Turn.COMMENTARY), INPUT_PART_MESSAGES),
    **dict.fromkeys((Turn.CALL, Turn.OUTPUT), INPUT_PART_TOOL_CALLS),
    Turn.REASONING: INPUT_PART_REASONING,
    Turn.HOSTED: INPUT_PART_TOOL_CALLS,
    Turn.TOOLS: INPUT_PART_TOOLS,
    Turn.OTHER: INPUT_PART_OTHER,
}


class TokenAccumulator:
    """Counts items one after the other.

    Some cost what those before them make of them: an output has the name of its call, calls that are made together cost
    less than one by one, and reasoning is forgotten when the user speaks again, unless `keeps_reasoning`.
    """

    def __init__(self, model: Resolved, keeps_reasoning: bool) -> None:
        self._model = model
        self._family = model.family
        self._keeps_reasoning = keeps_reasoning
        self.parts = [0] * len(PARTS)
        self.estimates: dict[tuple[InputPart.ValueType, EstimateReason.ValueType], Estimated] = {}
        self.loaded: set[str] = set()
        self._names: MutableMapping[str, int] = {}
        self._unanswered: dict[str, str] = {}
        self._together = 0
        self._bonus = 0
        self._reasoned = False
        self._has_message = False

    def copy(self) -> "TokenAccumulator":
        """One that goes on from here on its own. It takes time for calls without an answer and for loaded tools
        alone.
        """
        other = TokenAccumulator(self._model, self._keeps_reasoning)
        other.parts = self.parts.copy()
        other.estimates = self.estimates.copy()
        other.loaded = self.loaded.copy()
        other._names = ChainMap({}, self._names)
        other._unanswered = self._unanswered.copy()
        other._together, other._bonus = self._together, self._bonus
        other._reasoned, other._has_message = self._reasoned, self._has_message
        return other

    @property
    def tokens(self) -> int:
        return sum(self.parts)

    def add_all(self, items: Iterable[ItemTokens], check: Callable[[], None]) -> None:
        """Counts the next items. `check` is called now and then, and may raise to give up."""
        for number, item in enumerate(items):
            if number % _UNCHECKED == 0:
                check()
            self.add(item)

    def add(self, item: ItemTokens) -> None:
        """Counts the next item."""
        turn = item.turn
        if turn is Turn.CALL:
            self._add_call(item)
        else:
            self._together = 0
            if turn is Turn.OUTPUT:
                self._add_output(item)
            elif turn is Turn.REASONING:
                self._reasoned = True
                self.parts[INPUT_PART_REASONING] += item.tokens
            elif turn <= Turn.COMMENTARY:
                self._add_message(item, turn)
            else:
                self._add_other(item)
        if item.reason:
            self._note(_PARTS[turn], item.reason, item.tokens, item.place)
        for image in item.images:
            self._add_image(image, item.place)
        for file in item.files:
            self._add_file(file, item.place)

    def add_count(self, part: InputPart.ValueType, count: Count) -> None:
        """Adds to a part what was counted elsewhere."""
        self.parts[part] += count.tokens
        if count.reason:
            self._note(part, count.reason, count.tokens, count.place)

    def finish(self) -> None:
        """Notes what remains open when there are no more items."""
        if times := len(self._unanswered):
            places = tuple(islice(self._unanswered.values(), MAX_PLACES))
            open_calls = Estimated(times * self._family.call, times, places)
            self.estimates[INPUT_PART_TOOL_CALLS, ESTIMATE_REASON_UNANSWERED_CALL] = open_calls

    def _note(self, part: InputPart.ValueType, reason: EstimateReason.ValueType, tokens: int, place: str) -> None:
        self.estimates[part, reason] = self.estimates.get((part, reason), Estimated()).plus(tokens, place)

    def _add_message(self, item: ItemTokens, turn: Turn) -> None:
        family = self._family
        # Each file is as a message of its own.
        tokens = item.tokens + (0 if item.is_bare else family.message)
        if turn is Turn.USER:
            if self._reasoned and not self._keeps_reasoning:
                self._forget_reasoning()
            if self._has_message and len(item.images) == 1 and not item.tokens and not item.files:
                tokens += family.lone_image
        elif turn is not Turn.SYSTEM:
            tokens += family.assistant + (family.commentary if turn is Turn.COMMENTARY else 0)
        self._has_message = True
        self.parts[INPUT_PART_MESSAGES] += tokens

    def _add_call(self, item: ItemTokens) -> None:
        family = self._family
        self._together += 1
        tokens = item.name + item.tokens - (item.compact if family.compact_arguments else 0)
        if item.namespace:
            tokens += family.namespace_times * item.namespace + family.namespaced_call
        if self._together == 1:
            least = Stored.ID_AND_STATUS if family.stored_call_has_status else Stored.ID
            self._bonus = family.stored_call if item.stored >= least else 0
            tokens += family.call + self._bonus
        elif self._together == 2:
            # The first turns out to have been one of several.
            tokens += family.parallel + 2 * family.parallel_call - family.call - self._bonus
        else:
            tokens += family.parallel_call
        self.parts[INPUT_PART_TOOL_CALLS] += tokens
        self._names[item.call_id] = item.name
        self._unanswered[item.call_id] = item.place

    def _add_output(self, item: ItemTokens) -> None:
        family = self._family
        name = self._names.get(item.call_id, family.nameless)
        self.parts[INPUT_PART_TOOL_CALLS] += family.output + name + item.tokens
        self._unanswered.pop(item.call_id, None)

    def _add_other(self, item: ItemTokens) -> None:
        around = getattr(self._family, item.around) if item.around else 0
        self.parts[_PARTS[item.turn]] += item.tokens + around
        self.loaded.update(item.loaded)

    def _add_image(self, image: Image, place: str) -> None:
        tokens = self._model.images.tokens(image)
        self.add_count(INPUT_PART_IMAGES, Count(tokens, image.reason, place))

    def _add_file(self, file: File, place: str) -> None:
        is_unsure = file.is_pdf and self._family.sees_pdf_pages
        reason = file.reason or (ESTIMATE_REASON_LITTLE_EVIDENCE if is_unsure else ESTIMATE_REASON_UNSPECIFIED)
        self.add_count(INPUT_PART_FILES, Count(file.tokens, reason, place))

    def _forget_reasoning(self) -> None:
        self._reasoned = False
        self.parts[INPUT_PART_REASONING] = 0
        for part, reason in list(self.estimates):
            if part == INPUT_PART_REASONING:
                del self.estimates[part, reason]
