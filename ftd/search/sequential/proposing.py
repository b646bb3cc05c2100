"""Sequential search: what a surrogate expects most of is tried next.

The surrogate (``ftd.search.surrogate``) begins with the weighted rankings of the learned tasks'
candidates, and learns from every trial how much each learned task counts. Proposed are their
candidates and neighbours of the most promising trials. Without learned tasks, the first trials are
drawn at random, the same ones for every task, so that tasks' candidates compare.

The result is the trial of which most is expected in the end: that counts what like architectures
scored too, where one score has the noise of one short training.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch

from ftd.config.search_keys import SearchSettings
from ftd.models.genotype import Genotype
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.search import trials
from ftd.search.ledger import Learned, Ledger, SearchResult, Start
from ftd.search.space import Space
from ftd.search.surrogate import Surrogate, normal_scores
from ftd.tasks.data import TaskData

FIRST = 6
"""Random trials of a task without learned ones."""
PARENTS = 3
"""So many of the most promising trials have their neighbours proposed."""
SURROGATE = Surrogate()


def search(
    space: Space,
    data: TaskData,
    settings: SearchSettings,
    seed: int,
    start: Start | None = None,
    ledger: Ledger | None = None,
) -> SearchResult:
    """Search for the task of ``data`` (reads ``train`` and ``val`` only).

    Args:
        start: the learned tasks.

    Raises:
        UserError: a loss that is not finite.
    """
    ledger, rules = ledger or Ledger(), settings.own
    learned = start.learned if start else ()
    generator = torch.Generator().manual_seed(seed_of("batches", seed))
    ledger.load({}, {}, generator)
    rng = random.Random(seed_of("candidates", seed))
    first = [] if learned else space.sample(min(FIRST, rules.candidates), rng)
    count = min(rules.candidates, space.size)
    for number in progress(range(len(ledger.candidates), count), ledger.what):
        if ledger.exhausted and number:
            break
        rng = random.Random(seed_of("proposals", seed, number))
        known = number < len(first)
        genotype = first[number] if known else _next(space, learned, ledger, rng)
        trial = trials.begin(genotype, data, settings, seed_of("weights", seed, number))
        loss, score = trials.go_on(trial, rules.epochs, data, settings, generator, ledger)
        ledger.record("trial", loss=loss, score=score, candidate=genotype.name)
        ledger.keep({}, {}, generator, {})
    tried = list(ledger.candidates)
    expectations = _expected(tried, learned, ledger)
    best = tried[int(np.argmax(expectations))]
    return ledger.result(best, trials=len(tried))


def _next(space: Space, learned: Sequence[Learned], ledger: Ledger, rng: random.Random) -> Genotype:
    """Of what is proposed, that of which most is expected; of equal ones, the first."""
    tried = list(ledger.candidates)
    order = np.argsort(-_expected(tried, learned, ledger), kind="stable") if tried else []
    parents = [tried[row] for row in order[:PARENTS]]
    near = (neighbour for parent in parents for neighbour in space.neighbours(parent))
    theirs = (genotype for one in learned for genotype in one.genotypes if genotype in space)
    proposed = [one for one in dict.fromkeys([*theirs, *near]) if one not in ledger.candidates]
    if not proposed:
        return space.sample(1, rng, without=tried)[0]
    return proposed[int(np.argmax(_expected(proposed, learned, ledger)))]


def _expected(
    genotypes: Sequence[Genotype], learned: Sequence[Learned], ledger: Ledger
) -> np.ndarray:
    """What the surrogate expects of some architectures, by all trials, [N]."""
    tried = list(ledger.candidates)
    every = list(dict.fromkeys([*genotypes, *tried]))
    place = {genotype: row for row, genotype in enumerate(every)}
    rows = np.array([place[genotype] for genotype in tried], int)
    values = np.array([one.score for one in ledger.candidates.values()])
    scores = np.empty((len(every), len(learned)))
    for column, one in enumerate(learned):
        scores[:, column] = _on_learned(every, one)
    weights = np.array([one.weight for one in learned])
    found = SURROGATE.expected(weights, scores, differing(every, tried), rows, values)
    return found[[place[genotype] for genotype in genotypes]]


def _on_learned(genotypes: list[Genotype], learned: Learned) -> np.ndarray:
    """Normal scores of what some architectures are expected to score on a learned task, [N]."""
    every = [*genotypes, *learned.genotypes]
    rows = np.arange(len(genotypes), len(every))
    none = np.empty((len(every), 0))
    far = differing(every, learned.genotypes)
    found = SURROGATE.expected(none[0], none, far, rows, -np.array(learned.ranks, float))
    return normal_scores(found)[: len(genotypes)]


def differing(some: Sequence[Genotype], others: Sequence[Genotype]) -> np.ndarray:
    """In how many edges genotypes differ, in operation or input, [N, M].

    Of two skeletons, one more; where one has more edges, these too.
    """
    every = [*some, *others]
    edges = [
        {(number, *edge) for number, node in enumerate(one.nodes) for edge in node} for one in every
    ]
    place = {edge: column for column, edge in enumerate(sorted(set().union(*edges)))}
    has = np.zeros((len(every), len(place)))
    for row, own in enumerate(edges):
        has[row, [place[edge] for edge in own]] = 1
    here, there = has[: len(some)], has[len(some) :]
    most = np.maximum(here.sum(1)[:, None], there.sum(1)[None])
    other = [[one.skeleton != two.skeleton for two in others] for one in some]
    return most - here @ there.T + np.array(other, float).reshape(most.shape)
