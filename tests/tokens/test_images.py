"""Images: their size from their first bytes, and tokens from that."""

import base64
import builtins
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convgrpc.tokens.families import IMAGES
from convgrpc.tokens.images import Image, Rule, image
from convgrpc.v1.content_pb2 import ImageDetail
from convgrpc.v1.input_tokens_service_pb2 import EstimateReason

AUTO, LOW, HIGH = ImageDetail.IMAGE_DETAIL_AUTO, ImageDetail.IMAGE_DETAIL_LOW, ImageDetail.IMAGE_DETAIL_HIGH
SEEN = EstimateReason.ESTIMATE_REASON_UNSPECIFIED
UNREADABLE = EstimateReason.ESTIMATE_REASON_IMAGE_UNREADABLE
OUT_OF_REACH = EstimateReason.ESTIMATE_REASON_IMAGE_OUT_OF_REACH


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + b"\0" * 4


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b";"


def jpeg(width: int, height: int, metadata: int = 0) -> bytes:
    """With as many bytes of metadata as asked for before the size, in segments of up to 60 kB."""
    segments = [metadata] if metadata < 60_000 else [60_000] * (metadata // 60_000) + [metadata % 60_000]
    told = b"".join(b"\xff\xe1" + struct.pack(">H", size + 2) + b"x" * size for size in segments)
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    return b"\xff\xd8" + told + frame + b"\xff\xd9"


def webp(kind: bytes, payload: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk + b"\0" * 16


def webp_lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height))


def webp_lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def webp_extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", b"\0" * 4 + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3])


@pytest.mark.parametrize("make", [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (640, 480), (31, 2049)])
def test_a_size_is_read_from_the_first_bytes(make: object, width: int, height: int) -> None:
    """In each format that the API takes."""
    assert callable(make)
    assert image(url(make(width, height)), HIGH) == Image(width, height, HIGH, SEEN)


