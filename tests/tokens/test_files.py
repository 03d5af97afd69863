"""Files in a request: what they are, the text that is in them, and that none of them can do harm."""

import base64
import csv
import io
import random
import re
import resource
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgrpc.tokens import extraction, extraction_process
from convgrpc.tokens.extraction import Confinement, Extractor, Unreadable
from convgrpc.tokens.files import Document, Kind, document, kind, rendered, tokens_around

MEBIBYTE = 1 << 20
TYPES = {
    Kind.PDF: "application/pdf",
    Kind.DOCX: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    Kind.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    Kind.CSV: "text/csv",
    Kind.TEXT: "text/plain",
}
IN_PROCESSES = [Kind.PDF, Kind.DOCX, Kind.XLSX]


def pdf(*pages: bytes, tree: bytes = b"", trailer: bytes = b"", objects: tuple[bytes, ...] = ()) -> bytes:
    """A PDF of pages, each of which is what its stream has after its dictionary begins."""
    first = 3 + len(objects) + 1
    kids = b" ".join(b"%d 0 R" % (first + 2 * number) for number in range(len(pages)))
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        tree or b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *objects,
    ]
    for number, page in enumerate(pages):
        at = b"/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R" % (
            first + 2 * number + 1
        )
        bodies += [b"<</Type/Page%s>>" % at, page]
    parts, offsets, length = [b"%PDF-1.4\n"], [], 9
    for number, body in enumerate(bodies, 1):
        offsets.append(length)
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, body))
        length += len(parts[-1])
    entries = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(bodies) + 1
    xref = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, entries)
    end = b"trailer\n<</Root 1 0 R/Size %d%s>>\nstartxref\n%d\n%%%%EOF" % (size, trailer, length)
    return b"".join([*parts, xref, end])


def shown(*lines: str) -> bytes:
    """The stream of a page with lines of text."""
    text = "".join(f"({line}) Tj 0 -20 Td " for line in lines)
    content = f"BT /F 12 Tf 50 700 Td {text}ET".encode()
    return b"<</Length %d>>stream\n%s\nendstream" % (len(content), content)


def packed(content: bytes) -> bytes:
    """The stream of a page, compressed."""
    data = zlib.compress(content, 1)
    return b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(data), data)


@cache
def word() -> bytes:
    """Paragraphs, a table with a table in it, and a header, which is no part of the text."""
    made = docx.Document()
    made.add_heading("Offsite", 0)
    made.add_paragraph("In Reykjavik,\tin ").add_run("June").bold = True
    table = made.add_table(2, 2)
    for row, column, text in ((0, 0, "seats"), (0, 1, "240"), (1, 0, "owner")):
        table.cell(row, column).text = text
    table.cell(1, 1).add_table(1, 1).cell(0, 0).text = "Platform"
    made.add_paragraph("Café 😀")
    made.sections[0].header.paragraphs[0].text = "Draft"
    return saved(made)


@cache
def book() -> bytes:
    """Two sheets: one with values of all kinds, and one that begins further down."""
    made = openpyxl.Workbook()
    made.active.append(["label", "value", None, 1, 2.5, True, 'x,"y"\nz', None])
    made.active.cell(3, 1, "status")
    made.active.cell(9, 9).font = openpyxl.styles.Font(bold=True)
    made.create_sheet("more").cell(2, 2, "é")
    return saved(made)


