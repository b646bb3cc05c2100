"""Architecture spaces as plain data: counting, sampling, restriction."""

import functools
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from ftd.config.search_keys import SpaceSettings
from ftd.errors import UserError
from ftd.models.genotype import Genotype, Node, Skeleton, edges_changed, fits_skeleton


@dataclass(frozen=True)
class Space:
    """Genotypes with one of the skeletons and any of the operations on each edge.

    With ``centres``, only those of them that differ from one of these, of the same skeleton, in
    at most ``radius`` edges.
    """

    operations: tuple[str, ...]
    skeletons: tuple[Skeleton, ...]
    centres: tuple[Genotype, ...] = ()
    radius: int = 0

    @classmethod
    def full(cls, settings: SpaceSettings) -> "Space":
        """The space that a configuration describes."""
        more = {"feeds": settings.feeds, "fan_in": settings.fan_in}
        skeletons = (
            Skeleton.usual(cells, nodes, channels, **more)
            for cells in settings.cells
            for nodes in settings.nodes
            for channels in settings.channels
        )
        return cls(tuple(settings.operations), tuple(skeletons))

    @functools.cached_property
    def size(self) -> int:
        """Number of distinct genotypes, exactly."""
        if len(self.centres) > 1:
            return sum(1 for _ in self)  # neighbourhoods overlap
        if self.centres:
            return self._ball_size(self.centres[0])
        return sum(map(self._count, self.skeletons))

    @property
    def size_log10(self) -> float:
        """log10 of ``size``."""
        return math.log10(self.size)

    def __contains__(self, genotype: Genotype) -> bool:
        return (
            genotype.skeleton in self.skeletons
            and genotype.operations <= set(self.operations)
            and fits_skeleton(genotype)
            and (not self.centres or self._balls_around(genotype) > 0)
        )

    def __iter__(self) -> Iterator[Genotype]:
        """Every genotype, once."""
        if self.centres:
            for number, centre in enumerate(self.centres):
                earlier = replace(self, centres=self.centres[:number])
                for genotype in self._ball(centre):
                    if not earlier._balls_around(genotype):
                        yield genotype
            return
        for skeleton in self.skeletons:
            choices = [
                [
                    tuple(zip(operations, sources, strict=True))
                    for sources in itertools.combinations(
                        range(skeleton.inputs(node)), skeleton.edges(node)
                    )
                    for operations in itertools.product(
                        self.operations, repeat=skeleton.edges(node)
                    )
                ]
                for _, node in skeleton.slots
            ]
            for nodes in itertools.product(*choices):
                yield Genotype.of(skeleton, nodes)

    def draw(self, rng: random.Random) -> Genotype:
        """One genotype, all equally probable."""
        if not self.centres:
            weights = list(map(self._count, self.skeletons))
            return self._draw_of(_weighted(self.skeletons, weights, rng), rng)
        sizes = list(map(self._ball_size, self.centres))
        while True:  # what lies in several neighbourhoods would come too often
            genotype = self._draw_near(_weighted(self.centres, sizes, rng), rng)
            if rng.random() * self._balls_around(genotype) < 1:
                return genotype

    def sample(
        self, count: int, rng: random.Random, without: Iterable[Genotype] = ()
    ) -> list[Genotype]:
        """``count`` different genotypes, uniformly, none of ``without``; all if there are fewer."""
        taken = set(without)
        if self.size < 2 * (count + len(taken)):
            free = [genotype for genotype in self if genotype not in taken]
            return rng.sample(free, min(count, len(free)))
        found: list[Genotype] = []
        while len(found) < count:
            genotype = self.draw(rng)
            if genotype not in taken:
                taken.add(genotype)
                found.append(genotype)
        return found

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """Its members that differ from one of them in one edge, or in the skeleton alone."""
        around = Space(self.operations, self.skeletons, (genotype,), 1)
        moved = (replace(genotype, skeleton=skeleton) for skeleton in self.skeletons)
        found = [*around, *(one for one in moved if fits_skeleton(one))]
        return [one for one in found if one != genotype and one in self]

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{operations, skeletons, centres, radius}``."""
        return {
            "operations": list(self.operations),
            "skeletons": [asdict(s) | {"reductions": list(s.reductions)} for s in self.skeletons],
            "centres": [centre.to_json() for centre in self.centres],
            "radius": self.radius,
        }

    def _count(self, skeleton: Skeleton) -> int:
        """Genotypes of a skeleton, without regard to centres."""
        return math.prod(
            math.comb(skeleton.inputs(node), skeleton.edges(node))
            * len(self.operations) ** skeleton.edges(node)
            for _, node in skeleton.slots
        )

    def _draw_of(self, skeleton: Skeleton, rng: random.Random) -> Genotype:
        nodes = []
        for _, node in skeleton.slots:
            sources = sorted(rng.sample(range(skeleton.inputs(node)), skeleton.edges(node)))
            nodes.append(tuple((rng.choice(self.operations), source) for source in sources))
        return Genotype.of(skeleton, nodes)

    def _choices(self, centre: Genotype) -> list[list[tuple[Node, ...]]]:
        """For every node of a centre, its alternatives with 0, 1, … ``radius`` edges changed."""
        return [
            [
                _alternatives(node, centre.skeleton.inputs(number), self.operations, changed)
                for changed in range(min(self.radius, len(node)) + 1)
            ]
            for (_, number), node in zip(centre.skeleton.slots, centre.nodes, strict=True)
        ]

    def _ways(self, centre: Genotype) -> list[list[int]]:
        """[node][changes left]: ways to fill this node and those after it within the changes."""
        ways = [[1] * (self.radius + 1)]
        for alternatives in reversed(self._choices(centre)):
            later = ways[0]
            row = [
                sum(
                    len(found) * later[left - k] for k, found in enumerate(alternatives[: left + 1])
                )
                for left in range(self.radius + 1)
            ]
            ways.insert(0, row)
        return ways

    def _ball_size(self, centre: Genotype) -> int:
        return self._ways(centre)[0][self.radius]

    def _ball(self, centre: Genotype) -> Iterator[Genotype]:
        """Every member of a centre's neighbourhood, once."""

        def fill(choices: list, left: int) -> Iterator[tuple[Node, ...]]:
            if not choices:
                yield ()
                return
            for changed, alternatives in enumerate(choices[0][: left + 1]):
                for rest in fill(choices[1:], left - changed):
                    yield from ((node, *rest) for node in alternatives)

        for nodes in fill(self._choices(centre), self.radius):
            yield Genotype.of(centre.skeleton, nodes)

    def _draw_near(self, centre: Genotype, rng: random.Random) -> Genotype:
        """Uniformly from a centre's neighbourhood."""
        ways, left, nodes = self._ways(centre), self.radius, []
        for alternatives, later in zip(self._choices(centre), ways[1:], strict=True):
            weights = [len(a) * later[left - k] for k, a in enumerate(alternatives[: left + 1])]
            changed = _weighted(range(len(weights)), weights, rng)
            nodes.append(rng.choice(alternatives[changed]))
            left -= changed
        return Genotype.of(centre.skeleton, nodes)

    def _balls_around(self, genotype: Genotype) -> int:
        """How many neighbourhoods a genotype lies in."""
        return sum(
            centre.skeleton == genotype.skeleton and edges_changed(genotype, centre) <= self.radius
            for centre in self.centres
        )


