"""Stage *probe*: train a task's ε-approximation network from the trial's common start."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import Probe, Recipe
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.stages import task as slices
from ftd.stages.checking import Library, finite, is_of, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ftd.store.resume import Resume
    from ftd.tasks.data import TaskData
    from ftd.tasks.slices import Slice

VERSION = 4
_SHIFT = 8  # augmented images are shifted by at most an eighth of their side


def decides(experiment: Experiment, *, network: str, trial: int | str, task: str) -> dict[str, Any]:
    """All that decides a probe, besides its slice, its images and files of weights."""
    return {
        "settings": settings_of(experiment, task).model_dump(mode="json"),
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task, network=network),
    }


def settings_of(experiment: Experiment, task: str) -> Probe:
    """Those of a task's probes, with its own ε if it has one."""
    own, common = experiment.config.tasks[task].epsilon, experiment.config.probe
    return common if own is None else common.model_copy(update={"epsilon": own})


def files_of(experiment: Experiment, *, network: str, task: str) -> dict[str, str]:
    """Files of weights that the user brings: ``pretrained`` bodies, ``weights`` of a task."""
    found = {
        "pretrained": pretrained_of(experiment, network),
        "weights": experiment.config.tasks[task].weights_of(network),
    }
    return {key: path for key, path in found.items() if path}


def pretrained_of(experiment: Experiment, network: str) -> str | None:
    """The file of the body that a network starts from, if the user brings one."""
    return experiment.config.pretrained.get(network)


