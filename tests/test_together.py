"""What networks make of others' images: one pass for all measures, one job for a group of them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, Workflow, jobs
from test_distance import PLACE, TASKS, Trial
from torch import nn

from ftd import parts, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Measure, passes
from ftd.stages import distance, probe, sides
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice

QUIET = "Nothing to be done"


class Confidence:
    """How sure the source's network is of the target's images; with a pass of the target's own."""

    def prepare(self, target, settings):
        return target

    def compare(self, source, target):
        return {"whole": float(source.seen(target).outputs.softmax(1).amax(1).mean())}


class Spread(Confidence):
    """How far apart the features lie, of the source's network and of the target's."""

    def prepare(self, target, settings):
        return target, float(target.seen(target).features.std())

    def compare(self, source, prepared):
        target, own = prepared
        return {"whole": float(source.seen(target).features.std()) - own}


SURE = Measure(
    Confidence, ("weights",), ("data",), 0.0, 1.0, nearer="higher", group="seen", version=3
)
WIDE = Measure(Spread, ("weights",), ("data", "weights"), -math.inf, math.inf, group="seen")


@pytest.fixture
def trial(tmp_path, digits, registered):
    registered(parts.MEASURES, "sure", SURE)
    registered(parts.MEASURES, "wide", WIDE)
    made = Trial(tmp_path, digits.parent)
    for measure in ("sure", "wide"):
        made.list(measure=measure)
    return made


@pytest.fixture
def looks(monkeypatch):
    """The passes that were made, by what messages call them."""
    found, see = [], passes.seen_by

    def seen_by(model, layer, batches, what):
        found.append(what)
        return see(model, layer, batches, what)

    monkeypatch.setattr(passes, "seen_by", seen_by)
    return found


def together(trial, *measures, target="ten", **sections):
    experiment = trial.of(measures=["fisher", *measures], **sections)
    return distance.run_together(experiment, measures=[*measures], task=target, **PLACE)


def seen_plainly(trial, source):
    """Features, outputs and labels of the target ten, by the layers themselves."""
    images = trial.base / "datasets" / "digits.safetensors"
    data = TaskData(read_slice(trial.path(LAYOUT.slice)), images, {"fisher": 50})
    model, _ = probe.load(trial.path(LAYOUT.probe, task=source))
    ((inputs, labels),) = data.batches("fisher", 50)
    with torch.no_grad():
        features = model.head[:-1](model.body(inputs))
        return features, model.head.linear(features), labels


def test_what_is_seen_is_a_plain_pass(trial, monkeypatch):
    kept = {}

    class Looks(Confidence):
        def compare(self, source, target):
            kept[source.name] = source.seen(target)
            return super().compare(source, target)

    parts.MEASURES._entries["sure"] = replace(SURE, make=Looks)
    assert trial.column(measure="sure") == 3
    for source in TASKS:
        features, outputs, labels = seen_plainly(trial, source)
        found = kept[source]
        assert found.features.shape == (50, features.shape[1]) and found.labels.equal(labels)
        torch.testing.assert_close(found.features, features)
        torch.testing.assert_close(found.outputs, outputs)
        assert found.features.dtype == found.outputs.dtype == torch.float32
        expected = float(outputs.softmax(1).amax(1).mean())
        assert trial.table("sure").loc[source, "distance"] == pytest.approx(expected)


def test_a_map_is_seen_as_the_head_pools_it():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), head).eval()
    images, labels = torch.randn(5, 1, 6, 6), torch.arange(5)
    batches = list(zip(images.split(2), labels.split(2), strict=True))
    found = passes.seen_by(model, head[2], batches, "x")
    torch.testing.assert_close(found.features, model[0](images).mean((2, 3)))
    torch.testing.assert_close(found.outputs, model(images))
    assert found.labels.equal(labels) and not found.features.requires_grad
    assert not found.features.is_inference()  # measures may fit something on them
    assert not head[2]._forward_pre_hooks


LINEAR = nn.Linear(3, 2).eval()
FIT = [(torch.ones(4, 3), torch.zeros(4).long())]


