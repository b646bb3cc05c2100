"""Stage *agreement*: whether what measures call near is worth more, by one of two truths.

The truth ``weights`` is what fine-tuned probes gain (the stage *transfer*), ``architectures`` how
alike tasks are in the architectures that suit them, and what a source's best ones gain (the stage
*genotypes*). Of the former, measures may also be those of targets that they see through the
fine-tuning's images alone (the stage *few*); of the latter, it also says what rankings are worth
that a measure weighs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT, TRUTHS, Artifact
from ftd.names import did_you_mean
from ftd.stages import few, genotypes, transfer
from ftd.stages import task as slices
from ftd.stages.checking import Library, expect_asked, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pandas as pd

    from ftd.transfer.agreement import Classes

VERSION = 4


def decides(experiment: Experiment, *, truth: str) -> dict[str, Any]:
    """All that decides the tables, besides the distances, the truth and the tasks' slices."""
    return {
        "settings": {"few": truth == "weights" and experiment.config.transfer.few},
        "truth": truth,
        "measures": experiment.config.measures,
        "networks": experiment.config.networks,
        "higher": experiment.higher(),
        "version": VERSION,
    }


def run(experiment: Experiment, *, truth: str, measures: Sequence[str] | None = None) -> None:
    """Write ``agreement/<truth>.parquet``, that of each target beside it, a page and figures.

    The columns are those of ``ftd.transfer.agreement.summary`` and ``cells``. Regret is in points
    of accuracy; of affinities and rank correlations, in hundredths.

    Args:
        measures: those that are looked at, such as a list that was fixed before; ``None``: all of
            the experiment.

    Raises:
        UserError: no such truth; missing or unreadable tables, or such that were made otherwise
            than the configuration asks for; a measure without distances.
    """
    # Tables and pictures: what reading this module saves.
    from ftd.drawing import truth_pages
    from ftd.transfer import agreement

    if truth not in TRUTHS:
        raise UserError(f"no truth {truth!r}{did_you_mean(truth, TRUTHS)}")
    decided = decides(experiment, truth=truth)
    wanted = decided["measures"] if measures is None else list(measures)
    near, digest = distances(experiment, wanted)
    truths, digests = _truths(experiment, truth)
    seen = None
    if decided["settings"]["few"]:
        seen = few.gather(experiment)
        seen = seen[seen["measure"].isin(wanted)]
        digests |= _digests(experiment, LAYOUT.few)
    classes = classes_of(experiment)
    cells = agreement.cells(near, truths, decided["higher"], classes, seen)
    facts = {key: decided[key] for key in ("truth", "networks", "higher")} | {"measures": wanted}
    facts |= {"distances": digest, "truths": digests}
    facts |= record("agreement", VERSION, decided["settings"])
    _write(experiment.output(LAYOUT.agreement_cells, truth=truth), cells, facts)
    summary = agreement.summary(cells)
    _write(experiment.output(LAYOUT.agreement, truth=truth), summary, facts)
    page = experiment.output(LAYOUT.agreement_page, truth=truth)
    truth_pages.agreement(cells, summary, page, truth=truth)
    _draw(experiment, truth, near, truths, decided["higher"])


def distances(experiment: Experiment, wanted: Sequence[str]) -> tuple["pd.DataFrame", str]:
    """Those by some measures (``ftd.measures.ranking.NEEDED``), and the checksum of the table.

    Raises:
        UserError: a missing or unreadable table, or a measure without distances.
    """
    from ftd.measures.ranking import NEEDED  # as in run

    path = experiment.input(LAYOUT.distances)
    read = store.read_table(path, NEEDED, stage="distance")
    table = read.to_pandas()
    table = table[table["measure"].isin(wanted)]
    if missing := [name for name in wanted if name not in {*table["measure"]}]:
        raise UserError(f"{path}: no distances by {missing[0]!r}; run distances")
    return table, store.table_facts(read)["sha256"]


