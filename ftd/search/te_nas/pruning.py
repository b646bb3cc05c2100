"""TE-NAS (Chen, Gong, Wang, ICLR 2021): prune a supernet by what it is before any training.

A supernet with all operations but ``none`` on every edge loses, in every round, some operations of
each edge, by two measures of the network at its random start: κ, the condition number of the neural
tangent kernel (small: easy to train), and R, into how many linear regions the ReLUs cut the inputs
(large: expressive). The paper's algorithm 1, with N for the supernet of a round::

    Δκ(o) = (κ(N) − κ(N without o)) / κ(N)    the larger, the sooner o is pruned
    ΔR(o) = (R(N) − R(N without o)) / R(N)    the smaller, the sooner o is pruned
    s(o)  = rank of o by falling Δκ + rank of o by rising ΔR, among all operations of the network
    on each edge, the operations of smallest s go

So an operation goes if κ is small and R large once it has gone. When each edge has one operation
left, each node loses edges in the same way, by ranks among its own.

As in the released code (github.com/VITA-Group/TENAS):

- Changes are rounded to 3 decimals, then averaged over draws of weights and images. Equal ones have
  equal ranks; of equal s, the one goes without which κ is smaller.
- The supernet has one cell of each kind.
- Weights are Kaiming normal by fan-out, biases zero. (There, by fan-in for R. Here, each
  convolution before a ReLU is followed by a batch norm, so that R does not depend on it.)
- R is counted on inputs of 3×3 pixels and one channel, by cells of one channel.

Not as there, for what ``docs/search.md`` gives the reasons and measurements:

- The inputs are points of a line through windows of images, not windows: nearly each of those has a
  pattern of its own, whatever is pruned.
- For κ, cells are as wide as the space says, not of one channel.
- For κ, a batch norm takes mean and variance of the images, as there, but they are constants to
  the gradient. This supernet ends in batch norms and a mean, so its outputs would else add up to
  a constant over the images, and the smallest eigenvalue be that of the head's bias alone.
- All operations of a round are measured on the same draws, not each on draws of its own.
- Operations add up without weights, as in the network that a genotype stands for.
"""

from math import isfinite
from statistics import fmean
from typing import Any

import torch

