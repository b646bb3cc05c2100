"""What searches did, what they compared, and how what they found compares."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftd.drawing.style import (
    MISSING,
    PALETTE,
    SECONDARY,
    across,
    drawing,
    label_below,
    marked,
    matplotlib,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW = 4  # tasks: more stand two in a row
_TITLE = 24  # letters


def trace(traces: dict[str, pd.DataFrame], out: Path, *, title: str) -> None:
    """Losses of searches, and what they choose by: two panels a search.

    At right: FUSE's candidate weights softmax(α), TE-NAS' condition numbers, or the accuracy on
    ``val`` of what other methods measure (on one scale for all), or their score, if that has
    another range.

    Args:
        traces: by task: a row a step, columns ``step``, ``phase``, ``loss``, ``score``, and the
            method's own.
    """
    rows, columns = across(len(traces), 1 if len(traces) <= _FEW else 2)
    scores = pd.concat([rows["score"] for rows in traces.values()]).dropna()
    scale = (scores.min() - 0.03, 1.03) if scores.between(0, 1).all() and len(scores) else None
    phases = dict.fromkeys(phase for rows in traces.values() for phase in rows["phase"])
    looks = {phase: PALETTE[number % len(PALETTE)] for number, phase in enumerate(phases)}
    with drawing(out, rows, 2 * columns, height=1.35 * rows + 1.0, title=title) as drawn:
        figure, panels = drawn
        pairs = panels.reshape(-1, 2)
        for (losses, chosen), (task, rows) in zip(pairs, traces.items(), strict=False):
            losses.set_title(short(task, _TITLE))
            for axes in (losses, chosen):
                axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
            _losses(losses, rows, looks)
            _chosen_by(chosen, rows, scale)
        for axes in pairs[len(traces) :].flat:
            axes.axis("off")
        label_below(panels, 2 * len(traces), "search step")
        _one_legend(figure, panels)


def _one_legend(figure: "Figure", panels: np.ndarray) -> None:
    """A legend for all panels, of what has several names."""
    found = {}
    for axes in panels.flat:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if len(found) > 1:
        columns = min(5, len(found))
        figure.legend(found.values(), found.keys(), loc="outside lower left", ncols=columns)


def _losses(axes: "Axes", rows: pd.DataFrame, looks: dict[str, str]) -> None:
    with_loss = rows[rows["loss"].notna()]
    for phase, part in with_loss.groupby("phase", sort=False):
        own = {"color": looks[phase], "label": f"loss, {phase}"}
        axes.plot(part["step"], part["loss"], ".-", ms=3, lw=0.8, **own)
    if "val_loss" in rows:
        own = {"color": PALETTE[1], "label": "loss, val"}
        axes.plot(rows["step"], rows["val_loss"], ".-", ms=3, lw=0.8, **own)
    axes.set_ylabel("loss")


def _chosen_by(axes: "Axes", rows: pd.DataFrame, scale: tuple[float, float] | None) -> None:
    if "alpha" in rows:
        _candidate_weights(axes, rows)
    elif "kappa" in rows:
        axes.plot(rows["step"], rows["kappa"], ".-", ms=3)
        axes.set_ylabel("κ of the supernet")
    else:
        axes.plot(rows["step"], rows["score"], ".", ms=4)
        axes.set_ylabel("accuracy on val" if scale else "score")  # as of untrained networks
        if scale:
            axes.set_ylim(scale)


def _candidate_weights(axes: "Axes", rows: pd.DataFrame) -> None:
    for _, generation in rows.groupby("generation"):
        for candidate, values in enumerate(np.stack(generation["alpha"]).T):
            own = {"color": PALETTE[candidate % len(PALETTE)], "label": f"candidate {candidate}"}
            axes.plot(generation["step"], values, **own)
        axes.axvline(generation["step"].iloc[0] - 0.5, color=MISSING, lw=0.8)
    axes.set_ylabel("softmax(α)")
    axes.set_ylim(0, 1)


def candidates(compared: dict[str, pd.DataFrame], out: Path, *, title: str) -> None:
    """What searches compared: the score of each candidate against its parameters, by task.

    Args:
        compared: by task: ``score``, ``epochs``, ``parameters`` and ``chosen``; a row a
            candidate.
    """
    rows, columns = across(len(compared), 4)
    scores = pd.concat([each["score"] for each in compared.values()])
    options = {"height": 1.7 * rows + 1.0, "title": title, "sharey": scores.between(0, 1).all()}
    most = max((each["parameters"].max() for each in compared.values() if len(each)), default=1)
    factor, unit = (1e6, "millions") if most >= 1e6 else (1e3, "thousands")
    with drawing(out, rows, columns, **options) as (figure, panels):
        for axes, (task, own) in zip(panels.flat, compared.items(), strict=False):
            axes.set_title(short(task, _TITLE))
            axes.margins(0.12)
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3))
            longest = own["epochs"] == own["epochs"].max()
            for rows, look in (
                (~longest, {"mfc": "none", "color": SECONDARY, "label": "after fewer epochs"}),
                (longest & ~own["chosen"], {"color": PALETTE[0], "label": "compared"}),
                (own["chosen"], {"color": PALETTE[1], "marker": "*", "ms": 9, "label": "chosen"}),
            ):
                if rows.any():
                    x, y = own.loc[rows, "parameters"] / factor, own.loc[rows, "score"]
                    axes.plot(x, y, **{"ls": "", "marker": "o", "ms": 3.5} | look)
            if own.empty:
                axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
        for axes in panels.flat[len(compared) :]:
            axes.axis("off")
        label_below(panels, len(compared), f"parameters, {unit}")
        figure.supylabel("score", fontsize="medium")
        _one_legend(figure, panels)


def scatter(comparison: pd.DataFrame, out: Path) -> None:
    """Mean accuracy against search cost and parameters, two panels a task.

    The grey line is the Pareto front, where there are several methods: no other one is at least
    as accurate at no more cost. The dashed line is the accuracy of always saying the most
    frequent label.

    Args:
        comparison: columns ``task``, ``method``, ``accuracy``, ``most_frequent``,
            ``search_macs``, ``parameters``; a row a task, method and seed.
    """
    means = comparison.groupby(["task", "method"], as_index=False, sort=False)[
        ["accuracy", "most_frequent", "search_macs", "parameters"]
    ].mean()
    tasks, methods = (list(means[key].unique()) for key in ("task", "method"))
    looks = {method: marked(number) for number, method in enumerate(methods)}
    costs = {"search_macs": "MACs of the search", "parameters": "parameters"}
    rows, columns = across(len(tasks), 2)
    height, title = 1.5 * rows + 1.0, "Test accuracy against cost"
    with drawing(out, rows, 2 * columns, height=height, title=title) as (figure, panels):
        pairs = panels.reshape(-1, 2)
        for pair, task in zip(pairs, tasks, strict=False):
            rows = means[means["task"] == task]
            for axes, (cost, label) in zip(pair, costs.items(), strict=True):
                axes.set_xscale("log")
                axes.minorticks_off()
                _against(axes, rows[rows[cost] > 0], cost, looks)  # hand-designed: not searched
                axes.axhline(rows["most_frequent"].mean(), ls="--", lw=0.8, color=SECONDARY)
                axes.set_xlabel(label)
            pair[1].sharey(pair[0])
            pair[0].set_title(short(task, _TITLE))
            pair[0].set_ylabel("test accuracy")
        for axes in pairs[len(tasks) :].flat:
            axes.axis("off")
        _one_legend(figure, panels)


def _against(axes: "Axes", rows: pd.DataFrame, cost: str, looks: dict[str, dict]) -> None:
    """Each method's point, and the Pareto front of several."""
    axes.margins(0.1)
    if len(rows) > 1:
        front = rows[pareto(rows[cost].to_numpy(), rows["accuracy"].to_numpy())].sort_values(cost)
        axes.step(front[cost], front["accuracy"], where="post", color=MISSING, zorder=0)
    for point in rows.itertuples():
        own = looks[point.method] | {"ls": "", "label": point.method}
        axes.plot(getattr(point, cost), point.accuracy, **own)


def pareto(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mask [N] of the points that no other one beats: none has less cost or more value for it."""
    cheaper, better = cost[:, None] <= cost, value[:, None] >= value
    strictly = (cost[:, None] < cost) | (value[:, None] > value)
    return ~(cheaper & better & strictly).any(0)
