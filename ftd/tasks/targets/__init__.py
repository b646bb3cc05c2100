"""Targets: what a task asks of a network, and how it is judged.

Fisher information, probes, search and training know a target by this protocol alone.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # torch and numpy: seconds that registering a target would pay
    import numpy as np
    import torch
    from torch import nn

    Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Alignment(Protocol):
    """How a network's outputs are brought into the order of another task's."""

    def adapt(self, model: "nn.Module") -> "nn.Module":
        """The network with its outputs in the task's order; its parameters are ``network.…``.

        Or the network itself, where there is nothing to be done.
        """

    def reorder(self, entries: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Values by the network's parameter (``head.…``) with the head's in that order."""


class Target(Protocol):
    """What a task asks of a network: a head on a body's features, a loss, a score.

    Attributes:
        outputs: length of an output's first dimension after the batch's.
        metric: what the score is called in its natural terms, such as ``accuracy``.
    """

    outputs: int
    metric: str

    def head(
        self, features: tuple[int, ...], size: tuple[int, int], *, pooled: bool = True
    ) -> "nn.Module":
        """A new head on features (C, H, W), or (F,), of images of a size (height, width).

        Weights are drawn as PyTorch's layers do. ``pooled``: whether the network's maps are
        meant to be averaged where the target has no use for places.
        """

    def start(self, head: "nn.Module", seed: int) -> None:
        """Redraw a head, such that heads of one seed agree in what they share."""

    def encode(self, annotations: "torch.Tensor") -> "torch.Tensor":
        """Targets [B, …] of a data set's annotations [B, …], where slices hold no labels."""

    def loss(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Mean loss over samples: −log p(target | input), but for a constant."""

    def scores(self, outputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Each sample's score [B] in [0, 1], the larger the better."""

    def natural(self, score: float) -> float:
        """A score in [0, 1], or a mean of some, in the terms of ``metric``."""

    def labels_of(
        self,
        outputs: "torch.Tensor",
        targets: "torch.Tensor",
        estimator: str,
        generator: "torch.Generator",
    ) -> "list[tuple[torch.Tensor, torch.Tensor | None]]":
        """Targets that gradients are taken at, and their weights [B] (``None``: 1).

        Outputs are detached. ``estimator`` is ``sampled`` (drawn from the network) or
        ``expected``: all outcomes by their probabilities, or, where those are too many, m
        independent draws of the weight 1/m, whose mean has no bias. A backward pass each;
        micro-batches need weights that are ``None``.
        """

    def align(self, model: "nn.Module", batches: "Batches", how: str) -> Alignment:
        """Bring the outputs of another task's network into the order of this one's.

        ``how`` is ``index`` (an output's number) or ``matching`` (by what it says of this task's
        images, ``batches``, read only where needed).
        """

    def pad(
        self, first: "dict[str, torch.Tensor]", second: "dict[str, torch.Tensor]"
    ) -> "tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]":
        """Values by parameter of two networks, with zeros where only the other's head has some."""

    def strata(self, targets: "np.ndarray") -> "np.ndarray":
        """Of targets [N, …], int64 [N]: what a sample of them should keep in proportion."""

    def most_frequent(self, targets: "np.ndarray") -> float:
        """The score of the best answer that is the same for every sample of targets [N, …]."""
