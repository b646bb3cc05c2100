"""Dense targets of slices: what is measured of a modality in ``train``, and what follows."""

from collections.abc import Iterator, Mapping

import numpy as np

from ftd.errors import UserError
from ftd.tasks.dense_keys import LabelsOfPixels, Numbers, YesOrNo
from ftd.tasks.frames import IGNORED
from ftd.tasks.targets.binary_maps import BinaryMaps
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.pixel_classes import PixelClasses
from ftd.tasks.targets.regression import Regression
from ftd.tasks.targets.unit_vectors import UnitVectors

_CHUNK = 256  # images at a time
Rows = Mapping[str, np.ndarray]
"""By part: the rows of a task's images."""


def moments(settings: Numbers, values: np.ndarray, rows: Rows) -> dict:
    """Mean and standard deviation in ``train`` of each channel of values [N, C, H, W].

    Raises:
        UserError: values outside of [0, 1], in any part, where the score takes these alone.
    """
    if settings.score == "psnr":
        ranges = [(np.nanmin(c), np.nanmax(c)) for c in _chunks(values, *rows.values())]
        lowest, highest = min(low for low, _ in ranges), max(high for _, high in ranges)
        if lowest < 0 or highest > 1:
            raise UserError(
                f"score: psnr takes values in [0, 1]; {settings.of!r} has some from {lowest:g} to "
                f"{highest:g}"
            )
    train = rows["train"]
    sums = [
        (np.isfinite(c).sum((0, 2, 3)), np.nansum(c, (0, 2, 3), np.float64))
        for c in _chunks(values, train)
    ]
    count = sum(number for number, _ in sums)
    mean = sum(total for _, total in sums) / count
    squares = [
        np.nansum((c - mean[:, None, None]) ** 2, (0, 2, 3), np.float64)
        for c in _chunks(values, train)
    ]
    std = np.sqrt(sum(squares) / count)
    return {"channels": values.shape[1], "mean": mean.tolist(), "std": std.tolist()}


def _chunks(values: np.ndarray, *several: np.ndarray) -> Iterator[np.ndarray]:
    """Copies of some rows of mapped values, a few at a time."""
    for rows in several:
        for chunk in np.array_split(rows, len(rows) // _CHUNK + 1):
            yield values[chunk]


def regression(facts: dict) -> Dense:
    """Of numbers at every pixel."""
    found = facts["measured"]
    score = facts["settings"]["score"]
    return Dense(Regression(found["channels"], found["mean"], found["std"], score))


def unit_vectors(facts: dict) -> Dense:
    """Of unit vectors."""
    return Dense(UnitVectors())


def channels(settings: YesOrNo, values: np.ndarray, rows: Rows) -> dict:
    """How many channels there are of maps of zeros and ones [N, C, H, W].

    Raises:
        UserError: other values, in any part.
    """
    for chunk in _chunks(values, *rows.values()):
        strange = chunk[np.isfinite(chunk) & (chunk != 0) & (chunk != 1)]
        if strange.size:
            raise UserError(f"of: {settings.of!r} has the value {strange[0]:g}; expected 0 and 1")
    return {"channels": values.shape[1]}


def binary_maps(facts: dict) -> Dense:
    """Of maps of zeros and ones."""
    return Dense(BinaryMaps(facts["measured"]["channels"]))


def classes(settings: LabelsOfPixels, values: np.ndarray, rows: Rows) -> dict:
    """How many classes pixels [N, H, W] have.

    Raises:
        UserError: a class whose number is too large, in any part, or fewer than two.
    """
    highest = {
        part: max(int(c.max(initial=IGNORED)) for c in _chunks(values, own))
        for part, own in rows.items()
    }
    count, where = settings.classes or highest["train"] + 1, max(highest, key=highest.get)
    if not count >= 2 or highest[where] >= count:
        found = f"{count}" if settings.classes else f"not given, {count} by train"
        raise UserError(
            f"classes: {found}, and {settings.of!r} has the class {highest[where]} in {where}; "
            "expected two at least, numbered from 0 on: give how many there are in all parts"
        )
    return {"classes": count}


def pixel_classes(facts: dict) -> Dense:
    """Of a class at every pixel."""
    return Dense(PixelClasses(facts["measured"]["classes"]))
