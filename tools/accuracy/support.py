"""Support of rules: the rows that change when a rule is switched off, and which of them show that it is right."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple
from unittest.mock import patch

from accuracy.counters import counted, decoded
from accuracy.rows import Row
from accuracy.rules import Rule, switched_off
from accuracy.scores import Results, is_close
from convgrpc.tokens.extraction import Extractor
from convgrpc.tokens.families import Models
from convgrpc.tokens.files import Document
from convgrpc.v1.input_tokens_service_pb2 import CountInputTokensRequest


class Support(NamedTuple):
    """A rule, the number of rows that change without it, and the repositories of the rows that support it."""

    rule: Rule
    changed: int
    supporting: int
    contradicting: int
    repositories: Sequence[str]

    @property
    def unclear(self) -> int:
        return self.changed - self.supporting - self.contradicting


class _Known(NamedTuple):
    """A row, its request and its count by all rules."""

    row: Row
    request: CountInputTokensRequest
    tokens: int


def supports(results: Results, rules: Iterable[Rule]) -> list[Support]:
    """Counts the rows again without each of the rules. Leaves out rows that have no count."""
    known = [_Known(row, decoded(row), each.tokens) for row, each in results if each.tokens is not None]
    with _remembered_files():
        return [_support(rule, known) for rule in rules]


def _support(rule: Rule, known: Sequence[_Known]) -> Support:
    with switched_off(rule) as models:
        pairs = [(each, _without(each, models)) for each in known]
    changed = [(each, tokens) for each, tokens in pairs if tokens != each.tokens]
    supporting = [each.row for each, tokens in changed if _is_better(each.tokens, tokens, each.row.recorded)]
    contradicting = [each.row for each, tokens in changed if _is_better(tokens, each.tokens, each.row.recorded)]
    repositories = [name for name, _ in Counter(row.repository for row in supporting).most_common()]
    return Support(rule, len(changed), len(supporting), len(contradicting), repositories)


def _without(known: _Known, models: Models) -> int:
    tokens = counted(known.request, models).tokens
    assert tokens is not None
    return tokens


def _is_better(tokens: int, others: int, recorded: int) -> bool:
    return abs(tokens - recorded) < abs(others - recorded) and is_close(tokens - recorded, recorded)


@contextmanager
def _remembered_files() -> Iterator[None]:
    """Reads each file once: that takes a process."""

    @cache
    def pages(document: Document) -> list[str]:
        return read(Extractor(), document)

    read = Extractor.pages
    with patch.object(Extractor, "pages", lambda _, document: pages(document)):
        yield
