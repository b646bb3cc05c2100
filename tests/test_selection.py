"""Selection: ranks, spread, agreement, and the order of arrival."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import experiment_of

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.ranking import nearest
from ftd.stages import selection

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
    out = written(experiment, distances().assign(network="small-cnn"))
    found = store.read_json(experiment.output(LAYOUT.selection))
    assert found["c"]["nearest"] == ["b"]
    line = "c: b (0.250 ± 0.071, first in 50% of trials); nearest learned: b"
    assert line in selection.summary(out).splitlines()[-1]


def test_the_summary_names_as_many_as_were_chosen(tmp_path):
    experiment = of_tasks(tmp_path, select={"nearest": 2})
    out = written(experiment, distances().assign(network="small-cnn"))
    assert selection.summary(out).endswith("nearest learned: b, a")
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
