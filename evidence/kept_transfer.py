"""A task set's measures and gains, kept small under ``docs/transfer/``.

Two tables a set: ``<name>-numbers.parquet``, what every measure says of every pair and trial, and
``<name>-gains.parquet``, how accurate every fine-tuned network is. What is said of a set is
computed from these alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Combination
from ftd.measures.columns import combined
from ftd.names import safe_name
from ftd.parts import MEASURES
from ftd.stages import agreement, few, transfer
from ftd.stages.experiment import Experiment
from ftd.store.provenance import packages
from ftd.transfer.agreement import Classes

TABLES = Path("docs/transfer")
NUMBERS, GAINS = "-numbers.parquet", "-gains.parquet"
_PAIR = ["network", "trial", "target", "source"]


@dataclass(frozen=True)
class Kept:
    """A set of tasks as it is kept.

    Attributes:
        name: of the set.
        numbers: ``measure``, ``network``, ``trial``, ``source``, ``target``, ``shots`` (the images
            a class that the target's side was made of; null: all its data), ``distance``.
        gains: ``network``, ``trial``, ``source`` (null: the common start), ``target``, ``shots``,
            ``scope``, ``accuracy`` on ``val``, and ``gain`` over the start's.
        higher: the measures whose larger number is the nearer source's.
        classes: by task, of which pairs of data set and class its images are; ``None``: of none.
        facts: the configuration, the seconds, …; the checksums of both tables.
    """

    name: str
    numbers: pd.DataFrame
    gains: pd.DataFrame
    higher: list[str]
    classes: Classes | None
    facts: dict[str, Any]


# Keeping ----------------------------------------------------------------------------------------


def keep(results: Sequence[Path], name: str) -> list[Path]:
    """Write both tables of a finished experiment, or of one for several seeds; returns their paths.

    With another seed, images are cut and balanced anew too: trials of one experiment share these.
    Trials are numbered on from one folder to the next. Accuracies are float32, in which equal ones
    stay equal; so are the measures' numbers, of which those that differ by less than 1e-7 of their
    size become ties.

    Args:
        results: its folder or folders, with ``config.json``, distances, gains and slices.
        name: of the set of tasks, such as ``mnist``.

    Raises:
        UserError: a name that no file can have; tables that are missing, damaged, or were made
            otherwise than the configuration asks for; a measure that lacks pairs, or has others;
            folders whose configurations differ in more than their seeds.
    """
    found = [experiment_of(folder, name) for folder in results]
    experiments = [experiment for experiment, _ in found]
    _expect_seeds(results, experiments)
    gains = _numbered(experiments, [transfer.gather(each) for each in experiments])
    numbers = _numbered(experiments, [_numbers(each) for each in experiments])
    first, raw = found[0]
    devices = {device for each in experiments for device in _facts(each, "device")}
    about = {"set": name, "config": raw, "packages": packages(), "devices": sorted(devices)}
    about |= {"seeds": [each.config.seed for each in experiments]}
    about |= {"seconds": pd.DataFrame(map(_seconds, experiments)).sum().to_dict()}
    classes = agreement.classes_of(first)
    listed = classes and {task: sorted(map(list, own)) for task, own in classes.items()}
    measured = {"classes": listed, "higher": first.higher()}
    paths = [TABLES / f"{name}{kind}" for kind in (NUMBERS, GAINS)]
    _write(paths[0], numbers, ["measure", "shots", *_PAIR], {"set": name} | measured)
    _write(paths[1], gains, ["shots", "scope", *_PAIR], about)
    return paths


def _expect_seeds(results: Sequence[Path], experiments: Sequence[Experiment]) -> None:
    """Raises a ``UserError`` unless configurations are alike but for seeds, which differ."""
    apart = {"seed", "experiment"}
    first, *others = [each.config.model_dump(mode="json", exclude=apart) for each in experiments]
    for folder, other in zip(results[1:], others, strict=True):
        if different := [key for key in first if other[key] != first[key]]:
            raise UserError(
                f"{folder}: its {different[0]!r} is not that of {results[0]}; several folders are "
                "one set if they differ in their seeds alone"
            )
    if len({each.config.seed for each in experiments}) < len(experiments):
        raise UserError("--results: two folders of one seed; give each experiment its own")


def _numbered(experiments: Sequence[Experiment], tables: list[pd.DataFrame]) -> pd.DataFrame:
    """One table, each experiment's trials behind those before it."""
    counts = [each.config.trials for each in experiments]
    before = [sum(counts[:place]) for place in range(len(counts))]
    moved = [
        table.assign(trial=table["trial"] + count)
        for table, count in zip(tables, before, strict=True)
    ]
    return pd.concat(moved, ignore_index=True)


def experiment_of(results: Path, name: str) -> tuple[Experiment, dict[str, Any]]:
    """A finished experiment that is to be kept under a name, and its configuration as recorded.

    Raises:
        UserError: a name that no file can have, or no sound record in the folder.
    """
    try:
        safe_name(name)
    except ValueError as error:
        raise UserError(f"--name: {error}") from error
    if not LAYOUT.config.path(results).exists():
        path = LAYOUT.config.path(results)
        raise UserError(f"{path}: no such file; make it by: ftd record (and the run's --config)")
    raw = config.recorded(results)
    return Experiment.of(config.parse(raw), results), raw


def _numbers(experiment: Experiment) -> pd.DataFrame:
    """Every measure's numbers of all pairs of two tasks, and those by few images, if there are."""
    columns = ["measure", *_PAIR, "distance"]
    path = experiment.input(LAYOUT.distances)
    found = store.read_table(path, columns, stage="distance").to_pandas()
    found = found[found["source"] != found["target"]]
    wanted = len(experiment.places()) * (len(experiment.config.tasks) - 1)
    for name in experiment.config.measures:
        if (count := int((found["measure"] == name).sum())) != wanted:
            raise UserError(
                f"{path}: {count} pairs by {name!r}, the configuration has {wanted}; run distances"
            )
    found = [found.assign(shots=None)]
    if experiment.config.transfer.few:
        found.append(few.gather(experiment)[[*columns, "shots"]])
    numbers = pd.concat([each.astype({"shots": "Int64"}) for each in found], ignore_index=True)
    return numbers[numbers["measure"].isin(experiment.config.measures)]


def _facts(experiment: Experiment, key: str) -> Iterator[Any]:
    """One fact of each table of gains."""
    for names in experiment.places():
        path = experiment.input(LAYOUT.transfer, **names)
        yield store.table_facts(store.read_table(path, []))[key]


def _seconds(experiment: Experiment) -> dict[str, float]:
    """Of all fine-tunings, by scope, and of all probes, as they were measured."""
    found = pd.DataFrame(_facts(experiment, "seconds")).sum().to_dict()
    paths = [experiment.input(LAYOUT.probe_facts, **names) for names in experiment.places()]
    return found | {"probes": sum(store.read_json(path)["seconds"] for path in paths)}


def _write(path: Path, table: pd.DataFrame, order: list[str], facts: dict) -> None:
    """A table in this order of rows, as small as it goes."""
    kinds = {"trial": "int16", "shots": "Int16"}
    kinds |= {name: "float32" for name in ("distance", "accuracy") if name in table}
    columns = [*order, *(name for name in ("distance", "accuracy") if name in table)]
    sorted_rows = table.sort_values(order, na_position="first")[columns].astype(kinds)
    store.write_table(path, pa.Table.from_pandas(sorted_rows, preserve_index=False), facts)


# Reading ----------------------------------------------------------------------------------------


def names() -> list[str]:
    """The sets that are kept, sorted."""
    return sorted(path.name.removesuffix(GAINS) for path in TABLES.glob(f"*{GAINS}"))


def load(name: str) -> Kept:
    """A set that is kept.

    Combinations that were registered after it was made are there too, of the measures it has.

    Raises:
        UserError: a table that is missing or damaged, or a task without a start.
    """
    tables = [store.read_table(TABLES / f"{name}{kind}") for kind in (NUMBERS, GAINS)]
    measured, about = map(store.table_facts, tables)
    numbers, gains = (table.to_pandas() for table in tables)
    numbers["shots"] = numbers["shots"].astype("Int64")
    added = list(_combinations(numbers))
    higher = measured["higher"] + [each for each, way, _ in added if way == "higher"]
    numbers = pd.concat([numbers, *(table for *_, table in added)], ignore_index=True)
    classes = measured["classes"]
    known = classes and {
        task: {(of, number) for of, number in own} for task, own in classes.items()
    }
    digests = {"numbers": measured["sha256"], "gains": about["sha256"]}
    return Kept(name, numbers, _with_gain(name, gains), higher, known, about | {"sha256": digests})


def _with_gain(name: str, gains: pd.DataFrame) -> pd.DataFrame:
    """The gain over the start's accuracy: equal accuracies give equal gains."""
    keys = ["network", "trial", "target", "shots", "scope"]
    start = gains[gains["source"].isna()].set_index(keys)["accuracy"].rename("start")
    joined = gains.astype({"accuracy": np.float64}).join(start.astype(np.float64), on=keys)
    if joined["start"].isna().any():
        row = joined[joined["start"].isna()].iloc[0]
        raise UserError(f"{TABLES / name}{GAINS}: no row of the start for {row['target']}")
    return joined.assign(gain=joined["accuracy"] - joined["start"]).drop(columns="start")


def _combinations(numbers: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Registered combinations that a set lacks and has all measures of: name, direction, rows."""
    for name in MEASURES.names():
        kind = MEASURES.get(name)
        lacks = isinstance(kind, Combination) and name not in {*numbers["measure"]}
        if not lacks or not {*kind.of} <= {*numbers["measure"]}:
            continue
        squared = [of for of in kind.of if getattr(MEASURES.get(of), "squared", False)]
        for shots, rows in numbers[numbers["measure"].isin(kind.of)].groupby("shots", dropna=False):
            if {*kind.of} <= {*rows["measure"]}:
                squares = rows["distance"].where(rows["measure"].isin(squared)) ** 2
                pairs = rows.astype({"distance": np.float64}).assign(squared_distance=squares)
                made = combined(name, kind, pa.Table.from_pandas(pairs, preserve_index=False))
                table = made.to_pandas().drop(columns="squared_distance").assign(shots=shots)
                yield name, kind.nearer, table.astype({"shots": "Int64"})
