"""The two measures of TE-NAS: κ of the neural tangent kernel, and R, the linear regions.

See ``ftd.search.te_nas.pruning`` for what they are for, and how they depart from the paper's code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ftd.errors import UserError
from ftd.models.genotype import Skeleton
from ftd.models.macs import BACKWARD
from ftd.runtime.precision import without_tf32
from ftd.search.ledger import Ledger
from ftd.search.space import Space
from ftd.search.supernet import Path, PathMacs, Supernet
from ftd.search.te_nas import TeNas
from ftd.tasks.data import TaskData

WINDOW = 3
"""Side of the inputs on which linear regions are counted."""
ANCHORS = 30
"""Windows of images on the line along which they are counted."""
PRECISION = 3
"""Decimals of relative changes, as in the released code."""
PIXELS = 2**13
"""Of all copies of the images in one pass; more copies save calls, but need memory."""
RELUS = (F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)

Edge = tuple[str, int, int]
"""Kind of cell, node, input."""
Values = tuple[list[list[float]], list[list[int]]]
"""κ and R [draws][operations], without each of some operations."""


@dataclass(frozen=True)
class Draw:
    """Random weights and images, on which all supernets of a round are measured.

    Attributes:
        net, images: for κ, the supernet and [N, C, H, W].
        thin, points: for R, the supernet one channel wide and [M, 1, 3, 3].
        macs, thin_macs: what a path of each costs, forward, for an image.
    """

    net: Supernet
    images: torch.Tensor
    macs: PathMacs
    thin: Supernet
    points: torch.Tensor
    thin_macs: PathMacs


def drawing(
    skeleton: Skeleton, space: Space, data: TaskData, settings: TeNas
) -> Callable[[int], Draw]:
    """A function from a seed to its draw. Its supernets have one cell of each kind.

    Raises:
        UserError: an operation or a head with parameters of which κ is not known.
    """

    shape, window = data.task.image_shape, (1, WINDOW, WINDOW)
    kinds = len(skeleton.kinds)
    skeleton = replace(skeleton, cells=kinds, reductions=tuple(range(1, kinds)))

    def fresh(skeleton: Skeleton, shape: tuple, generator: torch.Generator) -> Supernet:
        net = Supernet(skeleton, space.operations, image_shape=shape, target=data.target, seed=0)
        _initialise(net, generator)
        return net

    def nets(generator: torch.Generator) -> tuple[Supernet, Supernet]:
        net = fresh(skeleton, shape, generator)
        thin = fresh(replace(skeleton, channels=1), window, generator)
        _replace(thin, nn.Conv2d, Unrolled)
        with torch.no_grad():  # builds the matrices, which are no part of a path's cost
            thin.eval()(torch.zeros(1, *window), thin.uniform())
        return net, thin.train()

    net, thin = nets(torch.Generator())
    try:
        _layers(net)
    except ValueError as error:
        raise UserError(f"te-nas: {error}; search by another method") from error
    macs, thin_macs = net.path_macs(shape), thin.path_macs(window)

    def draw(seed: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        net, thin = nets(generator)
        images = _images(data, settings.ntk_images, generator)
        anchors = anchors_of(_images(data, 4 * ANCHORS, generator), generator)
        points = points_between(anchors, settings.region_samples).to(data.device)
        _replace(net, nn.BatchNorm2d, lambda norm: FixedStatistics(len(images), norm.eps))
        net, thin = net.to(data.device), thin.to(data.device)
        return Draw(net, images, macs, thin, points, thin_macs)

    return draw


def _images(data: TaskData, count: int, generator: torch.Generator) -> torch.Tensor:
    images, _ = next(data.batches("train", count, generator))
    return images.contiguous()


def anchors_of(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Different windows of one channel, one an image [N, C, H, W] at random: [≤ 30, 1, 3, 3]."""
    windows = images.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
    shape = windows.shape[1:4]
    at = torch.randint(shape.numel(), (len(images),), generator=generator)
    found = windows[torch.arange(len(images)), *torch.unravel_index(at, shape)]
    found = found.unique(dim=0)  # without it, much of a line may lie on the background
    return found[torch.randperm(len(found), generator=generator)[:ANCHORS], None]


def points_between(anchors: torch.Tensor, count: int) -> torch.Tensor:
    """Points [count, …], evenly on the closed line through ``anchors`` [N, …] in their order."""
    place = torch.arange(count, device=anchors.device) * len(anchors)
    first, share = place // count, (place % count) / count
    return anchors[first].lerp(anchors[(first + 1) % len(anchors)], share.view(-1, 1, 1, 1))


