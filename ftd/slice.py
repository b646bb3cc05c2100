"""Stage *slice*: a task is a data set's cut, filtered and relabelled; and reading it for use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftd import artifacts, versions
from ftd.config import Task
from ftd.dataset import PARTS, stratified
from ftd.errors import UserError
from ftd.names import REST, did_you_mean
from ftd.seeds import seed_of

if TYPE_CHECKING:
    import torch

    from ftd.target import Classes


@dataclass(frozen=True)
class Slice:
    """A task's images by number: arrays of equal length, and what the labels are called.

    Attributes:
        index: int64, rows of the data set's image array.
        label: int64 in [0, len(labels)).
        part: strings out of ``PARTS``.
        labels: names, by label index.
        facts: data set, image shape, mean and standard deviation, settings, seed, versions.
    """

    index: np.ndarray
    label: np.ndarray
    part: np.ndarray
    labels: list[str]
    facts: dict

    @property
    def target(self) -> "Classes":
        """What networks for this task must give, and how it is judged."""
        from ftd.target import Classes

        return Classes(len(self.labels))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        image = self.facts["image"]
        return image["channels"], image["size"], image["size"]


def run(task: str, settings: Task, *, seed: int, table: Path, out: Path) -> None:
    """Filter and relabel the cut in ``table`` as the task says; write the slice.

    Raises:
        UserError: unknown class, a class in two labels, or a part or label without images.
    """
    import pyarrow as pa

    cut = artifacts.read_table(table)
    facts = artifacts.table_facts(cut)
    artifacts.expect_stage(table, facts, "dataset")
    classes = {int(number): name for number, name in facts["classes"].items()}
    members = _members(task, settings, classes)
    index = cut["index"].to_numpy()
    source = cut["class"].to_numpy()
    part = np.array([value or "" for value in cut["part"].to_pylist()])

    label = np.full(len(index), -1)
    for position, numbers in enumerate(members.values()):
        label[np.isin(source, list(numbers))] = position
    keep = (label >= 0) & (part != "")
    _check_filled(task, list(members), label[keep], part[keep])
    if settings.is_indicator:
        keep &= _balanced(source, label, part, keep, seed_of("balance", seed))
    index, label, part = index[keep], label[keep], part[keep]

    artifacts.write_table(
        out,
        pa.table(
            {
                "index": pa.array(index, pa.int64()),
                "label": pa.array(label, pa.int64()),
                "part": pa.array(part, pa.string()).dictionary_encode(),
            }
        ),
        {key: facts[key] for key in ("dataset", "image", "images", "mean", "std")}
        | {
            "task": task,
            "labels": list(members),
            "seed": seed,
            "cut": artifacts.digest(table),
        }
        | versions.record("slice", settings),
    )


def _members(task: str, settings: Task, classes: dict[int, str]) -> dict[str, set[int]]:
    """Class numbers by label name, in label order."""
    if settings.labels == "all":
        if len(set(classes.values())) < len(classes):
            raise UserError(f"tasks.{task}.labels: two classes share a name; list the labels")
        return {name: {number} for number, name in classes.items()}
    problems: list[str] = []
    members: dict[str, set[int]] = {}
    taken: dict[int, str] = {}
    for name, wanted in settings.labels.items():
        members[name] = set()
        for item in wanted if wanted != REST else []:
            try:
                number = _class_number(item, classes)
            except ValueError as error:
                problems.append(f"{name}: data set {settings.dataset!r} {error}")
                continue
            if number in taken:
                problems.append(f"{name}: class {item!r} is listed before, in {taken[number]!r}")
            taken[number] = name
            members[name].add(number)
    for name, wanted in settings.labels.items():
        if wanted == REST:
            members[name] = set(classes) - set(taken)
            if not members[name] and not problems:
                problems.append(f"{name}: no class is left for 'rest'")
    if problems:
        raise UserError("\n".join(f"tasks.{task}.labels.{problem}" for problem in problems))
    return members


def _class_number(item: int | str, classes: dict[int, str]) -> int:
    """The class that a number or a name means; ``ValueError`` if there is none, or two."""
    named = [number for number, name in classes.items() if name == str(item)]
    if isinstance(item, int) and item in classes:
        if named and named != [item]:
            raise ValueError(
                f"has a class of number {item}, {classes[item]!r}, and another of name "
                f"{str(item)!r}, number {named[0]}: write the name of the one you mean in quotes"
            )
        return item
    if len(named) > 1:
        numbers = " and ".join(map(str, named))
        raise ValueError(f"has {len(named)} classes named {item!r}, {numbers}: give the number")
    if not named:
        known = [*classes.values(), *map(str, classes)]
        raise ValueError(f"has no class {item!r}{did_you_mean(str(item), known)}")
    return named[0]


def _balanced(
    source: np.ndarray, label: np.ndarray, part: np.ndarray, keep: np.ndarray, seed: int
) -> np.ndarray:
    """Mask with equally many images of both labels in every part.

    The larger side is thinned out evenly over its source classes, at random.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(source), bool)
    for name in PARTS:
        sides = [np.flatnonzero(keep & (part == name) & (label == side)) for side in (0, 1)]
        count = min(len(side) for side in sides)
        for side in sides:
            mask[_evenly(source, side, count, rng)] = True
    return mask


