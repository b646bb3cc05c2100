"""Stage *compare*: one table of all trained networks."""

from pathlib import Path

from ftd import artifacts, versions

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


def run(metrics: list[Path], out: Path) -> None:
    """Write one row per task, method and seed from their ``metrics.json``.

    Raises:
        UserError: unreadable metrics.
    """
    import pyarrow as pa

    rows = [artifacts.read_json(path) for path in metrics]
    rows = [{name: row[name] for name in COLUMNS} for row in rows]
    rows.sort(key=lambda row: (row["task"], row["method"], row["seed"]))
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    table = pa.Table.from_pylist(rows, schema=schema)
    artifacts.write_table(out, table, {"version": versions.STAGES["compare"]})
