"""A class at every pixel, such as kinds of objects: a softmax each."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ftd.errors import UserError
from ftd.tasks.targets.dense import measured

_IGNORED = -1


class PixelClasses:
    """−log p of the softmax; the score of a sample is its mean IoU.

    The mean is over the classes that the sample or the answer has, over its measured pixels.

    Args:
        classes: how many there are.
    """

    metric = "mean IoU"

    def __init__(self, classes: int):
        self.outputs = self.outcomes = classes

    def natural(self, score: float) -> float:
        """The score itself."""
        return score

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Annotations [B, H, W] of class numbers, -1 where none counts, as int64.

        Raises:
            UserError: other shapes, types or numbers.
        """
        if annotations.dim() != 3 or annotations.is_floating_point():
            raise UserError(
                "expected annotations [images, height, width] of class numbers, got "
                f"{list(annotations.shape)} of {str(annotations.dtype).removeprefix('torch.')}"
            )
        labels = annotations.long()
        other = labels[(labels < _IGNORED) | (labels >= self.outputs)]
        if len(other):
            raise UserError(
                f"expected class numbers from 0 to {self.outputs - 1}, and {_IGNORED} for pixels "
                f"to leave out, got {int(other[0])}"
            )
        return labels

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy [B, H, W]."""
        return F.cross_entropy(outputs, targets, ignore_index=_IGNORED, reduction="none")

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean IoU; 0 where nothing was measured."""
        valid, given = measured(targets), outputs.argmax(1)
        first = torch.arange(len(targets), device=targets.device).view(-1, 1, 1) * self.outputs

        def counts(labels: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
            """Pixels of each sample and class [B, classes]."""
            found = torch.bincount((first + labels)[where], minlength=len(labels) * self.outputs)
            return found.view(len(labels), self.outputs)

        both = counts(given, valid & (given == targets))
        either = counts(given, valid) + counts(targets, valid) - both
        return (both / either.clamp_min(1)).sum(1) / (either > 0).sum(1).clamp_min(1)

    def draw(
        self, outputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Classes drawn from the softmax: the first of exponential clocks of such rates."""
        shares = outputs.double().softmax(1)
        waits = torch.empty_like(shares).exponential_(generator=generator) / shares
        return torch.where(measured(targets), waits.argmin(1), _IGNORED)

    def constants(self, targets: torch.Tensor) -> Iterable[torch.Tensor]:
        """The most frequent class of each pixel, of all, and of the 1, 2, 4, … most frequent.

        A rare class that a few pixels say costs all samples without it a share of the mean.
        """
        every = [(targets == label).sum(0) for label in range(self.outputs)]
        counts = torch.stack(every).float()
        rank = counts.sum((1, 2)).argsort(descending=True, stable=True).argsort()
        most = 1
        while most < self.outputs:
            yield torch.where((rank < most)[:, None, None], counts, -1)
            most *= 2
        yield counts

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """The most likely class."""
        return outputs.argmax(1)

    def shown(self, targets: torch.Tensor) -> torch.Tensor:
        """Class numbers [B, 1, H, W]."""
        return targets[:, None]