def _write(out: Path, table: "pd.DataFrame", facts: dict[str, Any]) -> None:
    import pyarrow as pa  # as in run

    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)


def _truths(experiment: Experiment, truth: str) -> tuple["pd.DataFrame", dict[str, str]]:
    """What every source is worth to every target, and the checksums of the tables that say so.

    As ``ftd.transfer.agreement.cells`` takes it.
    """
    from ftd.transfer.agreement import of_architectures  # as in run

    config = experiment.config
    if truth == "weights":
        return transfer.gather(experiment), _digests(experiment, LAYOUT.transfer)
    path = experiment.input(LAYOUT.affinities)
    read = store.read_table(path, stage="genotypes")
    expect_asked(path, store.table_facts(read), genotypes.combines(experiment))
    table = of_architectures(read.to_pandas(), config.networks, range(config.trials))
    digest = store.table_facts(read)["sha256"]
    return table, {LAYOUT.affinities.path(Path()).as_posix(): digest}


def _digests(experiment: Experiment, artifact: Artifact) -> dict[str, str]:
    """The checksums of the tables of all networks, trials and tasks, by place."""
    return {
        artifact.path(Path(), **names).as_posix(): store.checksum(
            experiment.input(artifact, **names)
        )
        for names in experiment.places()
    }


def classes_of(experiment: Experiment) -> "Classes | None":
    """Of which classes each task's images are, those of its rest too; ``None``: one has none."""
    import numpy as np  # as in run

    cuts, found = {}, {}
    for task, settings in experiment.config.tasks.items():
        name = settings.dataset
        if name not in cuts:
            cuts[name] = store.read_table(experiment.input(LAYOUT.cut, dataset=name))
        if "class" not in cuts[name].column_names:
            return None
        index, numbers = (cuts[name][key].to_numpy() for key in ("index", "class"))
        own = np.isin(index, slices.read(experiment, task=task).index)
        found[task] = {(name, int(number)) for number in np.unique(numbers[own])}
    return found


def _draw(
    experiment: Experiment,
    truth: str,
    distances: "pd.DataFrame",
    truths: "pd.DataFrame",
    higher: Sequence[str],
) -> None:
    """The figures of each network: means over trials, and points of the last scope."""
    from ftd.drawing import truths as pictures  # as in run
    from ftd.measures.ranking import ranked

    order = list(experiment.config.tasks)
    distances = distances.assign(number=ranked(distances))
    for network in experiment.config.networks:
        shown = truths[(truths["network"] == network) & truths["source"].notna()]
        shown = shown.assign(
            truth=[_title(*names) for names in zip(shown["scope"], shown["shots"], strict=True)]
        )
        worth = {
            name: pictures.matrix(own, "gain", order)
            for name, own in shown.groupby("truth", sort=False)
        }
        worth = {name: own for name, own in worth.items() if own.notna().any(axis=None)} or worth
        scopes = dict(zip(shown["truth"], shown["scope"], strict=True))
        last = [name for name in worth if scopes[name] == scopes[[*worth][-1]]]
        near = {}
        for measure in dict.fromkeys(distances["measure"]):
            rows = (distances["measure"] == measure) & (distances["network"] == network)
            numbers = pictures.matrix(distances[rows], "number", order)
            near[measure] = numbers if measure in higher else -numbers
            names = {"truth": truth, "measure": measure, "network": network}
            out = experiment.output(LAYOUT.agreement_scatter, **names)
            nearer = "larger" if measure in higher else "smaller"
            pairs = pictures.points(numbers, {name: worth[name] for name in last})
            unit = "gain, points" if truth == "weights" else "×100"
            pictures.scatter(pairs, out, measure=f"{measure} ({nearer}: nearer)", worth=unit)
            table = experiment.output(LAYOUT.agreement_points, **names)
            store.write_bytes(table, pairs.to_csv(index=False, lineterminator="\n").encode())
        out = experiment.output(LAYOUT.agreement_map, truth=truth, network=network)
        pictures.ranks({f"worth: {name}": own for name, own in worth.items()} | near, out)