@pytest.mark.parametrize(
    ("model", "layer", "batches", "message"),
    [
        (LINEAR, LINEAR, [], "^x: no images"),
        (LINEAR, LINEAR, [(FIT[0][0], torch.zeros(4))], r"labels of classes.*got targets float32 "),
        (LINEAR, LINEAR, [(FIT[0][0], torch.zeros(4, 2).long())], r"targets int64 \[4, 2\]"),
        (LINEAR, LINEAR, [(torch.ones(4, 7, 3), FIT[0][1])], r"outputs \[4, classes\], got \[4, 7"),
        (nn.Sequential(LINEAR, nn.Linear(2, 2)), nn.Linear(2, 2), FIT, "runs 0 times in a pass"),
        (
            LINEAR,
            LINEAR,
            [(torch.full((4, 3), torch.nan), FIT[0][1])],
            "not finite, it has diverged",
        ),
    ],
)
def test_what_cannot_be_seen_is_named(model, layer, batches, message):
    with pytest.raises(UserError, match=message):
        passes.seen_by(model, layer, batches, "x")


def test_measures_of_one_job_share_a_pass_and_give_what_each_gives_alone(trial, looks):
    alone = {}
    for measure in ("sure", "wide"):
        assert trial.column(measure=measure) == 3
        alone[measure] = trial.path(LAYOUT.column, measure=measure).read_bytes()
        trial.path(LAYOUT.pairs, measure=measure).unlink()
    assert len(looks) == 3 + 3
    looks.clear()
    assert together(trial, "sure", "wide") == {"sure": 3, "wide": 3}
    assert len(looks) == 3 and len(set(looks)) == 3
    for measure, before in alone.items():
        assert trial.path(LAYOUT.column, measure=measure).read_bytes() == before


def test_a_pass_is_made_where_a_measure_lacks_its_number(trial, looks):
    together(trial, "sure")
    looks.clear()
    trial.change("six")
    for measure in ("sure", "wide"):
        trial.list(measure=measure)
    assert together(trial, "sure", target="zero") == {"sure": 3}
    assert together(trial, "sure") == {"sure": 1}
    looks.clear()
    assert together(trial, "wide", "sure") == {"wide": 3, "sure": 0}
    assert len(looks) == 3
    whole = trial.path(LAYOUT.pairs, measure="sure").read_bytes()
    trial.path(LAYOUT.pairs, measure="sure").write_bytes(whole[:-16])  # the last that was added
    looks.clear()
    assert together(trial, "sure", "wide") == {"sure": 1, "wide": 0}
    assert looks == ["probe six, network small-cnn, trial 0 on ten"]
    looks.clear()
    assert together(trial, "sure", "wide") == {"sure": 0, "wide": 0} and not looks


def test_no_more_passes_are_kept_than_are_needed():
    kept = sides.Passes("b")
    made = []

    def see(source, target="b"):
        pair = source, target
        return kept.of(*pair, lambda: made.append("".join(pair)) or pair)

    for source in ("b", "a", "a", "b", "c", "b", "a"):
        assert see(source) == (source, "b")
    assert made == ["bb", "ab", "cb", "ab"] and len(kept._kept) == 2
    assert see("a", "a") and see("a") and see("b") and len(kept._kept) == 3
    assert see("c", "c") and see("c") and see("b") and len(kept._kept) == 3  # a's is gone
    assert made[4:] == ["aa", "cc", "cb"]


def test_the_target_s_images_are_made_into_batches_once(trial, monkeypatch):
    made, make = [], TaskData._made
    monkeypatch.setattr(TaskData, "_made", lambda *of: made.append(of) or make(*of))
    together(trial, "sure", "wide")
    assert len(made) == 1


def test_each_measure_declares_what_it_sees(trial):
    for lacking in ({"source": ("facts",)}, {"target": ("facts",)}):
        parts.MEASURES._entries["sure"] = replace(SURE, **lacking)
        trial.list(measure="sure")
        with pytest.raises(AttributeError, match=r"does not declare that it needs (weights|data)"):
            together(trial, "wide", "sure")


def test_a_network_without_a_head_of_classes_is_named(trial, monkeypatch):
    headless = SimpleNamespace(head=nn.Identity(), to=lambda device: headless)
    monkeypatch.setattr(probe, "network_of", lambda file: headless)
    with pytest.raises(UserError, match=r"probe six, .* on ten: the network's head has no layer"):
        together(trial, "sure")


