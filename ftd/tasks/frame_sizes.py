"""Fitting the modalities of a frame to the size of its picture."""

from dataclasses import replace

import numpy as np
from PIL.Image import Resampling, fromarray

from ftd.tasks.frames import IGNORED, Values, seen, unit


def fitted(values: Values, side: int, fit: str, size: tuple[int, int]) -> Values:
    """A modality of a picture of a size (width, height), fitted as that picture is.

    ``resize`` crops to the centre and takes means over areas: of what was measured, or the most
    frequent label; or the ``nearest`` pixel. ``pad`` surrounds it by what is invalid. Intrinsics
    follow. The picture's own size fits: it is checked as the picture is.
    """
    if size == (side, side):
        return values
    width, height = size
    if fit == "resize":
        square = min(width, height)
        left, top = (width - square) // 2, (height - square) // 2
        if values.kind == "intrinsics":
            return Values("intrinsics", _moved(values.array, -left, -top, side / square))
        box = np.s_[..., top : top + square, left : left + square]
        if values.nearest:
            at = ((np.arange(side) + 0.5) * square / side).astype(int)
            return replace(values, array=values.array[box][..., at[:, None], at])
        return Values(values.kind, _averaged(values.kind, values.array[box], side))
    left, top = (side - width) // 2, (side - height) // 2
    if values.kind == "intrinsics":
        return Values("intrinsics", _moved(values.array, left, top, 1.0))
    around = [(0, 0)] * (values.array.ndim - 2)
    around += [(top, side - height - top), (left, side - width - left)]
    silent = IGNORED if values.kind == "labels" else np.nan
    return Values(values.kind, np.pad(values.array, around, constant_values=silent))


def _moved(intrinsics: np.ndarray, left: float, top: float, scale: float) -> np.ndarray:
    """Intrinsics behind a shift, then a scale: pixels' centres lie at whole numbers."""
    fx, fy, cx, cy = intrinsics
    centre = [(c + shift + 0.5) * scale - 0.5 for c, shift in ((cx, left), (cy, top))]
    return np.array([fx * scale, fy * scale, *centre], np.float32)


def _averaged(kind: str, array: np.ndarray, side: int) -> np.ndarray:
    """Means over areas of what there is; NaN, or ``IGNORED``, where less than half is."""
    if kind == "labels":
        numbers = np.unique(array[seen(array)])
        if not len(numbers):
            return np.full((side, side), IGNORED, np.int16)
        shares = _areas(np.stack([array == number for number in numbers]).astype(np.float32), side)
        found = numbers[shares.argmax(0)]
        return np.where(shares.sum(0) >= 0.5, found, IGNORED).astype(np.int16)
    valid = seen(array)
    shares = _areas(valid.astype(np.float32), side)
    sums = _areas(np.where(valid, array, 0).astype(np.float32), side)
    means = np.where(shares >= 0.5, sums / np.maximum(shares, 1e-6), np.nan).astype(np.float32)
    return unit(means) if kind == "vectors" else means


def _areas(array: np.ndarray, side: int) -> np.ndarray:
    """Means of float32 [C, S, S] over the areas of [C, side, side]."""
    resized = (fromarray(channel).resize((side, side), Resampling.BOX) for channel in array)
    return np.stack([np.asarray(channel) for channel in resized])
