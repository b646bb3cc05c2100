"""A task's images and targets, batch by batch, on one device."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ftd import store
from ftd.errors import UserError
from ftd.runtime.device import default_device
from ftd.runtime.seeds import seed_of
from ftd.tasks.cut import stratified
from ftd.tasks.slices import Slice

Batch = tuple[torch.Tensor, torch.Tensor]
_CHUNK = 256  # annotations read at a time


class TaskData:
    """Images and targets of some parts of a task, on one device.

    Args:
        task: the slice.
        images: the data set's images file, which a job may have opened before.
        derived: the file of the task's modality, where that is derived.
        parts: the parts to load, and at most how many images of each, its strata in proportion
            (``None``: all); asking for another part is a ``KeyError``.
        kept: of how many bytes of batches a copy is kept on the device, the first ones that fit,
            for the next time that batches of the same images are asked for.
        device: where batches live; ``None``: a GPU if there is one.
    """

    def __init__(
        self,
        task: Slice,
        images: Path | store.TensorFile,
        parts: Mapping[str, int | None],
        *,
        derived: Path | store.TensorFile | None = None,
        kept: int = 0,
        device: torch.device | None = None,
    ):
        self.task, self.target = task, task.target
        self._kept: dict[tuple[str, bytes], Batch] = {}
        self._room = kept
        self.device = device or default_device()
        pixels, annotations = _read(task, images, derived)
        self._parts: dict[str, _Part] = {}
        for name, limit in parts.items():
            rows = np.flatnonzero(task.part == name)
            if limit is not None and len(rows) > limit:
                rng = np.random.default_rng(seed_of("limit", name))
                rows = np.sort(stratified(self._strata(annotations), rows, rng)[:limit])
            index = torch.from_numpy(task.index[rows])
            values, places = annotations, index
            if task.label is not None:
                values = torch.from_numpy(task.label[rows]).long().to(self.device)
                places = torch.arange(len(rows))
            self._parts[name] = _Part(pixels, index, values, places)
            if self.device.type == "cuda":
                self._parts[name] = self._parts[name].on(self.device)
        shape = (-1, 1, 1)
        self._mean = torch.tensor(task.facts["mean"], device=self.device).view(shape)
        self._std = torch.tensor(task.facts["std"], device=self.device).view(shape)

    def count(self, part: str) -> int:
        """Number of images in a part."""
        return len(self._parts[part].places)

    def most_frequent(self, part: str) -> float:
        """The score on a part of the best answer that is the same for every image."""
        of = self._parts[part]
        if self.task.label is not None:
            return self.target.most_frequent(of.values.cpu().numpy())
        encoded = (self.target.encode(of.values[rows]) for rows in of.places.split(_CHUNK))
        first = next(encoded)
        whole = first.new_empty((len(of.places), *first.shape[1:]))
        for targets, rows in zip(
            itertools.chain([first], encoded), whole.split(_CHUNK), strict=True
        ):
            rows.copy_(targets)
        return self.target.most_frequent(whole.numpy())

    def batches(
        self, part: str, size: int, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Normalised float32 images [B, C, H, W], targets [B, …]; shuffled by ``generator``.

        Where they are shuffled, for training, a last image on its own joins the batch before it:
        batch norm cannot train on one. Each is the caller's own, to be written into.
        """
        count = self.count(part)
        if generator is None:
            order = torch.arange(count)
        else:
            order = torch.randperm(count, generator=generator)
        batches = list(order.split(size))
        if generator is not None and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for rows in batches:
            yield self.batch(part, rows)

    def batch(self, part: str, rows: torch.Tensor) -> Batch:
        """Normalised images and targets of these rows of a part, int64 [B]."""
        key = part, rows.numpy().tobytes()
        if key not in self._kept:
            made = self._made(self._parts[part], rows)
            size = sum(value.nbytes for value in made)
            if size > self._room:
                return made
            self._room -= size
            self._kept[key] = made
        images, targets = self._kept[key]  # clones: networks and measures may write into them
        return images.clone(), targets.clone()

    def colours(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images [B, C, H, W] as they are stored, in [0, 1]."""
        return images * self._std + self._mean

    def _made(self, images: "_Part", rows: torch.Tensor) -> Batch:
        """A batch, decoded and normalised."""
        at = images.index[rows.to(images.index.device)]
        batch = images.pixels[at].to(self.device).float() / 255
        batch = (batch - self._mean) / self._std
        targets = images.values[images.places[rows]]
        if self.task.label is None:
            targets = self.target.encode(targets).to(self.device)
        return batch.contiguous(memory_format=torch.channels_last), targets

    def _strata(self, annotations: torch.Tensor | None) -> np.ndarray:
        """What samples of the slice keep in proportion, int64 [images of the slice]."""
        if self.task.label is not None:
            return self.target.strata(self.task.label)
        return self.target.strata(annotations.numpy())[self.task.index]


def _read(
    task: Slice, images: Path | store.TensorFile, derived: Path | store.TensorFile | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Images uint8 [N, C, H, W] and annotations [N, …], if any, mapped: read as they are used.

    Raises:
        UserError: missing or damaged file, or images that are not the slice's.
    """
    file = _opened(images, "dataset")
    tensors, facts, images = file.tensors(), file.facts, file.path
    pixels = tensors["images"]
    rows = int(task.index.max(initial=-1))
    if facts["dataset"] != task.facts["dataset"] or pixels.shape[1:] != task.image_shape:
        raise UserError(
            f"{images}: images of {facts['dataset']}, {tuple(pixels.shape[1:])}, but the slice is "
            f"of {task.facts['dataset']}, {task.image_shape}; give its own"
        )
    if facts["sha256"] != task.facts["images"]:
        raise UserError(
            f"{images}: not the images that {task.path} was made of; run the stage task again"
        )
    if rows >= len(pixels):
        raise UserError(f"{images}: {len(pixels)} images, but the slice names number {rows}")
    if task.label is not None:
        return pixels, None
    if task.facts.get("derived"):
        return pixels, _derived(task, derived)
    found = tensors.get(task.facts.get("of", "annotations"))
    if found is None:
        raise UserError(
            f"{images}: no annotations, but task {task.name} takes them for targets of the kind "
            f"{task.facts['target']['kind']}; its data set has class numbers alone"
        )
    return pixels, found


def _derived(task: Slice, file: Path | store.TensorFile | None) -> torch.Tensor:
    """The values [N, …] of a task's modality, mapped.

    Raises:
        UserError: no file, or not that which the slice was made of.
    """
    of = task.facts["of"]
    if file is None:
        raise UserError(
            f"{task.path}: its targets are the derived modality {of!r}, whose file is not given; "
            "if the configuration no longer derives it, run the stage task again"
        )
    file = _opened(file, "derive")
    if file.facts["sha256"] != task.facts["annotations"]:
        raise UserError(
            f"{file.path}: not the values that {task.path} was made of; run the stage task again"
        )
    return file.tensors()[of]


def _opened(file: Path | store.TensorFile, stage: str) -> store.TensorFile:
    """A file of a stage, which a job may have opened before."""
    opened = file if isinstance(file, store.TensorFile) else store.TensorFile(file)
    store.expect_stage(opened.path, opened.facts, stage)
    return opened


@dataclass(frozen=True)
class _Part:
    """Images of one part: rows ``index`` of ``pixels``, uint8 [N, C, H, W], and their targets.

    These are ``places`` of ``values``, where they were read: labels of the part, or annotations of
    all the data set's images, mapped.
    """

    pixels: torch.Tensor
    index: torch.Tensor
    values: torch.Tensor
    places: torch.Tensor

    def on(self, device: torch.device) -> "_Part":
        """The same with its images on a GPU, if they take no more than half of what is free."""
        if len(self.index) * self.pixels[0].nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        rows = torch.arange(len(self.index), device=device)
        return _Part(self.pixels[self.index].to(device), rows, self.values, self.places)
