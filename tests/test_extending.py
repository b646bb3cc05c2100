"""docs/extending.md: its very snippets, as plugins of a workflow that is really run."""

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, TINY, Workflow, made_once
from sklearn.datasets import load_digits

from ftd import parts, store
from ftd.library import verify
from ftd.models.genotype import Genotype
from ftd.models.operations import operation
from ftd.stages import probe, training

SNIPPETS = {
    text.splitlines()[0].removeprefix("# "): text
    for text in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL
    )
}
PROOF = '''
import ftd


class Loss:
    """The loss of a source's network on the target's data: no probe of the target."""

    def prepare(self, target, settings):
        return target.data

    def compare(self, source, data):
        import torch

        network = data.target.align(source.weights, data.batches("fisher", 64), "index")
        network = network.adapt(source.weights)
        with torch.inference_mode():
            losses = [data.target.loss(network(x), y) for x, y in data.batches("fisher", 64)]
        return {"whole": float(sum(losses) / len(losses))}


ftd.register_measure(
    "loss", ftd.Measure(Loss, ("weights",), ("data",), lowest=0.0, highest=float("inf"))
)
'''


def test_every_kind_of_part_is_shown_in_at_most_thirty_lines():
    assert list(SNIPPETS) == [
        *("my_network.py", "my_loader.py", "my_operation.py", "my_search.py"),
        *("my_measures.py", "my_target.py"),
    ]
    assert all(len([x for x in t.splitlines() if x.strip()]) <= 30 for t in SNIPPETS.values())


def test_the_configurations_shown_are_keys_that_there_are():
    text = (ROOT / "docs" / "extending.md").read_text()
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    shown = [yaml.safe_load(block) for block in re.findall(r"(?:\n    .+)+", text)]
    keys = {key for block in shown for key in block}
    assert keys == {"plugins", "networks", "datasets", "search", "measures", "tasks"}


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Iterator[Workflow]:
    """A workflow that is made of the snippets' parts, run up to what was found."""
    settings = copy.deepcopy(TINY) | {
        "plugins": [*SNIPPETS, "my_loss.py"],
        "networks": ["strided-x0.5"],
        "measures": ["fisher-cosine", "loss", "alike", "fisher"],
        "data_root": ".",
        "datasets": {
            "mine": {"loader": "arrays", "file": "digits.npz"},
            "tagged": {"loader": "arrays", "file": "tagged.npz"},
        },
    }
    tasks = settings["tasks"]
    del tasks["zero"]
    for task in tasks.values():
        task["dataset"] = "mine"
    tasks["tags"] = {"dataset": "tagged", "target": "tags", "tags": [0, 2, 3]}
    settings["search"] |= {"methods": ["ftd-nas", "smallest"], "smallest": {"candidates": 4}}
    settings["search"]["tasks"] = ["tags"]  # and what it starts from
    settings["search"]["space"] |= {"operations": ["skip_connect", "conv_3x3", "none"]}

    def make(folder: Path) -> None:
        workflow = Workflow(folder, settings)
        for name, text in SNIPPETS.items():
            (folder / name).write_text(text)
        (folder / "my_loss.py").write_text(PROOF)
        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        np.savez(folder / "digits.npz", images=images, labels=digits.target)
        bits = (digits.target[:, None] >> np.arange(4)) & 1  # binary places: several labels
        np.savez(folder / "tagged.npz", images=images, labels=bits.astype(np.uint8))
        workflow.run("comparison", "record")

    workflow = Workflow.of(made_once(tmp_path_factory, "extended", make))
    before = os.getcwd()
    os.chdir(workflow.folder)
    parts.load(settings["plugins"])
    yield workflow
    os.chdir(before)
    for name in settings["plugins"]:
        parts._forget(parts._loaded.pop(name))


def distances(workflow: Workflow) -> pd.DataFrame:
    table = store.read_table(workflow.results / "distances.parquet").to_pandas()
    return table.set_index(["measure", "source", "target"])["distance"]


def test_all_parts_made_their_artifacts_and_say_so(extended):
    root = extended.results
    model, facts = probe.load(root / "probes/strided-x0.5/0/tags.safetensors")
    assert facts["parts"].keys() == {"network strided", "target tags"}
    assert facts["target"]["kind"] == "tags" and model.head.linear.out_features == 3
    assert sum(p.numel() for p in model.body.parameters()) == 4 * 10 + 8 * 37
    cut = store.table_facts(store.read_table(root / "datasets/tagged.parquet"))
    assert cut["parts"].keys() == {"loader arrays"}
    found = store.read_json(root / "search/smallest/tags/0/genotype.json")
    assert found["parts"].keys() == {"method smallest", "operation conv_3x3", "target tags"}
    assert found["settings"]["smallest"] == {"candidates": 4}
    operations = {
        operation
        for path in root.glob("search/ftd-nas/*/0/genotype.json")
        for operation in Genotype.from_json(store.read_json(path)["genotype"]).operations
    }
    assert operations <= {"skip_connect", "conv_3x3", "none"}
    halved = operation("conv_3x3", 4, 2)(torch.zeros(2, 4, 7, 7))
    assert halved.shape == (2, 4, 4, 4)
    assert training.load(root / "final/ftd-nas/tags/0/weights.safetensors")
    assert verify.run(root, plugins=True).problems == []


