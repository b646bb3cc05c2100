"""Stage *figures*: heat maps, traces and tables of an experiment.

Functions import pandas and matplotlib by ``ftd.drawing`` (1 s): what names the stage or its
settings needs neither.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT, TABLES, Artifact
from ftd.names import counted, did_you_mean
from ftd.stages import jobs, pair_figures, probe, search_figures
from ftd.stages import task as slices
from ftd.stages.experiment import Experiment
from ftd.transfer import trust

if TYPE_CHECKING:
    import pandas as pd

VERSION = 8
_IN_ORDER = {"datasets", "probes", "scores", "curves", "dense", "comparison", "scatter", "run"}
"""Figures and pages of all tasks, in order of arrival."""
_FRAMES_SHOWN = 6
_IMAGES_SHOWN, _LABELS_SHOWN = 12, 40


def decides(experiment: Experiment, figure: str, **names: Any) -> dict[str, Any]:
    """What decides a figure, of the names that ``run`` takes, besides the artifacts it shows."""
    found: dict[str, Any] = {"version": VERSION}
    if figure in ("trace", "cells", "candidates", "spaces"):
        found["tasks"] = search_figures.tasks_of(experiment)
    if figure == "examples":
        found["unit"] = _unit(experiment, names["task"])
    if figure in _IN_ORDER:
        found["order"] = list(experiment.config.tasks)
    if figure == "nearest":
        known = trust.measured(experiment.config.measures)
        found["trust"] = {name: asdict(own) for name, own in known.items()}
    return found


def run(experiment: Experiment, figure: str, **names: Any) -> Path:
    """Draw a figure and write its table beside it, or write a page; returns the figure's file.

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
    table = _DRAWN_BY[figure](experiment, out, **names)
    if figure in TABLES:
        content = table.to_csv(index=False, lineterminator="\n")
        store.write_bytes(out.with_suffix(".csv"), content.encode())
    return out


def _probes(experiment: Experiment, out: Path) -> None:
    from ftd.drawing import pages

    pages.probes(_facts_of_probes(experiment), out)


def _dense(experiment: Experiment, out: Path) -> None:
    from ftd.drawing import pages

    found = _facts_of_probes(experiment)
    pages.dense([facts for facts in found if "metric" in facts], out)


def _scores(experiment: Experiment, out: Path) -> "pd.DataFrame":
    import pandas as pd  # as in ftd.drawing

    from ftd.drawing import strips

    rows = [
        (
            *(facts["task"], facts["network"], facts["trial"], facts["val_accuracy"]),
            *(facts["val_most_frequent"], 1 - facts["settings"]["epsilon"]),
        )
        for facts in _facts_of_probes(experiment)
    ]
    columns = ["task", "network", "trial", "score", "constant", "wanted"]
    table = pd.DataFrame(rows, columns=columns)
    strips.scores(table, out, title="Scores of probes")
    return table


def _curves(experiment: Experiment, out: Path, *, network: str) -> "pd.DataFrame":
    import pandas as pd  # as in ftd.drawing

    from ftd.drawing import curves

    epochs, ends = [], []
    for facts in _facts_of_probes(experiment, network):
        name = facts["task"], facts["trial"]
        scores = facts["val_accuracy"], facts["val_most_frequent"]
        ends.append((*name, facts["epochs"], *scores, 1 - facts["settings"]["epsilon"]))
        course = facts.get("curve") or {"losses": [], "scores": []}  # older versions kept none
        pairs = zip(course["losses"], course["scores"], strict=True)
        epochs += [(*name, number, *pair) for number, pair in enumerate(pairs, 1)]
    table = pd.DataFrame(epochs, columns=["task", "trial", "epoch", "loss", "score"])
    table = table.astype({"score": float})
    columns = ["task", "trial", "epochs", "score", "constant", "wanted"]
    title = f"Training of probes\n{network}, {counted(experiment.config.trials, 'trial')}"
    curves.curves(table, pd.DataFrame(ends, columns=columns), out, title=title)
    return table


def _facts_of_probes(experiment: Experiment, *networks: str) -> list[dict]:
    """Those of all probes, or some networks', in the configuration's order."""
    found = []
    for place in experiment.places():
        if networks and place["network"] not in networks:
            continue
        path = experiment.input(LAYOUT.probe_facts, **place)
        found.append(store.read_json(path))
        store.expect_stage(path, found[-1], "probe")
    return found


def _examples(experiment: Experiment, out: Path, *, network: str, task: str) -> None:
    """Of the first trial, frames of ``val`` that lie far apart."""
    import torch  # as in the stages before

    from ftd.drawing import examples
    from ftd.runtime.threads import setup

    setup()
    sliced = slices.read(experiment, task=task)
    model, facts = probe.load(experiment.input(LAYOUT.probe, network=network, trial=0, task=task))
    if facts["slice"] != sliced.facts["sha256"]:
        raise UserError(f"{sliced.path}: not the slice of {probe.name_of(facts)}; run probe again")
    data = slices.data_of(experiment, sliced, {"val": None})
    count = data.count("val")
    rows = torch.linspace(0, count - 1, min(count, _FRAMES_SHOWN)).long()
    images, targets = data.batch("val", rows)
    drawn = data.colours(images).cpu().numpy()
    title = f"{task}, {network}, {len(rows)} frames of val"
    if not all(hasattr(data.target, name) for name in ("answers", "shown")):
        kind = sliced.facts["target"]["kind"]
        examples.inputs(drawn, out, title=f"{title}\ntarget {kind!r} gives nothing to show")
        return
    with torch.inference_mode():
        answers = data.target.answers(model.to(data.device)(images))
    pictures = (data.target.shown(each).cpu().numpy() for each in (targets, answers))
    examples.sheet(drawn, *pictures, out, title=title, unit=_unit(experiment, task))


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

    pages.comparison(search_figures.comparison(experiment), out)


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


_DRAWN_BY: dict[str, Callable[..., Any]] = {
    "matrix": pair_figures.matrix,
    "atlas": pair_figures.atlas,
    "shares": pair_figures.shares,
    "asymmetry": pair_figures.asymmetry,
    "consistency": pair_figures.consistency,
    "explorer": pair_figures.explorer,
    "graph": pair_figures.graph,
    "weights": pair_figures.weights,
    "trace": search_figures.trace,
    "cells": search_figures.cells,
    "candidates": search_figures.candidates,
    "spaces": search_figures.spaces,
    "datasets": _datasets,
    "probes": _probes,
    "scores": _scores,
    "curves": _curves,
    "dense": _dense,
    "examples": _examples,
    "nearest": _nearest,
    "comparison": _comparison,
    "scatter": search_figures.scatter,
    "run": _run,
}
