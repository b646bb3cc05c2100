"""The workflow's own cost at many tasks: dry runs, joined tables, disk; and a real run's split."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import yaml

from ftd import (
    artifacts,
    config,
    dataset,
    distance,
    fisher,
    networks,
    probe,
    select,
    slice,
    versions,
)
from ftd.errors import UserError
from ftd.pairs import open_store
from ftd.progress import log, progress
from ftd.training import setup

EXPERIMENT = "scale"
NETWORK = "small-cnn"
CLASSES = 10
SNAKEFILE = Path(__file__).parents[2] / "Snakefile"


def settings_of(tasks: int) -> dict[str, Any]:
    """The configuration of so many tasks: random groups of the ten digits, one trial, no layers.

    The first tasks are the same for any number of them.
    """
    rng = Random(0)
    groups = {}
    for number in range(tasks):
        digits, labels = rng.sample(range(CLASSES), CLASSES), rng.randint(2, 5)
        names = {f"group-{label}": sorted(digits[label::labels]) for label in range(labels)}
        groups[f"digits-{number:04}"] = {"dataset": "digits", "labels": names}
    return {
        "experiment": EXPERIMENT,
        "trials": 1,
        "networks": [NETWORK],
        "image": {"size": 8, "channels": 1},
        "datasets": {"digits": {"loader": "sklearn-digits"}},
        "tasks": groups,
        "probe": {"epochs": 3},
        "fisher": {"samples": 100},
        "distance": {"layers": False},
    }


class Library:
    """A folder in which Snakemake runs the configuration of so many tasks."""

    def __init__(self, folder: Path, tasks: int):
        self.folder = folder
        self.root = folder / "results" / EXPERIMENT
        self.images = self.root / "datasets" / "digits.safetensors"
        self.index = self.root / "index" / NETWORK / "0.json"
        self.configure(tasks)

    def configure(self, tasks: int) -> None:
        settings = settings_of(tasks)
        self.experiment = config.parse(settings)
        self.tasks = list(self.experiment.tasks)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def snakemake(
        self, *arguments: object, program: Sequence[str] = ("-m", "snakemake")
    ) -> tuple[str, dict[str, float]]:
        """Run Snakemake; its output, and what it cost.

        Raises:
            UserError: it failed, or this is no checkout of the repository.
        """
        if not SNAKEFILE.exists():
            raise UserError(f"{SNAKEFILE}: not found; run from a checkout of the repository")
        same = ("--snakefile", SNAKEFILE, "--configfile", "config.yaml")
        return measured([sys.executable, *program, *arguments, *same], self.folder)

    def slice(self, task: str) -> Path:
        return self.root / "tasks" / f"{task}.parquet"

    def of_task(self, kind: str, task: str, suffix: str = "safetensors") -> Path:
        return self.root / kind / NETWORK / "0" / f"{task}.{suffix}"

    # The stages, by their functions

    def decode(self) -> None:
        dataset.run(
            "digits",
            self.experiment.datasets["digits"],
            self.experiment.image,
            seed=self.experiment.seed,
            data_root=self.folder,
            images_out=self.images,
            table_out=self.images.with_suffix(".parquet"),
        )

    def cut(self, task: str) -> None:
        slice.run(
            task,
            self.experiment.tasks[task],
            seed=self.experiment.seed,
            table=self.images.with_suffix(".parquet"),
            out=self.slice(task),
        )

    def train(self, task: str) -> None:
        probe.run(
            self.slice(task),
            self.images,
            network=NETWORK,
            trial=0,
            seed=self.experiment.seed,
            settings=self.experiment.probe,
            weights_out=self.of_task("probes", task),
            facts_out=self.of_task("probes", task, "json"),
        )

    def extract(self, task: str) -> None:
        fisher.run(
            self.of_task("probes", task),
            self.slice(task),
            self.images,
            settings=self.experiment.fisher,
            out=self.of_task("fisher", task),
        )

    def list(self) -> None:
        distance.index([self.of_task("probes", task) for task in self.tasks], self.index)

    def column(self, task: str) -> None:
        distance.run(
            self.index,
            self.of_task("fisher", task),
            self.slice(task),
            self.images,
            settings=self.experiment.distance,
            store=self.of_task("pairs", task, "pairs"),
            out=self.of_task("columns", task, "parquet"),
        )

    def assemble(self) -> None:
        distance.assemble(
            [self.index],
            self.root / "columns",
            self.root / "distances.parquet",
            self.root / "layers.parquet",
        )

    def select(self) -> None:
        select.run(
            self.root / "distances.parquet",
            order=self.tasks,
            networks=[NETWORK],
            settings=self.experiment.select,
            nearest_out=self.root / "nearest.parquet",
            selection_out=self.root / "selection.json",
        )


# A process starts with its parent's peak, so a small one stands between this and what it measures.
_METER = """
import json, resource, subprocess, sys, time
began = time.monotonic()
status = subprocess.call(sys.argv[2:])
seconds, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
kib = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
cost = {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_mib": kib / 1024}
with open(sys.argv[1], "w") as file:
    json.dump({"seconds": seconds} | cost, file)
sys.exit(status)
"""


def measured(command: list[object], folder: Path | None = None) -> tuple[str, dict[str, float]]:
    """Run a command; its output, and ``seconds``, ``cpu_seconds`` and ``peak_mib``.

    CPU seconds are those of the whole process tree, the peak is that of its largest process.

    Raises:
        UserError: it failed.
    """
    with tempfile.NamedTemporaryFile("r") as cost:
        done = subprocess.run(
            [sys.executable, "-c", _METER, cost.name, *map(str, command)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise UserError(f"{command}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout, json.load(cost)


def jobs_of(output: str) -> Counter:
    """How many jobs of each rule Snakemake's output names."""
    kinds = ("rule", "localrule", "checkpoint", "localcheckpoint")
    lines = (line.split() for line in output.splitlines())
    return Counter(words[1].rstrip(":") for words in lines if words and words[0] in kinds)


def planned(output: str) -> dict[str, int]:
    """Jobs of a dry run, and the files that they take: the edges of its graph."""
    lines = (line.split() for line in output.splitlines())
    inputs = sum(len(words) - 1 for words in lines if words[:1] == ["input:"])
    return {"jobs": jobs_of(output).total(), "inputs": inputs}


# A library of made-up numbers -------------------------------------------------------------------


def run(out: Path, *, sizes: list[int]) -> pd.DataFrame:
    """Measure dry runs, joined tables and disk for each number of tasks; write it as Parquet.

    The library is made up, by the workflow's own writers: real slices, untrained probes, Fisher
    diagonals and squared distances drawn at random; empty files in place of searches, trainings
    and figures. ``snakemake --touch`` records them as finished. Dry runs are of the whole
    workflow: with nothing there, finished, and after one task was added.

    Returns:
        One row per number of tasks and ``what``: ``seconds``, ``cpu_seconds``, ``peak_mib``;
        ``jobs`` and ``inputs`` of dry runs; or ``bytes`` on disk.

    Raises:
        UserError: a command failed.
    """
    rows = []
    for tasks in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for row in _measure(Library(Path(folder), tasks)):
                rows.append({"tasks": tasks} | row)
                log(str(rows[-1]))
    table = pd.DataFrame(rows)
    facts = {"settings": settings_of(0), "packages": versions.packages()}
    artifacts.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    return table


def _measure(library: Library) -> Iterator[dict[str, Any]]:
    output, cost = library.snakemake("--dry-run")
    yield {"what": "dry run, nothing there"} | cost | planned(output)
    make_up(library)
    output, cost = library.snakemake("--dry-run")
    yield {"what": "dry run, finished"} | cost | planned(output)
    for what, command in _commands(library).items():
        yield {"what": what} | measured([sys.executable, "-m", "ftd", *command], library.folder)[1]
    for what in DISK:
        yield {"what": f"disk, {what}", "bytes": _bytes(library.root / what)}
    yield {"what": "disk, records", "bytes": _bytes(library.folder / ".snakemake" / "metadata")}
    library.configure(len(library.tasks) + 1)
    output, cost = library.snakemake("--dry-run")
    yield {"what": "dry run, one task added"} | cost | planned(output)


DISK = (
    *("pairs", "columns", "distances.parquet", "nearest.parquet", "layers.parquet"),
    *("tasks", "probes", "fisher", "index"),
)


def _bytes(path: Path) -> int:
    """Disk that a file or the files of a folder take, whole blocks of it."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def _commands(library: Library) -> dict[str, list[object]]:
    """What follows the pairs, as the workflow calls it."""
    root, task = library.root, library.tasks[0]
    settings = config.settings_json(library.experiment.distance)
    column = ["distance", "--index", library.index, "--fisher", library.of_task("fisher", task)]
    column += ["--slice", library.slice(task), "--images", library.images, "--settings", settings]
    column += ["--store", library.of_task("pairs", task, "pairs")]
    tables = ["assemble", library.index, "--columns", root / "columns"]
    tables += ["--out", root / "distances.parquet", "--layers-out", root / "layers.parquet"]
    ranks = ["select", "--distances", root / "distances.parquet"]
    ranks += ["--order", json.dumps(library.tasks), "--networks", json.dumps([NETWORK])]
    ranks += ["--nearest-out", root / "nearest.parquet"]
    return {
        "column, no pair missing": [*column, "--out", library.of_task("columns", task, "parquet")],
        "assemble distances.parquet": tables,
        "select nearest.parquet": [*ranks, "--selection-out", root / "selection.json"],
    }


def make_up(library: Library) -> None:
    """Write a finished library with made-up numbers, and have Snakemake record it."""
    setup()
    library.decode()
    model = networks.build(NETWORK, channels=1, size=8, labels=CLASSES, seed=0)
    for task in progress(library.tasks, "probes"):
        library.cut(task)
        _made_up_probe(library, task, model.state_dict())
    library.list()
    numbers = np.random.default_rng(0)
    for task in progress(library.tasks, "columns"):
        keys = distance.pair_keys(
            library.index,
            library.of_task("fisher", task),
            library.slice(task),
            settings=library.experiment.distance,
        )
        with open_store(library.of_task("pairs", task, "pairs")) as pairs:
            pairs.add((key, numbers.beta(2, 4)) for (key,) in keys.values())
        with contextlib.redirect_stderr(io.StringIO()):
            library.column(task)
    library.assemble()
    library.select()
    output, _ = library.snakemake("--dry-run")
    for path in _outputs(output):
        file = library.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    record(library)


def record(library: Library) -> None:
    """Have Snakemake record all files as finished: its own way, but without a nap for each."""
    library.snakemake("--touch", "--forceall", "--cores", 1, program=("-c", _TOUCH))


_TOUCH = """
from snakemake.cli import main
from snakemake.executors.touch import Executor
Executor.SLEEPING_TIME = 0
main()
"""


def _made_up_probe(library: Library, task: str, weights: dict[str, torch.Tensor]) -> None:
    """Weights and a Fisher diagonal of the right size, with the facts that a column reads."""
    path = library.of_task("probes", task)
    made = versions.record("probe", library.experiment.probe)
    artifacts.write_tensors(path, weights, {"task": task} | made)
    artifacts.write_json(path.with_suffix(".json"), {"task": task} | made)
    facts = {"task": task, "network": NETWORK, "trial": 0, "samples": 1, "layers": []}
    facts |= {"probe": artifacts.digest(path), "slice": artifacts.digest(library.slice(task))}
    diagonal = {name: value.double().square() for name, value in weights.items()}
    facts |= versions.record("fisher", library.experiment.fisher)
    artifacts.write_tensors(library.of_task("fisher", task), diagonal, facts)


def _outputs(output: str) -> Iterator[str]:
    """The files that a dry run's jobs would write."""
    for line in output.splitlines():
        words = line.replace(",", "").split()
        if words[:1] == ["output:"]:
            yield from words[1:]


# A real run -------------------------------------------------------------------------------------

STAGES = {  # rule: what its job imports
    "dataset": "ftd.cli, ftd.dataset, sklearn.datasets, pyarrow.parquet",
    "slice": "ftd.cli, ftd.slice, pyarrow.parquet",
    "probe": "ftd.cli, ftd.probe, pyarrow.parquet",
    "index": "ftd.cli, ftd.distance",
    "fisher": "ftd.cli, ftd.fisher, pyarrow.parquet",
    "distance": "ftd.cli, ftd.distance, ftd.probe, ftd.fisher, pyarrow.parquet",
    "distances": "ftd.cli, ftd.distance, pyarrow.parquet",
    "select": "ftd.cli, ftd.select, pyarrow.parquet",
}


def real(out: Path, *, sizes: list[int], cores: int) -> pd.DataFrame:
    """Run the workflow up to the selection, then its stages in one process; write it as Parquet.

    Returns:
        For each number of tasks, a row per rule: its jobs, and the CPU seconds of their ``work``
        (the stage's function in this process) and of their ``starts`` (Python and the stage's
        imports, as measured once). A row ``Snakemake`` has the rest of the run's
        ``cpu_seconds``, and ``total`` has all of them, and the run's ``seconds``, which other
        work on the machine lengthens.

    Raises:
        UserError: a run failed, or the two did not give equal distances.
    """
    imports = {rule: _start(modules) for rule, modules in STAGES.items()}
    rows = []
    for tasks in sizes:
        for row in _split(tasks, cores, imports):
            rows.append({"tasks": tasks} | row)
            log(str(rows[-1]))
    table = pd.DataFrame(rows)
    facts = {"cores": cores, "settings": settings_of(0), "packages": versions.packages()}
    artifacts.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    return table


def _start(modules: str) -> float:
    """CPU seconds of Python's start and of imports, at the second time."""
    command = [sys.executable, "-c", f"import {modules}"]
    return [measured(command)[1]["cpu_seconds"] for _ in range(2)][1]


def _split(tasks: int, cores: int, imports: dict[str, float]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        flow, alone = (Library(Path(folder) / name, tasks) for name in ("flow", "alone"))
        output, total = flow.snakemake("selection", "--cores", cores)
        log(f"{tasks} tasks: {total}")
        work = _work(alone)
        digests = {artifacts.digest(each.root / "distances.parquet") for each in (flow, alone)}
    if len(digests) > 1:
        raise UserError("the workflow's distances differ from those of its stages alone")
    jobs = jobs_of(output)
    rest = total["cpu_seconds"]
    for rule in STAGES:
        parts = {"work": work[rule], "starts": jobs[rule] * imports[rule]}
        rest -= sum(parts.values())
        yield {"rule": rule, "jobs": jobs[rule]} | parts | {"cpu_seconds": sum(parts.values())}
    yield {"rule": "Snakemake", "cpu_seconds": rest}
    yield {"rule": "total", "jobs": jobs.total()} | total


def _work(library: Library) -> Counter:
    """CPU seconds of every rule's work in this process."""
    setup()
    spent: Counter = Counter()

    def timed(rule: str, function: Callable, *arguments: str) -> None:
        began = time.process_time()
        function(*arguments)
        spent[rule] += time.process_time() - began

    timed("dataset", library.decode)
    for rule, function in {
        "slice": library.cut,
        "probe": library.train,
        "fisher": library.extract,
    }.items():
        for task in progress(library.tasks, rule):
            timed(rule, function, task)
    timed("index", library.list)
    for task in progress(library.tasks, "distance"):
        timed("distance", library.column, task)
    timed("distances", library.assemble)
    timed("select", library.select)
    return spent
