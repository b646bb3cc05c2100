"""Pages of how well measures agree with what sources are worth, and what that is good for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ftd.drawing.webpage import Column, Table, page
from ftd.names import counted
from ftd.transfer import agreement as held
from ftd.transfer.trust import Interval, number, percent

_KINDS = {
    "weights": (
        "fine-tuned probes gain",
        "a source's probe, fine-tuned on a few images of the target",
    ),
    "architectures": (
        "sources' architectures are worth",
        "architectures that were trained on both tasks",
    ),
}
_ENDS = ["value", "low", "high"]
_STATISTICS = {
    "top1": ("best source named", percent),
    "spearman": ("Spearman", lambda each: number(each, 2)),
    "kendall": ("Kendall", lambda each: number(each, 2)),
    "regret": ("regret, points", lambda each: number(each, 1)),
}
_HOW = (
    "With 95 % intervals over targets and trials. Best source named: of how many targets the "
    "measure puts the truly best source first; Spearman, Kendall: rank correlations with what "
    "sources are worth; regret: what the source that it names gains less than the best. random: "
    "any source; best-on-average: the source that is best for the other targets."
)
_VIEWS = (
    " all: the measure sees all of a target's data, few: the few images alone; disjoint: over "
    "sources without a class of the target's alone."
)


def agreement(cells: pd.DataFrame, summary: pd.DataFrame, out: Path, *, truth: str) -> None:
    """A row a measure and truth, and before them, of several shots or scopes, a row a measure.

    Args:
        cells, summary: as ``ftd.transfer.agreement`` gives them.
        truth: ``weights`` or ``architectures``.
    """
    worth, what = _KINDS[truth]
    tables = []
    if truth == "weights" and len(cells[["shots", "scope"]].drop_duplicates()) > 1:
        pooled = held.summary(held.pooled(cells), against=())
        own = _of(pooled, ["network", "measure", "arm", "disjoint"])
        tables.append(Table("All shots and scopes together", own, _note(pooled)))
    keys = ["network", "shots", "scope", "measure", "arm", "disjoint"]
    own = _of(summary, keys)
    title = "By shots and scope" if truth == "weights" else "By what is compared"
    tables.append(Table(title, own, "" if tables else _note(summary)))
    lead = (
        f"Whether tasks that measures call near are worth more: measures held against what {worth}"
        f" ({what}), on the tasks of this experiment."
    )
    page(out, "Measures and their worth", lead, tables, data={f"agreement-{truth}": summary})


def weighted(summary: pd.DataFrame, out: Path) -> None:
    """A row a measure and temperature: what its weighted ranking of architectures is worth."""
    keys = ["network", "measure", "temperature"]
    means = summary[summary["against"].isna()]
    less = summary[summary["against"].notna()]
    apart = means[keys].merge(less, "left", keys)  # missing temperatures are one
    columns = _named(means, keys)
    columns.append(_intervals("gain, points", means, _points))
    columns.append(_intervals("more than equal weights", apart, _points))
    note = (
        "With 95 % intervals over targets and trials. Gain: what the best architectures of a "
        "ranking are worth to a target, in points over the mean of all. Rankings of a target's "
        "sources are averaged with weights by a measure, at temperature 0 the nearest alone, at ∞ "
        "all alike. random: one source; uniform: all alike; truly-nearest and own know the "
        "target's own accuracies."
    )
    lead = "What rankings of architectures are worth to a task that other tasks' accuracies give."
    page(
        out, "Weighted rankings", lead, [Table("Gains", columns, note)], data={"weighted": summary}
    )


def _points(each: Interval) -> str:
    return number(each, 2)


def _note(summary: pd.DataFrame) -> str:
    several = any(summary[key].nunique() > 1 for key in ("arm", "disjoint"))
    targets, trials = (counted(summary[f"{each}s"].max(), each) for each in ("target", "trial"))
    return f"{_HOW}{_VIEWS * several} {targets}, {trials}."


def _of(summary: pd.DataFrame, keys: Sequence[str]) -> list[Column]:
    """Columns of the means: those of ``keys`` that tell rows apart, and the statistics."""
    means = summary[summary["against"].isna()]
    means = means.assign(shots=means["shots"].astype("Float64").fillna(-1))
    rows = means.drop_duplicates(list(keys))
    columns = _named(rows.assign(shots=rows["shots"].where(rows["shots"] >= 0)), keys)
    for statistic, (name, text) in _STATISTICS.items():
        own = means[means["statistic"] == statistic].set_index(list(keys))
        found = own[_ENDS].reindex(pd.MultiIndex.from_frame(rows[list(keys)]))
        columns.append(_intervals(name, found, text))
    return columns


def _named(rows: pd.DataFrame, keys: Sequence[str]) -> list[Column]:
    """Columns of what tells rows apart, the measure's always."""
    return [
        Column(key, [None if pd.isna(value) else value for value in rows[key]])
        for key in keys
        if key == "measure" or rows[key].nunique() > 1
    ]


def _intervals(name: str, rows: pd.DataFrame, text: Callable[[Interval], str]) -> Column:
    """A column of values with their intervals; empty where there is none."""
    found = [tuple(own) if np.isfinite(own[0]) else None for own in rows[_ENDS].to_numpy(float)]
    values = [each and each[0] for each in found]
    return Column(name, values, [text(each) if each else "" for each in found])
