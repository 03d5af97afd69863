"""Which of a conversation's newest items fit into a number of tokens, calls and their outputs kept together."""

from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from convgrpc.tokens.count import added_up
from convgrpc.tokens.families import Resolved
from convgrpc.tokens.items import ItemTokens, features
from convgrpc.tokens.reading import Reader
from convgrpc.v1.item_pb2 import ConversationItem


class Link(NamedTuple):
    """What holds an item together with others: the id of a call, and whether the item is what answers the call."""

    call_id: str
    answers: bool


def link(item: ConversationItem) -> Link | None:
    """What holds an item together with others, if anything does."""
    kind = item.WhichOneof("kind")
    if kind == "mcp_approval_request":
        return Link(item.id, answers=False)
    if kind == "mcp_approval_response":
        return Link(item.mcp_approval_response.approval_request_id, answers=True)
    if kind == "local_shell_call_output":
        return Link(item.id, answers=True)
    call_id = getattr(getattr(item, kind), "call_id", "") if kind else ""
    return Link(call_id, answers=str(kind).endswith("_output")) if call_id else None


class BudgetWindow:
    """The newest items of a conversation, as far back as they were read."""

    def __init__(self, model: Resolved) -> None:
        self._model = model
        self.items: list[bytes] = []
        self.size = 0
        self._features: list[ItemTokens] = []
        self._links: list[Link | None] = []
        self._older_calls: set[str] = set()
        self._next_look = 1

    def add(self, older: Sequence[bytes], reader: Reader) -> None:
        """Adds items that come before, newest first."""
        parsed = [ConversationItem.FromString(data) for data in reversed(older)]
        self._features[:0] = features(parsed, reader, [item.id for item in parsed])
        self.items[:0] = reversed(older)
        self.size += sum(map(len, older))
        self._links[:0] = map(link, parsed)

    def may_fit(self, tokens: int) -> bool:
        """Whether all items might fit: adding them up takes time, so that they are let grow by a quarter in between."""
        if len(self._features) < self._next_look:
            return True
        self._next_look = len(self._features) * 5 // 4 + 1
        return count_of(self._features, self._model) <= tokens

    def orphan_outputs(self) -> set[str]:
        """The ids of calls that are answered here but not made here."""
        answered = {each.call_id for each in self._links if each and each.answers}
        return answered - _calls(self._links)

    def scan_calls(self, older: Iterable[bytes]) -> set[str]:
        """Notes which calls are made in items before these, and returns their ids."""
        calls = _calls(link(ConversationItem.FromString(data)) for data in older)
        self._older_calls |= calls
        return calls

    def fitting(self, tokens: int, max_bytes: int) -> int:
        """The place of the first item from which on all fit, be it the last alone that has more than `max_bytes`."""
        first, size = len(self.items), 0
        while first and (not size or size + len(self.items[first - 1]) <= max_bytes):
            first -= 1
            size += len(self.items[first])
        older_calls = self._older_calls | _calls(self._links[:first])
        return first + first_that_fits(
            self._features[first:], self._links[first:], self._model, tokens, older_calls=older_calls
        )


def first_that_fits(
    items: Sequence[ItemTokens],
    links: Sequence[Link | None],
    model: Resolved,
    tokens: int,
    *,
    older_calls: Container[str],
) -> int:
    """The place of the first item, of those from which on all fit into `tokens` as the input of a request.

    `older_calls` are those that are made before these items.
    """

    def fit(first: int) -> bool:
        return count_of(items[first:], model) <= tokens

    first = bisect_left(range(len(items)), True, key=fit)
    return _unbroken(first, links, older_calls)


def count_of(items: Sequence[ItemTokens], model: Resolved) -> int:
    """What items count as the input of a request that has nothing else."""
    return model.family.request + added_up(items, model, model.family.all_reasoning).tokens


def _calls(links: Iterable[Link | None]) -> set[str]:
    return {each.call_id for each in links if each and not each.answers}


def _unbroken(first: int, links: Sequence[Link | None], older_calls: Container[str]) -> int:
    """The first place from `first` on that parts no answer from its call."""
    asked: dict[str, int] = {}
    for place, each in enumerate(links):
        if each and not each.answers:
            asked[each.call_id] = place
        elif each and place >= first and asked.get(each.call_id, -1 if each.call_id in older_calls else first) < first:
            first = place + 1
    return first
