"""Stage *few*: what measures say of every source and a task seen through a few images alone.

A column of distances lets a target have all of its data; here it has the images that probes are
fine-tuned on (the stage *transfer*), and what follows from them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import ROUNDING, comparison_of, numbers_of
from ftd.parts import MEASURES
from ftd.runtime.progress import log, progress
from ftd.stages import probe
from ftd.stages.checking import Library, gathered, is_of, must
from ftd.stages.column import sources_of
from ftd.stages.experiment import Experiment
from ftd.stages.shots import Shots, Target
from ftd.stages.sides import Passes, Side, Things, expect_made
from ftd.store.pairs import PairStore, open_store, pair_key
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

VERSION = 1
NONE = float("nan")
"""What is kept of a pair that a measure has no number of."""
_TRAINED = {"weights", "fisher", "features"}
"""What a target has by being trained on the images."""
_OF_IMAGES = {"fisher", "data", "features"}
"""What the settings of Fisher information decide, on either side."""

Number = tuple[str, int, str]
"""Measure, shots, source."""
Numbers = dict[tuple[str, int], dict[str, float]]
"""By measure and shots: the number of each source (its square, of measures that are squared)."""


def decides(experiment: Experiment, *, network: str, trial: int | str, task: str) -> dict[str, Any]:
    """All that decides a table, besides its slice, its images and the lists of sources."""
    config = experiment.config
    used = {"shots", "batch_size", "whole"}
    settings = config.transfer.model_dump(mode="json", include=used)
    settings |= {"fisher": config.fisher.model_dump(mode="json"), "measures": config.measures}
    settings |= {"kinds": {name: _decides_measure(experiment, name) for name in config.measures}}
    return {
        "settings": settings,
        "seed": config.seed,
        "version": VERSION,
        "parts": experiment.digests(
            task=task, network=network, others=MEASURES.digests(*config.measures)
        ),
    }


def _decides_measure(experiment: Experiment, measure: str) -> dict[str, Any]:
    kind = MEASURES.get(measure)
    if measure not in experiment.measures:
        return {"of": list(kind.of)}
    settings = experiment.config.distance.of(measure).model_dump(mode="json")
    return {"settings": settings, "version": kind.version}


def run(experiment: Experiment, *, network: str, trial: int, task: str) -> int:
    """Compute what every measure says of all other tasks and the images of a task; write it.

    For each of ``transfer.shots`` the target has the images that the stage *transfer* draws, as its
    ``fisher`` part, whatever ``fisher.samples`` says. Its network is the common start fine-tuned on
    them, all of it, as there. Sources have all of their data. A measure that refuses a pair has no
    row of it, and the log says why. Finished numbers are kept in a store beside the table.

    Columns (Parquet): ``measure``, combinations too, ``network``, ``trial``, ``source``,
    ``target``, ``shots`` a class, ``distance`` (float64; of measures that are squared, the root).
    Returns the number of pairs computed.

    Raises:
        UserError: unreadable input, or such that was made otherwise than the configuration asks
            for or changes meanwhile; a target that is no classes, or weights that do not stay
            finite.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.threads import setup

    experiment.expect(network=network, trial=trial, task=task)
    setup()
    names = {"network": network, "trial": trial, "task": task}
    job = _Job(experiment, names)
    with open_store(experiment.output(LAYOUT.few_store, **names)) as kept:
        missing = [each for each in job.all if kept.get(job.key(*each)) is None]
        log(f"{job.what}: {len(missing)} of {len(job.all)} pairs missing")
        job.make(missing, kept)
        found: Numbers = {}
        for measure, shots, source in job.all:
            number = kept.get(job.key(measure, shots, source))
            found.setdefault((measure, shots), {})[source] = number
    _write(job, found)
    return len(missing)


