"""What architectures say of measures, over all sets of tasks that are kept: tables and a page.

Where a list of measures is frozen (one of its own: weights were chosen on other sets), sets that
were not used for choosing are looked at by that list and ``evidence.transfer_tables.REFERENCES``
alone. The *gate*: the tables are made of all targets, and of those alone whose trainings agree
(``ftd.transfer.architectures.GATE``), of all sources.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from evidence import architecture_page, frozen, kept_architectures, transfer_page
from evidence.frozen import HELD_OUT, Frozen
from evidence.kept_architectures import KeptArchitectures
from evidence.transfer_tables import ALL, REFERENCES, Pool
from ftd import store
from ftd.errors import UserError
from ftd.runtime.progress import log
from ftd.transfer import agreement, architectures, weighting
from ftd.transfer.agreement import AVERAGE, DRAWS, RANDOM, interval, resampled, weights
from ftd.transfer.trust import CHOOSING

OUT = Path("docs/transfer/architectures-agreement.parquet")
FROZEN = Path("docs/transfer/frozen-architectures.yaml")
ALIKE = ("rank_correlation", "affinity")
_BASELINES = {RANDOM, AVERAGE, weighting.UNIFORM, weighting.NEAREST, weighting.OWN}
_ORDER = [
    *("set", "sets", "role", "gate", "network", "scope", "statistic", "measure", "temperature"),
    *("against", "value", "low", "high", "targets", "trials"),
]


def run(draws: int = DRAWS) -> list[str]:
    """Write ``docs/transfer/architectures-agreement.parquet``, and its tables into the page.

    Columns (Parquet): ``set`` (or what several are called), ``sets`` (how many have such rows),
    ``role``, ``gate`` (whether only targets count that pass it), ``network``, ``scope``
    (``rank_correlation``, ``affinity`` or ``gain``), ``statistic``, ``measure``, ``temperature``,
    ``against``, ``value``, ``low``, ``high``, ``targets``, ``trials``. The statistic ``weighted``
    of the scope ``gain`` has the rows of ``ftd.transfer.weighting.summary``, in points; ``mean``
    the mean over ordered pairs of tasks, without a measure and network; ``spearman``, … those of
    ``ftd.transfer.agreement.summary``.

    Returns:
        The lines of the page that it wrote.

    Raises:
        UserError: nothing kept, unreadable tables, or a page without its marks.
    """
    names = kept_architectures.names()
    if not names:
        raise UserError(
            f"{kept_architectures.TABLES}: no architectures are kept; add a set by: "
            "python -m evidence keep-architectures"
        )
    transfer_page.expect_marks(architecture_page.BEGIN, page=architecture_page.PAGE)
    sets = {name: kept_architectures.load(name) for name in names}
    tables = {name: tables_of(each) for name, each in sets.items()}
    fixed = frozen.load(FROZEN)
    found = [rows for pool in pools(names, fixed) for rows in summaries(pool, tables, draws)]
    table = pd.concat(found, ignore_index=True)
    kinds = dict.fromkeys(["value", "low", "high"], "float32")
    table = table.astype(kinds | dict.fromkeys(["role", "against", "measure", "network"], "string"))
    reliability = {name: each.facts["reliability"] for name, each in sets.items()}
    facts = {
        "sets": {name: each.facts["sha256"] for name, each in sets.items()},
        "frozen": fixed and fixed.model_dump(),
        "reliability": reliability,
        "gate": architectures.GATE,
        "draws": draws,
    }
    store.write_table(OUT, pa.Table.from_pandas(table, preserve_index=False), facts)
    sizes = {name: next(iter(each.accuracies.values())).shape for name, each in sets.items()}
    return architecture_page.write(table, reliability, sizes)


def tables_of(kept: KeptArchitectures) -> dict[str, pd.DataFrame]:
    """A set's ``pairs`` of tasks, ``weighted`` cells, and ``cells`` of measures against truths.

    Each with ``enough``, whether the target passes the gate.
    """
    log(f"set {kept.name}")
    rows = pd.DataFrame(architectures.pairs(kept.accuracies))
    numbers = kept.numbers
    truths = agreement.of_architectures(rows, numbers["network"].unique(), {*numbers["trial"]})
    near = numbers.rename(columns={"number": "distance"})
    found = {
        "pairs": rows[rows["source"].notna() & (rows["source"] != rows["target"])],
        "weighted": weighting.cells(numbers, kept.accuracies, kept.higher),
        "cells": agreement.cells(near, truths, kept.higher),
    }
    loud = architectures.unreliable(kept.accuracies)
    return {kind: table.assign(enough=~table["target"].isin(loud)) for kind, table in found.items()}


def pools(names: list[str], fixed: Frozen | None) -> list[Pool]:
    """Each set alone, and those that are taken together."""
    if fixed is None:
        alone = [Pool(name, [name], None, None) for name in names]
        return [*alone, Pool(ALL, names, None, None)]
    listed = list(dict.fromkeys([*fixed.measures, *REFERENCES]))
    chosen = [name for name in names if name in fixed.choosing]
    held = [name for name in names if name not in fixed.choosing]
    roles = [(CHOOSING, chosen, None), (HELD_OUT, held, listed)]
    alone = [Pool(name, [name], role, of) for role, sets, of in roles for name in sets]
    return alone + [Pool(role, sets, role, of) for role, sets, of in roles if sets]


def summaries(
    pool: Pool, tables: Mapping[str, Mapping[str, pd.DataFrame]], draws: int
) -> Iterator[pd.DataFrame]:
    """All rows of a pool, as ``run`` describes them; a part a gate that targets pass."""
    log(f"{pool.name}: intervals")
    for gate in (False, True):
        sets = [tables[name] for name in pool.sets]
        if gate:
            sets = [{kind: rows[rows["enough"]] for kind, rows in each.items()} for each in sets]
            sets = [each for each in sets if len(each["pairs"])]
        if not sets:
            continue
        weighted = weighting.summary(*_looked_at(pool, sets, "weighted"), draws=draws)
        held = agreement.summary(*_looked_at(pool, sets, "cells"), against=(), draws=draws)
        found = [
            _alike([each["pairs"] for each in sets], draws),
            weighted.assign(scope="gain", statistic="weighted"),
            held[held["against"].isna()],
        ]
        about = {"set": pool.name, "sets": len(sets), "role": pool.role, "gate": gate}
        yield pd.concat([each.assign(**about).reindex(columns=_ORDER) for each in found])


def _looked_at(pool: Pool, sets: list[Mapping[str, pd.DataFrame]], kind: str) -> list:
    """Each set's table of a kind, with the pool's measures and baselines alone."""
    found = [each[kind] for each in sets]
    if pool.measures is None:
        return found
    wanted = {*pool.measures} | _BASELINES
    return [each[each["measure"].isin(wanted)] for each in found]


def _alike(pairs: list[pd.DataFrame], draws: int) -> pd.DataFrame:
    """How alike two tasks are, on average over sources, then targets, then sets."""
    means = []
    for number, each in enumerate(pairs):
        by = each.groupby("target")[list(ALIKE)].mean().to_numpy().T[:, None]
        means.append(resampled(by, weights(*by.shape[1:], draws, (0, number))))
    value, low, high = interval(np.mean(means, axis=0))
    found = pd.DataFrame({"scope": ALIKE, "value": value, "low": low, "high": high})
    targets = sum(each["target"].nunique() for each in pairs)
    return found.assign(statistic="mean", targets=targets)
