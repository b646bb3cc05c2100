"""Stage *distance*: what measures say of every source and one target, and the table of all."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftd import store
from ftd.config import Fisher
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import ROUNDING, Measure, comparison_of, numbers_of
from ftd.parts import MEASURES
from ftd.runtime.progress import log, progress
from ftd.stages import fisher, probe
from ftd.stages.checking import Library, must
from ftd.stages.experiment import Experiment
from ftd.stages.sides import Entry, Side, Things, expect_made
from ftd.store.pairs import PairStore, open_store, pair_key, read_store
from ftd.store.provenance import packages, record

VERSION = 5
WHOLE = "whole"
"""The one part of a number whose layers are not kept, or that has none."""


def decides(experiment: Experiment, *, measure: str, **names: str) -> dict[str, Any]:
    """All that decides a column, besides its list of sources and what it declares of its target."""
    kind = MEASURES.get(measure)
    # Where the target's own Fisher information is declared, its settings come with it.
    reads = {"fisher", "data", "features"} & {*kind.source, *kind.target}
    taken = bool(reads) and "fisher" not in kind.target
    return {
        "settings": experiment.config.distance.of(measure).model_dump(mode="json"),
        "fisher": experiment.config.fisher.model_dump(mode="json") if taken else None,
        "layered": experiment.config.distance.layers and kind.layers,
        "measure_version": kind.version,
        "version": VERSION,
        "parts": MEASURES.digests(measure),
    }


# The list of sources ----------------------------------------------------------------------------


def declares(measure: str) -> dict[str, Any]:
    """What decides which things of its sources a list has."""
    kind = MEASURES.get(measure)
    return {"needs": sorted(kind.source), "measure_version": kind.version}


def _expect(experiment: Experiment, *, measure: str, **names: Any) -> None:
    """Raises a ``UserError`` for a name that is not the experiment's, or one of a combination."""
    experiment.expect(measure=measure, **names)
    if measure not in experiment.measures:
        of = ", ".join(MEASURES.get(measure).of)
        raise UserError(
            f"measure {measure!r} combines numbers of others: it has neither a list of sources nor "
            f"columns; make those of {of}, then run distances"
        )


def index(
    experiment: Experiment, *, measure: str, network: str, trial: int
) -> dict[str, dict[str, Entry]]:
    """List one trial's sources: of every task what the measure declares, by path and SHA-256.

    The list is all that a distance column depends on besides its target: an equal list means
    equal sources. Paths are relative to the list's folder.

    Raises:
        UserError: a file that is missing, damaged, of another stage, or made otherwise than the
            configuration asks for; a combination.
    """
    _expect(experiment, measure=measure, network=network, trial=trial)
    kind, names = MEASURES.get(measure), {"network": network, "trial": trial}
    out = experiment.output(LAYOUT.index, measure=measure, **names)
    found = {}
    for task in sorted(experiment.config.tasks):
        things = Things.of(experiment, kind.source, task=task, **names)
        expect_made(experiment, kind.source, things, task=task, **names)
        found[task] = things.entries(kind.source, out)
    about = {"stage": "index", "measure": measure} | names | declares(measure)
    store.write_json(out, found, about)
    return found


# A column ---------------------------------------------------------------------------------------


