"""Differences of methods that share their seeds: intervals, p-values, what can be seen at all."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

SEED = 0
"""Of the bootstrap, so that a page can be written again."""


def resampled(differences: Sequence[np.ndarray], draws: int) -> np.ndarray:
    """Means of a paired bootstrap, [draws]: seeds are drawn anew within each set.

    Args:
        differences: of each set, one a seed; sets count alike.
    """
    rng = np.random.default_rng(SEED)
    means = [
        of[rng.integers(0, len(of), (draws, len(of)))].mean(1)
        for of in map(np.asarray, differences)
    ]
    return np.mean(means, axis=0)


def interval(means: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval of a bootstrap's means."""
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_not_above(means: np.ndarray, value: float) -> float:
    """One-sided: how often a bootstrap's mean is not above ``value``; never 0 by few draws."""
    return (1 + int((means <= value).sum())) / (1 + len(means))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def detectable(deviation: float, seeds: int, confidence: float, power: float) -> float:
    """The smallest mean difference that so many seeds show with this power (normal, two-sided).

    Args:
        deviation: of a difference, over seeds.
    """
    return _units(confidence, power) * deviation / math.sqrt(seeds)


def seeds_for(difference: float, deviation: float, confidence: float, power: float) -> int:
    """How many seeds show a mean difference with this power."""
    return math.ceil((_units(confidence, power) * deviation / difference) ** 2)


def _units(confidence: float, power: float) -> float:
    return float(norm.ppf((1 + confidence) / 2) + norm.ppf(power))