def restrict(
    space: Space, genotypes: Iterable[Genotype], how: str = "neighbourhood", radius: int = 2
) -> Space:
    """The part of a space that learned tasks' optimised genotypes span; without any, all of it.

    Args:
        how: ``"operations"``: only the operations and skeletons they use (Le et al. 2022,
            section IV); ``"neighbourhood"``: what differs from one of them in at most ``radius``
            edges, in operation or input.

    Raises:
        UserError: a genotype that lies outside the space.
    """
    genotypes = tuple(dict.fromkeys(genotypes))
    if not genotypes:
        return space
    if not all(genotype in space for genotype in genotypes):
        raise UserError("a learned task's genotype lies outside the space; search it again")
    skeletons = tuple(dict.fromkeys(genotype.skeleton for genotype in genotypes))
    if how == "neighbourhood":
        return Space(space.operations, skeletons, genotypes, radius)
    used = set().union(*(genotype.operations for genotype in genotypes))
    return Space(tuple(op for op in space.operations if op in used), skeletons)


@functools.lru_cache(maxsize=4096)
def _alternatives(
    node: Node, inputs: int, operations: tuple[str, ...], changed: int
) -> tuple[Node, ...]:
    """Every way to fill a node of so many ``inputs`` with exactly ``changed`` edges changed."""
    found = []
    for kept in itertools.combinations(node, len(node) - changed):
        free = [source for source in range(inputs) if source not in {s for _, s in kept}]
        for sources in itertools.combinations(free, changed):
            for chosen in itertools.product(operations, repeat=changed):
                new = tuple(zip(chosen, sources, strict=True))
                if not set(new) & set(node):
                    found.append(tuple(sorted(kept + new, key=lambda edge: edge[1])))
    return tuple(found)


def _weighted(items: Iterable[Any], weights: list[int], rng: random.Random) -> Any:
    """One of the items, by whole-number weights of any size (exactly, unlike floats)."""
    number = rng.randrange(sum(weights))
    for item, weight in zip(items, weights, strict=True):
        if number < weight:
            return item
        number -= weight
    raise AssertionError("unreachable")