BREAKS = {
    "of Ruby": lambda text: "".join(f"{text[start : start + 60]}\n" for start in range(0, len(text), 60)),
    "of RFC 2045": lambda text: "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76)),
    "within groups": lambda text: "\n".join(text[start : start + 5] for start in range(0, len(text), 5)),
    "around": lambda text: f"\n\n{text}\r\n",
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("metadata", [0, 49_000, 100_000])
def test_base64_with_line_breaks_is_an_image(broken: Callable[[str], str], metadata: int) -> None:
    """Whether its size stands in its first bytes or far behind."""
    head, _, data = url(jpeg(4000, 3000, metadata), "image/jpeg").partition(",")
    assert image(f"{head},{broken(data)}", AUTO) == Image(4000, 3000, AUTO, SEEN)


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
def test_only_the_head_of_a_large_image_is_decoded(
    broken: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def decoded(text: str) -> bytes:
        lengths.append(len(text))
        return base64.b64decode(text)

    monkeypatch.setattr("convgrpc.tokens.images.decoded", decoded)
    head, _, data = url(png(3, 4) + bytes(3_000_000)).partition(",")
    assert image(f"{head},{broken(data)}", AUTO) == Image(3, 4, AUTO, SEEN)
    assert len(lengths) == 1
    assert lengths[0] <= 1 << 16
    assert lengths[0] % 4 == 0


@pytest.mark.parametrize("character", [" ", "\t", "\x0b", "\u2028", "-", "_", "\0"])
def test_base64_with_other_characters_is_no_image(character: str) -> None:
    head, _, data = url(png(3, 4)).partition(",")
    assert image(f"{head},{data[:8]}{character}{data[8:]}", AUTO).reason == UNREADABLE


@pytest.mark.parametrize("metadata", [1_000, 49_000, 70_000, 100_000, 3_000_000])
def test_a_size_is_found_behind_metadata(metadata: int) -> None:
    """A photograph has a smaller picture of itself before its own size."""
    assert image(url(jpeg(4000, 3000, metadata), "image/jpeg"), AUTO) == Image(4000, 3000, AUTO, SEEN)


def test_the_type_that_is_told_does_not_matter() -> None:
    """The bytes do."""
    assert image(url(png(3, 4), "text/plain"), AUTO) == image(url(png(3, 4)), AUTO) == Image(3, 4, AUTO, SEEN)


@pytest.mark.parametrize(
    "data",
    [
        "data:",
        "data:image/png",
        "data:image/png;base64,",
        "data:image/png;base64,====",
        "data:image/png;base64,iVBORw0KGgo",
        "data:image/png;base64,é",
        url(png(3, 4))[:-9],
        url(b"ferns"),
        url(png(0, 4)),
        url(png(4, 0)),
        url(gif(0, 0)),
        url(jpeg(3, 4)[:-12]),
        url(webp(b"VP8?", b"\0" * 20)),
        url(b'<svg width="9" height="0.5"></svg>'),
    ],
)
def test_what_is_no_image_counts_as_one_of_a_usual_size(data: str) -> None:
    """Broken data, other data, and images of no size."""
    found = image(data, AUTO)
    assert found.reason == UNREADABLE
    assert 256 <= found.width <= 1024
    assert 256 <= found.height <= 1024


@pytest.mark.parametrize(
    "elsewhere",
    [
        "",
        "https://ferns.example/a.png",
        "http://127.0.0.1:1/a",
        "file:///etc/hostname",
        "/etc/hostname",
        "fern.png",
    ],
)
def test_what_is_elsewhere_is_never_opened(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither addresses nor paths."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    for owner, name in ((builtins, "open"), (os, "open"), (socket, "socket"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refuse)
    found = image(elsewhere, LOW)
    monkeypatch.undo()
    assert found[2:] == (LOW, OUT_OF_REACH)
    assert all(256 <= length <= 1024 for length in found[:2])


@pytest.mark.parametrize("text", ["/etc/hostname", "http://127.0.0.1:1/a.png", "https://ferns.example"])
def test_what_is_in_a_data_url_is_never_a_path(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it spells one."""
    opened: list[object] = []
    monkeypatch.setattr("imagesize.imagesize.urlopen", opened.append)
    monkeypatch.setattr(builtins, "open", lambda *_, **__: opened.append(text))
    found = [image(each, AUTO) for each in (f"data:,{text}", f"data:image/png;base64,{text}", url(text.encode()))]
    monkeypatch.undo()
    assert [each.reason for each in found] == [UNREADABLE] * 3
    assert opened == []


FITTED = [
    # As recorded: 640 by 480.
    ("tiles-85", 640, 480, AUTO, 425),
    ("tiles-2833", 640, 480, AUTO, 14167),
    ("tiles-70", 640, 480, AUTO, 350),
    # One tile, and one pixel more.
    ("tiles-85", 512, 512, HIGH, 85 + 170),
    ("tiles-85", 513, 512, HIGH, 85 + 2 * 170),
    ("tiles-85", 1, 1, HIGH, 85 + 170),
    # Made to fit: 2048 by 1024, then 1536 by 768.
    ("tiles-85", 4096, 2048, HIGH, 85 + 6 * 170),
    # 768 by 768.
    ("tiles-85", 1024, 1024, HIGH, 85 + 4 * 170),
    # 2048 by 1.
    ("tiles-85", 2**31, 1, HIGH, 85 + 4 * 170),
    ("tiles-85", 2**31, 2**31, HIGH, 85 + 4 * 170),
    *((f"tiles-{base}", 4096, 2048, LOW, base) for base in (85, 75, 70, 65, 2833)),
    # As recorded, but for one.
    ("patches-1.2", 60, 30, AUTO, 4),
    ("patches-1.2", 240, 278, AUTO, 88),
    ("patches-1.2", 32, 32, AUTO, 1 + 2),
    ("patches-1.2", 33, 32, AUTO, 2 + 2),
    # No more than 1536 patches.
    ("patches-1.5", 1536, 1024, HIGH, 2304),
    ("patches-1.5", 1800, 2400, HIGH, 2178),
    ("patches-1.5", 2**31, 2**31, HIGH, 2281),
]


@pytest.mark.parametrize(("rule", "width", "height", "detail", "tokens"), FITTED)
def test_a_rule_makes_tokens_of_a_size(
    rule: str, width: int, height: int, detail: "ImageDetail.ValueType", tokens: int
) -> None:
    """Tiles of what was made to fit, and patches up to a limit; of little detail, the base alone."""
    assert IMAGES[rule].tokens(Image(width, height, detail, SEEN)) == tokens


RULES = [pytest.param(rule, id=name) for name, rule in IMAGES.items()]


@pytest.mark.parametrize("rule", RULES)
def test_an_image_that_claims_to_be_huge_costs_no_more_than_a_large_one(rule: Rule) -> None:
    """Nothing of its size is made."""
    found = image(url(png(2**31, 2**31)), HIGH)
    assert found == Image(2**31, 2**31, HIGH, SEEN)
    assert rule.tokens(found) == rule.tokens(Image(4096, 4096, HIGH, SEEN))


HEADS = [
    *(make(3, 4) for make in (png, gif, jpeg, webp_lossy, webp_lossless, webp_extended)),
    *(b"<svg width=", b"<?xml version='1.0'?><svg height=", b"II*\0\x08\0\0\0", b"MM\0*", b"BM", b"P6\n", b"P5 3 "),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x18ftypavif\0\0\0\0", b"\0\0\0\x18ftypheic", b"8BPS", b"\0\0\1\0"),
]
BYTES = st.binary(max_size=80) | st.builds(
    lambda head, cut, more: head[:cut] + more, st.sampled_from(HEADS), st.integers(0, 40), st.binary(max_size=60)
)
DATA_URLS = st.one_of(
    BYTES.map(url),
    st.text().map("data:{}".format),
    st.text().map("data:image/png;base64,{}".format),
    st.text(st.sampled_from("iVBORw0KGgoAAAANSUhEUg=+/,\n ")).map("data:image/png;base64,{}".format),
)


@settings(deadline=None, max_examples=400)
@given(DATA_URLS, st.sampled_from(ImageDetail.values()))
@example(url(b'<svg width="%s" height="3"></svg>' % (b"9" * 400)), AUTO)
@example(url(b"P6\n%s 3 255\n" % (b"9" * 400)), AUTO)
def test_any_data_url_is_some_number_of_tokens(data: str, detail: "ImageDetail.ValueType") -> None:
    """Whatever is in it."""
    found = image(data, detail)
    for rule in IMAGES.values():
        assert 0 < rule.tokens(found) < 100_000


def seconds(data: str) -> float:
    started = time.process_time()
    image(data, AUTO)
    return time.process_time() - started


def test_a_size_is_read_in_time_that_grows_with_the_data() -> None:
    """Also where a size has more digits than any has."""
    digits = b"9" * 250_000
    assert seconds(url(b"P6\n" + digits)) < 20 * seconds(url(png(3, 4) + digits)) + 0.1
