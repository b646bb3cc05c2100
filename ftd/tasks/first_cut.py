"""Cutting a data set before its images are read, where all that a cut needs is known by then."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ftd.config import Parts
from ftd.tasks.cut import parts_of

if TYPE_CHECKING:
    from ftd.tasks.loaders import Counted


def cut_first(
    name: str, splits: "Mapping[str, Counted]", parts: Parts, seed: int
) -> "tuple[Mapping[str, Counted], np.ndarray | None]":
    """The images that have a part, and the part of each: others need not be read, nor stored.

    All images and ``None``, where a split tells what a cut needs only as it is read.

    Args:
        splits: by name: ``train``, and perhaps ``test``.

    Raises:
        UserError: as ``ftd.tasks.cut.parts_of``.
    """
    if any(split.only is None for split in splits.values()):
        return splits, None
    counts = [len(split) for split in splits.values()]
    of = [split.groups for split in splits.values()]
    groups = None if None in of else np.unique(np.concatenate(of), return_inverse=True)[1]
    trained = counts[0] if "test" in splits else None
    found = parts_of(name, parts, np.zeros(sum(counts), np.int64), trained, seed, groups)
    sides = np.split(found != "", np.cumsum(counts)[:-1])
    kept = {
        key: split.only(np.flatnonzero(side))
        for (key, split), side in zip(splits.items(), sides, strict=True)
    }
    return kept, found[found != ""]
