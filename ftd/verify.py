"""Check a whole library: checksums, recorded digests, completeness, and values; change nothing."""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from ftd import artifacts, config, distance, pairs, select, slice, versions
from ftd.config import Config, Distance
from ftd.dataset import PARTS
from ftd.errors import UserError
from ftd.names import LIBRARY
from ftd.search.space import Genotype

_AGAIN = "delete it and run again"


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
            [*self.problems, f"{files} files checked ({counts}); {len(self.problems)} problem(s)"]
        )


def run(library: Path) -> Report:
    """Read every artifact of ``results/<experiment>`` and compare them with each other.

    Raises:
        UserError: no such folder, or none with artifacts.
    """
    library = Path(library)
    if not library.is_dir():
        raise UserError(f"{library}: no such folder; give one below results/")
    checked: dict[str, int] = {}
    problems: list[str] = []
    for kind, pattern, check in _KINDS:
        for path in sorted(library.glob(pattern)):
            checked[kind] = checked.get(kind, 0) + 1
            problems += _problems(check, path, library)
    if not checked:
        raise UserError(f"{library}: no artifacts; give an experiment's folder below results/")
    problems += _problems(_equals_columns, library / "distances.parquet", library)
    problems += _missing(library)
    problems += _half_written(library)
    return Report(checked, problems)


def _problems(check: Callable, path: Path, library: Path) -> list[str]:
    try:
        return [f"{path}: {problem}" for problem in check(path, library)]
    except UserError as error:
        return [str(error).replace("\n", " ")]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return [f"{path}: not what its stage writes ({type(error).__name__} {error}); {_AGAIN}"]


def _must(holds: bool, what: str) -> list[str]:
    return [] if holds else [f"{what}; {_AGAIN}"]


def _same(path: Path, recorded: str | None, what: str) -> list[str]:
    """A recorded digest beside that of the file that is there."""
    if not path.exists():
        return [f"made from {what} {path}, which is not there; run again"]
    if _digest(path, path.stat().st_mtime_ns) != recorded:
        return [f"made from another {what} than {path}; {_AGAIN}"]
    return []


@functools.lru_cache(None)
def _digest(path: Path, _modified: int) -> str:
    """A file's digest; many artifacts are made from the same one."""
    return artifacts.digest(path)


def _facts_of_table(path: Path) -> tuple[pd.DataFrame, dict]:
    table = artifacts.read_table(path)
    return table.to_pandas(), artifacts.table_facts(table)


def _made_by(path: Path, facts: dict, stage: str, library: Path) -> Iterator[str]:
    """What every artifact records of its making, besides its inputs."""
    artifacts.expect_stage(path, facts, stage)
    for key in ("settings", "version", "packages"):
        yield from _must(key in facts, f"records no {key}")
    present = versions.STAGES[stage]
    yield from _must(facts["version"] == present, f"made by another version of the stage {stage}")
    experiment = _experiment(library)
    if experiment is None or not _is_asked_for(stage, facts, experiment):
        return
    asked = config.settings_json(_section(stage, facts, experiment))
    yield from _must(json.loads(asked) == facts["settings"], f"made with other {stage} settings")
    if stage in ("dataset", "slice", "probe", "search", "train"):
        seed = facts.get("experiment_seed", facts.get("seed", experiment.seed))
        yield from _must(seed == experiment.seed, f"made with the experiment's seed {seed}")


def _experiment(library: Path) -> Config | None:
    """The library's recorded configuration, if there is a sound one."""
    path = library / config.RECORD
    return _parsed(library, path.stat().st_mtime_ns) if path.exists() else None


@functools.lru_cache
def _parsed(library: Path, _modified: int) -> Config | None:
    try:
        return config.parse(config.recorded(library))
    except UserError:
        return None  # named where that file is checked


def _is_asked_for(stage: str, facts: dict, experiment: Config) -> bool:
    """Whether the configuration still names an artifact: else it is a leftover."""
    searched = experiment.search
    asked = {
        "dataset": experiment.datasets,
        "task": experiment.tasks,
        "network": [*experiment.networks, None, *searched.methods],
        "trial": range(experiment.trials),
        "method": {*searched.methods, LIBRARY},
    }
    if stage in ("search", "train"):
        asked |= {"seed": searched.seeds, "task": searched.tasks or experiment.tasks}
    return all(facts[key] in names for key, names in asked.items() if key in facts)


