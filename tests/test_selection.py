"""Selection: ranks, spread, agreement, and the order of arrival."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import experiment_of
from hypothesis import given
from hypothesis import strategies as st

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Combination
from ftd.measures.ranking import nearest, nearest_on_average
from ftd.parts import MEASURES
from ftd.stages import selection
from ftd.stages.checking import Library

ORDER = ["a", "b", "c"]
D = {  # squared distance by (source, target), two trials
    ("a", "b"): (0.2, 0.4),
    ("a", "c"): (0.5, 0.1),
    ("b", "a"): (0.3, 0.3),
    ("b", "c"): (0.2, 0.3),
    ("c", "a"): (0.1, 0.2),
    ("c", "b"): (0.1, 0.1),
}


def distances(trials=(0, 1), drop=None):
    own = {(task, task): (0.0, 0.0) for task in ORDER}
    rows = [
        {
            "measure": "fisher",
            "network": "n",
            "trial": trial,
            "source": source,
            "target": target,
            "distance": values[trial] ** 0.5,
            "squared_distance": values[trial],
        }
        for (source, target), values in (D | own).items()
        for trial in trials
        if (source, target) != drop
    ]
    return pd.DataFrame(rows)


def chosen(table, order, **keys):
    return selection.choose(table, order, "fisher", "n", **keys)


def test_nearest_table():
    table = nearest(distances(), ORDER).set_index(["target", "source"])
    assert list(table.columns) == [
        "measure",
        "network",
        "rank",
        "mean",
        "std",
        "agreement",
        "learned",
    ]
    assert len(table) == 6  # never the task itself
    assert table.loc[("c", "b"), "rank"] == 1 and table.loc[("c", "a"), "rank"] == 2
    assert table.loc[("c", "a"), "mean"] == pytest.approx(0.3)
    assert table.loc[("c", "a"), "std"] == pytest.approx(np.std([0.5, 0.1], ddof=1))
    assert table.loc[("c", "a"), "agreement"] == 0.5  # first in the second trial only
    assert not table.loc[("a", "b"), "learned"] and table.loc[("b", "a"), "learned"]


def test_one_trial_has_no_spread():
    table = nearest(distances(trials=(0,)), ORDER)
    assert (table["std"] == 0).all() and set(table["agreement"]) == {0.0, 1.0}


def nearest_of(table, order):
    return {task: found["nearest"] for task, found in chosen(table, order).items()}


def test_selection_knows_only_tasks_that_arrived_before():
    table = nearest(distances(), ORDER)
    assert nearest_of(table, ORDER) == {"a": [], "b": ["a"], "c": ["b"]}
    order = ["c", "b", "a"]
    table = nearest(distances(), order)
    assert nearest_of(table, order) == {"c": [], "b": ["c"], "a": ["c"]}


def test_the_farthest_and_more_than_one():
    table = nearest(distances(), ORDER)
    one = chosen(table, ORDER)
    assert one["a"] == {"nearest": [], "farthest": []}
    assert one["c"]["farthest"] == ["a"]
    two = chosen(table, ORDER, nearest=2)
    assert two["c"]["nearest"] == ["b", "a"] and two["b"]["nearest"] == ["a"]


def of_tasks(folder, order=ORDER, **sections):
    """The tiny experiment with other tasks."""
    tasks = {name: {"dataset": "digits", "labels": "all"} for name in order}
    return experiment_of(folder, tasks=tasks, **sections)


def test_random_ones_are_drawn_for_every_search_among_those_that_arrived_before(tmp_path):
    def drawn(task, nearest, seed):
        experiment = of_tasks(tmp_path, select={"nearest": nearest})
        return selection.drawn(experiment, task, seed)

    assert {drawn("c", 1, seed)[0] for seed in range(20)} == {"a", "b"}
    assert drawn("c", 1, 3) == drawn("c", 1, 3)
    assert sorted(drawn("c", 5, 0)) == ["a", "b"] and drawn("a", 1, 0) == []


def test_a_later_task_changes_no_earlier_selection():
    two = distances()[lambda t: t.source.isin(["a", "b"]) & t.target.isin(["a", "b"])]
    before = chosen(nearest(two, ["a", "b"]), ["a", "b"])
    after = chosen(nearest(distances(), ORDER), ORDER)
    assert after.items() >= before.items()


def test_a_missing_pair_is_an_error():
    with pytest.raises(UserError, match="pairs are missing for measure fisher, network n"):
        nearest(distances(drop=("a", "c")), ORDER)


def written(experiment, table):
    frame = pa.Table.from_pandas(table, preserve_index=False)
    path = experiment.output(LAYOUT.distances)
    store.write_table(path, frame, {"stage": "distance"})
    selection.run(experiment)
    return experiment.output(LAYOUT.nearest)


def test_run_writes_table_and_selection(tmp_path):
    experiment = of_tasks(tmp_path, networks=["small-cnn"])
    written(experiment, distances().assign(network="small-cnn"))
    found = store.read_json(experiment.output(LAYOUT.selection))
    assert found["c"]["nearest"] == ["b"]


def test_as_many_are_chosen_as_are_asked_for(tmp_path):
    experiment = of_tasks(tmp_path, select={"nearest": 2})
    written(experiment, distances().assign(network="small-cnn"))
    found = store.read_json(experiment.output(LAYOUT.selection))
    assert found["c"]["nearest"] == ["b", "a"]


def test_the_first_measure_decides_and_others_are_ranked_beside_it(tmp_path):
    """One without squares, larger than 1 and not 0 to itself; ranks go by its own numbers."""
    other = distances().assign(measure="other", squared_distance=np.nan)
    other["distance"] = 7.0 - other["distance"]
    table = nearest(pd.concat([distances(), other], ignore_index=True), ORDER)
    assert list(dict.fromkeys(table["measure"])) == ["fisher", "other"]
    assert chosen(table, ORDER)["c"]["nearest"] == ["b"]
    assert selection.choose(table, ORDER, "other", "n")["c"]["nearest"] == ["a"]
    of_other = table[table["measure"] == "other"].set_index(["target", "source"])
    assert of_other.loc[("c", "b"), "mean"] == pytest.approx(7 - (0.2**0.5 + 0.3**0.5) / 2)


def test_no_distances_by_the_first_measure(tmp_path):
    with pytest.raises(UserError, match="no distances by 'fisher' of network 'small-cnn'"):
        written(of_tasks(tmp_path), distances())


def test_the_task_nearest_on_average_has_the_lowest_mean_rank():
    """Of b: c. Of a: c too. Of c: b. So c is first twice, and b first and second."""
    table = distances()
    assert nearest_on_average(table, higher=False) == ["c"]
    assert nearest_on_average(table, higher=True) == ["a"]  # never the nearest of any
    of_two = table[table["source"].isin(["a", "b"]) & table["target"].isin(["a", "b"])]
    assert nearest_on_average(of_two, higher=False) == ["a", "b"]
    assert nearest_on_average(table.assign(squared_distance=0.5), higher=False) == ORDER
    assert nearest_on_average(table[table["source"] == table["target"]], higher=False) == []
    far = table["squared_distance"].where(table["target"] != "a", table["squared_distance"] * 99)
    assert nearest_on_average(table.assign(squared_distance=far), higher=False) == ["c"]


# Directions, several measures, weights ------------------------------------------------------------


def both():
    """The distances, and a measure of which the larger number is the nearer source's."""
    other = distances().assign(measure="other", squared_distance=np.nan)
    other["distance"] = 7.0 + other["distance"]
    return pd.concat([distances(), other], ignore_index=True)


