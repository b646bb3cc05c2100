"""What searches did, what they found, and how that compares."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftd.drawing.style import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trace(traces: dict[str, pd.DataFrame], out: Path) -> None:
    """Losses of searches, and what they choose by, one row of panels a search.

    At right: FUSE's candidate weights softmax(α), TE-NAS' condition numbers, or the accuracy on
    ``val`` of what other methods measure, or their score, if that has another range.

    Args:
        traces: by task: a row a step, columns ``step``, ``phase``, ``loss``, ``score``, and the
            method's own.
    """
    size = (9, 2.4 * len(traces))
    with drawing(out, len(traces), 2, figsize=size, layout="constrained") as (_, panels):
        for (losses, chosen), (task, rows) in zip(panels, traces.items(), strict=True):
            losses.set_title(task, loc="left")
            _losses(losses, rows)
            _chosen_by(chosen, rows)
        for axes in panels[-1]:
            axes.set_xlabel("search step")


def _losses(axes: "Axes", rows: pd.DataFrame) -> None:
    with_loss = rows[rows["loss"].notna()]
    for number, (phase, part) in enumerate(with_loss.groupby("phase", sort=False)):
        axes.plot(part["step"], part["loss"], ".-", ms=3, lw=0.8, c=f"C{number}", label=phase)
    if "val_loss" in rows:
        axes.plot(rows["step"], rows["val_loss"], ".-", ms=3, lw=0.8, c="C1", label="val")
    axes.set_ylabel("loss")
    if axes.lines:
        axes.legend(fontsize="small")


def _chosen_by(axes: "Axes", rows: pd.DataFrame) -> None:
    if "alpha" in rows:
        _candidate_weights(axes, rows)
    elif "kappa" in rows:
        axes.plot(rows["step"], rows["kappa"], ".-", ms=3)
        axes.set_ylabel("κ of the supernet")
    else:
        axes.plot(rows["step"], rows["score"], ".", ms=3)
        if not rows["score"].dropna().between(0, 1).all():  # as of untrained networks
            axes.set_ylabel("score")
            return
        axes.set_ylabel("accuracy on val")
        axes.set_ylim(0, 1)


def _candidate_weights(axes: "Axes", rows: pd.DataFrame) -> None:
    for _, generation in rows.groupby("generation"):
        for candidate, values in enumerate(np.stack(generation["alpha"]).T):
            axes.plot(generation["step"], values, lw=1, color=f"C{candidate}")
        axes.axvline(generation["step"].iloc[0] - 0.5, color="0.8", lw=0.8)
    axes.set_ylabel("softmax(α)")
    axes.set_ylim(0, 1)


def cells(found: list[dict], out: Path) -> None:
    """Drawings of found cells, a row for each architecture, a column for each kind of cell.

    Args:
        found: ``task``, ``method`` and ``genotype`` (as stored) of each architecture.
    """
    size = (11, 3.2 * len(found))
    with drawing(out, len(found), 2, figsize=size, layout="constrained") as (_, panels):
        for row, facts in zip(panels, found, strict=True):
            genotype = facts["genotype"]
            for axes, kind in zip(row, ("normal", "reduction"), strict=True):
                axes.axis("off")
                axes.set_title(f"{facts['task']}, {facts['method']}: {kind} cell", loc="left")
                _cell(axes, genotype[kind], genotype["skeleton"]["feeds"])


def _cell(axes: "Axes", cell: list, feeds: int) -> None:
    """States from left to right; an arc for every operation but ``none``."""
    names = [f"in {number}" for number in range(feeds)] + [str(n) for n in range(len(cell))]
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-1.2, 1.2)
    for position, name in enumerate(names):
        axes.text(
            position, 0, name, ha="center", va="center", bbox={"boxstyle": "round", "fc": "w"}
        )
    for node, edges in enumerate(cell):
        for side, (operation, source) in enumerate(edges):
            if operation == "none":
                continue
            end, up = feeds + node, 1 if (node + side) % 2 else -1
            style = {
                "arrowstyle": "->",
                "connectionstyle": f"arc3,rad={-0.45 * up}",
                "color": "0.5",
            }
            ends = {"shrinkA": 14, "shrinkB": 14}
            axes.annotate("", (end, 0), (source, 0), arrowprops=style | ends)
            height = up * 0.24 * (end - source)
            label = axes.text((source + end) / 2, height, operation, ha="center", size=7)
            label.set(va="center", bbox={"fc": "w", "ec": "none", "pad": 1})


def scatter(comparison: pd.DataFrame, out: Path) -> None:
    """Mean accuracy against search cost and parameters, a row of panels a task.

    The grey line is the Pareto front: no other method is at least as accurate at no more cost.
    The dashed line is the accuracy of always saying the most frequent label.

    Args:
        comparison: columns ``task``, ``method``, ``accuracy``, ``most_frequent``,
            ``search_macs``, ``parameters``; a row a task, method and seed.
    """
    means = comparison.groupby(["task", "method"], as_index=False)[
        ["accuracy", "most_frequent", "search_macs", "parameters"]
    ].mean()
    tasks = list(means["task"].unique())
    costs = {"search_macs": "multiply-accumulates of the search", "parameters": "parameters"}
    size = (10, 3.4 * len(tasks))
    with drawing(out, len(tasks), 2, figsize=size, layout="constrained") as (_, panels):
        for row, task in zip(panels, tasks, strict=True):
            rows = means[means["task"] == task]
            for axes, (cost, label) in zip(row, costs.items(), strict=True):
                axes.set_xscale("log")
                _against(axes, rows[rows[cost] > 0], cost)  # hand-designed: not searched
                axes.axhline(rows["most_frequent"].mean(), ls="--", lw=0.8, color="0.5")
                axes.set_title(task, loc="left")
                axes.set_xlabel(label)
                axes.set_ylabel("test accuracy")


def _against(axes: "Axes", rows: pd.DataFrame, cost: str) -> None:
    """Each method's point, and the Pareto front."""
    front = rows[pareto(rows[cost].to_numpy(), rows["accuracy"].to_numpy())].sort_values(cost)
    axes.step(front[cost], front["accuracy"], where="post", color="0.7", lw=1)
    for number, point in enumerate(rows.itertuples()):
        x, y = getattr(point, cost), point.accuracy
        axes.plot(x, y, "o", ms=4, color=f"C{number % 10}")
        axes.annotate(point.method, (x, y), (3, 3), textcoords="offset points", size=7)


def pareto(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mask [N] of the points that no other one beats: none has less cost or more value for it."""
    cheaper, better = cost[:, None] <= cost, value[:, None] >= value
    strictly = (cost[:, None] < cost) | (value[:, None] > value)
    return ~(cheaper & better & strictly).any(0)
