"""README's own lines, and those of the page for Python, run as they stand there."""

import re

import pytest
import torch
from conftest import ROOT

import ftd
from ftd import store
from ftd.layout import LAYOUT
from ftd.measures.passes import BATCH
from ftd.stages import probe
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "python.md").read_text()
LIBRARY, WHOLE, BY_HAND = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("source", "target"), [("zero", "three"), ("three", "zero")])
def test_the_library_s_lines_give_the_workflow_s_numbers_to_the_last_digit(
    finished, source, target
):
    """On its own probes, given its batches and settings, on one thread."""
    root = finished.results
    networks = {
        name: probe.load(LAYOUT.probe.path(root, network="small-cnn", trial=0, task=name))[0]
        for name in (source, target)
    }
    sliced = read_slice(LAYOUT.slice.path(root, task=target))
    data = TaskData(sliced, LAYOUT.images.path(root, dataset="digits"), {"fisher": 40})
    lines = {
        "source": networks[source],
        "target": networks[target],
        "loader": list(data.batches("fisher", BATCH)),
    }
    exec(LIBRARY, lines)
    pairs = store.read_table(LAYOUT.distances.path(root)).to_pandas()
    layers = store.read_table(LAYOUT.layers.path(root)).to_pandas()
    pair, parts = (
        table[(table["source"] == source) & (table["target"] == target)]
        for table in (pairs, layers)
    )
    found = lines["found"]
    assert found.squared == pair["squared_distance"].item() > 0
    assert found.value == found.squared**0.5
    assert found.by_layer == dict(zip(parts["layer"], parts["contribution"], strict=True))
    assert ftd.load(LAYOUT.weights.path(root, method="ftd-nas", task=target, seed=0))(
        torch.zeros(2, 1, 8, 8)
    ).shape == (2, len(sliced.labels))


def test_the_example_from_images_to_distances_runs_as_it_stands():
    lines = {}
    with torch.random.fork_rng():
        exec(WHOLE, lines)
    assert lines["distances"].keys() == {6, 1}
    assert all(0 < value < 1 for value in lines["distances"].values())


def test_a_stage_from_python(tmp_path, monkeypatch):
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    lines = {}
    exec(BY_HAND, lines)
    experiment = lines["digits"]
    facts = store.read_json(
        LAYOUT.probe_facts.path(experiment.root, network="small-cnn", trial=0, task="zero")
    )
    assert facts["epochs"] == 3 and facts["settings"]["epochs"] == 3


def test_it_is_short():
    assert len(README.split()) <= 700
    assert re.findall(r"```python\n(.*?)```", README, re.DOTALL) == [LIBRARY]
    assert "pip install ftd" not in README
