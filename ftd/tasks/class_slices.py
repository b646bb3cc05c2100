"""Slices of class labels: which images, and which label each."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftd.config import Task
from ftd.errors import UserError
from ftd.names import did_you_mean, one_form
from ftd.runtime.seeds import seed_of
from ftd.tasks.cut import PARTS
from ftd.tasks.labels import REST

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Sliced:
    """A task's images.

    Attributes:
        rows: of the cut, int64.
        part: the part of each.
        label: int64 of each; ``None``: the data set's annotations are the targets.
        names: of the labels.
    """

    rows: np.ndarray
    part: np.ndarray
    label: np.ndarray | None
    names: list[str]


def slice_classes(
    task: str, settings: Task, cut: "pa.Table", facts: dict, part: np.ndarray, seed: int
) -> Sliced:
    """The images of a task's labels; see ``ftd.tasks.slices.slice_cut``.

    Raises:
        UserError: unknown class, a class in two labels, or a part or label without images.
    """
    if "class" not in cut.column_names:
        raise UserError(f"tasks.{task}: data set {settings.dataset!r} has no classes to label")
    classes = {int(number): name for number, name in facts["classes"].items()}
    grows = facts.get("settings", {}).get("loader") != "sklearn-digits"  # which a package ships
    members = _members(task, settings, classes, grows)
    source = cut["class"].to_numpy()
    label = np.full(len(source), -1)
    for position, numbers in enumerate(members.values()):
        label[np.isin(source, list(numbers))] = position
    keep = (label >= 0) & (part != "")
    _check_filled(task, list(members), label[keep], part[keep])
    if settings.balance and settings.rest is not None:
        keep &= _balanced(source, label, part, keep, settings.rest, seed_of("balance", seed))
    return Sliced(np.flatnonzero(keep), part[keep], label[keep], list(members))


def _members(
    task: str, settings: Task, classes: dict[int, str], grows: bool
) -> dict[str, set[int]]:
    """Class numbers by label name, in label order."""
    if settings.labels == "all":
        if len(classes) < 2:
            one = ", ".join(map(repr, classes.values()))
            raise UserError(
                f"tasks.{task}.labels: data set {settings.dataset!r} has the class {one} alone; a "
                "task needs at least two labels"
            )
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
        found = "\n".join(f"tasks.{task}.labels.{problem}" for problem in problems)
        if grows and "has no class" in found:
            found += (
                f"\nif {settings.dataset!r} has got new classes since it was read, read it again: "
                f"snakemake -R dataset, or ftd dataset --dataset {settings.dataset}"
            )
        raise UserError(found)
    return members


def _class_number(item: int | str, classes: dict[int, str]) -> int:
    """The class that a number or a name means; ``ValueError`` if there is none, or two."""
    wanted = one_form(str(item))
    named = [number for number, name in classes.items() if one_form(name) == wanted]
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
        raise ValueError(f"has no class {item!r}{did_you_mean(wanted, known)}")
    return named[0]


def _balanced(
    source: np.ndarray, label: np.ndarray, part: np.ndarray, keep: np.ndarray, rest: int, seed: int
) -> np.ndarray:
    """Mask with as many images of the rest, in every part, as a named class has on average.

    An indicator has as many of the rest as indicated ones; if there are fewer, these are thinned
    out. What is left out is drawn at random, evenly over its source classes.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(source), bool)
    labels = range(label.max() + 1)
    for name in PARTS:
        rows = [np.flatnonzero(keep & (part == name) & (label == which)) for which in labels]
        named = np.concatenate([rows[which] for which in labels if which != rest])
        classes = 1 if len(labels) == 2 else len(np.unique(source[named]))
        cap = min(len(rows[rest]), math.floor(len(named) / classes + 0.5))
        for which in labels:
            thinned = which == rest or len(labels) == 2
            mask[_evenly(source, rows[which], cap, rng) if thinned else rows[which]] = True
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
