"""Searches for conversations by several pairs of metadata, in turns that are short enough for the event loop."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from itertools import chain

from convgrpc.storage.interface import ConversationPage
from convgrpc.storage.sqlite.queries import find_before, find_by_number

MAX_SEARCHED = 1000
"""The most candidates for one page: conversations that have the rarest pair."""
MAX_ROWS_PER_TURN = 100
"""The most candidates for one turn: with 16 pairs they take less than a millisecond."""
MAX_MATCHES_PER_TURN = 10
"""The most conversations that one turn reads: with 16 pairs they have up to 40 kB each."""

_SELECT_PAIR = """
    SELECT 1 FROM metadata
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND key = ? AND value = ? AND conversation < ?
    LIMIT ?
"""
_SELECT_CANDIDATES = """
    SELECT conversation, {others} FROM metadata AS candidates
    WHERE project = (SELECT number FROM projects WHERE name = ?) AND key = ? AND value = ? AND conversation < ?
    ORDER BY conversation DESC LIMIT ?
"""
# CASE evaluates no pair after the first that is missing, AND evaluates all of them.
_LACKS_PAIR = """
    WHEN NOT EXISTS (SELECT 1 FROM metadata WHERE conversation = candidates.conversation AND key = ? AND value = ?)
    THEN 0
"""


class Search:
    """A search for one page of conversations with all of several pairs of metadata.

    Each turn may read another snapshot: conversations have descending numbers, which are never reused, so that no
    conversation is found twice.
    """

    def __init__(self, project: str, *, after: str | None, limit: int, metadata: Mapping[str, str]) -> None:
        self._project = project
        self._limit = limit
        self._pairs = list(metadata.items())
        self._select = _SELECT_CANDIDATES.format(others=f"CASE {_LACKS_PAIR * (len(metadata) - 1)} ELSE 1 END")
        self._has_begun = False
        # Pairs that are so frequent that only a longer count tells which is the rarest.
        self._uncounted: list[tuple[str, str]] = []
        self._fewest = MAX_SEARCHED + 1
        self._before = 0
        self._cursor = after
        self._searched = 0
        self._found: list[bytes] = []

    def turn(self, connection: sqlite3.Connection) -> ConversationPage | None:
        """Goes on within one snapshot; returns the page once it is complete.

        Raises `NotFound` in the first turn when the cursor is unknown.
        """
        if not self._has_begun:
            self._has_begun = True
            self._before = find_before(connection, self._project, self._cursor)
            self._sort(connection)
            # Where matches are frequent, the first candidates fill the page, and no longer count pays.
        elif self._uncounted:
            self._count_next(connection)
            return None
        return self._look(connection)

    def _sort(self, connection: sqlite3.Connection) -> None:
        """Puts the rarest pairs first, by counts that end at the rows of one turn."""
        bound = MAX_ROWS_PER_TURN + 1
        counts = {pair: self._count(connection, pair, bound) for pair in self._pairs}
        self._pairs.sort(key=counts.__getitem__)
        if counts[self._pairs[0]] == bound:
            self._uncounted = self._pairs[::-1]

    def _count_next(self, connection: sqlite3.Connection) -> None:
        """Counts one pair more, no further than the rarest one so far."""
        pair = self._uncounted.pop()
        count = self._count(connection, pair, self._fewest)
        if count < self._fewest:
            self._fewest = count
            self._pairs.remove(pair)
            self._pairs.insert(0, pair)

    def _count(self, connection: sqlite3.Connection, pair: tuple[str, str], bound: int) -> int:
        """Counts the candidates that a pair leaves, up to a bound."""
        return len(connection.execute(_SELECT_PAIR, (self._project, *pair, self._before, bound)).fetchall())

    def _look(self, connection: sqlite3.Connection) -> ConversationPage | None:
        """Looks at the next candidates."""
        rarest, *others = self._pairs
        rows = min(MAX_ROWS_PER_TURN, MAX_SEARCHED - self._searched)
        # One row more tells whether the search goes on.
        values = [*chain.from_iterable(others), self._project, *rarest, self._before, rows + 1]
        most = min(MAX_MATCHES_PER_TURN, self._limit - len(self._found))
        numbers: list[int] = []
        last: int | None = None
        has_more = False
        with closing(connection.execute(self._select, values)) as candidates:
            for looked, (number, matches) in enumerate(candidates):
                has_more = looked == rows or len(numbers) == most
                if has_more:
                    break
                last = number
                self._searched += 1
                if matches:
                    numbers.append(number)
        if last is not None:
            self._before, self._cursor = last, find_by_number(connection, last).id
        self._found += [find_by_number(connection, number).data for number in numbers]
        is_full = len(self._found) == self._limit or self._searched == MAX_SEARCHED
        if has_more and not is_full:
            return None
        return ConversationPage(self._found, has_more, self._cursor)
