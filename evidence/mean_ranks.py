"""Mean ranks of several measures, all of them, on the sets that measures are chosen on.

What ``docs/transfer/frozen-first.yaml`` holds was chosen with these tables in view; sets that are
held out are not looked at.
"""

import itertools
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from evidence import frozen, kept_transfer
from evidence.kept_transfer import Kept
from ftd import store
from ftd.errors import UserError
from ftd.measures.ranks import mean_rank
from ftd.runtime.progress import log
from ftd.transfer.agreement import STATISTICS, cube, statistics

OUT = Path("docs/transfer/mean-ranks.parquet")
CANDIDATES = (
    *("cka-labels", "logme", "leep", "nce", "knn", "linear-probe", "classes"),
    *("displacement", "displacement-fisher", "fisher-own", "fisher-body", "fisher"),
)
MOST = 4
"""Of how many measures."""
_OF = ["measures", "arm", "network"]


def run(
    candidates: Collection[str] = CANDIDATES, most: int = MOST, fixed: Path = frozen.PLACE
) -> pd.DataFrame:
    """Write ``docs/transfer/mean-ranks.parquet``; returns the means over sets, best regret first.

    Columns (Parquet): ``measures`` (joined by `` + ``), ``arm`` (the target's side: ``all`` its
    data, or as ``few`` images a class as the truth), ``network``, ``set``, and the statistics of
    ``ftd.transfer.agreement``, means over all truths, trials and targets alike.

    Args:
        fixed: the frozen list that names the sets.

    Raises:
        UserError: nothing frozen, unreadable tables, or a set that lacks a candidate.
    """
    listed = frozen.load(fixed)
    if listed is None:
        raise UserError(f"{fixed}: no such file; it names the sets for choosing")
    rows = []
    for name in listed.choosing:
        log(f"set {name}")
        rows += _rows(kept_transfer.load(name), list(candidates), most)
    table = pd.DataFrame(rows).astype(dict.fromkeys(STATISTICS, "float32"))
    facts = {"candidates": list(candidates), "most": most, "choosing": listed.choosing}
    store.write_table(OUT, pa.Table.from_pandas(table, preserve_index=False), facts)
    means = table.groupby(_OF)[list(STATISTICS)].mean().reset_index()
    return means.sort_values(["arm", "network", "regret"], ignore_index=True)


def _rows(kept: Kept, candidates: list[str], most: int) -> Iterator[dict]:
    """A row for each combination, arm and network of a set."""
    if missing := [name for name in candidates if name not in {*kept.numbers["measure"]}]:
        raise UserError(f"set {kept.name}: no numbers of {missing[0]!r}")
    sizes = range(1, most + 1)
    every = [of for size in sizes for of in itertools.combinations(candidates, size)]
    gains = kept.gains[kept.gains["source"].notna()]
    for network, own in gains.groupby("network"):
        numbers = kept.numbers[kept.numbers["network"] == network]
        for arm in ("all", "few"):
            found: dict[tuple[str, ...], list] = {of: [] for of in every}
            for shots, truths in own.groupby("shots"):
                seen = numbers["shots"].isna() if arm == "all" else numbers["shots"] == shots
                if not seen.any():  # not measured in this arm
                    continue
                for of, cells in _cells(numbers[seen], truths, kept.higher, every):
                    found[of].append(cells)
            for of, cells in found.items():
                if cells:
                    means = {key: np.nanmean([each[key] for each in cells]) for key in STATISTICS}
                    about = {"measures": " + ".join(of), "arm": arm, "network": network}
                    yield about | {"set": kept.name} | means


def _cells(
    numbers: pd.DataFrame,
    truths: pd.DataFrame,
    higher: Collection[str],
    every: list[tuple[str, ...]],
) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
    """Each combination's agreement with the truths of some shots, [scopes, trials, targets]."""
    trials, tasks = sorted({*truths["trial"]}), sorted({*truths["target"]})
    gain = np.stack(
        [cube(each, "gain", trials, tasks).swapaxes(1, 2) for _, each in truths.groupby("scope")]
    )
    ranks = {}
    for name in {name for of in every for name in of}:
        own = cube(numbers[numbers["measure"] == name], "distance", trials, tasks)
        nearer = {name: "higher" if name in higher else "lower"}
        by_trial = [mean_rank({name: matrix}, nearer) for matrix in own]
        ranks[name] = np.stack(by_trial).swapaxes(1, 2)
    for of in every:
        near = -np.mean([ranks[name] for name in of], axis=0)
        yield of, statistics(np.broadcast_to(near, gain.shape), gain)
