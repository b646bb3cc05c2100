"""Stage *train*: train a found architecture or a hand-designed network, and test it, once."""

import time
from pathlib import Path

from torch import nn

from ftd import artifacts, networks, slice
from ftd.config import Train
from ftd.errors import UserError
from ftd.macs import forward_macs
from ftd.progress import log
from ftd.resume import Resume
from ftd.search import read_architecture
from ftd.search.cells import build
from ftd.search.space import Genotype
from ftd.seeds import seed_of
from ftd.training import accuracy, fit, record, setup


def run(
    genotype: Path,
    task_slice: Path,
    images: Path,
    *,
    seed: int,
    settings: Train,
    weights_out: Path,
    metrics_out: Path,
) -> dict:
    """Train an architecture on ``train``; write weights (safetensors) and metrics (JSON).

    Metrics: ``accuracy`` on ``test`` and ``val_accuracy`` in [0, 1]; ``parameters``, all weights
    of the network; ``macs`` per image, forward; ``seconds``; and the search's cost, copied.

    Raises:
        UserError: unreadable input, or a loss that is not finite.
    """
    setup()
    found = read_architecture(genotype)
    task = slice.read(task_slice)
    if found["task"] != task.facts["task"]:
        raise UserError(
            f"{genotype} is of task {found['task']}, {task_slice} of {task.facts['task']}"
        )
    what = f"train {found['task']}, method {found['method']}, seed {found['seed']}"
    start = seed_of("train", seed, found["seed"])
    shape = task.image_shape
    model = network_of(found, shape, task.target.outputs, seed=start)
    data = slice.TaskData(task, images, {"train": settings.samples, "val": None, "test": None})
    model.to(data.device)
    identity = {
        "task": found["task"],
        "method": found["method"],
        "seed": found["seed"],
        "experiment_seed": seed,
        "genotype": found["genotype"],
        "network": found["network"],
        "labels": task.labels,
        "image": task.facts["image"],
        "mean": task.facts["mean"],
        "std": task.facts["std"],
        "slice": artifacts.digest(task_slice),
    }
    decided = record("train", settings)
    resume = Resume.beside(weights_out, identity | decided)
    began = time.monotonic()
    losses = fit(
        model,
        data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=start,
        what=what,
        resume=resume,
        anneal=True,
    )
    seconds = time.monotonic() - began
    metrics = identity | {
        "accuracy": accuracy(model, data, "test"),
        "val_accuracy": accuracy(model, data, "val"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": forward_macs(model, shape),
        "train_loss": losses[-1],
        "epochs": len(losses),
        "seconds": seconds,
    }
    metrics |= {key: found[key] for key in ("search_macs", "search_seconds", "space_log10")}
    log(f"{what}: test accuracy {metrics['accuracy']:.4f}")
    artifacts.write_tensors(weights_out, model.state_dict(), identity | decided)
    artifacts.write_json(metrics_out, metrics | decided)
    resume.done()
    return metrics


def network_of(found: dict, shape: tuple[int, int, int], labels: int, *, seed: int) -> nn.Module:
    """The network of a genotype, or the hand-designed one that is named in its place.

    Args:
        found: with ``genotype`` and ``network``, one of them ``None``.
        shape: of an image, (channels, height, width).

    Raises:
        UserError: no genotype, or a network that does not take such images.
    """
    if found["network"] is not None:
        channels, size, _ = shape
        return networks.build(
            found["network"], channels=channels, size=size, labels=labels, seed=seed
        )
    genotype = Genotype.from_json(found["genotype"])
    return build(genotype, channels=shape[0], labels=labels, seed=seed)


def load(path: Path) -> tuple[nn.Module, dict]:
    """A trained network in evaluation mode, and its facts.

    It takes images [B, channels, size, size], scaled to [0, 1] and normalised with the facts'
    ``mean`` and ``std`` per channel; output *j* is the logit of ``facts["labels"][j]``.

    Raises:
        UserError: missing or damaged file, or no network of this program.
    """
    weights, facts = artifacts.read_tensors(path, stage="train")
    try:
        image = facts["image"]
        shape = image["channels"], image["size"], image["size"]
        model = network_of(facts, shape, len(facts["labels"]), seed=0)
        model.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: no trained network of this program") from error
    return model.eval(), facts
