"""Yes or no at every pixel, such as edges and key points: a Bernoulli variable by its logit."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ftd.errors import UserError
from ftd.tasks.targets.dense import maps, measured


class BinaryMaps:
    """−log p of a Bernoulli variable; the score of a sample is its F1 at logit 0.

    F1 = 2 TP / (2 TP + FP + FN) over all of its measured values; 1 where neither the sample nor the
    answer has any.

    Args:
        channels: maps of an image.
    """

    metric = "F1"
    outcomes = 2

    def __init__(self, channels: int = 1):
        self.outputs = channels

    def natural(self, score: float) -> float:
        """The score itself."""
        return score

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Annotations [B, C, H, W] of 0, 1 and NaN, as float32.

        Raises:
            UserError: other shapes or values.
        """
        values = maps(annotations, self.outputs)
        other = values[~values.isnan() & (values != 0) & (values != 1)]
        if len(other):
            raise UserError(
                f"expected a map of 0 and 1, and NaN where nothing was measured, got {other[0]:g}"
            )
        return values

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """log(1 + exp o) − t o [B, C, H, W]."""
        valid = measured(targets)
        known = torch.where(valid, targets, 0).to(outputs.dtype)
        each = F.binary_cross_entropy_with_logits(outputs, known, reduction="none")
        return torch.where(valid, each, 0)

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """F1; 0 where nothing was measured."""
        valid = measured(targets)
        given, wanted = (outputs > 0) & valid, targets == 1
        both = (given & wanted).flatten(1).sum(1)
        all_of_them = (given.flatten(1).sum(1) + wanted.flatten(1).sum(1)).double()
        found = torch.where(all_of_them > 0, 2 * both / all_of_them, 1)
        return torch.where(valid.flatten(1).any(1), found, 0)

    def draw(
        self, outputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """1 with the probability that the logit says."""
        chances = outputs.double().sigmoid()
        drawn = chances.bernoulli(generator=generator).to(targets.dtype)
        return torch.where(measured(targets), drawn, torch.nan)

    def constants(self, targets: torch.Tensor) -> Iterable[torch.Tensor]:
        """Where the share of ones is above 0, 1/32, …, 1/2.

        The share that is best for F1 is half of the best F1, and so at most 1/2 (Lipton et al.
        2014): of rare ones, always saying no has F1 0.
        """
        shares = targets.nanmean(0)
        for number in range(17):
            yield shares - number / 32

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """The probability of a one."""
        return outputs.sigmoid()

    def shown(self, targets: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return targets