def test_the_larger_number_may_be_the_nearer_source_s():
    lower, higher = (nearest(both(), ORDER, names) for names in ((), ("other",)))
    for table, first in ((lower, "b"), (higher, "a")):
        rows = table[(table["measure"] == "other") & (table["target"] == "c")]
        assert list(rows["rank"]) == [1, 2] and rows["source"].iloc[0] == first
        assert rows["agreement"].sum() == 1
    same = ["measure", "source", "target"]
    numbers = [table.set_index(same).sort_index()[["mean", "std"]] for table in (lower, higher)]
    assert numbers[0].equals(numbers[1])  # they stay the measure's own
    of_fisher = [table[table["measure"] == "fisher"] for table in (lower, higher)]
    assert of_fisher[0].equals(of_fisher[1])


def facts_of(measure="fisher", temperature="inf", higher=(), nearest=1):
    """What decides a selection of the two measures."""
    return {
        **{"order": ORDER, "networks": ["n"], "measures": ["fisher", "other"], "higher": higher},
        "measure": measure,
        "settings": {"nearest": nearest, "sources": 2, "temperature": temperature},
    }


def test_every_measure_s_nearest_stands_beside_the_one_that_decides():
    table = nearest(both(), ORDER, ["other"])
    for measure, first in (("fisher", "b"), ("other", "a")):
        found = selection.selected(table, facts_of(measure, higher=["other"]))
        assert found["c"]["nearest"] == [first] and found["c"]["farthest"] != [first]
        assert found["c"]["by_measure"] == {"fisher": ["b"], "other": ["a"]}
        assert found["a"] == {
            **{"nearest": [], "farthest": [], "heaviest": [], "weights": None},
            "by_measure": {"fisher": [], "other": []},
        }


