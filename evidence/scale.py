"""The workflow's own cost at many tasks: dry runs, joined tables, disk; and a real run's split."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.runtime.progress import log, progress
from ftd.runtime.threads import setup
from ftd.stages import dataset, distance, fisher, probe, report, selection, task
from ftd.stages.experiment import Experiment
from ftd.store.pairs import open_store
from ftd.store.provenance import packages

EXPERIMENT = "scale"
DATASET = "digits"
CLASSES = 10
SNAKEFILE = Path(__file__).parents[1] / "Snakefile"
CONFIG = "config.yaml"


def settings_of(tasks: int) -> dict[str, Any]:
    """The configuration of so many tasks: random groups of the ten digits, one trial, no layers.

    The first tasks are the same for any number of them.
    """
    rng = Random(0)
    groups = {}
    for number in range(tasks):
        digits, labels = rng.sample(range(CLASSES), CLASSES), rng.randint(2, 5)
        names = {f"group-{label}": sorted(digits[label::labels]) for label in range(labels)}
        groups[f"digits-{number:04}"] = {"dataset": DATASET, "labels": names}
    return {
        "experiment": EXPERIMENT,
        "trials": 1,
        "networks": ["small-cnn"],
        "image": {"size": 8, "channels": 1},
        "datasets": {DATASET: {"loader": "sklearn-digits"}},
        "tasks": groups,
        "probe": {"epochs": 3},
        "fisher": {"samples": 100},
        "distance": {"layers": False},
    }


class Library:
    """A folder in which Snakemake runs the configuration of so many tasks."""

    def __init__(self, folder: Path, tasks: int):
        self.folder = folder
        self.configure(tasks)

    def configure(self, tasks: int) -> None:
        """Write the configuration of so many tasks."""
        settings = settings_of(tasks)
        parsed = config.parse(settings)
        results = self.folder / parsed.results / parsed.experiment
        self.experiment = Experiment.of(parsed, results)
        self.tasks = list(parsed.tasks)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONFIG).write_text(yaml.safe_dump(settings, sort_keys=False))

    def snakemake(
        self, *arguments: object, program: Sequence[str] = ("-m", "snakemake")
    ) -> tuple[str, dict[str, float]]:
        """Run Snakemake; its output, and what it cost.

        Raises:
            UserError: it failed, or this is no checkout of the repository.
        """
        if not SNAKEFILE.exists():
            raise UserError(f"{SNAKEFILE}: not found; run from a checkout of the repository")
        same = ("--snakefile", SNAKEFILE, "--configfile", CONFIG)
        return measured([sys.executable, *program, *arguments, *same], self.folder)

    def command(self, job: "Job") -> dict[str, float]:
        """What a job's command costs, as a user types it."""
        names = (word for name, value in job.names.items() for word in (f"--{name}", value))
        words = [sys.executable, "-m", "ftd", job.rule, "--config", CONFIG, *names]
        return measured(words, self.folder)[1]


@dataclass(frozen=True)
class Job:
    """A job of a rule, and of the verb of that name: a stage's function and its arguments."""

    rule: str
    function: Any
    names: dict[str, Any] = field(default_factory=dict)

    def run(self, experiment: Experiment) -> None:
        """Do it in this process, quietly."""
        with contextlib.redirect_stderr(io.StringIO()):
            self.function(experiment, **self.names)


def jobs_to(experiment: Experiment) -> list[Job]:
    """All jobs up to the selection, in an order in which they can run."""
    trial = {"network": experiment.network, "trial": 0}
    pairs = {"measure": experiment.measures[0]} | trial
    tasks = [{"task": name} for name in experiment.config.tasks]
    return [
        Job("dataset", dataset.run, {"dataset": DATASET}),
        *(Job("task", task.run, name) for name in tasks),
        *(Job("probe", probe.run, trial | name) for name in tasks),
        Job("index", distance.index, pairs),
        *(Job("fisher", fisher.run, trial | name) for name in tasks),
        *(Job("distance", distance.run, pairs | name) for name in tasks),
        Job("distances", distance.assemble),
        Job("selection", selection.run),
    ]


