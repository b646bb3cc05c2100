"""Online growth: place one new task among the learned tasks of a library, by the stages' functions.

A library is an experiment's folder, ``results/<experiment>``. The new task's probes are trained,
its distances alone are computed, and its nearest learned tasks and their architectures named.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ftd import artifacts, config, dataset, distance, fisher, probe, search, select, slice, train
from ftd.config import Config
from ftd.errors import UserError
from ftd.names import LIBRARY


@dataclass(frozen=True)
class Recommendation:
    """What a library says about a new task.

    Attributes:
        task: its name.
        nearest: learned tasks as sources, by the first network: ``source``, ``rank``, ``mean``
            and ``std`` of the squared distance over trials, ``agreement``.
        architecture: ``genotype.json`` of the nearest learned task that was searched, or ``None``.
        found: ``genotype.json`` and ``metrics.json`` of the new task's own search and training.
    """

    task: str
    nearest: pd.DataFrame
    architecture: Path | None
    found: tuple[Path, Path] | None = None

    def text(self) -> str:
        """For a reader."""
        lines = [f"nearest learned tasks of {self.task} (mean squared distance ± std over trials)"]
        lines += [
            f"  {row.rank}. {row.source}: {row.mean:.3f} ± {row.std:.3f}, first in "
            f"{row.agreement:.0%} of trials"
            for row in self.nearest.itertuples()
        ]
        start = self.architecture or "none was searched yet"
        lines.append(f"architecture to start from, the nearest that was searched: {start}")
        if self.found:
            metrics = artifacts.read_json(self.found[1])
            lines.append(
                f"found {self.found[0]}: test accuracy {metrics['accuracy']:.4f}, "
                f"{metrics['parameters']:,} parameters"
            )
        return "\n".join(lines)


def run(
    library: Path, task_file: Path, *, data_root: Path, searching: bool = False, add: bool = False
) -> Recommendation:
    """Recommend an architecture for one task; the library is left as it was unless ``add``.

    Args:
        library: the folder of a finished experiment.
        task_file: YAML with ``tasks``, one, and ``datasets``, in the configuration's form; its
            data set may be one of the library's.
        searching: search the task's architecture in the space of its nearest learned task that was
            searched, with the library's settings, and train and test it. Without ``add``, both
            are kept beside ``task_file``.
        add: keep all artifacts in the library, as a learned task of later recommendations.

    Raises:
        UserError: no library, a task that is none or in it already, unfitting data, nothing
            searched where a search is to start from it.
    """
    library = Path(library)
    settings = config.recorded(library)
    new = _one_task(task_file)
    name, experiment = _with_task(settings, new, library, task_file)
    learned = list(map(str, settings["tasks"]))
    searched = {task: _genotype_of(library, task, experiment) for task in learned}
    searched = {task: path for task, path in searched.items() if path.exists()}
    if searching and not searched:  # said before any work, not after it
        raise UserError(
            f"{library / 'search' / LIBRARY}: no learned task was searched, so there is no "
            "architecture to start from; run the library's searches first"
        )
    with tempfile.TemporaryDirectory(prefix="ftd-recommend-") as work:
        folder = Path(work)
        _decode_and_slice(name, experiment, library, folder, data_root)
        columns = [
            _column(name, learned, experiment, network, trial, library, folder)
            for network in experiment.networks
            for trial in range(experiment.trials)
        ]
        table = pd.concat(columns, ignore_index=True)
        nearest = select.nearest(table, [*learned, name])
        nearest = nearest[nearest["network"] == experiment.networks[0]].drop(columns="network")
        donors = [searched[source] for source in nearest["source"] if source in searched]
        donors = donors[: experiment.select.nearest]
        architecture = donors[0] if donors else None
        found = _search(name, experiment, library, folder, donors) if searching else None
        if add:
            _add(folder, library, settings, new)
            found = found and tuple(library / path.relative_to(folder) for path in found)
        elif found:
            beside = [task_file.with_name(f"{name}-{path.name}") for path in found]
            found = tuple(Path(shutil.copy(*pair)) for pair in zip(found, beside, strict=True))
    return Recommendation(name, nearest, architecture, found)


def _add(folder: Path, library: Path, settings: dict, new: dict) -> None:
    """Move the new artifacts to the library; its configuration, which makes them known, last."""
    shutil.rmtree(folder / "index")  # the workflow lists the probes itself
    shutil.copytree(folder, library, dirs_exist_ok=True)
    joined = settings | {key: settings[key] | new[key] for key in ("tasks", "datasets")}
    # in order: tasks arrive, and labels count, in theirs
    artifacts.write_json(library / "config.json", joined, sort_keys=False)


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
        if experiment.datasets[known] != data:
            raise UserError(
                f"{task_file}: data set {known!r} differs from the library's; rename it"
            )
    return name, experiment


def _decode_and_slice(
    name: str, experiment: Config, library: Path, folder: Path, data_root: Path
) -> None:
    chosen = experiment.tasks[name].dataset
    images, table = _dataset(experiment, name, library, folder)
    if not (images.exists() and table.exists()):
        dataset.run(
            chosen,
            experiment.datasets[chosen],
            experiment.image,
            seed=experiment.seed,
            data_root=data_root,
            images_out=images,
            table_out=table,
        )
    out = folder / "tasks" / f"{name}.parquet"
    slice.run(name, experiment.tasks[name], seed=experiment.seed, table=table, out=out)


def _dataset(experiment: Config, name: str, library: Path, folder: Path) -> tuple[Path, Path]:
    """Images and cut of the task's data set: the library's, or new ones."""
    chosen = experiment.tasks[name].dataset
    known = library / "datasets" / f"{chosen}.safetensors"
    images = known if known.exists() else folder / "datasets" / f"{chosen}.safetensors"
    return images, images.with_suffix(".parquet")


def _column(
    name: str,
    learned: list[str],
    experiment: Config,
    network: str,
    trial: int,
    library: Path,
    folder: Path,
) -> pd.DataFrame:
    """Probe, Fisher diagonal and distances of one trial; returns the column's pairs."""
    place = Path(network) / str(trial)
    task_slice = folder / "tasks" / f"{name}.parquet"
    images, _ = _dataset(experiment, name, library, folder)
    weights = folder / "probes" / place / f"{name}.safetensors"
    pretrained = experiment.pretrained.get(network)
    probe.run(
        task_slice,
        images,
        network=network,
        trial=trial,
        seed=experiment.seed,
        settings=experiment.probe,
        weights_out=weights,
        facts_out=weights.with_suffix(".json"),
        pretrained=Path(pretrained) if pretrained else None,
    )
    diagonal = folder / "fisher" / place / f"{name}.safetensors"
    fisher.run(weights, task_slice, images, settings=experiment.fisher, out=diagonal)
    index = folder / "index" / network / f"{trial}.json"
    probes = [library / "probes" / place / f"{task}.safetensors" for task in learned]
    distance.index([*probes, weights], index)
    column = folder / "columns" / place / f"{name}.parquet"
    distance.run(
        index,
        diagonal,
        task_slice,
        images,
        settings=experiment.distance,
        store=folder / "pairs" / place / f"{name}.pairs",
        out=column,
    )
    pairs, _, _ = next(distance.read_columns(index, [column]))
    return pairs.to_pandas()


def _genotype_of(folder: Path, task: str, experiment: Config) -> Path:
    seed = experiment.search.seeds[0]
    return folder / "search" / LIBRARY / task / str(seed) / "genotype.json"


def _search(
    name: str, experiment: Config, library: Path, folder: Path, donors: list[Path]
) -> tuple[Path, Path]:
    """Search in the donors' space and train the winner; returns its genotype and its metrics."""
    genotype = _genotype_of(folder, name, experiment)
    task = folder / "tasks" / f"{name}.parquet"
    images, _ = _dataset(experiment, name, library, folder)
    search.run(
        task,
        images,
        donors,
        method=LIBRARY,
        seed=experiment.seed,
        search_seed=experiment.search.seeds[0],
        settings=experiment.search,
        genotype_out=genotype,
        trace_out=genotype.with_name("trace.parquet"),
    )
    final = folder / "final" / LIBRARY / name / genotype.parent.name
    train.run(
        genotype,
        task,
        images,
        seed=experiment.seed,
        settings=experiment.train,
        weights_out=final / "weights.safetensors",
        metrics_out=final / "metrics.json",
    )
    return genotype, final / "metrics.json"