def saved(made: Any) -> bytes:
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def changed(container: bytes, files: dict[str, bytes]) -> bytes:
    """A container in which some files are others, or are there as well."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(container)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in {**{name: old.read(name) for name in old.namelist()}, **files}.items():
            new.writestr(name, data)
    return out.getvalue()


DOCUMENT = "word/document.xml"
SHEET = "xl/worksheets/sheet1.xml"
STRINGS = "xl/sharedStrings.xml"
CONTENT_TYPES = "[Content_Types].xml"


def inside(container: bytes, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(container)) as archive:
        return archive.read(name).decode()


def with_strings(strings: str) -> bytes:
    """A workbook whose strings are in a file of their own."""
    of_strings = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    types = inside(book(), CONTENT_TYPES)
    types = types.replace("</Types>", f'<Override PartName="/{STRINGS}" ContentType="{of_strings}"/></Types>')
    return changed(book(), {CONTENT_TYPES: types.encode(), STRINGS: strings.encode()})


READABLE = {
    Kind.PDF: pdf(shown("Hello, world!")),
    Kind.DOCX: word(),
    Kind.XLSX: book(),
    Kind.CSV: b"a,b\n1,2\n",
    Kind.TEXT: b"Hello",
}


def of(kind: Kind, data: bytes) -> Document:
    return Document(TYPES[kind], "", data)


def pages(kind: Kind, data: bytes, **limits: Any) -> list[str]:
    with Extractor(Confinement(**limits)) as extractor:
        return extractor.pages(of(kind, data))


def outcome(kind: Kind, data: bytes, **limits: Any) -> list[str] | str:
    """The pages of a document, or why it cannot be read; this or that in time."""
    started = time.monotonic()
    try:
        return pages(kind, data, **limits)
    except Unreadable as unreadable:
        return unreadable.reason
    finally:
        assert time.monotonic() - started < limits.get("timeout", 10) + 1


@pytest.fixture(autouse=True)
def _no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **more: Any) -> None:
            started.append(self)
            super().__init__(*args, **more)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    yield
    assert all(process.returncode is not None for process in started)


def run_with(monkeypatch: pytest.MonkeyPatch, setup: str) -> None:
    """Has the process do something before it does anything else."""
    path = str(Path(extraction_process.__file__).resolve())
    code = f"import os, runpy, sys, time, types\n{setup}\nrunpy.run_path({path!r}, run_name='__main__')"
    monkeypatch.setattr(extraction, "COMMAND", (sys.executable, "-I", "-c", code))


def replace_pdfium(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    """Has the process do something when it is about to read a PDF."""
    setup = "fake = types.ModuleType('pypdfium2')\nfake.PdfiumError = ZeroDivisionError\n"
    run_with(monkeypatch, f"{setup}fake.PdfDocument = lambda data: {expression}\nsys.modules['pypdfium2'] = fake\n")


# What a file is.


def test_a_file_comes_as_a_data_url_or_as_bare_base64() -> None:
    """The media type is without its parameters and in small letters."""
    data = base64.b64encode(b"\x00\xff?>").decode()
    assert document(f"data:application/pdf;base64,{data}", "a.pdf") == ("application/pdf", "a.pdf", b"\x00\xff?>")
    assert document(f"DATA:Text/CSV; charset=utf-8; Base64,{data}", "") == ("text/csv", "", b"\x00\xff?>")
    assert document("data:;base64,AP8%2FPg%3D%3D", "") == ("", "", b"\x00\xff?>")
    assert document(data, "a") == ("", "a", b"\x00\xff?>")


@pytest.mark.parametrize("head", ["", "data:application/pdf;base64,"])
@pytest.mark.parametrize("data", ["AP8/Pg==\n", "AP8/\nPg==", "AP8/\r\nPg==\r\n", "\nA\nP8/P\ng=\n="])
def test_base64_with_line_breaks_is_a_file(head: str, data: str) -> None:
    found = document(head + data, "a.pdf")
    assert found
    assert found.data == b"\x00\xff?>"


def test_much_base64_is_decoded_in_slices() -> None:
    """A large file is whole, and a call that has ended stops the decoding."""
    data = random.Random(1).randbytes(1 << 20)
    text = base64.encodebytes(data).decode()
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1

    for url in (text, "data:;base64," + text.replace("\n", "%0A").replace("=", "%3D"), "data:;base64," + quoted(text)):
        calls = 0
        assert document(url, "a", check) == ("", "a", data)
        assert calls > 20
    assert document("QQ==QUJD", "a") is None


def quoted(text: str) -> str:
    return "".join(f"%{ord(character):02x}" for character in text)


def test_line_breaks_of_a_data_url_may_be_percent_encoded() -> None:
    assert document("data:;base64,AP8%2F%0D%0APg%3D%3D%0A", "") == ("", "", b"\x00\xff?>")


@pytest.mark.parametrize(
    "data",
    [
        "%PDF",
        "AAAA\tAAAA",
        "AAAA\x0bAAAA",
        "AAAA\u2028AAAA",
        "AAA",
        "A===",
        "é===",
        "AAAA AAAA",
        "data:text/plain,hello",
        "data:",
        "data:;base64,A",
    ],
)
def test_what_is_no_base64_is_no_file(data: str) -> None:
    assert document(data, "a.txt") is None


CONTAINED = b"PK\x03\x04...."


@pytest.mark.parametrize(
    ("media_type", "filename", "data", "expected"),
    [
        ("application/pdf", "a.docx", b"", Kind.PDF),
        (TYPES[Kind.DOCX], "", b"", Kind.DOCX),
        (TYPES[Kind.XLSX], "", b"", Kind.XLSX),
        ("text/csv", "a.txt", b"", Kind.CSV),
        ("text/tab-separated-values", "", b"", Kind.CSV),
        ("text/x-python", "", b"", Kind.TEXT),
        ("application/json", "", b"", Kind.TEXT),
        ("text/rtf", "", b"", None),
        ("application/octet-stream", "a.PDF", b"", Kind.PDF),
        ("application/vnd.ms-excel", "a.csv", b"", Kind.CSV),
        ("", "a.b.xlsx", b"", Kind.XLSX),
        ("", "notes.md", b"%PDF-1.4", Kind.TEXT),
        ("", "", b"\n%PDF-1.4", Kind.PDF),
        ("", "unknown", CONTAINED + b"word/document.xml", Kind.DOCX),
        ("", "a.zip", CONTAINED + b"xl/workbook.xml", Kind.XLSX),
        ("", "", CONTAINED, None),
        ("", "md", b"hello", None),
        ("application/vnd.ms-powerpoint", "a.ppt", b"", None),
        ("", "", b"", None),
    ],
)
def test_a_file_is_what_its_type_says_else_its_name_else_its_bytes(
    media_type: str, filename: str, data: bytes, expected: Kind | None
) -> None:
    assert kind(Document(media_type, filename, data)) is expected


@pytest.mark.parametrize("which", [Kind.PDF, Kind.DOCX, Kind.TEXT])
def test_a_model_reads_pages_with_their_numbers(which: Kind) -> None:
    texts = ["<PARSED TEXT FOR PAGE: 1 / 2>\na", "<PARSED TEXT FOR PAGE: 2 / 2>\n"]
    assert rendered(which, ["a", ""]) == texts
    assert tokens_around(which, ["a", ""]) == 4


@pytest.mark.parametrize("which", [Kind.CSV, Kind.XLSX])
def test_a_model_reads_sheets_as_they_are(which: Kind) -> None:
    """With something around each."""
    assert rendered(which, ["a,b", ""]) == ["a,b", ""]
    assert tokens_around(which, ["a,b", ""]) == 4 + 2 * 32


# The text that is in it.


def test_the_text_of_a_pdf_is_that_of_each_page() -> None:
    """A page without text is there as well."""
    assert pages(Kind.PDF, pdf(shown("Apples are tasty", "by Hadley"), shown(), shown("The end."))) == [
        "Apples are tasty\nby Hadley",
        "",
        "The end.",
    ]


def test_the_text_of_a_docx_is_one_page() -> None:
    """Of paragraphs and tables, in their order."""
    text = "Offsite\nIn Reykjavik,\tin June\nseats\t240\nowner\t\nPlatform\n\nCafé 😀"
    assert pages(Kind.DOCX, word()) == [text]


def test_the_text_of_a_docx_is_read_out_of_content_controls() -> None:
    """Which are where there are forms and tables of contents."""
    body = inside(word(), DOCUMENT)
    held = body.replace("<w:p>", "<w:sdt><w:sdtContent><w:p>", 1).replace("</w:p>", "</w:p></w:sdtContent></w:sdt>", 1)
    assert pages(Kind.DOCX, changed(word(), {DOCUMENT: held.encode()})) == pages(Kind.DOCX, word())


def test_the_text_of_an_xlsx_is_csv_for_each_sheet() -> None:
    """Up to the last cell and row in which there is something."""
    assert pages(Kind.XLSX, book()) == ['label,value,,1,2.5,True,"x,""y""\nz"\n\nstatus', "\n,é"]


def test_text_and_csv_are_what_they_are() -> None:
    """But for the mark that some programs put before them."""
    assert pages(Kind.TEXT, "\ufeffdéjà\r\nvu\n".encode()) == ["déjà\r\nvu\n"]
    assert pages(Kind.CSV, b'a,"b\n"\n') == ['a,"b\n"\n']
    assert pages(Kind.TEXT, b"") == [""]


def test_text_and_csv_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "COMMAND", ())
    assert pages(Kind.CSV, b"a,b") == ["a,b"]


def test_a_thousand_rows_are_read_of_a_sheet() -> None:
    """A cell of several lines is in one row."""
    made = openpyxl.Workbook()
    for number in range(1001):
        made.active.append([f"{number}\n"])
    text = "".join(f'"{number}\n"\n' for number in range(1000))
    assert pages(Kind.XLSX, saved(made)) == [text.rstrip("\n")]
    assert pages(Kind.CSV, (text + "1000\n").encode()) == [text]
    assert len(list(csv.reader(io.StringIO(text)))) == 1000


def test_several_are_read_at_once() -> None:
    """In no process of each other's."""
    documents = [pdf(shown(str(number))) for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(partial(pages, Kind.PDF), documents)) == [[str(number)] for number in range(6)]


