"""Frames: pictures with modalities, maps of the same pixels such as depths and normals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ftd.tasks.modality_keys import Modality

IGNORED = -1
"""The label of a pixel that has none."""
_MOST = 2**15 - 1
New = Callable[[tuple[int, ...], str], np.ndarray]
"""A new array of a shape and kind of numbers, which need not lie in memory."""


@dataclass(frozen=True)
class Values:
    """What a modality says of one frame.

    Attributes:
        kind: as of ``ftd.tasks.modality_keys.Modality``.
        array: ``map``: float32 [C, H, W], NaN where nothing was measured; ``vectors``: the same
            of three channels, of length 1; ``labels``: int16 [H, W], ``IGNORED`` where there is
            none; ``intrinsics``: float32 [4], fx, fy, cx, cy in pixels.
        nearest: of a map, whether a smaller one has some of its values, no means.
    """

    kind: str
    array: np.ndarray
    nearest: bool = False


@dataclass(frozen=True)
class Frame:
    """An annotation of several parts.

    Attributes:
        label: the picture's class number, if it has one.
        modalities: by name; every frame of a data set has the same ones.
        group: what no two parts of the data set share, such as a scene.
    """

    label: int | None = None
    modalities: Mapping[str, Values] = field(default_factory=dict)
    group: int | str | None = None


# Reading ----------------------------------------------------------------------------------------


def values_of(found: np.ndarray, settings: Modality, size: tuple[int, int]) -> Values:
    """A modality as it is meant, of what a file holds.

    Args:
        found: [H, W] or [H, W, C] of codes; of intrinsics, four numbers.
        size: (width, height) of the frame's picture.

    Raises:
        ValueError: another size or number of channels than the kind has.
    """
    if settings.kind == "intrinsics":
        numbers = np.asarray(found, np.float32)
        if numbers.shape != (4,) or not np.isfinite(numbers).all():
            raise ValueError(f"expected fx, fy, cx, cy, got {found}")
        return Values("intrinsics", numbers)
    height, width = found.shape[:2]
    if (width, height) != size:
        raise ValueError(f"{width}×{height} pixels, but the picture has {size[0]}×{size[1]}")
    if settings.kind == "labels":
        if found.ndim != 2 or found.dtype.kind not in "iu":
            raise ValueError("expected one channel of whole numbers, the pixels' classes")
        known = ~np.isin(found, settings.ignore)
        if (wrong := found[known & ((found < 0) | (found > _MOST))]).size:
            raise ValueError(f"a class of number {wrong[0]}; expected 0 to {_MOST}")
        return Values("labels", np.where(known, found.astype(np.int64), IGNORED).astype(np.int16))
    codes = found.astype(np.float32)[None] if found.ndim == 2 else found.transpose(2, 0, 1)
    if settings.channels is not None:
        if len(codes) < settings.channels:
            raise ValueError(f"{len(codes)} channels, expected at least {settings.channels}")
        codes = codes[: settings.channels]
    values = ((codes - settings.offset) * settings.scale).astype(np.float32)
    if settings.invalid is not None:
        values[:, (codes == settings.invalid).all(0)] = np.nan
    values[~np.isfinite(values)] = np.nan
    if settings.kind == "vectors":
        if len(values) != 3:
            raise ValueError(f"expected three channels of vectors, got {len(values)}")
        values = unit(values)
    return Values(settings.kind, values, settings.resize == "nearest")


def seen(values: np.ndarray) -> np.ndarray:
    """Where something was measured, or has a label."""
    return np.isfinite(values) if values.dtype.kind == "f" else values != IGNORED


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [3, …] at length 1; NaN where they have none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt((vectors**2).sum(0))
        return np.where(lengths > 0, vectors / lengths, np.nan).astype(np.float32)