class _Job:
    """One target's numbers: of whom, what decides each, and their making."""

    def __init__(self, experiment: Experiment, names: dict[str, Any]):
        self.experiment, self.names = experiment, names
        self.decided = decides(experiment, **names)
        self.settings = self.decided["settings"]
        self.what = "few images of {task}, network {network}, trial {trial}".format(**names)
        self.few = Shots(experiment, self.what, names)
        self.kinds = {name: MEASURES.get(name) for name in experiment.measures}
        place = {key: names[key] for key in ("network", "trial")}
        self.indexes = {
            name: experiment.input(LAYOUT.index, measure=name, **place) for name in self.kinds
        }
        read = {name: sources_of(self.indexes[name], kind) for name, kind in self.kinds.items()}
        self.listed = {name: sources for name, (sources, _) in read.items()}
        self.digests = {name: sha256 for name, (_, sha256) in read.items()}
        self.all: list[Number] = [
            (measure, shots, source)
            for measure in self.kinds
            for shots in self.few.rows
            for source in sorted(self.listed[measure])
            if source != names["task"]
        ]

    def key(self, measure: str, shots: int, source: str) -> bytes:
        """Of the store: from all that decides a number."""
        kind, few = self.kinds[measure], self.few
        place = {key: self.names[key] for key in ("task", "network")}
        about = self.names | {"slice": few.sliced.facts["sha256"], "start": few.pretrained}
        about |= {key: self.decided[key] for key in ("seed", "version")}
        about |= {
            "parts": self.experiment.digests(**place, others=MEASURES.digests(measure)),
            "device": few.device.type,
            "shots": shots,
            "measure": measure,
            "kind": self.settings["kinds"][measure],
            "source": {
                need: entry["sha256"] for need, entry in self.listed[measure][source].items()
            },
        }
        if _TRAINED & {*kind.target}:
            about |= {key: self.settings[key] for key in ("batch_size", "whole")}
        if _OF_IMAGES & {*kind.source, *kind.target}:
            about |= {"fisher": self.settings["fisher"]}
        return pair_key(**about)

    def make(self, missing: list[Number], kept: PairStore) -> None:
        """Compute numbers, one source after another, and keep each as it comes."""
        lacking: dict[str, list[tuple[str, int]]] = {}
        for shots in self.few.rows:  # measures of the same images share what is made of them
            for measure, of, source in missing:
                if of == shots:
                    lacking.setdefault(source, []).append((measure, shots))
        fisher = self.experiment.config.fisher
        targets = {shots: Target(self.few, shots, fisher) for shots in self.few.rows}
        each = dict.fromkeys(pair for pairs in lacking.values() for pair in pairs)
        ready = {pair: self._prepared(*pair, targets) for pair in each}
        passes, opened = Passes(self.names["task"]), {}
        for source in progress(sorted(lacking), self.what):
            things = self._things(source, lacking[source], opened)
            for measure, shots in lacking[source]:
                number = NONE
                if ready[measure, shots]:
                    side = self._side(measure, source, things, passes)
                    what = f"measure {measure}, {side.what} on {targets[shots].name}"
                    number = self._number(measure, side, *ready[measure, shots], what)
                kept.add([(self.key(measure, shots, source), number)])

    def _prepared(self, measure: str, shots: int, targets: dict[int, Target]) -> tuple | None:
        """What compares with a target, and what it computed of it; ``None``: it refuses."""
        kind, target = self.kinds[measure], targets[shots]
        comparison = comparison_of(measure, kind)
        settings = self.experiment.config.distance.of(measure)
        try:
            return comparison.compare, comparison.prepare(target, settings)
        except UserError as error:
            _expect_no_fault(target, {"data", "weights"} if _TRAINED & {*kind.target} else {"data"})
            log(f"measure {measure}, {target.what}: no numbers: {error}")
            return None

    def _things(
        self, source: str, pairs: list[tuple[str, int]], opened: dict[Path, store.TensorFile]
    ) -> Things:
        """A source's things that measures need, as their lists name them."""
        measures = dict.fromkeys(measure for measure, _ in pairs)
        things = Things.joined(
            Things.listed(self.listed[name][source], self.indexes[name], opened)
            for name in measures
        )
        needs = {need for name in measures for need in self.kinds[name].source}
        expect_made(self.experiment, needs, things, **self.names | {"task": source})
        return things

    def _side(self, measure: str, source: str, things: Things, passes: Passes) -> Side:
        what = probe.name_of(self.names | {"task": source})
        listed, fisher = self.listed[measure][source], self.experiment.config.fisher
        return Side(source, what, things, listed, fisher, passes)

    def _number(self, measure: str, side: Side, compare: Any, ready: Any, what: str) -> float:
        """What a measure says of a pair, or ``NONE``."""
        kind = self.kinds[measure]
        try:
            return kind.total(numbers_of(compare(side, ready), what, None).values(), what)
        except UserError as error:
            _expect_no_fault(side, kind.source)
            log(f"{what}: no number: {error}")
            return NONE


def _expect_no_fault(side: "Side | Target", needs: Iterable[str]) -> None:
    """Raises the ``UserError`` of what cannot be read or trained: that is no measure's refusal."""
    for need in needs:
        getattr(side, need)


# The table --------------------------------------------------------------------------------------


def _write(job: _Job, found: Numbers) -> None:
    names = job.names
    table = _table(names, job.settings["measures"], list(job.few.rows), found)
    refused = {pair: sum(map(math.isnan, numbers.values())) for pair, numbers in found.items()}
    facts = names | {
        "experiment_seed": job.decided["seed"],
        "slice": job.few.sliced.facts["sha256"],
        "indexes": job.digests,
        "left_out": job.few.left_out,
        "pairs": len(job.all),
        "refused": [[*pair, count] for pair, count in refused.items() if count],
        "device": job.few.device.type,
    }
    decided = record("few", VERSION, job.settings, job.decided["parts"])
    store.write_table(job.experiment.output(LAYOUT.few, **names), table, facts | decided)


