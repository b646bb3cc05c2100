"""Squared gradients of a convolution's parameters, transposed or not, in one to three dimensions.

All are those of convolutions in two dimensions. One dimension is a row; of three, each place of the
kernel in depth is a convolution of planes, of which a unit has as many as there are positions in
depth. A transposed convolution is the backward pass of an ordinary one, so the weights of both have
the same gradients, with input and gradient exchanged.

Of the ways to Σ_u (∂ℓ_u/∂w)², which all are exact, the one is taken that is fastest for the shapes
and the budget. A *tap* is one place (row, column) of the kernel.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ftd.fisher.outer import add_outer_squares

_FEW = 64  # positions, of which a kernel of PyTorch's own would make little
_RUN = 16  # numbers on end, of which fewer are slow to copy


@dataclass(frozen=True)
class Kernel:
    """What a convolution's weights are, and which numbers of its input they meet.

    Attributes:
        shape: of the weights: outputs, inputs / groups, and the sides.
        stride, dilation: by dimension.
        groups: of channels.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, layer: nn.Module) -> "Kernel":
        """A layer's; a transposed one's is that of the convolution whose backward pass it is."""
        return cls(tuple(layer.weight.shape), layer.stride, layer.dilation, layer.groups)

    @property
    def sides(self) -> tuple[int, ...]:
        return self.shape[2:]


Way = Callable[
    [Kernel, torch.Tensor, torch.Tensor, list[int], int, int],
    torch.Tensor,  # of the kernel's shape
]


