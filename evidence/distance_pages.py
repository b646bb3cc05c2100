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
import pyarrow as pa
from scipy.stats import spearmanr

from evidence import kept, published, running
from ftd import store
from ftd.drawing import heatmaps, pages
from ftd.errors import UserError
from ftd.layout import LAYOUT

TABLES = Path("docs/distances")
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
        own = [f"experiment={name}", f"seed={seed}"]
        running.run("selection", [*files, *configs], [*settings, *own], cores)
        _keep(Path("results") / name, name, note)
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
        running.run("selection", files, [*settings, *own], cores)
        _keep(Path("results") / experiment, experiment, "")
    write_consistency_page()


def _experiment_name(config: str, name: str) -> str:
    return f"consistency-{config}-{re.sub('[^a-z0-9]+', '-', name.lower())}"


def _keep(results: Path, name: str, note: str) -> None:
    """Copy an experiment's tables, and what made them: probes' facts and sizes of parts by task."""
    for artifact in (LAYOUT.distances, LAYOUT.nearest, LAYOUT.layers):
        source = artifact.path(results)
        store.write_bytes(TABLES / f"{name}-{source.name}", source.read_bytes())
    order = _order(name)
    parts = {task: _part_sizes(LAYOUT.slice.path(results, task=task)) for task in order}
    pairs = store.read_table(LAYOUT.distances.path(results), ["network", "trial"]).to_pandas()
    facts = [
        store.read_json(LAYOUT.probe_facts.path(results, network=network, trial=trial, task=task))
        for network, trial in pairs.drop_duplicates().itertuples(index=False)
        for task in order
    ]
    rows = [{key: fact[key] for key in _OF_PROBES} | parts[fact["task"]] for fact in facts]
    same = {key: facts[0][key] for key in ("settings", "packages", "image")}
    datasets = {
        names["dataset"]: store.table_facts(store.read_table(path, columns=[]))["settings"]
        for path, names in LAYOUT.cut.find(results)
    }
    made = {**same, "datasets": datasets, "note": note}
    store.write_table(TABLES / f"{name}-probes.parquet", pa.Table.from_pylist(rows), made)


_OF_PROBES = (
    *("network", "trial", "task", "seed", "val_accuracy", "val_most_frequent", "reached"),
    *("epochs", "seconds"),
)


def _part_sizes(task: Path) -> dict[str, int]:
    parts = store.read_table(task, ["part"]).to_pandas()["part"]
    return {part: int((parts == part).sum()) for part in ("train", "val", "fisher")}


def write_distances_page() -> None:
    """``docs/distances.md`` and a heat map of each matrix, from the tables that are kept."""
    names = [
        (dataset, path.name.removesuffix("-distances.parquet"))
        for dataset in published.MATRICES
        for path in sorted(TABLES.glob(f"{dataset}-*-distances.parquet"))
    ]
    text = [
        "# Distances of the published task sets",
        "",
        *kept.unbalanced(any(_made_before(name) for _, name in names)),
        "Made by `python -m evidence distances`, from the tables in `docs/distances/`. Squared",
        "distances, mean ± standard deviation over trials; rows: source, columns: target. The",
        "published matrices are those of Le et al. 2022 (10 trials, full networks and data). The",
        "rank correlation is Spearman's, of the 12 entries off the diagonal.",
        "",
    ]
    for dataset, name in names:
        text += _experiment(dataset, name)
    store.write_bytes(PAGE, "\n".join(text).encode())


def _experiment(dataset: str, name: str) -> list[str]:
    """One experiment's sections, a network each."""
    distances, nearest, probes = _tables(name)
    facts = store.table_facts(store.read_table(TABLES / f"{name}-probes.parquet"))
    lines = []
    for network, rows in distances.groupby("network"):
        mean, std = heatmaps.matrices(rows, rows["squared_distance"], _order(name))
        pictures = _pictures(f"{name}-{network}", network, rows["trial"].nunique(), mean, std)
        own = probes[probes["network"] == network]
        settings = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
        lines += [
            f"## {name}, {network}",
            "",
            f"{rows['trial'].nunique()} trials; images {_image(facts)}; probes: {settings}; torch "
            f"{facts['packages']['torch']}. {facts['note']}".rstrip(),
            "",
            *_probe_table(own, _order(name)),
            *pages.markdown_matrix(mean, std, nearest[nearest["network"] == network]),
            *_published(dataset, mean, std),
            "",
            *pictures,
            "",
        ]
    return lines


