"""Files in a request: what they are, and what a model reads of them once their text is known."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from convgrpc.tokens.base64_text import decoded, percent_decoded

FILE_TOKENS = 4
"""What a file costs beside its text."""
SHEET_TOKENS = 32
"""What a sheet costs beside its text."""
MAX_ROWS = 1000
"""How many rows of a sheet a model reads."""


class Kind(StrEnum):
    """A kind of file whose text can be read."""

    PDF = "pdf"
    DOCX = "docx"
    XLSX = "xlsx"
    CSV = "csv"
    TEXT = "text"


class Document(NamedTuple):
    """A file that came with a request; what was not said of it is empty."""

    media_type: str
    filename: str
    data: bytes


def document(file_data: str, filename: str, check: Callable[[], None] = lambda: None) -> Document | None:
    """Reads a file from a data URL, or from bare base64. Returns None if it is no base64.

    `check` is called now and then, and may raise to give up.
    """
    media_type, data = "", file_data
    if file_data[:5].lower() == "data:":
        head, comma, data = file_data[5:].partition(",")
        media_type, *parameters = (part.strip().lower() for part in head.split(";"))
        if not comma or "base64" not in parameters:
            return None
        data = percent_decoded(data, check)
    try:
        return Document(media_type, filename, decoded(data, check))
    except ValueError:
        return None


def kind(document: Document) -> Kind | None:
    """What a file is by its media type, else by its name, else by its first bytes; None for what has no known text."""
    return _by_media_type(document.media_type) or _by_name(document.filename) or _by_content(document.data)


def rendered(kind: Kind, pages: Sequence[str]) -> list[str]:
    """The texts that a model reads of a file's pages or sheets, each to be counted for itself."""
    if kind in _OF_SHEETS:
        return list(pages)
    return [f"<PARSED TEXT FOR PAGE: {number} / {len(pages)}>\n{page}" for number, page in enumerate(pages, 1)]


def tokens_around(kind: Kind, pages: Sequence[str]) -> int:
    """What a file costs beside the texts that it is rendered to."""
    return FILE_TOKENS + (SHEET_TOKENS * len(pages) if kind in _OF_SHEETS else 0)


_OF_SHEETS = frozenset((Kind.CSV, Kind.XLSX))


def _all(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


_MEDIA_TYPES: Mapping[str, Kind] = {
    "application/pdf": Kind.PDF,
    "application/x-pdf": Kind.PDF,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Kind.DOCX,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": Kind.XLSX,
    **_all(Kind.CSV, "text/csv application/csv text/tsv text/tab-separated-values text/x-iif application/x-iif"),
    **_all(
        Kind.TEXT,
        """
        message/rfc822 application/graphql application/javascript application/json application/json5 application/jsonl
        application/ndjson application/sql application/toml application/typescript application/xhtml+xml
        application/xml application/x-awk application/x-bash application/x-graphql application/x-httpd-php
        application/x-httpd-php-source application/x-javascript application/x-json5 application/x-ndjson
        application/x-patch application/x-php application/x-powershell application/x-protobuf application/x-rust
        application/x-scala application/x-sh application/x-sql application/x-subrip application/x-terraform
        application/x-toml application/x-yaml application/yaml
        """,
    ),
}
_MARKED_UP = frozenset(("text/rtf", "text/richtext"))
"""Media types of text that no model is shown as it is."""

_EXTENSIONS: Mapping[str, Kind] = {
    "pdf": Kind.PDF,
    "docx": Kind.DOCX,
    "xlsx": Kind.XLSX,
    **_all(Kind.CSV, "csv tsv iif"),
    **_all(
        Kind.TEXT,
        """
        asm astro awk bash bat c cc cfg clj cmake conf cpp cs css cxx dart def dic diff ejs eml erb erl ex exs go gradle
        graphql groovy h hbs hcl hh hpp hs htm html ics ifb in ini java jl js json json5 jsonl jsx kotlin ksh kt less
        lisp list log lua m markdown md mht mhtml mime mjs ndjson nws patch php pl properties proto ps1 pug py r rb rs
        rst s sass scala scss sh sql srt swift tex text tf toml ts tsx twig txt vbs vcf vtt xml yaml yml zsh
        """,
    ),
}


def _by_media_type(media_type: str) -> Kind | None:
    if found := _MEDIA_TYPES.get(media_type):
        return found
    return Kind.TEXT if media_type.startswith("text/") and media_type not in _MARKED_UP else None


def _by_name(filename: str) -> Kind | None:
    return _EXTENSIONS.get(filename.rpartition(".")[2].lower()) if "." in filename else None


_HEAD = 1024
"""How far into a file the mark of a PDF may stand."""


def _by_content(data: bytes) -> Kind | None:
    if b"%PDF-" in data[:_HEAD]:
        return Kind.PDF
    if not data.startswith(b"PK\x03\x04"):
        return None
    # The names of what is in a container stand in it as they are.
    if b"word/document.xml" in data:
        return Kind.DOCX
    return Kind.XLSX if b"xl/workbook.xml" in data else None
