"""Points in rows: distances over trials, probes' scores, sizes of spaces; and pairs both ways."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftd.drawing.style import MISSING, PALETTE, SECONDARY, drawing, marked, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.2  # inches
_NEAREST = 3  # sources with a colour of their own
_NAMED = 7  # pairs
_MANY = 2000  # points: more are one picture inside the figure
_HALF = 18  # letters, of a name beside another


def consistency(
    pairs: pd.DataFrame, nearest: dict[str, list[str]], out: Path, *, title: str, number: str
) -> None:
    """A row a target: every source's number in each trial, the nearest on average in colours.

    Args:
        pairs: ``target``, ``source``, ``number``; a row a pair of two tasks and trial.
        nearest: by target, its sources in order, by their means over trials.
        number: what the numbers are.
    """
    labels = [_arrow(target, sources[:1]) for target, sources in nearest.items()]
    height = _ROW * len(labels) + 1.2
    with drawing(out, height=height, title=title) as (figure, panels):
        axes = _rows(panels[0, 0], labels)
        places = {target: number for number, target in enumerate(nearest)}
        rank = {
            (target, source): rank
            for target, sources in nearest.items()
            for rank, source in enumerate(sources[:_NEAREST])
        }
        own = pd.MultiIndex.from_frame(pairs[["target", "source"]]).map(rank)
        own = pd.Series(own, index=pairs.index).fillna(_NEAREST).astype(int)
        for group in reversed(range(_NEAREST + 1)):
            rows = pairs[own == group]
            look = {"color": PALETTE[group], "ms": 3.5} if group < _NEAREST else {"color": MISSING}
            label = ("nearest on average", "second", "third", "others")[group]
            axes.plot(
                *(rows["number"], rows["target"].map(places)),
                **{"ls": "", "marker": "o", "ms": 2.5, "label": label} | look,
                rasterized=len(rows) > _MANY,
            )
        axes.set_xlabel(number)
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], names[::-1], loc="outside lower left", ncols=len(names))


def asymmetry(mean: pd.DataFrame, std: pd.DataFrame, out: Path, *, title: str, number: str) -> None:
    """Each pair of tasks both ways: from the earlier to the later one against the way back.

    The pairs that differ most have colours and names; bars are standard deviations over trials.

    Args:
        mean, std: [source, target], in order of arrival; NaN: not known.
        number: what the numbers are.
    """
    first, second = np.triu_indices(len(mean), 1)
    there, back = (mean.to_numpy()[i, j] for i, j in ((first, second), (second, first)))
    known = np.flatnonzero(np.isfinite(there) & np.isfinite(back))
    apart = known[np.argsort(-np.abs(there - back)[known], kind="stable")]
    with drawing(out, height=4.6, title=title) as (figure, panels):
        axes = panels[0, 0]
        axes.set_aspect("equal")
        rest = apart[_NAMED:]
        look = {"ls": "", "marker": "o", "ms": 2.5, "color": SECONDARY}
        axes.plot(there[rest], back[rest], **look, rasterized=len(rest) > _MANY)
        spread = std.to_numpy()
        for place, pair in enumerate(apart[:_NAMED]):
            i, j = first[pair], second[pair]
            names = f"{short(mean.index[i], _HALF)}, {short(mean.index[j], _HALF)}"
            bars = {"xerr": spread[i, j], "yerr": spread[j, i], "elinewidth": 0.7}
            label = f"{names}\n{there[pair]:#.3g} there, {back[pair]:#.3g} back"
            axes.errorbar(
                there[pair], back[pair], **bars, **marked(place), ls="", label=label, gid=names
            )
        axes.margins(0.08)
        limits = np.array([axes.get_xlim(), axes.get_ylim()])
        low, high = limits[:, 0].min(), limits[:, 1].max()
        axes.plot((low, high), (low, high), color=MISSING, lw=0.8, zorder=0)
        axes.set(xlim=(low, high), ylim=(low, high))
        axes.set_xlabel(f"{number}: from the earlier task to the later one")
        axes.set_ylabel("from the later one to the earlier")
        if len(known):
            title = "differ most" if len(rest) else None
            figure.legend(loc="outside right center", title=title, labelspacing=0.8)


def scores(probes: pd.DataFrame, out: Path, *, title: str) -> None:
    """A row a task: the score on ``val`` of every trial's probe, and what it is to reach.

    Args:
        probes: ``task``, ``network``, ``score`` and ``constant`` (the score of an answer that is
            always the same) in [0, 1], ``wanted``: 1 − ε; a row a probe.
    """
    tasks, networks = (list(dict.fromkeys(probes[key])) for key in ("task", "network"))
    with drawing(out, height=_ROW * len(tasks) + 1.2, title=title) as (figure, panels):
        axes = _rows(panels[0, 0], [short(task) for task in tasks])
        places = probes["task"].map({task: number for number, task in enumerate(tasks)})
        ticks = {"ls": "", "marker": "|", "ms": 9, "mew": 1.5}
        axes.plot(probes["constant"], places, color=SECONDARY, label="constant answer", **ticks)
        axes.plot(probes["wanted"], places, color=PALETTE[1], label="1 − ε", **ticks)
        for number, network in enumerate(networks):
            own = probes["network"] == network
            shift = 0.5 * ((number + 1) / (len(networks) + 1) - 0.5)
            look = marked(number)
            axes.plot(
                *(probes["score"][own], places[own] + shift),
                **{"ls": "", "ms": 3.5, "label": network} | look,
            )
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("score on val: accuracy, of maps what their metric gives in [0, 1]")
        figure.legend(loc="outside lower left", ncols=min(4, len(networks) + 2))


def spaces(sizes: pd.DataFrame, out: Path, *, title: str) -> None:
    """A row a task: how many architectures there are, and how many its search chose from.

    Args:
        sizes: ``task``, ``full``, ``searched``, as log10; a row a task.
    """
    with drawing(out, height=_ROW * len(sizes) + 1.2, title=title) as (figure, panels):
        axes = _rows(panels[0, 0], [short(task) for task in sizes["task"]])
        places = range(len(sizes))
        axes.hlines(places, sizes["searched"], sizes["full"], color=MISSING, lw=1.5)
        ring = {"ls": "", "marker": "o", "ms": 7, "mfc": "none", "color": PALETTE[0]}
        axes.plot(sizes["full"], places, label="whole space", **ring)
        axes.plot(sizes["searched"], places, "o", color=PALETTE[1], label="searched")
        axes.set_xlim(left=min(0, sizes["searched"].min()) - 0.2)
        axes.set_xlabel("number of architectures, log10")
        figure.legend(loc="outside lower left", ncols=2)


def _rows(axes: "Axes", labels: list[str]) -> "Axes":
    """Rows from top to bottom, with their names at left and a faint line each."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    return axes


def _arrow(target: str, sources: list[str]) -> str:
    return " ← ".join(short(name, _HALF) for name in (target, *sources))
