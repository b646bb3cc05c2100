"""TE-NAS (Chen, Gong, Wang, ICLR 2021): prune a supernet by what it is before any training.

A supernet with all operations on every edge loses, in every round, one operation of each edge, by
two measures of the network at its random start: κ, the condition number of the neural tangent
kernel (small: easy to train), and R, into how many linear regions the ReLUs cut the inputs
(large: expressive). The paper's algorithm 1, with N for the supernet of a round::

    Δκ(o) = κ(N) − κ(N without o)    the larger, the sooner o is pruned
    ΔR(o) = R(N) − R(N without o)    the smaller, the sooner o is pruned
    s(o)  = rank of o by falling Δκ + rank of o by rising ΔR, among all operations of the network
    on each edge, the operation of smallest s goes

So an operation goes if κ is small and R large once it has gone. κ(N) and R(N) are the same for all
operations of a round, which are measured on the same weights and images: they do not change the
ranks, and are not computed.

As in the paper's released code (github.com/VITA-Group/TENAS):

- Equal values have equal ranks; of equal s, the one of smaller κ goes.
- Weights are Kaiming normal by fan-out, biases zero. (There, by fan-in for R. Here, each
  convolution before a ReLU is followed by a batch norm, so that R does not depend on it.)
- R is counted on random windows of 3×3 pixels and one channel, by cells of one channel. Whole
  images have as many patterns as there are images, whatever is pruned.

Not as there:

- κ is of a supernet as wide and deep as the space says, not of a narrower and shorter one.
- Operations add up without weights, as in the network that a genotype stands for.
- ``none`` is an operation like others, where the space has it.
- For κ, a batch norm takes mean and variance of the images, as there, but they are constants to
  the gradient. This supernet ends in batch norms and a mean, so its outputs would else add up to
  a constant over the images, and the smallest eigenvalue be that of the head's bias alone.
- With a ``fan_in``, edges go by the s of their last operations, not in rounds of their own.
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

from ftd.config import Search, TeNas
from ftd.macs import BACKWARD
from ftd.precision import without_tf32
from ftd.progress import log
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Genotype, Skeleton, Space
from ftd.search.supernet import Path, PathMacs, Supernet, edges_of, skeleton_of
from ftd.seeds import seed_of
from ftd.slice import TaskData

WINDOW = 3
WINDOWS = 16
"""Random windows of an image: of 64 images 1024, where the released code has 3000."""
PIXELS = 2**13
"""Of all copies of the images in one pass; more copies save calls, but need memory."""
RELUS = (F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)

Edge = tuple[str, int, int]
"""Kind of cell, node, input."""
Measures = tuple[list[float], list[float]]
"""κ and R without each of some operations."""


def search(
    space: Space,
    data: TaskData,
    settings: Search,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Search a product space; reads images of ``train`` only, and no labels.

    With a ``fan_in``, a node keeps so many of its edges, those whose operations had the largest s
    in the last round; of equal ones the first. A round that ``max_macs`` cuts short is dropped:
    every edge then keeps the operation of the largest s in the last whole round or, before one,
    the first that is not ``none``.

    Args:
        start: not used: TE-NAS keeps no incumbent.

    Raises:
        UserError: a space that is a neighbourhood.
    """
    ledger = ledger or Ledger()
    pruned = Pruning(space, skeleton_of(space))
    generator = torch.Generator()  # the kept state wants one; each round draws from seeds
    pruned.restore(ledger.load({}, {}, generator))
    draw = drawing(pruned.skeleton, space, data, settings.te_nas)
    while pruned.left > len(pruned.edges) and not ledger.exhausted:
        seeds = (seed_of(seed, pruned.rounds, n) for n in range(settings.te_nas.repeats))
        draws = list(map(draw, seeds))
        measures = _measure_edges(draws, pruned, ledger)
        if measures is None:
            break
        pruned.prune(measures)
        (kappa,), (regions,) = measure(draws, pruned.path, None, ledger)
        kappa = kappa if np.isfinite(kappa) else None  # JSON, of the kept state, has no infinity
        ledger.record("prune", kappa=kappa, regions=regions, left=pruned.left)
        log(f"{ledger.what}: round {pruned.rounds}, {pruned.left} operations left")
        ledger.keep({}, {}, generator, pruned.state())
    return ledger.result(pruned.genotype(), rounds=pruned.rounds)


