"""Parts of plugins in the workflow: each one's change reruns what uses it, and nothing else."""

import copy
import hashlib
from pathlib import Path

import pytest
from conftest import TINY, Workflow, jobs, made_once
from test_workflow import AFTER_SEARCH, QUIET

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.library import leftovers, verify

PLUGINS = {
    "my_network.py": """
import ftd

def flat(channels, size, width):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 8), nn.ReLU())

ftd.register_network("flat", flat, pooled=False)
""",
    "my_search.py": """
import random
import ftd

def search(space, data, settings, seed, start=None, ledger=None):
    (genotype,) = space.sample(1, random.Random(seed))
    ledger.record("drawn")
    return ledger.result(genotype)

ftd.register_searcher("first", search)
""",
    "my_measure.py": """
import ftd

class Gap:
    def prepare(self, target, settings):
        return target.facts["val_accuracy"]

    def compare(self, source, prepared):
        return {"whole": prepared - source.facts["val_accuracy"]}

measure = ftd.Measure(Gap, source=("facts",), target=("facts",), lowest=-1.0, highest=1.0)
ftd.register_measure("gap", measure)
""",
}
AFTER_COMPARISON = (
    *("comparison", "comparison_page", "scatter_figure", "overview", "run_page", "make_report"),
)


def configuration() -> dict:
    config = copy.deepcopy(TINY) | {"plugins": list(PLUGINS), "networks": ["flat"]}
    config |= {"measures": ["fisher", "gap"]}
    del config["tasks"]["three"]
    config["search"]["methods"] = ["first"]
    return config


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Workflow:
    """A finished run with a network, a search method and a measure of plugins."""

    def make(folder: Path) -> None:
        workflow = Workflow(folder, configuration())
        for name, code in PLUGINS.items():
            (folder / name).write_text(code)
        workflow.run()

    return Workflow.of(made_once(tmp_path_factory, "plugins", make))


def digest_of(workflow: Workflow, plugin: str) -> str:
    return hashlib.sha256((workflow.folder / plugin).read_bytes()).hexdigest()


def test_artifacts_record_the_plugins_that_made_them(extended, tmp_path):
    root, place = extended.results, {"network": "flat", "trial": 0, "task": "six"}
    searched = {"method": "first", "task": "six", "seed": 0}
    network = {"network flat": digest_of(extended, "my_network.py")}
    measure = {"measure gap": digest_of(extended, "my_measure.py")}
    method = {"method first": digest_of(extended, "my_search.py")}
    assert store.read_tensor_facts(LAYOUT.probe.path(root, **place))["parts"] == network
    assert store.read_tensor_facts(LAYOUT.fisher.path(root, **place))["parts"] == network
    assert store.read_json(LAYOUT.genotype.path(root, **searched))["parts"] == method
    for name, wanted in (("gap", measure), ("fisher", None)):
        table = store.read_table(LAYOUT.column.path(root, measure=name, **place))
        assert store.table_facts(table).get("parts") == wanted
    assert "parts" not in store.table_facts(store.read_table(LAYOUT.slice.path(root, **place)))
    distances = store.read_table(LAYOUT.distances.path(root)).to_pandas()
    assert list(distances["measure"].unique()) == ["fisher", "gap"]
    assert (root / "report.html").stat().st_size > 10**6
    assert (root / "figures" / "gap-flat-mean.svg").exists()
    assert QUIET in extended.copy(tmp_path / "copy").run()


def test_a_library_s_plugins_are_imported_when_asked_for(extended, monkeypatch):
    monkeypatch.chdir(extended.folder)  # which plugins' files are relative to
    for function in (verify.run, leftovers.find):
        with pytest.raises(UserError, match="if you trust them, add --plugins"):
            function(extended.results)
    assert verify.run(extended.results, plugins=True).problems == []
    assert leftovers.find(extended.results, plugins=True) == []


@pytest.mark.parametrize(
    ("plugin", "reruns", "stay"),
    [
        (
            "my_network.py",
            {"probe": 2, "fisher": 2, "index": 2, "distance": 4, "distances": 1, "selection": 1},
            {"dataset", "task"},
        ),
        (
            "my_search.py",
            {"search": 2, "training": 2} | dict.fromkeys((*AFTER_SEARCH, *AFTER_COMPARISON), 1),
            {"dataset", "task", "probe", "fisher", "index", "distance", "distances", "selection"},
        ),
        (
            "my_measure.py",
            {"distance": 2, "distances": 1, "selection": 1},
            {"dataset", "task", "probe", "fisher", "index"},
        ),
    ],
)
def test_a_changed_plugin_reruns_what_uses_it(plugin, reruns, stay, extended, tmp_path):
    workflow = extended.copy(tmp_path / "copy")
    with open(workflow.folder / plugin, "a") as file:
        file.write("\n# another version\n")
    planned = jobs(workflow.run("--dry-run", "all"))
    assert {rule: planned.get(rule) for rule in reruns} == reruns
    assert not stay & planned.keys()


def test_a_measure_that_declares_otherwise_lists_its_sources_anew(extended, tmp_path):
    workflow = extended.copy(tmp_path / "copy")
    file = workflow.folder / "my_measure.py"
    file.write_text(file.read_text().replace("lowest", "version=2, lowest"))
    planned = jobs(workflow.run("--dry-run", "distances"))
    assert planned["index"] == 1 and not {"probe", "fisher"} & planned.keys()


def test_a_plugin_that_is_gone_is_said(extended, tmp_path):
    workflow = extended.copy(tmp_path / "copy")
    (workflow.folder / "my_measure.py").unlink()
    output = workflow.run("--dry-run", ok=False)
    assert "plugins: my_measure.py: cannot be read" in output and "Traceback" not in output


def test_a_recorded_configuration_s_plugins_are_named_again(extended):
    recorded = str(LAYOUT.config.path(extended.results))
    command = extended.command("--dry-run", "tasks")
    command[command.index("tiny.yaml")] = recorded
    assert "if you trust them, name them: --config" in extended.run(command=command, ok=False)
    named = f"plugins=[{','.join(PLUGINS)}]"
    assert QUIET in extended.run(command=[*command, "--config", named])
