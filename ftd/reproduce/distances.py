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

from ftd import artifacts, figure, published
from ftd.errors import UserError
from ftd.reproduce import workflow

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
    effort: str,
    seeds: list[int],
    configs: list[Path],
    settings: list[str],
    cores: int,
    note: str = "",
) -> None:
    """Compute the distances of ``config/<dataset>.yaml`` for every base seed; write the evidence.

    What is finished is not computed again; run from the repository's folder.

    Args:
        effort: the effort of the configuration, e.g. ``small`` or ``paper``.
        seeds: base seeds, an experiment each.
        configs: further configuration files, e.g. with another loader.
        settings: ``key=value`` for Snakemake's ``--config``, e.g. ``data_root=…``.
        note: a sentence for the page, e.g. how this copy of the images differs.

    Raises:
        UserError: no such configuration, or a workflow that failed.
    """
    for seed in seeds:
        name = f"{dataset}-{effort}-{seed}"
        own = [f"experiment={name}", f"effort={effort}", f"seed={seed}"]
        files = [Path("config") / f"{dataset}.yaml", *configs]
        workflow.run("selection", files, [*settings, *own], cores)
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
        workflow.run("selection", files, [*settings, *own], cores)
        _keep(Path("results") / experiment, experiment, "")
    write_consistency_page()


def _experiment_name(config: str, name: str) -> str:
    return f"consistency-{config}-{re.sub('[^a-z0-9]+', '-', name.lower())}"


def _keep(results: Path, name: str, note: str) -> None:
    """Copy an experiment's tables, and what made them: probes' facts and sizes of parts by task."""
    import pyarrow as pa

    for table in ("distances", "nearest", "layers"):
        source = results / f"{table}.parquet"
        artifacts.write_bytes(TABLES / f"{name}-{table}.parquet", source.read_bytes())
    keys = ("network", "trial", "task", "seed", "val_accuracy", "reached", "epochs", "seconds")
    order = _order(name)
    parts = {task: _part_sizes(results / "tasks" / f"{task}.parquet") for task in order}
    pairs = artifacts.read_table(results / "distances.parquet", ["network", "trial"]).to_pandas()
    facts = [
        artifacts.read_json(results / "probes" / network / str(trial) / f"{task}.json")
        for network, trial in pairs.drop_duplicates().itertuples(index=False)
        for task in order
    ]
    rows = [{key: fact[key] for key in keys} | parts[fact["task"]] for fact in facts]
    same = {key: facts[0][key] for key in ("settings", "packages", "image")}
    datasets = {
        path.stem: artifacts.table_facts(artifacts.read_table(path, columns=[]))["settings"]
        for path in sorted((results / "datasets").glob("*.parquet"))
    }
    made = {**same, "datasets": datasets, "note": note}
    artifacts.write_table(TABLES / f"{name}-probes.parquet", pa.Table.from_pylist(rows), made)


def _part_sizes(task: Path) -> dict[str, int]:
    parts = artifacts.read_table(task, ["part"]).to_pandas()["part"]
    return {part: int((parts == part).sum()) for part in ("train", "val", "fisher")}


def write_distances_page() -> None:
    """``docs/distances.md`` and a heat map of each matrix, from the tables that are kept."""
    text = [
        "# Distances of the published task sets",
        "",
        "Made by `ftd reproduce distances`, from the tables in `docs/distances/`. Squared",
        "distances, mean ± standard deviation over trials; rows: source, columns: target. The",
        "published matrices are those of Le et al. 2022 (10 trials, full networks and data). The",
        "rank correlation is Spearman's, of the 12 entries off the diagonal.",
        "",
    ]
    for dataset in published.MATRICES:
        for path in sorted(TABLES.glob(f"{dataset}-*-distances.parquet")):
            text += _experiment(dataset, path.name.removesuffix("-distances.parquet"))
    artifacts.write_bytes(PAGE, "\n".join(text).encode())


