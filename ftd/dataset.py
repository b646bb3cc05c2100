"""Stage *dataset*: decode a data set once and cut it into the parts that all its tasks share."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL.Image import Image as Picture

from ftd import artifacts, loaders, versions
from ftd.config import Dataset, Image, Parts
from ftd.errors import UserError
from ftd.progress import progress
from ftd.seeds import seed_of

_CHUNK = 4096  # images held in memory at once

PARTS = ("train", "fisher", "val", "test")


def run(
    name: str,
    settings: Dataset,
    image: Image,
    *,
    seed: int,
    data_root: Path,
    images_out: Path,
    table_out: Path,
) -> None:
    """Decode data set ``name`` and write its images and its cut.

    ``images_out``: safetensors, ``images`` uint8 [N, channels, size, size], official test last.
    ``table_out``: Parquet with ``index`` (row of ``images``), ``class`` (the data set's own
    number) and ``part`` (null: unused); facts: class names, mean and standard deviation of the
    train part per channel in [0, 1], settings, seed, versions.

    Raises:
        UserError: missing, damaged or unfitting data; a cut that leaves a part empty.
    """
    splits = loaders.open_splits(name, settings, Path(data_root))
    sources = [source for source in (splits.train, splits.test) if source]
    total = sum(source.count for source in sources)
    if not splits.train.count:
        raise UserError(f"data set {name}: no images found; check datasets.{name}.train")
    shape = (total, image.channels, image.size, image.size)
    with artifacts.scratch_array(Path(images_out).parent, shape) as images:
        pairs = (pair for source in sources for pair in source.images)
        classes = _decode(name, pairs, images, settings.fit)
        _check_classes(name, classes, splits)
        parts = _parts(name, settings, classes, splits, seed)
        mean, std = _moments(images, np.flatnonzero(parts == "train"))
        decided = versions.record("dataset", settings)
        _write_images(images_out, images, {"dataset": name, "image": image.model_dump()} | decided)
    facts = {
        "dataset": name,
        "images": artifacts.digest(images_out),
        "classes": {int(c): splits.names.get(int(c), str(c)) for c in np.unique(classes)},
        "image": image.model_dump(),
        "mean": mean,
        "std": std,
        "seed": seed,
    }
    _write_cut(table_out, classes, parts, facts | versions.record("dataset", settings))


def _parts(
    name: str, settings: Dataset, classes: np.ndarray, splits: loaders.Splits, seed: int
) -> np.ndarray:
    is_test = np.arange(len(classes)) >= splits.train.count
    try:
        parts = cut(classes, is_test if splits.test else None, settings.parts, seed_of("cut", seed))
    except ValueError as error:
        raise UserError(f"datasets.{name}.parts: {error}") from error
    for part in PARTS:
        if not (parts == part).any():
            raise UserError(
                f"data set {name}: part {part!r} gets no image of {len(classes)}; "
                f"change datasets.{name}.parts"
            )
    return parts


def _write_images(path: Path, images: np.ndarray, facts: dict) -> None:
    import torch

    artifacts.write_tensors(path, {"images": torch.from_numpy(images)}, facts)


def _write_cut(path: Path, classes: np.ndarray, parts: np.ndarray, facts: dict) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "index": pa.array(np.arange(len(classes)), pa.int64()),
            "class": pa.array(classes, pa.int64()),
            "part": pa.array([part or None for part in parts], pa.string()).dictionary_encode(),
        }
    )
    artifacts.write_table(path, table, facts)


def cut(classes: np.ndarray, is_test: np.ndarray | None, parts: Parts, seed: int) -> np.ndarray:
    """Assign every image a part, stratified by class; ``""`` where an image stays unused.

    Within a class images are shuffled and spread evenly over [0, 1); sorted by that position,
    any block of consecutive images has each class in proportion (to one image), so parts are
    blocks. With an official test split (``is_test``), ``test`` is cut from it alone. Parts that
    ask for more than there is are a ``ValueError``.
    """
    rng = np.random.default_rng(seed)
    result = np.full(len(classes), "", dtype="<U6")
    pool = np.arange(len(classes)) if is_test is None else np.flatnonzero(~is_test)
    order = stratified(classes, pool, rng)
    test = parts.test
    if is_test is not None:
        official = stratified(classes, np.flatnonzero(is_test), rng)
        _assign(result, official, {"test": 1.0 if test is None else test})
        wanted = {}
    else:
        wanted = {"test": 0.2 if test is None else test}
    wanted |= {"val": parts.val, "fisher": parts.fisher, "train": parts.train}
    _assign(result, order, wanted)
    return result


def stratified(classes: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``pool`` shuffled so that any stretch of it holds the classes in proportion."""
    position = np.empty(len(pool))
    for value in np.unique(classes[pool]):
        members = np.flatnonzero(classes[pool] == value)
        position[members] = (rng.permutation(len(members)) + 0.5) / len(members)
    return pool[np.lexsort((rng.random(len(pool)), position))]


def _assign(result: np.ndarray, order: np.ndarray, wanted: dict[str, float | int | None]) -> None:
    """Give consecutive blocks of ``order`` to the parts; ``None`` takes what is left."""
    total = len(order)
    start, exact = 0, 0.0  # shares are rounded at their ends, so that a sum of 1 fits
    for part, amount in wanted.items():
        exact += amount * (total if isinstance(amount, float) else 1) if amount else total - exact
        end = math.floor(exact + 0.5)
        if end > total:
            raise ValueError(
                f"part {part!r} wants {end - start} images but only {total - start} of {total} "
                "are left; lower the parts"
            )
        result[order[start:end]] = part
        start = end


def _moments(images: np.ndarray, rows: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of some uint8 images, scaled to [0, 1]."""
    histogram = np.zeros((images.shape[1], 256), np.int64)
    for chunk in np.array_split(rows, len(rows) // _CHUNK + 1):
        pixels = images[chunk]
        for channel, counts in enumerate(histogram):
            counts += np.bincount(pixels[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = [float((h * levels).sum() / h.sum()) for h in histogram]
    var = [
        float((h * (levels - m) ** 2).sum() / h.sum()) for h, m in zip(histogram, mean, strict=True)
    ]
    return mean, [v**0.5 or 1.0 for v in var]


def _decode(
    name: str, pairs: Iterable[tuple[Picture, int]], images: np.ndarray, fit: str
) -> np.ndarray:
    """Fill ``images`` [N, C, H, W] with decoded pictures; returns their classes [N], int64."""
    classes = np.empty(len(images), np.int64)
    for row, (picture, label) in enumerate(progress(pairs, f"decoding {name}", len(images))):
        images[row] = _pixels(picture, images.shape[1:], fit, f"data set {name}, image {row}")
        classes[row] = label
    return classes


def _check_classes(name: str, classes: np.ndarray, splits: loaders.Splits) -> None:
    known = splits.names or range(1 + max(0, classes.max()))
    if unknown := set(classes.tolist()) - set(known):
        raise UserError(
            f"data set {name}: an image's class is {min(unknown)}; expected one of the "
            f"{len(known)} classes, from 0 on (an image without a class cannot be used)"
        )
    trained = splits.train.count
    strange = set(classes[trained:]) - set(classes[:trained])
    if strange:
        raise UserError(
            f"data set {name}: test images of class {min(strange)}, which no train image has"
        )


def _pixels(picture: Picture, shape: tuple[int, int, int], fit: str, where: str) -> np.ndarray:
    """One image as uint8 [channels, size, size], or an error that says why it does not fit."""
    from PIL import ImageOps

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
