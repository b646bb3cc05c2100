"""Stage *training*: train a found architecture or a hand-designed network, and test it, once."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import HAND_DESIGNED, Train, method_of
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import OPERATIONS
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.stages import search
from ftd.stages import task as slices
from ftd.stages.checking import Library, expect_asked, finite, is_of, must
from ftd.stages.experiment import Experiment
from ftd.stages.search import read_architecture, same_genotype
from ftd.store.provenance import record

if TYPE_CHECKING:
    from torch import nn

    from ftd.store.resume import Resume
    from ftd.tasks.data import TaskData
    from ftd.tasks.slices import Slice
    from ftd.tasks.targets import Target

VERSION = 6


def decides(experiment: Experiment, *, method: str, task: str, seed: int | str) -> dict[str, Any]:
    """All that decides a training, besides its architecture and its slice."""
    found: dict[str, str] = {}
    network = ""
    if method_of(method) is HAND_DESIGNED:
        network = method
    else:
        found = OPERATIONS.digests(*experiment.config.search.space.operations)
    return {
        "settings": settings_of(experiment, method).model_dump(mode="json"),
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task, network=network, others=found),
    }


def settings_of(experiment: Experiment, method: str) -> Train:
    """Those of a method's network: a hand-designed one has no cells to be set."""
    settings = experiment.config.train
    return settings.of_a_whole_network() if method_of(method) is HAND_DESIGNED else settings


def run(experiment: Experiment, *, method: str, task: str, seed: int) -> dict:
    """Train an architecture on ``train``; write weights (safetensors) and metrics (JSON).

    Metrics: ``accuracy`` on ``test`` and ``val_accuracy`` in [0, 1] (``None`` if ``val`` was
    trained on); ``most_frequent``, what always giving the most frequent label scores on ``test``;
    ``genotype``, with the skeleton that was trained; ``parameters``, all weights of that network;
    ``macs`` per image, forward; ``seconds``; and the search's cost, copied.

    Raises:
        UserError: unreadable input, or such that was made otherwise than the configuration asks
            for, or a loss that is not finite.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.device import default_device
    from ftd.runtime.threads import setup
    from ftd.store.resume import Resume

    experiment.expect(method=method, task=task)
    setup()
    names = {"method": method, "task": task, "seed": seed}
    genotype = experiment.input(LAYOUT.genotype, **names)
    found = read_architecture(genotype)
    expect_asked(genotype, found, search.decides(experiment, **names))
    sliced = slices.read(experiment, task=task)
    if found["task"] != sliced.facts["task"]:
        its = sliced.facts["task"]
        raise UserError(f"{genotype}: is of task {found['task']}, the slice is of {its}; run again")
    settings, made = settings_of(experiment, method), decides(experiment, **names)
    found["genotype"] = evaluated(found["genotype"], settings)
    start = seed_of("train", made["seed"], seed)
    model = network_of(found, sliced.image_shape, sliced.target, seed=start)
    data = _data_of(experiment, sliced, settings)
    model.to(data.device)
    identity = names | {
        "experiment_seed": made["seed"],
        "genotype": found["genotype"],
        "network": found["network"],
        "labels": sliced.labels,
        **{key: sliced.facts[key] for key in ("target", "image", "mean", "std")},
        "slice": sliced.facts["sha256"],
    }
    decided = record("training", VERSION, made["settings"], made["parts"])
    decided |= {"device": default_device().type}
    weights_out = experiment.output(LAYOUT.weights, **names)
    resume = Resume.beside(weights_out, identity | decided)
    what = "train {task}, method {method}, seed {seed}".format(**names)
    metrics = _train(model, data, settings, start, what, resume)
    metrics |= identity | _measured(model, data, settings, what)
    metrics |= {key: found[key] for key in ("search_macs", "search_seconds", "space_log10")}
    store.write_tensors(weights_out, model.state_dict(), identity | decided)
    store.write_json(experiment.output(LAYOUT.metrics, **names), metrics | decided)
    resume.done()
    return metrics


def _data_of(experiment: Experiment, sliced: "Slice", settings: Train) -> "TaskData":
    """The slice's parts; ``train`` takes ``val`` in, if it is trained on."""
    parts = {"train": settings.samples, "test": None}
    if settings.with_val:
        part = sliced.part.copy()
        part[part == "val"] = "train"
        sliced = replace(sliced, part=part)
    else:
        parts["val"] = None
    return slices.data_of(experiment, sliced, parts)