from ftd.config.search_keys import SearchSettings
from ftd.models.genotype import Genotype, Skeleton
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.search.supernet import Path, edges_of, kept_edges, skeleton_of
from ftd.search.te_nas.measuring import Draw, Edge, changes, drawing, measure
from ftd.tasks.data import TaskData


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Search a product space; reads images of ``train`` only, and no labels.

    A node keeps as many edges as ``kept_edges`` says. A round that ``max_macs`` cuts short is
    dropped: edges, and operations on them, are then kept by s in the last whole round or, before
    one, as they come.

    Args:
        start: not used: TE-NAS keeps no incumbent.

    Raises:
        UserError: a space that is a neighbourhood; parameters of which κ is not known.
    """
    ledger = ledger or Ledger()
    pruned = Pruning(space, skeleton_of(space), settings.own.prune)
    generator = torch.Generator()  # the kept state wants one; each round draws from seeds
    pruned.restore(ledger.load({}, {}, generator))
    draw = drawing(pruned.skeleton, space, data, settings.own)
    while (edges := pruned.contested()) and not ledger.exhausted:
        seeds = (seed_of(seed, pruned.rounds, n) for n in range(settings.own.repeats))
        draws = list(map(draw, seeds))
        whole = [[row[0] for row in rows] for rows in measure(draws, pruned.path, None, ledger)]
        kappa, regions = map(fmean, whole)
        found = _without_each(draws, whole, edges, pruned.path, ledger)
        if found is None:
            break
        pruned.prune(edges, found)
        kappa = kappa if isfinite(kappa) else None  # JSON, of the kept state, has no infinity
        ledger.record("prune", kappa=kappa, regions=regions, left=pruned.left)
        log(f"{ledger.what}: round {pruned.rounds}, {pruned.left} operations left")
        ledger.keep({}, {}, generator, pruned.state())
    return ledger.result(pruned.genotype(), rounds=pruned.rounds)


Changes = tuple[list[float], list[float]]
"""Δκ and ΔR without each operation of an edge."""


def _without_each(
    draws: list[Draw], whole: list[list[float]], edges: list[Edge], path: Path, ledger: Ledger
) -> list[Changes] | None:
    """Changes of κ and R, which are ``whole``, by edge; ``None`` if the cap is reached first."""
    found: list[Changes] = []
    for edge in edges:
        if ledger.exhausted:
            return None
        parts = measure(draws, path, edge, ledger)
        found.append(tuple(map(changes, whole, parts)))
    return found


class Pruning:
    """The operations that every edge has left, and how important each was when last measured.

    Importance is [s, rank by Δκ], compared in this order. An edge that is pruned has no operation.

    Args:
        at_once: how many operations an edge loses in a round.
    """

    def __init__(self, space: Space, skeleton: Skeleton, at_once: int):
        self.space, self.skeleton, self.at_once, self.rounds = space, skeleton, at_once, 0
        self.edges: list[Edge] = [
            (kind, node, source) for kind in skeleton.kinds for node, source in edges_of(skeleton)
        ]
        names = [name for name in space.operations if name != "none"] or ["none"]
        self.operations = {edge: list(names) for edge in self.edges}
        self.importance = {edge: [[0, 0] for _ in names] for edge in self.edges}

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

    def contested(self) -> list[Edge]:
        """Edges of which operations go next; else, of a node with too many edges, all that it has.

        Empty: the pruning is done.
        """
        several = [edge for edge in self.edges if len(self.operations[edge]) > 1]
        if several:
            return several
        for slot in self.skeleton.slots:
            edges = self._edges_into(slot)
            if len(edges) > self._kept(slot):
                return edges
        return []

    def prune(self, edges: list[Edge], found: list[Changes]) -> None:
        """Take the least important operations off ``edges``, or the least important edges.

        Args:
            edges: what ``contested`` gave.
            found: of each edge, the changes without each of its operations, in order.
        """
        kappa_rank = _ranks([-change for kappas, _ in found for change in kappas])
        region_rank = _ranks([change for _, regions in found for change in regions])
        for edge, (kappas, regions) in zip(edges, found, strict=True):
            self.importance[edge] = [
                [kappa_rank[-kappa] + region_rank[change], kappa_rank[-kappa]]
                for kappa, change in zip(kappas, regions, strict=True)
            ]
        if len(self.operations[edges[0]]) > 1:
            for edge in edges:
                self._drop(edge, min(self.at_once, len(self.operations[edge]) - 1))
        else:
            order = sorted(edges, key=self.importance.get)
            for edge in order[: len(edges) - self._kept(edges[0][:2])]:
                self._drop(edge, 1)
        self.rounds += 1

    def genotype(self) -> Genotype:
        """The most important operation of every edge, or of a node's most important edges."""
        nodes = []
        for slot in self.skeleton.slots:
            best = {edge: max(self.importance[edge]) for edge in self._edges_into(slot)}
            order = sorted(best, key=best.get, reverse=True)
            node = {
                edge[2]: self.operations[edge][self.importance[edge].index(best[edge])]
                for edge in sorted(order[: self._kept(slot)])
            }
            if self.skeleton.fan_in is None:
                node = dict.fromkeys(range(self.skeleton.inputs(slot[1])), "none") | node
            nodes.append(tuple((name, source) for source, name in node.items()))
        return Genotype.of(self.skeleton, nodes)

    def _kept(self, slot: tuple[str, int]) -> int:
        """How many edges a (kind, node) keeps."""
        return kept_edges(self.skeleton, self.space.operations, slot[1])

    def _edges_into(self, slot: tuple[str, int]) -> list[Edge]:
        """Of a (kind, node), those that are left."""
        return [edge for edge in self.edges if edge[:2] == slot and self.operations[edge]]

    def _drop(self, edge: Edge, count: int) -> None:
        """Take the least important operations off an edge; of equal ones, the first."""
        for _ in range(count):
            least = self.importance[edge].index(min(self.importance[edge]))
            del self.importance[edge][least], self.operations[edge][least]

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
