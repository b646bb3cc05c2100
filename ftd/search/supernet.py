"""The supernet: every operation on every edge of one skeleton, weighted, or one path of it."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ftd.errors import UserError
from ftd.models.cells import Stack, inputs_of, total
from ftd.models.genotype import Genotype, Node, Skeleton
from ftd.models.operations import operation
from ftd.search.space import Space
from ftd.tasks.targets import Target

Weights = dict[str, torch.Tensor]
"""By kind of cell: a weight for every edge and operation [edges, operations]."""
Path = dict[str, list[Node]]
"""By kind of cell: the (operation, input) pairs of every node that are evaluated."""


def skeleton_of(space: Space) -> Skeleton:
    """The largest of a space's skeletons: a supernet has one."""
    if space.centres:
        raise UserError("a supernet spans all operations on all edges, not a neighbourhood")
    return max(space.skeletons, key=lambda s: (s.cells * s.nodes * s.channels, s.cells, s.nodes))


def edges_of(skeleton: Skeleton) -> list[tuple[int, int]]:
    """Every (node, input) of a cell, in order."""
    nodes = range(skeleton.nodes)
    return [(node, source) for node in nodes for source in range(skeleton.inputs(node))]


def kept_edges(skeleton: Skeleton, operations: tuple[str, ...], node: int) -> int:
    """How many edges of a node carry more than ``none`` in what a method finds: DARTS' two.

    Where the skeleton has a ``fan_in``, so many; all, where a space has no ``none`` for the rest.
    """
    kept = skeleton.edges(node)
    return min(kept, 2) if "none" in operations and skeleton.fan_in is None else kept


