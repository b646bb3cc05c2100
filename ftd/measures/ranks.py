"""Combinations by rank: measures of other units and directions, made one."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from scipy.stats import rankdata


def mean_rank(numbers: Mapping[str, np.ndarray], nearer: Mapping[str, str]) -> np.ndarray:
    """The mean, over measures, of each source's rank among all other tasks as sources of a target.

    A target is ranked among its sources too, as the one more, so that it has a number: theirs do
    not depend on it.

    Args:
        numbers: by measure: float [N, N], sources in rows, targets in columns, in one order; NaN
            where there is none.
        nearer: by measure: whether the ``lower`` or the ``higher`` number is the nearer source's.

    Returns:
        float64 [N, N]: from 1, the nearest, to N; equal numbers share their mean rank. NaN where a
        measure has no number.
    """
    signed = [
        np.asarray(matrix, np.float64) * (-1 if nearer[name] == "higher" else 1)
        for name, matrix in numbers.items()
    ]
    return np.mean([_ranks(matrix) for matrix in signed], axis=0)


def by_mean_rank(nearer: Mapping[str, str]) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """``mean_rank`` of measures of these directions, as ``Combination.combine`` takes it."""
    return partial(mean_rank, nearer=nearer)


def _ranks(matrix: np.ndarray) -> np.ndarray:
    """Ranks in each column of those in it that are off the diagonal, the smallest first."""
    others = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    ranks = rankdata(others, axis=0, nan_policy="omit")
    own = np.diagonal(matrix)
    its = 1 + (others < own).sum(0) + (others == own).sum(0) / 2
    np.fill_diagonal(ranks, np.where(np.isnan(own), np.nan, its))
    return ranks
