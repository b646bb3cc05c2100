"""What a pair of a distance column costs, by network and by samples."""

import statistics
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from evidence.scale import Job, jobs_to, settings_of
from ftd import config, store
from ftd.layout import LAYOUT
from ftd.runtime.progress import log
from ftd.runtime.threads import setup
from ftd.stages import distance
from ftd.stages.experiment import Experiment
from ftd.store.provenance import packages


def run(
    out: Path, *, folder: Path, tasks: int, network: str, samples: list[int], rounds: int
) -> pd.DataFrame:
    """Time one column of a library of digits' tasks, from all sources; write it as Parquet.

    Its slices, probes (of one epoch) and Fisher diagonals are real, and are kept in ``folder``
    for the next time. The column's finished pairs are deleted before each round.

    Args:
        samples: images that Fisher information is taken of; a library each.

    Returns:
        A row per number of samples: ``pairs``, and CPU ``milliseconds`` a pair (median, lowest).
    """
    setup()
    rows = []
    for count in samples:
        experiment = _library(folder / f"{network}-{count}-{tasks}", tasks, network, count)
        column = next(job for job in jobs_to(experiment) if job.rule == "distance")
        seconds = [_seconds(experiment, column) for _ in range(rounds + 1)][1:]
        same = {"network": network, "samples": count, "pairs": tasks - 1}
        rows += [same | {"round": number, "seconds": spent} for number, spent in enumerate(seconds)]
        log(f"{network}, {count} samples: {statistics.median(seconds):.2f} CPU seconds a column")
    table = pd.DataFrame(rows)
    facts = {"tasks": tasks, "version": distance.VERSION, "packages": packages()}
    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    table["milliseconds"] = table["seconds"] / table["pairs"] * 1000
    by = table.groupby(["network", "samples", "pairs"], sort=False)["milliseconds"]
    return by.agg(["median", "min"]).reset_index()


def _library(folder: Path, tasks: int, network: str, samples: int) -> Experiment:
    """A library up to its Fisher diagonals; what is there already is not made again."""
    settings: dict[str, Any] = settings_of(tasks)
    settings |= {"networks": [network], "probe": {"epochs": 1}, "fisher": {"samples": samples}}
    parsed = config.parse(settings)
    experiment = Experiment.of(parsed, folder / parsed.results / parsed.experiment)
    done = folder / "config.yaml"
    if not done.exists():
        for job in jobs_to(experiment):
            if job.rule in ("dataset", "task", "probe", "fisher", "index"):
                job.run(experiment)
        store.write_bytes(done, yaml.safe_dump(settings, sort_keys=False).encode())
    return experiment


def _seconds(experiment: Experiment, column: Job) -> float:
    experiment.output(LAYOUT.pairs, **column.names).unlink(missing_ok=True)
    began = time.process_time()
    column.run(experiment)
    return time.process_time() - began