def _initialise(net: nn.Module, generator: torch.Generator) -> None:
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _replace(net: nn.Module, kind: type[nn.Module], by: Callable[[Any], nn.Module]) -> None:
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, by(child))


class FixedStatistics(nn.Module):
    """Batch norm by statistics of each ``images`` rows, which gradients take as constants."""

    def __init__(self, images: int, eps: float):
        super().__init__()
        self.images, self.eps = images, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, over = x.unflatten(0, (-1, self.images)), (1, 3, 4)
        x = x - x.detach().mean(over, keepdim=True)
        variance = x.detach().square().mean(over, keepdim=True)
        return (x * (variance + self.eps).rsqrt()).flatten(0, 1)


class Unrolled(nn.Module):
    """A convolution of small maps, all of one size, as one matrix: many times as fast."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution
        self.register_buffer("matrix", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.matrix is None:
            basis = torch.eye(x[0].numel(), device=x.device).view(-1, *x.shape[1:])
            columns = self.convolution(basis)
            self.shape, self.matrix = columns.shape[1:], columns.flatten(1)
        return (x.flatten(1) @ self.matrix).unflatten(1, self.shape)


def measure(draws: list[Draw], path: Path, edge: Edge | None, ledger: Ledger) -> Values:
    """κ and R of a path without each operation of an edge (``None``: as it is), by draw."""
    names = [None] if edge is None else names_on(path, edge)
    paths = [path if name is None else without(path, edge, name) for name in names]
    kappas, regions = [], []
    for draw in draws:
        kappas.append(_conditions(draw, path, edge, names, ledger))
        regions.append([linear_regions(draw.thin, draw.points, one) for one in paths])
        ledger.spend(len(draw.points) * sum(map(draw.thin_macs, paths)))
    return kappas, regions


def changes(whole: list[float], parts: list[list[float]]) -> list[float]:
    """(whole − part) / whole, the mean over draws, for each operation.

    Each is rounded before, so that what is nearly equal is equal to a ranking.

    Args:
        whole: κ or R by draw, of the supernet.
        parts: [draws][operations], without each operation.
    """

    def change(whole: float, part: float) -> float:
        # κ of a singular kernel is infinite.
        return 0.0 if whole == part else round(1 - part / whole, PRECISION)

    rows = [[change(of, part) for part in row] for of, row in zip(whole, parts, strict=True)]
    return [round(fmean(column), 2 * PRECISION) for column in zip(*rows, strict=True)]


def names_on(path: Path, edge: Edge) -> list[str]:
    """The operations of a path on an edge."""
    kind, node, source = edge
    return [name for name, taken in path[kind][node] if taken == source]


def without(path: Path, edge: Edge, name: str) -> Path:
    """A path less one operation of an edge."""
    kind, number, source = edge
    nodes = list(path[kind])
    nodes[number] = tuple(pair for pair in nodes[number] if pair != (name, source))
    return path | {kind: nodes}


def _conditions(
    draw: Draw, path: Path, edge: Edge | None, names: list[str | None], ledger: Ledger
) -> list[float]:
    """κ of a path without each of the names, several at once: single passes are mostly calls.

    Each has a copy of the images, in which its operation's output is set to zero. All are
    evaluated, and counted, in full.
    """
    images, found = draw.images, []
    copies = max(1, PIXELS // images[:, 0].numel())
    for first in range(0, len(names), copies):
        some = names[first : first + copies]
        with without_tf32(), _left_out(draw.net, edge, some, images):
            grams, macs = _grams(draw.net, images.repeat(len(some), 1, 1, 1), path, len(some))
        found += map(_condition, grams)
        ledger.spend(len(some) * len(images) * draw.macs(path) * (1 + BACKWARD) + macs)
    return found


@contextmanager
def _left_out(
    net: Supernet, edge: Edge | None, names: list[str | None], images: torch.Tensor
) -> Iterator[None]:
    """Set the output of ``names[i]`` on an edge to zero in the i-th copy of ``images``."""
    hooks = []
    for row, name in enumerate(names):
        if name not in (None, "none"):
            factor = images.new_ones(len(names), len(images))
            factor[row] = 0
            hooks += [
                operation.register_forward_hook(partial(_times, factor.view(-1, 1, 1, 1)))
                for operation in _modules(net, edge, name)
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _times(factor: torch.Tensor, _: nn.Module, __: tuple, output: torch.Tensor) -> torch.Tensor:
    return output * factor


def _modules(net: Supernet, edge: Edge, name: str) -> list[nn.Module]:
    """An operation of an edge, in every cell of its kind."""
    kind, node, source = edge
    cells = (cell for cell in net.cells if cell.kind == kind)
    return [cell.edges[cell.numbers[node, source]].ops[name] for cell in cells]


def ntk_condition(net: nn.Module, images: torch.Tensor, path: Path) -> float:
    """Condition number κ of the neural tangent kernel on images [N, C, H, W].

    The kernel [N, N] is J·Jᵀ, where row i of J is the gradient of image i's outputs, summed, by
    all parameters. κ is ``inf`` if it is singular, or so nearly that rounding decides.

    Args:
        net: (images, path) → outputs [N, …]. Parameters only in ``Conv2d`` (padded with zeros)
            and ``Linear``, each used at most once; no gradient passes from one image to another,
            as it does in a batch norm in training mode.

    Raises:
        ValueError: a parameter of another layer.
    """
    grams, _ = _grams(net, images, path, 1)
    return _condition(grams[0])


def _grams(
    net: nn.Module, images: torch.Tensor, path: Path, groups: int
) -> tuple[torch.Tensor, int]:
    """Kernels [G, N, N], float64, of images [G·N, …], and the multiply-accumulates of J·Jᵀ.

    One pass forward and one backward give every layer's input and its output's gradient; of these
    the layer's columns of J are built, and only their products kept.
    """
    layers = _layers(net)
    used: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []

    def tap(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        used.append((layer, inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(tap) for layer in layers]
    try:
        found = net(images, path)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [output for _, _, output in used]
    gradients = torch.autograd.grad(found.sum(), outputs, allow_unused=True)
    count, macs = len(images) // groups, 0
    grams = images.new_zeros(groups, count, count, dtype=torch.float64)
    for (layer, x, _), g in zip(used, gradients, strict=True):
        if g is not None:
            columns = _gradients(layer, x, g).view(groups, count, -1).double()
            grams += columns @ columns.transpose(1, 2)
            macs += columns.numel() * count
    return grams, macs


def _layers(net: nn.Module) -> list[nn.Module]:
    """The layers that have parameters; ``ValueError`` if there are others than are known."""
    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    known = {id(parameter) for layer in layers for parameter in layer.parameters()}
    for name, parameter in net.named_parameters():
        if id(parameter) not in known:
            raise ValueError(
                f"a neural tangent kernel is known for Conv2d and Linear only, not for {name}"
            )
    return layers


def _gradients(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Each sample's gradient by a layer's parameters [B, P], of its input and output gradient."""
    if isinstance(layer, nn.Linear):
        rows, bias = g[:, :, None] * x[:, None], g
    else:
        rows, bias = _filter_gradients(layer, x, g), g.sum((2, 3))
    rows = rows.reshape(len(x), -1)
    return rows if layer.bias is None else torch.cat([rows, bias], dim=1)


