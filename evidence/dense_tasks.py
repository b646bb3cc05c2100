"""Taskonomy's ten dense tasks: what an experiment found, kept under ``docs/taskonomy/``.

The page is written from what is kept: see ``evidence.dense_page``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evidence import dense_page, kept_distances, published, running
from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import MEASURES

TABLES = Path("docs/taskonomy")
CONFIG = Path("config/taskonomy.yaml")
_TRUTH = "weights"


@dataclass(frozen=True)
class Found:
    """A kept experiment.

    Attributes:
        name: of the files.
        network: of its probes.
        probes: a row a task and trial, as ``evidence.kept_distances`` keeps them.
        numbers: by measure: what sources are ranked by, float64 [trial, source, target], in the
            paper's order.
        higher: the measures whose larger number is the nearer source's.
        agreement: ``ftd.transfer.agreement.summary`` of gains of fine-tuning; empty if none was
            measured.
        facts: of the probes' table.
    """

    name: str
    network: str
    probes: pd.DataFrame
    numbers: dict[str, np.ndarray]
    higher: frozenset[str]
    agreement: pd.DataFrame
    facts: dict[str, Any]


def run(settings: list[str], cores: int, *, transfer: bool, note: str) -> list[str]:
    """Compute distances of ``config/taskonomy.yaml``, and gains if asked for; keep all, write.

    What is finished is not computed again; run from the repository's folder.

    Returns:
        The lines of the page.

    Raises:
        UserError: a workflow that failed, or an experiment without the ten tasks.
    """
    running.run(["selection"], [CONFIG], settings, cores)
    if transfer:
        running.run(["agreement"], [CONFIG], settings, cores)
    given = dict(setting.split("=", 1) for setting in settings)
    results = Path(given.get("results", "results")) / given.get("experiment", "taskonomy")
    keep(results, results.name, note)
    return dense_page.write([load(name) for name in names()], TABLES)


def keep(results: Path, name: str, note: str) -> None:
    """Copy an experiment's tables; of agreement too, where it was measured."""
    kept_distances.keep(results, name, note, TABLES)
    path = LAYOUT.agreement.path(results, truth=_TRUTH)
    if path.exists():
        store.write_bytes(TABLES / f"{name}-agreement.parquet", path.read_bytes())


def names() -> list[str]:
    """The experiments that are kept, sorted."""
    ending = "-distances.parquet"
    return sorted(path.name.removesuffix(ending) for path in TABLES.glob(f"*{ending}"))


def load(name: str) -> Found:
    """A kept experiment.

    Raises:
        UserError: missing or damaged tables, or other tasks than the ten.
    """
    order = kept_distances.order_of(name, TABLES)
    if sorted(order) != sorted(published.TASKONOMY):
        raise UserError(f"{TABLES}/{name}: expected the tasks {', '.join(published.TASKONOMY)}")
    probes = store.read_table(TABLES / f"{name}-probes.parquet")
    distances = store.read_table(TABLES / f"{name}-distances.parquet").to_pandas()
    agreement = TABLES / f"{name}-agreement.parquet"
    return Found(
        name=name,
        network=distances["network"].iloc[0],
        probes=probes.to_pandas(),
        numbers={
            measure: kept_distances.by_trial(rows, published.TASKONOMY)
            for measure, rows in distances.groupby("measure", sort=False)
        },
        higher=frozenset(
            name for name in distances["measure"].unique() if MEASURES.get(name).nearer == "higher"
        ),
        agreement=store.read_table(agreement).to_pandas() if agreement.exists() else pd.DataFrame(),
        facts=store.table_facts(probes),
    )
