"""Selection: ranks, spread, agreement, and the order of arrival."""

import numpy as np
import pandas as pd
import pytest

from ftd import artifacts, select
from ftd.config import Select
from ftd.errors import UserError

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
    rows = [
        {
            "network": "n",
            "trial": trial,
            "source": source,
            "target": target,
            "squared_distance": values[trial],
        }
        for (source, target), values in D.items()
        for trial in trials
        if (source, target) != drop
    ]
    rows += [
        {"network": "n", "trial": t, "source": s, "target": s, "squared_distance": 0.0}
        for s in ORDER
        for t in trials
    ]
    return pd.DataFrame(rows)


def test_nearest_table():
    table = select.nearest(distances(), ORDER).set_index(["target", "source"])
    assert list(table.columns) == ["network", "rank", "mean", "std", "agreement", "learned"]
    assert len(table) == 6  # never the task itself
    assert table.loc[("c", "b"), "rank"] == 1 and table.loc[("c", "a"), "rank"] == 2
    assert table.loc[("c", "a"), "mean"] == pytest.approx(0.3)
    assert table.loc[("c", "a"), "std"] == pytest.approx(np.std([0.5, 0.1], ddof=1))
    assert table.loc[("c", "a"), "agreement"] == 0.5  # first in the second trial only
    assert not table.loc[("a", "b"), "learned"] and table.loc[("b", "a"), "learned"]


def test_one_trial_has_no_spread():
    table = select.nearest(distances(trials=(0,)), ORDER)
    assert (table["std"] == 0).all() and set(table["agreement"]) == {0.0, 1.0}


def nearest_of(table, order):
    return {task: found["nearest"] for task, found in select.selection(table, order, "n").items()}


def test_selection_knows_only_tasks_that_arrived_before():
    table = select.nearest(distances(), ORDER)
    assert nearest_of(table, ORDER) == {"a": [], "b": ["a"], "c": ["b"]}
    order = ["c", "b", "a"]
    table = select.nearest(distances(), order)
    assert nearest_of(table, order) == {"c": [], "b": ["c"], "a": ["c"]}


def test_the_farthest_and_more_than_one():
    table = select.nearest(distances(), ORDER)
    one = select.selection(table, ORDER, "n")
    assert one["a"] == {"nearest": [], "farthest": []}
    assert one["c"]["farthest"] == ["a"]
    two = select.selection(table, ORDER, "n", nearest=2)
    assert two["c"]["nearest"] == ["b", "a"] and two["b"]["nearest"] == ["a"]


def test_random_ones_are_drawn_for_every_search_among_those_that_arrived_before():
    def drawn(task, nearest, seed):
        return select.drawn(ORDER, task, nearest=nearest, seed=0, search_seed=seed)

    assert {drawn("c", 1, seed)[0] for seed in range(20)} == {"a", "b"}
    assert drawn("c", 1, 3) == drawn("c", 1, 3)
    assert sorted(drawn("c", 5, 0)) == ["a", "b"] and drawn("a", 1, 0) == []


def test_a_later_task_changes_no_earlier_selection():
    two = distances()[lambda t: t.source.isin(["a", "b"]) & t.target.isin(["a", "b"])]
    before = select.selection(select.nearest(two, ["a", "b"]), ["a", "b"], "n")
    after = select.selection(select.nearest(distances(), ORDER), ORDER, "n")
    assert after.items() >= before.items()


def test_a_missing_pair_is_an_error():
    with pytest.raises(UserError, match="pairs are missing for network n"):
        select.nearest(distances(drop=("a", "c")), ORDER)


def test_run_writes_table_and_selection(tmp_path):
    import pyarrow as pa

    source = tmp_path / "distances.parquet"
    artifacts.write_table(source, pa.Table.from_pandas(distances(), preserve_index=False))
    out = tmp_path / "nearest.parquet"
    select.run(
        source,
        order=ORDER,
        networks=["n"],
        settings=Select(),
        nearest_out=out,
        selection_out=tmp_path / "selection.json",
    )
    assert artifacts.read_json(tmp_path / "selection.json")["c"]["nearest"] == ["b"]
    assert "c: b (0.250 ± 0.071, first in 50% of trials); nearest learned: b" in select.summary(out)