def _table(
    names: Mapping[str, Any], measures: list[str], shots: Iterable[int], found: Numbers
) -> "pa.Table":
    """The rows of ``run``, by measure, shots and source, with what combinations make of them."""
    # Tables: what reading this module does not cost.
    import numpy as np
    import pyarrow as pa

    from ftd.measures.columns import pair_table

    pairs: dict[tuple[str, int], pa.Table] = {}
    parts_first = sorted(measures, key=lambda name: hasattr(MEASURES.get(name), "of"))
    for each in shots:
        for measure in parts_first:
            kind, own = MEASURES.get(measure), found.get((measure, each), {})
            known = {source: number for source, number in own.items() if not math.isnan(number)}
            totals, squared = np.array([*known.values()], float), getattr(kind, "squared", False)
            made = pair_table(names | {"measure": measure}, [*known], totals, squared=squared)
            if parts := [pairs[of, each] for of in getattr(kind, "of", ())]:
                what = f"measure {measure}, {names['task']}, {each} shots"
                made = _combined(measure, parts, what) or made
            pairs[measure, each] = made
    nothing = pair_table(names | {"measure": ""}, [], np.empty(0), squared=False)
    rows = [_with_shots(pairs[measure, each], each) for measure in measures for each in shots]
    return pa.concat_tables([_with_shots(nothing, 0), *rows])


def _combined(measure: str, parts: "list[pa.Table]", what: str) -> "pa.Table | None":
    """The pairs of a combination of one target; ``None``: it has none."""
    from ftd.measures.columns import combined, join  # as above

    if not all(map(len, parts)):
        return None
    try:
        return combined(measure, MEASURES.get(measure), join(parts))
    except UserError as error:
        log(f"{what}: no numbers: {error}")
        return None


def _with_shots(pairs: "pa.Table", shots: int) -> "pa.Table":
    """Pairs with their number of shots, and the roots of squares as they are in float64."""
    import numpy as np  # as above
    import pyarrow as pa

    roots = np.sqrt(pairs["squared_distance"].to_numpy())
    distance = np.where(np.isnan(roots), pairs["distance"].to_numpy(), roots)
    found = pairs.drop_columns(["distance", "squared_distance"])
    found = found.append_column("shots", pa.array([shots] * len(found), pa.int64()))
    return found.append_column("distance", pa.array(distance, pa.float64()))


def gather(experiment: Experiment) -> "pd.DataFrame":
    """All tables of an experiment as one (pandas): the rows of ``run``, by network, trial, target.

    Raises:
        UserError: a table that is missing or damaged, or was made otherwise than the configuration
            asks for.
    """
    return gathered(experiment, LAYOUT.few, decides)


# Checks -----------------------------------------------------------------------------------------


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    table = store.read_table(path, stage="few")
    facts, frame = store.table_facts(table), table.to_pandas()
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    for measure, recorded in facts["indexes"].items():
        index = library.path(LAYOUT.index, measure=measure, **names)
        yield from library.same(index, recorded, "list of sources")
    for measure, rows in frame.groupby("measure"):
        kind = MEASURES.get(measure)
        inside = rows["distance"].between(kind.lowest - ROUNDING, kind.highest + ROUNDING).all()
        yield from must(bool(inside), f"{measure}: numbers out of range")
    yield from _check_rows(facts, frame)


def _check_rows(facts: dict[str, Any], frame: "pd.DataFrame") -> Iterator[str]:
    """Every pair has a row or was refused, and combinations follow from the others' rows."""
    import numpy as np  # a check's alone

    numbers: Numbers = {}
    for row in frame[frame["measure"].isin(facts["indexes"])].itertuples():
        number = row.distance**2 if MEASURES.get(row.measure).squared else row.distance
        numbers.setdefault((row.measure, row.shots), {})[row.source] = number
    count = sum(map(len, numbers.values())) + sum(refused for *_, refused in facts["refused"])
    yield from must(count == facts["pairs"], f"{count} pairs, expected {facts['pairs']}")
    shots = [each for each in facts["settings"]["shots"] if each not in facts["left_out"]]
    names = {key: facts[key] for key in ("network", "trial", "task")}
    wanted = _table(names, facts["settings"]["measures"], shots, numbers).to_pandas()
    keys = ["measure", "network", "trial", "source", "target", "shots"]
    same = frame[keys].equals(wanted[keys]) and np.allclose(frame["distance"], wanted["distance"])
    yield from must(same, "combinations do not follow from the other measures' rows")


CHECKS = [(LAYOUT.few, _check)]