class Column:
    """A column's inputs, each read and hashed once, and the keys of its pairs."""

    def __init__(
        self, experiment: Experiment, *, measure: str, network: str, trial: int, task: str
    ):
        from ftd.measures.columns import read_index  # pyarrow: rules and --help would pay for it

        self.experiment, self.measure, self.task = experiment, measure, task
        self.names = {"network": network, "trial": trial, "task": task}
        self.kind: Measure = MEASURES.get(measure)
        self.out = experiment.output(LAYOUT.column, measure=measure, **self.names)
        self.store = experiment.output(LAYOUT.pairs, measure=measure, **self.names)
        self.index = experiment.input(LAYOUT.index, measure=measure, **self.names)
        self.sources, self.index_sha256 = read_index(self.index)
        for listed in self.sources.values():
            if set(listed) != set(self.kind.source):
                raise UserError(
                    f"{self.index}: lists {', '.join(listed)} of each source, the measure needs "
                    f"{', '.join(self.kind.source)}; run index again"
                )
        self.things = Things.of(experiment, self.kind.target, **self.names)
        self.own = self.things.entries(self.kind.target, self.out)
        self.decided = decides(experiment, measure=measure, **self.names)
        self.fisher_settings, self.layers, self.samples = self._fisher()

    def _fisher(self) -> tuple[Fisher, list[str] | None, int | None]:
        """The settings of the target's Fisher information, or the experiment's; its layers."""
        if "fisher" not in self.own:
            return self.experiment.config.fisher, None, None
        facts = self.things.fisher.facts
        wanted = {"version": fisher.VERSION}
        wanted |= {"slice": self.own["data"]["sha256"]} if "data" in self.own else {}
        listed = self.sources.get(self.task, {})
        wanted |= {"probe": listed["weights"]["sha256"]} if "weights" in listed else {}
        for key, value in wanted.items():
            if facts[key] != value:
                raise UserError(
                    f"{self.things.fisher.path}: made from another {key} than the one given; run "
                    "the stage fisher again"
                )
        return Fisher.model_validate(facts["settings"]), facts["layers"], facts["samples"]

    @property
    def takes_fisher(self) -> bool:
        """Whether the settings of Fisher information decide its numbers."""
        return "fisher" in self.own or self.decided["fisher"] is not None

    @property
    def parts(self) -> list[str]:
        """What a pair's numbers belong to: layers, or the whole."""
        return self.layers if self.decided["layered"] else [WHOLE]

    def keys(self) -> dict[str, list[bytes]]:
        """By source: a key for each number of the pair."""
        target = {need: entry["sha256"] for need, entry in self.own.items()}
        skipped = self.task if self.kind.zero_to_itself else None
        same = self.decided | {"measure": self.measure, "target": target}
        return {
            source: [
                pair_key(
                    source={need: entry["sha256"] for need, entry in listed.items()},
                    part=part,
                    **same,
                )
                for part in self.parts
            ]
            for source, listed in sorted(self.sources.items())
            if source != skipped
        }

    def side(self, task: str, things: Things, listed: dict[str, Entry]) -> Side:
        """A task as the measure sees it."""
        what = probe.name_of(self.names | {"task": task})
        return Side(task, what, things, listed, self.fisher_settings)


def run(experiment: Experiment, *, measure: str, network: str, trial: int, task: str) -> int:
    """Compute one column, what a measure says of every source and the target; write it as Parquet.

    Pairs already in the target's store are taken from it; torch is imported only if one is
    missing. Returns the number of pairs computed.

    Raises:
        UserError: unreadable input, inputs of different runs or settings, or that change meanwhile,
            numbers that are not finite or out of the measure's range, or a combination.
    """
    from ftd.measures.columns import write_column  # pyarrow, as above

    _expect(experiment, measure=measure, network=network, trial=trial, task=task)
    column = Column(experiment, measure=measure, network=network, trial=trial, task=task)
    expect_made(experiment, column.kind.target, column.things, **column.names)
    keys, parts = column.keys(), column.parts
    with open_store(column.store) as pairs:
        missing = [source for source in keys if None in map(pairs.get, keys[source])]
        log(f"column {task}: {len(missing)} of {len(keys)} pairs missing")
        if missing:
            _compute(column, missing, keys, pairs)
        rows = {source: [pairs.get(key) for key in keys[source]] for source in keys}
    if column.kind.zero_to_itself:
        rows[task] = [0.0] * len(parts)
    digests = {need: entry["sha256"] for need, entry in column.own.items()}
    of_fisher = column.fisher_settings.model_dump(mode="json")
    facts = column.names | {
        "measure": measure,
        "measure_version": column.kind.version,
        "samples": column.samples,
        "layered": column.decided["layered"],
        "inputs": digests | {"index": column.index_sha256},
        "fisher_settings": of_fisher if column.takes_fisher else None,
    }
    made = record("distance", VERSION, column.decided["settings"], column.decided["parts"])
    write_column(column.out, rows, parts, facts | made)
    return len(missing)


def _compute(
    column: Column, missing: list[str], keys: dict[str, list[bytes]], pairs: PairStore
) -> None:
    """Compute missing pairs, and store each as it comes."""
    # torch: seconds that a column without missing pairs does not pay.
    from ftd.runtime.threads import setup

    setup()
    kind, settings = column.kind, column.experiment.config.distance.of(column.measure)
    comparison = comparison_of(column.measure, kind)
    target = column.side(column.task, column.things, column.own)
    prepared = comparison.prepare(target, settings)
    opened = column.things.opened  # sources may be of the same images
    for source in progress(missing, f"column {column.task}", len(missing)):
        listed = column.sources[source]
        side = column.side(source, Things.listed(listed, column.index, opened), listed)
        what = f"measure {column.measure}, {side.what} on {column.task}"
        layers = column.parts if column.decided["layered"] else None
        found = numbers_of(comparison.compare(side, prepared), what, layers)
        total = kind.total(found.values(), what)
        kept = found if column.decided["layered"] else {WHOLE: total}
        pairs.add(zip(keys[source], map(kept.get, column.parts), strict=True))