def _section(stage: str, facts: dict, experiment: Config) -> config.Section | dict:
    """The settings that a stage's artifact should have been made with."""
    by_stage = {
        "dataset": lambda: experiment.datasets[facts["dataset"]],
        "slice": lambda: experiment.tasks[facts["task"]],
        "search": lambda: experiment.search.of(facts["method"]),
        "compare": dict,
    }
    return by_stage[stage]() if stage in by_stage else getattr(experiment, stage)


# One check for each kind: (file, library) → what is wrong with it -------------------------------


def _images(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_tensor_facts(path)
    yield from _made_by(path, facts, "dataset", library)
    with safe_open(path, framework="numpy") as file:
        images = file.get_slice("images")
        shape, kind = images.get_shape(), images.get_dtype()
    image = facts["image"]
    wanted = [image["channels"], image["size"], image["size"]]
    yield from _must(kind == "U8" and shape[1:] == wanted, f"images {kind} {shape}")


def _cut(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "dataset", library)
    yield from _same(path.with_suffix(".safetensors"), facts["images"], "images")
    yield from _must(list(table["index"]) == list(range(len(table))), "rows are not numbered")
    classes = {str(number) for number in table["class"]}
    yield from _must(classes <= facts["classes"].keys(), "classes without a name")
    yield from _must(set(table["part"].dropna()) == set(PARTS), "parts are missing or unknown")
    yield from _must(all(value > 0 for value in facts["std"]), "a deviation that is not positive")


def _slice(path: Path, library: Path) -> Iterator[str]:
    task = slice.read(path)
    cut = library / "datasets" / f"{task.facts['dataset']}.parquet"
    yield from _made_by(path, task.facts, "slice", library)
    yield from _same(cut, task.facts["cut"], "cut")
    yield from _same(cut.with_suffix(".safetensors"), task.facts["images"], "images")
    yield from _must(task.facts["task"] == path.stem, f"is of task {task.facts['task']}")
    yield from _must(len(set(task.index)) == len(task.index), "an image is listed twice")
    yield from _must(set(task.part) == set(PARTS), "parts are missing or unknown")
    labels = set(task.label) == set(range(len(task.labels)))
    yield from _must(labels, "labels out of range, or without an image")
    if cut.exists():
        parts = artifacts.read_table(cut, ["part"])["part"].to_pandas()
        inside = task.index.min() >= 0 and task.index.max() < len(parts)
        yield from _must(inside, "names images that the data set does not have")
        yield from _must(
            inside and list(parts.iloc[task.index]) == list(task.part),
            "parts differ from the cut's",
        )


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """One after another, so that memory holds one."""
    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            yield name, file.get_tensor(name)


def _finite(path: Path) -> Iterator[str]:
    for name, value in _tensors(path):
        yield from _must(bool(np.isfinite(value).all()), f"{name} holds values that are not finite")


def _weights(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_tensor_facts(path)
    yield from _made_by(path, facts, "probe", library)
    yield from _must(_place(path) == _of(facts), f"is of {_of(facts)}")
    yield from _same(library / "tasks" / f"{facts['task']}.parquet", facts["slice"], "slice")
    yield from _finite(path)


def _place(path: Path) -> tuple[str, str, str]:
    """Network, trial and task by the path."""
    return path.parts[-3], path.parts[-2], path.stem


def _of(facts: dict) -> tuple[str, str, str]:
    """Network, trial and task by the facts."""
    return facts["network"], str(facts["trial"]), facts["task"]


def _probe_facts(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_json(path)
    yield from _made_by(path, facts, "probe", library)
    yield from _must(_place(path) == _of(facts), f"is of {_of(facts)}")
    yield from _same(library / "tasks" / f"{facts['task']}.parquet", facts["slice"], "slice")
    yield from _must(0 <= facts["val_accuracy"] <= 1, "val_accuracy out of [0, 1]")
    yield from _must(facts["epochs"] >= 1 and facts["seconds"] >= 0, "epochs or seconds")


def _index(path: Path, _library: Path) -> Iterator[str]:
    for task, entry in distance.read_index(path).items():
        weights = path.parent / entry["path"]
        yield from _must(weights.stem == task, f"lists {weights} as {task}")
        yield from _same(weights, entry["sha256"], "probe")


def _fisher(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_tensor_facts(path)
    yield from _made_by(path, facts, "fisher", library)
    yield from _must(_place(path) == _of(facts), f"is of {_of(facts)}")
    network, trial, task = _place(path)
    probe = library / "probes" / network / trial / f"{task}.safetensors"
    yield from _same(probe, facts["probe"], "probe")
    yield from _same(library / "tasks" / f"{task}.parquet", facts["slice"], "slice")
    yield from _must(facts["samples"] >= 1, "no samples")
    yield from _finite(path)
    diagonal = facts["settings"]["structure"] == "diagonal"
    positive = not diagonal or all((value >= 0).all() for _, value in _tensors(path))
    yield from _must(positive, "values below zero")


def _column(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "distance", library)
    yield from _must(_place(path) == _of(facts), f"is of {_of(facts)}")
    inputs, index = facts["inputs"], _index_of(path, library)
    yield from _same(_fisher_of(path, library), inputs["fisher"], "Fisher diagonal")
    yield from _same(library / "tasks" / f"{path.stem}.parquet", inputs["slice"], "slice")
    if _is_listed(path, library):
        yield from _same(index, inputs["index"], "list of probes")
    squared = table.to_numpy().sum(axis=1)
    inside = ((squared >= 0) & (squared <= 1 + 1e-9)).all()
    yield from _must(bool(inside), "squared distances out of [0, 1]")


def _index_of(path: Path, library: Path) -> Path:
    network, trial, _ = _place(path)
    return library / "index" / network / f"{trial}.json"


def _fisher_of(path: Path, library: Path) -> Path:
    network, trial, task = _place(path)
    return library / "fisher" / network / trial / f"{task}.safetensors"


def _is_listed(path: Path, library: Path) -> bool:
    """Whether a column's task is among the probes: else it was removed, or added alone."""
    index = _index_of(path, library)
    return index.exists() and path.stem in distance.read_index(index)


def _distance_values(table: pd.DataFrame) -> Iterator[str]:
    squared, own = table["squared_distance"], table["source"] == table["target"]
    yield from _must(bool(squared.between(0, 1).all()), "squared distances out of [0, 1]")
    yield from _must(bool((squared[own] == 0).all()), "a task's distance to itself is not zero")
    root = np.isclose(table["distance"], squared**0.5, rtol=1e-6, atol=0)
    yield from _must(bool(root.all()), "distances that are not the root of their squares")


def _store(path: Path, library: Path) -> Iterator[str]:
    """Every pair of the column can be had from the store: a damaged record counts as none."""
    network, trial, task = _place(path)
    column = library / "columns" / network / trial / f"{task}.parquet"
    known = pairs.read_store(path)
    if not column.exists() or not _is_listed(path, library):
        return
    facts = artifacts.table_facts(artifacts.read_table(column))
    keys = distance.pair_keys(
        _index_of(path, library),
        _fisher_of(path, library),
        library / "tasks" / f"{task}.parquet",
        settings=Distance.model_validate(facts["settings"]),
    )
    lost = sum(None in map(known.get, parts) for parts in keys.values())
    if lost:
        yield f"{lost} of {len(keys)} pairs are damaged or outdated; they are computed when needed"


def _distances(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "distance", library)
    yield from _distance_values(table)


def _equals_columns(path: Path, library: Path) -> Iterator[str]:
    """``distances.parquet`` and ``layers.parquet`` hold the columns' rows and no others."""
    keys = ["network", "trial", "target"]
    layers_path = path.with_name("layers.parquet")
    if not path.exists() or not layers_path.exists():
        return
    tables = [artifacts.read_table(p).to_pandas() for p in (path, layers_path)]
    rows, shares = (dict(list(found.groupby(keys))) for found in tables)
    count = 0
    for index in sorted(library.glob("index/*/*.json")):
        folder = library / "columns" / index.parent.name / index.stem
        files = [folder / f"{task}.parquet" for task in sorted(distance.read_index(index))]
        for file, (column, layers, _) in zip(
            files, distance.read_columns(index, files), strict=True
        ):
            count += len(column)
            network, trial, task = _place(file)
            key = (network, int(trial), task)
            for where, wanted, found in (
                (path, column, rows.get(key, tables[0][:0])),
                (layers_path, layers, shares.get(key, tables[1][:0])),
            ):
                equal = wanted.to_pandas().equals(found.reset_index(drop=True))
                yield from _must(equal, f"{where} differs from {file}")
    yield from _must(len(tables[0]) == count, f"{len(tables[0])} rows, the columns have {count}")


def _layers(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "distance", library)
    yield from _must(bool((table["contribution"] >= 0).all()), "contributions below zero")


def _nearest(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "select", library)
    source = library / "distances.parquet"
    yield from _same(source, facts["distances"], "table")
    if source.exists():
        wanted = select.nearest(artifacts.read_table(source).to_pandas(), facts["order"])
        yield from _must(table.equals(wanted), f"does not follow from {source}")


def _selection(path: Path, library: Path) -> Iterator[str]:
    found, facts = artifacts.read_json(path), artifacts.read_json_facts(path)
    yield from _made_by(path, facts, "select", library)
    yield from _same(library / "distances.parquet", facts["distances"], "table")
    source = library / "nearest.parquet"
    if source.exists():
        wanted = select.selection(
            artifacts.read_table(source).to_pandas(),
            facts["order"],
            facts["networks"][0],
            nearest=facts["settings"]["nearest"],
        )
        yield from _must(found == wanted, f"does not follow from {source}")


def _genotype(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_json(path)
    yield from _made_by(path, facts, "search", library)
    method, task, seed = path.parts[-4:-1]
    found = (facts["method"], facts["task"], str(facts["seed"]))
    yield from _must(found == (method, task, seed), f"is of {found}")
    yield from _same(library / "tasks" / f"{task}.parquet", facts["slice"], "slice")
    if facts["network"] is None:
        Genotype.from_json(facts["genotype"])
    for donor, genotype in zip(facts["donors"], facts["donor_genotypes"], strict=True):
        source = library / "search" / LIBRARY / donor / seed / "genotype.json"
        yield from _same_genotype(source, genotype)
    if facts["donor_weights"]:
        weights = library / "final" / LIBRARY / facts["donors"][0] / seed / "weights.safetensors"
        yield from _same(weights, facts["donor_weights"], "weights")


def _trace(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "search", library)
    yield from _same(library / "tasks" / f"{path.parts[-3]}.parquet", facts["slice"], "slice")
    yield from _must(list(table["step"]) == list(range(len(table))), "steps are not numbered")
    numbers = table[["loss", "score", "macs", "seconds"]].to_numpy(float)
    yield from _must(not np.isinf(numbers).any(), "values that are not finite")
    yield from _must(table["macs"].is_monotonic_increasing, "macs that fall")


def _metrics(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_json(path)
    yield from _made_by(path, facts, "train", library)
    yield from _trained(path, facts, library)
    for name in ("accuracy", "val_accuracy"):
        yield from _must(0 <= facts[name] <= 1, f"{name} out of [0, 1]")
    yield from _must(facts["parameters"] > 0 and facts["macs"] > 0, "no parameters or macs")


def _final(path: Path, library: Path) -> Iterator[str]:
    facts = artifacts.read_tensor_facts(path)
    yield from _made_by(path, facts, "train", library)
    yield from _trained(path, facts, library)
    yield from _finite(path)


def _trained(path: Path, facts: dict, library: Path) -> Iterator[str]:
    method, task, seed = path.parts[-4:-1]
    found = (facts["method"], facts["task"], str(facts["seed"]))
    yield from _must(found == (method, task, seed), f"is of {found}")
    yield from _same(library / "tasks" / f"{task}.parquet", facts["slice"], "slice")
    source = library / "search" / method / task / seed / "genotype.json"
    yield from _same_genotype(source, facts["genotype"])


def _same_genotype(source: Path, genotype: dict) -> list[str]:
    if not source.exists():
        return [f"made from {source}, which is not there; run snakemake {source}"]
    found = artifacts.read_json(source)["genotype"]
    return _must(found == genotype, f"made from another genotype than {source}")


def _comparison(path: Path, library: Path) -> Iterator[str]:
    table, facts = _facts_of_table(path)
    yield from _made_by(path, facts, "compare", library)
    rows = zip(table.itertuples(), facts["metrics"], strict=True)
    for row, recorded in rows:
        metrics = library / "final" / row.method / row.task / str(row.seed) / "metrics.json"
        yield from _same(metrics, recorded, "metrics")


def _config(_path: Path, library: Path) -> Iterator[str]:
    config.parse(config.recorded(library))
    return iter(())


_KINDS: list[tuple[str, str, Callable[[Path, Path], Iterator[str]]]] = [
    ("images", "datasets/*.safetensors", _images),
    ("cuts", "datasets/*.parquet", _cut),
    ("slices", "tasks/*.parquet", _slice),
    ("probes", "probes/*/*/*.safetensors", _weights),
    ("probes' facts", "probes/*/*/*.json", _probe_facts),
    ("lists of probes", "index/*/*.json", _index),
    ("Fisher diagonals", "fisher/*/*/*.safetensors", _fisher),
    ("columns", "columns/*/*/*.parquet", _column),
    ("pair stores", "pairs/*/*/*.pairs", _store),
    ("distances", "distances.parquet", _distances),
    ("layers", "layers.parquet", _layers),
    ("rankings", "nearest.parquet", _nearest),
    ("selections", "selection.json", _selection),
    ("genotypes", "search/*/*/*/genotype.json", _genotype),
    ("traces", "search/*/*/*/trace.parquet", _trace),
    ("trained networks", "final/*/*/*/weights.safetensors", _final),
    ("metrics", "final/*/*/*/metrics.json", _metrics),
    ("comparisons", "comparison.parquet", _comparison),
    ("configurations", "config.json", _config),
]


# The library as a whole -------------------------------------------------------------------------


def _missing(library: Path) -> list[str]:
    """Files that the recorded configuration asks for and that are not there."""
    experiment = _experiment(library)
    return [
        f"{library / name}: not there, but {library / config.RECORD} asks for it; run again"
        for name in (_expected(experiment) if experiment else ())
        if not (library / name).exists()
    ]


def _expected(experiment: Config) -> Iterator[str]:
    """Paths of every artifact of an experiment."""
    for name in sorted({task.dataset for task in experiment.tasks.values()}):
        yield from (f"datasets/{name}.safetensors", f"datasets/{name}.parquet")
    yield from (f"tasks/{task}.parquet" for task in experiment.tasks)
    for network in experiment.networks:
        for trial in range(experiment.trials):
            yield f"index/{network}/{trial}.json"
            for task in experiment.tasks:
                place = f"{network}/{trial}/{task}"
                yield from (f"probes/{place}.safetensors", f"probes/{place}.json")
                yield from (f"fisher/{place}.safetensors", f"columns/{place}.parquet")
    tables = ("distances.parquet", "layers.parquet", "nearest.parquet", "selection.json")
    yield from (*tables, "comparison.parquet")
    for method in experiment.search.methods:
        for task in experiment.search.tasks or experiment.tasks:
            for seed in experiment.search.seeds:
                place = f"{method}/{task}/{seed}"
                yield from (f"search/{place}/genotype.json", f"search/{place}/trace.parquet")
                yield from (f"final/{place}/weights.safetensors", f"final/{place}/metrics.json")


def _half_written(library: Path) -> list[str]:
    """What killed jobs left behind."""
    return [
        f"{path}: half-written, by a job that was killed or still runs; delete it once none runs"
        for path in sorted(library.rglob(".*.????????"))
        if path.is_file()
    ]