# What cannot be read.


def test_a_file_of_an_unknown_type_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="no text can be read from a file of this type"):
        Extractor().pages(Document("image/png", "a.png", b""))


@pytest.mark.parametrize("which", [Kind.TEXT, Kind.CSV])
def test_text_in_another_encoding_is_unreadable(which: Kind) -> None:
    assert outcome(which, b"caf\xe9") == "the text is not in UTF-8"


def test_an_encrypted_pdf_is_unreadable() -> None:
    key = b"00" * 32
    encrypt = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<00><00>]" % (key, key)
    assert outcome(Kind.PDF, pdf(shown("secret"), trailer=encrypt)) == "the PDF is encrypted"


@pytest.mark.parametrize("which", [Kind.DOCX, Kind.XLSX])
def test_an_encrypted_container_is_unreadable(which: Kind) -> None:
    """Whether it is another kind of container, as Office makes it, or a file in it is encrypted."""
    office = b"\xd0\xcf\x11\xe0" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    marked = bytearray(READABLE[which])
    at = marked.find(b"PK\x01\x02")
    marked[at + 8] |= 1
    assert outcome(which, office) == outcome(which, bytes(marked)) == f"the {which.upper()} is encrypted"


@pytest.mark.parametrize("which", IN_PROCESSES)
@pytest.mark.parametrize("part", [0, 0.5])
def test_a_part_of_a_document_is_unreadable(which: Kind, part: float) -> None:
    data = READABLE[which]
    assert outcome(which, data[: int(len(data) * part)]) == f"the {which.upper()} is broken"