def test_weights_are_a_softmax_of_the_numbers_in_standard_deviations():
    table = nearest(both(), ORDER, ["other"])
    for measure, sign in (("fisher", -1), ("other", 1)):
        rows = table[(table["measure"] == measure) & (table["target"] == "c")]
        numbers = rows.set_index("source")["mean"].astype(float)
        z = (numbers - numbers.mean()) / numbers.std(ddof=0)
        for temperature in (0.5, 2.0):
            expected = np.exp(sign * z / temperature)
            expected = (expected / expected.sum()).to_dict()
            facts = facts_of(measure, temperature, ["other"])
            found = selection.selected(table, facts)["c"]
            assert found["weights"] == pytest.approx(expected, abs=1e-6)
            assert next(iter(found["weights"])) == found["nearest"][0]
            assert max(found["weights"], key=found["weights"].get) == found["nearest"][0]
            heaviest = sorted(expected, key=expected.get, reverse=True)
            assert found["heaviest"] == heaviest[:2] and len(found["nearest"]) == 1
        uniform = selection.selected(table, facts_of(measure, "inf", ["other"]))["c"]["weights"]
        assert uniform is None


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=9),
    st.sampled_from([1e-6, 0.3, 1, 1e6]),
)
def test_weights_sum_to_one_and_fall_with_the_number(numbers, temperature):
    found = selection.weights_of(map(str, range(len(numbers))), numbers, temperature)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    for a, b in itertools.pairwise(numbers):
        pair = found[str(numbers.index(a))], found[str(numbers.index(b))]
        assert (a <= b and pair[0] >= pair[1]) or (a >= b and pair[0] <= pair[1])
    assert len(set(selection.weights_of("abc", [0.1] * 3, 1e-9).values())) == 1


def two_measures(folder, registered, **select):
    registered(MEASURES, "other", Combination(("fisher",), max, 0.0, 9.0, nearer="higher"))
    experiment = of_tasks(folder, measures=["fisher", "other"], select=select)
    written(experiment, both().assign(network="small-cnn"))
    return experiment


def test_a_measure_that_is_not_the_first_may_decide(tmp_path, registered):
    experiment = two_measures(tmp_path, registered, measure="other", temperature=1)
    found, facts = store.read_document(experiment.output(LAYOUT.selection))
    assert found["c"]["nearest"] == ["a"] and facts["measure"] == "other"
    assert facts["higher"] == ["other"] and found["c"]["weights"]["a"] > 0.5
    library = Library(tmp_path, experiment)
    for artifact, check in selection.CHECKS:
        path = experiment.output(artifact)
        assert list(check(path, {}, library)) == []
    decided = selection.decides(experiment)
    registered(MEASURES, "other", Combination(("fisher",), max, 0.0, 9.0))
    assert selection.decides(experiment) != decided  # another direction is another selection


def test_a_selection_that_does_not_follow_is_found(tmp_path, registered):
    experiment = two_measures(tmp_path, registered, temperature=1)
    path, library = experiment.output(LAYOUT.selection), Library(tmp_path, experiment)
    found, facts = store.read_document(path)
    found["c"]["weights"]["a"] = 0.75
    store.write_json(path, found, facts)
    assert "does not follow from" in "".join(selection._check_selection(path, {}, library))


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (
            {"measure": "fish"},
            r"select\.measure: 'fish' is not listed in measures; did you mean 'fi",
        ),
        ({"temperature": 0}, "select.temperature"),
        ({"temperature": "hot"}, "select.temperature"),
    ],
)
def test_settings_that_select_nothing(tmp_path, select, message):
    with pytest.raises(UserError, match=message):
        of_tasks(tmp_path, select=select)


def test_equal_weights_are_asked_for_in_yaml_s_ways(tmp_path):
    (tmp_path / "one.yaml").write_text("a: inf\nb: .inf\nc: 2\n")
    given = config.read(tmp_path / "one.yaml")
    found = [of_tasks(tmp_path, select={"temperature": given[key]}).config.select for key in "abc"]
    assert [section.temperature for section in found] == ["inf", "inf", 2]
