"""Stage *comparison*: one table of all trained networks."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftd import store
from ftd.layout import LAYOUT
from ftd.stages import training
from ftd.stages.checking import Library, expect_asked
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

VERSION = 3

COLUMNS = {
    "task": "string",
    "method": "string",
    "seed": "int64",
    "accuracy": "float64",
    "most_frequent": "float64",
    "parameters": "int64",
    "macs": "int64",
    "search_macs": "int64",
    "search_seconds": "float64",
    "space_log10": "float64",
}


def decides(experiment: Experiment) -> dict[str, Any]:
    """All that decides the table, besides the metrics."""
    searched = [[s["task"], s["method"], s["seed"]] for s in experiment.searched()]
    return {"settings": {}, "searched": searched, "version": VERSION}


def run(experiment: Experiment) -> None:
    """Write one row per task, method and seed, from their metrics.

    Raises:
        UserError: unreadable metrics, or such that were made otherwise than the configuration asks
            for.
    """
    import pyarrow as pa  # rules and --help would pay for it

    order = sorted(experiment.searched(), key=lambda s: (s["task"], s["method"], int(s["seed"])))
    rows, digests = [], []
    for names in order:
        metrics, facts = metrics_of(experiment, **names)
        rows.append({name: metrics[name] for name in COLUMNS})
        digests.append(facts["sha256"])
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    facts = {"metrics": digests} | record("comparison", VERSION, {})
    table = pa.Table.from_pylist(rows, schema=schema)
    store.write_table(experiment.output(LAYOUT.comparison), table, facts)


def metrics_of(experiment: Experiment, **names: str) -> tuple[dict, dict]:
    """The metrics of a trained network by method, task and seed, and the facts of their file.

    Raises:
        UserError: as ``run``.
    """
    path = experiment.input(LAYOUT.metrics, **names)
    metrics, facts = store.read_document(path)
    store.expect_stage(path, metrics, "training")
    expect_asked(path, metrics, training.decides(experiment, **names))
    return metrics, facts


def _check(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    table = store.read_table(path, stage="comparison")
    facts = store.table_facts(table)
    yield from library.made_by(facts, VERSION, decides)
    for row, recorded in zip(table.to_pylist(), facts["metrics"], strict=True):
        yield from library.same(library.path(LAYOUT.metrics, **row), recorded, "metrics")


CHECKS = [(LAYOUT.comparison, _check)]
