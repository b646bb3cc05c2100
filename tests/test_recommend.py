"""A new task among the learned ones of a library."""

import hashlib
import json
import shutil

import pytest
import yaml

from ftd import artifacts, recommend
from ftd.errors import UserError

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
    genotype, metrics = map(artifacts.read_json, found.found)
    assert genotype["donors"] == [best] and metrics["task"] == "seven"
    assert found.found[0].parent == task_file.parent
    text = found.text()
    assert f"  1. {best}: " in text and f"{metrics['parameters']:,} parameters" in text


def test_it_is_what_the_workflow_finds(finished, task_file, tmp_path):
    """The same distances, selection and architecture as by adding the task to the experiment."""
    from conftest import TINY, Workflow

    library = finished.copy(tmp_path / "library").results
    added = recommend.run(library, task_file, data_root=tmp_path, searching=True, add=True)
    workflow = Workflow(tmp_path / "all", TINY | {"tasks": TINY["tasks"] | NEW})
    workflow.run("comparison")
    table = artifacts.read_table(workflow.results / "nearest.parquet").to_pandas()
    expected = table[table["target"] == "seven"].set_index("source")["mean"]
    for row in added.nearest.itertuples():
        assert row.mean == pytest.approx(expected[row.source], rel=1e-12)
    path = "search/ftd-nas/seven/0/genotype.json"
    ours, theirs = (artifacts.read_json(root / path) for root in (library, workflow.results))
    assert ours["genotype"] == theirs["genotype"] and ours["donors"] == theirs["donors"]

    record = json.loads((library / "config.json").read_text())
    assert list(record["tasks"]) == [*TINY["tasks"], "seven"]  # the order of arrival
    assert list(record["tasks"]["seven"]["labels"]) == ["other", "seven"]  # and of the labels
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


def test_a_search_starts_from_the_nearest_task_that_was_searched(finished, task_file, tmp_path):
    library = finished.copy(tmp_path / "library").results
    added = recommend.run(library, task_file, data_root=tmp_path, add=True)  # seven: no search
    nearest = added.nearest["source"].iloc[0]
    another = task_file.with_name("another.yaml")
    another.write_text(yaml.safe_dump({"tasks": {"again": NEW["seven"]}}))
    found = recommend.run(library, another, data_root=tmp_path, searching=True)
    assert found.nearest["source"].iloc[0] == "seven"  # the same labels
    assert found.architecture == library / f"search/ftd-nas/{nearest}/0/genotype.json"
    assert artifacts.read_json(found.found[0])["donors"] == [nearest]


def test_no_library(tmp_path, task_file):
    with pytest.raises(UserError, match="no library; give the folder of a finished experiment"):
        recommend.run(tmp_path, task_file, data_root=tmp_path)
