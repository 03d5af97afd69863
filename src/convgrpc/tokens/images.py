"""Images: how large one is, read from its first bytes, and how many tokens a model makes of that."""

import base64
import binascii
import io
import math
from typing import NamedTuple, Protocol

import imagesize

from convgrpc.v1.content_pb2 import ImageDetail
from convgrpc.v1.input_tokens_service_pb2 import EstimateReason

_HEAD = 1 << 16
_DATA = "data:"
_UNKNOWN = 512
"""Pixels in each direction of an image that cannot be seen."""


class Image(NamedTuple):
    """An image in a request: its size in pixels, the detail asked for, and the reason why its size is not known, if so."""

    width: int
    height: int
    detail: "ImageDetail.ValueType"
    reason: "EstimateReason.ValueType"


def image(url: str | None, detail: "ImageDetail.ValueType") -> Image:
    """Reads the size of an image from its data URL. What is elsewhere, or is no image, has none."""
    if not url or not url.startswith(_DATA):
        return Image(0, 0, detail, EstimateReason.ESTIMATE_REASON_IMAGE_OUT_OF_REACH)
    width, height = _size(url)
    seen = EstimateReason.ESTIMATE_REASON_UNSPECIFIED if width else EstimateReason.ESTIMATE_REASON_IMAGE_UNREADABLE
    return Image(width, height, detail, seen)


def _size(url: str) -> tuple[int, int]:
    data = url[url.find(",") + 1 :]
    # A photograph may have a smaller picture of itself before its size.
    for length in (_HEAD, len(data)):
        try:
            head = base64.b64decode(data[: length - length % 4] if length < len(data) else data, validate=True)
            width, height = imagesize.get(io.BytesIO(head))
        except (binascii.Error, ValueError, OverflowError):
            continue
        if width > 0 and height > 0:
            return int(width), int(height)
    return 0, 0


class Rule(Protocol):
    """How many tokens a model makes of an image."""

    def tokens(self, image: Image) -> int:
        """The tokens of an image; of one that cannot be seen, those of a square of a usual size."""


class Tiles(NamedTuple):
    """Squares of 512 pixels, after the image was made to fit."""

    base: int
    tile: int

    def tokens(self, image: Image) -> int:
        if image.detail == ImageDetail.IMAGE_DETAIL_LOW:
            return self.base
        width, height = _seen(image)
        scale = min(1, 2048 / max(width, height))
        scale = min(scale, 768 / min(width, height))
        return self.base + self.tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


class Patches(NamedTuple):
    """Squares of 32 pixels, as many as fit under a limit, each of which counts as some part of a token or more."""

    per_patch: float
    extra: int
    most: int = 1536

    def tokens(self, image: Image) -> int:
        width, height = _seen(image)
        patches = min(self.most, math.ceil(width / 32) * math.ceil(height / 32))
        return int(patches * self.per_patch) + self.extra


def _seen(image: Image) -> tuple[int, int]:
    return (image.width, image.height) if image.width and image.height else (_UNKNOWN, _UNKNOWN)