def convolution(
    layer: nn.Module, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> dict[str, torch.Tensor]:
    """Conv1d to Conv3d: Σ over units of squared gradients; see ``ftd.fisher.layers``."""
    around = layer._reversed_padding_repeated_twice  # of every kind of padding, "same" included
    if layer.padding_mode != "zeros":
        x, around = F.pad(x, around, mode=layer.padding_mode), [0] * len(around)
    weight = _squares(Kernel.of(layer), x, g, around, units, budget)
    return {"weight": weight} | _bias(layer, g, units)


def transposed(
    layer: nn.Module, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> dict[str, torch.Tensor]:
    """ConvTranspose1d to ConvTranspose3d: the same, of the convolution that goes from g to x."""
    kernel, around = Kernel.of(layer), []
    sizes = zip(x.shape[2:], g.shape[2:], kernel.sides, strict=True)
    for axis, (positions, size, side) in reversed([*enumerate(sizes)]):
        step, pad = kernel.stride[axis], layer.padding[axis]
        reach = (positions - 1) * step + kernel.dilation[axis] * (side - 1) + 1
        over = size + 2 * pad - reach  # output padding; a whole step of it would be a position
        around += [pad, pad - over if over >= step else pad]
    weight = _squares(kernel, g, x, around, units, budget)
    return {"weight": weight} | _bias(layer, g, units)


def _bias(layer: nn.Module, g: torch.Tensor, units: int) -> dict[str, torch.Tensor]:
    if layer.bias is None:
        return {}
    sums = g.sum(tuple(range(2, g.dim()))).view(units, -1, layer.out_channels)
    return {"bias": sums.sum(1).square().sum(0)}


def _squares(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """Of weights [O, I / groups, …], for inputs [N, I, …] and gradients at outputs [N, O, …]."""
    if len(kernel.sides) == 1:
        row = Kernel(
            (*kernel.shape[:2], 1, *kernel.sides),
            *((1, *kernel.stride), (1, *kernel.dilation), kernel.groups),
        )
        found = _squares(row, x[:, :, None], g[:, :, None], [*around, 0, 0], units, budget)
        return found[:, :, 0]
    if len(kernel.sides) == 3:
        return _by_planes(kernel, x, g, around, units, budget)
    return _way(kernel, x, g, units, budget)(kernel, x, g, around, units, budget)


def _by_planes(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """Of three dimensions: for each place in depth, the planes that it reads, as a unit's own."""
    plane = Kernel(
        (*kernel.shape[:2], *kernel.sides[1:]),
        kernel.stride[1:],
        kernel.dilation[1:],
        kernel.groups,
    )
    total = g.new_zeros(kernel.shape)
    for place in range(kernel.sides[0]):
        read, here = _inside(kernel, 0, place, around[4], x.shape[2], g.shape[2])
        xs, gs = (part.movedim(2, 1).flatten(0, 1) for part in (x[:, :, read], g[:, :, here]))
        if gs.numel():
            total[:, :, place] = _squares(plane, xs, gs, around[:4], units, budget)
    return total


def _way(kernel: Kernel, x: torch.Tensor, g: torch.Tensor, units: int, budget: int) -> Way:
    """Large units are worth a call each; small ones go side by side (on a GPU nearly all)."""
    positions = g.shape[2:].numel() * (len(g) // units)
    taps, (out, inner) = math.prod(kernel.sides), kernel.shape[:2]
    if kernel.groups > 1 and inner == 1:
        return _merged if _has_onednn(x) else _depthwise
    share = taps * inner * max(positions * kernel.groups, out)
    large = share * x.element_size() > budget // 16
    if large and (positions > _FEW or kernel.groups > 1):
        return _one_by_one
    if kernel.groups == 1 and (large or taps == 1):
        return _by_taps
    whole = units * positions * taps * inner * x.element_size() <= budget // 8
    few = inner * kernel.sides[1] < _RUN
    return _unfolded if kernel.groups == 1 and (whole or few) else _by_rows


def _by_taps(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """A product for each tap, over the positions where it does not lie in the padding."""
    x, g = x.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1)
    total = g.new_zeros(*kernel.sides, g.shape[3], x.shape[3])
    for (row, column), part in zip(_taps(kernel), total.flatten(0, 1), strict=True):
        down, here = _inside(kernel, 0, row, around[2], x.shape[1], g.shape[1])
        across, there = _inside(kernel, 1, column, around[0], x.shape[2], g.shape[2])
        gs, xs = g[:, here, there], x[:, down, across]
        if gs.numel():
            gs, xs = (value.reshape(units, -1, value.shape[3]) for value in (gs, xs))
            add_outer_squares(part, gs, xs, budget)
    return total.permute(2, 3, 0, 1)


def _taps(kernel: Kernel) -> Iterator[tuple[int, int]]:
    height, width = kernel.sides
    return ((row, column) for row in range(height) for column in range(width))


def _inside(
    kernel: Kernel, axis: int, place: int, before: int, size: int, positions: int
) -> tuple[slice, slice]:
    """Along an axis, what a place of the kernel reads of an input, and at which positions."""
    step = kernel.stride[axis]
    offset = place * kernel.dilation[axis] - before
    first = max(0, -(offset // step))
    last = min(positions, (size - 1 - offset) // step + 1)
    if last <= first:
        return slice(0, 0), slice(0, 0)
    read = slice(first * step + offset, (last - 1) * step + offset + 1, step)
    return read, slice(first, last)


def _one_by_one(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """PyTorch's own backward pass for each unit."""
    x, padding = _even(x, around)
    # Only the shape of the weight counts; laid out as images are, no unit's result is copied.
    total = g.new_zeros(kernel.shape).contiguous(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    for xs, gs in zip(x.split(len(x) // units), g.split(len(x) // units), strict=True):
        _, product, _ = torch.ops.aten.convolution_backward(
            *(gs, xs, total, None, kernel.stride, padding, kernel.dilation),
            *(False, [0, 0], kernel.groups, [False, True, False]),
        )
        total.addcmul_(product, product)
    return total


def _by_rows(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """Windows are copied out along rows alone; further down, they begin some rows later."""
    (height, width), groups = kernel.sides, kernel.groups
    samples, (_, out, down, across) = len(g) // units, g.shape
    inner = x.shape[1] // groups
    total = g.new_zeros(height, groups, out // groups, width * inner)
    copied = (x.shape[2] + around[2] + around[3]) * across * width * x.shape[1]
    step = samples * max(1, budget // ((copied * x.element_size() + g[0].nbytes) * samples))
    for xs, gs in zip(x.split(step), g.split(step), strict=True):
        count = len(xs) // samples
        windows = _windows(kernel, _padded(xs, around), rows=True)[:, :, :, 0]
        windows = windows.unflatten(4, (groups, inner)).transpose(3, 4).flatten(4)
        gs = gs.permute(0, 2, 3, 1).reshape(count, -1, groups, out // groups)
        for row in range(height):
            first = row * kernel.dilation[0]
            part = windows[:, first : first + (down - 1) * kernel.stride[0] + 1 : kernel.stride[0]]
            part = part.reshape(count, -1, groups, width * inner)
            for group in range(groups):
                add_outer_squares(total[row, group], gs[:, :, group], part[:, :, group], budget)
    total = total.unflatten(3, (width, inner))
    return total.permute(1, 2, 4, 0, 3).flatten(0, 1)


def _unfolded(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """Whole windows are copied out, position beside position: of few channels these are longer."""
    samples, (_, out, *positions) = len(g) // units, g.shape
    columns = math.prod(kernel.shape[1:])
    total = g.new_zeros(out, columns)
    copied = (columns + out) * math.prod(positions) * x.element_size() * samples
    step = samples * max(1, budget // copied)
    for xs, gs in zip(x.split(step), g.split(step), strict=True):
        windows = _windows(kernel, F.pad(xs, around).contiguous()).permute(0, 5, 3, 4, 1, 2)
        windows = windows.unflatten(0, (-1, samples)).movedim(1, 4)
        windows = windows.reshape(len(windows), columns, -1).transpose(1, 2)
        gs = gs.permute(0, 2, 3, 1).reshape(len(windows), -1, out)
        add_outer_squares(total, gs, windows, budget)
    return total.view(kernel.shape)


def _depthwise(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """Each input channel has outputs of its own: windows times gradients, summed over positions."""
    samples, taps, (_, out, *positions) = len(g) // units, kernel.sides, g.shape
    if out > x.shape[1]:
        x = x.repeat_interleave(out // x.shape[1], 1)
    total = g.new_zeros(*taps, out)
    step = max(1, budget // (math.prod(taps) * g[0].nbytes * samples))
    buffer = g.new_empty(*taps, min(step, units) * samples, *positions, out)
    for xs, gs in zip(x.split(step * samples), g.split(step * samples), strict=True):
        windows = _windows(kernel, _padded(xs, around)).permute(3, 4, 0, 1, 2, 5)
        product = torch.mul(windows, gs.permute(0, 2, 3, 1), out=buffer[:, :, : len(gs)])
        sums = product.sum((3, 4)).unflatten(2, (-1, samples)).sum(3)
        total += sums.square_().sum(2)
    return total.permute(2, 0, 1)[:, None]


def _merged(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, around: list[int], units: int, budget: int
) -> torch.Tensor:
    """Depthwise too: all samples' channels as those of one image, for oneDNN's own kernels.

    The image convolved by the gradients at the outputs, with stride and dilation exchanged, is the
    weights' gradient. Of a 3×3 kernel that is not dilated, its own backward pass is faster; of any
    other, slower by far.
    """
    out, channels = g.shape[1], x.shape[1]
    if out > channels:
        x = x.repeat_interleave(out // channels, 1)
    x, padding = _even(x, around)
    samples = len(g) // units
    step = samples * max(1, budget // 2 // (max(x[0].nbytes, g[0].nbytes) * samples))
    total = g.new_zeros(kernel.shape)
    for xs, gs in zip(x.split(step), g.split(step), strict=True):
        found = _merged_gradients(kernel, xs, gs, padding).reshape(-1, samples, *total.shape)
        total += found.sum(1).square_().sum(0)
    return total


def _merged_gradients(
    kernel: Kernel, x: torch.Tensor, g: torch.Tensor, padding: list[int]
) -> torch.Tensor:
    """Each sample's, [N · out, 1, kernel h, kernel w]."""
    taps, channels = kernel.sides, g.shape[0] * g.shape[1]
    if taps == (3, 3) and kernel.dilation == (1, 1):
        x, g = (value.permute(2, 3, 0, 1).flatten(2)[None].permute(0, 3, 1, 2) for value in (x, g))
        weight = x.new_empty(channels, 1, *taps)  # only its shape counts
        return torch.ops.aten.convolution_backward(
            *(g, x, weight, None, kernel.stride, padding, kernel.dilation),
            *(False, [0, 0], channels, [False, True, False]),
        )[1]
    x, g = x.reshape(1, channels, *x.shape[2:]), g.reshape(channels, 1, *g.shape[2:])
    found = F.conv2d(x, g, None, kernel.dilation, padding, kernel.stride, channels)
    return found[0, :, None, : taps[0], : taps[1]]


def _even(x: torch.Tensor, around: list[int]) -> tuple[torch.Tensor, list[int]]:
    """An image, padded already where its sides differ, and what a convolution is to pad."""
    left, right, top, bottom = around
    if left != right or top != bottom:
        return F.pad(x, around), [0, 0]
    return x, [top, left]


def _has_onednn(x: torch.Tensor) -> bool:
    single = x.device.type == "cpu" and x.dtype == torch.float32
    return single and torch.backends.mkldnn.is_available()


def unfolded(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """What an ungrouped convolution multiplies: [N, H', W', kernel h · kernel w · C]."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    image = x.contiguous(memory_format=torch.channels_last)
    return _windows(Kernel.of(layer), image).flatten(3)


def _padded(x: torch.Tensor, around: list[int]) -> torch.Tensor:
    return F.pad(x, around).contiguous(memory_format=torch.channels_last)


def _windows(kernel: Kernel, image: torch.Tensor, *, rows: bool = False) -> torch.Tensor:
    """A view [N, H', W', kernel height, kernel width, C] of a padded image.

    With ``rows``, windows are one row high, at every row.
    """
    image = image.permute(0, 2, 3, 1)
    n, height, width, channels = image.shape
    sn, sh, sw, sc = image.stride()
    (kh, kw), (dh, dw), (th, tw) = kernel.sides, kernel.dilation, kernel.stride
    if rows:
        kh = th = 1
    out_h = (height - dh * (kh - 1) - 1) // th + 1
    out_w = (width - dw * (kw - 1) - 1) // tw + 1
    return image.as_strided(
        (n, out_h, out_w, kh, kw, channels),
        (sn, sh * th, sw * tw, sh * dh, sw * dw, sc),
        image.storage_offset(),
    )
