"""Images: how large one is, read from its first bytes, and how many tokens a model makes of that."""

import io
import math
import re
from typing import NamedTuple, Protocol

import imagesize

from convgrpc.tokens.base64_text import decoded, unbroken
from convgrpc.v1.content_pb2 import IMAGE_DETAIL_LOW, ImageDetail
from convgrpc.v1.input_tokens_service_pb2 import (
    ESTIMATE_REASON_IMAGE_OUT_OF_REACH,
    ESTIMATE_REASON_IMAGE_UNREADABLE,
    ESTIMATE_REASON_UNSPECIFIED,
    EstimateReason,
)

_HEAD = 1 << 16
_DATA = "data:"
# Those that models take; others are no images to them.
_FORMATS = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL)
_MAX_SIDE = 2**31
_UNSEEN_URL = 400, 300
_UNSEEN_FILE = 640, 480
"""Sizes to assume of images that cannot be seen."""


class Image(NamedTuple):
    """An image in a request: its size in pixels, the detail asked for, and the reason why the size is assumed, if it
    is.
    """

    width: int
    height: int
    detail: "ImageDetail.ValueType"
    reason: "EstimateReason.ValueType"


def image(url: str, detail: "ImageDetail.ValueType") -> Image:
    """Reads the size of an image from its data URL. What is elsewhere, or is no image, is given a usual size."""
    if url[: len(_DATA)].lower() != _DATA:
        usual = _UNSEEN_URL if url else _UNSEEN_FILE
        return Image(*usual, detail, ESTIMATE_REASON_IMAGE_OUT_OF_REACH)
    if size := _size(url):
        return Image(*size, detail, ESTIMATE_REASON_UNSPECIFIED)
    return Image(*_UNSEEN_FILE, detail, ESTIMATE_REASON_IMAGE_UNREADABLE)


def _size(url: str) -> tuple[int, int] | None:
    data = url[url.find(",") + 1 :]
    # A photograph may have a smaller picture of itself before its size.
    for length in (_HEAD, len(data)):
        try:
            head = decoded(_whole_groups(data[:length]) if length < len(data) else data)
            if not _FORMATS.match(head):
                return None
            width, height = imagesize.get(io.BytesIO(head))
        except ValueError:
            continue
        if 1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE:
            return int(width), int(height)
    return None


def _whole_groups(text: str) -> str:
    """The start of a base64 text, cut where it can be decoded by itself."""
    text = unbroken(text)
    return text[: len(text) - len(text) % 4]


class Rule(Protocol):
    """How many tokens a model makes of an image."""

    def tokens(self, image: Image) -> int:
        """The tokens of an image."""


class Tiles(NamedTuple):
    """Squares of 512 pixels, after the image was made to fit."""

    base: int
    tile: int

    def tokens(self, image: Image) -> int:
        if image.detail == IMAGE_DETAIL_LOW:
            return self.base
        longer, shorter = max(image.width, image.height), min(image.width, image.height)
        scale = min(1, 2048 / longer)
        scale = min(scale, 768 / shorter)
        return self.base + self.tile * math.ceil(longer * scale / 512) * math.ceil(shorter * scale / 512)


class Patches(NamedTuple):
    """Squares of 32 pixels, as many as fit under a limit, each of which counts as some part of a token or more."""

    per_patch: float
    extra: int
    most: int = 1536

    def tokens(self, image: Image) -> int:
        return int(self._patches(image.width, image.height) * self.per_patch) + self.extra

    def _patches(self, width: int, height: int) -> int:
        patches = math.ceil(width / 32) * math.ceil(height / 32)
        if patches <= self.most:
            return patches
        # It is made smaller until it fits, and then so that one of its sides is of whole patches.
        scale = math.sqrt(32 * 32 * self.most / (width * height))
        across, down = width * scale / 32, height * scale / 32
        scale *= min(math.floor(across) / across if across >= 1 else 1, math.floor(down) / down if down >= 1 else 1)
        return min(self.most, math.ceil(width * scale / 32) * math.ceil(height * scale / 32))
