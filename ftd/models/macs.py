"""Counting multiply-accumulates, for all methods by the same counter."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BACKWARD = 2
"""A backward pass costs about twice a forward pass (inputs' and weights' gradients)."""


def forward_macs(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image, forward.

    ``forward``: how the model is called, if not with the image alone.
    """
    parameter = next(model.parameters())
    image = torch.zeros((1, *image_shape), device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()
        (forward or model)(image)
    model.train(was_training)
    return counter.get_total_flops() // 2
