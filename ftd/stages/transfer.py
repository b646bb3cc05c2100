"""Stage *transfer*: every other task's probe fine-tuned on a few images of a task.

What it gains over the common start is what a measure of nearness can be held against: the table
knows of no measure.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.runtime.progress import log, progress
from ftd.stages import probe
from ftd.stages.checking import Library, expect_asked, gathered, is_of, must
from ftd.stages.experiment import Experiment
from ftd.stages.shots import Shots
from ftd.store.pairs import PairStore, open_store, pair_key
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from ftd.tasks.data import TaskData
    from ftd.transfer.finetuning import Heads

VERSION = 1
MEASURED = ("accuracy", "seconds")
"""What is kept of a fine-tuning."""

Source = str | None
"""A task, or ``None`` for the common start."""
Tuned = tuple[Source, int, str]
"""Source, shots, scope."""


def decides(experiment: Experiment, *, network: str, trial: int | str, task: str) -> dict[str, Any]:
    """All that decides a table, besides its slice and the probes."""
    return {
        "settings": experiment.config.transfer.model_dump(mode="json", exclude={"few"}),
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task, network=network),
    }


def run(experiment: Experiment, *, network: str, trial: int, task: str) -> int:
    """Fine-tune every other task's body, and the start's, on a task; write what each gains.

    All of them start from the task's own head of the common start, and see the same images of
    ``train``, drawn once a trial. With the scope ``head`` the body stays as it is. Shots that a
    class has not are left out, and the log and the facts say so. Finished fine-tunings are kept in
    a store beside the table.

    Columns (Parquet): ``network``, ``trial``, ``source`` (null: the common start), ``target``,
    ``shots`` a class (of other targets: shots in all), ``scope``, ``accuracy`` on ``val`` in
    [0, 1] (of other targets their mean score), ``gain`` over the start's
    (float32), ``steps``. Returns the number of fine-tunings made.

    Raises:
        UserError: unreadable input, or such that was made otherwise than the configuration asks
            for; weights that do not stay finite.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.threads import setup

    experiment.expect(network=network, trial=trial, task=task)
    setup()
    names = {"network": network, "trial": trial, "task": task}
    job = _Job(experiment, names)
    with open_store(experiment.output(LAYOUT.transfer_store, **names)) as kept:
        missing = [each for each in job.all if None in map(kept.get, job.keys(*each))]
        log(f"{job.what}: {len(missing)} of {len(job.all)} fine-tunings missing")
        job.make(missing, kept)
        rows = {each: [kept.get(key) for key in job.keys(*each)] for each in job.all}
    _write(experiment.output(LAYOUT.transfer, **names), job, rows)
    return len(missing)


class _Job:
    """One target's fine-tunings: what they start from, what decides each, and their making."""

    def __init__(self, experiment: Experiment, names: dict[str, Any]):
        self.experiment, self.names = experiment, names
        self.settings = experiment.config.transfer
        self.decided = decides(experiment, **names)
        self.what = "transfer to {task}, network {network}, trial {trial}".format(**names)
        self.few = Shots(experiment, self.what, names)
        self.others = [name for name in experiment.config.tasks if name != names["task"]]
        self.probes = {name: self._probe(name) for name in self.others}
        self.all: list[Tuned] = [
            (source, shots, scope)
            for shots in self.few.rows
            for scope in self.settings.scopes
            for source in (None, *self.others)
        ]

    def _probe(self, task: str) -> store.TensorFile:
        names = self.names | {"task": task}
        file = store.TensorFile(self.experiment.input(LAYOUT.probe, **names), stage="probe")
        expect_asked(file.path, file.facts, probe.decides(self.experiment, **names))
        return file

    def keys(self, source: Source, shots: int, scope: str) -> list[bytes]:
        """Of the store, in the order of ``MEASURED``: from all that decides a fine-tuning."""
        few = self.few
        about = {key: self.decided[key] for key in ("seed", "version", "parts")}
        about |= self.names | {"slice": few.sliced.facts["sha256"], "device": few.device.type}
        about |= {"start": few.pretrained, "source": source}
        about |= {"probe": source and self.probes[source].facts["sha256"]}
        about |= {"shots": shots, "scope": scope, "batch_size": self.settings.batch_size}
        about |= getattr(self.settings, scope).model_dump()
        return [pair_key(part=part, **about) for part in MEASURED]

    def start(self, source: Source) -> "nn.Module":
        """A source's body and the target's head of the common start, on the device."""
        model = self.few.start()
        if source is not None:
            file = self.probes[source]
            body = {
                name.removeprefix("body."): value
                for name, value in file.tensors().items()
                if name.startswith("body.")
            }
            try:
                model.body.load_state_dict(body)
            except RuntimeError as error:
                raise UserError(f"{file.path}: no probe of this network; run it again") from error
        return model

    def make(self, missing: list[Tuned], kept: PairStore) -> None:
        """Make fine-tunings, and keep each as it comes."""
        for shots in self.few.rows:
            wanted = [each for each in missing if each[1] == shots]
            if wanted:
                data = self.few.data(shots, "train", "val")
                heads = [source for source, _, scope in wanted if scope == "head"]
                linear = hasattr(self.start(None).head, "linear")
                if heads and linear:
                    self._heads(heads, shots, data, kept)
                for source, _, scope in progress(wanted, f"{self.what}, {shots} shots"):
                    if scope == "whole" or not linear:
                        self._one(source, shots, scope, data, kept)

    def _heads(self, sources: list[Source], shots: int, data: "TaskData", kept: PairStore) -> None:
        """Train the heads of all sources at once, on features that are made once."""
        import torch  # as in run

        from ftd.transfer.finetuning import expect_finite, features_of, tune_heads

        began = time.monotonic()
        images, labels = next(data.batches("train", data.count("train")))
        models = [self.start(source).eval() for source in sources]
        features = torch.stack([features_of(model, images) for model in models])
        order = self.few.order(shots, len(labels), "head")
        start = models[0].head.linear
        heads = tune_heads(features, labels, start, order, self.settings.head)
        expect_finite(f"{self.what}, {shots} shots", "head", *heads)
        shared = (time.monotonic() - began) / len(sources)
        for number, (source, model) in enumerate(zip(sources, models, strict=True)):
            began = time.monotonic()
            accuracy = self._judged(model, data, heads, number)
            seconds = shared + time.monotonic() - began
            kept.add(zip(self.keys(source, shots, "head"), (accuracy, seconds), strict=True))

    @staticmethod
    def _judged(model: "nn.Module", data: "TaskData", heads: "Heads", number: int) -> float:
        """The accuracy on ``val`` of a body with the head of this number."""
        import torch  # as in run

        from ftd.models.fitting import accuracy

        weight, bias = heads
        with torch.no_grad():
            model.head.linear.weight.copy_(weight[number])
            model.head.linear.bias.copy_(bias[number])
        return accuracy(model, data, "val")

    def _one(
        self, source: Source, shots: int, scope: str, data: "TaskData", kept: PairStore
    ) -> None:
        """Train a whole network, or its head that is no linear layer."""
        from ftd.models.fitting import accuracy  # torch, as in run

        began, model = time.monotonic(), self.start(source)
        what = f"{self.what}, {shots} shots, source {source or 'the start'}"
        self.few.tune(model, shots, data, "train", what, scope)
        found = accuracy(model, data, "val"), time.monotonic() - began
        kept.add(zip(self.keys(source, shots, scope), found, strict=True))