def _published(dataset: str, mean: pd.DataFrame, std: pd.DataFrame) -> list[str]:
    """What a matrix has in common with the published ones, and those."""
    order, matrices = list(mean.columns), published.MATRICES[dataset]
    lines = [
        f"Nearest sources of tasks 0 to {len(order) - 1}: "
        f"**{_listed(published.nearest(mean.to_numpy()))}**; largest standard deviation "
        f"{std.to_numpy().max():.3f}.",
        "",
        "| published | nearest sources | rank correlation |",
        "|---|---|---|",
    ]
    for other, matrix in matrices.items():
        found = _rank_correlation(mean.to_numpy(), matrix)
        lines.append(f"| {other} | {_listed(published.nearest(matrix))} | {found:.2f} |")
    pairs = itertools.combinations(matrices.values(), 2)
    agreements = ", ".join(f"{_rank_correlation(*pair):.2f}" for pair in pairs)
    lines += ["", f"Rank correlations of the published matrices with each other: {agreements}."]
    for other, matrix in matrices.items():
        values = pd.DataFrame(matrix, order, order)
        table = pages.markdown_table(order, lambda s, t, v=values: f"{v.loc[s, t]:.4f}")
        lines += ["", f"Published, {other}:", "", *table]
    return lines


def _pictures(
    name: str, network: str, trials: int, mean: pd.DataFrame, std: pd.DataFrame
) -> list[str]:
    """Draw heat maps of a matrix; returns the lines that show them."""
    lines = []
    for statistic, what, values, digits in (
        ("mean", "mean", mean, ".2f"),
        ("std", "standard deviation", std, ".3f"),
    ):
        out = TABLES / f"{name}-{statistic}.svg"
        title = f"Squared distance, {what}\n{network}, {trials} trial(s)"
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


def _tables(name: str) -> tuple[pd.DataFrame, ...]:
    """Distances, rankings and probes; of several measures the first one's."""
    found = [
        store.read_table(TABLES / f"{name}-{kind}.parquet").to_pandas()
        for kind in ("distances", "nearest", "probes")
    ]
    return tuple(
        table[table["measure"] == table["measure"].iloc[0]] if "measure" in table else table
        for table in found
    )


def _made_before(name: str) -> bool:
    """Whether tables were made before tasks of several classes and a rest were balanced."""
    return "measure" not in _tables(name)[0]


def _order(name: str) -> list[str]:
    """Task names of an experiment that is kept, as they arrive."""
    return store.table_facts(store.read_table(TABLES / f"{name}-nearest.parquet"))["order"]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of the entries off the diagonal."""
    off = ~np.eye(len(first), dtype=bool)
    return float(spearmanr(first[off], second[off]).statistic)


def write_consistency_page() -> None:
    """``docs/consistency.md`` from the tables that are kept."""
    found: dict[str, dict[str, str]] = {}
    for config, variants in CONSISTENCY.items():
        names = {name: _experiment_name(config, name) for name in variants}
        names |= {"nothing": f"{config}-small-0"}
        there = {n: e for n, e in names.items() if (TABLES / f"{e}-probes.parquet").exists()}
        found |= {config: there} if there else {}
    before = any(_made_before(e) for names in found.values() for e in names.values())
    text = [
        "# Consistency of the distance",
        "",
        *kept.unbalanced(before),
        "Made by `python -m evidence consistency`: an experiment with one setting changed at a",
        "time. The mean and the spread (standard deviation over trials) are of the squared",
        "distances off the diagonal.",
        "",
    ]
    for config, names in found.items():
        probes = pd.concat(_tables(experiment)[2] for experiment in names.values())
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


def _consistency_row(name: str, experiment: str) -> str:
    distances, _, probes = _tables(experiment)
    order = _order(experiment)
    tables = heatmaps.matrices(distances, distances["squared_distance"], order)
    mean, std = (table.to_numpy() for table in tables)
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