def _experiment(dataset: str, name: str) -> list[str]:
    """One experiment's sections, a network each."""
    distances, nearest, probes = _tables(name)
    order = _order(name)
    facts = artifacts.table_facts(artifacts.read_table(TABLES / f"{name}-probes.parquet"))
    lines = []
    for network, rows in distances.groupby("network"):
        tables = [TABLES / f"{name}-{kind}.parquet" for kind in ("distances", "nearest")]
        drawn = {s: TABLES / f"{name}-{network}-{s}.svg" for s in figure.STATISTICS}
        for statistic, out in drawn.items():
            figure.matrix(*tables, network=network, statistic=statistic, out=out)
        mean, std = figure.matrices(rows, order)
        own = probes[probes["network"] == network]
        settings = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
        lines += [
            f"## {name}, {network}",
            "",
            f"{rows['trial'].nunique()} trials; images {_image(facts)}; probes: {settings}; torch "
            f"{facts['packages']['torch']}. {facts['note']}".rstrip(),
            "",
            "| task | `val` accuracy | trials that reached 1 − ε | train, val, fisher images |",
            "|---|---|---|---|",
            *(_probe_row(task, own[own["task"] == task]) for task in order),
            "",
            *figure.markdown_matrix(mean, std, nearest[nearest["network"] == network]),
            f"Nearest sources of tasks 0 to {len(order) - 1}: "
            f"**{_listed(published.nearest(mean.to_numpy()))}**; largest standard deviation "
            f"{std.to_numpy().max():.3f}.",
            "",
            "| published | nearest sources | rank correlation |",
            "|---|---|---|",
        ]
        for other, matrix in published.MATRICES[dataset].items():
            found = _rank_correlation(mean.to_numpy(), matrix)
            lines.append(f"| {other} | {_listed(published.nearest(matrix))} | {found:.2f} |")
        pairs = itertools.combinations(published.MATRICES[dataset].values(), 2)
        agreements = ", ".join(f"{_rank_correlation(*pair):.2f}" for pair in pairs)
        lines += ["", f"Rank correlations of the published matrices with each other: {agreements}."]
        for other, matrix in published.MATRICES[dataset].items():
            values = pd.DataFrame(matrix, order, order)
            table = figure.markdown_table(order, lambda s, t, v=values: f"{v.loc[s, t]:.4f}")
            lines += ["", f"Published, {other}:", "", *table]
        pictures = [
            f"![{s} of the squared distances](distances/{p.name})" for s, p in drawn.items()
        ]
        lines += ["", *pictures, ""]
    return lines


def _image(facts: dict) -> str:
    """Size and where the images came from."""
    size, channels = facts["image"]["size"], facts["image"]["channels"]
    loaders = ", ".join(f"{name} by {data['loader']}" for name, data in facts["datasets"].items())
    return f"{size}×{size}×{channels}, {loaders}"


def _probe_row(task: str, probes: pd.DataFrame) -> str:
    accuracy, parts = probes["val_accuracy"], probes.iloc[0][["train", "val", "fisher"]]
    return (
        f"| {task} | {accuracy.mean():.3f} ± {accuracy.std():.3f} "
        f"| {probes['reached'].sum()} of {len(probes)} | {_listed(parts)} |"
    )


def _tables(name: str) -> tuple[pd.DataFrame, ...]:
    kinds = ("distances", "nearest", "probes")
    return tuple(artifacts.read_table(TABLES / f"{name}-{k}.parquet").to_pandas() for k in kinds)


def _order(name: str) -> list[str]:
    """Task names of an experiment that is kept, as they arrive."""
    return artifacts.table_facts(artifacts.read_table(TABLES / f"{name}-nearest.parquet"))["order"]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of the entries off the diagonal."""
    from scipy.stats import spearmanr

    off = ~np.eye(len(first), dtype=bool)
    return float(spearmanr(first[off], second[off]).statistic)


def write_consistency_page() -> None:
    """``docs/consistency.md`` from the tables that are kept."""
    text = [
        "# Consistency of the distance",
        "",
        "Made by `ftd reproduce consistency`: an experiment with one setting changed at a time.",
        "The mean and the spread (standard deviation over trials) are of the squared distances",
        "off the diagonal.",
        "",
    ]
    for config, variants in CONSISTENCY.items():
        names = {name: _experiment_name(config, name) for name in variants}
        names |= {"nothing": f"{config}-small-0"}
        kept = {n: e for n, e in names.items() if (TABLES / f"{e}-probes.parquet").exists()}
        if kept:
            rows = [_consistency_row(name, experiment) for name, experiment in kept.items()]
            text += [
                f"## config/{config}.yaml",
                "",
                "| changed | trials | `val` accuracy by task | mean | mean spread | largest "
                "| nearest sources of tasks 0 to 3 |",
                "|---|---|---|---|---|---|---|",
                *rows,
                "",
            ]
    artifacts.write_bytes(CONSISTENCY_PAGE, "\n".join(text).encode())


def _consistency_row(name: str, experiment: str) -> str:
    distances, _, probes = _tables(experiment)
    order = _order(experiment)
    mean, std = (table.to_numpy() for table in figure.matrices(distances, order))
    off = ~np.eye(len(mean), dtype=bool)
    accuracies = probes.groupby("task")["val_accuracy"].mean()[order]
    return (
        f"| {name} | {distances['trial'].nunique()} | {' '.join(f'{a:.3f}' for a in accuracies)} "
        f"| {mean[off].mean():.3f} | {std[off].mean():.4f} | {std.max():.4f} "
        f"| {_listed(published.nearest(mean))} |"
    )
