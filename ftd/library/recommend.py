"""Online growth: place one new task among the learned tasks of a library, by the stages' functions.

A library is an experiment's folder, ``results/<experiment>``. The new task's probes are trained,
its distances alone are computed, and its nearest learned tasks and their architectures named.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ftd import config, store
from ftd.config import LIBRARY, Config, Dataset
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.columns import combined, join, read_columns
from ftd.measures.ranking import NEEDED, nearest, nearest_on_average
from ftd.parts import MEASURES
from ftd.stages import (
    dataset,
    derive,
    distance,
    embedding,
    fisher,
    probe,
    report,
    search,
    selection,
    task,
    training,
)
from ftd.stages.experiment import Experiment, modality_of
from ftd.transfer import trust
from ftd.transfer.trust import Trust


@dataclass(frozen=True)
class Recommendation:
    """What a library says about a new task.

    Attributes:
        task: its name.
        measure: the one that decides the selection, by which they are ranked.
        decided_by: what in the configuration names it, ``select.measure`` or ``measures``.
        trust: how far measures are to be trusted, by name, and a random choice; of ``measure``
            there is nothing, if that was not measured.
        by_measure: the nearest one by each measure, if there are several.
        nearest: learned tasks as sources, by the first network: ``source``, ``rank``, ``mean``
            and ``std`` over trials of the number (a distance's square), ``agreement``.
        weights: of all learned tasks, the nearest first; ``None``: they are equal.
        on_average: the learned tasks that are nearest to all others of them on average, by
            ``measure``: one, several that tie, or none, if the library has no such numbers.
        architecture: ``genotype.json`` of the nearest learned task that was searched, or ``None``.
        found: ``genotype.json`` and ``metrics.json`` of the new task's own search and training.
    """

    task: str
    measure: str
    decided_by: str
    trust: dict[str, Trust]
    nearest: pd.DataFrame
    by_measure: dict[str, str]
    weights: dict[str, float] | None
    on_average: list[str]
    architecture: Path | None = None
    found: tuple[Path, Path] | None = None

    def text(self) -> str:
        """For a reader."""
        by = f"({self.measure}, mean over trials ± std)"
        lines = [f"nearest learned tasks of {self.task} {by}"]
        lines += [
            f"  {row.rank}. {row.source}: {row.mean:.3f} ± {row.std:.3f}, first in "
            f"{row.agreement:.0%} of trials"
            for row in self.nearest.itertuples()
        ]
        first = " as the first" if self.decided_by == "measures" else ""
        lines.append(f"{self.measure} decides, named by {self.decided_by} of the library{first}")
        lines.append(trust.sentence(self.measure, self.trust))
        if self.by_measure:
            each = ", ".join(f"{source} ({name})" for name, source in self.by_measure.items())
            lines.append(f"nearest by each measure: {each}")
        if self.weights is not None:
            each = ", ".join(f"{source} {share:.2f}" for source, share in self.weights.items())
            lines.append(f"weights of all learned tasks: {each}")
        lines.append(self._beside_the_average())
        start = self.architecture or "none was searched yet"
        lines.append(f"architecture to start from, the nearest that was searched: {start}")
        if self.found:
            metrics = store.read_json(self.found[1])
            lines.append(
                f"found {self.found[0]}: test accuracy {metrics['accuracy']:.4f} (always the most "
                f"frequent label: {metrics['most_frequent']:.4f}), "
                f"{metrics['parameters']:,} parameters"
            )
        return "\n".join(lines)

    def _beside_the_average(self) -> str:
        """Whether the new task has to do with what is nearest to it."""
        if len(self.nearest) == 1:
            return "only one task is learned: any new task would get the same"
        said = "the task nearest to all learned ones on average: "
        if not self.on_average:
            return said + (
                f"not known, the library has no distances by {self.measure} between them; run "
                "distances"
            )
        said += ", ".join(self.on_average)
        first = self.nearest["source"].iloc[0]
        if first not in self.on_average:
            return f"{said}; another, so not what any new task would get"
        if len(self.on_average) > 1:
            return f"{said} tie; what is nearest to {self.task} is one of them"
        return f"{said}; the same, so this may say nothing about {self.task} itself"


def run(
    library: Path,
    task_file: Path,
    *,
    data_root: Path | None = None,
    searching: bool = False,
    add: bool = False,
    plugins: bool = False,
) -> Recommendation:
    """Recommend an architecture for one task; the library is left as it was unless ``add``.

    Args:
        library: the folder of a finished experiment.
        task_file: YAML with ``tasks``, one, and ``datasets``, in the configuration's form; its
            data set may be one of the library's.
        data_root: folder of the raw data; ``None``: the library's.
        searching: search the task's architecture in the space of its nearest learned task that was
            searched, with the library's settings, and train and test it. Without ``add``, both
            are kept beside ``task_file``.
        add: keep all artifacts in the library, as a learned task of later recommendations.
        plugins: whether the code of the library's plugins may be imported.

    Raises:
        UserError: no library, a task that is none or in it already, unfitting data, nothing
            searched where a search is to start from it, a folder that cannot be written.
    """
    library = Path(library)
    settings = config.recorded(library, plugins=plugins)
    new = _one_task(task_file)
    if data_root is not None:
        settings = settings | {"data_root": str(data_root)}
    name, joined = _with_task(settings, new, library, task_file)
    learned = [known for known in joined.tasks if known != name]
    if add or searching:  # said before any work, not after it
        _expect_writable(library if add else task_file.parent)
    with tempfile.TemporaryDirectory(prefix="ftd-recommend-") as work:
        experiment = Experiment(joined, Path(work), library)
        searched = [known for known in learned if _genotype_of(experiment, known).exists()]
        if searching and not searched:  # before any work, as above
            raise UserError(
                f"{library / 'search' / joined.search.library}: no learned task was searched, so "
                "there is no architecture to start from; run the library's searches first"
            )
        said = _said(experiment, name, learned)
        donors = [source for source in said.nearest["source"] if source in searched]
        donors = {
            source: said.weights[source] if said.weights else 1.0
            for source in donors[: joined.select.sources]
        }
        architecture = _genotype_of(experiment, next(iter(donors))) if donors else None
        found = _search(experiment, name, donors) if searching else None
        if add:
            _add(experiment)
            found = found and tuple(library / path.relative_to(work) for path in found)
        elif found:
            beside = [task_file.with_name(f"{name}-{path.name}") for path in found]
            for path, copy in zip(found, beside, strict=True):
                store.write_bytes(copy, path.read_bytes())
            found = tuple(beside)
    return replace(said, architecture=architecture, found=found)


def _said(experiment: Experiment, name: str, learned: list[str]) -> Recommendation:
    """Make all that the new task's distances take, and what follows from them."""
    settings = experiment.config
    on_average = _on_average(experiment, learned)  # before any work: it may be unreadable
    _decode_and_slice(experiment, name)
    by_measure = _ranks(experiment, join(_columns(experiment, name)), learned, name)
    ranks, temperature = by_measure[settings.deciding], settings.select.temperature
    sign = -1 if settings.deciding in experiment.higher() else 1
    weights = None
    if temperature != "inf":
        weights = selection.weights_of(ranks["source"], sign * ranks["mean"], temperature)
    return Recommendation(
        task=name,
        measure=settings.deciding,
        decided_by="select.measure" if settings.select.measure else "measures",
        trust=trust.measured(settings.measures),
        nearest=ranks,
        by_measure=_firsts(by_measure),
        weights=weights,
        on_average=on_average,
    )


def _on_average(experiment: Experiment, learned: list[str]) -> list[str]:
    """The learned tasks that are nearest to the others, by the library's own table."""
    if not LAYOUT.distances.path(experiment.base).exists():
        return []
    measure = experiment.config.deciding
    table = store.read_table(experiment.input(LAYOUT.distances), NEEDED).to_pandas()
    rows = (table["measure"] == measure) & (table["network"] == experiment.network)
    rows &= table["source"].isin(learned) & table["target"].isin(learned)
    return nearest_on_average(table[rows], higher=measure in experiment.higher())


def _add(experiment: Experiment) -> None:
    """Move the new artifacts to the library; its configuration, which makes them known, last."""
    shutil.rmtree(experiment.root / "index")  # the workflow lists the sources itself
    try:
        shutil.copytree(experiment.root, experiment.base, dirs_exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)[:200]  # of many files, all of it
        raise UserError(f"{experiment.base}: the task cannot be kept there ({reason})") from error
    report.record(replace(experiment, root=experiment.base))


def _expect_writable(folder: Path) -> None:
    """Raises a ``UserError`` if no file can be made in a folder."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{folder}: results cannot be written there ({error.strerror}); check its permissions, "
            "or give a copy of it"
        ) from error


def _one_task(task_file: Path) -> dict:
    """``tasks``, with one task, and ``datasets`` of a file, as they stand there."""
    raw = config.read(task_file)
    found = {"tasks": raw.get("tasks"), "datasets": raw.get("datasets") or {}}
    mappings = all(isinstance(section, dict) for section in found.values())
    if not mappings or len(found["tasks"]) != 1 or set(raw) - set(found):
        raise UserError(
            f"{task_file}: expected the keys 'tasks', with one task, and 'datasets' "
            "(see config/README.md)"
        )
    return found


def _with_task(settings: dict, new: dict, library: Path, task_file: Path) -> tuple[str, Config]:
    """The new task's name, and the library's configuration with it as the last to arrive."""
    name = str(next(iter(new["tasks"])))
    if name in map(str, settings["tasks"]):
        raise UserError(f"{task_file}: {library} holds a task {name!r} already; rename the new one")
    joined = settings | {key: settings[key] | new[key] for key in ("tasks", "datasets")}
    experiment, before = config.parse(joined, [Path(task_file)]), config.parse(settings)
    for known, data in before.datasets.items():
        if not _is_grown(data, experiment.datasets[known]):
            raise UserError(
                f"{task_file}: data set {known!r} differs from the library's; rename it"
            )
    return name, experiment


def _is_grown(before: Dataset, now: Dataset) -> bool:
    """Whether a data set is what it was, but for further modalities that are derived of it."""
    derived = getattr(before, "derive", None)
    if derived is not None and set(derived) <= set(getattr(now, "derive", ())):
        now = now.model_copy(update={"derive": derived})
    return now == before


def _decode_and_slice(experiment: Experiment, name: str) -> None:
    """The task's slice; its data set is the library's, if that was made with these settings.

    So is the modality that is derived for it.
    """
    chosen, modality = experiment.config.tasks[name].dataset, modality_of(experiment.config, name)
    if not _is_there(experiment, chosen):
        dataset.run(experiment, dataset=chosen)
    if modality and not _is_derived(experiment, chosen, modality):
        derive.run(experiment, dataset=chosen, modality=modality)
    task.run(experiment, task=name)


def _is_there(experiment: Experiment, name: str) -> bool:
    """Whether the library has the data set that is asked for, not a leftover of its name."""
    images = LAYOUT.images.path(experiment.base, dataset=name)
    cut = LAYOUT.cut.path(experiment.base, dataset=name)
    if not images.exists() or not cut.exists():
        return False
    try:
        facts = store.table_facts(store.read_table(cut, stage="dataset"))
    except UserError:
        return False  # damaged: decoded anew
    asked = dataset.decides(experiment, dataset=name)
    return all(facts.get(key, {}) == asked[key] for key in asked)


def _is_derived(experiment: Experiment, name: str, modality: str) -> bool:
    """Whether there is a modality of the data set's images, as they are now."""
    names = {"dataset": name, "modality": modality}
    try:
        facts = store.read_tensor_facts(experiment.input(LAYOUT.derived, **names), stage="derive")
    except UserError:
        return False  # not there, or damaged: derived anew
    asked = derive.decides(experiment, **names)
    images = store.read_tensor_facts(experiment.input(LAYOUT.images, dataset=name))["sha256"]
    return facts["images"] == images and all(facts.get(key) == asked[key] for key in asked)


def _columns(experiment: Experiment, name: str) -> Iterator[pa.Table]:
    """All that distances of every trial take, and they themselves; yields the columns' pairs."""
    for network in experiment.config.networks:
        for trial in range(experiment.config.trials):
            place = {"network": network, "trial": trial}
            probe.run(experiment, task=name, **place)
            if experiment.needs("fisher"):
                fisher.run(experiment, task=name, **place)
            if experiment.needs("embedding"):
                embedding.run(experiment, task=name, **place)
            for measure in experiment.measures:
                distance.index(experiment, measure=measure, **place)
            distance.run_together(experiment, measures=experiment.measures, task=name, **place)
            for measure in experiment.measures:
                index = experiment.output(LAYOUT.index, measure=measure, **place)
                column = experiment.output(LAYOUT.column, measure=measure, task=name, **place)
                yield next(read_columns(index, [column], MEASURES.get(measure)))[0]


def _ranks(
    experiment: Experiment, pairs: pa.Table, learned: list[str], name: str
) -> dict[str, pd.DataFrame]:
    """By measure: the learned tasks as sources of the new one, by the first network.

    A combination that cannot be made without the new task as a source is left out, if it does not
    decide.
    """
    measures = experiment.config.measures
    tables = [pairs]
    combinations = [measure for measure in measures if measure not in experiment.measures]
    if combinations:  # of the learned tasks' numbers among each other too
        known = store.read_table(experiment.input(LAYOUT.distances), NEEDED).to_pandas()
        known = known[known["source"].isin(learned) & known["target"].isin(learned)]
        new = pairs.to_pandas()
        known = known[known["measure"].isin(experiment.measures)]
        joined = pd.concat([known, new[new["source"] != name]], ignore_index=True)
        tables = [pa.Table.from_pandas(joined)]
    for measure in combinations:
        try:
            tables.append(combined(measure, MEASURES.get(measure), join(tables)))
        except UserError:
            if measure in _made_of(experiment.config.deciding):
                raise
    table = join(tables).to_pandas()
    ranks = nearest(table[table["target"] == name], [*learned, name], experiment.higher())
    ranks = ranks[ranks["network"] == experiment.network].drop(columns="network")
    by = {measure: ranks[ranks["measure"] == measure] for measure in measures}
    return {measure: rows.drop(columns="measure") for measure, rows in by.items()}


def _firsts(by_measure: dict[str, pd.DataFrame]) -> dict[str, str]:
    """The nearest by each measure, if there are several."""
    found = {measure: rows["source"].iloc[0] for measure, rows in by_measure.items() if len(rows)}
    return found if len(found) > 1 else {}


def _made_of(measure: str) -> set[str]:
    """A measure, and those that it combines."""
    return {measure}.union(*map(_made_of, getattr(MEASURES.get(measure), "of", ())))


def _genotype_of(experiment: Experiment, name: str) -> Path:
    """A learned task's architecture in the library."""
    place = {"method": experiment.config.search.library, "seed": experiment.config.search.seeds[0]}
    return LAYOUT.genotype.path(experiment.base, task=name, **place)


def _search(experiment: Experiment, name: str, donors: dict[str, float]) -> tuple[Path, Path]:
    """Search from the donors' candidates and train the winner; returns its genotype and metrics."""
    place = {"method": LIBRARY, "task": name, "seed": experiment.config.search.seeds[0]}
    search.run(experiment, donors=donors, **place)
    training.run(experiment, **place)
    return experiment.output(LAYOUT.genotype, **place), experiment.output(LAYOUT.metrics, **place)
