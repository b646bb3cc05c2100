"""Weighted rankings of architectures: made-up tables with known answers, and a softmax's rules."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd.errors import UserError
from ftd.measures.softmax import softmax
from ftd.transfer import weighting
from ftd.transfer.agreement import RANDOM
from ftd.transfer.architectures import best_k_gain, own_gain, pairs
from ftd.transfer.weighting import (
    NEAREST,
    OWN,
    TEMPERATURES,
    UNIFORM,
    cells,
    summary,
    truly_nearest_gain,
    weighted_gain,
)

TASKS = ["like", "other", "third", "new"]
K = 30


def accuracies(seed=0, repeats=2, noise=0.01):
    """Of ``new``, those of ``like`` but for noise; the other two are of their own kinds."""
    rng = np.random.default_rng(seed)
    truth = {name: rng.permutation(np.linspace(0.5, 0.9, K)) for name in TASKS[:3]}
    truth["new"] = truth["like"]
    return {
        name: np.clip(truth[name] + noise * rng.standard_normal((repeats, K)), 0, 1)
        for name in TASKS
    }


def numbers(trials=2, **measures):
    """By measure a function (source, target) → number."""
    return pd.DataFrame(
        {"measure": name, "network": "n", "trial": trial, "source": s, "target": t}
        | {"number": of(s, t)}
        for name, of in measures.items()
        for trial in range(trials)
        for s, t in itertools.permutations(TASKS, 2)
    )


def right(source, target):
    """Near are the two that are alike."""
    return 0.1 if {source, target} == {"like", "new"} else 2 + len(source)


def value(table, measure, temperature=None, target="new", trial=0):
    rows = table[(table["measure"] == measure) & (table["target"] == target)]
    rows = rows[rows["trial"] == trial]
    if temperature is not None:
        rows = rows[rows["temperature"] == temperature]
    (found,) = rows["gain"]
    return found


# A softmax --------------------------------------------------------------------------------------

NUMBERS = st.lists(
    st.one_of(st.integers(-100, 100), st.sampled_from([math.nan, math.inf, -math.inf])),
    min_size=1,
    max_size=8,
)


@given(NUMBERS, st.sampled_from([0, *TEMPERATURES, 1e-300, math.inf]))
def test_weights_sum_to_one_and_fall_with_the_number(given_numbers, temperature):
    found = softmax(given_numbers, temperature)
    assert sum(found) == pytest.approx(1) and min(found) >= 0
    known = [(n, w) for n, w in zip(given_numbers, found, strict=True) if math.isfinite(n)]
    if known and temperature < math.inf:
        assert sum(weight for _, weight in known) == pytest.approx(1)
    falling = [weight for _, weight in sorted(known, key=lambda each: each[0])]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))


def test_from_the_nearest_alone_to_all_alike():
    assert softmax([3, 1, 2, math.nan], 0) == [0, 1, 0, 0]
    assert softmax([1, 1, 2], 0) == [0.5, 0.5, 0]
    assert softmax([3, 1, math.nan], math.inf) == [1 / 3] * 3
    assert softmax([math.nan, math.nan], 0.5) == softmax([7, 7], 0) == [0.5, 0.5]
    assert softmax([7, math.nan, 7], 1) == [0.5, 0, 0.5]
    one, two = softmax([1, 7], 0.5)  # one standard deviation to either side
    assert one / two == pytest.approx(math.exp(2 / 0.5))
    assert softmax([5, 1, 3], 1e9) == pytest.approx([1 / 3] * 3)
    assert softmax([5, 1, 3], 1e-9) == softmax([5, 1, 3], 0)


# Cells ------------------------------------------------------------------------------------------


def test_the_hard_choice_of_a_twin_gains_the_most():
    own = accuracies()
    found = cells(numbers(right=right), own)
    assert len(found) == 2 * 4 * (len(TEMPERATURES) + 4)
    gains = [value(found, "right", temperature) for temperature in TEMPERATURES]
    assert gains[0] == max(gains) == best_k_gain(own["like"].mean(0), own["new"])
    assert gains[0] > value(found, UNIFORM) + 1 and gains[0] > value(found, RANDOM) + 1
    assert value(found, NEAREST) == pytest.approx(gains[0], abs=1)
    assert value(found, OWN) == own_gain(own["new"])
    again = cells(numbers(right=lambda s, t: -right(s, t)), own, ["right"])
    pd.testing.assert_frame_equal(found, again)
    wrong = cells(numbers(right=lambda s, t: -right(s, t)), own)
    assert value(wrong, "right", 0) < value(wrong, UNIFORM) < gains[0]


def test_baselines_are_those_of_pairs():
    own = accuracies(seed=3)
    by = {(row["source"], row["target"]): row["gain"] for row in pairs(own)}
    found = cells(numbers(right=right), own)
    for target in TASKS:
        others = [name for name in TASKS if name != target]
        assert value(found, UNIFORM, math.inf, target) == by[None, target]
        assert value(found, RANDOM, None, target) == pytest.approx(
            np.mean([by[source, target] for source in others])
        )
        assert value(found, OWN, None, target, trial=1) == by[target, target]


def test_a_target_s_own_accuracies_only_judge():
    """Another scale and order on the target: the same genotypes are taken, worth something else."""
    own = accuracies(seed=1)
    other = own | {"new": own["new"][:, ::-1] / 2}
    shares = dict(zip(TASKS[:3], softmax([1, 2, 3], 0.5), strict=True))
    ranks = weighting.mean_ranks({name: own[name] for name in TASKS[:3]}, shares)
    taken = np.argsort(ranks)[-3:]
    for given_rows in (own, other):
        mean = given_rows["new"].mean(0)
        wanted = 100 * (mean[taken].mean() - mean.mean())
        assert weighted_gain(given_rows, "new", shares) == pytest.approx(wanted)


def test_what_is_not_known_has_no_weight_and_nothing_known_is_uniform():
    own = accuracies()
    most = cells(numbers(m=lambda s, t: right(s, t) if s == "other" else math.nan), own)
    alone = best_k_gain(own["other"].mean(0), own["new"])
    assert {value(most, "m", temperature) for temperature in TEMPERATURES} == {alone}
    few = numbers(m=right)
    few = few[(few["target"] != "new") | (few["trial"] == 0)]
    found = cells(few, own)
    assert value(found, "m", 0, trial=1) == pytest.approx(value(found, UNIFORM, trial=1))
    assert value(found, "m", 0, trial=0) > value(found, "m", 0, trial=1)


def test_the_truly_nearest_is_chosen_and_measured_apart():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(100):  # nothing is like anything: the source that looks nearest is a lucky one
        luck = {name: 0.5 + 0.1 * rng.random((2, 8)) for name in (*map(str, range(9)), "new")}
        found.append(truly_nearest_gain(luck, "new", k=2))
    assert abs(np.mean(found)) < 0.5
    own = accuracies(noise=0.03)
    first, second = own["new"]
    assert truly_nearest_gain(own, "new") == pytest.approx(
        np.mean([best_k_gain(own["like"].mean(0), rows[None]) for rows in (second, first)])
    )
    unreliable = own | {"like": np.stack([own["like"][0], -own["like"][0]])}
    assert truly_nearest_gain(unreliable, "new") < truly_nearest_gain(own, "new")
    assert math.isnan(truly_nearest_gain(own | {"new": own["new"][:1]}, "new"))
    single = cells(numbers(right=right), own | {"new": own["new"][:1]})
    assert math.isnan(value(single, OWN)) and not math.isnan(value(single, UNIFORM))


@pytest.mark.parametrize(
    ("table", "tasks", "message"),
    [
        (numbers(own=right), TASKS, "'own': the name of a baseline"),
        (numbers(m=right), TASKS[:1], "2 tasks are needed"),
        (numbers(m=right)[:3], TASKS, "'like': no distances to it"),
        (pd.concat([numbers(m=right)] * 2), TASKS, "there twice"),
    ],
)
def test_tables_that_do_not_fit(table, tasks, message):
    own = accuracies()
    with pytest.raises(UserError, match=message):
        cells(table, {name: own[name] for name in tasks})


# Summaries --------------------------------------------------------------------------------------


def row(table, measure, temperature=None, against=None):
    rows = table[table["measure"] == measure]
    rows = rows[rows["against"].isna() if against is None else rows["against"] == against]
    if temperature is not None:
        rows = rows[rows["temperature"] == temperature]
    (found,) = rows.to_dict("records")
    return found


def test_means_and_paired_differences_to_equal_weights():
    table = cells(numbers(right=right, flat=lambda s, t: 1.0), accuracies())
    found = summary(table, draws=100)
    mean = table[(table["measure"] == "right") & (table["temperature"] == 0)]["gain"].mean()
    hard, even = row(found, "right", 0), row(found, UNIFORM)
    assert hard["value"] == pytest.approx(mean) and hard["low"] <= mean <= hard["high"]
    assert (hard["targets"], hard["trials"], even["temperature"]) == (4, 2, math.inf)
    less = row(found, "right", 0, UNIFORM)
    assert less["value"] == pytest.approx(hard["value"] - even["value"])
    for temperature in TEMPERATURES:  # a constant measure is the average of all, in each resample
        flat = row(found, "flat", temperature, UNIFORM)
        assert [flat[key] for key in ("value", "low", "high")] == pytest.approx([0, 0, 0], abs=1e-9)
    assert len(found) == (2 * 5 + 4) + (2 * 5 + 3)
    assert math.isnan(row(found, OWN)["temperature"]) and row(found, NEAREST, None, UNIFORM)
    pd.testing.assert_frame_equal(found, summary(table, draws=100))
    assert not found.equals(summary(table, draws=100, seed=1))
    shuffled = table.sample(frac=1, random_state=0)
    same = summary(shuffled, draws=100).set_index(["measure", "temperature", "against"])
    assert same.loc[("right", 0.0, UNIFORM), "low"] == pytest.approx(less["low"])


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 99), st.integers(0, 99))
def test_every_set_counts_alike(one, two):
    few = cells(numbers(trials=1, right=right, more=right), accuracies(one))
    many = cells(numbers(trials=3, right=right), accuracies(two))
    found = summary(few, many, draws=10)
    means = [each[each["measure"] == UNIFORM]["gain"].mean() for each in (few, many)]
    assert row(found, UNIFORM)["value"] == pytest.approx(np.mean(means))
    assert "more" not in {*found["measure"]}
    assert (row(found, OWN)["targets"], row(found, OWN)["trials"]) == (8, 1)
    with pytest.raises(UserError, match="no network that all tables have"):
        summary(few, many.assign(network="m"))
