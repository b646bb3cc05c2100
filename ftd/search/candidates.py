"""The table of what a search compared: ``candidates.parquet``."""

import json
from typing import TYPE_CHECKING

from ftd import store
from ftd.models.cells import build
from ftd.models.genotype import Genotype
from ftd.models.macs import forward_macs
from ftd.search.ledger import Candidate, Learned

if TYPE_CHECKING:
    import pyarrow as pa

    from ftd.tasks.data import TaskData

COLUMNS = {
    "rank": "int64",
    "genotype": "string",
    "name": "string",
    "score": "float64",
    "epochs": "int64",
    "shared": "bool",
    "parameters": "int64",
    "macs": "int64",
}


def table(candidates: list[Candidate], data: "TaskData | None") -> "pa.Table":
    """A row for every candidate, the best first.

    Those that were trained longer come first, as scores after fewer epochs do not compare; then
    the higher score. ``genotype``: JSON, as ``Genotype.to_json`` has it; ``parameters`` and
    ``macs``, of a forward pass for an image: those of its network for the task.

    Args:
        data: of the task; ``None`` where there are no candidates.
    """
    import pyarrow as pa  # here: a search itself needs no tables

    ranked = sorted(candidates, key=lambda one: (-one.epochs, -one.score))
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    for rank, one in enumerate(ranked, start=1):
        shape = data.task.image_shape
        net = build(one.genotype, image_shape=shape, target=data.target, seed=0)
        columns["rank"].append(rank)
        columns["genotype"].append(store.canonical(one.genotype.to_json()))
        columns["name"].append(one.genotype.name)
        columns["score"].append(one.score)
        columns["epochs"].append(one.epochs)
        columns["shared"].append(one.shared)
        columns["parameters"].append(sum(p.numel() for p in net.parameters()))
        columns["macs"].append(forward_macs(net, shape))
    return pa.table(columns, schema=pa.schema([*COLUMNS.items()]))


def learned(found: "pa.Table", weight: float) -> Learned:
    """A learned task of this weight, by its table."""
    rows = found.select(["genotype", "rank"]).to_pylist()
    genotypes = tuple(Genotype.from_json(json.loads(row["genotype"])) for row in rows)
    return Learned(weight, genotypes, tuple(row["rank"] for row in rows))
