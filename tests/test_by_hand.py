"""Every stage by hand, on the command line and from Python: the workflow's artifacts again."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Workflow
from test_faults import assert_as_undisturbed

from ftd import cli
from ftd.stages import (
    comparison,
    dataset,
    distance,
    figures,
    fisher,
    overview,
    probe,
    report,
    search,
    selection,
    task,
    training,
)
from ftd.stages.experiment import Experiment

TASKS = list(TINY["tasks"])
SETTINGS = ["probe.epochs=1", "search.space.channels=[2]"]
OTHER = TINY | {"probe": {"epochs": 9}, "search": TINY["search"] | {"space": {"nodes": [1]}}}
"""The tiny experiment, but for what ``SETTINGS`` set."""

FUNCTIONS: dict[str, Callable] = {
    "dataset": dataset.run,
    "task": task.run,
    "probe": probe.run,
    "fisher": fisher.run,
    "index": distance.index,
    "distance": distance.run,
    "distances": distance.assemble,
    "selection": selection.run,
    "search": search.run,
    "training": training.run,
    "comparison": comparison.run,
    "figure": figures.run,
    "overview": overview.run,
    "record": report.record,
}


def steps() -> Iterator[tuple[str, dict]]:
    """The verbs in order, each with the names that it takes."""
    trial = {"network": "small-cnn", "trial": 0}
    searched = {"method": "ftd-nas", "seed": 0}
    yield "dataset", {"dataset": "digits"}
    for name in TASKS:
        yield "task", {"task": name}
        yield "probe", {"task": name, **trial}
        yield "fisher", {"task": name, **trial}
    yield "index", {"measure": "fisher", **trial}
    for name in TASKS:
        yield "distance", {"measure": "fisher", "task": name, **trial}
    yield "distances", {}
    yield "selection", {}
    for name in TASKS:
        yield "search", {"task": name, **searched}
        yield "training", {"task": name, **searched}
    yield "comparison", {}
    drawn = {"measure": "fisher", "network": "small-cnn"}
    for statistic in ("mean", "std"):
        yield "figure", {"figure": "matrix", "statistic": statistic, **drawn}
    for figure in ("atlas", "shares", "asymmetry", "graph"):
        yield "figure", {"figure": figure, **drawn}
    for figure in ("trace", "cells", "candidates", "spaces"):
        yield "figure", {"figure": figure, **searched}
    pages = ("datasets", "probes", "nearest", "comparison")
    for figure in (*pages, "scores", "scatter"):
        yield "figure", {"figure": figure}
    yield "figure", {"figure": "curves", "network": "small-cnn"}
    yield "overview", {}
    yield "record", {}
    yield "figure", {"figure": "run"}


def on_the_command_line(*arguments: str) -> None:
    sys.argv = ["ftd", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise


def all_on_the_command_line(finished: str) -> None:
    """All stages here, the pages of the finished experiment again, and what is done with it."""
    config = ["--config", "tiny.yaml", *(f"--set={setting}" for setting in SETTINGS)]
    for verb, names in steps():
        figure = [names["figure"]] if verb == "figure" else []
        given = [f"--{name}={value}" for name, value in names.items() if name != "figure"]
        on_the_command_line(verb, *figure, *config, *given)
    for page in ("datasets", "probes", "nearest", "comparison", "run"):
        on_the_command_line("figure", page, *config, f"--results={finished}")
    on_the_command_line("overview", *config, f"--results={finished}")
    on_the_command_line("show", finished)


HOSTILE = {
    **{"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MPLCONFIGDIR": "/proc/none"},
    **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Pacific/Kiritimati"},
    **{"PYTHONHASHSEED": "1", "PYTHONSAFEPATH": "1", "HOME": "/proc/none"},
    **{"TMPDIR": "/none", "COLUMNS": "20", "TERM": "none", "NO_COLOR": "1"},
    **{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "3"},
}
"""What users have in their environment, and what breaks programs that look at it."""


def test_all_stages_on_the_command_line_whatever_the_surroundings(finished, tmp_path):
    by_hand, again = Workflow(tmp_path / "work", OTHER), finished.copy(tmp_path / "again")
    config = by_hand.folder / "tiny.yaml"
    config.write_text(f"# Überschrift\n{config.read_text()}", encoding="utf-8")
    (by_hand.folder / "matplotlibrc").write_bytes(b"font.size: 30\n\xff")
    (by_hand.folder / "ftd.py").write_text("raise SystemExit('not this one')")
    code = "import sys, test_by_hand; test_by_hand.all_on_the_command_line(sys.argv[1])"
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(again.results)],
        cwd=by_hand.folder, env={"PATH": os.environ["PATH"], **paths, **HOSTILE}, umask=0o077,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean \\xb1 std" in done.stdout
    assert_as_undisturbed(by_hand, finished)
    pages = sorted((finished.results / "figures").glob("*.html"))
    assert [page.stem for page in pages] == ["comparison", "datasets", "nearest", "probes", "run"]
    for page in pages:
        assert (again.results / "figures" / page.name).read_bytes() == page.read_bytes()
    whole = "overview.html"
    assert (again.results / whole).read_bytes() == (finished.results / whole).read_bytes()
    made = [path for path in by_hand.results.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
    made = (path for path in finished.results.rglob("*") if path.is_file())
    mask = os.umask(0o022)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in made} == {0o666 & ~mask}


def test_all_stages_from_python_make_what_the_workflow_makes(finished, tmp_path, monkeypatch):
    by_hand = Workflow(tmp_path, OTHER)
    monkeypatch.chdir(tmp_path)
    for verb, names in steps():
        FUNCTIONS[verb](Experiment.load("tiny.yaml", settings=SETTINGS), **names)
    assert_as_undisturbed(by_hand, finished)


def test_the_workflow_takes_what_was_made_by_hand(finished, tmp_path, monkeypatch):
    """Their paths are the same; Snakemake, which made none of them, checks times alone."""
    by_hand = Workflow(tmp_path, TINY)
    monkeypatch.chdir(tmp_path)
    experiment = Experiment.load("tiny.yaml")
    dataset.run(experiment, dataset="digits")
    for name in TASKS:
        task.run(experiment, task=name)
    assert "Nothing to be done" in by_hand.run("tasks")


def test_what_is_left_out_is_the_first(finished, tmp_path, monkeypatch):
    workflow = finished.copy(tmp_path / "copy")
    monkeypatch.chdir(workflow.folder)
    made = Path("results/tiny/fisher/small-cnn/0/six.safetensors")
    before = made.read_bytes()
    made.unlink()
    monkeypatch.setattr(sys, "argv", ["ftd", "fisher", "--config", "tiny.yaml", "--task", "six"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code and made.read_bytes() == before
