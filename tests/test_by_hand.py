"""Every stage by hand, on the command line and from Python: the workflow's artifacts again."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY, Workflow
from test_faults import assert_as_undisturbed

from ftd import cli
from ftd.stages import (
    comparison,
    dataset,
    distance,
    figures,
    fisher,
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
    yield "figure", {"figure": "shares", **drawn}
    for figure in ("trace", "cells"):
        yield "figure", {"figure": figure, **searched}
    for figure in ("datasets", "probes", "nearest", "comparison", "scatter"):
        yield "figure", {"figure": figure}
    yield "record", {}


def on_the_command_line(verb: str, names: dict) -> None:
    figure = [names["figure"]] if verb == "figure" else []
    given = {name: value for name, value in names.items() if name != "figure"}
    options = [f"--{name}={value}" for name, value in given.items()]
    settings = [f"--set={setting}" for setting in SETTINGS]
    sys.argv = ["ftd", verb, *figure, "--config", "tiny.yaml", *options, *settings]
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code


def from_python(verb: str, names: dict) -> None:
    FUNCTIONS[verb](Experiment.load("tiny.yaml", settings=SETTINGS), **names)


@pytest.mark.parametrize("by", [on_the_command_line, from_python])
def test_all_stages_by_hand_make_what_the_workflow_makes(by, finished, tmp_path, monkeypatch):
    by_hand = Workflow(tmp_path, OTHER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    for verb, names in steps():
        by(verb, names)
    assert_as_undisturbed(by_hand, finished)
    pages = sorted((finished.results / "figures").glob("*.html"))
    assert [page.stem for page in pages] == ["comparison", "datasets", "nearest", "probes"]
    assert all((by_hand.results / "figures" / page.name).exists() for page in pages)


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