# A process starts with its parent's peak, so a small one stands between this and what it measures.
_METER = """
import contextlib, ctypes, json, os, resource, subprocess, sys, time
if sys.platform == "linux":  # what the command leaves behind comes to this process
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
began = time.monotonic()
status = subprocess.call(sys.argv[2:])
seconds = time.monotonic() - began
with contextlib.suppress(ChildProcessError):
    while True:
        os.wait()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
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

    The library is made up, by the workflow's own writers: real slices, probes and Fisher
    diagonals, squared distances drawn at random; empty files in place of searches, trainings and
    figures. ``snakemake --touch`` records them as finished. Dry runs are of the whole workflow:
    with nothing there, finished, and after one task was added; that one is then really run, up to
    the selection, on two cores.

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
    return _written(out, rows, {})


def _written(out: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    facts = about | {"settings": settings_of(0), "packages": packages()}
    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    return table


FOLLOW = {
    "distance": "column, no pair missing",
    "distances": "assemble distances.parquet",
    "selection": "select nearest.parquet",
}
"""What follows the pairs: the rules whose first jobs are timed, and what a row is called."""
DISK = (
    *(LAYOUT.pairs, LAYOUT.column, LAYOUT.distances, LAYOUT.nearest, LAYOUT.layers),
    *(LAYOUT.slice, LAYOUT.probe, LAYOUT.fisher, LAYOUT.index),
)


def _measure(library: Library) -> Iterator[dict[str, Any]]:
    output, cost = library.snakemake("--dry-run")
    yield {"what": "dry run, nothing there"} | cost | planned(output)
    make_up(library)
    output, cost = library.snakemake("--dry-run")
    yield {"what": "dry run, finished"} | cost | planned(output)
    first = {job.rule: job for job in reversed(jobs_to(library.experiment))}
    for rule, what in FOLLOW.items():
        yield {"what": what} | library.command(first[rule])
    for artifact in DISK:
        name = artifact.pattern.partition("/")[0]
        yield {"what": f"disk, {name}", "bytes": _bytes(library.experiment.root / name)}
    yield {"what": "disk, records", "bytes": _bytes(library.folder / ".snakemake" / "metadata")}
    library.configure(len(library.tasks) + 1)
    output, cost = library.snakemake("--dry-run")
    yield {"what": "dry run, one task added"} | cost | planned(output)
    output, cost = library.snakemake("selection", "--cores", 2)
    yield {"what": "one task added"} | cost | {"jobs": jobs_of(output).total()}


def _bytes(path: Path) -> int:
    """Disk that a file or the files of a folder take, whole blocks of it."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def make_up(library: Library) -> None:
    """Write a finished library with made-up distances, and have Snakemake record it."""
    setup()
    experiment = library.experiment
    numbers = np.random.default_rng(0)
    for job in progress(jobs_to(experiment), "artifacts"):
        if job.rule == "distance":
            _made_up_pairs(experiment, job.names, numbers)
        job.run(experiment)
    output, _ = library.snakemake("--dry-run")
    for path in _outputs(output):
        file = library.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    report.record(experiment)  # which the workflow reads
    # Snakemake's own way of recording what is there, but without a nap for each file.
    library.snakemake("--touch", "--forceall", "--cores", 1, program=("-c", _TOUCH))


_TOUCH = """
from snakemake.cli import main
from snakemake.executors.touch import Executor
Executor.SLEEPING_TIME = 0
main()
"""


def _made_up_pairs(
    experiment: Experiment, names: dict[str, Any], numbers: np.random.Generator
) -> None:
    """Every pair of a column in its store, under the key that the column looks for."""
    column = distance.column_of(experiment, **names)
    with open_store(column.store) as pairs:
        pairs.add((key, numbers.beta(2, 4)) for (key,) in column.keys.values())


def _outputs(output: str) -> Iterator[str]:
    """The files that a dry run's jobs would write."""
    for line in output.splitlines():
        words = line.replace(",", "").split()
        if words[:1] == ["output:"]:
            yield from words[1:]


# A real run -------------------------------------------------------------------------------------


def real(out: Path, *, sizes: list[int], cores: int) -> pd.DataFrame:
    """Run the workflow up to the selection, then its stages in one process; write it as Parquet.

    Returns:
        For each number of tasks, a row per rule: its jobs, and the ``cpu_seconds`` of their work
        (the stage's function in this process). A row ``starts and Snakemake`` has the rest of the
        run's, and ``total`` has all of them, and the run's ``seconds``, which other work on the
        machine lengthens.

    Raises:
        UserError: a run failed, or the two did not give equal distances.
    """
    rows = []
    with patch.dict(os.environ, OMP_NUM_THREADS="1"):  # as jobs: sums differ between counts
        setup()
        with tempfile.TemporaryDirectory() as folder:  # what is imported at first use is no work
            small = Library(Path(folder), 2).experiment
            for job in jobs_to(small):
                job.run(small)
        for tasks in sizes:
            for row in _split(tasks, cores):
                rows.append({"tasks": tasks} | row)
                log(str(rows[-1]))
    return _written(out, rows, {"cores": cores})


def _split(tasks: int, cores: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        flow, alone = (Library(Path(folder) / name, tasks) for name in ("flow", "alone"))
        output, total = flow.snakemake("selection", "--cores", cores)
        log(f"{tasks} tasks: {total}")
        work = _work(alone)
        tables = (each.experiment.output(LAYOUT.distances) for each in (flow, alone))
        equal = len(set(map(store.digest, tables))) == 1
    if not equal:
        raise UserError("the workflow's distances differ from those of its stages alone")
    jobs = jobs_of(output)
    for rule in work:
        yield {"rule": rule, "jobs": jobs[rule], "cpu_seconds": work[rule]}
    rest = total["cpu_seconds"] - work.total()
    yield {"rule": "starts and Snakemake", "cpu_seconds": rest}
    yield {"rule": "total", "jobs": jobs.total()} | total


def _work(library: Library) -> Counter:
    """CPU seconds of every rule's work in this process."""
    work: Counter = Counter()
    for job in progress(jobs_to(library.experiment), "alone"):
        began = time.process_time()
        job.run(library.experiment)
        work[job.rule] += time.process_time() - began
    return work
