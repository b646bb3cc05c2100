"""Stage *agreement*: whether what measures call near is worth more, by one of two truths.

The truth ``weights`` is what fine-tuned probes gain (the stage *transfer*), ``architectures`` how
alike tasks are in the architectures that suit them, and what a source's best ones gain (the stage
*genotypes*). Of the former, measures may also be those of targets that they see through the
fine-tuning's images alone (the stage *few*).
"""

from collections.abc import Iterator, Mapping, Sequence
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

VERSION = 3
_COMPARED = ("rank_correlation", "gain", "affinity")
"""What the tables of architectures have that a source may be judged by; the last one is drawn."""
_PAIR = ["source", "target"]


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
    """Write ``agreement/<truth>.parquet``, that of each target beside it, and the figures of both.

    The columns are those of ``ftd.transfer.agreement.summary`` and ``cells``. Regret is in points
    of accuracy; of affinities and rank correlations, in hundredths.

    Args:
        measures: those that are looked at, such as a list that was fixed before; ``None``: all of
            the experiment.

    Raises:
        UserError: no such truth; missing or unreadable tables, or such that were made otherwise
            than the configuration asks for; a measure without distances.
    """
    # Tables and pictures: what reading this module does not cost.
    import pyarrow as pa

    from ftd.measures.ranking import NEEDED
    from ftd.transfer import agreement

    if truth not in TRUTHS:
        raise UserError(f"no truth {truth!r}{did_you_mean(truth, TRUTHS)}")
    decided, path = decides(experiment, truth=truth), experiment.input(LAYOUT.distances)
    read = store.read_table(path, NEEDED, stage="distance")
    wanted = decided["measures"] if measures is None else list(measures)
    distances = read.to_pandas()
    distances = distances[distances["measure"].isin(wanted)]
    if missing := [name for name in wanted if name not in set(distances["measure"])]:
        raise UserError(f"{path}: no distances by {missing[0]!r}; run distances")
    truths, digests = _truths(experiment, truth)
    seen = None
    if decided["settings"]["few"]:
        seen = few.gather(experiment)
        seen = seen[seen["measure"].isin(wanted)]
        digests |= _digests(experiment, LAYOUT.few)
    classes = classes_of(experiment)
    cells = agreement.cells(distances, truths, decided["higher"], classes, seen)
    facts = {key: decided[key] for key in ("truth", "networks", "higher")} | {"measures": wanted}
    facts |= {"distances": store.table_facts(read)["sha256"], "truths": digests}
    facts |= record("agreement", VERSION, decided["settings"])
    for artifact, table in (
        (LAYOUT.agreement_cells, cells),
        (LAYOUT.agreement, agreement.summary(cells)),
    ):
        written = pa.Table.from_pandas(table, preserve_index=False)
        store.write_table(experiment.output(artifact, truth=truth), written, facts)
    _draw(experiment, truth, distances, truths, decided["higher"])


def _truths(experiment: Experiment, truth: str) -> tuple["pd.DataFrame", dict[str, str]]:
    """What every source is worth to every target, and the checksums of the tables that say so.

    As ``ftd.transfer.agreement.cells`` takes it.
    """
    import pandas as pd  # as in run

    config = experiment.config
    if truth == "weights":
        return transfer.gather(experiment), _digests(experiment, LAYOUT.transfer)
    path = experiment.input(LAYOUT.affinities)
    read = store.read_table(path, stage="genotypes")
    expect_asked(path, store.table_facts(read), genotypes.combines(experiment))
    own = read.to_pandas().assign(gain=lambda table: table["gain"] / 100)
    parts = [own[_PAIR].assign(scope=key, gain=own[key]) for key in _COMPARED]
    every = pd.DataFrame(
        [(network, trial) for network in config.networks for trial in range(config.trials)],
        columns=["network", "trial"],
    )
    table = pd.concat(parts, ignore_index=True).merge(every, how="cross").assign(shots=None)
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
            name: _matrix(own, "gain", order) for name, own in shown.groupby("truth", sort=False)
        }
        last = list(dict.fromkeys(shown.loc[shown["scope"] == shown["scope"].iloc[-1], "truth"]))
        near = {}
        for measure in dict.fromkeys(distances["measure"]):
            rows = (distances["measure"] == measure) & (distances["network"] == network)
            numbers = _matrix(distances[rows], "number", order)
            near[measure] = numbers if measure in higher else -numbers
            names = {"truth": truth, "measure": measure, "network": network}
            out = experiment.output(LAYOUT.agreement_scatter, **names)
            nearer = "larger" if measure in higher else "smaller"
            pairs = _pairs(numbers, {name: worth[name] for name in last})
            unit = "gain, points" if truth == "weights" else "×100"
            pictures.scatter(pairs, out, measure=f"{measure} ({nearer}: nearer)", worth=unit)
        out = experiment.output(LAYOUT.agreement_map, truth=truth, network=network)
        pictures.ranks(worth | near, out)


def _title(scope: str, shots: float | None) -> str:
    """What a truth is called; shots that are not known are null or NaN."""
    return f"{scope}, {int(shots)} shots" if shots and shots > 0 else scope


def _matrix(table: "pd.DataFrame", column: str, order: list[str]) -> "pd.DataFrame":
    """Means over trials [source, target]; NaN for a task to itself."""
    import pandas as pd  # as in run

    rows = table[table["source"] != table["target"]]
    means = rows.groupby(_PAIR)[column].mean().unstack()
    return pd.DataFrame(means).reindex(index=order, columns=order)


def _pairs(numbers: "pd.DataFrame", worth: Mapping[str, "pd.DataFrame"]) -> "pd.DataFrame":
    """The columns that ``scatter`` takes."""
    import pandas as pd  # as in run

    parts = [
        pd.DataFrame({"number": numbers.unstack(), "worth": 100 * values.unstack()})
        .rename_axis(["target", "source"])
        .reset_index()
        .assign(truth=name)
        .dropna()
        for name, values in worth.items()
    ]
    return pd.concat(parts, ignore_index=True)


# Checks -----------------------------------------------------------------------------------------


def _check_cells(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.table_facts(store.read_table(path, stage="agreement"))
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from must(facts["truth"] == names["truth"], f"is of {facts['truth']}")
    yield from library.same(library.path(LAYOUT.distances), facts["distances"], "table")
    for place, recorded in facts["truths"].items():
        yield from library.same(library.root / place, recorded, "table")


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    # A check's alone.
    import pandas as pd
    import pyarrow as pa

    from ftd.transfer.agreement import summary

    read = store.read_table(path, stage="agreement")
    yield from library.made_by(store.table_facts(read), VERSION, decides, **names)
    source = library.path(LAYOUT.agreement_cells, **names)
    if not source.exists():
        yield f"made from {source}, which is not there; run again"
        return
    cells = store.read_table(source, stage="agreement").to_pandas()
    wanted = pa.Table.from_pandas(summary(cells), preserve_index=False)
    wanted = wanted.replace_schema_metadata(None)  # as it is written
    try:  # of another machine, the last digits may differ
        pd.testing.assert_frame_equal(read.to_pandas(), wanted.to_pandas())
    except AssertionError:
        yield from must(False, f"does not follow from {source}")


CHECKS = [(LAYOUT.agreement_cells, _check_cells), (LAYOUT.agreement, _check)]
