"""Distances of the published task sets beside the published ones, and their consistency.

The tables that the workflow made are kept under ``docs/distances/``; the pages are written from
them.
"""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from evidence import kept, kept_distances, lengths, published, running
from ftd import store
from ftd.drawing import heatmaps, pages
from ftd.errors import UserError

PAGE = Path("docs/distances.md")
CONSISTENCY_PAGE = Path("docs/consistency.md")
CONSISTENCY = {
    "config": {
        "1 epoch": {"probe": {"epochs": 1}},
        **{f"{n} epochs": {"probe": {"epochs": n}} for n in (5, 20, 80)},
        **{f"{n} epochs, averaged": {"probe": {"epochs": n, "average": True}} for n in (5, 20, 80)},
        **{f"{n} Fisher samples": {"fisher": {"samples": n}} for n in (20, 100)},
    },
    "cifar10": {"1 epoch, averaged": {"probe": {"epochs": 1}}},
}
"""By configuration file: what is varied, as a name and the settings that ``--config`` takes."""


def distances(
    dataset: str,
    *,
    overlay: str | None,
    seeds: list[int],
    epochs: list[int],
    configs: list[Path],
    settings: list[str],
    cores: int,
    note: str = "",
) -> None:
    """Compute the distances of ``config/<dataset>.yaml`` for every base seed; write the evidence.

    What is finished is not computed again; run from the repository's folder.

    Args:
        overlay: what lies over that file, ``config/overlays/<dataset>-<overlay>.yaml``; ``None``:
            nothing, and the results are called ``small``.
        seeds: base seeds, an experiment each.
        epochs: numbers of epochs of the probes, an experiment each, of which the page shows the
            most accurate one whole; none: the configuration's.
        configs: further configuration files, e.g. with another loader.
        settings: ``key=value`` for Snakemake's ``--config``, e.g. ``data_root=…``.
        note: a sentence for the page, e.g. how this copy of the images differs.

    Raises:
        UserError: no such configuration, or a workflow that failed.
    """
    files = [Path("config") / f"{dataset}.yaml"]
    files += [Path("config/overlays") / f"{dataset}-{overlay}.yaml"] if overlay else []
    for seed in seeds:
        name = f"{dataset}-{overlay or 'small'}-{seed}"
        own = [*settings, f"seed={seed}"]
        if epochs:
            lengths.run(name, epochs, [*files, *configs], own, cores, note)
            continue
        running.run(["selection"], [*files, *configs], [*own, f"experiment={name}"], cores)
        kept_distances.keep(Path("results") / name, name, note)
    write_distances_page()


def consistency(
    config: str = "config", *, configs: list[Path], settings: list[str], cores: int
) -> None:
    """Distances of ``config/<config>.yaml`` against training length, Fisher samples, averaging.

    What is finished is not computed again; run from the repository's folder.

    Args:
        config: a key of `CONSISTENCY`.
        configs: further configuration files, e.g. with another loader.
        settings: ``key=value`` for Snakemake's ``--config``, e.g. ``data_root=…``.

    Raises:
        UserError: an unknown configuration, another folder, or a workflow that failed.
    """
    if config not in CONSISTENCY:
        raise UserError(f"no consistency runs of {config!r}; known: {', '.join(CONSISTENCY)}")
    for name, changed in CONSISTENCY[config].items():
        experiment = _experiment_name(config, name)
        own = [f"experiment={experiment}", *(f"{k}={json.dumps(v)}" for k, v in changed.items())]
        files = [Path("config") / f"{config}.yaml", *configs]
        running.run(["selection"], files, [*settings, *own], cores)
        kept_distances.keep(Path("results") / experiment, experiment, "")
    write_consistency_page()


def _experiment_name(config: str, name: str) -> str:
    return f"consistency-{config}-{re.sub('[^a-z0-9]+', '-', name.lower())}"


