"""Stage *distance*: the Fisher task distances to one target, and the table of all."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftd import artifacts, versions
from ftd.config import Distance, Fisher
from ftd.errors import UserError
from ftd.pairs import Pair, open_store, pair_key
from ftd.progress import log, progress

if TYPE_CHECKING:
    import pyarrow as pa

    from ftd.fisher.kronecker import Information


def squared_distance(f_ab: "Information", f_bb: "Information") -> float:
    """d² = ½ Σ (√F_ab − √F_bb)² of two unit-trace diagonals, in [0, 1].

    The squared Fréchet distance for diagonal matrices (Le et al. 2022, section III); with
    Kronecker factors, that of the blocks they stand for. Shapes must agree.
    """
    from ftd.fisher.kronecker import contributions

    return total_of(contributions(f_ab, f_bb))


def total_of(contributions: dict[str, float]) -> float:
    """The squared distance whose layers' shares these are."""
    return min(1.0, max(0.0, math.fsum(contributions.values())))  # but for rounding


def on_common_ground(
    f_ab: "Information", f_bb: "Information", what: str
) -> tuple["Information", "Information"]:
    """Two raw informations with heads padded to one size, each of unit trace.

    Raises:
        UserError: a zero or non-finite trace; ``what`` names probe and task.
    """
    from ftd.fisher import pad_heads, unit_trace

    first, second = pad_heads(f_ab, f_bb)
    return unit_trace(first, what), unit_trace(second, what)


def index(probes: list[Path], out: Path) -> dict[str, dict[str, str]]:
    """List one trial's probes: ``{task: {path, sha256}}``, paths relative to the list's folder.

    The list is all that a distance column depends on besides its own Fisher diagonal: an equal
    list means equal probes.

    Raises:
        UserError: a file that is missing, damaged, or no probe.
    """
    for path in probes:
        artifacts.read_tensor_facts(path, stage="probe")  # whole, and a probe
    found = {
        Path(path).stem: {
            "path": Path(os.path.relpath(path, Path(out).parent)).as_posix(),
            "sha256": artifacts.digest(path),
        }
        for path in probes
    }
    artifacts.write_json(out, found)
    return found


def read_index(path: Path) -> dict[str, dict[str, str]]:
    """The list that ``index`` wrote.

    Raises:
        UserError: missing or damaged file, or another one.
    """
    found = artifacts.read_json(path)
    for entry in found.values():
        if not isinstance(entry, dict) or not {"path", "sha256"} <= entry.keys():
            raise UserError(f"{path}: no list of probes; give one that `ftd index` wrote")
    return found


def run(
    index: Path,
    fisher: Path,
    task_slice: Path,
    images: Path,
    *,
    settings: Distance,
    store: Path,
    out: Path,
) -> int:
    """Compute one column, d[a, target] for every probe *a* of the index; write it as Parquet.

    F_ab is taken with the settings that F_bb was made with. Pairs already in ``store`` are taken
    from it; torch is imported only if one is missing.
    Returns the number of pairs computed.

    Raises:
        UserError: unreadable input, inputs of different runs, or a zero or non-finite trace.
    """
    probes = read_index(index)
    facts = artifacts.read_tensor_facts(fisher, stage="fisher")
    target = facts["task"]
    decides = {
        "fisher": artifacts.digest(fisher),
        "slice": artifacts.digest(task_slice),
        "settings": settings.model_dump(mode="json"),
        "version": versions.STAGES["distance"],
    }
    wanted = {"probe": probes.get(target, {}).get("sha256"), "slice": decides["slice"]}
    for key, value in wanted.items():
        if facts[key] != value:
            raise UserError(
                f"{fisher}: made from another {key} than the one given; run the stage fisher again"
            )
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
            for source, path in paths.items():
                if artifacts.digest(path) != probes[source]["sha256"]:
                    raise UserError(f"{path}: changed since the probes were listed; run again")
            found = _contributions(paths, facts, fisher, task_slice, images, settings)
            for source, layers in progress(found, f"column {target}", len(missing)):
                pairs.add(keys[source], source, total_of(layers), layers if settings.layers else {})
        rows = {source: pairs.get(key) for source, key in keys.items()}
    inputs = {key: decides[key] for key in ("fisher", "slice")} | {"index": artifacts.digest(index)}
    _write_column(rows | {target: Pair(0.0, {})}, facts, settings, inputs, out)
    return len(missing)


