"""The head of dense targets: from a body's features to a map of the images' size."""

import math
from collections import OrderedDict

import torch
from torch import nn

from ftd.runtime.seeds import seed_of

_NARROWEST = 16  # channels
_GROUPS = 8  # of a group norm, where the channels can be divided so
_HIDDEN = 512  # between a vector of features and a map, as in the released probe


def decoder(features: tuple[int, ...], size: tuple[int, int], outputs: int) -> nn.Sequential:
    """A new decoder: features [B, C, h, w], or [B, F] → [B, outputs, height, width].

    Of maps: upsampling by two (bilinear) and a 3×3 convolution to half of the channels, at least
    16, with group norm and ReLU, until the size is reached, at least once; then a 1×1
    convolution. Layers are ``up0.conv``, ``up0.norm``, …, ``out``. Of vectors: the second half of
    the paper's released probe for Taskonomy, with layers ``hidden`` (512) and ``out``.

    Args:
        features: shape of one image's.
        size: (height, width) of the images.
    """
    if len(features) == 1:
        return nn.Sequential(
            OrderedDict(
                hidden=nn.Linear(features[0], _HIDDEN),
                relu=nn.ReLU(),
                out=nn.Linear(_HIDDEN, outputs * size[0] * size[1]),
                maps=nn.Unflatten(1, (outputs, *size)),
            )
        )
    width, *sides = features
    ratios = [whole / side for whole, side in zip(size, sides, strict=True)]
    steps = max(1, round(math.log2(max(ratios))))  # the last may be by more or less than two
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for step in range(steps):
        sides = [min(2 * side, whole) for side, whole in zip(sides, size, strict=True)]
        narrower = max(_NARROWEST, width // 2)
        parts[f"up{step}"] = _larger(width, narrower, size if step == steps - 1 else tuple(sides))
        width = narrower
    parts["out"] = nn.Conv2d(width, outputs, 1)
    return nn.Sequential(parts)


def _larger(width: int, narrower: int, size: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            grow=nn.Upsample(size, mode="bilinear", align_corners=False),
            conv=nn.Conv2d(width, narrower, 3, padding=1),
            norm=nn.GroupNorm(math.gcd(_GROUPS, narrower), narrower),
            relu=nn.ReLU(),
        )
    )


def redraw(head: nn.Module, outputs: int, seed: int) -> None:
    """Draw a decoder's layers anew, as PyTorch does, each from (seed, name, shape).

    The last layer, ``out``, is drawn channel by channel: decoders of other numbers of outputs have
    the same in those that both have.
    """
    with torch.no_grad():
        for name, layer in head.named_modules():
            if isinstance(layer, nn.GroupNorm):
                layer.reset_parameters()
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                pieces = outputs if name == "out" else 1
                weights, biases = (
                    value.unflatten(0, (pieces, -1)) for value in (layer.weight, layer.bias)
                )
                bound = layer.weight[0].numel() ** -0.5
                for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                    own = seed_of("head", seed, name, *weight.shape, number)
                    generator = torch.Generator().manual_seed(own)
                    for values in (weight, bias):
                        drawn = torch.rand(values.shape, generator=generator)
                        values.copy_((2 * drawn - 1) * bound)
