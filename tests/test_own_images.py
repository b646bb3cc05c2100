"""The configuration for one's own images: as it is shipped, on a small folder of made-up ones."""

import re
import sys
import textwrap

import pytest
import yaml
from conftest import ROOT, Workflow, write_images

from ftd import config, store
from ftd.layout import LAYOUT
from ftd.library import recommend
from ftd.stages import report
from ftd.stages.experiment import Experiment
from ftd.transfer import trust

OWN = ROOT / "config" / "own.yaml"
CLASSES = dict.fromkeys(("cat", "dog", "car", "truck", "bird"), 12)
SMALL = {"image": {"size": 8, "channels": 3}, "trials": 1, "probe": {"epochs": 1}}


def test_it_is_valid_and_light():
    found = config.load(OWN)
    assert found.deciding == found.select.measure and len(found.tasks) == 3
    assert {data.loader for data in found.datasets.values()} == {"imagefolder"}
    assert {"fisher", found.deciding} < set(found.measures)


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """The workflow up to its selection."""
    workflow = Workflow(tmp_path_factory.mktemp("own"), SMALL)
    write_images(workflow.folder / "data" / "photos", CLASSES, mode="RGB")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    files = ["--configfile", str(OWN), "tiny.yaml"]
    workflow.run(command=[*command, *files, "--cores", "2", "selection"])
    return workflow.folder / "results" / "own"


def test_every_measure_names_a_learned_task(selected):
    found, facts = store.read_document(LAYOUT.selection.path(selected))
    asked = config.load(OWN)
    assert facts["measure"] == asked.select.measure
    for task, arrived in zip(asked.tasks, ([], ["pets"], ["pets", "vehicles"]), strict=True):
        by_measure = found[task]["by_measure"]
        assert set(by_measure) == set(asked.measures)
        assert all(set(named) <= set(arrived) for named in by_measure.values())
        assert found[task]["nearest"] == by_measure[asked.select.measure]


def test_the_task_in_its_comment_is_recommended_for(selected, tmp_path):
    written = re.search(r"^#     tasks:\n#       .*\n", OWN.read_text(), re.MULTILINE)[0]
    (tmp_path / "new.yaml").write_text(textwrap.dedent(written.replace("#", "")))
    assert list(yaml.safe_load((tmp_path / "new.yaml").read_text())["tasks"]) == ["bird"]
    files = [OWN, selected.parent.parent / "tiny.yaml"]
    report.record(Experiment.load(*files, results=selected))  # as the comment says
    data = selected.parent.parent / "data"
    said = recommend.run(selected, tmp_path / "new.yaml", data_root=data)
    asked = config.load(OWN)
    assert said.measure == asked.select.measure and said.decided_by == "select.measure"
    assert set(said.by_measure) == set(asked.measures) and len(said.nearest) == 3
    lines = said.text().splitlines()
    assert f"{said.measure} decides, named by select.measure of the library" in lines
    assert trust.sentence(said.measure, trust.measured(asked.measures)) in lines
    assert any(line.startswith("the task nearest to all learned ones") for line in lines)
