"""Training and measuring a classifier: the one loop that probes and final networks share."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from ftd import versions
from ftd.config import Section
from ftd.device import claim
from ftd.errors import UserError
from ftd.precision import mixed
from ftd.progress import log, progress
from ftd.resume import Resume

if TYPE_CHECKING:
    from ftd.slice import TaskData

EVAL_BATCH = 512


def record(stage: str, settings: Section | dict) -> dict:
    """``versions.record``, and the kind of device: a CPU's result is not a GPU's."""
    return versions.record(stage, settings) | {"device": default_device().type}


def setup() -> None:
    """Set the process up so that a stage's result does not depend on the machine's load.

    One thread, or ``OMP_NUM_THREADS`` (which the workflow sets): sums differ between thread
    counts. Denormals are flushed: an over-trained network's gradients can become so small that
    a CPU works many times slower. Of several GPUs the process takes one for itself, and takes
    cuDNN's deterministic algorithms.
    """
    if not torch.cuda.is_initialized():  # else the choice is made
        claim(detect=torch.backends.cuda.is_built())
    log(f"device: {default_device()}")
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # of nested levels the first
    torch.set_num_threads(int(threads) if threads.isdecimal() else 1)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True


def default_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_epoch(
    data: "TaskData",
    batch_size: int,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    what: str,
) -> float:
    """One pass over ``train``; returns the mean loss per image.

    Raises:
        UserError: the loss is not finite.
    """
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    for images, labels in data.batches("train", batch_size, generator):
        optimizer.zero_grad()
        loss = loss_of(images, labels)
        loss.backward()
        optimizer.step()
        total += loss.detach().double() * len(labels)
    mean = total.item() / data.count("train")
    if not math.isfinite(mean):
        raise UserError(f"{what}: the training loss became {mean}; lower its learning_rate")
    return mean


def fit(
    model: nn.Module,
    data: "TaskData",
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    what: str,
    resume: Resume,
    anneal: bool = False,
    stop_at: float | None = None,
    average: bool = False,
) -> list[float]:
    """Train with Adam and cross entropy (bf16 on a GPU); returns each epoch's mean training loss.

    Args:
        seed: of the order of the images.
        what: named in errors and progress, e.g. "probe zero, trial 0".
        resume: where the state is kept between epochs, and taken up again.
        anneal: let the learning rate fall to zero along a half cosine.
        stop_at: stop after the first epoch with this accuracy on ``val``.
        average: end with the mean of the weights over all steps of the second half of the epochs
            (and batch norms measured anew), as the consistency theorem of Le et al. assumes.

    Raises:
        UserError: a loss or a final weight is not finite.
    """
    with _seeded(seed, data.device):
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), learning_rate)
        mean = AveragedModel(model) if average else None
        models = {"model": model} | ({"mean": mean} if mean else {})
        losses = resume.load(models, {"adam": optimizer}, generator).get("losses", [])
        epoch = len(losses)

        def join(*_) -> None:
            if mean and 2 * epoch >= epochs - 1:
                mean.update_parameters(model)

        optimizer.register_step_post_hook(join)

        def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with mixed(data.device):
                return data.task.target.loss(model(images), labels)

        for epoch in progress(range(len(losses), epochs), what):
            if anneal:
                rate = learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
                optimizer.param_groups[0]["lr"] = rate
            model.train()
            losses.append(train_epoch(data, batch_size, generator, optimizer, loss_of, what))
            if stop_at is not None and accuracy(model, data, "val") >= stop_at:
                break
            resume.keep(models, {"adam": optimizer}, generator, {"losses": losses})
        if mean:
            model.load_state_dict(mean.module.state_dict())
            update_bn(data.batches("train", batch_size, generator), model)
    if not all(value.isfinite().all() for value in model.parameters()):
        raise UserError(f"{what}: its weights are no longer finite; lower its learning_rate")
    model.eval()
    return losses


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of dropout and the like from ``seed``; the process's own are left alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@torch.inference_mode()
def accuracy(model: nn.Module, data: "TaskData", part: str) -> float:
    """Mean score of a part's images, in [0, 1]: for classes, the share that is named rightly."""
    model.eval()
    total = sum(
        data.task.target.scores(model(images), labels).sum()
        for images, labels in data.batches(part, EVAL_BATCH)
    )
    return float(total) / data.count(part)
