"""Stage *fisher*: the Fisher information of a probe on its own task, its diagonal by default."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages import probe
from ftd.stages import task as slices
from ftd.stages.checking import Library, expect_asked, finite, is_of, must, not_negative
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

VERSION = 7


def decides(experiment: Experiment, *, network: str, trial: int | str, task: str) -> dict[str, Any]:
    """All that decides a Fisher diagonal, besides its probe and its slice."""
    return {
        "settings": experiment.config.fisher.model_dump(mode="json"),
        "version": VERSION,
        "parts": experiment.digests(task=task, network=network),
    }


def run(experiment: Experiment, *, network: str, trial: int, task: str) -> None:
    """Extract F_bb, a probe's diagonal on its own task; write it as safetensors (float64).

    Raises:
        UserError: unreadable input, or such that was made otherwise than the configuration asks
            for, fewer images than a micro-batch has, or a zero or non-finite trace.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.fisher.estimators import Spread
    from ftd.fisher.kronecker import layers_of
    from ftd.measures.fisher_task import on_own_task
    from ftd.runtime.threads import setup

    experiment.expect(network=network, trial=trial, task=task)
    setup()
    names = {"network": network, "trial": trial, "task": task}
    path, settings = experiment.input(LAYOUT.probe, **names), experiment.config.fisher
    model, facts = probe.load(path)
    expect_asked(path, facts, probe.decides(experiment, **names))
    sliced = slices.read(experiment, task=task)
    if facts["slice"] != sliced.facts["sha256"]:
        raise UserError(f"{path}: trained on another slice than {sliced.path}; run probe again")
    data = slices.data_of(experiment, sliced, {"fisher": settings.samples})
    count = data.count("fisher")
    if count < settings.microbatch:
        raise UserError(
            f"tasks.{task}: {count} images of the part 'fisher' are no micro-batch of "
            f"{settings.microbatch}; lower fisher.microbatch, or give more images (fisher.samples, "
            "the data set's parts)"
        )
    spread = Spread()
    found = on_own_task(model, data, settings, probe.name_of(facts), spread)
    made = decides(experiment, **names)
    about = names | {
        "samples": count,
        "layers": layers_of(data.target.pad(found, found)[0]),  # those that are ever compared
        "probe": facts["sha256"],
        "slice": sliced.facts["sha256"],
        "device": data.device.type,
    }
    error = spread.relative()
    if error is not None:  # a standard error, relative to the trace: of targets alone that draw
        about["trace_error"] = error
    decided = record("fisher", VERSION, made["settings"], made["parts"])
    store.write_tensors(experiment.output(LAYOUT.fisher, **names), found, about | decided)


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.read_tensor_facts(path, stage="fisher")
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.probe, **names), facts["probe"], "probe")
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    yield from must(facts["samples"] >= 1, "no samples")
    yield from must(facts.get("trace_error", 0.0) >= 0, "a negative trace_error")
    yield from finite(path)
    if facts["settings"]["structure"] == "diagonal":
        yield from not_negative(path)


CHECKS = [(LAYOUT.fisher, _check)]
