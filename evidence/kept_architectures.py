"""A task set's architectures, kept small under ``docs/transfer/``: a benchmark of its own.

Two tables a set: ``<name>-architectures.parquet``, how accurate every architecture is on every
task, and ``<name>-architectures-measures.parquet``, what the same experiment's measures say of
every pair. What is said of a set is computed from these alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from evidence.kept_transfer import TABLES, experiment_of
from ftd import store
from ftd.layout import LAYOUT
from ftd.measures.ranking import ranked
from ftd.stages import agreement, genotypes
from ftd.stages.experiment import Experiment
from ftd.store.provenance import packages
from ftd.transfer import architectures

ACCURACIES, MEASURES = "-architectures.parquet", "-architectures-measures.parquet"
COLUMNS = ["task", "repeat", "number", "genotype", "accuracy", "parameters", "macs"]
_PAIR = ["measure", "network", "trial", "target", "source"]


@dataclass(frozen=True)
class KeptArchitectures:
    """A set of tasks as it is kept.

    Attributes:
        name: of the set.
        accuracies: by task, those of the same genotypes on ``val``, float64 [repeats, genotypes].
        numbers: ``measure``, ``network``, ``trial``, ``source``, ``target``, and ``number``, what
            sources are ranked by.
        higher: the measures whose larger number is the nearer source's.
        facts: the configuration, the seconds, …; the checksums of both tables.
    """

    name: str
    accuracies: Mapping[str, np.ndarray]
    numbers: pd.DataFrame
    higher: list[str]
    facts: dict[str, Any]


def keep(results: Path, name: str) -> list[Path]:
    """Write both tables of a finished experiment; returns their paths.

    Measures' numbers are float32; accuracies are as they were measured, lest equal means of
    repeats get an order.

    Args:
        results: its folder, with ``config.json``, distances and architectures.
        name: of the set of tasks, such as ``mnist``.

    Raises:
        UserError: a name that no file can have; tables that are missing, damaged, or were made
            otherwise than the configuration asks for; a measure without distances.
    """
    experiment, raw = experiment_of(results, name)
    joined = genotypes.gather(experiment)
    near, _ = agreement.distances(experiment, experiment.config.measures)
    near = near[near["source"] != near["target"]].assign(number=ranked(near)).sort_values(_PAIR)
    numbers = near[[*_PAIR, "number"]].astype({"trial": "int16", "number": "float32"})
    made = {"set": name, "config": raw, "packages": packages()}
    about = made | _facts(experiment) | {"reliability": store.table_facts(joined)["reliability"]}
    narrow = {"repeat": pa.int16(), "number": pa.int16(), "parameters": pa.int32()}
    kinds = [pa.field(key, narrow.get(key, joined.schema.field(key).type)) for key in COLUMNS]
    paths = [TABLES / f"{name}{kind}" for kind in (ACCURACIES, MEASURES)]
    store.write_table(paths[0], joined.select(COLUMNS).cast(pa.schema(kinds)), about)
    written = pa.Table.from_pandas(numbers, preserve_index=False)
    store.write_table(paths[1], written, {"set": name, "higher": experiment.higher()})
    return paths


def _facts(experiment: Experiment) -> dict[str, Any]:
    """Seconds of all trainings, devices, and each task's share of the most frequent label."""
    settings = experiment.config
    places = [
        (task, experiment.input(LAYOUT.genotypes, task=task, repeat=repeat))
        for task in settings.tasks
        for repeat in range(settings.genotypes.repeats)
    ]
    found = [(task, store.table_facts(store.read_table(path, []))) for task, path in places]
    return {
        "seconds": sum(facts["seconds"] for _, facts in found),
        "devices": sorted({facts["device"] for _, facts in found}),
        "most_frequent": {task: facts["most_frequent"] for task, facts in found},
    }


def names() -> list[str]:
    """The sets that are kept, sorted."""
    return sorted(path.name.removesuffix(ACCURACIES) for path in TABLES.glob(f"*{ACCURACIES}"))


def load(name: str) -> KeptArchitectures:
    """A set that is kept.

    Raises:
        UserError: a table that is missing or damaged.
    """
    rows, numbers = (store.read_table(TABLES / f"{name}{kind}") for kind in (ACCURACIES, MEASURES))
    about, measured = map(store.table_facts, (rows, numbers))
    digests = {"accuracies": about["sha256"], "numbers": measured["sha256"]}
    own = architectures.by_task(rows)
    facts = about | {"sha256": digests}
    return KeptArchitectures(name, own, numbers.to_pandas(), measured["higher"], facts)
