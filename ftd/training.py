"""Training and measuring a classifier: the one loop that probes and final networks share."""

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from ftd.errors import UserError
from ftd.progress import progress

if TYPE_CHECKING:
    from ftd.slice import TaskData

EVAL_BATCH = 512


def setup() -> None:
    """Set the process up so that a stage's result does not depend on the machine's load.

    One thread, or ``OMP_NUM_THREADS`` (which the workflow sets): sums differ between thread
    counts. Denormals are flushed: an over-trained network's gradients can become so small that
    a CPU works many times slower.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_flush_denormal(True)


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
    anneal: bool = False,
) -> list[float]:
    """Train with Adam and cross entropy; returns the mean training loss of each epoch.

    Args:
        seed: of the order of the images.
        what: named in errors and progress, e.g. "probe zero, trial 0".
        anneal: let the learning rate fall to zero along a half cosine.

    Raises:
        UserError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / epochs)) if anneal else 1.0,
    )
    losses = []
    for _ in progress(range(epochs), what):
        model.train()
        loss_of = lambda images, labels: F.cross_entropy(model(images), labels)  # noqa: E731
        losses.append(train_epoch(data, batch_size, generator, optimizer, loss_of, what))
        schedule.step()
    model.eval()
    return losses


@torch.inference_mode()
def accuracy(model: nn.Module, data: "TaskData", part: str) -> float:
    """Share of a part's images whose largest logit is their label, in [0, 1]."""
    model.eval()
    hits = sum(
        (model(images).argmax(1) == labels).sum()
        for images, labels in data.batches(part, EVAL_BATCH)
    )
    return int(hits) / data.count(part)
