"""Measures beside what sources are truly worth: points by target, and heat maps of ranks."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ftd.drawing.style import drawing, matplotlib

_ACROSS = 4
_NAMED = 15  # tasks: the names of more would lie over each other
_MISSING = "0.8"  # a grey


def scatter(pairs: pd.DataFrame, out: Path, *, measure: str, worth: str) -> None:
    """A panel a target: each source's number of a measure against what it is worth.

    Args:
        pairs: columns ``target``, ``number``, ``worth`` and ``truth``, a colour each; a row a
            source and truth, such as its means over trials.
        measure: what the numbers are, with the direction that is nearer.
        worth: what a source is worth, and its unit.
    """
    targets, truths = (list(dict.fromkeys(pairs[key])) for key in ("target", "truth"))
    rows, columns = _grid(len(targets))
    size = (3 * columns, 2.6 * rows + 0.5)
    with drawing(out, rows, columns, figsize=size, layout="constrained") as (figure, panels):
        for axes, target in zip(panels.flat, targets, strict=False):
            own = pairs[pairs["target"] == target]
            for number, truth in enumerate(truths):
                points = own[own["truth"] == truth]
                colour = f"C{number % 10}"
                axes.plot(points["number"], points["worth"], "o", ms=4, color=colour, label=truth)
            axes.axhline(0, lw=0.8, color="0.8", zorder=0)
            axes.set_title(f"to {target}", loc="left", fontsize="medium")
        for axes in panels.flat[len(targets) :]:
            axes.axis("off")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        figure.supxlabel(measure)
        figure.supylabel(worth)


def ranks(numbers: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Heat maps side by side: the rank of each source (rows) for each target (columns).

    The darkest is a target's first source; ties share their mean rank, missing pairs are grey.

    Args:
        numbers: by title, square [source, target], larger is nearer or worth more.
    """
    rows, columns = _grid(len(numbers))
    count = max((len(each) for each in numbers.values()), default=0)
    side = 1.3 + 0.16 * min(count, _NAMED)
    size = (side * columns + 1, side * rows + 0.5)
    colours = matplotlib.colormaps["Blues_r"].with_extremes(bad=_MISSING)
    with drawing(out, rows, columns, figsize=size, layout="constrained") as (figure, panels):
        for axes in panels.flat[len(numbers) :]:
            axes.axis("off")
        for axes, (title, values) in zip(panels.flat, numbers.items(), strict=False):
            places = values.rank(axis=0, ascending=False)
            picture = axes.imshow(places.to_numpy(), cmap=colours, vmin=1, vmax=max(count - 1, 2))
            step = -(-count // _NAMED)
            shown = range(0, len(values), step)
            axes.set_xticks(shown, values.columns[::step], rotation=90, fontsize="xx-small")
            axes.set_yticks(shown, values.index[::step], fontsize="xx-small")
            axes.set_title(title, fontsize="small")
        figure.supxlabel("target task")
        figure.supylabel("source task")
        if numbers:
            figure.colorbar(picture, ax=panels, shrink=0.6, label="rank among the sources")


def matrix(table: pd.DataFrame, column: str, order: list[str]) -> pd.DataFrame:
    """Means of a column over trials, [source, target]; NaN for a task to itself.

    Args:
        table: ``source``, ``target`` and the column.
        order: all tasks.
    """
    rows = table[table["source"] != table["target"]]
    means = rows.groupby(["source", "target"])[column].mean().unstack()
    return pd.DataFrame(means).reindex(index=order, columns=order)


def points(numbers: pd.DataFrame, worth: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What ``scatter`` takes, of matrices [source, target]; worth in hundredths, by truth."""
    parts = [
        pd.DataFrame({"number": numbers.unstack(), "worth": 100 * values.unstack()})
        .rename_axis(["target", "source"])
        .reset_index()
        .assign(truth=name)
        .dropna()
        for name, values in worth.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _grid(count: int) -> tuple[int, int]:
    """Rows and columns of so many panels."""
    columns = max(1, min(_ACROSS, count))
    return max(1, math.ceil(count / columns)), columns
