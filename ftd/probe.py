"""Stage *probe*: train a task's ε-approximation network from the trial's common start."""

import json
import time
from pathlib import Path

from torch import nn

from ftd import artifacts, networks, slice, versions
from ftd.config import Probe, settings_json
from ftd.errors import UserError
from ftd.progress import log
from ftd.seeds import seed_of
from ftd.training import accuracy, fit, setup


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
) -> dict:
    """Train one probe; write its weights (safetensors) and its facts (JSON), return the facts.

    ``val_accuracy`` is in [0, 1]; ``reached`` says whether it is at least 1 − ε.

    Raises:
        UserError: unreadable input, a loss that is not finite, or a missed 1 − ε where the
            settings say ``on_miss: error``.
    """
    setup()
    task = slice.read(task_slice)
    name = task.facts["task"]
    what = f"probe {name}, network {network}, trial {trial}"
    data = slice.TaskData(task, images, {"train": None, "val": None})
    channels, size, _ = task.image_shape
    start = seed_of("trial", seed, trial)
    model = networks.build(
        network, channels=channels, size=size, labels=len(task.labels), seed=start
    ).to(data.device)

    began = time.monotonic()
    losses = fit(
        model,
        data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=start,
        what=what,
    )
    seconds = time.monotonic() - began
    val = accuracy(model, data, "val")
    reached = val >= 1 - settings.epsilon
    text = f"{what}: val accuracy {val:.4f}, wanted {1 - settings.epsilon:.4f}"
    if not reached and settings.on_miss == "error":
        raise UserError(
            f"{text}; raise probe.epochs or probe.epsilon, or set probe.on_miss to 'record'"
        )
    log(text)

    made_by = {
        "task": name,
        "network": network,
        "trial": trial,
        "seed": seed,
        "image": task.facts["image"],
        "labels": task.labels,
        "settings": json.loads(settings_json(settings)),
        "slice": artifacts.digest(task_slice),
        "version": versions.STAGES["probe"],
    }
    facts = made_by | {
        "val_accuracy": val,
        "reached": reached,
        "train_loss": losses[-1],
        "epochs": len(losses),
        "seconds": seconds,
        "packages": versions.packages(),
    }
    artifacts.write_tensors(weights_out, model.state_dict(), made_by)
    artifacts.write_json(facts_out, facts)
    return facts


def load(path: Path) -> tuple[nn.Module, dict]:
    """A probe in evaluation mode, and the facts stored with its weights.

    Raises:
        UserError: missing or damaged file, or weights that do not fit the network they name.
    """
    weights, facts = artifacts.read_tensors(path)
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