def test_a_target_of_several_labels_learns_and_is_compared(extended):
    facts = store.read_json(extended.results / "probes/strided-x0.5/0/tags.json")
    shares = [((np.arange(10) >> place) & 1).mean() for place in (0, 2, 3)]
    constant = np.mean([max(share, 1 - share) for share in shares])
    assert facts["val_most_frequent"] == pytest.approx(constant, abs=0.01)
    assert facts["val_most_frequent"] - 0.05 < facts["val_accuracy"] <= 1
    metrics = store.read_json(extended.results / "final/ftd-nas/tags/0/metrics.json")
    assert 0 <= metrics["accuracy"] <= 1 and 0.5 < metrics["most_frequent"] < 1
    found = distances(extended)["fisher"]
    assert (found["tags"].drop("tags") > 0).all() and found["tags", "tags"] == 0


def test_measures_of_three_kinds_stand_side_by_side(extended):
    found, root = distances(extended), extended.results
    tasks = ["six", "tags", "three"]
    assert list(dict.fromkeys(found.index.get_level_values(0))) == [
        *("fisher-cosine", "loss", "alike", "fisher")
    ]
    cosine = found["fisher-cosine"].unstack()
    np.testing.assert_allclose(cosine, cosine.T, atol=1e-6)  # a symmetric one
    own = {}
    for task in tasks:
        path = root / f"fisher/strided-x0.5/0/{task}.safetensors"
        own[task] = store.read_tensors(path)[0]
    same = [n for n, v in own["six"].items() if v.shape == own["three"][n].shape]
    one, other = (
        np.concatenate([own[t][n].numpy().ravel() for n in same]) for t in ("six", "three")
    )
    cosine_of = 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert cosine["six"]["three"] == pytest.approx(cosine_of, rel=1e-5)
    losses = found["loss"].unstack()
    assert (np.diag(losses) > 0).all()  # not zero to itself, and computed
    ranks = found["alike"].unstack().to_numpy()
    wanted = sum(m.to_numpy().argsort(0).argsort(0) for m in (cosine, found["fisher"].unstack()))
    np.testing.assert_allclose(ranks, wanted / 2)
    nearest = store.read_table(root / "nearest.parquet").to_pandas()
    assert len(nearest) == 4 * 3 * 2
    first = nearest[(nearest["measure"] == "fisher-cosine") & (nearest["rank"] == 1)]
    for row in first.itertuples():
        others = cosine[row.target].drop(row.target)
        assert row.source == others.idxmin()
    chosen = store.read_json(root / "selection.json")
    assert chosen["tags"]["nearest"] == [cosine["tags"][["six", "three"]].idxmin()]


def test_a_column_depends_on_what_its_measure_declares_alone(extended, tmp_path):
    index = store.read_json(extended.results / "index/fisher-cosine/strided-x0.5/0.json")
    assert {tuple(entry) for entry in index.values()} == {("fisher",)}
    for file in ("index/alike/strided-x0.5/0.json", "columns/alike/strided-x0.5/0/six.parquet"):
        output = extended.run("--dry-run", f"results/tiny/{file}", ok=False)
        assert "MissingRuleException" in output and "Traceback" not in output
    index = store.read_json(extended.results / "index/loss/strided-x0.5/0.json")
    assert {tuple(entry) for entry in index.values()} == {("weights",)}
    workflow = extended.copy(tmp_path / "copy")
    output = workflow.run("--dry-run", "results/tiny/columns/loss/strided-x0.5/0/six.parquet",
                          "--forcerun", "fisher")  # fmt: skip
    assert "rule distance" not in output
    column = store.read_table(extended.results / "columns/loss/strided-x0.5/0/six.parquet")
    assert store.table_facts(column)["inputs"].keys() == {"data", "index"}


def test_a_record_s_plugins_are_not_imported_without_being_asked(extended):
    output = extended.run("--dry-run", "--configfile", "results/tiny/config.json", ok=False)
    assert "names the plugins" in output and "--config" in output
    record = json.loads((extended.results / "config.json").read_text())
    assert record["plugins"] == [*SNIPPETS, "my_loss.py"]