ANY = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda data, at, length, more: data[: int(at * len(data))] + more + data[int(at * len(data)) + length :],
        st.sampled_from(list(READABLE.values())),
        st.floats(0, 1),
        st.integers(0, 40),
        st.binary(max_size=40),
    ),
)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(Kind), ANY)
def test_any_bytes_are_pages_or_unreadable(which: Kind, data: bytes) -> None:
    assert isinstance(outcome(which, data), list | str)


@pytest.mark.parametrize(
    ("which", "module", "named"),
    [
        (Kind.PDF, "pypdfium2", "'pypdfium2'"),
        (Kind.DOCX, "docx", "'python-docx'"),
        (Kind.XLSX, "openpyxl", "'openpyxl' and 'defusedxml'"),
        (Kind.XLSX, "defusedxml", "'openpyxl' and 'defusedxml'"),
    ],
)
def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch, which: Kind, module: str, named: str) -> None:
    run_with(monkeypatch, f"sys.modules[{module!r}] = None")
    assert outcome(which, READABLE[which]) == f"needs {named}: pip install 'convgrpc[files]'"


# What could do harm.


def test_more_pages_than_allowed_are_unreadable() -> None:
    made = openpyxl.Workbook()
    made.create_sheet()
    assert outcome(Kind.PDF, pdf(shown(), shown()), pages=1) == "more than 1 pages"
    assert outcome(Kind.XLSX, saved(made), pages=1) == "more than 1 sheets"
    assert outcome(Kind.PDF, pdf(*[b"<<>>"] * 10_000)) == "more than 1000 pages"


@pytest.mark.parametrize("which", Kind)
def test_more_text_than_allowed_is_unreadable(which: Kind) -> None:
    assert re.fullmatch("more than .* MiB of text", str(outcome(which, READABLE[which], text=4)))


def test_a_pdf_has_as_many_pages_as_there_are() -> None:
    """Whatever it claims."""
    assert outcome(Kind.PDF, pdf(shown("one"), tree=b"<</Type/Pages/Kids[4 0 R]/Count 2000000000>>")) == ["one"]


def test_a_page_tree_that_is_deep_or_a_ring_is_broken() -> None:
    depth = 20_000
    nested = tuple(b"<</Type/Pages/Kids[%d 0 R]/Count 1>>" % (number + 5) for number in range(depth))
    deep = pdf(shown("deep"), tree=b"<</Type/Pages/Kids[4 0 R]/Count 1>>", objects=nested)
    ring = pdf(shown("ring"), tree=b"<</Type/Pages/Kids[2 0 R]/Count 1>>")
    assert outcome(Kind.PDF, deep) == outcome(Kind.PDF, ring) == "the PDF is broken"


