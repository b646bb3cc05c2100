"""Stage *compare*: one table of all trained networks."""

from pathlib import Path

from ftd import artifacts, versions
from ftd.errors import UserError

COLUMNS = {
    "task": "string",
    "method": "string",
    "seed": "int64",
    "accuracy": "float64",
    "parameters": "int64",
    "macs": "int64",
    "search_macs": "int64",
    "search_seconds": "float64",
    "space_log10": "float64",
}


def run(final: Path, tasks: list[str], methods: list[str], seeds: list[int], out: Path) -> None:
    """Write one row per task, method and seed, from ``<method>/<task>/<seed>/metrics.json``.

    Raises:
        UserError: unreadable metrics, or none asked for.
    """
    import pyarrow as pa

    paths = [
        final / method / task / str(seed) / "metrics.json"
        for task in sorted(tasks)
        for method in sorted(methods)
        for seed in sorted(seeds)
    ]
    if not paths:
        raise UserError("compare: expected at least one task, method and seed")
    rows = [_row(path) for path in paths]
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    table = pa.Table.from_pylist(rows, schema=schema)
    facts = {"metrics": [artifacts.digest(path) for path in paths]}
    artifacts.write_table(out, table, facts | versions.record("compare", {}))


def _row(path: Path) -> dict:
    metrics = artifacts.read_json(path)
    artifacts.expect_stage(path, metrics, "train")
    return {name: metrics[name] for name in COLUMNS}
