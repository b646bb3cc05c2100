"""The labels that a Fisher information's losses are taken at."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ftd.errors import UserError
from ftd.fisher.keeping import kept
from ftd.tasks.targets.classes import class_labels

Choices = list[tuple[torch.Tensor, torch.Tensor | None]]
LabelsOf = Callable[[torch.Tensor, torch.Tensor, str, torch.Generator], Choices]
ESTIMATORS = ("empirical", "sampled", "expected")


class Labels:
    """The labels that losses are taken at, under an estimator.

    Raises:
        UserError: an unknown estimator, or one that does not go with micro-batches.
    """

    def __init__(
        self,
        estimator: str,
        labels_of: LabelsOf | None,
        microbatch: int,
        device: torch.device,
        seed: int,
    ):
        if estimator not in ESTIMATORS:
            raise UserError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
        if microbatch < 1 or (microbatch > 1 and estimator == "expected"):
            raise UserError(
                f"microbatch {microbatch} with estimator {estimator!r}: expected at least 1, and 1 "
                "for the expectation over labels"
            )
        self.estimator, self.microbatch = estimator, microbatch
        self.labels_of = labels_of or class_labels
        self.generator = torch.Generator(device).manual_seed(seed)

    def of(self, outputs: Any, targets: torch.Tensor) -> Choices:
        """Pairs of labels [B, …] and their weights [B] (``None``: 1) for outputs [B, …]."""
        if self.estimator == "empirical":
            return [(targets, None)]
        choices = self.labels_of(outputs.detach(), targets, self.estimator, self.generator)
        if self.microbatch > 1 and any(weights is not None for _, weights in choices):
            raise UserError(
                f"microbatch {self.microbatch} with labels that have weights: expected a "
                "labels_of that gives none, or microbatch 1"
            )
        return choices

    def of_each(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> Choices:
        """The same for outputs of the model, run on each unit alone."""
        if self.estimator == "empirical":
            return [(targets, None)]
        with torch.no_grad(), kept(model):
            alone = [model(unit.clone()) for unit in inputs.split(self.microbatch)]
        if not isinstance(alone[0], torch.Tensor):
            raise UserError(
                f"estimator {self.estimator!r}: expected a model whose output is a tensor, "
                f"got {type(alone[0]).__name__}"
            )
        return self.of(torch.cat(alone), targets)
