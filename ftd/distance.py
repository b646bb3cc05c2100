"""Stage *distance*: the Fisher task distances to one target, and the table of all."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftd import artifacts, versions
from ftd.config import Distance, Fisher
from ftd.errors import UserError
from ftd.pairs import open_store, pair_key
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

    return total_of(contributions(f_ab, f_bb).values())


def total_of(contributions: Iterable[float]) -> float:
    """The squared distance whose layers' shares these are."""
    return min(1.0, max(0.0, math.fsum(contributions)))  # but for rounding


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


def _parts(facts: dict, settings: Distance) -> list[str]:
    """What a pair's numbers belong to: the Fisher diagonal's layers, or the whole."""
    return facts["layers"] if settings.layers else [WHOLE]


def pair_keys(
    index: Path, fisher: Path, task_slice: Path, *, settings: Distance
) -> dict[str, list[bytes]]:
    """The keys of a column's pairs, by source: one for each number of the pair.

    Raises:
        UserError: unreadable input, or inputs of different runs.
    """
    probes = read_index(index)
    facts = artifacts.read_tensor_facts(fisher, stage="fisher")
    decides = {
        "fisher": artifacts.digest(fisher),
        "slice": artifacts.digest(task_slice),
        "settings": settings.model_dump(mode="json"),
        "version": versions.STAGES["distance"],
    }
    target = facts["task"]
    wanted = {"probe": probes.get(target, {}).get("sha256"), "slice": decides["slice"]}
    wanted |= {"version": versions.STAGES["fisher"]}
    for key, value in wanted.items():
        if facts[key] != value:
            raise UserError(
                f"{fisher}: made from another {key} than the one given; run the stage fisher again"
            )
    return {
        source: [
            pair_key(probe=entry["sha256"], part=part, **decides)
            for part in _parts(facts, settings)
        ]
        for source, entry in sorted(probes.items())
        if source != target
    }


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
        UserError: unreadable input, inputs of different runs or that change meanwhile, or a zero or
            non-finite trace.
    """
    inputs = {"index": index, "fisher": fisher, "slice": task_slice}
    digests = {name: artifacts.digest(path) for name, path in inputs.items()}
    probes = read_index(index)
    facts = artifacts.read_tensor_facts(fisher, stage="fisher")
    keys = pair_keys(index, fisher, task_slice, settings=settings)
    target, parts = facts["task"], _parts(facts, settings)
    with open_store(store) as pairs:
        missing = [source for source in keys if None in map(pairs.get, keys[source])]
        log(f"column {target}: {len(missing)} of {len(keys)} pairs missing")
        if missing:
            paths = {source: index.parent / probes[source]["path"] for source in missing}
            keyed = {paths[source]: probes[source]["sha256"] for source in missing}
            keyed |= {fisher: digests["fisher"], task_slice: digests["slice"]}
            found = _contributions(paths, facts, fisher, task_slice, images, settings, keyed)
            for source, layers in progress(found, f"column {target}", len(missing)):
                kept = layers if settings.layers else {WHOLE: total_of(layers.values())}
                pairs.add(zip(keys[source], map(kept.get, parts), strict=True))
        rows = {source: [pairs.get(key) for key in keys[source]] for source in keys}
    rows[target] = [0.0] * len(parts)
    made_by = {key: facts[key] for key in ("network", "trial", "task", "samples")}
    made_by |= {"inputs": digests, "fisher_settings": facts["settings"]}
    write_column(out, rows, parts, made_by | versions.record("distance", settings))
    return len(missing)


def _expect(path: Path, keyed: dict[Path, str]) -> None:
    """What was loaded is what the pairs' keys say, whoever else is writing."""
    if artifacts.digest(path) != keyed[path]:
        raise UserError(f"{path}: changed since this job or its list of probes began; run again")


