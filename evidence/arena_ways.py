"""Ways to choose which architectures of a table are tried on a target, one after another.

Each returns rows of a table in the order in which they are tried, without repetition.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr

from evidence.arena_cells import Cells
from ftd.search.surrogate import Surrogate, normal_scores

PROBES = 5
"""Random architectures tried on the target first, where a way wants to know it."""
POPULATION, TOURNAMENT = 10, 5
Rng = np.random.Generator


def in_order(scores: np.ndarray, count: int) -> np.ndarray:
    """The highest scores first; of equal ones, the first rows."""
    return np.argsort(-scores, kind="stable")[:count]


def at_random(cells: Cells, count: int, rng: Rng) -> np.ndarray:
    """Each as probable as any other."""
    return rng.choice(len(cells.codes), count, replace=False)


def evolved(cells: Cells, target: np.ndarray, count: int, rng: Rng) -> np.ndarray:
    """Regularised evolution (Real et al. 2019): a tournament's best has a child, the oldest goes.

    A child is a neighbour that was not tried before; a parent without one gives way to a random
    architecture.

    Args:
        target: what a search sees of the task, [N].
    """
    tried = list(at_random(cells, min(POPULATION, count), rng))
    population, seen = list(tried), set(tried)
    while len(tried) < count:
        entrants = rng.choice(population, min(TOURNAMENT, len(population)), replace=False)
        parent = max(entrants, key=lambda row: target[row])
        child = _one_of(cells.neighbours[parent], seen, rng)
        if child is None:
            child = _one_of(np.arange(len(cells.codes)), seen, rng)
        tried.append(child)
        seen.add(child)
        population = [*population[1:], child]
    return np.array(tried)


def climbed(cells: Cells, target: np.ndarray, start: int, count: int, rng: Rng) -> np.ndarray:
    """Local search: the neighbours of the best so far in random order, first of all ``start``."""
    tried = [start]
    while len(tried) < count:
        tried.append(_neighbour_of_best(cells, target, tried, rng))
    return np.array(tried)


def mutated(
    cells: Cells, target: np.ndarray, first: np.ndarray, count: int, rng: Rng
) -> np.ndarray:
    """``first``, then local search from the best of them."""
    tried = list(first)
    while len(tried) < count:
        tried.append(_neighbour_of_best(cells, target, tried, rng))
    return np.array(tried)


def _neighbour_of_best(cells: Cells, target: np.ndarray, tried: list[int], rng: Rng) -> int:
    """Not tried yet, of the best that has such a neighbour; else anything."""
    seen = set(tried)
    for row in sorted(tried, key=lambda row: -target[row]):
        found = _one_of(cells.neighbours[row], seen, rng)
        if found is not None:
            return found
    return _one_of(np.arange(len(cells.codes)), seen, rng)


def _one_of(rows: np.ndarray, seen: set[int], rng: Rng) -> int | None:
    free = [row for row in rows if row not in seen]
    return int(rng.choice(free)) if free else None


def alike(sources: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each source with the target, [S]; 0 where either is constant."""
    if len(target) < 2 or np.ptp(target) == 0:
        return np.zeros(sources.shape[1])
    rho = [spearmanr(source, target)[0] if np.ptp(source) else 0.0 for source in sources.T]
    return np.array(rho)


def shares(likeness: np.ndarray) -> np.ndarray:
    """Weights that sum to 1: in proportion to what is positive; all alike if nothing is."""
    positive = np.clip(likeness, 0, None)
    if not positive.any():
        return np.full(len(likeness), 1 / len(likeness))
    return positive / positive.sum()


def after_probes(
    cells: Cells, count: int, rng: Rng, go_on: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``PROBES`` at random, then the ranking that ``go_on`` makes of these rows, [N]."""
    probes = at_random(cells, min(PROBES, count), rng)
    ranking = in_order(go_on(probes), len(cells.codes))
    return np.concatenate([probes, ranking[~np.isin(ranking, probes)]])[:count]


def expected_best(
    surrogate: Surrogate,
    cells: Cells,
    sources: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    count: int,
    first: np.ndarray,
) -> np.ndarray:
    """``first``, then always the one of which most is expected by all trials so far.

    Args:
        sources: what the learned tasks' searches saw, [N, S].
        weights: of the learned tasks beforehand, [S].
    """
    scores = normal_scores(sources) if sources.shape[1] else np.zeros(sources.shape)
    tried = [int(row) for row in first]
    differing = np.empty((len(target), count))
    for number, row in enumerate(tried):
        differing[:, number] = cells.differing(row)
    while len(tried) < count:
        rows = np.array(tried, int)
        known = differing[:, : len(rows)]
        found = surrogate.expected(weights, scores, known, rows, target[rows])
        found[rows] = -np.inf
        differing[:, len(rows)] = cells.differing(best := int(found.argmax()))
        tried.append(best)
    return np.array(tried)