class Edge(nn.Module):
    """All operations of an edge on the first 1/``partial`` of the channels.

    The other channels pass by (halved by maximum, where the edge halves), and the channels are
    then shuffled, so that every operation sees all of them in turn (PC-DARTS, Xu et al. 2020).
    What passes by has the sum of the operations' weights, which is the edge's (β; 1 without).
    """

    def __init__(self, operations: tuple[str, ...], c: int, stride: int, partial: int):
        super().__init__()
        if c % partial:
            raise UserError(f"{c} channels cannot be split by search.pc_darts.partial = {partial}")
        self.names, self.partial, self.stride = operations, partial, stride
        self.ops = nn.ModuleDict(
            {name: operation(name, c // partial, stride) for name in operations if name != "none"}
        )
        for name, module in self.ops.items():
            if name.endswith("pool_3x3"):  # of comparable scale, as all others are
                self.ops[name] = nn.Sequential(module, nn.BatchNorm2d(c // partial))

    def forward(self, x: torch.Tensor, weights: torch.Tensor | None, chosen: str | None = None):
        """Weighted sum of the operations, or the chosen one."""
        used = x[:, : x.shape[1] // self.partial]
        if chosen is not None:
            mixed = self.ops[chosen](used)
        else:
            terms = [
                weights[index] * self.ops[name](used)
                for index, name in enumerate(self.names)
                if name != "none"  # adds nothing, so it is not evaluated
            ]
            mixed = total(terms, used, self.stride)
        if self.partial == 1:
            return mixed
        rest = x[:, used.shape[1] :]
        if self.stride == 2:
            rest = F.max_pool2d(rest, 2, ceil_mode=True)
        if chosen is None:
            rest = rest * weights.sum()
        joined = torch.cat([mixed, rest], dim=1)
        return joined.unflatten(1, (self.partial, -1)).transpose(1, 2).flatten(1, 2)


class SuperCell(nn.Module):
    """A cell with every operation on every edge."""

    def __init__(
        self,
        kind: str,
        skeleton: Skeleton,
        operations: tuple[str, ...],
        widths: tuple[int, ...],
        c: int,
        halved: bool,
        partial: int,
    ):
        super().__init__()
        self.kind, self.nodes = kind, skeleton.nodes
        self.stride = 2 if kind == "reduction" else 1
        self.preprocess = inputs_of(widths, c, older_is_larger=halved)
        self.numbers = {edge: number for number, edge in enumerate(edges_of(skeleton))}
        self.edges = nn.ModuleList(
            Edge(operations, c, self.stride if source < skeleton.feeds else 1, partial)
            for _, source in self.numbers
        )

    def forward(self, *arguments: torch.Tensor | Weights | Path) -> torch.Tensor:
        *inputs, chosen = arguments
        states = [module(x) for module, x in zip(self.preprocess, inputs, strict=True)]
        for node in range(self.nodes):
            terms = list(self._terms(node, states, chosen[self.kind]))
            states.append(total(terms, states[0], self.stride))
        return torch.cat(states[len(inputs) :], dim=1)

    def _terms(
        self, node: int, states: list[torch.Tensor], chosen: torch.Tensor | list[Node]
    ) -> Iterator[torch.Tensor]:
        if isinstance(chosen, list):
            for name, source in chosen[node]:
                if name != "none":
                    yield self.edges[self.numbers[node, source]](states[source], None, name)
            return
        for source, state in enumerate(states):
            number = self.numbers[node, source]
            yield self.edges[number](state, chosen[number])


class Supernet(Stack):
    """A stack of super-cells: ``net(images, weights)`` or ``net(images, path)``.

    As in DARTS, its batch norms have no weights of their own: they would rescale the operations.

    Args:
        image_shape: of the images, (channels, height, width).
        partial: see ``Edge``.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        operations: tuple[str, ...],
        *,
        image_shape: tuple[int, int, int],
        target: Target,
        seed: int,
        partial: int = 1,
    ):
        def cell_of(kind: str, widths: tuple[int, ...], c: int, halved: bool) -> SuperCell:
            return SuperCell(kind, skeleton, operations, widths, c, halved, partial)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(skeleton, image_shape, target, cell_of)
        self.skeleton, self.operations = skeleton, operations
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight = module.bias = None

    def path(self, genotype: Genotype) -> Path:
        """What of the supernet a genotype is."""
        return {"normal": list(genotype.normal), "reduction": list(genotype.reduction)}

    def uniform(self) -> Weights:
        """Equal weights for all operations, e.g. to count the cost of a weighted pass."""
        edges, count = len(edges_of(self.skeleton)), len(self.operations)
        return {
            kind: torch.full((edges, count), 1 / count, device=self._device)
            for kind in self.skeleton.kinds
        }

    def path_macs(self, image_shape: tuple[int, int, int]) -> "PathMacs":
        """The cost of every path, from one pass."""
        image = torch.zeros((1, *image_shape), device=self._device)
        was_training = self.training
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.eval()(image, self.uniform())
        self.train(was_training)
        flops = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
        return PathMacs(self, flops)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


class PathMacs:
    """Forward multiply-accumulates of a path for one image: what it shares, and its edges."""

    def __init__(self, net: Supernet, flops: dict[str, int]):
        def of(position: int, number: int, name: str) -> int:
            return flops.get(f"Supernet.cells.{position}.edges.{number}.ops.{name}", 0) // 2

        self.edge: dict[tuple[str, int, int, str], int] = {}
        for position, cell in enumerate(net.cells):
            for (node, source), number in cell.numbers.items():
                for name in net.operations:
                    key = cell.kind, node, source, name
                    self.edge[key] = self.edge.get(key, 0) + of(position, number, name)
        self.shared = flops["Global"] // 2 - sum(self.edge.values())

    def __call__(self, path: Path) -> int:
        """Multiply-accumulates of a path."""
        return self.shared + sum(
            self.edge[kind, node, source, name]
            for kind, nodes in path.items()
            for node, edges in enumerate(nodes)
            for name, source in edges
        )


def derive(net_skeleton: Skeleton, operations: tuple[str, ...], weights: Weights) -> Genotype:
    """The genotype of the strongest operations (DARTS, Liu et al. 2019, section 2.4).

    On every edge the strongest operation but ``none``; of every node the edges with the two
    strongest of these (or ``fan_in``), as in DARTS; the others carry ``none``, unless the space
    has no ``none``.
    """
    real = [index for index, name in enumerate(operations) if name != "none"]
    nodes = []
    for kind, node in net_skeleton.slots:
        edges = [number for number, (n, _) in enumerate(edges_of(net_skeleton)) if n == node]
        strength, best = weights[kind][edges][:, real].max(1)
        kept = kept_edges(net_skeleton, operations, node)
        order = strength.argsort(descending=True, stable=True).tolist()
        strongest = set(order[:kept])
        chosen = (
            (operations[real[best[source]]] if source in strongest else "none", source)
            for source in range(len(edges))
        )
        if net_skeleton.fan_in is not None:
            chosen = ((op, source) for op, source in chosen if source in strongest)
        nodes.append(tuple(chosen))
    return Genotype.of(net_skeleton, nodes)