def _write(out: Path, job: _Job, rows: Mapping[Tuned, list[float]]) -> None:
    import pyarrow as pa  # as in run

    names, count = job.names, len(rows)
    sources, shots, scopes = zip(*rows, strict=True) if rows else ((), (), ())
    accuracy = [row[0] for row in rows.values()]
    starts = {each[1:]: row[0] for each, row in rows.items() if each[0] is None}
    gains = [row[0] - starts[each[1:]] for each, row in rows.items()]
    steps = [getattr(job.settings, scope).steps for scope in scopes]
    columns = {
        "network": pa.array([names["network"]] * count, pa.string()),
        "trial": pa.array([names["trial"]] * count, pa.int64()),
        "source": pa.array(sources, pa.string()),
        "target": pa.array([names["task"]] * count, pa.string()),
        "shots": pa.array(shots, pa.int64()),
        "scope": pa.array(scopes, pa.string()),
        "accuracy": pa.array(accuracy, pa.float32()),
        "gain": pa.array(gains, pa.float32()),
        "steps": pa.array(steps, pa.int64()),
    }
    seconds = dict.fromkeys(job.settings.scopes, 0.0)
    for (_, _, scope), row in rows.items():
        seconds[scope] += row[1]
    facts = names | {
        "experiment_seed": job.decided["seed"],
        "slice": job.few.sliced.facts["sha256"],
        "probes": {name: file.facts["sha256"] for name, file in job.probes.items()},
        "left_out": job.few.left_out,
        "seconds": seconds,
        "device": job.few.device.type,
    }
    decided = record("transfer", VERSION, job.decided["settings"], job.decided["parts"])
    store.write_table(out, pa.table(columns), facts | decided)


def gather(experiment: Experiment) -> "pd.DataFrame":
    """All tables of an experiment as one (pandas): the rows of ``run``, by network, trial, target.

    Raises:
        UserError: a table that is missing or damaged, or was made otherwise than the configuration
            asks for.
    """
    return gathered(experiment, LAYOUT.transfer, decides)


# Checks -----------------------------------------------------------------------------------------


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    import numpy as np  # a check's alone

    table = store.read_table(path, stage="transfer")
    facts, frame = store.table_facts(table), table.to_pandas()
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    for source, recorded in facts["probes"].items():
        place = {"network": names["network"], "trial": names["trial"], "task": source}
        yield from library.same(library.path(LAYOUT.probe, **place), recorded, "probe")
    settings = facts["settings"]
    used = [shots for shots in settings["shots"] if shots not in facts["left_out"]]
    count = len(used) * len(settings["scopes"]) * (len(facts["probes"]) + 1)
    yield from must(len(frame) == count, f"{len(frame)} rows, expected {count}")
    yield from must(bool(frame["accuracy"].between(0, 1).all()), "accuracy out of [0, 1]")
    starts = frame[frame["source"].isna()].set_index(["shots", "scope"])["accuracy"]
    of = [starts.get((row.shots, row.scope), np.nan) for row in frame.itertuples()]
    right = np.allclose(frame["accuracy"] - of, frame["gain"], atol=1e-6)
    yield from must(right, "gains are not over the start's accuracy")


CHECKS = [(LAYOUT.transfer, _check)]
