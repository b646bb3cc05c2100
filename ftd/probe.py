"""Stage *probe*: train a task's ε-approximation network from the trial's common start."""

import time
from pathlib import Path

from torch import nn

from ftd import artifacts, networks, slice
from ftd import cache as shared
from ftd.config import Probe
from ftd.errors import UserError
from ftd.progress import log
from ftd.resume import Resume
from ftd.seeds import seed_of
from ftd.training import accuracy, fit, record, setup


def run(
    task_slice: Path,
    images: Path,
    *,
    network: str,
    trial: int,
    seed: int,
    settings: Probe,
    weights_out: Path,
    facts_out: Path,
    pretrained: Path | None = None,
    cache: Path | None = None,
) -> dict:
    """Train one probe; write its weights (safetensors) and its facts (JSON), return the facts.

    ``val_accuracy`` is in [0, 1]; ``reached`` says whether it is at least 1 − ε. ``pretrained``
    (safetensors, named as in the network's body) replaces the random start of the body. A
    training that was stopped goes on where it was. A probe that another experiment trained on an
    equal slice of equal images under equal settings is taken from the folder ``cache``.

    Raises:
        UserError: unreadable input, a loss that is not finite, or a missed 1 − ε where the
            settings say ``on_miss: error``.
    """
    setup()
    task = slice.read(task_slice)
    identity = {
        "task": task.facts["task"],
        "network": network,
        "trial": trial,
        "seed": seed,
        "image": task.facts["image"],
        "labels": task.labels,
        "slice": artifacts.digest(task_slice),
        "pretrained": artifacts.digest(pretrained) if pretrained else None,
    }
    decided = record("probe", settings)
    files = [weights_out, facts_out]
    if cache:
        shareable = identity | decided | {"images": artifacts.digest(images)}
        if shared.take(cache, shareable, files):
            return artifacts.read_json(facts_out)

    data = slice.TaskData(task, images, {"train": None, "val": None})
    model = _start(network, task, seed_of("trial", seed, trial), pretrained).to(data.device)
    resume = Resume.beside(weights_out, identity | decided)
    measured = _train(model, data, settings, identity, resume)
    facts = identity | decided | measured
    artifacts.write_tensors(weights_out, model.state_dict(), identity | decided)
    artifacts.write_json(facts_out, facts)
    if cache:
        shared.give(cache, shareable, files)
    resume.done()
    return facts


def _train(
    model: nn.Module, data: slice.TaskData, settings: Probe, identity: dict, resume: Resume
) -> dict:
    """Train the probe; returns what was measured."""
    what = "probe {task}, network {network}, trial {trial}".format(**identity)
    began = time.monotonic()
    losses = fit(
        model,
        data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed_of("trial", identity["seed"], identity["trial"]),
        what=what,
        resume=resume,
        stop_at=1 - settings.epsilon if settings.stop_early else None,
        average=settings.average,
    )
    seconds = time.monotonic() - began
    val = accuracy(model, data, "val")
    _check_reached(what, val, settings)
    return {
        "val_accuracy": val,
        "reached": val >= 1 - settings.epsilon,
        "train_loss": losses[-1],
        "epochs": len(losses),
        "seconds": seconds,
    }


def _start(network: str, task: slice.Slice, seed: int, pretrained: Path | None) -> nn.Module:
    channels, size, _ = task.image_shape
    model = networks.build(
        network, channels=channels, size=size, labels=task.target.outputs, seed=seed
    )
    if pretrained:
        weights = artifacts.read_foreign_tensors(pretrained)
        try:
            model.body.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                f"{pretrained}: not the body of {network}: {str(error).splitlines()[1].strip()}"
            ) from error
    return model


def _check_reached(what: str, val: float, settings: Probe) -> None:
    text = f"{what}: val accuracy {val:.4f}, wanted {1 - settings.epsilon:.4f}"
    if val < 1 - settings.epsilon and settings.on_miss == "error":
        raise UserError(
            f"{text}; raise probe.epochs or probe.epsilon, or set probe.on_miss to 'record'"
        )
    log(text)


def load(path: Path) -> tuple[nn.Module, dict]:
    """A probe in evaluation mode, and the facts stored with its weights.

    Raises:
        UserError: missing or damaged file, or weights that do not fit the network they name.
    """
    weights, facts = artifacts.read_tensors(path, stage="probe")
    try:
        image = facts["image"]
        model = networks.build(
            facts["network"],
            channels=image["channels"],
            size=image["size"],
            labels=len(facts["labels"]),
            seed=0,
        )
        model.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: no probe of this program; delete it and run again") from error
    return model.eval(), facts
