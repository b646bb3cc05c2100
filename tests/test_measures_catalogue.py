"""The measures that are always there: what each declares is what it takes, and no more."""

import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import experiment_of
from test_distance import PLACE, TASKS, Trial

from ftd.layout import LAYOUT
from ftd.measures import Combination, Measure, comparison_of
from ftd.parts import MEASURES
from ftd.stages import distance, embedding

HIGHER = {
    *("leep", "nce", "logme", "hscore", "hscore-shrunk", "cka-labels", "cka-features"),
    *("linear-probe", "knn", "classes", "source-accuracy", "displacement", "displacement-fisher"),
}
LOWER = {
    *("fisher", "fisher-matching", "fisher-body", "fisher-layers", "fisher-own", "fisher-refit"),
    *("task-affinity", "task2vec"),
}
RANKS = {"leep-logme", "cka-logme", "cka-logme-displacement", "cka-logme-displacement-fisher"}
ONES = sorted(HIGHER | LOWER)
SYMMETRIC = ("fisher-own", "task2vec", "displacement", "displacement-fisher")


@pytest.fixture(scope="module")
def trial(tmp_path_factory, digits):
    made = Trial(tmp_path_factory.mktemp("measures"), digits.parent)
    for task in ("zero", "six"):
        made.fisher(task)
    for task in TASKS:
        embedding.run(made.of(), task=task, **PLACE)
    return made


def test_all_have_a_direction_a_range_and_a_source():
    assert {*MEASURES.names()} >= HIGHER | LOWER | RANKS
    for name in HIGHER | LOWER | RANKS:
        measure = MEASURES.get(name)
        assert measure.nearer == ("higher" if name in HIGHER else "lower"), name
        assert measure.reference and measure.bounds[0] < measure.bounds[1], name
        assert isinstance(measure, Combination) or measure.cost, name


@pytest.mark.parametrize("name", ONES)
def test_a_column_takes_what_the_measure_declares(trial, name):
    trial.list(measure=name)
    measure = MEASURES.get(name)
    assert isinstance(measure, Measure) and comparison_of(name, measure)
    assert trial.column(measure=name) == len(TASKS) - measure.zero_to_itself
    numbers = trial.table(name)["distance"].to_numpy()
    assert np.isfinite(numbers).all()
    assert (numbers >= measure.lowest).all() and (numbers <= measure.highest).all()
    # Of so few images, the H-score says that any features tell labels apart.
    assert len({*numbers.round(7)}) > (0 if name == "hscore" else 1)
    if measure.zero_to_itself:
        assert trial.table(name).loc["ten", "distance"] == 0


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_measures(trial, name):
    trial.list(measure=name)
    for target in ("ten", "zero"):
        trial.column(measure=name, target=target)
    there, back = column_of(trial, name, "ten")["zero"], column_of(trial, name, "zero")["ten"]
    assert there == pytest.approx(back, rel=1e-6)


def column_of(trial, name, target):
    from ftd.measures.columns import read_columns  # as the table of all reads them

    index = trial.path(LAYOUT.index, measure=name)
    path = trial.path(LAYOUT.column, measure=name, task=target)
    pairs, _, _ = next(read_columns(index, [path], MEASURES.get(name)))
    frame = pairs.to_pandas()
    return dict(zip(frame["source"], frame["distance"], strict=True))


def test_fisher_matching_is_the_setting_of_fisher(trial):
    trial.list(measure="fisher-matching")
    trial.column(measure="fisher-matching")
    how = {"measures": ["fisher"], "distance": {"fisher": {"align": "matching"}}}
    distance.run(trial.of(**how), measure="fisher", task="ten", **PLACE)
    assert column_of(trial, "fisher-matching", "ten") == column_of(trial, "fisher", "ten")


def test_measures_of_what_is_seen_stand_in_one_group(tmp_path):
    grouped = distance.groups(experiment_of(tmp_path, measures=ONES))
    assert set(grouped["seen"]) == {
        *("leep", "nce", "logme", "hscore", "hscore-shrunk", "cka-labels", "cka-features"),
        *("linear-probe", "knn"),
    }


@pytest.mark.parametrize("name", sorted(RANKS))
def test_combinations_by_rank_keep_to_directions(name):
    numbers = np.array([[-1.0, -2, -3], [-4, -1, -2], [-2, -3, -1]])
    measure = MEASURES.get(name)
    found = measure.combine(dict.fromkeys(measure.of, numbers))
    assert found.tolist() == [[1, 1, 2], [2, 1, 1], [1, 2, 1]]  # the highest is the first
    assert measure.bounds == (1, math.inf)
    assert [of.partition("-")[0] for of in measure.of][:2] == name.split("-")[:2]


def test_the_catalogue_imports_no_torch_and_no_numpy():
    code = "import sys; from ftd.parts import MEASURES; MEASURES.get('leep');"
    code += "print({'torch', 'numpy', 'scipy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