# The tables of all ------------------------------------------------------------------------------


def combines(experiment: Experiment) -> dict[str, Any]:
    """All that decides the table of all distances, besides the columns."""
    measures = experiment.config.measures
    return {"measures": measures, "version": VERSION, "parts": MEASURES.digests(*measures)}


def assemble(experiment: Experiment) -> None:
    """Join the columns of all measures, networks, trials and tasks into one table; and combine.

    The order is measure (as configured), network, trial, target and source. ``layers.parquet``
    gets one row per pair and layer, with its ``contribution`` to the number; none where the
    settings keep no layers.

    Raises:
        UserError: unreadable columns, or columns of different settings.
    """
    import pyarrow as pa  # as above

    from ftd.measures.columns import combined, join, read_columns, same_making

    found: dict[Path, tuple] = {}
    pairs_of: dict[str, list] = {measure: [] for measure in experiment.config.measures}
    parts, indexes = [], {}
    for measure in experiment.measures:
        for network in sorted(experiment.config.networks):
            for trial in range(experiment.config.trials):
                place = {"measure": measure, "network": network, "trial": trial}
                index_file = experiment.input(LAYOUT.index, **place)
                paths = [
                    experiment.input(LAYOUT.column, task=task, **place)
                    for task in sorted(experiment.config.tasks)
                ]
                columns = read_columns(index_file, paths, MEASURES.get(measure))
                for path, (pairs, layers, facts) in zip(paths, columns, strict=True):
                    found[path] = facts
                    pairs_of[measure].append(pairs)
                    parts.append(layers)
                indexes["/".join(map(str, place.values()))] = facts["inputs"]["index"]
    about = {"stage": "distance", "version": VERSION, "packages": packages()}
    about |= {"settings": same_making(found), "inputs": {"indexes": indexes}}
    for measure, of in pairs_of.items():  # what a combination combines is there before it
        if measure not in experiment.measures:
            every = join(table for tables in pairs_of.values() for table in tables)
            of.append(combined(measure, MEASURES.get(measure), every))
    every = join(table for tables in pairs_of.values() for table in tables)
    store.write_table(experiment.output(LAYOUT.distances), every, about)
    store.write_table(experiment.output(LAYOUT.layers), pa.concat_tables(parts), about)


# Checks -----------------------------------------------------------------------------------------


