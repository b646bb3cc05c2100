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

from typing import Any

import numpy as np
import torch

from ftd.config.search_keys import SearchSettings
from ftd.models.genotype import Genotype, Skeleton
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.search.supernet import Path, edges_of, skeleton_of
from ftd.search.te_nas.measuring import Draw, Edge, Measures, drawing, measure
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

    With a ``fan_in``, a node keeps so many of its edges, those whose operations had the largest s
    in the last round; of equal ones the first. A round that ``max_macs`` cuts short is dropped:
    every edge then keeps the operation of the largest s in the last whole round or, before one,
    the first that is not ``none``.

    Args:
        start: not used: TE-NAS keeps no incumbent.

    Raises:
        UserError: a space that is a neighbourhood; parameters of which κ is not known.
    """
    ledger = ledger or Ledger()
    pruned = Pruning(space, skeleton_of(space))
    generator = torch.Generator()  # the kept state wants one; each round draws from seeds
    pruned.restore(ledger.load({}, {}, generator))
    draw = drawing(pruned.skeleton, space, data, settings.own)
    while pruned.left > len(pruned.edges) and not ledger.exhausted:
        seeds = (seed_of(seed, pruned.rounds, n) for n in range(settings.own.repeats))
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


def _measure_edges(draws: list[Draw], pruned: "Pruning", ledger: Ledger) -> list[Measures] | None:
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
