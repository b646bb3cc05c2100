"""The labels that a Fisher information's losses are taken at."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ftd.errors import UserError
from ftd.fisher.keeping import kept
from ftd.tasks.targets.classes import class_labels

Choice = tuple[torch.Tensor, torch.Tensor | None]
Choices = list[Choice]
LabelsOf = Callable[[torch.Tensor, torch.Tensor, str, torch.Generator], Choices]
ESTIMATORS = ("empirical", "sampled", "expected")


class Spread:
    """How far apart independent draws of labels bring the trace: the error of their mean.

    Of m draws that each add t_j to a batch's trace, Σ t_j has the variance m · s²(t), which is
    estimated without bias; batches are drawn independently.
    """

    def __init__(self) -> None:
        self.trace, self.variance = 0.0, 0.0

    def add(self, parts: Sequence[float]) -> None:
        """Of a batch, what each draw adds to the sum over samples of squared gradients."""
        mean = sum(parts) / len(parts)
        deviations = sum((part - mean) ** 2 for part in parts)
        self.trace += sum(parts)
        self.variance += len(parts) * deviations / (len(parts) - 1)

    def relative(self) -> float | None:
        """Standard error over draws of the trace, by the trace; ``None``: nothing was drawn, or 0.

        It is that of the labels alone, for these images. Single entries err by more.
        """
        return self.variance**0.5 / self.trace if self.trace else None


def drawn(choices: Choices) -> bool:
    """Whether choices are m independent draws: all have the weight 1/m.

    Outcomes have their probabilities, which are all 1/m only of a network that knows nothing.
    """
    share = 1 / len(choices)
    weights = [weights for _, weights in choices]
    return len(choices) > 1 and all(
        one is not None and bool((one == one.new_tensor(share)).all()) for one in weights
    )


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
        """Pairs of labels [B, …] and their weights [B] (``None``: 1) for outputs [B, …].

        They are outcomes, all of them or some that are drawn: nothing is to rest on which.
        """
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