def _check_index(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.measures.columns import read_index  # a check's alone

    sources, _ = read_index(path)
    if library.experiment is None or not _is_asked_for(names, library):
        return
    kind = MEASURES.get(names["measure"])
    place = {"network": names["network"], "trial": names["trial"]}
    for task, listed in sources.items():
        right = set(listed) == set(kind.source)
        yield from must(right, f"lists {', '.join(listed)} of {task}")
        things = Things.of(library.experiment, kind.source, task=task, **place)
        for need, entry in listed.items():
            same = right and entry["sha256"] == things.digest(need)
            file = path.parent / entry["path"]
            yield from must(same, f"made from other {need} than {file}")


def _check_column(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    import numpy as np  # a check's alone

    table = store.read_table(path, stage="distance")
    if not _is_asked_for(names, library):
        return
    facts = store.table_facts(table)
    yield from library.made_by(facts, VERSION, decides, **names)
    found = {name: str(facts[name]) for name in names}
    yield from must(found == names, f"is of {tuple(found.values())}")
    kind = MEASURES.get(names["measure"])
    same = facts["measure_version"] == kind.version
    yield from must(same, f"made by another version of the measure {names['measure']}")
    if library.experiment is not None and _is_listed(names, library):
        asked = decides(library.experiment, **names)
        right = asked["fisher"] in (None, facts["fisher_settings"])
        right = right and facts["layered"] == asked["layered"]
        yield from must(right, "made with other settings")
        things = Things.of(library.experiment, kind.target, **_place(names))
        own = things.entries(kind.target, path)
        for need, entry in own.items():
            same = facts["inputs"].get(need) == entry["sha256"]
            file = path.parent / entry["path"]
            yield from must(same, f"made from other {need} than {file}")
        index_file = library.path(LAYOUT.index, **names)
        yield from library.same(index_file, facts["inputs"]["index"], "list of sources")
    totals = np.column_stack([column.to_numpy() for column in table.columns]).sum(axis=1)
    lowest, highest = kind.bounds
    inside = ((totals >= lowest - ROUNDING) & (totals <= highest + ROUNDING)).all()
    yield from must(bool(inside), f"numbers out of [{lowest}, {highest}]")


def _place(names: Mapping[str, str]) -> dict[str, str]:
    return {key: names[key] for key in ("network", "trial", "task")}


def _is_asked_for(names: Mapping[str, str], library: Library) -> bool:
    """Whether the configuration, if there is one, still names these: else they are leftovers."""
    if library.experiment is None:
        return True
    known = library.experiment.known() | {"measure": library.experiment.measures}
    return all(name in known[kind] for kind, name in names.items())


def _is_listed(names: Mapping[str, str], library: Library) -> bool:
    """Whether a column's task is among the sources: else it was removed, or added alone."""
    from ftd.measures.columns import read_index  # a check's alone

    path = library.path(LAYOUT.index, **names)
    return path.exists() and _is_asked_for(names, library) and names["task"] in read_index(path)[0]


def _check_store(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    """Every pair of the column can be had from the store: a damaged record counts as none."""
    column = library.path(LAYOUT.column, **names)
    known = read_store(path)
    if library.experiment is None or not column.exists() or not _is_listed(names, library):
        return
    keys = Column(library.experiment, **names | {"trial": int(names["trial"])}).keys()
    lost = sum(None in map(known.get, parts) for parts in keys.values())
    if lost:
        yield f"{lost} of {len(keys)} pairs are damaged or outdated; they are computed when needed"


def _check_distances(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    """The table holds the columns' rows, and what its combinations make of them, and no others."""
    table = store.read_table(path, stage="distance")
    pairs = table.to_pandas()
    known = None if library.experiment is None else library.experiment.config.measures
    for measure, rows in pairs.groupby("measure"):
        if known is not None and measure not in known:
            continue
        kind = MEASURES.get(measure)
        numbers = rows["squared_distance"].fillna(rows["distance"].astype(float))
        lowest, highest = kind.bounds
        inside = numbers.between(lowest - ROUNDING, highest + ROUNDING).all()
        yield from must(bool(inside), f"{measure}: numbers out of range")
        if getattr(kind, "zero_to_itself", False):
            own = rows["source"] == rows["target"]
            yield from must(bool((numbers[own] == 0).all()), "a task's distance to itself is not 0")
    yield from _equals_columns(path, table, "pairs", library)


def _check_layers(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    yield from _equals_columns(path, store.read_table(path, stage="distance"), "layers", library)


def _equals_columns(path: Path, table: Any, which: str, library: Library) -> Iterator[str]:
    from ftd.measures.columns import join, read_columns  # a check's alone

    keys = ["measure", "network", "trial", "target"]
    frame = table.to_pandas()
    rows, count = dict(list(frame.groupby(keys))), 0
    indexes = [
        (index_file, names)
        for index_file, names in LAYOUT.index.find(library.root)
        if _is_asked_for(names, library)
    ]
    for index_file, names in indexes:
        kind = MEASURES.get(names["measure"])
        tasks = sorted(store.read_json(index_file))
        files = [library.path(LAYOUT.column, task=task, **names) for task in tasks]
        for task, file, (pairs, layers, _) in zip(
            tasks, files, read_columns(index_file, files, kind), strict=True
        ):
            own = pairs if which == "pairs" else layers
            wanted = join([own, table.schema.empty_table()]).to_pandas()
            count += len(wanted)
            key = (names["measure"], names["network"], int(names["trial"]), task)
            found = rows.get(key, frame[:0]).reset_index(drop=True)
            yield from must(wanted.equals(found), f"{path} differs from {file}")
    listed = {names["measure"] for _, names in indexes}
    others = int((~frame["measure"].isin(listed)).sum())
    yield from must(len(frame) - others == count, f"{len(frame)} rows, the columns have {count}")


CHECKS = [
    (LAYOUT.index, _check_index),
    (LAYOUT.column, _check_column),
    (LAYOUT.pairs, _check_store),
    (LAYOUT.distances, _check_distances),
    (LAYOUT.layers, _check_layers),
]