@pytest.mark.parametrize("content", [b" ", b"(harm) Tj ", b"q "])
def test_a_stream_that_unpacks_to_very_much_does_no_harm(content: bytes) -> None:
    bomb = pdf(packed(b"BT /F 12 Tf " + content * (64 * MEBIBYTE // len(content))))
    assert len(bomb) < MEBIBYTE
    told: list[Any] = []
    assert flat(lambda: told.append(outcome(Kind.PDF, bomb, memory=128 * MEBIBYTE)))
    assert told == ["the PDF is broken, or takes more than 128 MiB of memory"]


def flat(act: Callable[[], object]) -> bool:
    """Whether something happens without this process growing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    act()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


@pytest.mark.parametrize("which", [Kind.DOCX, Kind.XLSX])
def test_a_container_that_unpacks_to_very_much_is_unreadable(which: Kind) -> None:
    """Whether by how much its files are compressed, their size, or their number."""
    told = f"the {which.upper()} unpacks to more than is allowed"
    high = changed(READABLE[which], {"filler": bytes(8 * MEBIBYTE)})
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(10_001):
            archive.writestr(str(number), b"")
    declared = bytearray(READABLE[which])
    at = declared.find(b"PK\x01\x02")
    declared[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    assert [outcome(which, data) for data in (high, many.getvalue(), bytes(declared))] == [told] * 3


@pytest.mark.parametrize("which", [Kind.DOCX, Kind.XLSX])
def test_a_container_in_a_container_is_not_opened(which: Kind) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", bytes(16 * MEBIBYTE))
    out = io.BytesIO(READABLE[which])
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("inner.zip", inner.getvalue())
    assert pages(which, out.getvalue()) == pages(which, READABLE[which])


@pytest.mark.parametrize("claimed", ["A1:XFD1048576", "A1"])
def test_a_sheet_is_as_large_as_it_is(claimed: str) -> None:
    """Whatever it claims."""
    claims = re.sub('<dimension ref="[^"]*"', f'<dimension ref="{claimed}"', inside(book(), SHEET))
    assert claims != inside(book(), SHEET)
    assert pages(Kind.XLSX, changed(book(), {SHEET: claims.encode()})) == pages(Kind.XLSX, book())


def test_a_sheet_with_cells_far_apart_does_no_harm() -> None:
    row = '<row r="{0}"><c r="XFD{0}"><v>1</v></c></row>'
    rows = "".join(map(row.format, (1, 2, 999, 1000, 1048576, 10**12)))
    sheet = f'<worksheet xmlns="{SPREADSHEET}"><sheetData>{rows}</sheetData></worksheet>'
    found = pages(Kind.XLSX, changed(book(), {SHEET: sheet.encode()}))[0]
    assert found == "\n".join(["," * 16383 + "1"] * 2 + [""] * 996 + ["," * 16383 + "1"] * 2)


LAUGHS = "<!DOCTYPE a [<!ENTITY a0 'ha'>{}]>".format(
    "".join(f"<!ENTITY a{number} '{f'&a{number - 1};' * 10}'>" for number in range(1, 10))
)
FILE = "<!DOCTYPE a [<!ENTITY a9 SYSTEM 'file:///etc/passwd'>]>"


ENTITIES = pytest.mark.parametrize("declared", [pytest.param(LAUGHS, id="laughs"), pytest.param(FILE, id="file")])


@ENTITIES
def test_entities_in_a_docx_are_not_expanded(declared: str) -> None:
    """Either they are left out, or the whole is broken."""
    names = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = '<w:body><w:p w:x="{}"><w:r><w:t>Hello{}</w:t></w:r></w:p></w:body>'
    for at in ("", "&a9;"), ("&a9;", ""):
        bomb = f'{declared}<w:document xmlns:w="{names}">{body.format(*at)}</w:document>'
        assert outcome(Kind.DOCX, changed(word(), {DOCUMENT: bomb.encode()})) in (["Hello"], "the DOCX is broken")


SPREADSHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


@ENTITIES
def test_an_xlsx_with_entities_is_broken(declared: str) -> None:
    bomb = f'{declared}<sst xmlns="{SPREADSHEET}"><si><t>&a9;</t></si></sst>'
    files = [with_strings(bomb), *(changed(book(), {name: bomb.encode()}) for name in (SHEET, "xl/workbook.xml"))]
    assert [outcome(Kind.XLSX, file) for file in files] == ["the XLSX is broken"] * 3


def test_an_xlsx_may_keep_its_strings_in_a_file_of_their_own() -> None:
    cell = '<row r="1"><c r="A1" t="s"><v>1</v></c></row>'
    strings = with_strings(f'<sst xmlns="{SPREADSHEET}"><si><t>no</t></si><si><t>yes</t></si></sst>')
    sheet = f'<worksheet xmlns="{SPREADSHEET}"><sheetData>{cell}</sheetData></worksheet>'
    assert pages(Kind.XLSX, changed(strings, {SHEET: sheet.encode()}))[0] == "yes"


@pytest.mark.parametrize(
    "expression",
    [
        "time.sleep(60)",
        "any(iter(int, 1))",
        "[os.write(1, b'') or time.sleep(0.01) for _ in iter(int, 1)]",
    ],
)
def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    replace_pdfium(monkeypatch, expression)
    assert outcome(Kind.PDF, b"", seconds=0.3) == "reading it took longer than 0.3 s"


def test_a_process_that_does_not_take_the_document_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "COMMAND", (sys.executable, "-I", "-c", "import time; time.sleep(60)"))
    assert outcome(Kind.PDF, bytes(MEBIBYTE), seconds=0.3) == "reading it took longer than 0.3 s"


def test_a_process_that_eats_memory_dies_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone."""
    replace_pdfium(monkeypatch, "[bytes(1 << 20) for _ in range(1 << 14)]")
    told: list[Any] = []
    assert flat(lambda: told.append(outcome(Kind.PDF, b"", memory=64 * MEBIBYTE)))
    assert told == ["reading it takes more than 64 MiB of memory"]


def test_a_process_that_crashes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for expression in ("os.abort()", "os.close(1) or time.sleep(60)"):
        replace_pdfium(monkeypatch, expression)
        assert outcome(Kind.PDF, bytes(MEBIBYTE)) == "the PDF is broken, or takes more than 512 MiB of memory"


def test_no_more_is_taken_from_a_process_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pdfium(monkeypatch, "[os.write(1, b'\\0\\1\\0\\0' + bytes(1 << 16)) for _ in iter(int, 1)]")
    assert flat(lambda: outcome(Kind.PDF, b"", text=MEBIBYTE))
    assert outcome(Kind.PDF, b"", text=MEBIBYTE) == "more than 1 MiB of text"
    replace_pdfium(monkeypatch, "os.write(1, bytes(400)) and os._exit(0)")
    assert outcome(Kind.PDF, b"", pages=50) == "more than 50 pages"


@pytest.mark.parametrize(
    "expression", ["open('/etc/passwd')", "open('/dev/null', 'w')", "__import__('socket').socket()"]
)
def test_a_process_opens_nothing(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    """Once it has the document."""
    replace_pdfium(monkeypatch, f"{expression} and os._exit(0)")
    assert outcome(Kind.PDF, b"") == "the PDF is broken"


def test_what_a_process_started_is_killed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system lets it start anything."""
    answers = "os.write(1, b'\\0\\0\\0\\x0a%010d\\xff\\xff\\xff\\xff\\0' % child) and os._exit(0)"
    replace_pdfium(monkeypatch, f"(child := os.fork()) and {answers} or os.close(1) or time.sleep(60)")
    found = outcome(Kind.PDF, b"")
    if isinstance(found, list):
        assert ends(int(found[0]))


def ends(pid: int) -> bool:
    """Whether a process is gone soon, or only waits to be asked how it ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_process_knows_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    replace_pdfium(monkeypatch, "os._exit(0 if 'OPENAI_API_KEY' in os.environ else 1)")
    assert outcome(Kind.PDF, b"")


def test_what_a_process_complains_of_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    replace_pdfium(monkeypatch, "os.write(2, b'oh') and 1 / 0")
    assert outcome(Kind.PDF, b"")
    assert capfd.readouterr() == ("", "")


def test_where_no_process_can_be_started_nothing_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "COMMAND", ("/nowhere",))
    assert outcome(Kind.PDF, b"") == "there is no process to read it in: No such file or directory"


def test_noise_does_no_harm_in_a_container() -> None:
    """Its files are what they are, in a container that is none the worse for it."""
    noise = random.Random(0).randbytes(20_000)
    assert outcome(Kind.DOCX, changed(word(), {DOCUMENT: noise})) == "the DOCX is broken"
    assert outcome(Kind.XLSX, changed(book(), {SHEET: noise})) == "the XLSX is broken"