def write_distances_page() -> None:
    """``docs/distances.md`` and a heat map of each matrix, from the tables that are kept."""
    kept_names = {dataset: kept_distances.names(dataset) for dataset in published.MATRICES}
    every = [name for names in kept_names.values() for name in names]
    text = [*_HEAD.splitlines(), "", *_answer(kept_names)]
    text += ["", *_LIMITS.splitlines(), ""]
    text += kept.unbalanced(any(map(kept_distances.made_before, every)))
    for dataset, names in kept_names.items():
        text += lengths.section(dataset)
        for name in names:
            text += _experiment(dataset, name)
        if names:
            text += _published_matrices(dataset, kept_distances.order_of(names[0]))
    store.write_bytes(PAGE, "\n".join(text).encode())


_HEAD = """\
# Distances of the published task sets

**What was asked.** Le et al. 2022 publish the squared distances between four tasks of each of
some data sets. Do distances that are computed here name the same nearest source of each task, and
do they put all pairs in the same order?
"""
_LIMITS = """\
**How to read it.** A column's smallest number off the diagonal is its target's nearest source;
*1, 0, 3, 2* says that task 1 is nearest to task 0, task 0 to task 1, and so on. A rank
correlation (Spearman's) is of the 12 entries off the diagonal, with the matrix of each published
network. Where the probes learned little, distances say little: their accuracies stand in the last
column.

**Settings.** `python -m evidence distances --dataset mnist --overlay narrow --seed 1` and its
like make the tables in `docs/distances/` and this page; each run's command is said in
[results.md](results.md). Distances are squared, mean ± standard deviation over trials; rows are
sources, columns targets. Each run's images, probes and versions stand in its section.

**Limits.** The published matrices are of 10 trials with full networks and all the data; names
with `x0.25` are networks of a quarter of the channels, and the sections say how few the images
are. The released code pools gradients (an option here), which makes distances smaller, so that
values cannot be compared, only their order. The published networks' own matrices do not agree fully
either: how far, stands with them below."""


