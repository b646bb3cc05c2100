"""Targets with an answer for every pixel: what their kinds have in common.

Where nothing was measured, a target is NaN, or a label of -1: such pixels have no part in losses,
scores and Fisher information.
"""

import itertools
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import nn

from ftd.errors import UserError
from ftd.tasks.targets.alignment import Entries, InOrderOf, index_order, without_heads
from ftd.tasks.targets.decoder import channels_of, decoder, redraw

DRAWS = 8
"""Targets drawn of every sample where there are too many to take all (``expected``)."""
_ALL = 64  # so many of a sample's targets are taken one by one, each with its probability
_CHUNK = 256  # samples at a time, of constant answers


class Kind(Protocol):
    """What tells one kind of dense target from another: a likelihood of each pixel, and a score.

    Targets are [B, C, H, W], or [B, H, W] of labels; outputs [B, ``outputs``, H, W].

    Attributes:
        outputs: channels of an output.
        metric: what the score is called in its natural terms.
        outcomes: how many values an entry of a target may have, 0, 1, …; ``None``: a continuum.
    """

    outputs: int
    metric: str
    outcomes: int | None

    def natural(self, score: float) -> float:
        """A score, or a mean of some, in the terms of ``metric``."""

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Targets of annotations."""

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """−log p of every pixel [B, …] but for constants, 0 where nothing was measured."""

    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each sample's score [B] in [0, 1], 0 where none of it was measured."""

    def draw(
        self, outputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Targets drawn from the likelihood, in the places of those that were measured."""

    def constants(self, targets: torch.Tensor) -> Iterable[torch.Tensor]:
        """Outputs [``outputs``, H, W], one answer to all of the targets each: the best, or nearly.

        The best of them is the bar that a probe has to pass, so each kind says how near they come.
        """

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """The most likely targets, or their probabilities, by outputs [B, ``outputs``, H, W]."""

    def shown(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets, or answers, as people look at them; see ``Dense.shown``."""


class Dense:
    """A target of a kind, as ``ftd.Target`` says: a decoder for its head, one likelihood a pixel.

    A sample's loss is the sum over its pixels, since Fisher information is that of all that was
    measured together. Heads are never compared (``pad``): two tasks share their body.

    Attributes:
        outputs: channels of an output.
        metric: what the score is called in its natural terms.
    """

    def __init__(self, kind: Kind):
        self.kind = kind
        self.outputs, self.metric = kind.outputs, kind.metric

    def natural(self, score: float) -> float:
        """A score, or a mean of some, in the terms of ``metric``."""
        return self.kind.natural(score)

    def head(
        self, features: tuple[int, ...], size: tuple[int, int], *, pooled: bool = True
    ) -> nn.Module:
        """A decoder from features to outputs of the images' size; see ``decoder``."""
        return decoder(features, size, self.outputs)

    def start(self, head: nn.Module, seed: int) -> None:
        """PyTorch's initial distribution from (seed, layer, shape); common channels agree."""
        redraw(head, self.outputs, seed)

    def encode(self, annotations: torch.Tensor) -> torch.Tensor:
        """Targets of a data set's annotations.

        Raises:
            UserError: annotations of another shape or with other values than the kind takes.
        """
        return self.kind.encode(annotations)

    def mirrored(self, targets: torch.Tensor) -> torch.Tensor:
        """What mirrored targets mean: of vectors, the first component changes its sign."""
        return self.kind.mirrored(targets) if hasattr(self.kind, "mirrored") else targets

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean over samples of the sum over pixels of −log p; 0 where none was measured.

        Raises:
            UserError: outputs or targets of other shapes, such as those of another kind.
        """
        return self._losses(outputs, targets).mean()

    def _losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each sample's own [B]."""
        self._expect(outputs, targets)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # of half ones
        return self.kind.losses(outputs, targets).flatten(1).sum(1)

    @torch.no_grad()
    def scores(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each sample's score [B] in [0, 1]; 0 where none of it was measured.

        Raises:
            UserError: as ``loss``.
        """
        self._expect(outputs, targets)
        return self.kind.scores(outputs, targets)

    def labels_of(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        estimator: str,
        generator: torch.Generator,
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Targets drawn from each pixel's likelihood; what was not measured stays so.

        ``expected``: all that a sample may have, with their probabilities, where they are at most
        64; else 8 draws of weight 1/8 each, whose mean is unbiased.
        """
        if estimator == "sampled":
            return [(self.kind.draw(outputs, targets, generator), None)]
        values, places = self.kind.outcomes, targets[0].numel()
        if values and values ** min(places, _ALL) <= _ALL:
            return self._every(outputs, targets, values)
        share = outputs.new_full((len(outputs),), 1 / DRAWS, dtype=torch.float64)
        return [(self.kind.draw(outputs, targets, generator), share) for _ in range(DRAWS)]

    def _every(
        self, outputs: torch.Tensor, targets: torch.Tensor, values: int
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """All targets that there may be, and their probabilities.

        Those that differ only where nothing was measured are the same, and share theirs.
        """
        valid = measured(targets)
        same = float(values) ** (~valid).flatten(1).sum(1)
        found = []
        for outcome in itertools.product(range(values), repeat=targets[0].numel()):
            whole = targets.new_tensor(outcome).view(targets.shape[1:])
            labels = torch.where(valid, whole, targets)
            found.append((labels, (-self._losses(outputs.double(), labels)).exp() / same))
        return found

    def align(
        self, model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], how: str
    ) -> InOrderOf:
        """Channel *c* is channel *c*; missing ones are 0, surplus ones left out. ``how``: unused.

        Raises:
            UserError: a network that gives no maps.
        """
        if (channels := channels_of(getattr(model, "head", None))) is None:
            raise UserError(
                "the network's head gives no maps, as those of dense targets do; compare tasks of "
                "one kind, or by a measure of bodies alone, such as fisher-refit"
            )
        return InOrderOf(index_order(channels, self.outputs)[: self.outputs], ())

    def pad(self, first: Entries, second: Entries) -> tuple[Entries, Entries]:
        """Both without their heads, which two tasks do not share."""
        return without_heads(first, second)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """What outputs say, to be compared with targets by eye: in their form."""
        return self.kind.answers(outputs)

    def shown(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets, or answers, to be drawn: [B, C, H, W].

        Numbers in their unit, NaN where nothing was measured; of three channels, colours, scaled
        where they are not in [0, 1]; or class numbers (integers), negative where none counts.
        """
        return self.kind.shown(targets)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """One and the same for all."""
        return np.zeros(len(targets), np.int64)

    def most_frequent(self, targets: np.ndarray) -> float:
        """The mean score of the best of the kind's constant maps, one for all samples."""
        known = torch.from_numpy(targets)
        return max(self._mean_score(answer, known) for answer in self.kind.constants(known))

    def _mean_score(self, answer: torch.Tensor, targets: torch.Tensor) -> float:
        """Of one answer [outputs, H, W] to all."""
        parts = targets.split(_CHUNK)
        sums = [self.scores(answer.expand(len(p), *answer.shape), p).double().sum() for p in parts]
        return float(sum(sums)) / len(targets)

    def _expect(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        shape = list(outputs.shape)
        of_classes = not targets.is_floating_point()
        wanted = shape[:1] + shape[2:] if of_classes else shape
        if len(shape) != 4 or shape[1] != self.outputs or list(targets.shape) != wanted:
            raise UserError(
                f"expected outputs [B, {self.outputs}, H, W] of the targets' height and width, got "
                f"{shape} for targets {list(targets.shape)}; a network of another kind of target "
                "needs a head of this one"
            )


def measured(targets: torch.Tensor) -> torch.Tensor:
    """Where something was measured, bool, in the targets' shape."""
    return ~targets.isnan() if targets.is_floating_point() else targets >= 0


def mean_over(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Each sample's mean [B] of values [B, …] where they are valid; 0 where none is."""
    total = torch.where(valid, values, 0).flatten(1).sum(1)
    return total / valid.flatten(1).sum(1).clamp_min(1)


def maps(annotations: torch.Tensor, channels: int) -> torch.Tensor:
    """Annotations as float32 [B, channels, H, W], NaN where they are not finite.

    Raises:
        UserError: annotations of another shape.
    """
    if annotations.dim() != 4 or annotations.shape[1] != channels:
        raise UserError(
            f"expected annotations [images, {channels}, height, width], got "
            f"{list(annotations.shape)}"
        )
    values = annotations.float()
    return torch.where(values.isfinite(), values, torch.nan)
