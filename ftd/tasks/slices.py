"""Slices: a task is a data set's cut, filtered and, where it has labels, relabelled."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftd import store
from ftd.config import Task
from ftd.errors import UserError
from ftd.parts import TARGETS, resolve
from ftd.tasks.class_slices import Sliced
from ftd.tasks.cut import PARTS
from ftd.tasks.foreign import named
from ftd.tasks.frames import seen
from ftd.tasks.targets import Target

if TYPE_CHECKING:
    import pyarrow as pa

_MEMBERS = ("outputs", "metric", *(name for name in vars(Target) if not name.startswith("_")))
"""What a target has."""


@dataclass(frozen=True)
class Slice:
    """A task's images by number: arrays of equal length, and what the labels are called.

    Attributes:
        index: int64, rows of the data set's image array.
        label: int64 in [0, len(labels)); ``None``: the data set's annotations are the targets.
        part: strings out of ``PARTS``.
        labels: names, by label index.
        facts: data set, image shape, mean and standard deviation, settings, seed, versions, and
            ``sha256``, the slice's own checksum.
        path: its file, for messages.
    """

    index: np.ndarray
    label: np.ndarray | None
    part: np.ndarray
    labels: list[str]
    facts: dict
    path: Path

    @property
    def name(self) -> str:
        """The task's name."""
        return self.facts["task"]

    @property
    def target(self) -> Target:
        """What networks for this task must give, and how it is judged.

        Raises:
            UserError: a kind of target that no part has, or whose part gives none.
        """
        return target_of(self.path, self.facts["target"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        image = self.facts["image"]
        return image["channels"], image["size"], image["size"]


def target_of(path: Path, about: dict) -> Target:
    """The target that an artifact's facts describe under ``target``.

    Args:
        about: ``kind``, the ``labels``' names, and the task's ``settings``.

    Raises:
        UserError: a kind of target that no part has, or whose part gives none; ``path`` names the
            artifact.
    """
    try:
        kind = TARGETS.get(about["kind"])
    except ValueError as error:
        raise UserError(f"{path}: {error}; load the plugin that brings it") from error
    what = f"{path}: target {about['kind']!r}"
    with named(f"{what} failed"):
        target = resolve(kind.make)(about)
    if missing := [name for name in _MEMBERS if not hasattr(target, name)]:
        raise UserError(
            f"{what}: expected an ftd.Target, got {type(target).__name__} without "
            f"{', '.join(missing)}"
        )
    return target


def slice_cut(task: str, settings: Task, cut: "pa.Table", facts: dict, seed: int) -> Sliced:
    """Filter and relabel a cut as a task says.

    Args:
        cut: ``index``, ``part`` and, where the data set has classes, ``class``.
        facts: the cut's.
        seed: of what is drawn.

    Raises:
        UserError: what its kind of target says is wrong, or a part without images.
    """
    part = np.array([value or "" for value in cut["part"].to_pylist()])
    kind = TARGETS.get(settings.target)
    if kind.slice is not None:
        what = f"tasks.{task}: the slice of target {settings.target!r}"
        with named(f"{what} failed"):
            sliced = resolve(kind.slice)(task, settings, cut, facts, part, seed)
        if not isinstance(sliced, Sliced):
            raise UserError(f"{what}: expected a Sliced, got {type(sliced).__name__}")
        return sliced
    rows = np.flatnonzero(part != "")
    labelled = "class" in cut.column_names and not hasattr(settings, "of")
    return Sliced(rows, part[rows], cut["class"].to_numpy()[rows] if labelled else None, [])


def with_values(sliced: Sliced, values: np.ndarray) -> Sliced:
    """A slice without the images of which nothing was measured.

    Args:
        values: a modality of all images of the data set, as ``ftd.tasks.frames.Values`` has it.
    """
    silent = [not seen(values[row]).any() for row in sliced.rows]
    kept = ~np.array(silent, bool)
    return replace(sliced, rows=sliced.rows[kept], part=sliced.part[kept])


def measured(task: str, settings: Task, values: np.ndarray, sliced: Sliced) -> dict:
    """What a kind of target is to know of a modality of the slice's images.

    Args:
        values: as ``with_values`` takes them.

    Raises:
        UserError: what the kind says is wrong with them.
    """
    kind = TARGETS.get(settings.target)
    if kind.describe is None:
        return {}
    rows = {part: sliced.rows[sliced.part == part] for part in PARTS}
    with named(f"tasks.{task}: target {settings.target!r} failed"):
        try:
            return dict(resolve(kind.describe)(settings, values, rows))
        except UserError as error:
            raise UserError(f"tasks.{task}.{error}") from error


def read_slice(path: Path) -> Slice:
    """Read a slice.

    Raises:
        UserError: missing or damaged file, or no slice.
    """
    return slice_of(Path(path), store.read_table(path, stage="task"))


def slice_of(path: Path, table: "pa.Table") -> Slice:
    """The slice that a table holds; ``path``: its file, for messages."""
    facts = store.table_facts(table)
    label = table["label"].to_numpy() if "label" in table.column_names else None
    part = np.array(table["part"].to_pylist())
    return Slice(table["index"].to_numpy(), label, part, facts["labels"], facts, path)


def check_parts(task: str, sliced: Sliced) -> None:
    """Raises a ``UserError`` if a part has no image."""
    empty = [name for name in PARTS if not (sliced.part == name).any()]
    if empty:
        raise UserError(f"tasks.{task}: no image is left for part {', '.join(map(repr, empty))}")