def _answer(kept_names: dict[str, list[str]]) -> list[str]:
    """How many runs agree with what was published, and a row for each."""
    rows, agree, differ = [], 0, []
    for dataset, names in kept_names.items():
        matrices = published.MATRICES[dataset]
        wanted = list(dict.fromkeys(_listed(published.nearest(m)) for m in matrices.values()))
        for name, network in ((n, network) for n in names for network in lengths.chosen(n)):
            mean, _, trials = _matrices(name, network)
            found = _listed(published.nearest(mean.to_numpy()))
            agree += wanted == [found]
            differ += [] if wanted == [found] else [f"{name} ({found})"]
            alike = (kept_distances.rank_correlation(mean.to_numpy(), m) for m in matrices.values())
            probes = kept_distances.tables(name)[2].query("network == @network")
            accuracies = probes.groupby("task")["val_accuracy"].mean()
            rows.append(
                f"| {name}, {network} | {trials} | {found} | {'; '.join(wanted)} "
                f"| {', '.join(f'{value:.2f}' for value in alike)} "
                f"| {accuracies.min():.3f} to {accuracies.max():.3f} |"
            )
    return [
        f"**The answer.** In {agree} of {len(rows)} runs the nearest sources of all four tasks are "
        f"those of every published network; in the others not: {', '.join(differ) or 'none'}. How "
        "far the order of all pairs agrees differs from run to run:",
        "",
        "| run | trials | nearest sources of tasks 0 to 3 | published "
        f"| rank correlation with {', '.join(next(iter(published.MATRICES.values())))} "
        "| probes' `val` accuracy |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _matrices(name: str, network: str) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Mean and spread of a network's squared distances, and over how many trials."""
    distances = kept_distances.tables(name)[0]
    rows = distances[distances["network"] == network]
    order = kept_distances.order_of(name)
    mean, std = heatmaps.matrices(rows, rows["squared_distance"], order)
    return mean, std, rows["trial"].nunique()


def _experiment(dataset: str, name: str) -> list[str]:
    """One experiment's sections, of each network for which it is chosen."""
    _, nearest, probes = kept_distances.tables(name)
    facts = store.table_facts(store.read_table(kept_distances.TABLES / f"{name}-probes.parquet"))
    lines = []
    for network in lengths.chosen(name):
        mean, std, trials = _matrices(name, network)
        pictures = _pictures(f"{name}-{network}", network, trials, mean, std)
        settings = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
        lines += [
            f"## {name}, {network}",
            "",
            f"{trials} trials; images {_image(facts)}; probes: {settings}; torch "
            f"{facts['packages']['torch']}. {facts['note']}".rstrip(),
            "",
            *_probe_table(probes[probes["network"] == network], kept_distances.order_of(name)),
            *pages.markdown_matrix(mean, std, nearest[nearest["network"] == network]),
            *_beside(dataset, mean, std),
            "",
            *pictures,
            "",
        ]
    return lines


def _beside(dataset: str, mean: pd.DataFrame, std: pd.DataFrame) -> list[str]:
    """What a matrix has in common with the published ones."""
    lines = [
        f"Nearest sources of tasks 0 to {len(mean) - 1}: "
        f"**{_listed(published.nearest(mean.to_numpy()))}**; largest standard deviation "
        f"{std.to_numpy().max():.3f}.",
        "",
        "| published | nearest sources | rank correlation |",
        "|---|---|---|",
    ]
    for other, matrix in published.MATRICES[dataset].items():
        found = kept_distances.rank_correlation(mean.to_numpy(), matrix)
        lines.append(f"| {other} | {_listed(published.nearest(matrix))} | {found:.2f} |")
    return lines


def _published_matrices(dataset: str, order: list[str]) -> list[str]:
    """A data set's published matrices, and how they agree."""
    matrices = published.MATRICES[dataset]
    pairs = itertools.combinations(matrices.values(), 2)
    agreements = ", ".join(f"{kept_distances.rank_correlation(*pair):.2f}" for pair in pairs)
    lines = [
        f"### Published for {dataset}'s tasks",
        "",
        f"Rank correlations of the published matrices with each other: {agreements}.",
    ]
    for other, matrix in matrices.items():
        values = pd.DataFrame(matrix, order, order)
        table = pages.markdown_table(order, lambda s, t, v=values: f"{v.loc[s, t]:.4f}")
        lines += ["", f"Published, {other}:", "", *table]
    return [*lines, ""]


def _pictures(
    name: str, network: str, trials: int, mean: pd.DataFrame, std: pd.DataFrame
) -> list[str]:
    """Draw heat maps of a matrix; returns the lines that show them."""
    lines = []
    for statistic, what, values, digits in (
        ("mean", "mean", mean, ".2f"),
        ("std", "standard deviation", std, ".3f"),
    ):
        out = kept_distances.TABLES / f"{name}-{statistic}.svg"
        title = f"Squared distance, {what}\n{network}, {trials} trials"
        heatmaps.matrix(values, out, title=title, digits=digits)
        lines.append(f"![{statistic} of the squared distances](distances/{out.name})")
    return lines


def _image(facts: dict) -> str:
    """Size and where the images came from."""
    size, channels = facts["image"]["size"], facts["image"]["channels"]
    loaders = ", ".join(f"{name} by {data['loader']}" for name, data in facts["datasets"].items())
    return f"{size}×{size}×{channels}, {loaders}"


def _probe_table(probes: pd.DataFrame, order: list[str]) -> list[str]:
    lines = [
        f"| task | {_ACCURACY}{_share_named(probes)} | trials that reached 1 − ε "
        "| train, val, fisher images |",
        "|---|---|---|---|",
    ]
    for task in order:
        own = probes[probes["task"] == task]
        accuracy, parts = own["val_accuracy"], own.iloc[0][["train", "val", "fisher"]]
        lines.append(
            f"| {task} | {accuracy.mean():.3f} ± {accuracy.std():.3f}{_share(own)} "
            f"| {own['reached'].sum()} of {len(own)} | {_listed(parts)} |"
        )
    return [*lines, ""]


_ACCURACY = "`val` accuracy"


def _share_named(probes: pd.DataFrame) -> str:
    """What stands in brackets behind an accuracy; nothing in tables that were made before."""
    return " (of always saying the most frequent label)" if "val_most_frequent" in probes else ""


def _share(probes: pd.DataFrame) -> str:
    """The accuracy of always saying the most frequent label."""
    if "val_most_frequent" not in probes:
        return ""
    return f" ({probes['val_most_frequent'].mean():.3f})"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def write_consistency_page() -> None:
    """``docs/consistency.md`` from the tables that are kept."""
    found: dict[str, dict[str, str]] = {}
    for config, variants in CONSISTENCY.items():
        names = {name: _experiment_name(config, name) for name in variants}
        names |= {"nothing": f"{config}-small-0"}
        there = {
            n: e
            for n, e in names.items()
            if (kept_distances.TABLES / f"{e}-probes.parquet").exists()
        }
        found |= {config: there} if there else {}
    before = any(kept_distances.made_before(e) for names in found.values() for e in names.values())
    text = [
        "# Consistency of the distance",
        "",
        *_ASKED.splitlines(),
        "",
        *_spread(found),
        "",
        *_SPREAD_LIMITS.splitlines(),
        "",
        *kept.unbalanced(before),
    ]
    for config, names in found.items():
        probes = pd.concat(kept_distances.tables(experiment)[2] for experiment in names.values())
        text += [
            f"## config/{config}.yaml",
            "",
            f"| changed | trials | {_ACCURACY}{_share_named(probes)} by task | mean | mean spread "
            "| largest | nearest sources of tasks 0 to 3 |",
            "|---|---|---|---|---|---|---|",
            *(_consistency_row(name, experiment) for name, experiment in names.items()),
            "",
        ]
    store.write_bytes(CONSISTENCY_PAGE, "\n".join(text).encode())


_ASKED = """\
**What was asked.** A distance is worth something if another initialisation of the probes gives
the same one. The paper proves that it does so in the limit of long, averaged training. How far
does it vary after short training, with few Fisher samples, with and without averaged weights?
"""
_SPREAD_LIMITS = """\
**Settings.** `python -m evidence consistency` (`--dataset cifar10` for the second table) runs an
experiment with one setting changed at a time. Mean and spread (standard deviation over trials) are
of the squared distances off the diagonal.

**Limits.** A few trials of small networks: a spread over so few is itself uncertain. Distances of
probes that learned little (the accuracies say which) are small and say little, however steady."""


def _spread(found: dict[str, dict[str, str]]) -> list[str]:
    """How large spreads are against means, and how often the nearest sources stay the same."""
    shares, nearest = [], []
    for experiment in (name for names in found.values() for name in names.values()):
        mean, std = _spread_of(experiment)
        off = ~np.eye(len(mean), dtype=bool)
        shares.append(std[off].mean() / mean[off].mean())
        nearest.append(_listed(published.nearest(mean)))
    if not shares:
        return []
    usual = max(nearest, key=nearest.count)
    return [
        f"**The answer.** Little: the spread over trials is {min(shares):.0%} to {max(shares):.0%} "
        f"of the mean, and the nearest sources of tasks 0 to 3 are {usual} in "
        f"{nearest.count(usual)} of {len(nearest)} runs.",
    ]


def _spread_of(experiment: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over trials of all squared distances [source, target]."""
    distances = kept_distances.tables(experiment)[0]
    order = kept_distances.order_of(experiment)
    tables = heatmaps.matrices(distances, distances["squared_distance"], order)
    return tuple(table.to_numpy() for table in tables)


def _consistency_row(name: str, experiment: str) -> str:
    distances, _, probes = kept_distances.tables(experiment)
    order = kept_distances.order_of(experiment)
    mean, std = _spread_of(experiment)
    off = ~np.eye(len(mean), dtype=bool)
    accuracies = [
        f"{own['val_accuracy'].mean():.3f}{_share(own)}"
        for own in (probes[probes["task"] == task] for task in order)
    ]
    return (
        f"| {name} | {distances['trial'].nunique()} | {' '.join(accuracies)} "
        f"| {mean[off].mean():.3f} | {std[off].mean():.4f} | {std.max():.4f} "
        f"| {_listed(published.nearest(mean))} |"
    )
