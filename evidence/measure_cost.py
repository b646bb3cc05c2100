"""What measures cost, in units of a forward and a backward pass of a source over a target's images.

``prepare`` is once a target, ``compare`` once a pair, files that are read included; what is done
once when the first source is compared, such as a pass of the target's own network, is in neither,
nor is what makes a task's artifacts, such as its probe. Each measure is timed alone: those that
share a source's pass in a job pay for it here, every one.
"""

import contextlib
import importlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from ftd import config, store
from ftd.layout import LAYOUT, LOGS
from ftd.measures import Combination, comparison_of
from ftd.measures.passes import batch_size
from ftd.parts import MEASURES
from ftd.runtime.threads import setup
from ftd.stages import distance, probe
from ftd.stages.column import Column
from ftd.stages.experiment import Experiment
from ftd.stages.sides import KEPT, Passes, Things, artifacts_of
from ftd.store.provenance import packages

SOURCE, FIRST, TARGET = "source", "first", "target"
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def run(
    out: Path,
    *,
    network: str,
    images: int,
    rounds: int,
    size: int = 28,
    measures: list[str] | None = None,
) -> pd.DataFrame:
    """Time measures of tasks of scikit-learn's digits; write Parquet.

    Args:
        out: ``measure``, ``prepare``, ``compare``: medians of the rounds' ratios, float64; the
            facts have the pass in ``seconds``.
        images: that the target is seen through.
        rounds: after one to warm up; each times the pass anew.
        size: of the images, in pixels.
        measures: no combinations; ``None``: all that are registered.

    Raises:
        UserError: no such network or measure, or more images than there are.
    """
    setup()
    measures = measures or [
        each for each in MEASURES.names() if not isinstance(MEASURES.get(each), Combination)
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        settings = settings_of(measures, network, images, size)
        experiment = Experiment.of(config.parse(settings), Path(folder))
        _make(experiment)
        place = {"network": network, "trial": 0, "task": TARGET}
        columns = [distance.column_of(experiment, measure=each, **place) for each in measures]
        a_pass = _pass(experiment)
        rows = [
            {"measure": column.measure, "round": number, "seconds": _seconds(*a_pass)}
            | _timed(column)
            for number in range(rounds + 1)  # the first one warms up
            for column in columns
        ]
    table = pd.DataFrame(rows).query("round > 0")
    for key in ("prepare", "compare"):
        table[key] /= table["seconds"]
    medians = table.groupby("measure", sort=False)[["prepare", "compare"]].median().reset_index()
    facts = {"network": network, "images": images, "size": size, "rounds": rounds}
    facts |= {"seconds": float(table["seconds"].median()), "threads": torch.get_num_threads()}
    facts |= {"packages": packages()}
    store.write_table(out, pa.Table.from_pandas(medians, preserve_index=False), facts)
    return medians


def settings_of(measures: list[str], network: str, images: int, size: int) -> dict[str, Any]:
    """A configuration: sources are the ten digits, the target is five pairs of them."""
    pairs = {f"pair-{first}": [first, first + 5] for first in range(5)}
    parts = {"train": 300, "val": 100, "fisher": images}
    return {
        "experiment": "cost",
        "trials": 1,
        "networks": [network],
        "image": {"size": size, "channels": 1},
        "datasets": {"digits": {"loader": "sklearn-digits", "fit": "resize", "parts": parts}},
        "tasks": {
            SOURCE: {"dataset": "digits", "labels": "all"},
            FIRST: {"dataset": "digits", "labels": "all"},
            TARGET: {"dataset": "digits", "labels": pairs},
        },
        "probe": {"epochs": 1},
        "fisher": {"samples": images},
        "distance": {"layers": False},
        "measures": measures,
    }


def _make(experiment: Experiment) -> None:
    """All that measures need of the tasks, and their lists of sources."""
    kinds = map(MEASURES.get, experiment.measures)
    wanted = artifacts_of(need for kind in kinds for need in (*kind.source, *kind.target))
    same = {"dataset": "digits", "network": experiment.network, "trial": 0}
    made = [artifact.verb for name, artifact in vars(LAYOUT).items() if name in wanted]
    for verb in dict.fromkeys(["dataset", "task", *made]):
        stage = importlib.import_module(f"ftd.stages.{verb}")
        for task in experiment.config.tasks if "task" in LOGS[verb] else [SOURCE]:
            names = same | {"task": task}
            stage.run(experiment, **{name: names[name] for name in LOGS[verb]})
    for measure in experiment.measures:
        distance.index(experiment, measure=measure, network=experiment.network, trial=0)


def _pass(experiment: Experiment) -> tuple[torch.nn.Module, Batches]:
    """The source's network, and the target's images and labels."""
    place = {"network": experiment.network, "trial": 0}
    things = Things.of(experiment, ["data"], task=TARGET, **place)
    data = things.data(experiment.config.fisher.samples, KEPT)
    file = store.TensorFile(experiment.input(LAYOUT.probe, task=SOURCE, **place))
    model = probe.network_of(file).to(data.device)
    return model, list(data.batches("fisher", batch_size(data)))


def _seconds(model: torch.nn.Module, batches: Batches) -> float:
    """What a forward and a backward pass take."""
    began = time.perf_counter()
    for inputs, labels in batches:
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    return time.perf_counter() - began


def _timed(column: Column) -> dict[str, float]:
    """Seconds that a measure prepares a target and compares one source with it."""
    comparison, passes = comparison_of(column.measure, column.kind), Passes(TARGET)
    target = column.side(TARGET, column.things, column.own, passes)
    settings = column.experiment.config.distance.of(column.measure)
    began = time.perf_counter()
    ready = comparison.prepare(target, settings)
    prepared = time.perf_counter() - began
    for source in (FIRST, SOURCE):  # the latter's seconds count
        side = column.side(source, column.things_of(source), column.sources[source], passes)
        began = time.perf_counter()
        comparison.compare(side, ready)
    return {"prepare": prepared, "compare": time.perf_counter() - began}
