"""A new task among the learned ones of a library."""

import errno
import hashlib
import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from conftest import experiment_of

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.library import recommend
from ftd.measures import Combination, Measure
from ftd.parts import MEASURES
from ftd.stages import dataset, selection
from ftd.transfer import trust

NEW = {"seven": {"dataset": "digits", "labels": {"other": "rest", "seven": [7]}}}


OTHER = {"digits": {"loader": "sklearn-digits", "fit": "resize"}}


def digests(folder) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump({"tasks": NEW}))
    return path


def test_a_new_task_is_placed_and_the_library_left_alone(finished, task_file, tmp_path):
    before = digests(finished.results)
    found = recommend.run(finished.results, task_file, data_root=tmp_path, searching=True)
    assert digests(finished.results) == before
    assert sorted(found.nearest["source"]) == ["six", "three", "zero"]
    assert list(found.nearest["rank"]) == [1, 2, 3]
    assert list(found.nearest["mean"]) == sorted(found.nearest["mean"])
    best = found.nearest["source"].iloc[0]
    assert found.architecture == finished.results / f"search/ftd-nas/{best}/0/genotype.json"
    genotype, metrics = map(store.read_json, found.found)
    assert genotype["donors"] == list(found.nearest["source"]) and metrics["task"] == "seven"
    assert found.found[0].parent == task_file.parent
    text = found.text()
    assert f"  1. {best}: " in text and f"{metrics['parameters']:,} parameters" in text


