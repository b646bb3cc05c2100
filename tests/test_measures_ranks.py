"""Combinations by rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.measures.ranks import by_mean_rank, mean_rank

DIRECTIONS = {"up": "higher", "down": "lower"}


def plainly(numbers, nearer):
    """Rank by counting, pair by pair."""
    count = len(next(iter(numbers.values())))
    found = np.zeros((count, count))
    for name, matrix in numbers.items():
        sign = -1 if nearer[name] == "higher" else 1
        for source in range(count):
            for target in range(count):
                own = sign * matrix[source, target]
                others = [
                    sign * matrix[row, target]
                    for row in range(count)
                    if row not in (source, target) and not np.isnan(matrix[row, target])
                ]
                rank = 1 + sum(o < own for o in others) + sum(o == own for o in others) / 2
                found[source, target] += np.nan if np.isnan(own) else rank / len(numbers)
    return found


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.booleans())
def test_mean_rank_is_counted(seed, count, placed):
    draw = np.random.default_rng(seed)
    numbers = {name: draw.integers(0, 4, (count, count)).astype(float) for name in DIRECTIONS}
    if placed:  # a new task is a target alone
        for matrix in numbers.values():
            matrix[-1] = np.nan
    np.testing.assert_allclose(mean_rank(numbers, DIRECTIONS), plainly(numbers, DIRECTIONS))


def test_a_target_s_number_of_itself_does_not_matter_to_others():
    one = np.array([[0.0, 3, 1], [1, 0, 2], [2, 1, 0]])
    other = one + np.diag([9.0, -9, 1.5])
    off = ~np.eye(3, dtype=bool)
    first, second = (mean_rank({"down": matrix}, DIRECTIONS) for matrix in (one, other))
    assert (first[off] == second[off]).all() and first[off].max() == 2
    assert np.diagonal(first).tolist() == [1, 1, 1] and np.diagonal(second).tolist() == [3, 1, 2]


def test_directions_are_each_measure_s():
    numbers = {"up": np.arange(9.0).reshape(3, 3), "down": -np.arange(9.0).reshape(3, 3)}
    np.testing.assert_array_equal(
        by_mean_rank(DIRECTIONS)(numbers), mean_rank({"up": numbers["up"]}, DIRECTIONS)
    )
    with pytest.raises(KeyError):
        mean_rank({"sideways": numbers["up"]}, DIRECTIONS)
