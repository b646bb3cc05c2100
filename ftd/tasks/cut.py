"""Cutting a data set into the parts that all its tasks share."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from ftd.config import Parts
from ftd.errors import UserError
from ftd.runtime.seeds import seed_of

CHUNK = 4096  # images held in memory at once
PARTS = ("train", "fisher", "val", "test")


def cut(
    classes: np.ndarray,
    is_test: np.ndarray | None,
    parts: Parts,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Assign every image a part, stratified by class; ``""`` where an image stays unused.

    Within a class images are shuffled and spread evenly over [0, 1); sorted by that position,
    any block of consecutive images has each class in proportion (to one image), so parts are
    blocks. With an official test split (``is_test``), ``test`` is cut from it alone. Parts that
    ask for more than there is are a ``ValueError``.

    With ``groups`` (int64 [N]), these are what is shuffled, spread and cut: a part ends with the
    group that brings it nearest to what it asks for. None may be on both sides of an official
    split. A part that asks for a number of images gets groups that have as many at least, and of
    their images so many; where all parts do, the groups are shared out in proportion.
    """
    if groups is not None:
        return _cut_groups(classes, is_test, parts, seed, groups)
    rng = np.random.default_rng(seed)
    result = np.full(len(classes), "", dtype="<U6")
    pool = np.arange(len(classes)) if is_test is None else np.flatnonzero(~is_test)
    order = stratified(classes, pool, rng)
    wanted, of_test = _wanted(parts, is_test is not None)
    sides = [(order, wanted)]
    if is_test is not None:
        sides.insert(0, (stratified(classes, np.flatnonzero(is_test), rng), of_test))
    for rows, amounts in sides:
        for part, start, end in _blocks(len(rows), amounts):
            result[rows[start:end]] = part
    return result


def _cut_groups(
    classes: np.ndarray,
    is_test: np.ndarray | None,
    parts: Parts,
    seed: int,
    groups: np.ndarray,
) -> np.ndarray:
    """``cut``, of whole groups: of the most frequent class of each."""
    rng = np.random.default_rng(seed)
    official = np.zeros(len(groups), bool) if is_test is None else is_test
    both = np.intersect1d(groups[official], groups[~official])
    if len(both):
        raise ValueError(
            f"{len(both)} groups have images in train and in test; take them out of one of them"
        )
    result = np.full(len(classes), "", dtype="<U6")
    wanted = _wanted(parts, is_test is not None)
    for side, amounts in zip((~official, official), wanted, strict=True):
        numbers, of = np.unique(groups[side], return_inverse=True)
        order = stratified(usual_classes(of, classes[side]), np.arange(len(numbers)), rng)
        place = np.empty(len(numbers), np.int64)
        place[order] = np.arange(len(numbers))
        rows = np.flatnonzero(side)[np.argsort(place[of], kind="stable")]
        ends = np.flatnonzero(np.diff(np.sort(place[of]), append=-1)) + 1
        numbers = {part: amount for part, amount in amounts.items() if type(amount) is int}
        if len(numbers) == len(amounts):  # then what is not asked for is shared out too
            amounts = {part: number / sum(numbers.values()) for part, number in numbers.items()}
        for part, start, end in _blocks(len(rows), amounts, np.r_[0, ends], numbers):
            block = rows[start:end]
            if part in numbers:
                block = stratified(classes, block, rng)[: numbers[part]]
            result[block] = part
    return result


