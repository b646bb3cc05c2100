"""Ten dense tasks: what is kept of an experiment, and the page."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evidence import dense_page, dense_tasks, published
from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.ranking import nearest

ORDER = published.TASKONOMY
PLACE = {"network": "resnet18-x0.25"}


def made(root, order=ORDER, agreement=True):
    """An experiment's tables: the published distances, with a spread, by two measures."""
    matrix, rng = published.TASKONOMY_DISTANCES, np.random.default_rng(0)
    rows = [
        {"measure": measure, **PLACE, "trial": trial, "source": order[s], "target": order[t]}
        | {"distance": value, "squared_distance": value if measure == "fisher-refit" else None}
        for measure, sign in (("fisher-refit", 1), ("displacement", -1))
        for trial in range(3)
        for s, t in itertools.product(range(10), repeat=2)
        for value in [0.0 if s == t else sign * matrix[s, t] + 1e-4 * rng.random()]
    ]
    distances = pd.DataFrame(rows)
    store.write_table(LAYOUT.distances.path(root), pa.Table.from_pandas(distances), {})
    store.write_table(LAYOUT.layers.path(root), pa.table({"layer": ["body"]}), {})
    ranks = pa.Table.from_pandas(nearest(distances, list(order)))
    store.write_table(LAYOUT.nearest.path(root), ranks, {"order": list(order)})
    for trial, task in itertools.product(range(3), order):
        weak = task == "curvatures"
        facts = {**PLACE, "trial": trial, "task": task, "seed": 0, "reached": not weak}
        facts |= {"val_accuracy": 0.52 if weak else 0.9, "val_most_frequent": 0.5, "epochs": 2}
        facts |= {"metric": "δ1", "val_metric": 0.52 if weak else 0.9, "val_metric_constant": 0.5}
        facts |= {"settings": {"epochs": 2}, "packages": {"torch": "2"}, "seconds": 1.0}
        facts |= {"image": {"size": 64, "channels": 3}}
        store.write_json(LAYOUT.probe_facts.path(root, trial=trial, task=task, **PLACE), facts)
        part = pa.table({"part": ["train", "val", "fisher", "test"]})
        store.write_table(LAYOUT.slice.path(root, task=task), part, {})
    cut = LAYOUT.cut.path(root, dataset="nyu")
    store.write_table(cut, pa.table({"part": ["train"]}), {"settings": {"loader": "parquet"}})
    if agreement:
        values = itertools.product(("displacement", "random"), ("spearman", "regret"))
        summary = pd.DataFrame(
            {"measure": name, "against": None, "arm": "all", "disjoint": False, "scope": "whole"}
            | {"shots": 50.0, "statistic": what, "value": 0.5, "low": 0.25, "high": 0.75}
            for name, what in values
        )
        path = LAYOUT.agreement.path(root, truth="weights")
        store.write_table(path, pa.Table.from_pandas(summary), {})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_page_says_what_the_tables_hold(tmp_path):
    made(tmp_path / "results")
    dense_tasks.keep(tmp_path / "results", "nyu", "A note.")
    found = dense_tasks.load("nyu")
    off = ~np.eye(10, dtype=bool)
    assert found.higher == {"displacement"}  # a similarity: the larger is nearer
    for measure, sign in (("fisher-refit", 1), ("displacement", -1)):
        mean = found.numbers[measure].mean(0)
        assert np.allclose(mean[off], sign * published.TASKONOMY_DISTANCES[off], atol=2e-4)
    near, alike = (dense_page._far(found, name) for name in ("fisher-refit", "displacement"))
    assert alike.min() == 0 and np.allclose(alike[0][off], near[0][off] - 0.04, atol=1e-3)
    lines = dense_page.write([found], dense_tasks.TABLES)
    text = dense_page.PAGE.read_text()
    assert text == "\n".join(lines) + "\n" and "A note." in text and "3 trials" in text
    assert "| curvatures | δ1 | 0.52 ± 0 | 0.5 | 4% **less than a tenth** | 0 of 3 |" in text
    assert "| normals | δ1 | 0.9 ± 0 | 0.5 | 80% | 3 of 3 |" in text
    assert text.count("| 3 of 3 trials | 1.00 | 1.00 | 10 of 10 |") == 2
    assert "| displacement | 0.50 [0.25, 0.75] |" in text
    for measure in ("fisher-refit", "displacement"):
        for kind in ("atlas", "curves"):
            assert (dense_tasks.TABLES / f"nyu-{measure}-{kind}.svg").exists()
            assert f"(taskonomy/nyu-{measure}-{kind}.svg)" in text
    assert "| -0.440 ± 0.000 |" in text  # the measure's own number in its matrix
    (row,) = [line for line in lines if line.startswith("| **nearest")][:1]
    assert row.startswith("| **nearest source** | z-depth (100%) | euclidean-distance (100%) |")


def test_without_gains_there_is_no_table_of_them(tmp_path):
    made(tmp_path / "results", agreement=False)
    dense_tasks.keep(tmp_path / "results", "nyu", "")
    assert not any(
        "Regret" in line for line in dense_page.write([dense_tasks.load("nyu")], tmp_path)
    )


def test_other_tasks_are_refused(tmp_path):
    made(tmp_path / "results", order=[*ORDER[:9], "jigsaw"])
    dense_tasks.keep(tmp_path / "results", "nyu", "")
    with pytest.raises(UserError, match="expected the tasks euclidean-distance, z-depth"):
        dense_tasks.load("nyu")


def test_published_neighbours_are_those_that_the_paper_names():
    near = dict(zip(ORDER, published.nearest(published.TASKONOMY_DISTANCES), strict=True))
    assert near["euclidean-distance"] == 1 and near["z-depth"] == 0
    assert ORDER[near["texture-edges"]] == "autoencoding"
    assert ORDER[near["reshading"]] == "autoencoding"
    assert ORDER[near["keypoints-2d"]] == "keypoints-3d"
    best = published.TASKONOMY_AFFINITIES - np.diag([np.inf] * 10)
    assert ORDER[best.argmax(0)[0]] == "z-depth"
