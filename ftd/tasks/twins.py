"""Images that are equal, pixel by pixel: in several parts, in several classes, or all of them."""

from itertools import combinations

import numpy as np

from ftd.errors import UserError
from ftd.tasks.cut import PARTS


def check_different(name: str, prints: np.ndarray, background: str) -> None:
    """Raises a ``UserError`` if all images of data set ``name``, several, are one."""
    if len(prints) > 1 and (prints == prints[0]).all():
        raise UserError(
            f"data set {name}: all {len(prints)} images are equal; are they transparent, of the "
            f"background's colour (datasets.{name}.background is {background!r}), or empty?"
        )


def twins(prints: np.ndarray, parts: np.ndarray, classes: np.ndarray | None) -> dict[str, int]:
    """How many images stand twice where once would be right; what there is none of is left out.

    ``"train and val"``: images of the second part that are in the first one too. ``"of several
    classes"``: images that stand in one class and in another.

    Args:
        prints: [N], equal where images are.
        parts: [N], ``""`` where an image is unused.
        classes: [N], ``None`` if there are none.
    """
    found = {
        f"{first} and {second}": int(np.isin(prints[parts == second], prints[parts == first]).sum())
        for first, second in combinations(PARTS, 2)
    }
    if classes is not None:
        pairs = np.unique(np.stack([prints, classes], axis=1), axis=0)
        times = np.unique(pairs[:, 0], return_counts=True)[1]
        found["of several classes"] = int((times > 1).sum())
    return {where: number for where, number in found.items() if number}
