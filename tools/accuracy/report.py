"""Reports: tables of scores, by category, family and repository, beside those of other counters and of rules."""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from accuracy.counters import compared, ours
from accuracy.rows import Row, ceiling, read
from accuracy.rules import RULES
from accuracy.scores import Counted, Results, Score, grouped, score
from accuracy.support import Support, supports

_HEAD = "    N   exact  within 1  within 2 %  mean error"


def table(title: str, results: Results, key: Callable[[Row], str]) -> Iterator[str]:
    """Yields a line for each group of rows, and one for all of them."""
    groups = {**grouped(results, key), "all": results}
    width = max(map(len, (title, *groups)))
    yield f"{title:{width}}  {_HEAD}  ceiling"
    for name, group in groups.items():
        yield f"{name:{width}}  {figures(score(group))}  {ceiling([row for row, _ in group]):7.1f}"


def comparison(title: str, by_counter: Mapping[str, Results]) -> Iterator[str]:
    """Yields a line for each counter in each category or class."""
    groups = {name: {**grouped(results, attrgetter("label")), "all": results} for name, results in by_counter.items()}
    categories = list(next(iter(groups.values())))
    width, names = max(map(len, (title, *categories))), max(map(len, ("counter", *groups)))
    yield f"{title:{width}}  {'counter':{names}}  {_HEAD}"
    for each in categories:
        for name in groups:
            yield f"{each:{width}}  {name:{names}}  {figures(score(groups[name][each]))}"


def figures(of: Score) -> str:
    error = "-" if of.error is None else f"{of.error:.2f}"
    return f"{of.rows:5}  {of.exact:6.1f}  {of.near:8.1f}  {of.close:10.1f}  {error:>10}"


def failures(name: str, results: Results) -> Iterator[str]:
    """Yields how many rows a counter failed on, and why."""
    reasons = Counter(counted.error for _, counted in results if counted.tokens is None)
    if reasons:
        yield f"{name}: {reasons.total()} rows left out, as not exact and without a part in the mean error"
        yield from (f"  {times} times {reason}" for reason, times in reasons.most_common())


def inexact(results: Results) -> Iterator[str]:
    """Yields a line for each row that is not exact."""
    for row, counted in results:
        if counted.tokens is not None and counted.tokens != row.recorded:
            reasons = ", ".join(counted.reasons) or "none"
            difference = counted.tokens - row.recorded
            yield f"{row.number:4} {row.category} {row.model} {row.recorded} {difference:+} estimates: {reasons}"


def _errors(results: Results) -> Iterator[str]:
    for row, counted in results:
        if counted.tokens is None:
            yield f"error: line {row.number}, {row.category}, {row.model}: {counted.error}"


def saved(results: Results) -> str:
    """Returns the counts of rows by their numbers, for a later `--before`."""
    return json.dumps({row.number: counted.tokens for row, counted in results})


def earlier(rows: Sequence[Row], text: str) -> Results:
    """Returns the counts that were saved earlier."""
    tokens = json.loads(text)
    return [(row, Counted(tokens.get(str(row.number)))) for row in rows]


def report(lines: Iterable[str], rows_too: bool, save: Path | None = None, before: Path | None = None) -> Iterator[str]:
    """Yields the lines of the report by category and family, with those of other counters."""
    results = yield from _counted(lines)
    if not results:
        return
    if save:
        save.write_text(saved(results))
    rows = [row for row, _ in results]
    title = "class" if any(row.why for row in rows) else "category"
    yield from table(title, results, attrgetter("label"))
    yield ""
    yield from table("family", results, attrgetter("family"))
    yield ""
    others = dict(compared(rows))
    counted = {name: each for name, each in others.items() if not isinstance(each, str)}
    if before:
        counted = {"before": earlier(rows, before.read_text()), **counted}
    yield from comparison(title, {"convgrpc": results, **counted})
    for name, each in others.items():
        yield from [f"{name}: {each}; {len(rows)} rows left out"] if isinstance(each, str) else failures(name, each)
    if rows_too:
        yield ""
        yield from inexact(results)


def report_by_source(lines: Iterable[str], rows_too: bool) -> Iterator[str]:
    """Yields the lines of the report by repository, with the rows and repositories that support each rule."""
    results = yield from _counted(lines)
    if not results:
        return
    yield from table("repository", results, attrgetter("repository"))
    if rows_too:
        yield ""
        yield from inexact(results)
    yield ""
    yield from rules_table(supports(results, RULES))


def _counted(lines: Iterable[str]) -> Generator[str, None, Results]:
    """Returns the rows as they are counted. Yields lines on those that are left out or refused."""
    found = list(read(lines))
    for reason, times in Counter(reason for reason in found if isinstance(reason, str)).items():
        yield f"left out, {times} times: {reason}"
    results = [(row, ours(row)) for row in found if isinstance(row, Row)]
    if not results:
        yield "There are no rows."
        return results
    yield from _errors(results)
    yield "In percent of N; the mean error is of the absolute differences, in percent of what was recorded."
    yield ""
    return results


def rules_table(found: Sequence[Support]) -> Iterator[str]:
    """Yields a line for each rule, and its description below."""
    yield "Each rule is switched off in turn. A row supports a rule if it is nearer to its record with the rule, and at"
    yield "most 2 % from it; a row contradicts a rule if the same holds without the rule. The others are unclear."
    yield ""
    width = max(len(each.rule.name) for each in found)
    yield f"{'rule':{width}}  changed  support  contradict  unclear  repositories"
    for each in found:
        yield (
            f"{each.rule.name:{width}}  {each.changed:7}  {each.supporting:7}  {each.contradicting:10}  "
            f"{each.unclear:7}  {_repositories(each)}"
        )
    yield ""
    yield from (f"{each.rule.name:{width}}  {each.rule.description}" for each in found)


def _repositories(support: Support) -> str:
    number = len(support.repositories)
    return f"{number:12}" + (f"  one source: {support.repositories[0]}" if number == 1 else "")