def run(experiment: Experiment, *, network: str, trial: int, task: str) -> dict:
    """Train one probe; write its weights (safetensors) and its facts (JSON), return the facts.

    ``val_accuracy`` is in [0, 1]; ``reached`` says whether it is at least 1 − ε;
    ``val_most_frequent`` is what always giving the most frequent label, or the best of the maps
    that are the same for all (``constants`` of the target's kind), would score. Of targets other
    than classes, ``val_metric`` and ``val_metric_constant`` are the same two in the terms of
    ``metric``. ``curve`` has the ``losses`` on ``train`` and the ``scores`` on ``val`` of the
    training's epochs; null where ``stop_early`` did not ask for them. A network in
    ``pretrained`` starts from that body; a task's ``weights`` stand in place of a training. A
    training that was stopped goes on where it was. A probe that another experiment trained on an
    equal slice of equal images under equal settings is taken from the configuration's ``cache``.

    Raises:
        UserError: unreadable input, a loss that is not finite, or a missed 1 − ε where the
            settings say ``on_miss: error``.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.device import default_device
    from ftd.runtime.threads import setup
    from ftd.store import cache as shared

    experiment.expect(network=network, trial=trial, task=task)
    setup()
    names = {"network": network, "trial": trial, "task": task}
    sliced = slices.read(experiment, task=task)
    made, files = decides(experiment, **names), files_of(experiment, network=network, task=task)
    identity = names | {
        "seed": made["seed"],
        "image": sliced.facts["image"],
        "target": sliced.facts["target"],
        "labels": sliced.labels,
        "slice": sliced.facts["sha256"],
        **{key: store.digest(files[key]) if key in files else None for key in _BROUGHT},
    }
    decided = record("probe", VERSION, made["settings"], made["parts"])
    decided |= {"device": default_device().type}
    outputs = [experiment.output(a, **names) for a in (LAYOUT.probe, LAYOUT.probe_facts)]
    cache = experiment.config.cache and Path(experiment.config.cache)
    # A slice's facts name its images, so its digest stands for both.
    if cache and shared.take(cache, identity | decided, outputs):
        return store.read_json(outputs[1])
    facts = _make(experiment, sliced, identity, decided, outputs)
    if cache:
        shared.give(cache, identity | decided, outputs)
    return facts


_BROUGHT = ("pretrained", "weights")


def _make(
    experiment: Experiment, sliced: "Slice", identity: dict, decided: dict, outputs: list[Path]
) -> dict:
    """Train or load a probe, measure it, write it."""
    from ftd.store.resume import Resume  # torch, as in run

    task = identity["task"]
    settings = settings_of(experiment, task)
    files = files_of(experiment, network=identity["network"], task=task)
    data = slices.data_of(experiment, sliced, {"train": None, "val": None})
    model = started(sliced, identity, files).to(data.device)
    resume = Resume.beside(outputs[0], identity | decided)
    facts = identity | decided
    if "weights" in files:
        model.eval()
        facts |= {"train_loss": None, "epochs": 0, "seconds": 0.0}
    else:
        facts |= _train(model, data, settings, identity, resume)
    facts |= _measured(model, data, settings, identity)
    store.write_tensors(outputs[0], model.state_dict(), identity | decided)
    store.write_json(outputs[1], facts)
    resume.done()
    return facts


def _train(
    model: "nn.Module", data: "TaskData", settings: Probe, identity: dict, resume: "Resume"
) -> dict:
    """Train the probe; returns what it took, and its course."""
    from ftd.models.fitting import fit  # torch, as in run

    recipe = Recipe()
    if settings.augment:
        recipe = Recipe(flip=True, crop=data.task.image_shape[1] // _SHIFT)
    began = time.monotonic()
    curve = fit(
        model,
        data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed_of("trial", identity["seed"], identity["trial"]),
        what=name_of(identity),
        resume=resume,
        stop_at=1 - settings.epsilon if settings.stop_early else None,
        average=settings.average,
        recipe=recipe,
    )
    seconds = time.monotonic() - began
    about = {"train_loss": curve.losses[-1], "epochs": len(curve.losses), "seconds": seconds}
    return about | {"curve": asdict(curve)}


def _measured(model: "nn.Module", data: "TaskData", settings: Probe, identity: dict) -> dict:
    from ftd.models.fitting import accuracy  # torch, as in run

    val, wanted = accuracy(model, data, "val"), 1 - settings.epsilon
    constant, target = data.most_frequent("val"), data.target
    found = {"val_accuracy": val, "val_most_frequent": constant, "reached": val >= wanted}
    of_classes = data.task.facts["target"]["kind"] == "classes"
    score = "accuracy" if of_classes else "score"
    text = f"{name_of(identity)}: val {score} {val:.4f}, wanted {wanted:.4f}"
    if val < wanted and settings.on_miss == "error":
        raise UserError(
            f"{text}; raise probe.epochs or probe.epsilon, or set probe.on_miss to 'record'"
        )
    if of_classes:
        log(f"{text} (always the most frequent label: {constant:.4f})")
    else:
        found |= {"metric": target.metric, "val_metric": target.natural(val)}
        found["val_metric_constant"] = target.natural(constant)
        log(
            f"{text}; {target.metric}: {found['val_metric']:.4g} (the best constant answer: "
            f"{found['val_metric_constant']:.4g})"
        )
    if val <= constant:
        log(f"{name_of(identity)}: NO BETTER THAN A CONSTANT ANSWER: it has learned nothing")
    return found


def started(sliced: "Slice", identity: dict, files: dict[str, str]) -> "nn.Module":
    """The probe before training: the trial's common start, or what the user brings."""
    from ftd.models import networks  # torch, as in run

    model = networks.build(
        identity["network"],
        image_shape=sliced.image_shape,
        target=sliced.target,
        seed=seed_of("trial", identity["seed"], identity["trial"]),
    )
    for key, into, what in (
        ("pretrained", model.body, f"the body of {identity['network']}"),
        ("weights", model, f"a network {identity['network']} for task {identity['task']}"),
    ):
        if key in files:
            weights = store.read_foreign_tensors(Path(files[key]))
            try:
                into.load_state_dict(weights)
            except RuntimeError as error:
                reason = str(error).splitlines()[1].strip()
                hint = _prefix_hint(weights, into)
                raise UserError(f"{files[key]}: not {what}: {reason}{hint}") from error
            _check_numbers(files[key], weights, into)
    return model


