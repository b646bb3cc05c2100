"""Which learned task's cells to try on a new task: chosen by distance, looked up in a table.

TransNAS-Bench-101 (Duan et al. 2021) trained all cells of a space on seven tasks. The cells that a
source ranks highest are tried on a target; the rank that the best of n tried ones has among all of
the target's is the result. Sources are chosen by distances of tasks that stand for those of the
table, on other images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import rankdata

from evidence import kept_distances, nas_tables
from evidence.transfer_page import line
from ftd import store
from ftd.errors import UserError
from ftd.parts import MEASURES

TASKS = {
    "autoencoding": "autoencoder",
    "normals": "normal",
    "segmentation": "segmentsemantic",
    "scene": "class_scene",
    "jigsaw": "jigsaw",
}
"""Tasks of ``config/transnas.yaml``, and what the table calls them."""
QUERIES = (10, 25, 50)
_LAYOUT, _FLOPS = "transnas-micro", "flops_m"
_TABLE = "table, nearest"
_FIXED = ("a random cell", "FLOPs", "a random source", "all sources", _TABLE, "table, farthest")


def run(out: Path, *, table: Path, distances: Path) -> list[str]:
    """Look up what each way to choose is worth; a table as Parquet, and its lines.

    A row a target, way and number of queries: ``rank``, that of the best cell tried (1 the best of
    all), means where there is chance or choice by trials; ``source``.

    Args:
        table: the published cells.
        distances: a ``distances.parquet`` with the tasks ``TASKS``.

    Raises:
        UserError: files that cannot be used, or a task without distances.
    """
    cells = nas_tables.read(table, _LAYOUT)
    flops = store.read_foreign_table(table).to_pandas()
    if _FLOPS not in flops:
        raise UserError(f"{table}: no column {_FLOPS!r}; give the published table")
    flops = cells.in_order(flops["arch"], flops[_FLOPS].to_numpy(float))
    near = _nearness(distances)
    rows = [row for target in TASKS for row in _of_target(cells, flops, near, target)]
    found = pd.DataFrame(rows)
    facts = {
        "table": {"name": table.name, "sha256": store.digest(table)},
        "distances": store.digest(distances),
        "tasks": TASKS,
    }
    store.write_table(out, pa.Table.from_pandas(found, preserve_index=False), facts)
    return _lines(found)


def _nearness(path: Path) -> dict[str, np.ndarray]:
    """By measure: [trial, source, target] in the order of ``TASKS``, the larger the nearer."""
    table = store.read_table(path).to_pandas()
    if missing := [task for task in TASKS if task not in set(table["target"])]:
        raise UserError(f"{path}: no distances to {missing[0]!r}; expected {', '.join(TASKS)}")
    return {
        measure: kept_distances.by_trial(rows, list(TASKS))
        * (1 if MEASURES.get(measure).nearer == "higher" else -1)
        for measure, rows in table.groupby("measure", sort=False)
    }


def _of_target(
    cells: nas_tables.Table, flops: np.ndarray, near: dict[str, np.ndarray], target: str
) -> Iterator[dict]:
    """A row for each way to choose and number of queries."""
    place, others = list(TASKS).index(target), [task for task in TASKS if task != target]
    ranks = _ranks(cells, target)
    by_source = {task: -_ranks(cells, task) for task in others}
    alike = {task: np.corrcoef(ranks, -scores)[0, 1] for task, scores in by_source.items()}
    nearest, farthest = max(alike, key=alike.get), min(alike, key=alike.get)
    for n in QUERIES:
        about = {"target": target, "queries": n}
        alone = {task: best(scores, ranks, n) for task, scores in by_source.items()}
        yield about | {"way": "a random cell", "rank": (len(ranks) + 1) / (n + 1), "source": ""}
        yield about | {"way": "FLOPs", "rank": best(flops, ranks, n), "source": ""}
        yield about | {"way": "a random source", "rank": np.mean([*alone.values()]), "source": ""}
        joint = best(sum(by_source.values()), ranks, n)
        yield about | {"way": "all sources", "rank": joint, "source": ""}
        for way, source in ((_TABLE, nearest), ("table, farthest", farthest)):
            yield about | {"way": way, "rank": alone[source], "source": source}
        for measure, matrix in near.items():
            keep = np.arange(len(TASKS)) != place
            for way, pick in (("nearest", np.argmax), ("farthest", np.argmin)):
                chosen = [others[int(pick(trial[keep, place]))] for trial in matrix]
                named = max(dict.fromkeys(chosen), key=chosen.count)
                rank = np.mean([alone[source] for source in chosen])
                yield about | {"way": f"{measure}, {way}", "rank": rank, "source": named}


def _ranks(cells: nas_tables.Table, task: str) -> np.ndarray:
    """Ranks of all cells on a task, 1 the best; equal ones share theirs."""
    return rankdata(-cells.final[:, cells.column(TASKS[task])])


def best(scores: np.ndarray, ranks: np.ndarray, n: int) -> float:
    """The best rank among the n cells of the highest scores; of equal scores the first ones."""
    return float(ranks[np.argsort(-scores, kind="stable")[:n]].min())


def _lines(found: pd.DataFrame) -> list[str]:
    """Mean rank over targets by way and number of queries, and each target's after the last."""
    ways = list(dict.fromkeys([*_FIXED, *found["way"]]))
    means = found.pivot_table("rank", "way", "queries")
    last = found[found["queries"] == QUERIES[-1]].set_index(["way", "target"])
    heads = [f"mean rank after {n}" for n in QUERIES]
    heads += [f"{target}, after {QUERIES[-1]}" for target in TASKS]
    lines = [line(["cells are tried by", *heads]), "|---" * (len(heads) + 1) + "|"]
    for way in ways:
        own = [last.loc[way, target] for target in TASKS]
        said = [f"{row['rank']:.0f} ({row['source']})".removesuffix(" ()") for row in own]
        lines.append(line([way, *(f"{means.loc[way, n]:.1f}" for n in QUERIES), *said]))
    return lines
