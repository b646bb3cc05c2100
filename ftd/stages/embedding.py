"""Stage *embedding*: what the trial's common start makes of a task, for the measure Task2Vec.

It needs no probe; what it is stands in ``ftd.measures.task2vec``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftd import store
from ftd.layout import LAYOUT
from ftd.stages import probe
from ftd.stages import task as slices
from ftd.stages.checking import Library, finite, is_of, must, not_negative
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

VERSION = 1
VECTOR = "embedding"
"""The one tensor of the file."""


def decides(experiment: Experiment, *, network: str, trial: int | str, task: str) -> dict[str, Any]:
    """All that decides an embedding, besides its slice, its images and a pretrained body."""
    return {
        "settings": {"samples": experiment.config.fisher.samples},
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task, network=network),
    }


def run(experiment: Experiment, *, network: str, trial: int, task: str) -> None:
    """Embed a task by its trial's common start; write the vector as safetensors (float64).

    It is of the ``fisher`` part, of at most ``fisher.samples`` images. A network that the user
    brings for the task is not looked at, a ``pretrained`` body is the start's.

    Raises:
        UserError: unreadable input, or such that was made otherwise than the configuration asks
            for; a target that is no classes, no images, or a zero or non-finite trace.
    """
    # torch and SciPy: seconds that rules and --help would pay.
    from ftd.measures.task2vec import embedding
    from ftd.runtime.threads import setup

    experiment.expect(network=network, trial=trial, task=task)
    setup()
    names = {"network": network, "trial": trial, "task": task}
    sliced, made = slices.read(experiment, task=task), decides(experiment, **names)
    data = slices.data_of(experiment, sliced, {"fisher": made["settings"]["samples"]})
    start = probe.common_start(experiment, sliced, **names).eval()
    what = "embedding of {task}, network {network}, trial {trial}".format(**names)
    found = embedding(start, data, what)
    body = probe.pretrained_of(experiment, network)
    about = names | {
        "seed": made["seed"],
        "samples": data.count("fisher"),
        "slice": sliced.facts["sha256"],
        "pretrained": body and store.digest(body),
        "device": data.device.type,
    }
    decided = record("embedding", VERSION, made["settings"], made["parts"])
    path = experiment.output(LAYOUT.embedding, **names)
    store.write_tensors(path, {VECTOR: found}, about | decided)


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.read_tensor_facts(path, stage="embedding")
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    yield from must(facts["samples"] >= 1, "no samples")
    yield from finite(path)
    yield from not_negative(path)


CHECKS = [(LAYOUT.embedding, _check)]
