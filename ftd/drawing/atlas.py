"""A map of tasks: near ones stand close to each other, arrows lead to each one's nearest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ftd.drawing.style import LINE, WIDTH, drawing, matplotlib, short
from ftd.drawing.style import width as width_of

_SIZE = 9  # points, of letters; less where labels would not fit beside each other
_HEIGHT = 2.2 * _SIZE  # of a label
_HEAD = 3.5 * LINE * _SIZE  # points above the map, for the title
_WIDER = 1.1  # than in Matplotlib's own font, where a reader has another
_GAP = 6.0  # points between two labels
_LEAST = 250.0  # points from the first to the last of few tasks
_ARROWS = ("black", "0.55", "0.8")  # to the nearest task, the second, the third


def atlas(values: pd.DataFrame, out: Path, *, title: str, higher: bool = False) -> None:
    """Tasks in the plane, with an arrow from each to its nearest three sources.

    Places are those of classical scaling (``places``), moved apart where labels would overlap.

    Args:
        values: rows are sources, columns are targets, of equal names; NaN: not known.
        higher: whether larger values are the nearer sources'; the largest is then at distance 0.
    """
    names, far = list(values.columns), values.to_numpy(float, copy=True)
    np.fill_diagonal(far, np.nan)  # a task's number to itself may be of another size
    if higher:
        far = np.max(far, where=~np.isnan(far), initial=-np.inf) - far
    shown = [short(name) for name in names]
    sizes = np.array([(_WIDER * width_of(name, _SIZE) + _SIZE, _HEIGHT) for name in shown])
    centres = apart(_spread(places(far), sizes), sizes)
    low, high = (centres - sizes / 2).min(0) - _GAP, (centres + sizes / 2).max(0) + _GAP
    scale = min(1.0, 72 * WIDTH / (high[0] - low[0]))
    side = 36 * WIDTH / scale
    middle = (low[0] + high[0]) / 2
    tall = scale * (high[1] - low[1]) + _HEAD
    with drawing(out, height=tall / 72, title=title, layout="none") as (_, panels):
        axes = panels[0, 0]
        axes.set_position([0, 0, 1, 1])
        axes.set(xlim=(middle - side, middle + side), ylim=(low[1], low[1] + tall / scale))
        axes.axis("off")
        for place, target in reversed(list(enumerate(names))):
            known = np.flatnonzero(~np.isnan(far[:, place]))
            order = known[np.argsort(far[known, place], kind="stable")]
            for rank, source in reversed(list(enumerate(order[: len(_ARROWS)]))):
                end = _edge(centres[place], centres[source], sizes[source])
                arrow = matplotlib.patches.FancyArrowPatch(centres[place], end, arrowstyle="-|>")
                arrow.set_mutation_scale(10 * scale)
                arrow.set(color=_ARROWS[rank], lw=1.4 - 0.3 * rank, zorder=2 - rank / 10)
                arrow.set_gid(f"{target}-{rank + 1}-{names[source]}")
                axes.add_patch(arrow)
        for name, centre in zip(shown, centres, strict=True):
            box = {"boxstyle": "round", "fc": "w", "ec": "0.5"}
            own = {"ha": "center", "va": "center", "bbox": box, "zorder": 3}
            axes.text(*centre, name, size=_SIZE * scale, **own)


def _edge(start: np.ndarray, end: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Where the way from a point to a label's centre meets the label."""
    way = start - end
    steps = size / 2 / np.maximum(np.abs(way), 1e-9)
    return end + way * min(1.0, steps.min())


def places(far: np.ndarray) -> np.ndarray:
    """Points [N, 2] whose distances are nearly those given, by classical scaling.

    Torgerson, *Multidimensional scaling: I*, Psychometrika 1952: the two largest eigenvalues of
    −½ J D² J, for the mean D of both directions; the sign of an axis is that of its largest entry.

    Args:
        far: [N, N], at least 0; NaN: not known, taken for the largest; the diagonal for 0.
    """
    both = np.stack([far, far.T])
    known = ~np.isnan(both)
    sums = np.where(known, both, 0).sum(0)
    count = known.sum(0)
    largest = np.nanmax(far, initial=0.0)
    mean = np.where(count > 0, sums / np.maximum(count, 1), largest)
    np.fill_diagonal(mean, 0)
    centred = np.eye(len(far)) - 1 / len(far)
    found, vectors = np.linalg.eigh(-centred @ mean**2 @ centred / 2)
    axes = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(found[::-1][:2], 0))
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    signs = np.sign(axes[np.abs(axes).argmax(0), range(2)])
    return axes * np.where(signs == 0, 1, signs)


def _spread(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Points such that labels of these sizes would fill about a fifth of their square, or less."""
    extent = np.ptp(points, axis=0).max()
    side = max(np.sqrt(5 * sizes.prod(1).sum()), _LEAST)
    return points * (side / extent if extent > 0 else 0.0)


def _grid(count: int, cell: np.ndarray) -> np.ndarray:
    """Points [N, 2], row by row, of cells of a size (width, height) that fill about a square."""
    across = max(1, round(np.sqrt(count * cell[1] / cell[0])))
    rows, columns = np.divmod(np.arange(count), across)
    return np.stack([columns, -rows], 1) * cell


def apart(centres: np.ndarray, sizes: Sequence | np.ndarray, gap: float = _GAP) -> np.ndarray:
    """Centres [N, 2] of labels of sizes [N, 2] that do not overlap, near to those given.

    Two that do are pushed apart, each by half, along the axis that takes less; what does not end
    is spread. Where all are in one place, they start on a grid.
    """
    centres, sizes = np.array(centres, float), np.asarray(sizes, float)
    if np.ptp(centres, axis=0).max() < 1e-3:
        centres += _grid(len(centres), sizes.max(0) + 2 * gap)
    turn = 2 * np.pi * np.arange(len(centres)) / max(len(centres), 1)
    centres += 1e-3 * np.stack([np.cos(turn), np.sin(turn)], 1)  # equal ones have a direction
    first = np.sign(np.arange(len(centres))[:, None] - np.arange(len(centres)))  # of equal ones
    room = (sizes[:, None] + sizes[None]) / 2 + gap
    for step in range(10_000):
        between = centres[:, None] - centres[None]
        overlap = room - np.abs(between)
        overlap[np.diag_indices(len(centres))] = 0
        touching = (overlap > 1e-6).all(-1)
        if not touching.any():
            return centres
        along = overlap.argmin(-1)
        push = np.take_along_axis(overlap, along[..., None], -1)[..., 0] * touching
        way = np.take_along_axis(between, along[..., None], -1)[..., 0]
        moves = push * np.where(way == 0, first, np.sign(way)) / 2
        for axis in range(2):
            centres[:, axis] += (moves * (along == axis)).sum(1)
        if step % 50 == 49:
            centres *= 1.1
    raise AssertionError("labels that cannot be told apart")
