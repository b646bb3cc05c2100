"""Learning curves of probes: what each epoch came to, and what was to be reached."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ftd.drawing.style import (
    PALETTE,
    SECONDARY,
    across,
    drawing,
    label_below,
    matplotlib,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 12
"""Tasks with panels of their own: of more, those that end farthest below what they are to reach."""
_FEW = 4  # tasks: more stand two in a row
_TITLE = 24  # letters


def curves(epochs: pd.DataFrame, ends: pd.DataFrame, out: Path, *, title: str) -> None:
    """Two panels a task, a thin line a trial: the loss on ``train``, and the score on ``val``.

    Scores that were not computed after each epoch have their last one alone. Of many tasks, as
    many as ``SHOWN``; the title says so.

    Args:
        epochs: ``task``, ``trial``, ``epoch`` (from 1), ``loss``, ``score`` (NaN: not computed);
            a row an epoch of a probe whose course is known.
        ends: ``task``, ``trial``, ``epochs``, ``score`` and ``constant`` (that of an answer that
            is always the same) in [0, 1], ``wanted``: 1 − ε; a row a probe, tasks in order.
    """
    tasks = _chosen(ends)
    if len(tasks) < ends["task"].nunique():
        title += f"\nthe {len(tasks)} of {ends['task'].nunique()} tasks that end lowest by 1 − ε"
    rows, columns = across(len(tasks), 1 if len(tasks) <= _FEW else 2)
    last = max(ends["epochs"].max(), 1)
    with drawing(out, rows, 2 * columns, height=1.35 * rows + 1.1, title=title) as drawn:
        figure, panels = drawn
        pairs = panels.reshape(-1, 2)
        for pair, task in zip(pairs, tasks, strict=False):
            own, end = (table[table["task"] == task] for table in (epochs, ends))
            pair[0].set_title(short(task, _TITLE))
            _losses(pair[0], own, "brought along" if not end["epochs"].any() else "not recorded")
            _scores(pair[1], own, end)
            for axes in pair:
                axes.set_xlim(0.5, last + 0.5)
                axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        for axes in pairs[len(tasks) :].flat:
            axes.axis("off")
        label_below(panels, 2 * len(tasks), "epoch")
        handles, names = pairs[0, 1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", ncols=len(names))


def _chosen(ends: pd.DataFrame) -> list[str]:
    """The tasks that are shown, in their order."""
    short_of = (ends["wanted"] - ends["score"]).groupby(ends["task"], sort=False).mean()
    kept = {*short_of.sort_values(ascending=False, kind="stable").index[:SHOWN]}
    return [task for task in short_of.index if task in kept]


def _losses(axes: "Axes", epochs: pd.DataFrame, unknown: str) -> None:
    axes.set_ylabel("loss on train")
    _lines(axes, epochs, "loss")
    if epochs.empty:
        axes.set_yticks([])
        place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, unknown, color=SECONDARY, **place)
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def _scores(axes: "Axes", epochs: pd.DataFrame, ends: pd.DataFrame) -> None:
    axes.set_ylabel("score on val")
    axes.set_ylim(-0.03, 1.03)
    axes.axhline(ends["constant"].mean(), color=SECONDARY, lw=0.8, ls="--", label="constant answer")
    axes.axhline(ends["wanted"].iloc[0], color=PALETTE[1], lw=1.2, label="1 − ε")
    _lines(axes, epochs, "score")
    axes.plot(ends["epochs"].clip(lower=1), ends["score"], "o", ms=3, label="a trial's probe")


def _lines(axes: "Axes", epochs: pd.DataFrame, column: str) -> None:
    for _, own in epochs.groupby("trial"):
        axes.plot(own["epoch"], own[column], ".-", ms=2, lw=0.6, color=PALETTE[0], alpha=0.7)