def _train(
    model: "nn.Module", data: "TaskData", settings: Train, seed: int, what: str, resume: "Resume"
) -> dict[str, Any]:
    """Train the network; returns what it took."""
    from ftd.models.fitting import fit  # torch, as in run

    began = time.monotonic()
    curve = fit(
        model,
        data,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        what=what,
        resume=resume,
        anneal=True,
        recipe=settings,
    )
    seconds = time.monotonic() - began
    return {"seconds": seconds, "train_loss": curve.losses[-1], "epochs": len(curve.losses)}


def _measured(model: "nn.Module", data: "TaskData", settings: Train, what: str) -> dict[str, Any]:
    """What a trained network is judged by; ``test`` is read here and nowhere else."""
    from ftd.models.fitting import accuracy  # torch, as in run
    from ftd.models.macs import forward_macs

    found = {
        "accuracy": accuracy(model, data, "test"),
        "most_frequent": data.most_frequent("test"),
        "val_accuracy": None if settings.with_val else accuracy(model, data, "val"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": forward_macs(model, data.task.image_shape),
    }
    log(
        f"{what}: test accuracy {found['accuracy']:.4f} (always the most frequent label: "
        f"{found['most_frequent']:.4f})"
    )
    return found


def evaluated(genotype: dict[str, Any] | None, settings: Train) -> dict[str, Any] | None:
    """A searched genotype, as JSON, with the skeleton that it is trained with."""
    from ftd.models.genotype import Genotype  # a job's and a check's alone

    if genotype is None:
        return None
    found = Genotype.from_json(genotype)
    skeleton = found.skeleton.scaled(settings.cells, settings.channels)
    return replace(found, skeleton=skeleton).to_json()


def network_of(
    found: dict, shape: tuple[int, int, int], target: "Target", *, seed: int
) -> "nn.Module":
    """The network of a genotype, or the hand-designed one that is named in its place.

    Args:
        found: with ``genotype`` and ``network``, one of them ``None``.
        shape: of an image, (channels, height, width).

    Raises:
        UserError: no genotype, or a network that does not take such images.
    """
    from ftd.models import cells, networks  # torch, as in run
    from ftd.models.genotype import Genotype

    if found["network"] is not None:
        return networks.build(found["network"], image_shape=shape, target=target, seed=seed)
    genotype = Genotype.from_json(found["genotype"])
    return cells.build(genotype, image_shape=shape, target=target, seed=seed)


def load(path: Path) -> tuple["nn.Module", dict]:
    """A trained network in evaluation mode, and its facts.

    It takes images [B, channels, size, size], scaled to [0, 1] and normalised with the facts'
    ``mean`` and ``std`` per channel; output *j* is the logit of ``facts["labels"][j]``. The
    network has these three as attributes.

    Raises:
        UserError: missing or damaged file, or no network of this program.
    """
    from ftd.tasks.slices import target_of  # numpy, as in run

    weights, facts = store.read_tensors(path, stage="training")
    try:
        image = facts["image"]
        shape = image["channels"], image["size"], image["size"]
        model = network_of(facts, shape, target_of(path, facts["target"]), seed=0)
        model.load_state_dict(weights)
        model.labels, model.mean, model.std = (facts[key] for key in ("labels", "mean", "std"))
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: no trained network of this program") from error
    return model.eval(), facts


# Checks -----------------------------------------------------------------------------------------


def _check_metrics(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.read_json(path)
    store.expect_stage(path, facts, "training")
    yield from _check_identity(facts, names, library)
    for name in ("accuracy", "most_frequent"):
        yield from must(0 <= facts[name] <= 1, f"{name} out of [0, 1]")
    val, seen = facts["val_accuracy"], Train(**facts["settings"]).with_val
    yield from must(val is None if seen else 0 <= val <= 1, "val_accuracy out of [0, 1]")
    yield from must(facts["parameters"] > 0 and facts["macs"] > 0, "no parameters or macs")


def _check_weights(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    yield from _check_identity(store.read_tensor_facts(path, stage="training"), names, library)
    yield from finite(path)


def _check_identity(facts: dict, names: Mapping[str, str], library: Library) -> Iterator[str]:
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    source, settings = library.path(LAYOUT.genotype, **names), Train(**facts["settings"])
    yield from same_genotype(source, facts["genotype"], lambda found: evaluated(found, settings))


CHECKS = [(LAYOUT.weights, _check_weights), (LAYOUT.metrics, _check_metrics)]
