"""Distances of one experiment that was run with several base seeds, side by side."""

from pathlib import Path

import numpy as np
import pandas as pd

from evidence import published
from ftd import store
from ftd.drawing import heatmaps, pages
from ftd.layout import LAYOUT

_MEASURE = "fisher"


def write(results: list[Path], out: Path) -> None:
    """Distances of one experiment run with several base seeds, as a Markdown page.

    Raises:
        UserError: a folder without finished distances.
    """
    text, answers = [], []
    for folder in results:
        read = store.read_table(LAYOUT.nearest.path(folder))
        facts, nearest = store.table_facts(read), read.to_pandas()
        distances = store.read_table(LAYOUT.distances.path(folder)).to_pandas()
        for network in facts["networks"]:
            rows, ranks = (
                table[(table["measure"] == _MEASURE) & (table["network"] == network)]
                for table in (distances, nearest)
            )
            text += _seed_section(folder, network, facts["order"], rows, ranks)
            answers.append(_answer(facts["order"], rows))
    head = [*_ASKED.splitlines(), "", *_said(answers), "", *_SETTINGS.splitlines(), ""]
    store.write_bytes(out, ("\n".join([*head, *text]) + "\n").encode())


_ASKED = """\
# Does another base seed give the same nearest tasks?

**What was asked.** The base seed decides the cut of the images, the balance of the tasks and every
start. Are the nearest tasks of the default experiment those of one lucky seed?
"""
_SETTINGS = """\
**Settings.** `make seeds` runs the default experiment up to the selection with each base seed and
writes this page; each seed's probes stand in its section. Sources are numbered by the order of the
tasks.

**Limits.** One small data set (scikit-learn's digits, 8×8 pixels) and one small network."""


def _answer(order: list[str], rows: pd.DataFrame) -> str:
    """Each task's nearest source, as its number in the order."""
    mean, _ = heatmaps.matrices(rows, rows["squared_distance"], order)
    return ", ".join(map(str, published.nearest(mean.to_numpy())))


def _said(answers: list[str]) -> list[str]:
    """What most seeds agree on, and the seeds that do not."""
    usual = max(answers, key=answers.count)
    others = [answer for answer in answers if answer != usual]
    return [
        f"**The answer.** The nearest sources of all tasks, in their order, are {usual} with "
        f"{answers.count(usual)} of {len(answers)} seeds"
        + (f"; with the others {'; '.join(others)}." if others else "."),
    ]


def _seed_section(
    folder: Path, network: str, order: list[str], distances: pd.DataFrame, nearest: pd.DataFrame
) -> list[str]:
    trials = sorted(distances["trial"].unique())
    probes = [
        store.read_json(LAYOUT.probe_facts.path(folder, network=network, trial=t, task=task))
        for t in trials
        for task in sorted(order)
    ]
    first = probes[0]
    mean, std = heatmaps.matrices(distances, distances["squared_distance"], order)
    settings = ", ".join(f"{key} {value}" for key, value in first["settings"].items())
    return [
        f"## Base seed {first['seed']}, {network}",
        "",
        f"{len(trials)} trials; probes: {settings}; mean `val` accuracy by task (in brackets: of "
        "always saying the most frequent label): "
        + ", ".join(
            f"{task} {_mean(probes, task, 'val_accuracy')} "
            f"({_mean(probes, task, 'val_most_frequent')})"
            for task in order
        )
        + f". torch {first['packages']['torch']}.",
        "",
        "Squared distance, mean ± standard deviation over trials (rows: source, columns: target):",
        "",
        *pages.markdown_matrix(mean, std, nearest),
    ]


def _mean(probes: list[dict], task: str, key: str) -> str:
    return f"{np.mean([facts[key] for facts in probes if facts['task'] == task]):.3f}"
