"""Architectures as plain data: skeletons and genotypes.

A cell is a small directed acyclic graph. Its states are numbered: first its inputs, the outputs
of one or two earlier cells (the older first), then its nodes. A node sums operations on earlier
states; the output is the concatenation of the nodes. A genotype gives, for the normal and the
reduction cell, each node's (operation, input) pairs.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ftd import store
from ftd.errors import UserError

Node = tuple[tuple[str, int], ...]
"""(operation, input) pairs of different inputs, in the order of the inputs."""
Cell = tuple[Node, ...]


@dataclass(frozen=True)
class Skeleton:
    """What is fixed around the operations.

    Attributes:
        cells, nodes: how many, and nodes per cell.
        channels: of the first cell; every reduction doubles them.
        reductions: positions of the cells that halve the map.
        feeds: earlier cells that feed a cell, 1 (Le et al. 2022) or 2 (DARTS).
        fan_in: inputs that a node has; ``None``: all earlier states (Le et al. 2022), DARTS: 2.
    """

    cells: int
    nodes: int
    channels: int
    reductions: tuple[int, ...]
    feeds: int = 1
    fan_in: int | None = None

    @classmethod
    def usual(cls, cells: int, nodes: int, channels: int, **more: Any) -> "Skeleton":
        """With reductions after a third and two thirds of the cells, as in DARTS."""
        return cls(cells, nodes, channels, (cells // 3, 2 * cells // 3), **more)

    def scaled(self, cells: int | None = None, channels: int | None = None) -> "Skeleton":
        """With another depth and width; its reductions are spread evenly over the cells."""
        reductions = self.reductions
        if cells is not None:
            parts = len(reductions) + 1
            reductions = tuple(part * cells // parts for part in range(1, parts))
        return replace(
            self,
            cells=cells or self.cells,
            channels=channels or self.channels,
            reductions=reductions,
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of cell there are."""
        return ("normal", "reduction") if self.reductions else ("normal",)

    def inputs(self, node: int) -> int:
        """How many states a node may take as inputs."""
        return self.feeds + node

    def edges(self, node: int) -> int:
        """How many inputs a node has."""
        return min(self.inputs(node), self.fan_in or self.inputs(node))

    @property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """Every (kind, node) of a genotype, in order."""
        return tuple((kind, node) for kind in self.kinds for node in range(self.nodes))


@dataclass(frozen=True)
class Genotype:
    """An architecture: a skeleton and its kinds of cell (``reduction``: empty if there is none)."""

    skeleton: Skeleton
    normal: Cell
    reduction: Cell = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, those of the normal cell first."""
        return self.normal + self.reduction

    @property
    def operations(self) -> set[str]:
        """The operations it uses."""
        return {op for node in self.nodes for op, _ in node}

    @property
    def name(self) -> str:
        """A short digest, to tell genotypes apart in traces and logs."""
        return hashlib.sha256(store.canonical(self.to_json()).encode()).hexdigest()[:8]

    @classmethod
    def of(cls, skeleton: Skeleton, nodes: Iterable[Node]) -> "Genotype":
        """From the nodes of ``skeleton.slots``."""
        nodes = tuple(nodes)
        return cls(skeleton, nodes[: skeleton.nodes], nodes[skeleton.nodes :])

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{skeleton, normal, reduction}``."""
        return {
            "skeleton": asdict(self.skeleton) | {"reductions": list(self.skeleton.reductions)},
            "normal": [[list(edge) for edge in node] for node in self.normal],
            "reduction": [[list(edge) for edge in node] for node in self.reduction],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Genotype":
        """The genotype that ``to_json`` wrote.

        Raises:
            UserError: anything else.
        """
        try:
            skeleton = value["skeleton"]
            skeleton = Skeleton(**skeleton | {"reductions": tuple(skeleton["reductions"])})
            cells = (
                tuple(tuple((str(op), int(i)) for op, i in node) for node in value[kind])
                for kind in ("normal", "reduction")
            )
            found = cls(skeleton, *cells)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"no genotype: {error}") from error
        if not fits_skeleton(found):
            raise UserError("no genotype: nodes or inputs that its skeleton does not have")
        return found


def edges_changed(one: Genotype, other: Genotype) -> int:
    """Edges, of two genotypes of one skeleton, that differ in operation or input."""
    pairs = zip(one.nodes, other.nodes, strict=True)
    return sum(len(set(first) - set(second)) for first, second in pairs)


def fits_skeleton(genotype: Genotype) -> bool:
    """Whether it has just the nodes and inputs that its skeleton says."""
    skeleton = genotype.skeleton
    if len(genotype.normal) != skeleton.nodes or len(genotype.nodes) != len(skeleton.slots):
        return False
    for (_, number), node in zip(skeleton.slots, genotype.nodes, strict=True):
        sources = [source for _, source in node]
        if len(node) != skeleton.edges(number) or sources != sorted(set(sources)):
            return False
        if not all(0 <= source < skeleton.inputs(number) for source in sources):
            return False
    return True
