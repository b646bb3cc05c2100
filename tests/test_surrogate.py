"""What is expected of architectures on a new task, against scikit-learn's Gaussian processes."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.special import ndtri
from scipy.stats import norm, rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, PairwiseKernel

from ftd.search.surrogate import Surrogate, normal_scores

SURROGATE = Surrogate(doubt=0.2, residual=0.7, length=1.5, noise=0.4)
FAR = 1e4
"""A standard deviation that stands for *of any size*."""


def case(seed: int, sources: int = 3):
    """Architectures as digits [N, edges], scores, tried rows, differing edges, and values."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 4, (40, 5))
    scores = normal_scores(rng.normal(size=(40, sources)))
    rows = rng.choice(40, 8, replace=False)
    differing = (cells[:, None] != cells[rows]).sum(2)
    return cells, scores, rows, differing, rng.normal(size=8)


def of_process(kernel, x, rows, less) -> np.ndarray:
    """What scikit-learn expects at every x."""
    process = GaussianProcessRegressor(kernel, alpha=SURROGATE.noise, optimizer=None)
    return process.fit(x[rows], less).predict(x)


@pytest.mark.parametrize("seed", range(3))
def test_learned_tasks_weights_are_those_of_a_process_with_a_linear_kernel(seed):
    _, scores, rows, differing, values = case(seed)
    weights = np.array([0.5, 0.3, 0.2])
    own = replace(SURROGATE, residual=0)
    prior = scores @ weights
    kernel = own.doubt * DotProduct(sigma_0=FAR)
    wanted = prior + of_process(kernel, scores, rows, normal_scores(values) - prior[rows])
    found = own.expected(weights, scores, differing, rows, values)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_without_learned_tasks_what_is_alike_is_expected_alike(seed):
    cells, _, rows, differing, values = case(seed)
    hot = (cells[:, :, None] == np.arange(4)).reshape(40, -1) / 2.0  # an edge that differs: two ½
    alike = PairwiseKernel(metric="laplacian", gamma=1 / SURROGATE.length)
    kernel = ConstantKernel(FAR**2) + SURROGATE.residual * alike
    wanted = of_process(kernel, hot, rows, normal_scores(values))
    found = SURROGATE.expected(np.empty(0), np.empty((40, 0)), differing, rows, values)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_expectation_is_prior_and_both_parts_together(seed):
    """By the textbook's formula, with an offset of a large variance in place of any size."""
    _, scores, rows, differing, values = case(seed)
    weights = np.array([0.5, 0.3, 0.2])
    both = 0.2 * scores @ scores[rows].T + 0.7 * np.exp(-differing / 1.5) + FAR
    less = normal_scores(values) - (scores @ weights)[rows]
    wanted = scores @ weights + both @ np.linalg.solve(both[rows] + 0.4 * np.eye(8), less)
    found = SURROGATE.expected(weights, scores, differing, rows, values)
    np.testing.assert_allclose(found, wanted, atol=5e-3)


def test_without_trials_the_ranking_is_the_weighted_one():
    _, scores, *_ = case(0)
    weights, none = np.array([0.6, 0.4, 0.0]), np.empty(0, int)
    found = SURROGATE.expected(weights, scores, np.empty((40, 0)), none, np.empty(0))
    np.testing.assert_allclose(found, 0.6 * scores[:, 0] + 0.4 * scores[:, 1])


def test_trials_find_the_learned_task_that_counts():
    """Its ranking is followed in the end, whatever the weights said."""
    _, scores, _, _, _ = case(1)
    rows = np.arange(20)
    own, wrong = Surrogate(doubt=1.0, residual=0.0), np.array([1.0, 0.0, 0.0])
    found = own.expected(wrong, scores, np.zeros((40, 20)), rows, scores[rows, 2])
    assert np.corrcoef(found, scores[:, 2])[0, 1] > 0.9


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20, unique=True))
def test_normal_scores_are_quantiles_in_the_order_of_the_values(values):
    found = normal_scores(np.array(values))
    wanted = norm.ppf((np.arange(len(values)) + 0.5) / len(values))
    np.testing.assert_allclose(found[np.argsort(values)], wanted, atol=1e-12)


def test_equal_values_share_a_normal_score():
    np.testing.assert_allclose(normal_scores(np.array([3.0, 3.0])), 0)
    values = np.random.default_rng(0).integers(0, 5, (30, 4)).astype(float)
    wanted = ndtri((rankdata(values, axis=0) - 0.5) / 30)
    np.testing.assert_array_equal(normal_scores(values), wanted)
