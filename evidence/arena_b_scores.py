"""Whether the scores by which DARTS and TE-NAS choose repeat, on a set of arena B."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import spearmanr

from evidence import arena_b_gate, arena_b_plan, score_repeats
from evidence.arena_b_plan import FOLDER
from ftd import store
from ftd.config import SearchSettings
from ftd.runtime.seeds import seed_of
from ftd.runtime.threads import setup
from ftd.search.darts import bilevel
from ftd.search.ledger import Ledger
from ftd.search.space import Space
from ftd.stages import dataset, task
from ftd.store.provenance import packages
from ftd.tasks.data import TaskData

DRAWS = 6
"""Of weights and images, for TE-NAS."""


def run(name: str, *, configs: list[Path], settings: list[str]) -> pd.DataFrame:
    """Search a set's new task by DARTS from two seeds, draw TE-NAS' scores; keep Spearman's ρ.

    Returns:
        A row per ``method`` and ``measure``, with ``rho``; kept as
        ``docs/arena-b/scores-<set>.parquet``.

    Raises:
        UserError: as ``evidence.arena_b_gate.run``.
    """
    plan = arena_b_plan.load()
    target = plan.of(name).target
    experiment = arena_b_gate.experiment_of(name, plan, configs, settings)
    setup()
    dataset.run(experiment, dataset=experiment.config.tasks[target].dataset)
    task.run(experiment, task=target)
    search = experiment.config.search
    sliced = task.read(experiment, task=target)
    data = task.data_of(experiment, sliced, dict.fromkeys(("train", "val"), search.samples))
    space = Space.full(search.space)
    rows = []
    for method in ("darts-1st", "pc-darts-1st"):
        rho = of_relaxation(space, data, search.of(method), partial=method.startswith("pc-"))
        rows.append({"method": method, "measure": "α", "rho": rho})
    own = search.te_nas
    found = score_repeats.measured(data, space, own, genotypes=plan.gate.architectures, draws=DRAWS)
    for row in found.itertuples():
        measure = f"{row.measure} of {row.what}"
        rows.append({"method": "te-nas", "measure": measure, "rho": row.averaged})
    table = pd.DataFrame(rows)
    facts = {"task": target, "seed": experiment.config.seed, "packages": packages()}
    facts |= {"search": search.model_dump(mode="json"), "draws": DRAWS}
    kept = pa.Table.from_pandas(table, preserve_index=False)
    store.write_table(FOLDER / f"scores-{name}.parquet", kept, facts)
    return table


def of_relaxation(
    space: Space, data: TaskData, settings: SearchSettings, *, partial: bool
) -> float:
    """Spearman's ρ of all operations' weights in the end of two searches of different seeds."""
    ends = []
    for number in range(2):
        ledger = Ledger(f"search {number + 1} of 2", settings.max_macs)
        seed = seed_of("repeats", number)
        found, _ = bilevel.relaxed(space, data, settings, seed, ledger, partial_channels=partial)
        ends.append(np.concatenate([weights.flatten().numpy() for weights in found.values()]))
    return float(spearmanr(*ends).statistic)