def test_a_diverged_source_is_named(trial):
    path = trial.path(LAYOUT.probe, task="six")
    weights, facts = store.read_tensors(path)
    store.write_tensors(path, {name: value * math.inf for name, value in weights.items()}, facts)
    trial.list(measure="sure")
    with pytest.raises(UserError, match=r"^probe six, .* on ten: .*not finite, it has diverged"):
        together(trial, "sure")


def test_another_number_of_images_is_another_number(trial):
    together(trial, "sure")
    assert together(trial, "sure", fisher={"samples": 20}) == {"sure": 3}


def test_measures_of_a_group_stand_together_if_there_are_several(trial, registered):
    def groups(*measures):
        return distance.groups(trial.of(measures=[*measures]))

    assert groups("fisher", "sure", "wide") == {"seen": ["sure", "wide"]}
    assert groups("fisher", "sure") == {}
    registered(parts.MEASURES, "other", replace(SURE, group="apart"))
    assert groups("sure", "other") == {}


def test_a_group_s_columns_are_each_measure_s(trial):
    together(trial, "sure", "wide")
    for measure, inputs in (("sure", {"data", "index"}), ("wide", {"data", "weights", "index"})):
        column = store.read_table(trial.path(LAYOUT.column, measure=measure), stage="distance")
        facts = store.table_facts(column)
        kind = parts.MEASURES.get(measure)
        assert (facts["measure"], facts["measure_version"]) == (measure, kind.version)
        assert facts["inputs"].keys() == inputs


# The workflow -------------------------------------------------------------------------------------

PLUGIN = """
import ftd


class Sure:
    def prepare(self, target, settings):
        return target

    def compare(self, source, target):
        return {"whole": float(source.seen(target).outputs.softmax(1).amax(1).mean())}


class Wide(Sure):
    def compare(self, source, target):
        return {"whole": float(source.seen(target).features.std())}


needs = {"source": ("weights",), "target": ("data",), "lowest": 0.0, "group": "seen"}
ftd.register_measure("sure", ftd.Measure(Sure, **needs, highest=1.0, nearer="higher"))
ftd.register_measure("wide", ftd.Measure(Wide, **needs, highest=float("inf")))
"""


def pairs_missing(workflow):
    """By target and measure, of the logs of the group's jobs."""
    lines = [
        line.split(": ")
        for path in (workflow.results / "logs" / "distance" / "sure").rglob("*.log")
        for line in path.read_text().splitlines()
        if "pairs missing" in line
    ]
    return {
        tuple(what.removeprefix("column ").split(" by ")): int(n.split()[0]) for what, n in lines
    }


@pytest.mark.slow
def test_a_group_s_columns_are_one_job_s(tmp_path):
    measures = ["fisher", "sure", "wide"]
    config = TINY | {"plugins": ["mine.py"], "measures": measures, "select": {"measure": "sure"}}
    workflow = Workflow(tmp_path, config)
    (tmp_path / "mine.py").write_text(PLUGIN)
    done = jobs(workflow.run("selection"))
    assert done["distance"] == 3 and done["distance_seen"] == 3 and done["index"] == 3
    assert set(pairs_missing(workflow).values()) == {3}
    assert QUIET in workflow.run("selection")
    root = workflow.results
    assert store.read_json_facts(root / "selection.json")["measure"] == "sure"
    assert jobs(workflow.run("--dry-run", "distances", "--forcerun", "fisher"))["distance"] == 3
    # one measure's column is lost, another's pair too: what is known is not computed again
    columns = {path: path.read_bytes() for path in (root / "columns").rglob("*.parquet")}
    lost = "results/tiny/columns/wide/small-cnn/0/six.parquet"
    (workflow.folder / lost).unlink()
    pairs = root / "pairs/sure/small-cnn/0/six.pairs"
    pairs.write_bytes(pairs.read_bytes()[:-16])
    done = jobs(workflow.run(lost, "results/tiny/distances.parquet"))
    assert done == {"distance_seen": 1, "distances": 1}
    assert (
        pairs_missing(workflow)["six", "sure"] == 1 and pairs_missing(workflow)["six", "wide"] == 0
    )
    assert {path: path.read_bytes() for path in columns} == columns
    # alone, a measure has the rule of all others; its numbers are known
    workflow.configure(config | {"measures": measures[:2]})
    planned = jobs(workflow.run("--dry-run", "distances"))
    assert "distance_seen" not in planned
