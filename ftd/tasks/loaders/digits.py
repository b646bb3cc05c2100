"""scikit-learn's digits: real images that a package ships."""

from pathlib import Path

import numpy as np
from PIL.Image import fromarray
from sklearn.datasets import load_digits

from ftd.config import Dataset
from ftd.tasks.loaders import Counted, Splits


def open_digits(name: str, settings: Dataset, root: Path) -> Splits:
    """The 1,797 8×8 digits that scikit-learn ships: 17 grey levels, no official test split."""
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pairs = zip((fromarray(p) for p in pixels), bunch.target, strict=True)
    return Counted(pairs, len(pixels)), None, {c: str(c) for c in range(10)}
