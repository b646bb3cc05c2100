"""The published task sets against training length, by our Fisher information and the released one.

A configuration is run once for each number of epochs, all else alike. Of these, the number of
epochs is chosen by the probes' accuracy on ``val`` alone; agreement with what was published is
shown for each.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from evidence import kept_distances, published, running
from ftd import store

RELEASED = {"microbatch": 10, "pool_first_dimension": True}
"""Fisher information as the released code takes it: squared gradients of the mean loss of ten
images, averaged over each tensor's first dimension."""
FISHERS = {"": "exact", "-released": "as released"}
"""By the ending of a kept table's name: how Fisher information was taken."""
_NAME = re.compile(r"(?P<base>.+)-(?P<epochs>\d+)-epochs(?P<fisher>-released)?")
_DRAWS = 2000


def run(
    base: str, epochs: list[int], files: list[Path], settings: list[str], cores: int, note: str
) -> None:
    """Compute and keep distances for each number of epochs, by both Fishers.

    What is finished is not computed again, but for Fisher information where a run was stopped
    between the two.

    Args:
        base: what the results are called, before their number of epochs.
        files, settings: as ``evidence.running.run`` takes them.

    Raises:
        UserError: as of ``evidence.running.run``.
    """
    for length in epochs:
        name = f"{base}-{length}-epochs"
        own = [*settings, f"experiment={name}", f"probe={json.dumps({'epochs': length})}"]
        for ending, fisher in zip(FISHERS, (None, RELEASED), strict=True):
            changed = [f"fisher={json.dumps(fisher)}"] if fisher else []
            running.run(["selection"], files, [*own, *changed], cores)
            kept_distances.keep(Path("results") / name, name + ending, note)


def chosen(name: str) -> Iterator[str]:
    """The networks for which a kept experiment is the one to be shown whole.

    All, if it is of no row of numbers of epochs; else those whose probes are the most accurate on
    ``val``, on average over tasks and trials, after so many epochs.
    """
    accuracies = _accuracies(name)
    if not (found := _NAME.fullmatch(name)):
        yield from accuracies.index
    elif not found["fisher"]:
        others = {other: _accuracies(other) for other in _alike(found["base"])}
        for network in accuracies.index:
            best = max(others, key=lambda other: others[other].get(network, -np.inf))
            if best == name:
                yield network


def section(dataset: str) -> list[str]:
    """Lines of a data set's tables, one for each network; none where nothing is kept."""
    lines = []
    for base in dict.fromkeys(
        found["base"] for name in kept_distances.names(dataset) if (found := _NAME.fullmatch(name))
    ):
        rows = [
            (network, row)
            for name in _alike(base)
            for ending, fisher in FISHERS.items()
            if (kept_distances.TABLES / f"{name}{ending}-distances.parquet").exists()
            for network, row in _rows(dataset, name + ending, fisher)
        ]
        for network in dict.fromkeys(network for network, _ in rows):
            own = [row for of, row in rows if of == network]
            lines += [f"## {base}, {network}: training length", "", *_heads(dataset), *own, ""]
    return lines


def _alike(base: str) -> list[str]:
    """The experiments with exact Fishers that differ in their number of epochs alone, by it."""
    ending = "-distances.parquet"
    names = [
        path.name.removesuffix(ending)
        for path in kept_distances.TABLES.glob(f"{base}-*-epochs{ending}")
    ]
    found = {name: each for name in names if (each := _NAME.fullmatch(name))}
    own = [name for name, each in found.items() if each["base"] == base]
    return sorted(own, key=lambda name: int(found[name]["epochs"]))


def _accuracies(name: str) -> pd.Series:
    """By network: the mean accuracy of its probes."""
    return kept_distances.tables(name)[2].groupby("network")["val_accuracy"].mean()


def _heads(dataset: str) -> list[str]:
    matrices = published.MATRICES[dataset]
    heads = ["epochs", "Fisher", "`val` accuracy by task", "mean squared distance"]
    heads += [f"rank correlation, {other}" for other in matrices]
    heads += [f"mean difference, {other}" for other in matrices]
    heads += ["nearest sources of tasks 0 to 3", "trials with each of these"]
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]


def _rows(dataset: str, name: str, fisher: str) -> Iterator[tuple[str, str]]:
    """By network: an experiment's row of the table."""
    distances, _, probes = kept_distances.tables(name)
    order = kept_distances.order_of(name)
    facts = store.table_facts(store.read_table(kept_distances.TABLES / f"{name}-probes.parquet"))
    for network, rows in distances.groupby("network"):
        trials = kept_distances.by_trial(rows, order)
        mean = trials.mean(axis=0)
        off = ~np.eye(len(mean), dtype=bool)
        accuracies = probes[probes["network"] == network].groupby("task")["val_accuracy"].mean()
        nearest = published.nearest(mean)
        own = np.array([published.nearest(each) for each in trials])
        cells = [str(facts["settings"]["epochs"]), fisher]
        cells += [" ".join(f"{accuracies[task]:.3f}" for task in order)]
        cells += [f"{mean[off].mean():.3f}"]
        matrices = published.MATRICES[dataset].values()
        cells += [_correlation(trials, each) for each in matrices]
        cells += [f"{np.abs(mean - each)[off].mean():.3f}" for each in matrices]
        cells += [", ".join(map(str, nearest))]
        cells += [", ".join(map(str, (own == nearest).sum(axis=0)))]
        yield network, "| " + " | ".join(cells) + " |"


def _correlation(trials: np.ndarray, matrix: np.ndarray) -> str:
    """Spearman's of the mean over trials, and its 95 % interval by resampled trials."""
    value = kept_distances.rank_correlation(trials.mean(axis=0), matrix)
    draws = np.random.default_rng(0).integers(len(trials), size=(_DRAWS, len(trials)))
    found = [kept_distances.rank_correlation(trials[drawn].mean(axis=0), matrix) for drawn in draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