def usual_classes(groups: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The most frequent class of every group, by its number: of several, the lowest.

    Args:
        groups: int64 [N], each from 0 on.
        classes: int64 [N].
    """
    pairs, counts = np.unique(np.stack([groups, classes], 1), axis=0, return_counts=True)
    pairs = pairs[np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))]
    return pairs[np.unique(pairs[:, 0], return_index=True)[1], 1]


def _wanted(parts: Parts, official: bool) -> tuple[dict, dict]:
    """What the parts ask for, of the images that are trained on and of an official test split."""
    test = {"test": (1.0 if official else 0.2) if parts.test is None else parts.test}
    others = {"val": parts.val, "fisher": parts.fisher, "train": parts.train}
    return (others, test) if official else (test | others, {})


def stratified(classes: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``pool`` shuffled so that any stretch of it holds the classes in proportion."""
    position = np.empty(len(pool))
    for value in np.unique(classes[pool]):
        members = np.flatnonzero(classes[pool] == value)
        position[members] = (rng.permutation(len(members)) + 0.5) / len(members)
    return pool[np.lexsort((rng.random(len(pool)), position))]


def _blocks(
    total: int,
    wanted: Mapping[str, float | int | None],
    ends: np.ndarray | None = None,
    numbers: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, int, int]]:
    """Where each part begins and ends in ``total`` images; ``None`` takes what is left.

    Args:
        ends: where parts may end, beginning with 0; else anywhere.
        numbers: of images that a part then has at least.
    """
    numbers, later = numbers or {}, list(wanted)
    start, exact = 0, 0.0  # shares are rounded at their ends, so that a sum of 1 fits
    for part, amount in wanted.items():
        exact += amount * (total if isinstance(amount, float) else 1) if amount else total - exact
        near, least = math.floor(exact + 0.5), start + numbers.get(part, 0)
        end = max(near, least)
        if end > total:
            raise ValueError(
                f"part {part!r} wants {end - start} images but only {total - start} of {total} "
                "are left; lower the parts"
            )
        later.remove(part)
        if ends is not None:
            left = [numbers.get(other, 1) for other in later] if numbers else []
            end = _end(ends, near, least, left)
            if isinstance(amount, int):
                exact = max(exact, end)
        yield part, start, end
        start = end


def _end(ends: np.ndarray, near: int, least: int, left: list[int]) -> int:
    """Of some ends the one nearest to ``near``, of those from ``least`` on.

    If there are such, one that leaves a group, and as many images, for each of those ``left``.
    """
    allowed = ends[ends >= least]
    most = min(ends[-1] - sum(left), ends[max(-1 - len(left), -len(ends))])
    allowed = allowed[: max(1, np.count_nonzero(allowed <= most))]
    return int(allowed[np.abs(allowed - near).argmin()])


def strata_of(annotations: np.ndarray) -> np.ndarray:
    """What a cut keeps in proportion, int64 [N], of a data set's annotations [N, …].

    Of class numbers the class; of vectors of whole numbers (several labels an image) the vector;
    anything else is of one kind.
    """
    if annotations.ndim == 1:
        return annotations
    if annotations.ndim == 2 and annotations.dtype.kind in "biu":
        return np.unique(annotations, axis=0, return_inverse=True)[1].reshape(-1)
    return np.zeros(len(annotations), np.int64)


def moments(images: np.ndarray, rows: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of some uint8 images, scaled to [0, 1]."""
    histogram = np.zeros((images.shape[1], 256), np.int64)
    for chunk in np.array_split(rows, len(rows) // CHUNK + 1):
        pixels = images[chunk]
        for channel, counts in enumerate(histogram):
            counts += np.bincount(pixels[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = [float((h * levels).sum() / h.sum()) for h in histogram]
    var = [
        float((h * (levels - m) ** 2).sum() / h.sum()) for h, m in zip(histogram, mean, strict=True)
    ]
    return mean, [v**0.5 or 1.0 for v in var]


def parts_of(
    name: str,
    settings: Parts,
    strata: np.ndarray,
    trained: int | None,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """The part of every image of data set ``name``, ``""`` where it stays unused.

    Args:
        strata: int64 [N], those of the official test split last.
        trained: how many come before that split; ``None``: there is none.
        seed: the experiment's.
        groups: int64 [N], of which none is in two parts; ``None``: there are none.

    Raises:
        UserError: parts that do not fit, or one without an image.
    """
    official = trained is not None and not settings.pooled
    is_test = np.arange(len(strata)) >= trained if official else None
    try:
        parts = cut(strata, is_test, settings, seed_of("cut", seed), groups)
    except ValueError as error:
        raise UserError(f"datasets.{name}.parts: {error}") from error
    for part in PARTS:
        if not (parts == part).any():
            raise UserError(
                f"data set {name}: part {part!r} gets no image of {len(strata)}; "
                f"change datasets.{name}.parts"
            )
    return parts


def check_classes(name: str, classes: np.ndarray, trained: int, names: dict[int, str]) -> None:
    """Compare class numbers [N] with the classes there are, and those of both official splits.

    Raises:
        UserError: a class without a name, or of test images alone.
    """
    known = names or range(1 + max(0, int(classes.max())))
    if unknown := [number for number in np.unique(classes).tolist() if number not in known]:
        raise UserError(
            f"data set {name}: an image's class is {unknown[0]}; expected one of the "
            f"{len(known)} classes, from 0 on (an image without a class cannot be used)"
        )
    strange = set(classes[trained:]) - set(classes[:trained])
    if strange:
        raise UserError(
            f"data set {name}: test images of class {min(strange)}, which no train image has"
        )
