"""Stage *distance*: what measures say of every source and one target, and the table of all."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import ROUNDING, comparison_of, numbers_of
from ftd.parts import MEASURES
from ftd.runtime.progress import log, progress
from ftd.stages.checking import Library, is_of, must
from ftd.stages.column import WHOLE, Column
from ftd.stages.experiment import Experiment
from ftd.stages.sides import Entry, Passes, Things, expect_made
from ftd.store.pairs import PairStore, open_store, read_store
from ftd.store.provenance import packages, record

VERSION = 5


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


def groups(experiment: Experiment) -> dict[str, list[str]]:
    """The measures whose columns are made together, by group; one alone has jobs of its own."""
    found: dict[str, list[str]] = {}
    for name in experiment.measures:
        if group := MEASURES.get(name).group:
            found.setdefault(group, []).append(name)
    return {group: names for group, names in found.items() if len(names) > 1}


def column_of(experiment: Experiment, *, measure: str, **place: Any) -> Column:
    """One measure's column; ``place``: ``network``, ``trial`` and ``task``."""
    things = Things.of(experiment, MEASURES.get(measure).target, **place)
    return _column(experiment, things, measure=measure, **place)


def _column(experiment: Experiment, things: Things, *, measure: str, **place: Any) -> Column:
    return Column(
        experiment, decides(experiment, measure=measure), things, measure=measure, **place
    )


def run(experiment: Experiment, *, measure: str, network: str, trial: int, task: str) -> int:
    """Compute one measure's column; returns the number of pairs computed. See ``run_together``."""
    place = {"network": network, "trial": trial, "task": task}
    return run_together(experiment, measures=[measure], **place)[measure]


def run_together(
    experiment: Experiment, *, measures: list[str], network: str, trial: int, task: str
) -> dict[str, int]:
    """Compute columns, what each measure says of every source and the target; write them (Parquet).

    Pairs already in a measure's store are taken from it; torch is imported only if one is missing.
    Measures share what they read, and a source's pass over the target's images, which is made
    only where one of them lacks its number. Returns the number of pairs computed by measure.

    Raises:
        UserError: unreadable input, inputs of different runs or settings, or that change meanwhile,
            numbers that are not finite or out of the measure's range, or a combination.
    """
    place = {"network": network, "trial": trial, "task": task}
    for measure in measures:
        _expect(experiment, measure=measure, **place)
    needs = sorted({need for measure in measures for need in MEASURES.get(measure).target})
    things = Things.of(experiment, needs, **place)
    names = dict.fromkeys(measures)
    columns = [_column(experiment, things, measure=name, **place) for name in names]
    expect_made(experiment, needs, things, **place)
    with ExitStack() as stack:
        by_place = sorted(columns, key=lambda column: column.store)  # all jobs lock in one order
        opened = {column.measure: open_store(column.store) for column in by_place}
        pairs = {measure: stack.enter_context(each) for measure, each in opened.items()}
        missing = {column.measure: column.missing(pairs[column.measure]) for column in columns}
        for column in columns:
            by = "" if len(columns) == 1 else f" by {column.measure}"
            counts = f"{len(missing[column.measure])} of {len(column.keys)} pairs missing"
            log(f"column {task}{by}: {counts}")
        lacking = [column for column in columns if missing[column.measure]]
        if lacking:
            _compute(lacking, missing, pairs)
        rows = {column.measure: column.rows(pairs[column.measure]) for column in columns}
    for column in columns:
        _write(column, rows[column.measure])
    return {measure: len(sources) for measure, sources in missing.items()}


def _write(column: Column, rows: dict[str, list[float]]) -> None:
    from ftd.measures.columns import write_column  # pyarrow: rules and --help would pay for it

    digests = {need: entry["sha256"] for need, entry in column.own.items()}
    of_fisher = column.fisher_settings.model_dump(mode="json")
    facts = column.names | {
        "measure": column.measure,
        "measure_version": column.kind.version,
        "samples": column.samples,
        "layered": column.decided["layered"],
        "inputs": digests | {"index": column.index_sha256},
        "fisher_settings": of_fisher if column.takes_fisher else None,
    }
    made = record("distance", VERSION, column.decided["settings"], column.decided["parts"])
    write_column(column.out, rows, column.parts, facts | made)


def _compute(
    columns: list[Column], missing: dict[str, list[str]], pairs: dict[str, PairStore]
) -> None:
    """Compute missing pairs of columns of one target, and store each as it comes."""
    # torch: seconds that a column without missing pairs does not pay.
    from ftd.runtime.threads import setup

    setup()
    task = columns[0].task
    passes, prepared = Passes(task), {}
    for column in columns:
        comparison = comparison_of(column.measure, column.kind)
        target = column.side(task, column.things, column.own, passes)
        settings = column.experiment.config.distance.of(column.measure)
        prepared[column.measure] = comparison.compare, comparison.prepare(target, settings)
    sources = sorted({source for column in columns for source in missing[column.measure]})
    for source in progress(sources, f"column {task}", len(sources)):
        lacking = [column for column in columns if source in missing[column.measure]]
        things = Things.joined(column.things_of(source) for column in lacking)
        for column in lacking:
            compare, ready = prepared[column.measure]
            side = column.side(source, things, column.sources[source], passes)
            what = f"measure {column.measure}, {side.what} on {task}"
            layers = column.parts if column.decided["layered"] else None
            found = numbers_of(compare(side, ready), what, layers)
            total = column.kind.total(found.values(), what)
            kept = found if column.decided["layered"] else {WHOLE: total}
            numbers = map(kept.get, column.parts)
            pairs[column.measure].add(zip(column.keys[source], numbers, strict=True))


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
    yield from is_of(facts, names)
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
    found = column_of(library.experiment, **names | {"trial": int(names["trial"])})
    if lost := len(found.missing(known)):
        of = f"{lost} of {len(found.keys)}"
        yield f"{of} pairs are damaged or outdated; they are computed when needed"


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
