"""Heat maps: of pairs of tasks, of the layers' shares in them, and of weights."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftd.drawing.style import (
    MAGNITUDES,
    MISSING,
    SIGNED,
    SMALL,
    drawing,
    ink,
    matplotlib,
    short,
    width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_IN_ORDER = 40  # tasks: more are arranged by how near they are
_CELL = 0.7  # inches, at most
_LARGEST = 5.0  # inches, of a map
_LEGIBLE = 5.0  # points: values that would be smaller are left out
_ROWS = 40  # of layers' shares
_LINE = 0.2  # inches, of such a row
_BESIDE = 1.17  # of a size, from one line to the next
_HALF = 18  # letters, of a name beside another


def matrices(
    pairs: pd.DataFrame, values: pd.Series, order: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (ddof 1; 0 for one trial) of pairs' values over trials.

    Args:
        pairs: columns ``source`` and ``target``; a row a pair and trial.
        values: one for each row.

    Returns:
        Both with ``order`` as rows (source) and columns (target); NaN where a pair has no value.
    """
    groups = values.groupby([pairs["source"], pairs["target"]])
    mean = groups.mean().unstack().reindex(index=order, columns=order)
    std = groups.std().unstack().reindex(index=order, columns=order)
    return mean, std.fillna(0.0).where(mean.notna())


def arranged(values: pd.DataFrame, *, higher: bool = False) -> list[str]:
    """The tasks of a matrix in the order in which they are shown.

    Up to 40 stay in their own; of more, near ones come next to each other, by clustering with
    average linkage of the mean of both directions (Sokal & Michener 1958, UPGMA).

    Args:
        values: [source, target], of equal names; NaN: not known, taken for the farthest.
        higher: whether larger values are the nearer sources'.
    """
    names = list(values.columns)
    if len(names) <= _IN_ORDER:
        return names
    from scipy.cluster import hierarchy  # half a second, which few tasks do not need
    from scipy.spatial.distance import squareform

    far = values.to_numpy(float, copy=True)
    np.fill_diagonal(far, np.nan)
    known = np.isfinite(far)
    low, high = far.min(where=known, initial=np.inf), far.max(where=known, initial=-np.inf)
    far = np.where(known, high - far if higher else far - low, max(high - low, 0.0))
    both = (far + far.T) / 2
    tree = hierarchy.linkage(squareform(both, checks=False), "average")
    return [names[place] for place in hierarchy.leaves_list(tree)]


def matrix(values: pd.DataFrame, out: Path, *, title: str, digits: str = ".2f") -> None:
    """Heat map, rows: source, columns: target, of any values; missing ones are grey.

    As figures 1 to 4 of Le et al. 2022, with the value in every cell where it can be read.
    The brightest colour stands for 0, or for the smallest value if that is less.

    Args:
        values: square, equal names of rows and columns.
        digits: format of a cell's value.
    """
    low, high = _range(values.to_numpy(float))
    with _of_shape(values, out, title) as (figure, panels):
        picture = _colours(panels[0, 0], values, MAGNITUDES, low, high)
        panels[0, 0].set(xlabel="target task", ylabel="source task")
        figure.colorbar(picture, ax=panels, shrink=0.8)
        names = _names(values)
        fit_names(figure, panels, names, names)
        _write_values(panels[0, 0], picture, values, digits)


def shares(table: pd.DataFrame, out: Path, *, of: str) -> None:
    """Contributions by layer, mean over trials: a row a pair of tasks, a column a layer.

    Colours have their middle at 0 where some contribution is below it.

    Args:
        table: ``source``, ``target``, ``layer``, ``contribution``, of all rows that are shown
            and in their order (see ``sources_shown``); layers in the network's.
        of: what the contributions add up to.
    """
    pairs = list(dict.fromkeys(zip(table["target"], table["source"], strict=True)))
    values = table.pivot(index=["target", "source"], columns="layer", values="contribution")
    values = values.reindex(index=pairs, columns=list(dict.fromkeys(table["layer"])))
    rows = [f"{short(target, _HALF)} ← {short(source, _HALF)}" for target, source in pairs]
    low, high = _range(values.to_numpy(float))
    if low < 0:
        high = max(-low, high)
        low = -high
    title, height = f"Shares of {of}, by layer", _LINE * len(rows) + 2.2
    with drawing(out, height=height, title=title) as (figure, panels):
        picture = _colours(panels[0, 0], values, SIGNED if low < 0 else MAGNITUDES, low, high)
        panels[0, 0].set_aspect("auto")
        panels[0, 0].set(xlabel="layer", ylabel="target ← source")
        figure.colorbar(picture, ax=panels, aspect=30, fraction=0.05)
        fit_names(figure, panels, rows, [short(name) for name in values.columns])
        _write_values(panels[0, 0], picture, values, "#.2g")


