"""A list of tasks in order of arrival, with an arrow to each from its nearest source."""

from pathlib import Path

import numpy as np
import pandas as pd

from ftd.drawing.style import LINE, PALETTE, SECONDARY, SMALL, WIDTH, drawing, matplotlib, short
from ftd.drawing.style import width as width_of

_ROW = (11.0, 36.0)  # points, at least and at most
_HEIGHT = 600.0  # points, unless rows would be too low
_HEAD = 62.0  # points, for title and legend
_BEND = 0.55  # of an arrow, of its length
_SURE = (  # the share of trials from which on an arrow has its style
    (1.0, "first in all trials", {"color": PALETTE[0], "lw": 1.8}),
    (0.5, "in at least half of them", {"color": PALETTE[1], "lw": 1.2}),
    (0.0, "in fewer", {"color": SECONDARY, "lw": 1.0, "ls": "--"}),
)


def nearest_graph(first: pd.DataFrame, out: Path, *, order: list[str], title: str) -> None:
    """An arrow to each task from its nearest source; its look says in how many trials it is that.

    Arrows at right lead on, from tasks that arrived earlier; arrows at left lead back.

    Args:
        first: ``target``, ``source``, ``agreement`` (a share of trials); at most a row a target.
        order: all tasks.
    """
    row = float(np.clip(_HEIGHT / len(order), *_ROW))
    names = [short(name) for name in order]
    half = max(width_of(name, SMALL) for name in names) / 2 + 8
    middle, high = 36 * WIDTH, row * len(order) + _HEAD
    place = {name: high - _HEAD - row * (number + 0.5) for number, name in enumerate(order)}
    with drawing(out, height=high / 72, title=title, layout="none") as (figure, panels):
        axes = panels[0, 0]
        axes.set_position([0, 0, 1, 1])
        axes.set(xlim=(0, 72 * WIDTH), ylim=(0, high))
        axes.axis("off")
        for name, shown in zip(order, names, strict=True):
            box = {"boxstyle": "round,pad=0.25", "fc": "w", "ec": "0.7", "lw": 0.6}
            own = {"ha": "center", "va": "center_baseline", "size": SMALL, "bbox": box}
            axes.text(middle, place[name], shown, **own)
            axes.hlines(place[name], middle - half, middle + half, color="0.85", lw=0.6, zorder=0)
        for target, source, agreement in first[["target", "source", "agreement"]].values:
            start, end = place[source], place[target]
            side = 1 if start > end else -1
            bend = min(_BEND, 2 * (middle - half - 12) / abs(start - end))
            style = next(look for least, _, look in _SURE if agreement >= least - 1e-6)
            arrow = matplotlib.patches.FancyArrowPatch(
                (middle + side * half, start),
                (middle + side * half, end),
                arrowstyle="-|>,head_length=4,head_width=2",
                connectionstyle=f"arc3,rad={-bend if side * (start - end) > 0 else bend}",
                **{"shrinkA": 0, "shrinkB": 0} | style,
            )
            arrow.set_gid(f"{source}-to-{target}")
            axes.add_patch(arrow)
        lines = [matplotlib.lines.Line2D([], [], **look) for _, _, look in _SURE]
        below = 1 - (LINE * 9 * (1 + title.count("\n")) + 8) / high
        figure.legend(
            *(lines, [label for _, label, _ in _SURE]),
            **{"loc": "upper left", "bbox_to_anchor": (0, below), "ncols": len(_SURE)},
        )
