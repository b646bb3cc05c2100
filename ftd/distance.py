"""Stage *distance*: the Fisher task distances to one target, and the table of all."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ftd import artifacts, versions
from ftd.config import Fisher, settings_json
from ftd.errors import UserError
from ftd.pairs import PairStore, open_store, pair_key
from ftd.progress import log, progress

if TYPE_CHECKING:
    from ftd.fisher import Diagonal


def squared_distance(f_ab: "Diagonal", f_bb: "Diagonal") -> float:
    """d² = ½ Σ (√F_ab − √F_bb)² of two unit-trace diagonals, in [0, 1].

    The squared Fréchet distance for diagonal matrices (Le et al. 2022, section III). Shapes
    must agree; see ``ftd.fisher.pad_heads`` and ``unit_trace``.
    """
    total = sum(
        (f_ab[name].double().sqrt() - f_bb[name].double().sqrt()).square().sum()
        for name in sorted(f_bb)
    )
    return min(1.0, 0.5 * float(total))  # rounding may exceed 1 for disjoint supports


def distance_between(f_ab: "Diagonal", f_bb: "Diagonal", what: str) -> float:
    """Squared distance of two raw diagonals: heads padded, unit trace, then d².

    Raises:
        UserError: a zero or non-finite trace; ``what`` names probe and task.
    """
    from ftd.fisher import pad_heads, unit_trace

    first, second = pad_heads(f_ab, f_bb)
    return squared_distance(unit_trace(first, what), unit_trace(second, what))


def index(probes: list[Path], out: Path) -> dict[str, dict[str, str]]:
    """List one trial's probes: ``{task: {path, sha256}}``, paths relative to the list's folder.

    The list is all that a distance column depends on besides its own Fisher diagonal: an equal
    list means equal probes.
    """
    found = {
        Path(path).stem: {
            "path": Path(os.path.relpath(path, Path(out).parent)).as_posix(),
            "sha256": artifacts.digest(path),
        }
        for path in probes
    }
    artifacts.write_json(out, found)
    return found


def run(
    index: Path,
    fisher: Path,
    task_slice: Path,
    images: Path,
    *,
    settings: Fisher,
    store: Path,
    out: Path,
) -> int:
    """Compute one column, d[a, target] for every probe *a* of the index; write it as Parquet.

    Pairs already in ``store`` are taken from it; torch is imported only if one is missing.
    Returns the number of pairs computed.

    Raises:
        UserError: unreadable input, or a zero or non-finite trace.
    """
    probes = artifacts.read_json(index)
    facts = artifacts.read_tensor_facts(fisher)
    target = facts["task"]
    decides = {
        "fisher": artifacts.digest(fisher),
        "slice": artifacts.digest(task_slice),
        "settings": json.loads(settings_json(settings)),
        "version": versions.STAGES["distance"],
    }
    keys = {
        source: pair_key(probe=entry["sha256"], **decides)
        for source, entry in sorted(probes.items())
        if source != target
    }
    with open_store(store) as pairs:
        missing = [source for source, key in keys.items() if pairs.get(key) is None]
        log(f"column {target}: {len(missing)} of {len(keys)} pairs missing")
        if missing:
            paths = {source: index.parent / probes[source]["path"] for source in missing}
            _compute(paths, keys, target, fisher, task_slice, images, settings, pairs)
        squared = {source: pairs.get(key) for source, key in keys.items()} | {target: 0.0}
    _write_column(squared, facts, out)
    return len(missing)


def _compute(
    paths: dict[str, Path],
    keys: dict[str, str],
    target: str,
    fisher: Path,
    task_slice: Path,
    images: Path,
    settings: Fisher,
    pairs: PairStore,
) -> None:
    """Stream the sources' probes over the target's data; F_ab is never stored."""
    from ftd import probe, slice
    from ftd.fisher import on_task
    from ftd.training import setup

    setup()
    f_bb, _ = artifacts.read_tensors(fisher)
    data = slice.TaskData(slice.read(task_slice), images, {"fisher": settings.samples})
    f_bb = {name: value.to(data.device) for name, value in f_bb.items()}
    for source, path in progress(paths.items(), f"column {target}", len(paths)):
        model, _ = probe.load(path)
        f_ab = on_task(model, data)
        value = distance_between(f_ab, f_bb, f"distance from {source} to {target}, probe {path}")
        pairs.add(keys[source], source, value)


def _write_column(squared: dict[str, float], facts: dict, out: Path) -> None:
    import pyarrow as pa

    sources = sorted(squared)
    values = [squared[source] for source in sources]
    table = pa.table(
        {
            "network": [facts["network"]] * len(sources),
            "trial": pa.array([facts["trial"]] * len(sources), pa.int64()),
            "source": sources,
            "target": [facts["task"]] * len(sources),
            "distance": [value**0.5 for value in values],
            "squared_distance": values,
        }
    )
    made_by = {key: facts[key] for key in ("samples", "settings", "packages")}
    artifacts.write_table(out, table, made_by | {"version": versions.STAGES["distance"]})


def assemble(columns: list[Path], out: Path) -> None:
    """Join all columns into one table, sorted by network, trial, target and source.

    Raises:
        UserError: unreadable columns, or none.
    """
    import pyarrow as pa

    if not columns:
        raise UserError("distances: no column given")
    tables = [artifacts.read_table(path) for path in columns]
    order = [(key, "ascending") for key in ("network", "trial", "target", "source")]
    joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    artifacts.write_table(out, joined.sort_by(order), {"version": versions.STAGES["distance"]})
