"""Architectures of two tasks side by side: against SciPy, made-up noise, and tables by hand."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ftd.errors import UserError
from ftd.transfer.architectures import (
    affinity,
    best_k_gain,
    between_repeats,
    by_task,
    mean_ranks,
    own_gain,
    pairs,
    rank_correlation,
    reliabilities,
    reliability,
    unreliable,
)

lists = arrays(float, 7, elements=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]))


def noisy(rng, truth: np.ndarray, repeats: int, noise: float) -> np.ndarray:
    """Independent repeats [S, K] of a truth with normal noise of that share of its spread."""
    return truth + noise * rng.standard_normal((repeats, len(truth)))


@settings(deadline=None, max_examples=60)
@given(lists, lists)
def test_ranks_correlate_as_scipy_s_do_with_ties(one, other):
    found = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


def test_a_table_in_any_order_gives_accuracies_by_repeat_and_number():
    rng = np.random.default_rng(0)
    wanted = {"b": rng.random((2, 3)), "a": rng.random((1, 4))}
    rows = [
        {"task": task, "repeat": 7 + repeat, "number": 2 * number, "accuracy": value}
        for task, values in wanted.items()
        for (repeat, number), value in np.ndenumerate(values)
    ]
    mixed = [rows[n] for n in rng.permutation(len(rows))]
    found = by_task(pa.Table.from_pylist(mixed))
    assert found.keys() == wanted.keys()
    assert all((found[task] == wanted[task]).all() for task in wanted)
    for wrong in (rows[1:], [*rows[1:], rows[1]]):
        with pytest.raises(UserError, match="genotypes of b: not each number once"):
            by_task(pa.Table.from_pylist(wrong))


def test_reliability_of_one_repeat_and_of_the_mean_of_all():
    rows = np.random.default_rng(1).random((3, 20))
    rows += np.linspace(0, 1, 20)
    r = np.mean([stats.spearmanr(rows[i], rows[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))])
    assert between_repeats(rows) == pytest.approx(r)
    assert reliability(rows) == pytest.approx(3 * r / (1 + 2 * r)) and reliability(rows) > r
    assert np.isnan(between_repeats(rows[:1])) and np.isnan(reliability(rows[:1]))
    opposite = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    assert between_repeats(opposite) == -1 and reliability(opposite) == 0
    assert np.isnan(reliability(np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])))


def test_spearman_and_brown_foretell_how_well_means_of_new_repeats_agree():
    """Means of 4 of the repeats against means of 4 others, beside what pairs of single ones say."""
    rng = np.random.default_rng(0)
    rows = noisy(rng, rng.standard_normal(4000), 8, 1.2)
    halves = rank_correlation(rows[:4].mean(0), rows[4:].mean(0))
    assert reliability(rows[:4]) == pytest.approx(halves, abs=0.03)
    assert between_repeats(rows[:4]) < halves - 0.2


def test_affinity_is_the_correlation_without_the_noise():
    rng = np.random.default_rng(2)
    true, own = rng.standard_normal((2, 4000))
    other = 0.7 * true + np.sqrt(1 - 0.7**2) * own
    without = rank_correlation(true, other)
    a, b = noisy(rng, true, 2, 0.8), noisy(rng, other, 3, 1.1)
    assert affinity(a, b) == pytest.approx(without, abs=0.04)
    assert rank_correlation(a.mean(0), b.mean(0)) < without - 0.1
    assert affinity(a, b) == pytest.approx(affinity(b, a))
    assert affinity(a, noisy(rng, true, 2, 0.8)) == pytest.approx(1, abs=0.04)
    apart = np.stack([true, -true])  # no reliability at all
    assert np.isnan(affinity(apart, a)) and np.isnan(affinity(a[:1], b))


def test_the_gate_looks_at_single_repeats():
    rng = np.random.default_rng(3)
    truth = rng.standard_normal(2000)
    made = {"still": noisy(rng, truth, 2, 0.3), "loud": noisy(rng, truth, 2, 1.3)}
    assert between_repeats(made["loud"]) < 0.5 < reliability(made["loud"])
    assert unreliable(made | {"alone": truth[None]}) == ["loud", "alone"]
    assert unreliable(made, gate=0.2) == []
    loud = {"one": between_repeats(made["loud"]), "mean": reliability(made["loud"])}
    told = reliabilities({"loud": made["loud"], "alone": truth[None]})
    assert told == {"loud": loud, "alone": {"one": None, "mean": None}}


@settings(deadline=None, max_examples=60)
@given(lists, st.tuples(lists, lists).map(np.array), st.integers(1, 7))
def test_ties_are_the_mean_over_all_ways_to_break_them(scores, target, k):
    best = sum(sorted(scores)[-k:])
    ways = [c for c in itertools.combinations(range(7), k) if np.isclose(scores[[*c]].sum(), best)]
    mean = target.mean(0)
    wanted = np.mean([mean[[*chosen]].mean() for chosen in ways]) - mean.mean()
    assert best_k_gain(scores, target, k) == pytest.approx(100 * wanted, abs=1e-9)


def test_a_gain_by_hand_and_its_bounds():
    target = np.array([[0.2, 0.4, 0.6, 0.8], [0.4, 0.6, 0.8, 1.0]])
    assert best_k_gain(np.array([1, 2, 4, 3]), target, 2) == pytest.approx(100 * (0.8 - 0.6))
    assert best_k_gain(np.array([4, 3, 2, 1]), target, 1) == pytest.approx(100 * (0.3 - 0.6))
    assert best_k_gain(np.ones(4), target, 3) == pytest.approx(0)
    for k in (0, 5):
        with pytest.raises(UserError, match=f"best {k} of 4"):
            best_k_gain(np.ones(4), target, k)
    with pytest.raises(UserError, match="scores of 3 genotypes, accuracies of 4"):
        best_k_gain(np.ones(3), target, 1)


def test_a_task_s_own_best_are_measured_by_what_did_not_choose_them():
    rng = np.random.default_rng(4)
    luck = rng.random((2, 5000))  # all genotypes equally good: the best of a repeat are lucky
    assert abs(own_gain(luck, 50)) < 10 < best_k_gain(luck.mean(0), luck, 50)
    target = np.array([[0.1, 0.5, 0.9], [0.3, 0.8, 0.4]])
    assert own_gain(target, 1) == pytest.approx(100 * ((0.4 - 0.5) + (0.5 - 0.5)) / 2)
    three = np.array([[0.1, 0.9], [0.2, 0.3], [0.8, 0.4]])
    wanted = [(0.35 - (0.35 + 0.5) / 2), (0.65 - (0.45 + 0.65) / 2), (0.15 - (0.15 + 0.6) / 2)]
    assert own_gain(three, 1) == pytest.approx(100 * np.mean(wanted))
    with pytest.raises(UserError, match="2 repeats are needed"):
        own_gain(target[:1], 1)


def test_rankings_are_averaged_by_weight():
    made = {"a": np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]), "b": np.array([[0.9, 0.8, 0.8]])}
    assert mean_ranks(made).tolist() == [2, 1.75, 2.25]
    assert mean_ranks(made, {"a": 3, "b": 1}).tolist() == [1.5, 1.875, 2.625]
    assert mean_ranks(made, {"a": 0, "b": 2}).tolist() == [3, 1.5, 1.5]
    for wrong in ({"a": 1}, {"a": 1, "b": -1}, {"a": 0, "b": 0}, {"a": 1, "b": np.inf}):
        with pytest.raises(UserError, match="weights of sources"):
            mean_ranks(made, wrong)
    with pytest.raises(UserError, match="weights of sources"):
        mean_ranks({})


def test_all_pairs_in_rows():
    rng = np.random.default_rng(5)
    truth = rng.standard_normal(30)
    made = {name: noisy(rng, truth, 2, 0.5) for name in ("a", "b", "c")}
    rows = pairs(made, k=4)
    found = {(row["source"], row["target"]): row for row in rows}
    assert len(rows) == len(found) == 3 * 4
    assert found["a", "b"]["affinity"] == affinity(made["a"], made["b"])
    assert found["a", "b"]["gain"] == best_k_gain(made["a"].mean(0), made["b"], 4)
    raw = rank_correlation(made["a"].mean(0), made["b"].mean(0))
    assert found["a", "b"]["rank_correlation"] == found["b", "a"]["rank_correlation"] == raw
    own = found["c", "c"]
    assert own["rank_correlation"] == between_repeats(made["c"]) and np.isnan(own["affinity"])
    assert own["gain"] == own_gain(made["c"], 4)
    others = {name: made[name] for name in ("a", "b")}
    assert found[None, "c"]["gain"] == best_k_gain(mean_ranks(others), made["c"], 4)
    alone = pairs({"a": made["a"][:1]}, k=4)
    assert [np.isnan(row["gain"]) for row in alone] == [True, True]
