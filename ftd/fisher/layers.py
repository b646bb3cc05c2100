"""Squared gradients of one layer's parameters, from its input and its output's gradient.

A *unit* is what one loss belongs to: a sample, or a micro-batch of ``m`` samples. Every formula
takes the layer, its input x, the gradient g at its output (both with U·m rows, the samples of a
unit side by side), the number of units U and a budget in bytes for what it builds beside them,
and returns Σ over units of each parameter's squared gradient, shaped as the parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ftd.fisher.convolutions import convolution, transposed
from ftd.fisher.outer import add_outer_squares

Squares = dict[str, torch.Tensor]
Function = Callable[[nn.Module, torch.Tensor, torch.Tensor, int, int], Squares]


@dataclass(frozen=True)
class Formula:
    """A formula, and which layers of its type it holds for; the others take the general path.

    Attributes:
        squares: (layer, x, g, units, budget) → Σ over units of the squared gradient of each of
            the layer's own parameters, by the name that it has in the layer. What it gives beside
            them is averaged over units in the same way.
        dimensions: of an input, the batch's included, that it understands; ``None``: all.
        accepts: (layer) → whether it holds for this one; ``None``: it does for all.
    """

    squares: Function
    dimensions: tuple[int, ...] | None = None
    accepts: Callable[[nn.Module], bool] | None = None


def linear(layer: nn.Linear, x: torch.Tensor, g: torch.Tensor, units: int, budget: int) -> Squares:
    g = g.reshape(units, -1, layer.out_features)
    x = x.reshape(units, -1, layer.in_features)
    weight = g.new_zeros(layer.weight.shape)
    add_outer_squares(weight, g, x, budget)
    return {"weight": weight, "bias": g.sum(1).square_().sum(0)}


def batch_norm(
    layer: nn.BatchNorm2d, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> Squares:
    """Evaluation mode: Σ over positions of g and of g·(x − mean)/√(var + ε), a channel each."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    mean = layer.running_mean.to(x.dtype).view(shape)
    scale = (layer.running_var + layer.eps).rsqrt().to(x.dtype)
    rows = max(1, budget // 4 // (x[0].nbytes + 1))  # which stay in cache from step to step
    sums = [
        _channel_sum((xs - mean).mul_(gs))
        for xs, gs in zip(x.split(rows), g.split(rows), strict=True)
    ]
    return _affine(torch.cat(sums) * scale, _channel_sum(g), units)


def layer_norm(
    layer: nn.LayerNorm, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> Squares:
    product = F.layer_norm(x, layer.normalized_shape, eps=layer.eps).mul_(g)
    shape = (units, -1, *layer.normalized_shape)
    weight, bias = (value.reshape(shape).sum(1).square().sum(0) for value in (product, g))
    return {"weight": weight, "bias": bias}


def group_norm(
    layer: nn.GroupNorm, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> Squares:
    normed = F.group_norm(x, layer.num_groups, eps=layer.eps)
    return _affine(_channel_sum(normed.mul_(g)), _channel_sum(g), units)


def _affine(weight: torch.Tensor, bias: torch.Tensor, units: int) -> Squares:
    """Squares of a per-channel scale's and shift's gradients [N, C], summed over each unit."""
    both = (
        value.view(units, -1, value.shape[1]).sum(1).square_().sum(0) for value in (weight, bias)
    )
    return dict(zip(("weight", "bias"), both, strict=True))


def _channel_sum(g: torch.Tensor) -> torch.Tensor:
    return g if g.dim() == 2 else g.sum(tuple(range(2, g.dim())))


def embedding(
    layer: nn.Embedding, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> Squares:
    """Rows that a unit uses more than once are summed first; unused rows are never built."""
    size = layer.num_embeddings
    unit = torch.arange(units, device=x.device).repeat_interleave(x.numel() // units)
    used, place = torch.unique(unit * size + x.flatten(), return_inverse=True)
    rows = g.new_zeros(len(used), layer.embedding_dim)
    rows.index_add_(0, place, g.reshape(-1, layer.embedding_dim))
    weight = g.new_zeros(size, layer.embedding_dim)
    weight.index_add_(0, used % size, rows.square_())
    if layer.padding_idx is not None:
        weight[layer.padding_idx] = 0
    return {"weight": weight}


def _plain(layer: nn.Module) -> bool:
    """No parameters but those that the type comes with."""
    return {name for name, _ in layer.named_parameters(recurse=False)} <= {"weight", "bias"}


def _with_statistics(layer: nn.BatchNorm2d) -> bool:
    """One that normalises by running statistics: the batch's own mix its samples."""
    return _plain(layer) and layer.running_mean is not None


def _looked_up(layer: nn.Embedding) -> bool:
    """One that neither changes its rows when they are used nor scales their gradients."""
    return _plain(layer) and not layer.max_norm and not layer.scale_grad_by_freq


FORMULAS: dict[type[nn.Module], Formula] = {
    nn.Linear: Formula(linear, accepts=_plain),
    nn.Conv1d: Formula(convolution, (3,), _plain),
    nn.Conv2d: Formula(convolution, (4,), _plain),
    nn.Conv3d: Formula(convolution, (5,), _plain),
    nn.ConvTranspose1d: Formula(transposed, (3,), _plain),
    nn.ConvTranspose2d: Formula(transposed, (4,), _plain),
    nn.ConvTranspose3d: Formula(transposed, (5,), _plain),
    nn.BatchNorm1d: Formula(batch_norm, (2, 3), _with_statistics),
    nn.BatchNorm2d: Formula(batch_norm, (4,), _with_statistics),
    nn.BatchNorm3d: Formula(batch_norm, (5,), _with_statistics),
    nn.LayerNorm: Formula(layer_norm, accepts=_plain),
    nn.GroupNorm: Formula(group_norm, accepts=_plain),
    nn.Embedding: Formula(embedding, accepts=_looked_up),
}
