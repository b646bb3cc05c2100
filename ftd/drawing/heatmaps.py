"""Pairs of tasks: heat maps of their distances, and the layers' shares in them."""

from pathlib import Path

import numpy as np
import pandas as pd

from ftd.drawing.style import drawing, matplotlib

_CELLS_WITH_VALUES = 30  # tasks: a larger heat map has colours only, and names here and there
_MISSING = "0.8"  # a grey
_DARK = 0.6  # of the colours' range: from here on values are written in white


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


def matrix(values: pd.DataFrame, out: Path, *, title: str, digits: str = ".2f") -> None:
    """Heat map, rows: source, columns: target, of any values; missing ones are grey.

    In the style of Le et al. 2022, figures 1 to 4, with the value in every cell (of few tasks).
    The palest colour stands for 0, or for the smallest value if that is less.

    Args:
        values: square, equal names of rows and columns.
        digits: format of a cell's value.
    """
    order = list(values.columns)
    cells = values.to_numpy()
    low, high = _range(cells)
    shown = min(len(order), _CELLS_WITH_VALUES)
    side = 1.6 + 0.75 * shown
    with drawing(out, figsize=(side + 1.2, side)) as (figure, panels):
        axes = panels[0, 0]
        colours = matplotlib.colormaps["Blues"].with_extremes(bad=_MISSING)
        picture = axes.imshow(cells, cmap=colours, vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(cells if shown == len(order) else np.empty(0)):
            if not np.isnan(value):
                dark = low + _DARK * (high - low) < value < np.inf
                colour = "white" if dark else "black"
                axes.text(column, row, f"{value:{digits}}", ha="center", va="center", color=colour)
        step = -(-len(order) // shown)
        axes.set_xticks(range(0, len(order), step), order[::step], rotation=30, ha="right")
        axes.set_yticks(range(0, len(order), step), order[::step])
        axes.set_xlabel("target task")
        axes.set_ylabel("source task")
        axes.set_title(title)
        figure.colorbar(picture, ax=axes, shrink=0.8)


def _range(cells: np.ndarray) -> tuple[float, float]:
    """What the palest and the darkest colour stand for."""
    finite = cells[np.isfinite(cells)]
    low = min(0.0, finite.min(initial=0.0))
    high = finite.max(initial=low)
    return low, high if high > low else low + 1.0


def shares(parts: pd.DataFrame, sources: dict[str, list[str]], out: Path, *, of: str) -> None:
    """Contributions by layer, mean over trials: a panel a target, a line a source.

    Args:
        parts: columns ``source``, ``target``, ``layer``, ``contribution``; layers in their order.
        sources: by target, in order, those that are shown.
        of: what the contributions add up to.
    """
    names = list(dict.fromkeys(parts["layer"]))
    mean = parts.groupby(["target", "source", "layer"])["contribution"].mean()
    size = _size(names, sources)
    with drawing(out, len(sources), sharex=True, figsize=size, layout="constrained") as drawn:
        figure, panels = drawn
        for (target, shown), axes in zip(sources.items(), panels[:, 0], strict=True):
            for source in shown:
                line = mean[target, source].reindex(names)
                axes.plot(range(len(names)), line, ".-", lw=0.8, label=source)
            axes.set_title(f"to {target}", loc="left")
            if not (mean < 0).any():
                axes.set_ylim(0)
            axes.legend(fontsize="small", title="from", loc="center left", bbox_to_anchor=(1, 0.5))
        panels[-1, 0].set_xticks(range(len(names)), names, rotation=90, fontsize="small")
        figure.supylabel(f"share of {of}")


def _size(layers: list[str], sources: dict[str, list[str]]) -> tuple[float, float]:
    """Inches of panels with a legend beside and layers' names below, which leave them some room.

    A letter of a legend takes up to 0.115, of a module's name 0.07 on average.
    """
    longest = max((len(source) for shown in sources.values() for source in shown), default=0)
    width = max(3 + 0.25 * len(layers), 1.5 + 0.115 * longest)
    height = max(1.8 * len(sources), 0.6 * len(sources) + 0.08 * max(map(len, layers), default=0))
    return width, height