def sources_shown(targets: int) -> int:
    """Of each target, in a figure that has a row for each of its nearest sources: 1 to 5."""
    return min(5, max(1, _ROWS // max(targets, 1)))


def weights(values: pd.DataFrame, out: Path) -> None:
    """How much each learned task (rows) counts in the search of a target (columns), in [0, 1].

    Args:
        values: square, equal names of rows and columns; NaN: no source of that target.
    """
    with _of_shape(values, out, "Weights of learned tasks in a task's search") as (figure, panels):
        picture = _colours(panels[0, 0], values, MAGNITUDES, 0, 1)
        panels[0, 0].set(xlabel="target task", ylabel="learned task")
        figure.colorbar(picture, ax=panels, shrink=0.8, label="weight")
        names = _names(values)
        fit_names(figure, panels, names, names)
        _write_values(panels[0, 0], picture, values, ".2f")


def _names(values: pd.DataFrame) -> list[str]:
    """Of tasks; of many, shorter ones leave the map its room."""
    return [short(name, 28 if len(values) <= 20 else _HALF) for name in values.columns]


def _of_shape(values: pd.DataFrame, out: Path, title: str):
    """A drawing with room for a map of this shape."""
    height = len(values) * min(_CELL, _LARGEST / max(len(values), 1))
    return drawing(out, height=height + 2.2, title=title, layout="compressed")


def _range(cells: np.ndarray) -> tuple[float, float]:
    """What the brightest and the darkest colour stand for."""
    finite = cells[np.isfinite(cells)]
    low = min(0.0, finite.min(initial=0.0))
    high = finite.max(initial=low)
    return low, high if high > low else low + 1.0


def _colours(axes: "Axes", values: pd.DataFrame, name: str, low: float, high: float) -> "AxesImage":
    colours = matplotlib.colormaps[name].with_extremes(bad=MISSING)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2)
    return axes.imshow(values.to_numpy(float), cmap=colours, vmin=low, vmax=high)


def fit_names(figure: "Figure", panels: np.ndarray, rows: list[str], columns: list[str]) -> None:
    """Name rows and columns of maps, as many as have room; upright what is too wide for its cell.

    Args:
        panels: all with maps of this shape, or without one.
    """
    shown = [axes for axes in panels.flat if axes.images]
    for axes in shown:
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
    figure.draw_without_rendering()
    for axes in shown:
        across, down = _cell(axes)
        room = _BESIDE * SMALL
        flat = max(width(f"{name} ", SMALL) for name in columns) < across
        step = 1 if flat else math.ceil(room / across)
        angle = 0 if flat else 90
        axes.set_xticks(range(0, len(columns), step), columns[::step], rotation=angle)
        step = math.ceil(room / down)
        axes.set_yticks(range(0, len(rows), step), rows[::step])
    figure.draw_without_rendering()


def _cell(axes: "Axes") -> tuple[float, float]:
    """Width and height in points of a cell of a map that has been laid out."""
    extent, (rows, columns) = axes.get_window_extent(), axes.images[0].get_array().shape
    return extent.width / columns, extent.height / rows


def _write_values(axes: "Axes", picture: "AxesImage", values: pd.DataFrame, digits: str) -> None:
    """Write every value into its cell, if all can be read there."""
    cells = values.to_numpy(float)
    texts = {
        place: f"{value:{digits}}" for place, value in np.ndenumerate(cells) if not np.isnan(value)
    }
    across, down = _cell(axes)
    longest = max(texts.values(), key=len, default="0")  # digits are of one width
    size = min(8.0, 0.8 * across / width(longest, 1), 0.7 * down)
    if size < _LEGIBLE:
        return
    for (row, column), text in texts.items():
        colour = ink(picture.to_rgba(cells[row, column]))
        axes.text(column, row, text, ha="center", va="center", color=colour, size=size)
