"""The command `convgrpc count`: what requests in a file count, without a server."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click
from google.protobuf.json_format import MessageToDict

from convgrpc.errors import ConvgrpcError
from convgrpc.v1.input_tokens_service_pb2 import InputPart, ModelTokenCount

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_MAX_BYTES = 64 << 20
_LONG = 1 << 20
# What a request for a response may have besides, and what does not count.
_UNCOUNTED = frozenset(
    [
        "background",
        "client_metadata",
        "context_management",
        "include",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "moderation",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "top_logprobs",
        "top_p",
        "user",
    ]
)


_INTEGERS = ("input_tokens", "context_window", "context_left", "first_kept_item", "count")

Counter: TypeAlias = Callable[[dict[str, Any]], list[ModelTokenCount]]


class Counted(NamedTuple):
    """A request of a file: its line, from 1, and what it counts for each model, or why it cannot be counted."""

    line: int
    counts: Sequence[ModelTokenCount]
    fault: str | None


@click.command("count")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--model", "names", multiple=True, help="Count for this model, in place of the request's; may be repeated."
)
@click.option("--models", "models_file", type=click.Path(dir_okay=False), help="A TOML file of more models.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def count(path: str, names: Sequence[str], models_file: str | None, as_json: bool) -> None:
    """Counts the input tokens of the request in FILE, or of each of several, one JSON object a line. - is stdin.

    Requests have the shape of `POST /v1/responses/input_tokens`, and may have whatever else `POST /v1/responses` takes.
    """
    counter = _counter(names, models_file)
    write = _write_json if as_json else _write_table
    with click.open_file(path, "rb") as file, _progress(path) as bar:
        faults = write(_counted(line, text, counter) for line, text in _requests(file, bar.update))
    sys.exit(1 if faults else 0)


def _counter(names: Sequence[str], models_file: str | None) -> Counter:
    try:
        # What it needs is an extra.
        from convgrpc.tokens import count_input_tokens
        from convgrpc.tokens.families import Models
        from convgrpc.tokens.models_file import read_models

        models = read_models(models_file) if models_file else Models()
    except (ImportError, ValueError) as error:
        raise click.ClickException(str(error)) from None

    def counted(request: dict[str, Any]) -> list[ModelTokenCount]:
        wanted: Sequence[str | None] = names or [None]
        return [count_input_tokens(request, model=name, models=models) for name in wanted]

    return counted


def _requests(file: IO[bytes], advance: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """The requests of a file, with their lines: one on each line if the first line is one, or else one in all."""
    first = file.readline(_MAX_BYTES)
    if not _is_json(first):
        yield 1, first + file.read(_MAX_BYTES)
        return
    rest = iter(lambda: file.readline(_MAX_BYTES), b"")
    for number, line in enumerate(chain([first], rest), 1):
        advance(len(line))
        if line.strip():
            yield number, line


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _progress(path: str) -> "ProgressBar[int]":
    """A bar on stderr, if someone is there to see it and it does not stand in the way of what is printed."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    hidden = size < _LONG or sys.stdout.isatty() or not sys.stderr.isatty()
    return click.progressbar(length=size, label="Counting", file=sys.stderr, hidden=hidden)


def _counted(line: int, text: bytes, count: Counter) -> Counted:
    try:
        request = json.loads(text)
        if type(request) is not dict:
            return Counted(line, [], "it is not a JSON object")
        return Counted(line, count({key: each for key, each in request.items() if key not in _UNCOUNTED}), None)
    except ConvgrpcError as error:
        place = f" ({error.param})" if error.param and error.param not in error.message else ""
        return Counted(line, [], f"{error.message}{place}")
    except ValueError as error:
        return Counted(line, [], f"it is not JSON: {error}")
    except RecursionError:
        return Counted(line, [], "it is nested too deeply")


def _write_json(found: Iterable[Counted]) -> int:
    faults = 0
    for each in found:
        for count in each.counts:
            told = MessageToDict(count, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            click.echo(json.dumps({"line": each.line, **_with_numbers(told)}))
        faults += _tell(each)
    return faults


def _with_numbers(value: Any) -> Any:
    """JSON of protobuf, whose long integers are strings, with numbers in their places."""
    if isinstance(value, dict):
        return {key: int(each) if key in _INTEGERS else _with_numbers(each) for key, each in value.items()}
    return [_with_numbers(each) for each in value] if isinstance(value, list) else value


def _write_table(found: Iterable[Counted]) -> int:
    """One line for each count; below it what it is made of if there is one request, or else a sum if there is one
    model.
    """
    faults = total = 0
    sure = True
    models: set[str] = set()
    several = list(islice(found, 2))
    for each in chain(several, found):
        faults += _tell(each)
        for count in each.counts:
            models.add(count.model)
            total += count.input_tokens
            sure = sure and not count.estimates
            click.echo(_row(each.line, count))
            if len(several) == 1:
                click.echo(_details(count), nl=False)
    if len(several) > 1 and len(models) == 1:
        click.echo(f"{'total':>6}  {_number(total, sure=sure):>12}")
    return faults


def _row(line: int, count: ModelTokenCount) -> str:
    left = f"{count.context_left:,} of {count.context_window:,} left"
    return f"{line:>6}  {_number(count.input_tokens, sure=not count.estimates):>12}  {count.model}, {left}"


def _number(tokens: int, *, sure: bool) -> str:
    return f"{tokens:,}" if sure else f"about {tokens:,}"


def _details(count: ModelTokenCount) -> str:
    rows = [
        f"{'':>6}  {part.input_tokens:>12,}  {_word(InputPart.Name(part.part), 'INPUT_PART_')}" for part in count.parts
    ]
    for each in count.estimates:
        rows.append(f"{'':>6}  {each.input_tokens:>12,}  estimated, {', '.join(each.places)}: {each.explanation}")
    return "".join(f"{row}\n" for row in rows)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")


def _tell(counted: Counted) -> int:
    """Tells what is wrong with a request, if something is."""
    if counted.fault is None:
        return 0
    click.echo(f"convgrpc: line {counted.line}: {counted.fault}", err=True)
    return 1