def _filter_gradients(layer: nn.Conv2d, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    size, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if layer.groups == layer.in_channels == layer.out_channels:
        # Where a filter has one input, its gradient is that convolved with the output's gradient,
        # stride and dilation exchanged: here many times as fast as unfolding.
        x, g = x.flatten(0, 1), g.flatten(0, 1)[:, None]
        rows = F.conv2d(x, g, None, dilation, layer.padding, stride, groups=len(x))
        return rows[:, : size[0], : size[1]]
    if (*size, *stride, *layer.padding) == (1, 1, 1, 1, 0, 0):
        columns = x.flatten(2)
    else:
        columns = F.unfold(x, size, dilation, layer.padding, stride)
    columns = columns.reshape(len(x) * layer.groups, -1, columns.shape[2])
    return g.reshape(len(columns), -1, columns.shape[2]) @ columns.transpose(1, 2)


def _condition(gram: torch.Tensor) -> float:
    """Largest by smallest eigenvalue."""
    values = torch.linalg.eigvalsh(gram)
    low, high = values[0].item(), values[-1].item()
    return high / low if low > high * torch.finfo(torch.float32).eps else float("inf")


def linear_regions(net: nn.Module, images: torch.Tensor, path: Path) -> int:
    """R: how many different patterns of active ReLUs ``net(images, path)`` has over the images.

    Images with one pattern lie in one linear region of the network. A ReLU is active where its
    output is above zero.
    """
    with torch.no_grad(), _Activations() as seen:
        net(images, path)
    active = torch.cat(seen.outputs, dim=1) > 0
    return len({row.tobytes() for row in np.packbits(active.cpu().numpy(), axis=1)})


class _Activations(TorchFunctionMode):
    """Records the outputs of all ReLUs, modules and functions."""

    def __init__(self):
        super().__init__()
        self.outputs: list[torch.Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function in RELUS:
            self.outputs.append(output.flatten(1))
        return output
