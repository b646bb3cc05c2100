"""Shared cases: a tiny experiment, and running Snakemake on it as a user would."""

import os
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import forking
import numpy as np
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent

TINY = {
    "experiment": "tiny",
    "trials": 1,
    "image": {"size": 8, "channels": 1},
    "datasets": {"digits": {"loader": "sklearn-digits"}},
    "tasks": {
        "zero": {"dataset": "digits", "labels": {"other": "rest", "zero": [0]}},
        "six": {"dataset": "digits", "labels": {"other": "rest", "six": [6]}},
        "three": {"dataset": "digits", "labels": {"a": [0], "b": [1, 2], "other": "rest"}},
    },
    "probe": {"epochs": 1},
    "fisher": {"samples": 40},
    "search": {
        "space": {"nodes": [1], "channels": [2]},
        "samples": 60,
        "sequential": {"candidates": 3, "epochs": 1},
        "fuse": {"alternations": 1, "alpha_epochs": 2, "max_generations": 1},
    },
    "train": {"epochs": 1, "samples": 60},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    from ftd.runtime.threads import setup

    setup()


@pytest.fixture(autouse=True)
def _no_plugin_stays():
    """What a test's plugins registered goes with it."""
    from ftd import parts

    before = set(parts._loaded)
    yield
    for name in set(parts._loaded) - before:
        parts._forget(parts._loaded.pop(name))


class Workflow:
    """A folder with a configuration, in which Snakemake runs."""

    def __init__(self, folder: Path, config: dict):
        self.folder = folder
        self.configure(config)

    @classmethod
    def of(cls, folder: Path) -> "Workflow":
        """That of a folder as it is."""
        found = object.__new__(cls)
        found.folder = folder
        return found

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def configure(self, config: dict) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
            *("--configfile", "tiny.yaml", "--cores", "2", *arguments),
        ]

    def run(self, *arguments: str, ok: bool = True, command: list[str] | None = None) -> str:
        """Run Snakemake; its whole output. Fails the test if the exit status is not as wanted."""
        command = command or self.command(*arguments)
        assert command[:3] == [sys.executable, "-m", "snakemake"]
        status, output = forking.snakemake(command[3:], self.folder)
        assert (status == 0) is ok, output
        return output

    def copy(self, folder: Path) -> "Workflow":
        """A copy with equal time stamps and Snakemake's own records."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workflow.of(folder)


def jobs(output: str) -> dict[str, int]:
    """How many jobs of each rule finished or would run, from Snakemake's output."""
    counts: dict[str, int] = {}
    for line in output.splitlines():
        words = line.split()
        if words and words[0] in ("rule", "localrule", "checkpoint", "localcheckpoint"):
            name = words[1].rstrip(":")
            counts[name] = counts.get(name, 0) + 1
    counts.pop("all", None)
    return counts


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the processes that test makes, and all of them read."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            begun = factory.mktemp(name)
            make(begun / name)
            (begun / name).rename(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Workflow:
    """The tiny experiment, run to its end once; copy it before changing anything, or running."""
    folder = made_once(tmp_path_factory, "finished", lambda place: Workflow(place, TINY).run())
    return Workflow.of(folder)


def experiment_of(folder: Path, base: Path | None = None, **sections):
    """The tiny experiment in a folder, with other sections; what it lacks is read from ``base``."""
    from ftd import config
    from ftd.stages.experiment import Experiment

    return Experiment(config.parse(TINY | sections), folder, base)


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A folder with ``digits.safetensors`` and ``digits.parquet``; above it, a ``base``."""
    from ftd.stages import dataset

    experiment = experiment_of(tmp_path_factory.mktemp("digits"))
    dataset.run(experiment, dataset="digits")
    return experiment.root / "datasets"


@pytest.fixture(scope="session")
def make_slice(digits):
    """A function (name, labels, seed, more keys of the task) → path of a slice of the digits."""
    from ftd.layout import LAYOUT
    from ftd.stages import task

    def make(name: str, labels, seed: int = 0, **keys) -> Path:
        tasks = {name: {"dataset": "digits", "labels": labels} | keys}
        root = digits.parent / f"seed-{seed}"
        experiment = experiment_of(root, digits.parent, seed=seed, tasks=tasks)
        task.run(experiment, task=name)
        return experiment.output(LAYOUT.slice, task=name)

    return make


@pytest.fixture
def registered():
    """A function that registers a part under a name until the test ends, in place of another."""
    before = []

    def put(registry, name: str, entry) -> None:
        registry.names()  # those that are always there come first
        before.append((registry, dict(registry._entries)))
        registry._entries.pop(name, None)
        registry.add(name, entry)

    yield put
    for registry, entries in reversed(before):
        registry._entries = entries


class _Tables(HTMLParser):
    """The tables of a page: rows of texts."""

    def __init__(self):
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.inside = False

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("th", "td"):
            self.found[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.found[-1][-1][-1] += data


def tables_of(page: Path) -> list[dict[str, list[str]]]:
    """The tables of a page, each by its heads."""
    reader = _Tables()
    reader.feed(page.read_text())
    return [
        {head: [row[place] for row in rows] for place, head in enumerate(heads)}
        for heads, *rows in reader.found
    ]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, started once; a function that opens a file in a new tab."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as started:
        own = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield own
        own.close()


def write_images(folder: Path, classes: dict[str, int], size: int = 8, mode: str = "L") -> None:
    """Random images, one folder a class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shape = (size, size) if mode == "L" else (size, size, 3)
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


os.environ.setdefault("OMP_NUM_THREADS", "1")
