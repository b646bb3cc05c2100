"""How alike two tasks are in the architectures that suit them, and what the best ones are worth.

Everything here takes accuracies in [0, 1] of one list of K genotypes: float64 [S, K], a row for
each of S independent trainings (repeats). Ranks are Spearman's, ties share theirs.
"""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from ftd.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

GATE = 0.5
"""The least agreement between two repeats of a task that its affinities can be read with."""
BEST = 3
"""How many of a source's best genotypes are taken over."""


def by_task(table: "pa.Table") -> dict[str, np.ndarray]:
    """{task: accuracies [S, K]} of a table with ``task``, ``repeat``, ``number``, ``accuracy``.

    Raises:
        UserError: a task without a number in one of its repeats, or with one twice.
    """
    names = ("task", "repeat", "number", "accuracy")
    tasks, repeats, numbers, values = (table[name].to_numpy() for name in names)
    found = {}
    for task in dict.fromkeys(tasks):
        own = tasks == task
        places = np.unique(repeats[own]), np.unique(numbers[own])
        rows, columns = map(np.searchsorted, places, (repeats[own], numbers[own]))
        found[task] = np.full([len(place) for place in places], np.nan)
        found[task][rows, columns] = values[own]
        if own.sum() != found[task].size or np.isnan(found[task]).any():
            raise UserError(f"genotypes of {task}: not each number once in every repeat")
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's ρ of two lists [K], in [−1, 1]; NaN if one of them is constant."""
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (one, other)]
    norm = np.sqrt(np.prod([values @ values for values in ranks]))
    return float(ranks[0] @ ranks[1] / norm) if norm else float("nan")


def between_repeats(accuracies: np.ndarray) -> float:
    """The reliability of *one* training: mean ρ of two repeats [S, K], over all pairs of them.

    In [−1, 1]; NaN where there is one repeat alone, or one in which all are equal.
    """
    pairs = itertools.combinations(accuracies, 2)
    found = [rank_correlation(one, other) for one, other in pairs]
    return float(np.mean(found)) if found else float("nan")


def reliability(accuracies: np.ndarray) -> float:
    """The reliability of the *mean* over S repeats, by Spearman and Brown: S·r / (1 + (S − 1)·r).

    r is ``between_repeats``, that of one training. In [0, 1], 0 where repeats do not agree at all
    (r ≤ 0); NaN where r is.
    """
    count, r = len(accuracies), between_repeats(accuracies)
    r = r if np.isnan(r) else max(r, 0.0)
    return count * r / (1 + (count - 1) * r)


