"""Dense targets of slices: what is measured of a modality in ``train``, and what follows."""

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


def moments(settings: Numbers, values: np.ndarray) -> dict:
    """Mean and standard deviation of each channel of values [N, C, H, W], where measured.

    Raises:
        UserError: values outside of [0, 1] where the score takes these alone.
    """
    if settings.score == "psnr" and (np.nanmin(values) < 0 or np.nanmax(values) > 1):
        raise UserError(
            f"score: psnr takes values in [0, 1]; {settings.of!r} has some from "
            f"{np.nanmin(values):g} to {np.nanmax(values):g}"
        )
    chunks = np.array_split(values, len(values) // _CHUNK + 1)
    sums = [(np.isfinite(c).sum((0, 2, 3)), np.nansum(c, (0, 2, 3), np.float64)) for c in chunks]
    count = sum(number for number, _ in sums)
    mean = sum(total for _, total in sums) / count
    squares = [np.nansum((c - mean[:, None, None]) ** 2, (0, 2, 3), np.float64) for c in chunks]
    std = np.sqrt(sum(squares) / count)
    return {"channels": values.shape[1], "mean": mean.tolist(), "std": std.tolist()}


def regression(facts: dict) -> Dense:
    """Of numbers at every pixel."""
    found = facts["measured"]
    score = facts["settings"]["score"]
    return Dense(Regression(found["channels"], found["mean"], found["std"], score))


def unit_vectors(facts: dict) -> Dense:
    """Of unit vectors."""
    return Dense(UnitVectors())


def channels(settings: YesOrNo, values: np.ndarray) -> dict:
    """How many channels there are of maps of zeros and ones [N, C, H, W].

    Raises:
        UserError: other values.
    """
    strange = values[np.isfinite(values) & (values != 0) & (values != 1)]
    if strange.size:
        raise UserError(f"of: {settings.of!r} has the value {strange[0]:g}; expected 0 and 1")
    return {"channels": values.shape[1]}


def binary_maps(facts: dict) -> Dense:
    """Of maps of zeros and ones."""
    return Dense(BinaryMaps(facts["measured"]["channels"]))


def classes(settings: LabelsOfPixels, values: np.ndarray) -> dict:
    """How many classes pixels [N, H, W] have.

    Raises:
        UserError: a class whose number is too large, or fewer than two.
    """
    highest = int(values.max(initial=IGNORED))
    count = settings.classes or highest + 1
    if not count >= 2 or highest >= count:
        raise UserError(
            f"classes: {count}, and {settings.of!r} has the class {highest}; expected two "
            "at least, numbered from 0 on"
        )
    return {"classes": count}


def pixel_classes(facts: dict) -> Dense:
    """Of a class at every pixel."""
    return Dense(PixelClasses(facts["measured"]["classes"]))
