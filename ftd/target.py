"""Targets: what a task asks of a network. Class labels are one kind."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Classes:
    """One logit a label, cross entropy, accuracy.

    Attributes:
        outputs: number of labels.
    """

    outputs: int

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of outputs [B, labels] for label indices [B]."""
        return F.cross_entropy(outputs, targets)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each sample's score [B] in [0, 1]: whether its label is found."""
        return outputs.argmax(1) == targets