def _measure_edges(draws: list["Draw"], pruned: "Pruning", ledger: Ledger) -> list[Measures] | None:
    """Measures of every edge that has several operations; ``None`` if the cap is reached first."""
    measures: list[Measures] = []
    for edge, names in pruned.operations.items():
        if ledger.exhausted:
            return None
        measures.append(measure(draws, pruned.path, edge, ledger) if len(names) > 1 else ([], []))
    return measures


class Pruning:
    """The operations that every edge has left, and how important each was when last measured.

    Importance is [s, rank by Δκ], compared in this order.
    """

    def __init__(self, space: Space, skeleton: Skeleton):
        self.skeleton, self.rounds = skeleton, 0
        self.edges: list[Edge] = [
            (kind, node, source) for kind in skeleton.kinds for node, source in edges_of(skeleton)
        ]
        unmeasured = [[-1 if name == "none" else 0, 0] for name in space.operations]
        self.operations = {edge: list(space.operations) for edge in self.edges}
        self.importance = {edge: list(unmeasured) for edge in self.edges}

    @property
    def left(self) -> int:
        """How many operations are left, on all edges together."""
        return sum(map(len, self.operations.values()))

    @property
    def path(self) -> Path:
        """All operations that are left."""
        nodes = range(self.skeleton.nodes)
        path: Path = {kind: [() for _ in nodes] for kind in self.skeleton.kinds}
        for (kind, node, source), names in self.operations.items():
            path[kind][node] += tuple((name, source) for name in names)
        return path

    def prune(self, measures: list[Measures]) -> None:
        """Take the least important operation off every edge, by κ and R without each of them.

        Args:
            measures: of every edge, its operations in order; empty for an edge that has one.
        """
        kappa_rank = _ranks([kappa for kappas, _ in measures for kappa in kappas])
        region_rank = _ranks([-count for _, counts in measures for count in counts])
        for edge, (kappas, counts) in zip(self.edges, measures, strict=True):
            if kappas:
                found = [
                    [kappa_rank[kappa] + region_rank[-count], kappa_rank[kappa]]
                    for kappa, count in zip(kappas, counts, strict=True)
                ]
                least = found.index(min(found))
                del found[least], self.operations[edge][least]
                self.importance[edge] = found
        self.rounds += 1

    def genotype(self) -> Genotype:
        """The most important operation of every edge, or of a node's most important edges."""
        nodes = []
        for slot in self.skeleton.slots:
            best = {}
            for edge in self.edges:
                if edge[:2] == slot:
                    found = self.importance[edge]
                    name = self.operations[edge][found.index(max(found))]
                    best[edge[2]] = max(found), name
            order = sorted(best, key=lambda source: best[source][0], reverse=True)
            kept = sorted(order[: self.skeleton.edges(slot[1])])
            nodes.append(tuple((best[source][1], source) for source in kept))
        return Genotype.of(self.skeleton, nodes)

    def state(self) -> dict[str, Any]:
        """Plain data, for ``restore``."""
        return {
            "operations": list(self.operations.values()),
            "importance": list(self.importance.values()),
            "rounds": self.rounds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave; from the start, if it is empty."""
        if state:
            self.operations = dict(zip(self.edges, state["operations"], strict=True))
            self.importance = dict(zip(self.edges, state["importance"], strict=True))
            self.rounds = state["rounds"]


def _ranks(values: list[float]) -> dict[float, int]:
    """The rank of every value, from 0 for the smallest; equal values share one."""
    return {value: rank for rank, value in enumerate(sorted(set(values)))}


# Measuring --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """Random weights and images, on which all supernets of a round are measured.

    Attributes:
        net, images: for κ, the supernet and [N, C, H, W].
        thin, windows: for R, the supernet one channel wide and [M, 1, 3, 3].
        macs, thin_macs: what a path of each costs, forward, for an image.
    """

    net: Supernet
    images: torch.Tensor
    macs: PathMacs
    thin: Supernet
    windows: torch.Tensor
    thin_macs: PathMacs


def drawing(
    skeleton: Skeleton, space: Space, data: TaskData, settings: TeNas
) -> Callable[[int], Draw]:
    """A function from a seed to its draw."""

    def fresh(skeleton: Skeleton, channels: int, generator: torch.Generator) -> Supernet:
        labels = data.task.target.outputs
        net = Supernet(skeleton, space.operations, channels=channels, labels=labels, seed=0)
        _initialise(net, generator)
        return net

    def nets(generator: torch.Generator) -> tuple[Supernet, Supernet]:
        net = fresh(skeleton, data.task.image_shape[0], generator)
        thin = fresh(replace(skeleton, channels=1), 1, generator)
        _replace(thin, nn.Conv2d, Unrolled)
        with torch.no_grad():  # builds the matrices, which are no part of a path's cost
            thin.eval()(torch.zeros(1, 1, WINDOW, WINDOW), thin.uniform())
        return net, thin.train()

    net, thin = nets(torch.Generator())
    macs, thin_macs = net.path_macs(data.task.image_shape), thin.path_macs((1, WINDOW, WINDOW))

    def draw(seed: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        net, thin = nets(generator)
        images = _images(data, settings.ntk_images, generator)
        windows = windows_of(_images(data, settings.region_images, generator), generator)
        _replace(net, nn.BatchNorm2d, lambda norm: FixedStatistics(len(images), norm.eps))
        net, thin = net.to(data.device), thin.to(data.device)
        return Draw(net, images, macs, thin, windows, thin_macs)

    return draw


def _images(data: TaskData, count: int, generator: torch.Generator) -> torch.Tensor:
    images, _ = next(data.batches("train", count, generator))
    return images.contiguous()


def windows_of(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Of every image [N, C, H, W] some windows of one channel, at random: [M, 1, 3, 3]."""
    windows = images.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
    shape = windows.shape[1:4]
    order = torch.rand(len(images), shape.numel(), generator=generator).argsort(1)
    places = torch.unravel_index(order[:, :WINDOWS], shape)
    rows = torch.arange(len(images))[:, None]
    return windows[rows, *places].flatten(0, 1)[:, None]


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


def measure(draws: list[Draw], path: Path, edge: Edge | None, ledger: Ledger) -> Measures:
    """κ and R of a path without each operation of an edge (``None``: as it is); mean over draws."""
    names = [None] if edge is None else names_on(path, edge)
    paths = [path if name is None else without(path, edge, name) for name in names]
    kappas, regions = [], []
    for draw in draws:
        kappas.append(_conditions(draw, path, edge, names, ledger))
        regions.append([linear_regions(draw.thin, draw.windows, one) for one in paths])
        ledger.spend(len(draw.windows) * sum(map(draw.thin_macs, paths)))
    means = (list(map(fmean, zip(*values, strict=True))) for values in (kappas, regions))
    return tuple(means)


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
        with without_tf32(), _left_out(draw.net, edge, some, len(images)):
            grams, macs = _grams(draw.net, images.repeat(len(some), 1, 1, 1), path, len(some))
        found += map(_condition, grams)
        ledger.spend(len(some) * len(images) * draw.macs(path) * (1 + BACKWARD) + macs)
    return found


@contextmanager
def _left_out(net: Supernet, edge: Edge | None, names: list[str | None], images: int) -> Iterator:
    """Set the output of ``names[i]`` on an edge to zero in the i-th ``images`` rows of a batch."""
    hooks = []
    for row, name in enumerate(names):
        if name not in (None, "none"):
            factor = net.head.weight.new_ones(len(names), images)
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

    The kernel [N, N] is J·Jᵀ, where row i of J is the gradient of image i's logits, summed, by
    all parameters. κ is ``inf`` if it is singular, or so nearly that rounding decides.

    Args:
        net: (images, path) → logits [N, L]. Parameters only in ``Conv2d`` (padded with zeros)
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
    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    known = {id(parameter) for layer in layers for parameter in layer.parameters()}
    if any(id(parameter) not in known for parameter in net.parameters()):
        raise ValueError("a neural tangent kernel is known for Conv2d and Linear only")
    used: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []

    def tap(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        used.append((layer, inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(tap) for layer in layers]
    try:
        logits = net(images, path)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [output for _, _, output in used]
    gradients = torch.autograd.grad(logits.sum(), outputs, allow_unused=True)
    count, macs = len(images) // groups, 0
    grams = images.new_zeros(groups, count, count, dtype=torch.float64)
    for (layer, x, _), g in zip(used, gradients, strict=True):
        if g is not None:
            columns = _gradients(layer, x, g).view(groups, count, -1).double()
            grams += columns @ columns.transpose(1, 2)
            macs += columns.numel() * count
    return grams, macs


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
