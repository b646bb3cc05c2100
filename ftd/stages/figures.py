"""Stage *figures*: heat maps, traces and tables of an experiment.

Functions import pandas and matplotlib by ``ftd.drawing`` and ``ftd.stages.selection`` (1 s): what
names the stage or its settings needs neither.
"""

from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT, Artifact
from ftd.names import did_you_mean
from ftd.parts import MEASURES
from ftd.stages import jobs, probe
from ftd.stages import task as slices
from ftd.stages.experiment import Experiment
from ftd.transfer import trust

if TYPE_CHECKING:
    import pandas as pd

VERSION = 7
_STATISTICS = {"mean": "mean", "std": "standard deviation"}
_SOURCES_SHOWN = 5
_FRAMES_SHOWN = 6
_IMAGES_SHOWN, _LABELS_SHOWN = 12, 40


def decides(experiment: Experiment, figure: str, **names: Any) -> dict[str, Any]:
    """What decides a figure, of the names that ``run`` takes, besides the artifacts it shows."""
    found: dict[str, Any] = {"version": VERSION}
    if figure in ("trace", "cells"):
        found["tasks"] = _searched(experiment)
    if figure == "examples":
        found["unit"] = _unit(experiment, names["task"])
    if figure in ("datasets", "probes", "comparison", "scatter", "run"):
        found["order"] = list(experiment.config.tasks)
    if figure == "nearest":
        known = trust.measured(experiment.config.measures)
        found["trust"] = {name: asdict(own) for name, own in known.items()}
    return found


def run(experiment: Experiment, figure: str, **names: Any) -> Path:
    """Draw a figure, or write a page; returns its file.

    Args:
        figure: one of ``ftd.layout.FIGURES``.
        names: those in its file name: ``measure``, ``network``, ``statistic``, ``method``,
            ``seed``.

    Raises:
        UserError: an unknown figure, other names than its own or such that the experiment does
            not have, unreadable artifacts, or ones that do not hold what is to be drawn.
    """
    if figure not in FIGURES:
        raise UserError(f"no figure {figure!r}{did_you_mean(figure, FIGURES)}")
    artifact = Artifact("figure", LAYOUT.figure.pattern.format(figure=FIGURES[figure]), "figures")
    if names.keys() != set(artifact.names):
        wanted = ", ".join(artifact.names) or "no names"
        raise UserError(
            f"figure {figure}: expected {wanted}, got {', '.join(names) or 'none'}; give these only"
        )
    experiment.expect(**names)
    out = experiment.output(artifact, **names)
    _DRAWN_BY[figure](experiment, out, **names)
    return out


def _matrix(
    experiment: Experiment, out: Path, *, measure: str, network: str, statistic: str
) -> None:
    from ftd.drawing import heatmaps

    tables, trials = _over_trials(experiment, measure, network)
    values = dict(zip(_STATISTICS, tables, strict=True))[statistic]
    title, digits = f"{measure}, {_STATISTICS[statistic]}", ".3g"
    if _squared(measure):
        title = f"Squared distance, {_STATISTICS[statistic]}"
        digits = ".2f" if statistic == "mean" else ".3f"
    elif statistic == "mean":
        larger = MEASURES.get(measure).nearer == "higher"
        title += f" ({'larger' if larger else 'smaller'}: nearer)"
    title += f"\n{network}, {trials} trial(s)"
    heatmaps.matrix(values, out, title=title, digits=digits)


def _atlas(experiment: Experiment, out: Path, *, measure: str, network: str) -> None:
    from ftd.drawing import atlas

    (mean, _), trials = _over_trials(experiment, measure, network)
    title = f"Nearest tasks by {measure}\n{network}, {trials} trial(s)"
    higher = MEASURES.get(measure).nearer == "higher"
    atlas.atlas(mean, out, title=title, higher=higher)


