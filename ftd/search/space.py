"""Architecture spaces as plain data: skeletons, genotypes, counting, sampling, restriction.

A cell is a small directed acyclic graph: node *i* is fed by the cell's input (number 0) and by
all earlier nodes (numbers 1 to *i*), each edge carries one operation, the output is the
concatenation of the nodes. A genotype gives the operations of a normal and a reduction cell.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ftd.config import OPERATIONS, SpaceSettings
from ftd.errors import UserError

Cell = tuple[tuple[tuple[str, int], ...], ...]
"""For every node its (operation, input) pairs."""


@dataclass(frozen=True)
class Skeleton:
    """What is fixed around the cells: how many, nodes per cell, channels of the first cell."""

    cells: int
    nodes: int
    channels: int

    @property
    def reductions(self) -> tuple[int, int]:
        """Positions of the cells that halve the map and double the channels (as in DARTS)."""
        return self.cells // 3, 2 * self.cells // 3

    @property
    def edges(self) -> int:
        """Edges of one cell."""
        return self.nodes * (self.nodes + 1) // 2


@dataclass(frozen=True)
class Genotype:
    """An architecture: a skeleton and the operations of its two kinds of cell."""

    skeleton: Skeleton
    normal: Cell
    reduction: Cell

    @property
    def operations(self) -> set[str]:
        """The operations it uses."""
        return {op for cell in (self.normal, self.reduction) for node in cell for op, _ in node}

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{skeleton, normal, reduction}``."""
        return {
            "skeleton": asdict(self.skeleton),
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
            skeleton = Skeleton(**value["skeleton"])
            cells = []
            for kind in ("normal", "reduction"):
                cell = tuple(tuple((op, int(i)) for op, i in node) for node in value[kind])
                inputs = [[i for _, i in node] for node in cell]
                if inputs != [list(range(node + 1)) for node in range(skeleton.nodes)]:
                    raise ValueError(f"{kind} cell: wrong inputs")
                if not all(op in OPERATIONS for node in cell for op, _ in node):
                    raise ValueError(f"{kind} cell: unknown operation")
                cells.append(cell)
            return cls(skeleton, *cells)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"no genotype: {error}") from error


@dataclass(frozen=True)
class Space:
    """All genotypes with one of the skeletons and any of the operations on each edge.

    Genotypes are numbered from 0 to ``size`` − 1, which makes sampling exactly uniform.
    """

    operations: tuple[str, ...]
    skeletons: tuple[Skeleton, ...]

    @classmethod
    def full(cls, settings: SpaceSettings) -> "Space":
        """The space that a configuration describes."""
        skeletons = (
            Skeleton(cells, nodes, channels)
            for cells in settings.cells
            for nodes in settings.nodes
            for channels in settings.channels
        )
        return cls(tuple(settings.operations), tuple(skeletons))

    def _count(self, skeleton: Skeleton) -> int:
        return len(self.operations) ** (2 * skeleton.edges)

    @property
    def size(self) -> int:
        """Number of distinct encodings."""
        return sum(self._count(skeleton) for skeleton in self.skeletons)

    @property
    def size_log10(self) -> float:
        """log10 of ``size``."""
        return math.log10(self.size)

    def __contains__(self, genotype: Genotype) -> bool:
        return genotype.skeleton in self.skeletons and genotype.operations <= set(self.operations)

    def __getitem__(self, number: int) -> Genotype:
        if not 0 <= number < self.size:
            raise IndexError(number)
        for skeleton in self.skeletons:
            if number < self._count(skeleton):
                break
            number -= self._count(skeleton)
        cells = []
        for _ in range(2):
            cell = []
            for node in range(skeleton.nodes):
                edges = []
                for source in range(node + 1):
                    number, digit = divmod(number, len(self.operations))
                    edges.append((self.operations[digit], source))
                cell.append(tuple(edges))
            cells.append(tuple(cell))
        return Genotype(skeleton, *cells)

    def sample(
        self, count: int, rng: random.Random, without: Iterable[Genotype] = ()
    ) -> list[Genotype]:
        """``count`` different genotypes, uniformly, none of ``without``; all if there are fewer."""
        taken = set(without)
        free = self.size - sum(genotype in self for genotype in taken)
        found: list[Genotype] = []
        while len(found) < min(count, free):
            genotype = self[rng.randrange(self.size)]
            if genotype not in taken:
                taken.add(genotype)
                found.append(genotype)
        return found

    def restrict(self, genotypes: Iterable[Genotype]) -> "Space":
        """Only the operations and skeletons that the genotypes use (Le et al. 2022, section IV).

        Without genotypes: the space itself.
        """
        genotypes = list(genotypes)
        if not genotypes:
            return self
        used = set().union(*(genotype.operations for genotype in genotypes))
        skeletons = dict.fromkeys(genotype.skeleton for genotype in genotypes)
        return Space(tuple(op for op in OPERATIONS if op in used), tuple(skeletons))

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{operations, skeletons}``."""
        return {
            "operations": list(self.operations),
            "skeletons": [asdict(skeleton) for skeleton in self.skeletons],
        }
