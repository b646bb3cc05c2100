"""A new head for a task on another's body, where the body's own head answers another question."""

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftd.measures.logistic import fit
from ftd.measures.passes import batch_size

if TYPE_CHECKING:  # what this room only hands on
    from ftd.measures import Data

STEPS, BATCH, LEARNING_RATE = 100, 32, 1e-3


def with_fitted_head(model: nn.Module, data: "Data") -> nn.Module:
    """A network's body with a head that is fitted to a task's ``fisher`` images.

    The body stays as it is and is run over the images once. A head for classes is the logistic
    regression of ``ftd.measures.logistic``; any other one starts as all of the task's heads with
    seed 0 do and takes ``STEPS`` steps of Adam, each with ``BATCH`` images. It takes the features
    as the network's own heads do: averaged, or all of them.

    Args:
        model: with a ``body`` and ``pooled``, as ``ftd.models.networks.build`` makes it; in
            evaluation mode.
        data: the task's images and targets; where they are, the network moves.
    """
    body, target, size = model.body.eval().to(data.device), data.target, data.task.image_shape[1:]
    with torch.no_grad():
        pairs = [(body(x), y) for x, y in data.batches("fisher", batch_size(data))]
    features, targets = map(torch.cat, zip(*pairs, strict=True))
    head = target.head(tuple(features.shape[1:]), size, pooled=model.pooled)
    target.start(head, 0)
    head = head.to(data.device)
    if of_classes(data):
        with torch.no_grad():
            flat = head[:-1](features).float().cpu()
            weight, bias = fit(flat, targets.cpu(), target.outputs)
            head.linear.weight.copy_(weight)
            head.linear.bias.copy_(bias)
    else:
        _train(head, features, targets, data)
    return nn.Sequential(OrderedDict(body=body, head=head)).eval()


def of_classes(data: "Data") -> bool:
    """Whether a task is of class labels, whose likelihood logistic regression maximises.

    By its kind of target: one that a plugin brings may call its score accuracy, and have a linear
    layer, but another loss.
    """
    return data.task.facts["target"]["kind"] == "classes"


def _train(head: nn.Module, features: torch.Tensor, targets: torch.Tensor, data: "Data") -> None:
    """``STEPS`` steps; all images come once before one comes again."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(head.parameters(), LEARNING_RATE)
    size = min(BATCH, len(targets))
    rounds = -(-STEPS * size // len(targets))
    order = torch.cat([torch.randperm(len(targets), generator=generator) for _ in range(rounds)])
    for rows in order[: STEPS * size].view(STEPS, size).to(features.device):
        optimizer.zero_grad()
        data.target.loss(head(features[rows]), targets[rows]).backward()
        optimizer.step()
