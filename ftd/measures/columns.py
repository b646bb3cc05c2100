"""Columns of a measure's numbers, and the tables of all of them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ftd import store
from ftd.errors import UserError
from ftd.measures import ROUNDING, Combination, Measure

COMMON = (
    *("measure", "measure_version", "layered", "fisher_settings"),
    *("stage", "settings", "version", "parts"),
)
"""The facts that a measure's columns share; they may be of different days' packages."""


def write_column(out: Path, rows: dict[str, list[float]], parts: list[str], facts: dict) -> None:
    """Write a column: a row for each source, by name, and a column for each part of its number.

    The sources are not repeated: the ``inputs`` of ``facts`` hold the checksum of the ``index``
    that lists them; ``facts`` name ``measure``, ``network``, ``trial`` and ``task``.
    """
    numbers = zip(*(rows[source] for source in sorted(rows)), strict=True)
    arrays = [pa.array(values, pa.float64()) for values in numbers]
    store.write_table(out, pa.Table.from_arrays(arrays, parts), facts)


def read_index(path: Path) -> tuple[dict[str, dict[str, dict[str, str]]], str]:
    """A list of sources: {task: {need: entry}}, and its checksum.

    Raises:
        UserError: missing or damaged file, or another one.
    """
    found, facts = store.read_document(path)
    store.expect_stage(path, facts, "index")
    return found, facts["sha256"]


def read_columns(
    index: Path, paths: Iterable[Path], measure: Measure
) -> Iterator[tuple[pa.Table, pa.Table, dict]]:
    """Columns of an index: each one's pairs, their parts by layer, and its facts.

    Pairs have ``measure``, ``network``, ``trial``, ``source``, ``target``, ``distance`` and
    ``squared_distance``, float64, and are sorted by source. Where the measure's numbers are
    squares, ``distance`` is float32, to spare the disk; else ``squared_distance`` is null. Parts
    are none where the settings keep no layers.

    Raises:
        UserError: an unreadable column, or one of another index.
    """
    listed, made_from = read_index(index)
    sources = sorted(listed)
    for path in paths:
        column = store.read_table(path, stage="distance")
        facts = store.table_facts(column)
        if facts["inputs"]["index"] != made_from:
            raise UserError(f"{path}: made from another list of sources than {index}; run again")
        numbers = np.column_stack([column[part] for part in column.column_names])
        totals = np.array([measure.total(row) for row in numbers.tolist()])
        pairs = pair_table(facts, sources, totals, squared=measure.squared)
        kept = column.column_names if facts["layered"] else []
        target = facts["task"]
        own = target if measure.zero_to_itself else None
        others = [number for number, source in enumerate(sources) if source != own]
        layers = pairs.select(["measure", "network", "trial", "source", "target"])
        layers = layers.take(np.repeat(np.array(others, int), len(kept)))
        layers = layers.append_column("layer", pa.array(kept * len(others), pa.string()))
        values = numbers[others].ravel() if kept else np.empty(0)
        yield pairs, layers.append_column("contribution", pa.array(values)), facts


def pair_table(
    facts: dict[str, Any], sources: list[str], totals: np.ndarray, *, squared: bool
) -> pa.Table:
    """The pairs of one column, whose numbers are ``totals``, float64."""
    count = len(sources)
    return pa.table(
        {
            **{key: pa.repeat(facts[key], count) for key in ("measure", "network", "trial")},
            "source": pa.array(sources, pa.string()),
            "target": pa.repeat(facts["task"], count),
            "distance": pa.array(np.sqrt(totals).astype(np.float32) if squared else totals),
            "squared_distance": pa.array(totals) if squared else pa.nulls(count, pa.float64()),
        }
    )


def join(tables: Iterable[pa.Table]) -> pa.Table:
    """Pairs of several columns; ``distance`` is float64, if it is in any."""
    return pa.concat_tables(tables, promote_options="permissive")


def combined(name: str, combination: Combination, pairs: pa.Table) -> pa.Table:
    """The pairs of a combination, made of those of its measures: those that all of them have.

    Raises:
        UserError: a function that fails, gives numbers of another shape than the measures', or
            some that are not finite or out of its range.
    """
    from ftd.measures.ranking import ranked  # pandas: columns, of which jobs make many, need none

    table = pairs.to_pandas()
    table["number"] = ranked(table)
    tasks = sorted({*table["source"], *table["target"]})
    found = []
    for (network, trial), rows in table.groupby(["network", "trial"], sort=False):
        given = {
            of: rows[rows["measure"] == of]
            .pivot(index="source", columns="target", values="number")
            .reindex(index=tasks, columns=tasks)
            .to_numpy()
            for of in combination.of
        }
        known = np.all([np.isfinite(numbers) for numbers in given.values()], axis=0)
        matrix = _numbers(name, combination, given, known)
        for position, target in enumerate(tasks):
            here = np.flatnonzero(known[:, position])
            sources = [tasks[number] for number in here]
            facts = {"measure": name, "network": network, "trial": int(trial), "task": target}
            found.append(pair_table(facts, sources, matrix[here, position], squared=False))
    return pa.concat_tables(found)


def _numbers(
    name: str, combination: Combination, given: dict[str, np.ndarray], known: np.ndarray
) -> np.ndarray:
    """What a combination makes of its measures' numbers, float64 [tasks, tasks]."""
    try:
        matrix = np.asarray(combination.combine(given), np.float64)
    except Exception as error:  # whatever a user's function raises
        raise UserError(f"measure {name!r}: {type(error).__name__}: {error}") from error
    lowest, highest = combination.bounds
    inside = (matrix >= lowest - ROUNDING) & (matrix <= highest + ROUNDING) & np.isfinite(matrix)
    if matrix.shape != known.shape or not inside[known].all():
        raise UserError(
            f"measure {name!r}: gave an array {matrix.shape} for {len(known)} tasks, or, of pairs "
            f"that its measures have, numbers that are not from {lowest:g} to {highest:g}"
        )
    return matrix.clip(lowest, highest)


def same_making(found: dict[Path, dict]) -> dict:
    """The facts that columns share.

    Raises:
        UserError: columns of one measure that were made differently.
    """
    first: dict[str, tuple[Path, dict]] = {}
    for path, facts in found.items():
        its = {key: facts.get(key) for key in COMMON}  # parts: only those of plugins
        other, wanted = first.setdefault(facts["measure"], (path, its))
        if its != wanted:
            raise UserError(
                f"{path}: made with other settings or by another version than {other}; make all "
                "columns anew (snakemake -R distance)"
            )
    return {measure: its for measure, (_, its) in first.items()}