def _over_trials(
    experiment: Experiment, measure: str, network: str
) -> "tuple[tuple[pd.DataFrame, pd.DataFrame], int]":
    """Mean and standard deviation of what sources are ranked by; the number of trials."""
    from ftd.drawing import heatmaps
    from ftd.measures.ranking import ranked

    read = store.read_table(experiment.input(LAYOUT.nearest), ["rank"])
    order = store.table_facts(read)["order"]
    table = _pairs(
        experiment, LAYOUT.distances, order, measure, network, "distance", "squared_distance"
    )
    return heatmaps.matrices(table, ranked(table), order), table["trial"].nunique()


def _shares(experiment: Experiment, out: Path, *, measure: str, network: str) -> None:
    from ftd.drawing import heatmaps

    columns = ["measure", "network", "target", "source", "rank"]
    read = store.read_table(experiment.input(LAYOUT.nearest), columns)
    order = store.table_facts(read)["order"]
    parts = _pairs(experiment, LAYOUT.layers, order, measure, network, "layer", "contribution")
    ranks = read.to_pandas()
    ranks = ranks[(ranks["measure"] == measure) & (ranks["network"] == network)]
    ranks = ranks[ranks["rank"] <= _SOURCES_SHOWN]
    sources = {target: list(ranks[ranks["target"] == target]["source"]) for target in order}
    of = "the squared distance" if _squared(measure) else measure
    heatmaps.shares(parts, sources, out, of=of)


def _squared(measure: str) -> bool:
    return getattr(MEASURES.get(measure), "squared", False)  # a combination has no such key


def _pairs(
    experiment: Experiment,
    artifact: Artifact,
    order: list[str],
    measure: str,
    network: str,
    *values: str,
) -> "pd.DataFrame":
    """A measure's rows of one network in a table of pairs with the columns ``values``."""
    import pyarrow.compute as pc  # half a second

    path = experiment.input(artifact)
    columns = ["measure", "network", "trial", "source", "target", *values]
    rows = (pc.field("measure") == measure) & (pc.field("network") == network)
    table = store.read_table(path, columns).filter(rows).to_pandas()
    if table.empty:
        raise UserError(
            f"{path}: no distances by {measure!r} of network {network!r}; run distances"
        )
    if strange := set(order) - set(table["target"]):
        nearest = experiment.input(LAYOUT.nearest)
        raise UserError(f"{path}: no distances to {min(strange)}, a task of {nearest}; run both")
    return table


def _trace(experiment: Experiment, out: Path, *, method: str, seed: Any) -> None:
    from ftd.drawing import searches

    traces = {}
    for task in _searched(experiment):
        path = experiment.input(LAYOUT.trace, method=method, task=task, seed=seed)
        traces[task] = store.read_table(path, stage="search").to_pandas()
    searches.trace(traces, out)


def _cells(experiment: Experiment, out: Path, *, method: str, seed: Any) -> None:
    from ftd.drawing import searches

    found = []
    for task in _searched(experiment):
        path = experiment.input(LAYOUT.genotype, method=method, task=task, seed=seed)
        found.append(store.read_json(path))
        store.expect_stage(path, found[-1], "search")
        if not found[-1].get("genotype"):
            raise UserError(f"{path}: no cells to draw; give a method that searches")
    searches.cells(found, out)


def _searched(experiment: Experiment) -> list[str]:
    """The tasks whose searches are shown, by name if none are listed."""
    return experiment.config.search.tasks or sorted(experiment.config.tasks)


def _probes(experiment: Experiment, out: Path) -> None:
    from ftd.drawing import pages

    known, found = experiment.known(), []
    for names in product(known["network"], known["trial"], known["task"]):
        place = dict(zip(("network", "trial", "task"), names, strict=True))
        path = experiment.input(LAYOUT.probe_facts, **place)
        found.append(store.read_json(path))
        store.expect_stage(path, found[-1], "probe")
    pages.probes(found, out)


