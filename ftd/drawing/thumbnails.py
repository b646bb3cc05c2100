"""A task's images, small, in a row for each label."""

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_LARGEST = 48  # pixels, of a side
_LOSSLESS = 32  # pixels: images of at most so many stay as they are
_LINE = 4096  # letters: Snakemake's report takes no texts with lines of more than 10,000
_GAP = 1 / 8  # of an image's width, between two


@dataclass(frozen=True)
class Strip:
    """Images of one label: their number, and one picture of them side by side, as an address."""

    label: str
    count: int
    source: str


@dataclass(frozen=True)
class Samples:
    """Images of a task.

    Attributes:
        task: its name.
        strips: a row for each label, in their order; of a task without labels, one.
        more: how many labels have no row.
    """

    task: str
    strips: Sequence[Strip]
    more: int = 0


def strip(label: str, images: np.ndarray) -> Strip:
    """One row of images, uint8 [N, 1 or 3, H, W]; larger ones are made smaller."""
    side = min(_LARGEST, max(images.shape[-2:]))
    gap = max(1, round(side * _GAP))
    whole = Image.new("RGBA", (len(images) * (side + gap) - gap, side))
    for place, pixels in enumerate(np.moveaxis(images, 1, -1)):
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        if max(picture.size) > side:
            picture.thumbnail((side, side))
        whole.paste(picture, (place * (side + gap), 0))
    content, lossless = io.BytesIO(), side <= _LOSSLESS
    whole.save(content, "WEBP", lossless=lossless, quality=80, method=4, exact=lossless)
    return Strip(label, len(images), data_uri(content.getvalue(), "image/webp"))


def data_uri(content: bytes, kind: str) -> str:
    """Content of a media type as an address that holds it, in lines, which browsers join."""
    lines = textwrap.wrap(base64.b64encode(content).decode(), _LINE)
    return "\n".join([f"data:{kind};base64,", *lines])