def common_start(
    experiment: Experiment, sliced: "Slice", *, network: str, trial: int, task: str
) -> "nn.Module":
    """What the trial's probes start from, with a head for this task, in training mode.

    A network that is brought along for the task is no start of it.

    Raises:
        UserError: a ``pretrained`` body that does not fit.
    """
    identity = {"network": network, "trial": trial, "task": task, "seed": experiment.config.seed}
    body = pretrained_of(experiment, network)
    return started(sliced, identity, {"pretrained": body} if body else {})


def _prefix_hint(weights: "dict[str, torch.Tensor]", into: "nn.Module") -> str:
    """What to do about names that are right but for what stands before all of them."""
    wanted = list(into.state_dict())
    first = wanted[0] if wanted else None
    for prefix in (name.removesuffix(first) for name in weights if first and name.endswith(first)):
        if prefix and all(prefix + name in weights for name in wanted):
            return f"; the names that fit begin with {prefix!r}: keep those alone, without it"
    return ""


def _check_numbers(path: str, weights: "dict[str, torch.Tensor]", into: "nn.Module") -> None:
    """Raises a ``UserError`` if weights were loaded of numbers that are not real and finite."""
    for name, value in into.state_dict().items():
        if value.is_floating_point():  # a batch norm counts its batches
            if not weights[name].is_floating_point():
                kind = str(weights[name].dtype).removeprefix("torch.")
                raise UserError(f"{path}: {name}: expected floating-point numbers, got {kind}")
            if not value.isfinite().all():
                raise UserError(
                    f"{path}: {name}: not finite; bring a network that has not diverged"
                )


def name_of(facts: Mapping[str, Any]) -> str:
    """What a probe is called in messages."""
    return "probe {task}, network {network}, trial {trial}".format(**facts)


def load(path: Path) -> tuple["nn.Module", dict]:
    """A probe in evaluation mode, and the facts stored with its weights.

    Raises:
        UserError: missing or damaged file, or weights that do not fit the network they name.
    """
    file = store.TensorFile(path, stage="probe")
    return network_of(file), file.facts


def network_of(file: store.TensorFile) -> "nn.Module":
    """The network of a probe's file, in evaluation mode.

    Raises:
        UserError: a file that has changed, or weights that do not fit the network they name.
    """
    model = start_of(file.path, file.facts)
    try:
        model.load_state_dict(file.tensors())
    except RuntimeError as error:
        raise _strange(file.path) from error
    return model.eval()


def start_of(path: Path, facts: dict) -> "nn.Module":
    """The common start that a probe with such facts was trained from, in training mode.

    Raises:
        UserError: facts that are none of a probe's.
    """
    from ftd.models import networks  # torch, as in run
    from ftd.tasks.slices import target_of

    try:
        image = facts["image"]
        return networks.build(
            facts["network"],
            image_shape=(image["channels"], image["size"], image["size"]),
            target=target_of(path, facts["target"]),
            seed=seed_of("trial", facts["seed"], facts["trial"]),
        )
    except KeyError as error:
        raise _strange(path) from error


def _strange(path: Path) -> UserError:
    return UserError(f"{path}: no probe of this program; delete it and run again")


# Checks -----------------------------------------------------------------------------------------


def _check_weights(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.read_tensor_facts(path, stage="probe")
    yield from _check_identity(facts, names, library)
    yield from finite(path)


def _check_facts(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.read_json(path)
    store.expect_stage(path, facts, "probe")
    yield from _check_identity(facts, names, library)
    yield from must(0 <= facts["val_accuracy"] <= 1, "val_accuracy out of [0, 1]")
    yield from must(facts["epochs"] >= 0 and facts["seconds"] >= 0, "epochs or seconds")


def _check_identity(facts: dict, names: Mapping[str, str], library: Library) -> Iterator[str]:
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")


CHECKS = [(LAYOUT.probe, _check_weights), (LAYOUT.probe_facts, _check_facts)]
