"""Distances of the published task sets as they are kept below ``docs/distances/``."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import spearmanr

from ftd import store
from ftd.drawing import heatmaps
from ftd.layout import LAYOUT
from ftd.measures.ranking import ranked

TABLES = Path("docs/distances")


def keep(results: Path, name: str, note: str, folder: Path = TABLES) -> None:
    """Copy an experiment's tables, and what made them: probes' facts and sizes of parts by task."""
    for artifact in (LAYOUT.distances, LAYOUT.nearest, LAYOUT.layers):
        source = artifact.path(results)
        store.write_bytes(folder / f"{name}-{source.name}", source.read_bytes())
    order = order_of(name, folder)
    parts = {task: _part_sizes(LAYOUT.slice.path(results, task=task)) for task in order}
    pairs = store.read_table(LAYOUT.distances.path(results), ["network", "trial"]).to_pandas()
    facts = [
        store.read_json(LAYOUT.probe_facts.path(results, network=network, trial=trial, task=task))
        for network, trial in pairs.drop_duplicates().itertuples(index=False)
        for task in order
    ]
    more = _OF_MAPS if any("metric" in fact for fact in facts) else ()
    rows = [
        {key: fact[key] for key in _OF_PROBES}
        | {key: fact.get(key) for key in more}
        | parts[fact["task"]]
        for fact in facts
    ]
    same = {key: facts[0][key] for key in ("settings", "packages", "image")}
    datasets = {
        names["dataset"]: store.table_facts(store.read_table(path, columns=[]))["settings"]
        for path, names in LAYOUT.cut.find(results)
    }
    made = {**same, "datasets": datasets, "note": note}
    store.write_table(folder / f"{name}-probes.parquet", pa.Table.from_pylist(rows), made)


_OF_PROBES = (
    *("network", "trial", "task", "seed", "val_accuracy", "val_most_frequent", "reached"),
    *("epochs", "seconds"),
)
_OF_MAPS = ("metric", "val_metric", "val_metric_constant")


def _part_sizes(task: Path) -> dict[str, int]:
    parts = store.read_table(task, ["part"]).to_pandas()["part"]
    return {part: int((parts == part).sum()) for part in ("train", "val", "fisher")}


def names(dataset: str) -> list[str]:
    """The experiments of a data set that are kept, sorted."""
    ending = "-distances.parquet"
    found = TABLES.glob(f"{dataset}-*{ending}")
    return sorted(path.name.removesuffix(ending) for path in found)


def tables(name: str) -> tuple[pd.DataFrame, ...]:
    """Distances, rankings and probes; of several measures the first one's."""
    found = [
        store.read_table(TABLES / f"{name}-{kind}.parquet").to_pandas()
        for kind in ("distances", "nearest", "probes")
    ]
    return tuple(
        table[table["measure"] == table["measure"].iloc[0]] if "measure" in table else table
        for table in found
    )


def made_before(name: str) -> bool:
    """Whether tables were made before tasks of several classes and a rest were balanced."""
    return "measure" not in tables(name)[0]


def order_of(name: str, folder: Path = TABLES) -> list[str]:
    """Task names of an experiment that is kept, as they arrive."""
    return store.table_facts(store.read_table(folder / f"{name}-nearest.parquet"))["order"]


def by_trial(rows: pd.DataFrame, order: list[str]) -> np.ndarray:
    """What sources are ranked by, [trial, source, target], of one measure's and network's rows."""
    trials = [
        heatmaps.matrices(own, ranked(own), order)[0].to_numpy() for _, own in rows.groupby("trial")
    ]
    return np.stack(trials)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of the entries off the diagonal."""
    off = ~np.eye(len(first), dtype=bool)
    return float(spearmanr(first[off], second[off]).statistic)
