"""Decoding a data set's images into one array of the experiment's shape."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import ImageOps
from PIL.Image import Image as Picture
from PIL.Image import fromarray
from PIL.Image import new as new_image

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.runtime.progress import progress
from ftd.tasks.annotations import Annotations
from ftd.tasks.cut import strata_of
from ftd.tasks.foreign import named
from ftd.tasks.frames import Frame, New
from ftd.tasks.loaders import DEEP, Annotation, remember_depth
from ftd.tasks.loaders.turned import check_upright, turn_of

_GREY = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class Decoded:
    """What decoding found besides the pixels.

    Attributes:
        annotations: class numbers, int64 [N], or arrays of numbers of one shape, [N, …], of the
            first one's type; ``None``: frames without class numbers.
        prints: int64 [N], equal where images are; other ones in every process.
        noted: what was done to how many images, such as turning them upright.
        modalities: of frames, [N, …] by name, as of ``ftd.tasks.frames.Values``.
        kinds: of these, by name.
        groups: of frames, int64 [N], equal where two may not be in two parts; ``None``: no frames
            have groups.
    """

    annotations: np.ndarray | None
    prints: np.ndarray
    noted: Counter[str]
    modalities: dict[str, np.ndarray]
    kinds: dict[str, str]
    groups: np.ndarray | None

    @property
    def labels(self) -> np.ndarray | None:
        """The class numbers, if there are any."""
        plain = self.annotations
        return plain if plain is not None and plain.ndim == 1 else None

    @property
    def strata(self) -> np.ndarray:
        """What a cut keeps in proportion, int64 [N]."""
        if self.annotations is None:
            return np.zeros(len(self.prints), np.int64)
        return strata_of(self.annotations)


def decode(
    name: str,
    pairs: Iterable[tuple[Picture | np.ndarray, Annotation]],
    images: np.ndarray,
    settings: Dataset,
    new: New = np.empty,
) -> Decoded:
    """Fill ``images`` uint8 [N, C, H, W] with decoded pictures of data set ``name``.

    There are as many pairs as ``images`` has rows.

    Args:
        new: makes the arrays of modalities.

    Raises:
        UserError: an image that does not fit or is none, annotations that are no numbers or of
            different shapes or types, frames that differ in what they have or lie on their side,
            or 16-bit images that use a small part of their range.
    """
    prints = np.empty(len(images), np.int64)
    found = Annotations(len(images), images.shape[-1], settings.fit, new)
    upright = Upright(settings.background)
    for row, (picture, annotation) in enumerate(progress(pairs, f"decoding {name}", len(images))):
        where = f"data set {name}, image {row}"
        with named(f"{where}: cannot be read"):
            picture = _picture(picture, where)
            if isinstance(annotation, Frame) and annotation.modalities:
                check_upright(picture)
            seen = _of_mode(picture, upright, len(images[row]), where)
            images[row] = _pixels(seen, images.shape[1:], settings.fit, where)
            found.add(row, annotation, seen.size, where)
        prints[row] = hash(images[row].tobytes())
    upright.check_range(name)
    plain = found.plain
    if plain is None and not found.modalities:
        plain = np.empty(0, np.int64)
    groups = np.unique(found.groups, return_inverse=True)[1] if found.groups else None
    return Decoded(plain, prints, upright.noted, found.modalities, found.kinds, groups)


class Upright:
    """Turns a picture into what it is meant to show: upright, of 8 bits, without transparency.

    The orientation is EXIF's. Of 16 bits of grey the upper 8 stay, as of 16 bits of colour when
    Pillow reads them. Whatever makes pixels transparent (an alpha channel, a palette's, a colour
    that stands for nothing), they are put on one background.

    Args:
        background: ``white``, ``black`` or ``#rrggbb``.

    Attributes:
        noted: what was done to how many pictures.
    """

    def __init__(self, background: str):
        self.background = background
        self.noted: Counter[str] = Counter()
        self._highest = -1  # of all 16-bit pixels, after they became 8 bits

    def __call__(self, picture: Picture) -> Picture:
        """The picture itself where there is nothing to do; else RGB, or L."""
        if (turn := turn_of(picture)) is not None:
            picture = picture.transpose(turn)
            self.noted["turned upright"] += 1
        if picture.mode.startswith("I;16"):
            picture = self._of_8_bits(picture)
        elif DEEP in picture.info:
            self._was_deep(picture)
        return self._on_background(picture) if _may_be_transparent(picture) else picture

    def _of_8_bits(self, picture: Picture) -> Picture:
        deep = np.asarray(picture)
        shown = fromarray((deep >> 8).astype(np.uint8))
        if (clear := picture.info.get("transparency")) is not None:
            shown.putalpha(fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
        self._highest = max(self._highest, int(deep.max(initial=0)))
        self.noted["16 bits, the upper 8 kept"] += 1
        return shown

    def _was_deep(self, picture: Picture) -> None:
        """Colours of which Pillow has kept the upper 8 bits: the lower ones are not known."""
        colours = picture.convert("RGB").getextrema()
        self._highest = max(self._highest, *((high << 8) + 255 for _, high in colours))
        self.noted["16 bits, the upper 8 kept"] += 1

    def _on_background(self, picture: Picture) -> Picture:
        if picture.mode == "La":  # Pillow has no way from it to RGBA
            picture = picture.convert("LA")
        seen = picture.convert("RGBA")
        alpha = seen.getchannel("A")
        self.noted[f"transparent, put on {self.background}"] += alpha.getextrema()[0] < 255
        canvas = new_image("RGB", seen.size, self.background)
        canvas.paste(seen, mask=alpha)
        return canvas

    def check_range(self, name: str) -> None:
        """Raises a ``UserError`` if 16-bit pictures use fewer bits: they would be nearly black."""
        if 0 <= self._highest < 1 << 15:
            raise UserError(
                f"data set {name}: no 16-bit image has a value above {self._highest}, of 65535 "
                "that it could have; convert them to 8 bits, by the range that they use"
            )


def _may_be_transparent(picture: Picture) -> bool:
    return picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info


def _picture(found: object, where: str) -> Picture:
    if isinstance(found, np.ndarray):
        if found.dtype.kind == "u" and found.dtype.itemsize == 2:  # their range is not known
            raise UserError(f"{where}: uint16 pixels; convert the images to 8 bits a channel")
        return fromarray(found)
    if not isinstance(found, Picture):
        raise UserError(
            f"{where}: expected a PIL image or a uint8 array, got {type(found).__name__}"
        )
    remember_depth(found)
    return found


def _of_mode(picture: Picture, upright: Upright, channels: int, where: str) -> Picture:
    """One picture as it is meant to be seen, of mode L or RGB, or an error that says why not."""
    if picture.mode == "I" and picture.format == "PPM":  # 16 bits, whatever a file's range was
        picture = fromarray(np.asarray(picture).astype(np.uint16))
    if picture.mode in ("I", "F"):
        raise UserError(f"{where}: {picture.mode} pixels; convert the images to 8 bits a channel")
    if channels == 1 and not is_grey(picture):
        raise UserError(f"{where}: a colour image; set image.channels to 3")
    return upright(picture).convert("L" if channels == 1 else "RGB")


def is_grey(picture: Picture) -> bool:
    """Whether ``image.channels: 1`` takes it, by what its file says."""
    if picture.mode in ("P", "PA"):  # as GIFs have it, of grey pictures too
        pixels = np.asarray(picture.convert("RGB"))
        return bool((pixels == pixels[..., :1]).all())
    grey_and_alpha = str(picture.info.get(DEEP)).startswith("LA;")  # RGBA, as Pillow reads it
    return picture.mode in _GREY or picture.mode.startswith("I;16") or grey_and_alpha


def _pixels(picture: Picture, shape: tuple[int, int, int], fit: str, where: str) -> np.ndarray:
    """One image as uint8 [channels, size, size], or an error that says why it does not fit."""
    channels, side, _ = shape
    if picture.size != (side, side):
        width, height = picture.size
        if fit == "resize":
            picture = ImageOps.fit(picture, (side, side))
        elif fit == "pad" and max(width, height) <= side:
            left, top = (side - width) // 2, (side - height) // 2
            border = (left, top, side - width - left, side - height - top)
            picture = ImageOps.expand(picture, border)
        else:
            raise UserError(
                f"{where}: {width}×{height} pixels, but image.size is {side}; change image.size, "
                f"or give the data set 'fit: pad' (smaller images) or 'fit: resize'"
            )
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
