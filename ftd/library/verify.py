"""Check a whole library: checksums, recorded digests, completeness, and values; change nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.names import counted
from ftd.stages import (
    agreement,
    comparison,
    dataset,
    derive,
    distance,
    embedding,
    few,
    fisher,
    genotypes,
    probe,
    search,
    selection,
    task,
    training,
    transfer,
)
from ftd.stages.checking import AGAIN, Check, Library, must, tensors_of
from ftd.stages.experiment import Experiment

STAGES = (
    *(dataset, derive, task, probe, fisher, embedding, distance, selection, search, training),
    *(genotypes, transfer, few, agreement, comparison),
)


@dataclass(frozen=True)
class Report:
    """What a library holds and what is wrong with it.

    Attributes:
        checked: how many files of each kind were read.
        problems: a line each: file, what is wrong, what to do.
    """

    checked: dict[str, int]
    problems: list[str]

    def text(self) -> str:
        """For a reader: the problems, and a summary."""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.checked.items())
        files = sum(self.checked.values())
        return "\n".join(
            [
                *self.problems,
                f"{files} files checked ({counts}); {counted(len(self.problems), 'problem')}",
            ]
        )


def run(folder: Path, *, plugins: bool = False) -> Report:
    """Read every artifact of ``results/<experiment>`` and compare them with each other.

    Args:
        plugins: whether the code of the library's plugins may be imported.

    Raises:
        UserError: no such folder, or none with artifacts; plugins that were not asked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one below results/")
    library, problems = _library(folder, plugins)
    checked: dict[str, int] = {}
    for artifact, check in (pair for stage in STAGES for pair in stage.CHECKS):
        for path, names in artifact.find(folder):
            checked[artifact.kind] = checked.get(artifact.kind, 0) + 1
            problems += _problems(check, path, names, library)
    if LAYOUT.config.path(folder).exists():
        checked[LAYOUT.config.kind] = 1
    if not checked:
        raise UserError(f"{folder}: no artifacts; give an experiment's folder below results/")
    if library.experiment:
        problems += _missing(library.experiment)
    problems += _other_modalities(library)
    problems += _half_written(folder)
    return Report(checked, list(dict.fromkeys(problems)))  # what is unreadable is named once


def _library(folder: Path, plugins: bool) -> tuple[Library, list[str]]:
    """The library, and what is wrong with its recorded configuration."""
    if not LAYOUT.config.path(folder).exists():
        return Library(folder, None), []
    raw = None
    try:
        raw = config.recorded(folder, plugins=True)  # only read: its code is not imported yet
        if raw.get("plugins"):
            config.recorded(folder, plugins=plugins)
        return Library(folder, Experiment.of(config.parse(raw), folder)), []
    except UserError as error:
        if raw and raw.get("plugins") and not plugins:
            raise
        return Library(folder, None), [str(error).replace("\n", " ")]


def _problems(check: Check, path: Path, names: Mapping[str, str], library: Library) -> list[str]:
    try:
        return [f"{path}: {problem}" for problem in check(path, names, library)]
    except UserError as error:
        return [str(error).replace("\n", " ")]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return [f"{path}: not what its stage writes ({type(error).__name__} {error}); {AGAIN}"]


def _missing(experiment: Experiment) -> list[str]:
    """Files that the recorded configuration asks for and that are not there."""
    record = experiment.output(LAYOUT.config)
    return [
        f"{path}: not there, but {record} asks for it; run again"
        for path in expected(experiment)
        if not path.exists()
    ]


def expected(experiment: Experiment) -> Iterator[Path]:
    """Every artifact of an experiment, but for figures, the report, and what is kept besides."""
    settings = experiment.config
    for name in sorted({sliced.dataset for sliced in settings.tasks.values()}):
        yield from (experiment.output(a, dataset=name) for a in (LAYOUT.images, LAYOUT.cut))
    for name, modality in experiment.derived():
        yield experiment.output(LAYOUT.derived, dataset=name, modality=modality)
    for name in settings.tasks:
        yield experiment.output(LAYOUT.slice, task=name)
    for network in settings.networks:
        for trial in range(settings.trials):
            place = {"network": network, "trial": trial}
            for measure in experiment.measures:
                yield experiment.output(LAYOUT.index, measure=measure, **place)
            for name in settings.tasks:
                yield experiment.output(LAYOUT.probe, task=name, **place)
                yield experiment.output(LAYOUT.probe_facts, task=name, **place)
                if experiment.needs("fisher"):
                    yield experiment.output(LAYOUT.fisher, task=name, **place)
                if experiment.needs("embedding"):
                    yield experiment.output(LAYOUT.embedding, task=name, **place)
                for measure in experiment.measures:
                    yield experiment.output(LAYOUT.column, measure=measure, task=name, **place)
    tables = (LAYOUT.distances, LAYOUT.layers, LAYOUT.nearest, LAYOUT.selection)
    yield from (experiment.output(table) for table in (*tables, LAYOUT.comparison))
    for names in experiment.searched():
        of_search = (LAYOUT.genotype, LAYOUT.trace, LAYOUT.candidates)
        for artifact in (*of_search, LAYOUT.weights, LAYOUT.metrics):
            yield experiment.output(artifact, **names)


def _other_modalities(library: Library) -> list[str]:
    """Frames whose modalities are not those that their cut names."""
    return [
        problem
        for path, names in LAYOUT.images.find(library.root)
        if library.path(LAYOUT.cut, **names).exists()
        for problem in _problems(_check_modalities, path, names, library)
    ]


def _check_modalities(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    cut = store.read_table(library.path(LAYOUT.cut, **names), ["index"], stage="dataset")
    kinds, found = store.table_facts(cut).get("modalities", {}), tensors_of(path)
    rows, _, *size = found["images"][1]
    held = set(found) - {"images", "annotations"}
    yield from must(held == set(kinds), f"has {_named(held)}, its cut names {_named(kinds)}")
    wanted = {
        "vectors": ("F32", [rows, 3, *size]),
        "labels": ("I16", [rows, *size]),
        "intrinsics": ("F32", [rows, 4]),
    }
    for name in sorted(held & set(kinds)):
        kind, shape = found[name]
        channels = shape[1:2] if len(shape) == 4 else [1]  # of maps, any number
        of_kind = wanted.get(kinds[name], ("F32", [rows, *channels, *size]))
        told = "{} {}, expected {} {}".format(kind, shape, *of_kind)
        yield from must((kind, shape) == of_kind, f"{name} ({kinds[name]}): {told}")


def _named(modalities: Iterable[str]) -> str:
    return f"the modalities {', '.join(sorted(modalities))}" if modalities else "no modality"


def _half_written(folder: Path) -> list[str]:
    """What killed jobs left behind."""
    return [
        f"{path}: half-written, by a job that was killed or still runs; delete it once none runs"
        for path in sorted(folder.rglob(".*.????????"))
        if path.is_file()
    ]