def test_it_is_what_the_workflow_finds(finished, task_file, tmp_path):
    """The same distances, selection and architecture as by adding the task to the experiment."""
    from conftest import TINY

    library = finished.copy(tmp_path / "library").results
    added = recommend.run(library, task_file, data_root=tmp_path, searching=True, add=True)
    workflow = finished.copy(tmp_path / "all")
    workflow.configure(TINY | {"tasks": TINY["tasks"] | NEW})
    workflow.run("comparison")
    table = store.read_table(workflow.results / "nearest.parquet").to_pandas()
    expected = table[table["target"] == "seven"].set_index("source")["mean"]
    for row in added.nearest.itertuples():
        assert row.mean == pytest.approx(expected[row.source], rel=1e-12)
    path = "search/ftd-nas/seven/0/genotype.json"
    ours, theirs = (store.read_json(root / path) for root in (library, workflow.results))
    assert ours["genotype"] == theirs["genotype"] and ours["donors"] == theirs["donors"]

    record = json.loads((library / "config.json").read_text())
    assert list(record["tasks"]) == [*TINY["tasks"], "seven"]  # the order of arrival
    assert list(record["tasks"]["seven"]["labels"]) == ["other", "seven"]  # and of the labels
    assert record["tasks"]["seven"] == NEW["seven"]
    another = task_file.with_name("another.yaml")
    datasets = {"digits": {"loader": "sklearn-digits"}}
    another.write_text(yaml.safe_dump({"tasks": {"one": NEW["seven"]}, "datasets": datasets}))
    again = recommend.run(library, another, data_root=tmp_path)
    assert again.nearest["source"].iloc[0] == "seven"  # the same labels
    with pytest.raises(UserError, match="holds a task 'seven' already"):
        recommend.run(library, task_file, data_root=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tasks": {}}, "expected the keys 'tasks', with one task"),
        ({"tasks": NEW, "probe": {}}, "expected the keys 'tasks', with one task"),
        ({"tasks": {"x": {"dataset": "moons", "labels": "all"}}}, "no data set 'moons'"),
        ({"tasks": NEW, "datasets": OTHER}, "differs from the library"),
        ([1], "expected a mapping of keys"),
        ({"tasks": NEW, "datasets": [1]}, "expected the keys 'tasks'"),
    ],
)
def test_bad_task_files(finished, tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        recommend.run(finished.results, path, data_root=tmp_path)


def test_a_failed_addition_leaves_the_library_as_it_was(finished, task_file, tmp_path):
    library = finished.copy(tmp_path / "library").results
    shutil.rmtree(library / "search")
    before = digests(library)
    with pytest.raises(UserError, match="no learned task was searched"):
        recommend.run(library, task_file, data_root=tmp_path, searching=True, add=True)
    assert digests(library) == before


def test_a_folder_that_cannot_be_written_is_said_before_any_work(
    finished, task_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(recommend.probe, "run", None)  # calling it would fail
    monkeypatch.setattr(recommend.tempfile, "TemporaryFile", refused)
    for place, keys in ((tmp_path, {"searching": True}), (finished.results, {"add": True})):
        with pytest.raises(UserError, match=f"^{place}: results cannot be written there .Read"):
            recommend.run(finished.results, task_file, data_root=tmp_path, **keys)


def refused(**_):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_search_starts_from_the_nearest_tasks_that_were_searched(finished, task_file, tmp_path):
    library = finished.copy(tmp_path / "library").results
    added = recommend.run(library, task_file, data_root=tmp_path, add=True)  # seven: no search
    nearest = added.nearest["source"].iloc[0]
    another = task_file.with_name("another.yaml")
    another.write_text(yaml.safe_dump({"tasks": {"again": NEW["seven"]}}))
    found = recommend.run(library, another, data_root=tmp_path, searching=True)
    assert found.nearest["source"].iloc[0] == "seven"  # the same labels
    assert found.architecture == library / f"search/ftd-nas/{nearest}/0/genotype.json"
    assert store.read_json(found.found[0])["donors"] == list(added.nearest["source"])


# A library of other settings ----------------------------------------------------------------------


@pytest.fixture
def library(finished, tmp_path):
    """A copy of the library; ``change``: other sections of its record."""

    class Copy:
        root = finished.copy(tmp_path / "library").results

        def change(self, **sections):
            path = LAYOUT.config.path(self.root)
            store.write_json(path, store.read_json(path) | sections, sort_keys=False)

    return Copy()


@pytest.fixture
def on_own_data(tmp_path):
    """A task file with a data set of its own, ``extra``."""
    path = tmp_path / "own.yaml"
    tasks = {"seven": NEW["seven"] | {"dataset": "extra"}}
    datasets = {"extra": {"loader": "sklearn-digits", "parts": {"val": 0.2}}}
    path.write_text(yaml.safe_dump({"tasks": tasks, "datasets": datasets}))
    return path


def left_behind(library, **keys):
    """What a data set of the same name has left in the library."""
    datasets = {"extra": {"loader": "sklearn-digits"} | keys}
    tasks = {"any": {"dataset": "extra", "labels": "all"}}
    experiment = experiment_of(library.root, datasets=datasets, tasks=tasks)
    dataset.run(experiment, dataset="extra")
    return experiment.output(LAYOUT.cut, dataset="extra")


def test_a_leftover_of_other_settings_is_not_taken(library, on_own_data, tmp_path):
    cut = left_behind(library, parts={"val": 0.3})
    before = cut.read_bytes()
    recommend.run(library.root, on_own_data, data_root=tmp_path)
    assert cut.read_bytes() == before
    recommend.run(library.root, on_own_data, data_root=tmp_path, add=True)
    facts = store.table_facts(store.read_table(cut))
    assert facts["settings"]["parts"]["val"] == 0.2
    sliced = store.table_facts(store.read_table(LAYOUT.slice.path(library.root, task="seven")))
    assert sliced["cut"] == facts["sha256"] and sliced["images"] == facts["images"]


def test_a_leftover_of_equal_settings_is_taken(library, on_own_data, tmp_path, monkeypatch):
    left_behind(library, parts={"val": 0.2})
    monkeypatch.setattr(dataset, "run", None)  # calling it would fail
    recommend.run(library.root, on_own_data, data_root=tmp_path)


def test_a_damaged_leftover_is_not_taken(library, on_own_data, tmp_path):
    cut = left_behind(library, parts={"val": 0.2})
    cut.write_bytes(cut.read_bytes()[:-9])
    recommend.run(library.root, on_own_data, data_root=tmp_path)


def test_probes_go_to_the_cache_and_come_from_it(library, task_file, tmp_path, capfd):
    library.change(cache=str(tmp_path / "cache"))
    first = recommend.run(library.root, task_file, data_root=tmp_path)
    assert "taken from" not in capfd.readouterr().err
    second = recommend.run(library.root, task_file, data_root=tmp_path)
    assert capfd.readouterr().err.count(f"taken from {tmp_path / 'cache'}") == 1
    assert second.nearest.equals(first.nearest)


def test_data_sets_of_loaders_with_keys_of_their_own(library, task_file, tmp_path):
    """They are the library's, however often they are read."""
    own = {"photos": {"loader": "imagefolder", "train": "photos"}}
    library.change(datasets={"digits": {"loader": "sklearn-digits"}} | own)
    assert len(recommend.run(library.root, task_file, data_root=tmp_path).nearest) == 3


# What stands beside the ranks ---------------------------------------------------------------------


def of_library(root, numbers, measure="fisher"):
    """The library's distances, by source, whatever the target."""
    rows = [
        {"measure": measure, "network": "small-cnn", "trial": 0, "source": source}
        | {"target": target, "distance": number**0.5, "squared_distance": number}
        for (source, number), target in itertools.product(numbers.items(), numbers)
    ]
    made = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    store.write_table(LAYOUT.distances.path(root), made, {"stage": "distance"})


def test_what_decides_and_how_far_to_trust_it(library, task_file, tmp_path, monkeypatch):
    found = recommend.run(library.root, task_file, data_root=tmp_path)
    lines = found.text().splitlines()
    assert found.decided_by == "measures" and found.weights is None
    assert "fisher decides, named by measures of the library as the first" in lines
    assert trust.sentence("fisher", found.trust) in lines
    own = trust.Trust((0.41, 0.35, 0.47), (0.5, 0.4, 0.6), (1.1, 0.8, 1.4), 3)
    library.change(select={"measure": "fisher", "temperature": 0.5})
    monkeypatch.setattr(trust, "measured", lambda names: {names[0]: own, trust.RANDOM: own})
    found = recommend.run(library.root, task_file, data_root=tmp_path)
    lines = found.text().splitlines()
    assert "fisher decides, named by select.measure of the library" in lines
    assert found.trust == {"fisher": own, trust.RANDOM: own}
    assert trust.sentence("fisher", found.trust) in lines and "41% [35%" in found.text()
    expected = selection.weights_of(found.nearest["source"], found.nearest["mean"], 0.5)
    assert found.weights == expected and list(expected) == list(found.nearest["source"])
    shares = ", ".join(f"{source} {share:.2f}" for source, share in expected.items())
    assert f"weights of all learned tasks: {shares}" in lines


def test_what_any_new_task_would_get_stands_beside_it(library, task_file, tmp_path):
    def line():
        (found,) = (text for text in said.text().splitlines() if "learned ones on av" in text)
        return found.removeprefix("the task nearest to all learned ones on average: ")

    said = recommend.run(library.root, task_file, data_root=tmp_path)
    first, second, third = said.nearest["source"]
    assert set(said.on_average) <= {first, second, third} and said.on_average  # as it was run
    nothing = "; the same, so this may say nothing about seven itself"
    for numbers, others, expected in (
        ((0.1, 0.2, 0.3), [first], f"{first}{nothing}"),
        ((0.3, 0.1, 0.2), [second], f"{second}; another, so not what any new task would get"),
        ((0.1, 0.1, 0.3), [first, second], " tie; what is nearest to seven is one of them"),
    ):
        of_library(library.root, dict(zip((first, second, third), numbers, strict=True)))
        said = recommend.run(library.root, task_file, data_root=tmp_path)
        assert said.on_average == sorted(others) and said.nearest["source"].iloc[0] == first
        assert line() == (expected if len(others) == 1 else ", ".join(sorted(others)) + expected)
    of_library(library.root, {first: 0.1, second: 0.2, third: 0.3}, measure="another")
    said = recommend.run(library.root, task_file, data_root=tmp_path)
    assert said.on_average == [] and line().startswith("not known, the library has no distances")
    LAYOUT.distances.path(library.root).unlink()
    again = recommend.run(library.root, task_file, data_root=tmp_path)
    assert again.text() == said.text()
    alone = replace(said, nearest=said.nearest.head(1)).text()
    assert "only one task is learned: any new task would get the same" in alone.splitlines()


def test_a_combination_that_comes_first_decides(library, task_file, tmp_path, registered):
    """Here: farther is nearer. Of the new task as a source there is no number."""
    plain = recommend.run(library.root, task_file, data_root=tmp_path)
    seen = []

    def turned(of):
        seen.append(of["fisher"])
        return 1 - of["fisher"]

    registered(MEASURES, "turned", Combination(("fisher",), turned, 0.0, 1.0))
    library.change(measures=["turned", "fisher"])
    found = recommend.run(library.root, task_file, data_root=tmp_path)
    assert list(found.nearest["source"]) == list(plain.nearest["source"])[::-1]
    expected = 1 - plain.nearest["mean"].to_numpy()[::-1]
    np.testing.assert_allclose(found.nearest["mean"], expected, rtol=1e-6)
    assert "nearest learned tasks of seven (turned, mean over trials" in found.text()
    near, far = (list(plain.nearest["source"])[at] for at in (0, -1))
    assert found.by_measure == {"turned": far, "fisher": near} and not plain.by_measure
    assert f"nearest by each measure: {far} (turned), {near} (fisher)" in found.text()
    known = np.isfinite(seen[0])
    assert seen[0].shape == (4, 4) and known.sum(axis=1).tolist() == [0, 4, 4, 4]  # seven is first


def test_a_combination_that_needs_more_says_so(library, task_file, tmp_path, registered):
    symmetric = Combination(("fisher",), lambda of: (of["fisher"] + of["fisher"].T) / 2, 0.0, 1.0)
    registered(MEASURES, "symmetric", symmetric)
    library.change(measures=["symmetric", "fisher"])
    with pytest.raises(UserError, match="measure 'symmetric': gave an array"):
        recommend.run(library.root, task_file, data_root=tmp_path)
    registered(MEASURES, "symmetric", Combination(("fisher",), lambda of: of["x"], 0.0, 1.0))
    with pytest.raises(UserError, match="measure 'symmetric': KeyError: 'x'"):
        recommend.run(library.root, task_file, data_root=tmp_path)


def test_what_cannot_be_made_and_does_not_decide_is_left_out(
    library, task_file, tmp_path, registered
):
    symmetric = Combination(("fisher",), lambda of: (of["fisher"] + of["fisher"].T) / 2, 0.0, 1.0)
    farther = Combination(("fisher",), lambda of: of["fisher"], 0.0, 1.0, nearer="higher")
    registered(MEASURES, "symmetric", symmetric)
    registered(MEASURES, "farther", farther)
    library.change(measures=["fisher", "symmetric", "farther"], select={"measure": "farther"})
    found = recommend.run(library.root, task_file, data_root=tmp_path)
    assert found.measure == "farther" and found.by_measure.keys() == {"fisher", "farther"}
    assert list(found.nearest["mean"]) == sorted(found.nearest["mean"], reverse=True)


class Accuracies:
    """How much better a source's network is on its own task: below 0, not 0 to itself."""

    def prepare(self, target, settings):
        return target.facts["val_accuracy"]

    def compare(self, source, prepared):
        return {"whole": prepared - source.facts["val_accuracy"] - 3}


def test_a_measure_without_fisher_information_needs_none(
    library, task_file, tmp_path, registered, monkeypatch
):
    own = Measure(Accuracies, ("facts",), ("facts",), -float("inf"), 0.0)
    registered(MEASURES, "accuracies", own)
    library.change(measures=["accuracies"])
    monkeypatch.setattr(recommend.fisher, "run", None)  # calling it would fail
    found = recommend.run(library.root, task_file, data_root=tmp_path)
    assert list(found.nearest["mean"]) == sorted(found.nearest["mean"])
    assert found.nearest["mean"].max() < -1 and len(found.nearest) == 3


def test_no_library(tmp_path, task_file):
    with pytest.raises(UserError, match="no library; give the folder of a finished experiment"):
        recommend.run(tmp_path, task_file, data_root=tmp_path)