def reliabilities(accuracies: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """By task: the reliability of ``one`` training and of the ``mean``; ``None`` for NaN."""
    return {
        task: {
            name: None if np.isnan(value) else value
            for name, value in (("one", between_repeats(rows)), ("mean", reliability(rows)))
        }
        for task, rows in accuracies.items()
    }


def unreliable(accuracies: Mapping[str, np.ndarray], gate: float = GATE) -> list[str]:
    """The tasks whose repeats agree less than the gate asks: give them more images or epochs."""
    return [task for task, rows in accuracies.items() if not between_repeats(rows) >= gate]


def affinity(one: np.ndarray, other: np.ndarray) -> float:
    """ρ / √(r_a · r_b): what ρ of two tasks' mean accuracies would be without their noise.

    r are the ``reliability`` of the means that ρ is of (Spearman 1904: exact for Pearson's
    correlation, taken here for ranks). Its noise is larger than that of ρ and can carry it beyond
    [−1, 1]; it is not cut there, which would bias means. NaN where a reliability is 0 or NaN.
    """
    product = reliability(one) * reliability(other)
    raw = rank_correlation(one.mean(0), other.mean(0))
    return raw / float(np.sqrt(product)) if product > 0 else float("nan")


def best_k_gain(scores: np.ndarray, target: np.ndarray, k: int = BEST) -> float:
    """What the k genotypes of the highest scores are worth to a target, in points.

    Their mean accuracy on it, minus that of all genotypes.

    Args:
        scores: of the genotypes [K], such as a source's mean accuracies or ``mean_ranks``. Of
            those that tie for the last places each is taken in part: the expectation over draws.
        target: its accuracies [S, K]; their mean over repeats counts.

    Raises:
        UserError: k is not in [1, K], or the lists differ in length.
    """
    if not 1 <= k <= len(scores):
        raise UserError(f"the best {k} of {len(scores)} genotypes; give 1 to {len(scores)}")
    if target.shape[1] != len(scores):
        raise UserError(f"scores of {len(scores)} genotypes, accuracies of {target.shape[1]}")
    last = np.sort(scores)[-k]
    above, ties = scores > last, scores == last
    taken = above + ties * ((k - above.sum()) / ties.sum())
    mean = target.mean(0)
    return float(100 * (taken @ mean / k - mean.mean()))


def own_gain(target: np.ndarray, k: int = BEST) -> float:
    """What a target's own k best are worth to it, in points, chosen and measured apart.

    Chosen by one repeat and measured by the others, in turn: in the numbers that they are chosen
    by, the luckiest would look best. A choice by one repeat is a noisier one than by all.

    Raises:
        UserError: one repeat alone; k as in ``best_k_gain``.
    """
    if len(target) < 2:
        raise UserError("a task's own best genotypes: 2 repeats are needed, there is 1")
    apart = ((target[n], np.delete(target, n, axis=0)) for n in range(len(target)))
    return float(np.mean([best_k_gain(chosen, others, k) for chosen, others in apart]))


def mean_ranks(
    accuracies: Mapping[str, np.ndarray], weights: Mapping[str, float] | None = None
) -> np.ndarray:
    """Ranks of genotypes [K] by their mean accuracies, 1 the worst, averaged over sources.

    Args:
        accuracies: of each source, [S, K].
        weights: of each source, at least 0; ``None``: all equal.

    Raises:
        UserError: no sources, or weights that are no weights of all of them.
    """
    given = dict.fromkeys(accuracies, 1.0) if weights is None else weights
    values = np.array([given.get(task, np.nan) for task in accuracies], float)
    if not len(values) or not (values >= 0).all() or not 0 < values.sum() < np.inf:
        raise UserError("weights of sources: expected a finite number ≥ 0 for each, not all 0")
    ranks = np.array([rankdata(rows.mean(0)) for rows in accuracies.values()])
    return values @ ranks / values.sum()


def pairs(accuracies: Mapping[str, np.ndarray], k: int = BEST) -> list[dict]:
    """A row for every ordered pair of tasks, and one for every target with itself and without one.

    ``source``, ``target``; ``affinity`` and ``rank_correlation`` (raw ρ), which are symmetric; and
    ``gain``, what the source's k best are worth to the target. A target with itself has its
    ``own_gain``, its reliability between repeats as ``rank_correlation``, and no affinity. A source
    that is ``None`` stands for the mean ranking over all other tasks. What cannot be had is NaN.
    """
    nothing, rows = float("nan"), []
    for target, on_target in accuracies.items():
        others = {task: found for task, found in accuracies.items() if task != target}
        for source, of_source in accuracies.items():
            row = {"source": source, "target": target}
            if source == target:
                raw, own = between_repeats(on_target), len(on_target) > 1
                gain = own_gain(on_target, k) if own else nothing
                row |= {"affinity": nothing, "rank_correlation": raw, "gain": gain}
            else:
                means = of_source.mean(0), on_target.mean(0)
                row |= {"affinity": affinity(of_source, on_target)}
                row |= {"rank_correlation": rank_correlation(*means)}
                row |= {"gain": best_k_gain(means[0], on_target, k)}
            rows.append(row)
        gain = best_k_gain(mean_ranks(others), on_target, k) if others else nothing
        row = {"source": None, "target": target, "affinity": nothing}
        rows.append(row | {"rank_correlation": nothing, "gain": gain})
    return rows