def _contributions(
    paths: dict[str, Path],
    facts: dict,
    fisher: Path,
    task_slice: Path,
    images: Path,
    settings: Distance,
    keyed: dict[Path, str],
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each source with d²[source, target] by layer; F_bb and the data are loaded once.

    ``keyed`` has the SHA-256 that each file is taken for.
    """
    from ftd import probe, slice
    from ftd.fisher import on_task
    from ftd.fisher.kronecker import contributions
    from ftd.training import setup

    setup()
    fisher_settings = Fisher.model_validate(facts["settings"])
    data = slice.TaskData(slice.read(task_slice), images, {"fisher": fisher_settings.samples})
    f_bb, _ = artifacts.read_tensors(fisher)
    f_bb = {name: value.to(data.device) for name, value in f_bb.items()}
    _expect(task_slice, keyed)
    _expect(fisher, keyed)
    for source, path in paths.items():
        model, _ = probe.load(path)
        _expect(path, keyed)
        f_ab = on_task(model, data, fisher_settings, settings.label_space)
        what = f"distance from {source} to {facts['task']}, probe {path}"
        yield source, contributions(*on_common_ground(f_ab, f_bb, what))


WHOLE = "squared_distance"
"""What a column holds in place of the layers' shares, where they are not kept."""
COMMON = ("fisher_settings", "stage", "settings", "version")
"""The facts that the columns of one table share; they may be of different days' packages."""


def write_column(out: Path, rows: dict[str, list[float]], parts: list[str], facts: dict) -> None:
    """Write a column: a row for each source, by name, and a column for each part of its number.

    The sources are not repeated: the ``inputs`` of ``facts`` hold the digest of the ``index`` that
    lists them; ``facts`` name ``network``, ``trial`` and ``task``.
    """
    import pyarrow as pa

    numbers = zip(*(rows[source] for source in sorted(rows)), strict=True)
    arrays = [pa.array(values, pa.float64()) for values in numbers]
    artifacts.write_table(out, pa.Table.from_arrays(arrays, parts), facts)


def read_columns(
    index: Path, paths: Iterable[Path]
) -> Iterator[tuple["pa.Table", "pa.Table", dict]]:
    """Columns of an index: each one's pairs, their contributions by layer, and its facts.

    Pairs have ``network``, ``trial``, ``source``, ``target``, ``squared_distance`` and its root
    ``distance`` (float32, to spare the disk), and are sorted by source. Contributions are none
    where the settings keep no layers.

    Raises:
        UserError: an unreadable column, or one of another index.
    """
    import numpy as np
    import pyarrow as pa

    sources, made_from = sorted(read_index(index)), artifacts.digest(index)
    for path in paths:
        column = artifacts.read_table(path)
        facts = artifacts.table_facts(column)
        artifacts.expect_stage(path, facts, "distance")
        if facts["inputs"]["index"] != made_from:
            raise UserError(f"{path}: made from another list of probes than {index}; run again")
        network, trial, target = (facts[key] for key in ("network", "trial", "task"))
        numbers = np.column_stack([column[part] for part in column.column_names])
        squared = np.array([total_of(row) for row in numbers.tolist()])
        pairs = pa.table(
            {
                "network": pa.repeat(network, len(sources)),
                "trial": pa.repeat(trial, len(sources)),
                "source": pa.array(sources),
                "target": pa.repeat(target, len(sources)),
                "distance": np.sqrt(squared).astype(np.float32),
                "squared_distance": squared,
            }
        )
        kept = column.column_names if facts["settings"]["layers"] else []
        others = [number for number, source in enumerate(sources) if source != target]
        layers = pairs.select(["network", "trial", "source", "target"])
        layers = layers.take(np.repeat(np.array(others, int), len(kept)))
        layers = layers.append_column("layer", pa.array(kept * len(others), pa.string()))
        values = numbers[others].ravel() if kept else np.empty(0)
        yield pairs, layers.append_column("contribution", pa.array(values)), facts


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

    found = {}
    for index in sorted(indexes, key=lambda path: (path.parent.name, len(path.stem), path.stem)):
        folder = columns / index.parent.name / index.stem
        paths = [folder / f"{task}.parquet" for task in sorted(read_index(index))]
        found |= zip(paths, read_columns(index, paths), strict=True)
    if not found:
        raise UserError("distances: no column given")
    pairs, layers, facts = zip(*found.values(), strict=True)
    made_by = [{key: of[key] for key in COMMON} for of in facts]
    for path, its in zip(found, made_by, strict=True):
        if its != made_by[0]:
            raise UserError(
                f"{path}: made with other settings or by another version than "
                f"{next(iter(found))}; make all columns anew (snakemake -R distance)"
            )
    about = made_by[0] | {"inputs": {"indexes": [artifacts.digest(index) for index in indexes]}}
    about |= {"packages": versions.packages()}
    artifacts.write_table(out, pa.concat_tables(pairs), about)
    artifacts.write_table(layers_out, pa.concat_tables(layers), about)
