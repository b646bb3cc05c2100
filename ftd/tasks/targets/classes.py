"""The target of class labels: one logit a label, cross entropy, accuracy."""

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ftd.errors import UserError
from ftd.runtime.seeds import seed_of
from ftd.tasks.targets.alignment import (
    Entries,
    InOrderOf,
    index_order,
    matched_order,
    pad,
    without_heads,
)

_ROWS = ("head.linear.weight", "head.linear.bias", "head.linear:B")
"""Of a network's Fisher information, what has a row for each label."""


class Classes:
    """One logit a label, cross entropy, accuracy.

    Attributes:
        outputs: number of labels.
        metric: what the score is called in its natural terms.
    """

    metric = "accuracy"

    def __init__(self, outputs: int):
        self.outputs = outputs

    def natural(self, score: float) -> float:
        """The score itself: over samples, the share that is named rightly."""
        return score

    def head(
        self, features: tuple[int, ...], size: tuple[int, int], *, pooled: bool = True
    ) -> nn.Module:
        """A linear layer on the features, averaged over their places if ``pooled``."""
        averaged = pooled and len(features) == 3
        parts = OrderedDict(pool=nn.AdaptiveAvgPool2d(1)) if averaged else OrderedDict()
        width = features[0] if averaged else int(np.prod(features))
        return nn.Sequential(
            OrderedDict(**parts, flat=nn.Flatten(), linear=nn.Linear(width, self.outputs))
        )

    def start(self, head: nn.Module, seed: int) -> None:
        """PyTorch's initial distribution, row by row from (seed, row): common rows agree."""
        linear = head.linear
        bound = linear.in_features**-0.5
        with torch.no_grad():
            for row in range(linear.out_features):
                generator = torch.Generator().manual_seed(seed_of("head", seed, row))
                values = (2 * torch.rand(linear.in_features + 1, generator=generator) - 1) * bound
                linear.weight[row] = values[:-1]
                linear.bias[row] = values[-1]

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Class numbers are labels as they are."""
        return annotations

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of outputs [B, labels] for label indices [B]."""
        return F.cross_entropy(outputs, targets)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Whether each sample's label is found [B]."""
        return outputs.argmax(1) == targets

    def labels_of(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        estimator: str,
        generator: torch.Generator,
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """A label drawn from the softmax (``sampled``), or every one and its probability."""
        return class_labels(outputs, targets, estimator, generator)

    def align(
        self,
        model: nn.Module,
        batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
        how: str,
    ) -> InOrderOf:
        """Label *l* is output *l* (``index``), or the one that its images agree with most.

        Fewer outputs are padded with logit 0, surplus ones go last.

        Raises:
            UserError: a network with another kind of head, or, where they are matched, outputs
                that are not finite.
        """
        linear = getattr(getattr(model, "head", None), "linear", None)
        if linear is None:
            raise UserError(
                "the network's head has no layer 'linear', as those of classes have, whose outputs "
                "could be aligned with labels; compare tasks of one kind of target"
            )
        if how == "matching":
            return InOrderOf(matched_order(model, batches, self.outputs), _ROWS)
        return InOrderOf(index_order(linear.out_features, self.outputs), _ROWS)

    def pad(self, first: Entries, second: Entries) -> tuple[Entries, Entries]:
        """The smaller head's rows padded with zeros to the larger one's.

        Both without their heads where one is a decoder (of a dense target).
        """
        if any(name.startswith("head.out") for name in (*first, *second)):
            return without_heads(first, second)
        return pad(first, second, _ROWS)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """The labels."""
        return targets

    def most_frequent(self, targets: np.ndarray) -> float:
        """The share of the most frequent label."""
        return float(np.bincount(targets).max() / len(targets))


def class_labels(
    outputs: torch.Tensor, targets: torch.Tensor, estimator: str, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Labels under the softmax of outputs [B, classes]; see ``ftd.Target.labels_of``.

    Raises:
        UserError: outputs of another shape.
    """
    if outputs.dim() != 2:
        raise UserError(
            f"estimator {estimator!r}: expected outputs [B, classes], got {list(outputs.shape)}; "
            "give labels_of, the labels that such outputs have, or take the empirical estimator"
        )
    shares = outputs.double().softmax(1)
    if estimator == "sampled":
        return [(torch.multinomial(shares, 1, generator=generator)[:, 0], None)]
    every = torch.arange(shares.shape[1], device=shares.device)
    return [(label.expand(len(shares)), shares[:, label]) for label in every]


def of_slice(facts: dict) -> Classes:
    """The target of a task, by its slice's facts."""
    return Classes(len(facts["labels"]))