def _examples(experiment: Experiment, out: Path, *, network: str, task: str) -> None:
    """Of the first trial, frames of ``val`` that lie far apart."""
    import torch  # as in the stages before

    from ftd.drawing import examples
    from ftd.runtime.threads import setup

    setup()
    sliced = slices.read(experiment, task=task)
    if missing := [name for name in ("answers", "shown") if not hasattr(sliced.target, name)]:
        raise UserError(
            f"tasks.{task}: target {sliced.facts['target']['kind']!r} has no method "
            f"{' and no '.join(missing)}, so its examples cannot be drawn; give it "
            "answers(outputs) and shown(targets), as ftd.tasks.targets.dense.Dense has them"
        )
    model, facts = probe.load(experiment.input(LAYOUT.probe, network=network, trial=0, task=task))
    if facts["slice"] != sliced.facts["sha256"]:
        raise UserError(f"{sliced.path}: not the slice of {probe.name_of(facts)}; run probe again")
    data = slices.data_of(experiment, sliced, {"val": None})
    count = data.count("val")
    rows = torch.linspace(0, count - 1, min(count, _FRAMES_SHOWN)).long()
    images, targets = data.batch("val", rows)
    with torch.inference_mode():
        answers = data.target.answers(model.to(data.device)(images))
    pictures = data.colours(images), data.target.shown(targets), data.target.shown(answers)
    unit = _unit(experiment, task)
    title = f"{task}, {network}, {len(rows)} frames of val"
    examples.sheet(*(each.cpu().numpy() for each in pictures), out, title=title, unit=unit)


def _unit(experiment: Experiment, task: str) -> str | None:
    """That of a task's numbers, where the configuration gives one."""
    return getattr(experiment.config.tasks[task], "unit", None)


def _datasets(experiment: Experiment, out: Path) -> None:
    import pandas as pd

    from ftd.drawing import pages
    from ftd.stages.pictures import counted, samples

    found = []
    for name in sorted({task.dataset for task in experiment.config.tasks.values()}):
        path = experiment.input(LAYOUT.cut, dataset=name)
        found.append(store.table_facts(store.read_table(path, stage="dataset")))
        if "read" not in found[-1]:
            raise UserError(f"{path}: made by an older version; run the stage dataset again")
    sliced = [slices.read(experiment, task=task) for task in experiment.config.tasks]
    pictures = samples(experiment, sliced, images=_IMAGES_SHOWN, labels=_LABELS_SHOWN)
    tables = [counted(own) for own in sliced]
    pages.datasets(found, out, counts=pd.concat(tables), samples=[*pictures.values()])


def _nearest(experiment: Experiment, out: Path) -> None:
    from ftd.drawing import pages
    from ftd.measures.ranking import COLUMNS

    path = experiment.input(LAYOUT.nearest)
    known = trust.measured(experiment.config.measures)
    pages.nearest(store.read_table(path, COLUMNS).to_pandas(), known, out)


def _comparison(experiment: Experiment, out: Path) -> None:
    from ftd.drawing import pages

    pages.comparison(_compared(experiment), out)


def _scatter(experiment: Experiment, out: Path) -> None:
    from ftd.drawing import searches

    searches.scatter(_compared(experiment), out)


def _run(experiment: Experiment, out: Path) -> None:
    import pandas as pd
    import yaml

    from ftd.drawing import pages

    columns = ["rule", "job", "seconds", "megabytes"]
    taken = pd.DataFrame(jobs.taken(experiment), columns=columns)
    facts = store.read_json_facts(experiment.input(LAYOUT.selection))
    given = store.read_json(experiment.input(LAYOUT.config))
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
    pages.run(taken, facts["packages"], text, out)


def _compared(experiment: Experiment) -> "pd.DataFrame":
    """In order of arrival."""
    from ftd.stages.comparison import COLUMNS

    read = store.read_table(experiment.input(LAYOUT.comparison), list(COLUMNS)).to_pandas()
    arrival = list(experiment.config.tasks)
    return read.sort_values("task", key=lambda names: names.map(arrival.index), kind="stable")


_DRAWN_BY: dict[str, Callable[..., None]] = {
    "matrix": _matrix,
    "atlas": _atlas,
    "shares": _shares,
    "trace": _trace,
    "cells": _cells,
    "datasets": _datasets,
    "probes": _probes,
    "examples": _examples,
    "nearest": _nearest,
    "comparison": _comparison,
    "scatter": _scatter,
    "run": _run,
}