def _title(scope: str, shots: float | None) -> str:
    """What a truth is called; shots that are not known are null or NaN."""
    return f"{scope}, {int(shots)} shots" if shots and shots > 0 else scope


# Weighted rankings of architectures --------------------------------------------------------------


def weighs(experiment: Experiment) -> dict[str, Any]:
    """All that decides the tables of ``weigh``, besides the distances and the architectures."""
    decided = decides(experiment, truth="architectures")
    kept = {key: decided[key] for key in ("measures", "networks", "higher", "version")}
    return {"settings": {}} | kept


def weigh(experiment: Experiment) -> None:
    """Write ``agreement/architectures/weighted.parquet``, that of each target below it, a page.

    The columns are those of ``ftd.transfer.weighting.summary`` and ``cells``.

    Raises:
        UserError: missing or unreadable tables, or such that were made otherwise than the
            configuration asks for; a measure without distances, or less than two tasks.
    """
    # As in run.
    from ftd.drawing import truth_pages
    from ftd.measures.ranking import ranked
    from ftd.transfer import architectures, weighting

    decided = weighs(experiment)
    near, digest = distances(experiment, decided["measures"])
    read = genotypes.gather(experiment)
    own = architectures.by_task(read)
    cells = weighting.cells(near.assign(number=ranked(near)), own, decided["higher"])
    facts = {key: decided[key] for key in ("measures", "networks", "higher")}
    facts |= {"distances": digest, "architectures": store.table_facts(read)["sha256"]}
    facts |= {"best": architectures.BEST} | record("agreement", VERSION, decided["settings"])
    _write(experiment.output(LAYOUT.weighted_cells), cells, facts)
    summary = weighting.summary(cells)
    _write(experiment.output(LAYOUT.weighted), summary, facts)
    truth_pages.weighted(summary, experiment.output(LAYOUT.weighted_page))


# Checks -----------------------------------------------------------------------------------------


def _check_cells(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.table_facts(store.read_table(path, stage="agreement"))
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from must(facts["truth"] == names["truth"], f"is of {facts['truth']}")
    yield from library.same(library.path(LAYOUT.distances), facts["distances"], "table")
    for place, recorded in facts["truths"].items():
        yield from library.same(library.root / place, recorded, "table")


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.transfer.agreement import summary  # a check's alone

    facts = store.table_facts(store.read_table(path, stage="agreement"))
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from _follows(path, library.path(LAYOUT.agreement_cells, **names), summary)


def _check_weighted_cells(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.table_facts(store.read_table(path, stage="agreement"))
    yield from library.made_by(facts, VERSION, weighs)
    for name in ("distances", "architectures"):
        yield from library.same(library.path(getattr(LAYOUT, name)), facts[name], "table")


def _check_weighted(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.transfer.weighting import summary  # a check's alone

    facts = store.table_facts(store.read_table(path, stage="agreement"))
    yield from library.made_by(facts, VERSION, weighs)
    yield from _follows(path, library.path(LAYOUT.weighted_cells), summary)


def _follows(path: Path, source: Path, summary: "Callable[..., pd.DataFrame]") -> Iterator[str]:
    # A check's alone.
    import pandas as pd
    import pyarrow as pa

    if not source.exists():
        yield f"made from {source}, which is not there; run again"
        return
    cells = store.read_table(source, stage="agreement").to_pandas()
    wanted = pa.Table.from_pandas(summary(cells), preserve_index=False)
    wanted = wanted.replace_schema_metadata(None)  # as it is written
    try:  # of another machine, the last digits may differ
        pd.testing.assert_frame_equal(store.read_table(path).to_pandas(), wanted.to_pandas())
    except AssertionError:
        yield from must(False, f"does not follow from {source}")


CHECKS = [
    (LAYOUT.agreement_cells, _check_cells),
    (LAYOUT.agreement, _check),
    (LAYOUT.weighted_cells, _check_weighted_cells),
    (LAYOUT.weighted, _check_weighted),
]
