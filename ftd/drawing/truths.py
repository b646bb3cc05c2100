"""Measures beside what sources are truly worth: points by target, and heat maps of ranks."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ftd.drawing.heatmaps import fit_names
from ftd.drawing.style import (
    MISSING,
    SMALL,
    across,
    drawing,
    label_below,
    marked,
    matplotlib,
    short,
)

_ACROSS = 4
_LETTERS = 16  # of a name


def scatter(pairs: pd.DataFrame, out: Path, *, measure: str, worth: str) -> None:
    """A panel a target: each source's number of a measure against what it is worth.

    Args:
        pairs: columns ``target``, ``number``, ``worth`` and ``truth``, a colour each; a row a
            source and truth, such as its means over trials.
        measure: what the numbers are, with the direction that is nearer.
        worth: what a source is worth, and its unit.
    """
    targets, truths = (list(dict.fromkeys(pairs[key])) for key in ("target", "truth"))
    rows, columns = across(len(targets), _ACROSS)
    size = {"height": 1.7 * rows + 1.0, "title": f"What sources are worth, by {measure}"}
    with drawing(out, rows, columns, **size, sharey=True) as (figure, panels):
        for axes, target in zip(panels.flat, targets, strict=False):
            own = pairs[pairs["target"] == target]
            for number, truth in enumerate(truths):
                points = own[own["truth"] == truth]
                look = marked(number) | {"ls": "", "ms": 3, "label": truth}
                axes.plot(points["number"], points["worth"], **look)
            axes.axhline(0, lw=0.8, color=MISSING, zorder=0)
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            axes.set_title(f"to {short(target, _LETTERS)}")
        for axes in panels.flat[len(targets) :]:
            axes.axis("off")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3)
        label_below(panels, len(targets), measure)
        figure.supylabel(worth, fontsize="medium")


def ranks(numbers: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Heat maps side by side: the rank of each source (rows) for each target (columns).

    The darkest is a target's first source; ties share their mean rank, missing pairs are grey.

    Args:
        numbers: by title, square [source, target], larger is nearer or worth more.
    """
    rows, columns = across(len(numbers), 3)
    size = {"height": 1.85 * rows + 1.5, "title": "Ranks of sources"}
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=MISSING)
    size |= {"sharex": True, "sharey": True, "layout": "compressed"}
    with drawing(out, rows, columns, **size) as (figure, panels):
        for axes in panels.flat[len(numbers) :]:
            axes.axis("off")
        for axes, (title, values) in zip(panels.flat, numbers.items(), strict=False):
            last = max(len(values) - 1, 2)
            places = values.rank(axis=0, ascending=False)
            picture = axes.imshow(places.to_numpy(), cmap=colours, vmin=1, vmax=last)
            axes.set_title(short(title, _LETTERS + 8), size=SMALL)
        figure.supxlabel("target task", fontsize="medium")
        figure.supylabel("source task", fontsize="medium")
        if numbers:
            bar = figure.colorbar(picture, ax=panels, shrink=0.6, label="rank among the sources")
            bar.locator = matplotlib.ticker.MaxNLocator(5, integer=True)
            names = [short(name, _LETTERS) for name in values.columns]
            fit_names(figure, panels, names, names)


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
