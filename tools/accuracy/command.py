"""The command `scripts/accuracy`."""

import argparse
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accuracy.report import report, report_by_source
from convgrpc.tokens.encodings import RANKS

_ENCODINGS_URL = "https://openaipublic.blob.core.windows.net/encodings/"


def main() -> None:
    """Prints a report on the files that the command line names."""
    parser = argparse.ArgumentParser(
        prog="scripts/accuracy", description="Compares counts of tokens with those that were recorded."
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="JSON Lines of requests and what they were counted as"
    )
    parser.add_argument("--rows", action="store_true", help="print each row that is not exact")
    parser.add_argument("--by-source", action="store_true", help="print scores by repository, and support of rules")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep what the rows are counted as, for --before")
    parser.add_argument("--before", type=Path, metavar="FILE", help="what an earlier version counted, to stand beside")
    arguments = parser.parse_args()
    if absent := [file for file in arguments.files if not file.is_file()]:
        parser.error(f"there is no file {absent[0]}")
    if arguments.before and not arguments.before.is_file():
        parser.error(f"there is no file {arguments.before}")
    if arguments.by_source and (arguments.save or arguments.before):
        parser.error("--by-source goes without --save and --before")
    with _offline():
        lines = _lines(arguments.files)
        if arguments.by_source:
            printed = report_by_source(lines, arguments.rows)
        else:
            printed = report(lines, arguments.rows, arguments.save, arguments.before)
        for line in printed:
            print(line, flush=True)


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        with file.open(encoding="utf-8") as lines:
            yield from lines


@contextmanager
def _offline() -> Iterator[None]:
    """Gives tiktoken the ranks that come with the package, as if it had downloaded them, while the context lasts."""
    # litellm sets the first to the value of the second.
    names = ("TIKTOKEN_CACHE_DIR", "CUSTOM_TIKTOKEN_CACHE_DIR")
    before = {name: value for name in names if (value := os.environ.get(name)) is not None}
    with tempfile.TemporaryDirectory() as folder:
        for path in RANKS.glob("*.tiktoken"):
            name = hashlib.sha1(f"{_ENCODINGS_URL}{path.name}".encode()).hexdigest()
            (Path(folder) / name).symlink_to(path)
        os.environ.update(dict.fromkeys(names, folder))
        try:
            yield
        finally:
            for name in names:
                os.environ.pop(name, None)
            os.environ.update(before)
