"""Squared gradients of one layer's parameters, from its input and its output's gradient.

A *unit* is what one loss belongs to: a sample, or a micro-batch of ``m`` samples. Every formula
takes the layer, its input x, the gradient g at its output (both with U·m rows, the samples of a
unit side by side), the number of units U and a budget in bytes for what it builds beside them,
and returns Σ over units of each parameter's squared gradient, shaped as the parameter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

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


def add_outer_squares(total: torch.Tensor, g: torch.Tensor, x: torch.Tensor, budget: int) -> None:
    """Add Σ_u (g_uᵀ x_u)² of g [U, P, O] and x [U, P, I] to ``total`` [O, I].

    With one position a unit it is (g²)ᵀ(x²). Else the products are built a few units (or some
    rows of one) at a time, within the budget, and squared in place.
    """
    units, positions, rows = g.shape
    columns = x.shape[2]
    if positions == 1:
        total.addmm_(g[:, 0].square().T, x[:, 0].square())
        return
    held = max(1, budget // g.element_size())
    step = max(1, min(units, held // (rows * columns)))
    height = min(rows, max(1, held // columns))
    gt = g.transpose(1, 2)
    buffer = g.new_empty(step, height, columns)
    for top in range(0, rows, height):
        part = total[top : top + height]
        for first in range(0, units, step):
            last = min(first + step, units)
            product = buffer[: last - first, : len(part)]
            torch.bmm(gt[first:last, top : top + height], x[first:last], out=product)
            if step == 1:
                part.addcmul_(product[0], product[0])
            else:
                part += product.square_().sum(0)


def linear(layer: nn.Linear, x: torch.Tensor, g: torch.Tensor, units: int, budget: int) -> Squares:
    g = g.reshape(units, -1, layer.out_features)
    x = x.reshape(units, -1, layer.in_features)
    weight = g.new_zeros(layer.weight.shape)
    add_outer_squares(weight, g, x, budget)
    return {"weight": weight, "bias": g.sum(1).square().sum(0)}


def conv2d(layer: nn.Conv2d, x: torch.Tensor, g: torch.Tensor, units: int, budget: int) -> Squares:
    """Σ_u (g_uᵀ unfold(x)_u)², a few units at a time.

    At stride 1 the gradient can be unfolded in place of the input (∂w is a correlation of both):
    of the two, the one with fewer channels is.
    """
    bias = g.sum((2, 3)).view(units, -1, layer.out_channels).sum(1).square().sum(0)
    around = layer._reversed_padding_repeated_twice  # of every kind of padding, "same" included
    if layer.padding_mode != "zeros":
        x, around = F.pad(x, around, mode=layer.padding_mode), [0, 0, 0, 0]
    area = math.prod(layer.kernel_size)
    if (
        layer.stride == (1, 1)
        and layer.groups == 1
        and layer.out_channels < layer.in_channels
        and area > 1
    ):
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        edges = [reach[1 - side // 2] - width for side, width in enumerate(around)]
        squares = _unfolded_squares(layer, x, F.pad(g, edges), units, budget)
        return {"weight": squares[0].flip(1, 2).permute(3, 0, 1, 2), "bias": bias}
    squares = _unfolded_squares(layer, g, F.pad(x, around), units, budget)
    return {"weight": squares.flatten(0, 1).permute(0, 3, 1, 2), "bias": bias}


def unfolded(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """What an ungrouped convolution multiplies: [N, H', W', kernel h · kernel w · C]."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return _windows(layer, F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)).flatten(3)


