"""Agreement of measures with ground truths, against SciPy, by hand, and by simulation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftd.errors import UserError
from ftd.transfer import agreement
from ftd.transfer.agreement import AVERAGE, LOWEST, RANDOM, cells, statistics, summary

FEW = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9)


def one(nearness, gain):
    found = statistics(np.array(nearness, float), np.array(gain, float))
    return {name: float(value) for name, value in found.items()}


@given(FEW)
def test_correlations_are_scipy_s(pairs):
    nearness, gain = zip(*pairs, strict=True)
    found = one(nearness, gain)
    if len({*gain}) == 1:
        assert np.isnan(found["spearman"]) and np.isnan(found["kendall"])
    elif len({*nearness}) == 1:
        assert found["spearman"] == found["kendall"] == 0
    else:
        assert found["spearman"] == pytest.approx(stats.spearmanr(nearness, gain).statistic)
        assert found["kendall"] == pytest.approx(stats.kendalltau(nearness, gain).statistic)


@given(FEW, st.integers(1, 5))
def test_choice_is_the_expectation_over_ties(pairs, scale):
    nearness, gain = zip(*pairs, strict=True)
    first = [g for n, g in pairs if n == max(nearness)]
    found = one(np.array(nearness) * scale + 1, np.array(gain) / 10)
    assert found["regret"] == pytest.approx(10 * (max(gain) - sum(first) / len(first)))
    assert found["top1"] == pytest.approx(first.count(max(gain)) / len(first))


def test_a_source_without_a_number_may_be_the_best_but_is_not_chosen():
    found = one([np.nan, 2, 1, 0], [0.9, 0.5, 0.6, 0.1])
    assert found["regret"] == pytest.approx(40) and found["top1"] == 0
    assert found["spearman"] == pytest.approx(stats.spearmanr([2, 1, 0], [5, 6, 1]).statistic)
    found = one([9, 2, 1], [np.nan, 0.5, 0.6])  # what it is worth is not known: no source at all
    assert found["regret"] == pytest.approx(10) and found["kendall"] == -1


def test_nothing_to_choose_is_no_number():
    assert np.isnan([*one([1, 2], [0.3, np.nan]).values()]).all()
    assert np.isnan([*one([1], [0.3]).values()]).all()
    assert np.isnan([*one([], []).values()]).all()
    assert np.isnan([*one([np.nan, np.nan], [0.3, 0.4]).values()]).all()
    assert one([np.inf, -np.inf, 0], [0.3, 0.1, 0.2])["spearman"] == 1  # no bound to numbers


def test_best_on_average_uses_no_gain_of_its_target():
    rng = np.random.default_rng(0)
    gain = rng.normal(size=(3, 5, 5))
    gain[:, range(5), range(5)] = np.nan
    found = agreement.best_on_average(gain)
    for target in range(5):
        other = gain.copy()
        other[:, :, target] = rng.normal(size=(3, 5))
        again = agreement.best_on_average(other)
        np.testing.assert_allclose(again[:, target], found[:, target])
    above = gain - np.nanmean(gain, 1, keepdims=True)
    wanted = np.nanmean(np.delete(above[:, 1], 3, axis=1))
    assert found[1, 3] == pytest.approx(wanted)
    assert np.isnan(agreement.best_on_average(np.full((1, 2, 2), np.nan))).all()


TASKS = ["a", "b", "c", "d"]
GAIN = {  # of target "a": b is best; of "b": a; of "c": a; of "d": c
    "a": {"b": 0.3, "c": 0.1, "d": 0.2},
    "b": {"a": 0.4, "c": 0.0, "d": 0.1},
    "c": {"a": 0.2, "b": 0.1, "d": 0.0},
    "d": {"a": 0.0, "b": 0.1, "c": 0.5},
}


def tables(trials=(0, 1), shots=(5,), scopes=("head",)):
    pairs = [(trial, s, t) for t in GAIN for s in GAIN[t] for trial in trials]
    truths = pd.DataFrame(
        [
            {"network": "n", "trial": k, "source": s, "target": t, "shots": n, "scope": scope}
            | {"gain": GAIN[t][s]}
            for k, s, t in pairs
            for n in shots
            for scope in scopes
        ]
    )
    rows = []
    for measure, sign in (("far", -1), ("near", 1), ("worst", 1)):
        rows += [
            {"measure": measure, "network": "n", "trial": k, "source": s, "target": t}
            | {"distance": sign * GAIN[t][s]}
            for k, s, t in pairs
        ]
    return pd.DataFrame(rows), truths


def test_cells_follow_each_measure_s_direction():
    distances, truths = tables()
    start = {"network": "n", "trial": 0, "source": None, "target": "a", "shots": 5, "gain": 0.0}
    truths = pd.concat([truths, pd.DataFrame([start | {"scope": "head"}])])
    found = cells(distances, truths, ["near"])
    assert len(found) == 5 * 2 * 4 and (found["sources"] == 3).all()
    by = found.groupby("measure")[list(agreement.STATISTICS)].mean()
    assert by.loc["far"].tolist() == by.loc["near"].tolist() == [1, 1, 1, 0]
    assert by.loc["worst", "spearman"] == -1 and by.loc["worst", "regret"] == pytest.approx(32.5)
    random = found[found["measure"] == RANDOM].set_index(["trial", "target"])
    assert random.loc[(1, "a"), "regret"] == pytest.approx(10)
    assert random.loc[(1, "a"), "top1"] == pytest.approx(1 / 3)
    average = found[found["measure"] == AVERAGE].set_index(["trial", "target"])
    assert average.loc[(0, "c"), "regret"] == pytest.approx(0)  # a, which did best for b


def test_disjoint_pairs_alone():
    distances, truths = tables()
    classes = {"a": {0, 1}, "b": {1}, "c": {2}, "d": {3}}
    found = cells(distances, truths, ["near"], classes)
    alone = found[found["disjoint"] & (found["measure"] == "near")].set_index(["trial", "target"])
    assert alone["sources"].unstack(0)[0].to_dict() == {"a": 2, "b": 2, "c": 3, "d": 3}
    random = found[found["disjoint"] & (found["measure"] == RANDOM)]
    assert random.set_index(["trial", "target"]).loc[(0, "b"), "regret"] == pytest.approx(5)
    same = cells(distances, truths, ["near"], {task: {0} for task in TASKS})
    assert not same["disjoint"].any()
    with pytest.raises(UserError, match="'d': its classes are not known"):
        cells(distances, truths, ["near"], {task: {0} for task in "abc"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: (d.replace("far", "random"), t), "the name of a baseline"),
        (lambda d, t: (d.assign(trial=d["trial"] + 7), t), "run both"),
        (lambda d, t: (d.assign(network="m"), t), "run both"),
        (lambda d, t: (d, t[:0]), "run both"),
        (lambda d, t: (pd.concat([d, d[:1]]), t), "trial 0, b to a: there twice"),
        (lambda d, t: (d, pd.concat([t, t[-1:]])), "gain of trial 1, c to d: there twice"),
    ],
)
def test_tables_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        cells(*change(*tables()))


def test_truths_of_several_kinds_are_apart():
    distances, truths = tables(shots=(5, 20), scopes=("head", "whole"))
    bare = truths[(truths["shots"] == 5) & (truths["scope"] == "head")]
    bare = bare.assign(shots=None, scope="architectures")
    found = summary(cells(distances, pd.concat([truths, bare]), ["near"]), draws=20)
    keys = found[["shots", "scope"]].drop_duplicates()
    assert len(keys) == 5 and keys["shots"].isna().sum() == 1


def test_numbers_by_few_images_are_held_against_truths_of_as_many():
    distances, truths = tables(shots=(5, 20))
    right = distances[distances["measure"] == "far"]
    few = pd.concat([right.assign(shots=5), right.assign(shots=20, distance=-right["distance"])])
    few = few[(few["trial"] == 0) | (few["shots"] == 5)]
    found = cells(distances, truths, ["near"], few=few)
    own = found[(found["measure"] == "far") & (found["arm"] == "few")].set_index("shots")
    assert (own.loc[5, "spearman"] == 1).all() and len(own.loc[5]) == 8
    assert (own.loc[20, "spearman"] == -1).all() and len(own.loc[20]) == 4
    assert {*found[found["arm"] == "few"]["measure"]} == {"far", RANDOM, AVERAGE}
    pd.testing.assert_frame_equal(
        found[found["arm"] == "all"].reset_index(drop=True), cells(distances, truths, ["near"])
    )
    short = summary(found, draws=10)
    values = short[(short["measure"] == "far") & short["against"].isna()]
    values = values.set_index(["statistic", "shots", "arm"])["value"].sort_index()
    assert values["kendall", 20].to_dict() == {"all": 1, "few": -1}
    with pytest.raises(UserError, match="the name of a baseline"):
        cells(distances, truths, few=few.replace("far", "random"))
    bare = cells(distances, tables()[1].assign(shots=None), few=few)
    assert {*bare["arm"]} == {"all"}


def fetched(found, measure, statistic, against=None):
    rows = (found["measure"] == measure) & (found["statistic"] == statistic)
    rows &= found["against"].isna() if against is None else found["against"] == against
    (row,) = found[rows].to_dict("records")
    return row


def noisy(rng, targets=12, trials=3, measures=("one", "two"), spread=1.0):
    """Made-up cells: a target's level, a trial's level, noise; known means 10, 11, …"""
    level, start = rng.normal(size=targets), 0.5 * rng.normal(size=trials)
    rows = []
    for place, name in enumerate([*measures, RANDOM, AVERAGE]):
        values = 10 + place + level + start[:, None] + spread * rng.normal(size=(trials, targets))
        for trial in range(trials):
            for target in range(targets):
                own = {"measure": name, "network": "n", "trial": trial, "target": str(target)}
                own |= {"shots": 5, "scope": "head", "arm": "all"}
                own |= {"disjoint": False, "sources": 11}
                rows.append(own | dict.fromkeys(agreement.STATISTICS, values[trial, target]))
    return pd.DataFrame(rows)


def test_means_and_paired_differences():
    table = noisy(np.random.default_rng(0), spread=0.3)
    found = summary(table, draws=200)
    mean = table.groupby("measure")["regret"].mean()
    row = fetched(found, "one", "regret")
    assert row["value"] == pytest.approx(mean["one"]) and row["low"] < row["value"] < row["high"]
    assert (row["targets"], row["trials"], row["pairs"]) == (12, 3, 132)
    apart = fetched(found, "two", "kendall", "one")
    assert apart["value"] == pytest.approx(mean["two"] - mean["one"])
    back = fetched(found, "one", "kendall", "two")
    assert (back["low"], back["high"]) == pytest.approx((-apart["high"], -apart["low"]))
    # what the two have in common, their targets and trials, is not in their difference
    assert apart["high"] - apart["low"] < 0.8 * (row["high"] - row["low"])
    least = fetched(found, "two", "regret", LOWEST)
    assert least["value"] == pytest.approx(mean["two"] - mean.min()) and least["low"] >= 0
    assert (found[found["against"] == LOWEST]["statistic"] == "regret").all()
    pd.testing.assert_frame_equal(found, summary(table, draws=200))
    assert not found.equals(summary(table, draws=200, seed=1))


def test_truths_are_averaged_before_targets():
    table = noisy(np.random.default_rng(0))
    other = table[table["target"] != "0"].assign(shots=20, spearman=5.0, sources=3)
    other.loc[other["target"] == "1", "spearman"] = np.nan
    found = agreement.pooled(pd.concat([table, other]))
    assert list(found) == list(table[[*agreement.CELL, "sources", *agreement.STATISTICS]])
    assert len(found) == len(table) and found["shots"].isna().all()
    assert set(found["scope"]) == {agreement.EVERY} and set(found["sources"]) == {11}
    keys = ["measure", "trial", "target"]
    was, now = (each.set_index(keys)["spearman"].unstack() for each in (table, found))
    np.testing.assert_allclose(now[["0", "1"]], was[["0", "1"]])
    np.testing.assert_allclose(now["7"], (was["7"] + 5) / 2)
    wanted = now.loc["one"].mean().mean()
    assert fetched(summary(found, draws=10), "one", "spearman")["value"] == pytest.approx(wanted)


def test_some_are_compared_with():
    table = noisy(np.random.default_rng(0))
    every, some = (summary(table, against=each, draws=10) for each in (None, ["two", "three"]))
    assert {*some["against"].dropna()} == {"two", LOWEST}
    kept = every["against"].isna() | every["against"].isin(["two", LOWEST])
    pd.testing.assert_frame_equal(some, every[kept].reset_index(drop=True))


def test_a_frozen_list_is_looked_at_alone():
    found = summary(noisy(np.random.default_rng(0)), measures=["two"], draws=10)
    assert {*found["measure"]} == {"two", RANDOM, AVERAGE}
    with pytest.raises(UserError, match="'three'"):
        summary(noisy(np.random.default_rng(0)), measures=["three"], draws=10)


def test_every_set_counts_alike():
    rng = np.random.default_rng(0)
    few, many = noisy(rng, targets=4), noisy(rng, targets=12, measures=("two", "one"))
    found = summary(few, many, draws=100)
    means = [each.groupby("measure")["top1"].mean()["one"] for each in (few, many)]
    row = fetched(found, "one", "top1")
    assert row["value"] == pytest.approx(np.mean(means)) and row["targets"] == 16
    with pytest.raises(UserError, match="that all tables have"):
        summary(few, many.assign(network="m"), draws=10)


def test_cells_without_a_number_do_not_count():
    values = np.array([[[1.0, np.nan, 5.0], [3.0, np.nan, np.nan]]])
    means = agreement.resampled(values, agreement.weights(2, 3, 500, [0]))
    assert means[0, 0] == pytest.approx((2 + 5) / 2)  # over trials first
    value, low, high = agreement.interval(means)
    assert 1 <= low[0] < value[0] < high[0] <= 5
    nothing = agreement.resampled(np.full((1, 2, 3), np.nan), agreement.weights(2, 3, 5, [0]))
    assert np.isnan([*map(float, np.ravel(agreement.interval(nothing)))]).all()


def test_intervals_hold_the_known_value():
    """Of targets and trials that are drawn anew, about as often as is said."""
    rng = np.random.default_rng(1)
    held = 0
    for number in range(200):
        level, start = rng.normal(size=12), 0.3 * rng.normal(size=3)
        values = level + start[:, None] + rng.normal(size=(1, 3, 12))
        means = agreement.resampled(values, agreement.weights(3, 12, 300, [number]))
        _, low, high = agreement.interval(means)
        held += low[0] < 0 < high[0]
    assert 0.88 <= held / 200 <= 0.99
