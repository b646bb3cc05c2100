"""Fine-tuning on a few images a class: which images, in what order, heads and whole networks.

What a source is worth is its accuracy after it against that of the common start; both get the same
images in the same order, from the same head.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ftd.config.transfer_keys import Tuning
from ftd.errors import UserError
from ftd.models.fitting import EVAL_BATCH
from ftd.runtime.seeds import seed_of

Heads = tuple[torch.Tensor, torch.Tensor]
"""Weights [S, C, F] and biases [S, C] of the heads of S sources."""


def drawn(labels: np.ndarray, shots: int, seed: int) -> np.ndarray | None:
    """Rows of ``shots`` images of each class, sorted; more shots hold all images of fewer.

    Args:
        labels: [N], classes from 0, none without an image.

    Returns:
        int64 [shots · C], or ``None`` where a class has fewer images.
    """
    found = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < shots:
            return None
        order = np.random.default_rng(seed_of("shots", seed, int(label))).permutation(len(rows))
        found.append(rows[order[:shots]])
    return np.sort(np.concatenate(found))


def order_of(count: int, batch_size: int, steps: int, seed: int) -> torch.Tensor:
    """Rows of the images of each step, int64 [steps, min(batch_size, count)].

    All images come once before one comes again; no step has fewer than the others.
    """
    size = min(batch_size, count)
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-steps * size // count)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])
    return order[: steps * size].view(steps, size)


@torch.no_grad()
def features_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a network's linear layer gets [N, F] of images, ``EVAL_BATCH`` at a time."""
    steps = [model.body, *list(model.head)[:-1]]
    found = [nn.Sequential(*steps)(batch) for batch in images.split(EVAL_BATCH)]
    return torch.cat(found)


@torch.no_grad()
def body_features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a network's head gets [N, …] of images, ``EVAL_BATCH`` at a time."""
    return torch.cat([model.body(batch) for batch in images.split(EVAL_BATCH)])


def tune_heads(
    features: torch.Tensor,
    labels: torch.Tensor,
    start: nn.Linear,
    order: torch.Tensor,
    settings: Tuning,
) -> Heads:
    """Train a linear head on the features of each of S sources, all at once.

    Adam works on each number alone and the loss is a sum over the sources, so that each gets what
    it would get on its own.

    Args:
        features: float32 [S, N, F], of the same images by S bodies.
        labels: int64 [N].
        start: where all heads start.
        order: see ``order_of``.
    """
    sources = len(features)
    weight = start.weight.detach().expand(sources, -1, -1).clone().requires_grad_()
    bias = start.bias.detach().expand(sources, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], settings.learning_rate)
    for rows in order.to(features.device):
        optimizer.zero_grad()
        outputs = torch.baddbmm(bias[:, None], features[:, rows], weight.transpose(1, 2))
        targets = labels[rows].repeat(sources)
        (F.cross_entropy(outputs.flatten(0, 1), targets, reduction="sum") / len(rows)).backward()
        optimizer.step()
    return weight.detach(), bias.detach()


def tune_whole(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    order: torch.Tensor,
    settings: Tuning,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """Train all of a network, in place; it ends in evaluation mode.

    Args:
        images: its inputs [N, C, H, W], on its device.
        labels: their targets [N, …].
        order: see ``order_of``.
        loss: of outputs and targets.
    """
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    for rows in order.to(images.device):
        optimizer.zero_grad()
        loss(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    model.eval()


def expect_finite(what: str, section: str, *tensors: torch.Tensor) -> None:
    """Compare weights after a fine-tuning with finite numbers.

    Raises:
        UserError: one is not.
    """
    if not all(bool(value.isfinite().all()) for value in tensors):
        raise UserError(
            f"{what}: weights are no longer finite; lower transfer.{section}.learning_rate"
        )
