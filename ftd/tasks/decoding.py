"""Decoding a data set's images into one array of the experiment's shape."""

from collections.abc import Iterable

import numpy as np
from PIL import ImageOps
from PIL.Image import Image as Picture
from PIL.Image import fromarray

from ftd.errors import UserError
from ftd.runtime.progress import progress
from ftd.tasks.foreign import named
from ftd.tasks.loaders import Annotation


def decode(
    name: str,
    pairs: Iterable[tuple[Picture | np.ndarray, Annotation]],
    images: np.ndarray,
    fit: str,
) -> np.ndarray:
    """Fill ``images`` uint8 [N, C, H, W] with decoded pictures; returns their annotations.

    Annotations are class numbers, int64 [N], or arrays of numbers of one shape, [N, …], of the
    first one's type. There are as many pairs as ``images`` has rows.

    Raises:
        UserError: an image that does not fit or is none, or annotations that are no numbers or of
            different shapes or types.
    """
    annotations: np.ndarray | None = None
    for row, (picture, found) in enumerate(progress(pairs, f"decoding {name}", len(images))):
        where = f"data set {name}, image {row}"
        with named(f"{where}: cannot be read"):
            images[row] = _pixels(_picture(picture, where), images.shape[1:], fit, where)
            value = np.asarray(found)
        if annotations is None:
            kind = value.dtype if value.shape and value.dtype.kind in "biuf" else np.int64
            annotations = np.empty((len(images), *value.shape), kind)
        if value.shape != annotations.shape[1:]:
            raise UserError(
                f"{where}: an annotation of shape {value.shape}, those before it have "
                f"{annotations.shape[1:]}; a data set's annotations have one shape"
            )
        if not np.can_cast(value.dtype, annotations.dtype, "safe"):
            raise UserError(
                f"{where}: an annotation of type {value.dtype}, expected {annotations.dtype}; "
                "give a class number, or arrays of numbers that are all of one type"
            )
        annotations[row] = value
    return np.empty(0, np.int64) if annotations is None else annotations


def _picture(found: object, where: str) -> Picture:
    if isinstance(found, np.ndarray):
        return fromarray(found)
    if not isinstance(found, Picture):
        raise UserError(
            f"{where}: expected a PIL image or a uint8 array, got {type(found).__name__}"
        )
    return found


def _pixels(picture: Picture, shape: tuple[int, int, int], fit: str, where: str) -> np.ndarray:
    """One image as uint8 [channels, size, size], or an error that says why it does not fit."""
    channels, side, _ = shape
    if picture.mode.startswith(("I", "F")):
        raise UserError(f"{where}: {picture.mode} pixels; convert the images to 8 bits a channel")
    grey = picture.mode in ("1", "L", "LA")
    if channels == 1 and not grey:
        raise UserError(f"{where}: a colour image; set image.channels to 3")
    picture = picture.convert("L" if channels == 1 else "RGB")
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