def _evenly(
    source: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """``count`` of ``rows``, as even over their source classes as their numbers allow."""
    shuffled = rng.permutation(rows)
    rank = np.empty(len(shuffled), np.int64)
    for value in np.unique(source[shuffled]):
        members = source[shuffled] == value
        rank[members] = np.arange(members.sum())
    return shuffled[np.argsort(rank, kind="stable")[:count]]


def _check_filled(task: str, labels: list[str], label: np.ndarray, part: np.ndarray) -> None:
    empty = [
        f"{name!r} of {labels[position]!r}"
        for name in PARTS
        for position in np.flatnonzero(np.bincount(label[part == name], minlength=len(labels)) == 0)
    ]
    if empty:
        raise UserError(
            f"tasks.{task}: no image is left for part {', '.join(empty)}; change the labels or "
            "the data set's parts"
        )


def read(path: Path) -> Slice:
    """Read a slice.

    Raises:
        UserError: missing or damaged file, or no slice.
    """
    table = artifacts.read_table(path)
    facts = artifacts.table_facts(table)
    artifacts.expect_stage(path, facts, "slice")
    columns = (table[name].to_numpy() for name in ("index", "label"))
    return Slice(*columns, np.array(table["part"].to_pylist()), facts["labels"], facts)


class TaskData:
    """Images and labels of some parts of a task, on one device.

    Args:
        task: the slice.
        images: the data set's images file.
        parts: the parts to load, and at most how many images of each, its labels in proportion
            (``None``: all); asking for another part is a ``KeyError``.
        device: where batches live; ``None``: a GPU if there is one.
    """

    def __init__(
        self,
        task: Slice,
        images: Path,
        parts: Mapping[str, int | None],
        *,
        device: "torch.device | None" = None,
    ):
        import torch

        from ftd.training import default_device

        self.task = task
        self.device = device or default_device()
        pixels = _pixels(task, images)
        self._parts: dict[str, _Part] = {}
        for name, limit in parts.items():
            rows = np.flatnonzero(task.part == name)
            if limit is not None and len(rows) > limit:
                rng = np.random.default_rng(seed_of("limit", name))
                rows = np.sort(stratified(task.label, rows, rng)[:limit])
            index = torch.from_numpy(task.index[rows])
            labels = torch.from_numpy(task.label[rows].astype(np.int64)).to(self.device)
            self._parts[name] = _Part(pixels, index, labels)
            if self.device.type == "cuda":
                self._parts[name] = self._parts[name].on(self.device)
        shape = (-1, 1, 1)
        self._mean = torch.tensor(task.facts["mean"], device=self.device).view(shape)
        self._std = torch.tensor(task.facts["std"], device=self.device).view(shape)

    def count(self, part: str) -> int:
        """Number of images in a part."""
        return len(self._parts[part].labels)

    def labels(self, part: str) -> "torch.Tensor":
        """Labels [N] of a part, int64."""
        return self._parts[part].labels

    def batches(
        self, part: str, size: int, generator: "torch.Generator | None" = None
    ) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        """Normalised float32 images [B, C, H, W], int64 labels [B]; shuffled by ``generator``.

        Where they are shuffled, for training, a last image on its own joins the batch before it:
        batch norm cannot train on one.
        """
        import torch

        images = self._parts[part]
        count = len(images.labels)
        if generator is None:
            order = torch.arange(count)
        else:
            order = torch.randperm(count, generator=generator)
        batches = list(order.split(size))
        if generator is not None and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for rows in batches:
            at = images.index[rows.to(images.index.device)]
            batch = images.pixels[at].to(self.device).float() / 255
            batch = (batch - self._mean) / self._std
            yield batch.contiguous(memory_format=torch.channels_last), images.labels[rows]


def _pixels(task: Slice, images: Path) -> "torch.Tensor":
    """Images uint8 [N, C, H, W], mapped: read as they are used.

    Raises:
        UserError: missing or damaged file, or images that are not the slice's.
    """
    tensors, facts = artifacts.read_tensors(images, stage="dataset")
    pixels = tensors["images"]
    rows = int(task.index.max(initial=-1))
    if facts["dataset"] != task.facts["dataset"] or pixels.shape[1:] != task.image_shape:
        raise UserError(
            f"{images}: images of {facts['dataset']}, {tuple(pixels.shape[1:])}, but the slice is "
            f"of {task.facts['dataset']}, {task.image_shape}; give its own"
        )
    if rows >= len(pixels):
        raise UserError(f"{images}: {len(pixels)} images, but the slice names number {rows}")
    return pixels


@dataclass(frozen=True)
class _Part:
    """Images of one part: rows ``index`` of ``pixels``, uint8 [N, C, H, W], and their labels."""

    pixels: "torch.Tensor"
    index: "torch.Tensor"
    labels: "torch.Tensor"

    def on(self, device: "torch.device") -> "_Part":
        """The same with its images on a GPU, if they take no more than half of what is free."""
        import torch

        if len(self.index) * self.pixels[0].nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        rows = torch.arange(len(self.index), device=device)
        return _Part(self.pixels[self.index].to(device), rows, self.labels)