def _unfolded_squares(
    layer: nn.Conv2d, plain: torch.Tensor, image: torch.Tensor, units: int, budget: int
) -> torch.Tensor:
    """Σ_u (plain_uᵀ unfold(image)_u)² of each group: [groups, A, kernel h, kernel w, C]."""
    groups = layer.groups
    windows = _windows(layer, image)
    samples = len(image) // units
    columns = math.prod(windows.shape[3:]) // groups
    plain = plain.permute(0, 2, 3, 1).reshape(units, -1, plain.shape[1])
    rows = plain.shape[2] // groups
    total = plain.new_zeros(groups, rows, columns)
    built = max(windows[0].numel() * samples, total.numel() if groups > 1 else 0)  # by a unit
    step = samples * max(1, budget // (built * image.element_size()))
    for first in range(0, len(image), step):
        part = windows[first : first + step]
        ps = plain[first // samples : (first + len(part)) // samples]
        if groups == 1:
            xs = _copied(part).reshape(len(ps), -1, columns)
            add_outer_squares(total[0], ps, xs, budget)
        else:
            xs = part.unflatten(5, (groups, -1)).permute(0, 5, 1, 2, 3, 4, 6)
            xs = xs.reshape(len(ps), samples, groups, -1, columns).transpose(1, 2)
            xs = xs.reshape(len(ps) * groups, -1, columns)
            ps = ps.unflatten(2, (groups, rows)).permute(0, 2, 3, 1).flatten(0, 1)
            product = torch.bmm(ps, xs).square_()
            total += product.view(-1, groups, rows, columns).sum(0)
    return total.view(groups, rows, *layer.kernel_size, -1)


def _windows(layer: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
    """A view [N, H', W', kernel height, kernel width, C] of a padded image."""
    image = image.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    n, height, width, channels = image.shape
    sn, sh, sw, sc = image.stride()
    (kh, kw), (dh, dw), (th, tw) = layer.kernel_size, layer.dilation, layer.stride
    out_h = (height - dh * (kh - 1) - 1) // th + 1
    out_w = (width - dw * (kw - 1) - 1) // tw + 1
    return image.as_strided(
        (n, out_h, out_w, kh, kw, channels),
        (sn, sh * th, sw * tw, sh * dh, sw * dw, sc),
        image.storage_offset(),
    )


def _copied(windows: torch.Tensor) -> torch.Tensor:
    """Windows copied out; with few channels the positions lie innermost, for longer runs."""
    if math.prod(windows.shape[3:5]) == 1 or windows.shape[5] > 2:
        return windows
    return windows.permute(0, 3, 4, 5, 1, 2).contiguous().permute(0, 4, 5, 1, 2, 3)


def batch_norm(
    layer: nn.BatchNorm2d, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> Squares:
    """Evaluation mode: Σ over positions of g and of g·(x − mean)/√(var + ε), a channel each."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    centred = x - layer.running_mean.to(x.dtype).view(shape)
    scale = (layer.running_var + layer.eps).rsqrt().to(x.dtype)
    weight = _channel_dot(centred, g) * scale
    return _affine(weight, _channel_sum(g), units)


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
    return _affine(_channel_dot(normed, g), _channel_sum(g), units)


def _affine(weight: torch.Tensor, bias: torch.Tensor, units: int) -> Squares:
    """Squares of a per-channel scale's and shift's gradients [N, C], summed over each unit."""
    both = (
        value.view(units, -1, value.shape[1]).sum(1).square().sum(0) for value in (weight, bias)
    )
    return dict(zip(("weight", "bias"), both, strict=True))


def _channel_sum(g: torch.Tensor) -> torch.Tensor:
    return g if g.dim() == 2 else g.flatten(2).sum(2)


def _channel_dot(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return x * g if g.dim() == 2 else (x * g).flatten(2).sum(2)


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
    nn.Conv2d: Formula(conv2d, (4,), _plain),
    nn.BatchNorm1d: Formula(batch_norm, (2, 3), _with_statistics),
    nn.BatchNorm2d: Formula(batch_norm, (4,), _with_statistics),
    nn.BatchNorm3d: Formula(batch_norm, (5,), _with_statistics),
    nn.LayerNorm: Formula(layer_norm, accepts=_plain),
    nn.GroupNorm: Formula(group_norm, accepts=_plain),
    nn.Embedding: Formula(embedding, accepts=_looked_up),
}