def _contributions(
    paths: dict[str, Path],
    facts: dict,
    fisher: Path,
    task_slice: Path,
    images: Path,
    settings: Distance,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each source with d²[source, target] by layer; F_bb and the data are loaded once."""
    from ftd import probe, slice
    from ftd.fisher import on_task
    from ftd.fisher.kronecker import contributions
    from ftd.training import setup

    setup()
    fisher_settings = Fisher.model_validate(facts["settings"])
    data = slice.TaskData(slice.read(task_slice), images, {"fisher": fisher_settings.samples})
    f_bb, _ = artifacts.read_tensors(fisher)
    f_bb = {name: value.to(data.device) for name, value in f_bb.items()}
    for source, path in paths.items():
        model, _ = probe.load(path)
        f_ab = on_task(model, data, fisher_settings, settings.label_space)
        what = f"distance from {source} to {facts['task']}, probe {path}"
        yield source, contributions(*on_common_ground(f_ab, f_bb, what))


_SCHEMA = {
    "network": "string",
    "trial": "int64",
    "source": "string",
    "target": "string",
    "distance": "float64",
    "squared_distance": "float64",
}


def _write_column(
    rows: dict[str, Pair], facts: dict, settings: Distance, inputs: dict[str, str], out: Path
) -> None:
    import pyarrow as pa

    entry = pa.struct([("layer", pa.string()), ("contribution", pa.float64())])
    same = {
        key: facts[name] for key, name in (("network",) * 2, ("trial",) * 2, ("target", "task"))
    }
    table = pa.Table.from_pylist(
        [
            same
            | {
                "source": source,
                "distance": pair.squared_distance**0.5,
                "squared_distance": pair.squared_distance,
                "layers": [
                    {"layer": layer, "contribution": value} for layer, value in pair.layers.items()
                ],
            }
            for source, pair in sorted(rows.items())
        ],
        schema=pa.schema(
            [(name, pa.type_for_alias(kind)) for name, kind in _SCHEMA.items()]
            + [("layers", pa.list_(entry))]
        ),
    )
    made_by = {"samples": facts["samples"], "fisher_settings": facts["settings"], "inputs": inputs}
    artifacts.write_table(out, table, made_by | versions.record("distance", settings))


def assemble(indexes: list[Path], columns: Path, out: Path, layers_out: Path) -> None:
    """Join the columns of all tasks of all indexes into one table, sorted.

    ``columns`` is the folder of columns, ``<network>/<trial>/<task>.parquet`` below it, as the
    indexes are ``<network>/<trial>.json``. The order is network, trial, target and source.

    ``layers_out`` gets one row per pair and layer, with its ``contribution`` to the squared
    distance; none where the settings keep no layers.

    Raises:
        UserError: unreadable columns, columns of different settings, or none.
    """
    import pyarrow as pa

    paths = [
        columns / index.parent.name / index.stem / f"{task}.parquet"
        for index in indexes
        for task in sorted(read_index(index))
    ]
    if not paths:
        raise UserError("distances: no column given")
    tables = [artifacts.read_table(path) for path in paths]
    facts = [artifacts.table_facts(table) | {"samples": None, "inputs": None} for table in tables]
    for path, found in zip(paths, facts, strict=True):
        artifacts.expect_stage(path, found, "distance")
        if found != facts[0]:
            raise UserError(f"{path}: made with other settings or versions than {paths[0]}")
    order = [(key, "ascending") for key in ("network", "trial", "target", "source")]
    joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    joined = joined.sort_by(order)
    made_by = facts[0] | {"inputs": {"indexes": [artifacts.digest(index) for index in indexes]}}
    artifacts.write_table(out, joined.drop_columns("layers"), made_by)
    artifacts.write_table(layers_out, _by_layer(joined), made_by)


def _by_layer(joined: "pa.Table") -> "pa.Table":
    """One row per pair and layer of a table with the column ``layers``."""
    import pyarrow.compute as pc

    table = joined.select(["network", "trial", "source", "target"])
    table = table.take(pc.list_parent_indices(joined["layers"]))
    entries = pc.list_flatten(joined["layers"])
    for name in ("layer", "contribution"):
        table = table.append_column(name, pc.struct_field(entries, name))
    return table
