"""The tables of ``docs/architecture-transfer.md``, between two marks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from evidence.frozen import HELD_OUT
from evidence.transfer_page import line, put
from ftd.transfer.agreement import RANDOM
from ftd.transfer.architectures import GATE
from ftd.transfer.weighting import NEAREST, OWN, TEMPERATURES, UNIFORM

PAGE = Path("docs/architecture-transfer.md")
BEGIN = "<!-- begin: written by python -m evidence architecture-tables -->"
SAID = {
    RANDOM: "a random source",
    UNIFORM: "**all sources alike**",
    NEAREST: "the truly nearest source",
    OWN: "the target's own best",
}
Reliability = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""By set and task: of ``one`` training and of the ``mean``."""


def write(
    table: pd.DataFrame, reliability: Reliability, sizes: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Put the fragment between the page's marks; returns its lines.

    Args:
        table: as ``evidence.architecture_tables.run`` writes it.
        sizes: by set, how many repeats and architectures there are.

    Raises:
        UserError: a page without its marks.
    """
    lines = [*_sets(table, reliability, sizes), ""]
    shown = table[table["network"].notna() & table["gate"]]
    for network, rows in shown.groupby("network", sort=False):
        lines += [
            f"**Measures by {network}; targets of r ≥ {GATE}**",
            "",
            *_gains(rows, reliability),
            "",
        ]
        for name in dict.fromkeys(rows["set"]):
            if name not in reliability:
                own = rows[rows["set"] == name]
                lines += [f"**{network}, {name}: less all sources alike**", "", *_less(own), ""]
    put(BEGIN, lines, PAGE)
    return lines


def _sets(
    table: pd.DataFrame, reliability: Reliability, sizes: Mapping[str, tuple[int, int]]
) -> Iterator[str]:
    """How reliable each set's accuracies are, and how alike its tasks."""
    heads = ["set", "tasks", "architectures × trainings", "r of one training: least, mean"]
    heads += [f"one training below {GATE}", "r of their mean: least, mean"]
    yield line([*heads, "mean ρ of two tasks", "mean affinity"])
    yield "|---" * (len(heads) + 2) + "|"
    means = table[(table["statistic"] == "mean") & ~table["gate"]].set_index(["set", "scope"])[
        "value"
    ]
    for name, tasks in reliability.items():
        repeats, count = sizes[name]
        low = ", ".join(task for task, of in tasks.items() if not (of["one"] or 0) >= GATE)
        one, mean = (_least([of[key] for of in tasks.values()]) for key in ("one", "mean"))
        alike = [means[name, key] for key in ("rank_correlation", "affinity")]
        said = ["" if np.isnan(value) else f"{value:z.2f}" for value in alike]
        about = [name, str(len(tasks)), f"{count} × {repeats}"]
        yield line([*about, one, low or "none", mean, *said])


def _least(known: Sequence[float | None]) -> str:
    """The least and the mean of what is known; nothing if nothing is."""
    known = [value for value in known if value is not None]
    return f"{min(known):z.2f}, {np.mean(known):z.2f}" if known else ""


def _gains(rows: pd.DataFrame, reliability: Reliability) -> Iterator[str]:
    """Gains in points by set: what no measure decides, and each measure's nearest source alone."""
    own = rows[(rows["statistic"] == "weighted") & rows["against"].isna()]
    hard = own["temperature"] == 0
    own = own[hard | own["measure"].isin(SAID)]
    cells = {(row.measure, row.set): row for row in own.itertuples()}
    names, held = list(dict.fromkeys(own["set"])), {*own.loc[own["role"] == HELD_OUT, "set"]}
    heads = [
        f"{name} (held out)" if name in held and name in reliability else name for name in names
    ]
    yield line(["the three best of … gain, in points", *heads])
    yield "|---" * (len(names) + 1) + "|"
    for measure in [*SAID, *(each for each in dict.fromkeys(own["measure"]) if each not in SAID)]:
        found = [cells.get((measure, name)) for name in names]
        said = SAID.get(measure, f"the nearest by {measure}")
        yield line([said, *(_said(row, row and row.set not in reliability) for row in found)])


def _less(rows: pd.DataFrame) -> Iterator[str]:
    """Of each measure: how well it tells alike tasks, and what its weights gain over equal ones."""
    spearman = rows[(rows["statistic"] == "spearman") & (rows["scope"] == "affinity")]
    tells = {row.measure: row for row in spearman.itertuples()}
    less = rows[(rows["statistic"] == "weighted") & (rows["against"] == UNIFORM)]
    cells = {(row.measure, row.temperature): row for row in less.itertuples()}
    heads = [f"temperature {each:g}" for each in TEMPERATURES[1:]]
    yield line(["measure", "Spearman with affinity", "the nearest alone", *heads])
    yield "|---" * (len(heads) + 3) + "|"
    for measure in dict.fromkeys(name for name, temperature in cells if temperature >= 0):
        found = [tells.get(measure), *(cells.get((measure, each)) for each in TEMPERATURES)]
        yield line([measure, *(_said(row, True) for row in found)])


def _said(row: object, interval: bool) -> str:
    """A value, with its interval or without; nothing where there is none."""
    if row is None or np.isnan(row.value):
        return ""
    return f"{row.value:z.2f}" + (f" [{row.low:z.2f}, {row.high:z.2f}]" if interval else "")
