"""Columns of measures, the pair store, the joined table."""

import functools
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import experiment_of

from ftd import parts, store
from ftd.config import Fisher
from ftd.errors import UserError
from ftd.fisher import engine
from ftd.layout import LAYOUT
from ftd.measures import FISHER, Combination, Measure, fisher_task
from ftd.measures.columns import read_columns, write_column
from ftd.models import bodies
from ftd.stages import distance, fisher, probe, sides, task
from ftd.stages.checking import Library
from ftd.stages.distance import WHOLE
from ftd.stages.sides import Things
from ftd.store import provenance
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice
from ftd.tasks.targets.classes import of_slice

TASKS = {
    "zero": {"other": "rest", "zero": [0]},
    "six": {"other": "rest", "six": [6]},
    "ten": "all",
}
PLACE = {"network": "small-cnn", "trial": 0}


class Trial:
    """Probes and diagonals of three tasks in a folder, and a column of them."""

    def __init__(self, folder, base):
        self.folder, self.base = folder, base
        for name in TASKS:
            task.run(self.of(), task=name)
            self.train(name)
        self.fisher("ten")
        self.list()

    def of(self, tasks=tuple(TASKS), **sections):
        """The experiment with some of the tasks."""
        listed = {name: {"dataset": "digits", "labels": TASKS[name]} for name in tasks}
        given = {"tasks": listed, "fisher": {"samples": 50}, "networks": ["small-cnn"]}
        return experiment_of(self.folder, self.base, **given | sections)

    def path(self, artifact, **names):
        given = {"measure": "fisher", "task": "ten"} | PLACE | names
        return artifact.path(self.folder, **given)

    def train(self, name):
        probe.run(self.of(), task=name, **PLACE)

    def change(self, name):
        """Other weights, as a training with other packages would give."""
        path = self.path(LAYOUT.probe, task=name)
        weights, facts = store.read_tensors(path)
        store.write_tensors(path, {key: value * 1.01 for key, value in weights.items()}, facts)

    def fisher(self, name, **sections):
        fisher.run(self.of(**sections), task=name, **PLACE)

    def list(self, tasks=tuple(TASKS), measure="fisher"):
        distance.index(self.of(tasks, measures=[measure]), measure=measure, **PLACE)

    def column(self, target="ten", measure="fisher", fisher=None, **settings):
        sections = {"fisher": fisher or {"samples": 50}, "measures": [measure]}
        experiment = self.of(distance=settings, **sections)
        return distance.run(experiment, measure=measure, task=target, **PLACE)

    @property
    def store(self):
        return self.path(LAYOUT.pairs)

    def tables(self, measure="fisher"):
        """The column's pairs, by source, and their contributions."""
        index, column = (self.path(a, measure=measure) for a in (LAYOUT.index, LAYOUT.column))
        pairs, layers, _ = next(read_columns(index, [column], parts.MEASURES.get(measure)))
        return pairs.to_pandas().set_index("source"), layers.to_pandas()

    def table(self, measure="fisher"):
        return self.tables(measure)[0]


@pytest.fixture
def trial(tmp_path, digits):
    return Trial(tmp_path, digits.parent)


def test_a_column_is_the_formula_on_the_target_s_ground(trial):
    assert trial.column() == 2
    table, by_layer = trial.tables()
    assert list(table.columns) == [
        *("measure", "network", "trial", "target", "distance", "squared_distance")
    ]
    assert set(by_layer["source"]) == {"zero", "six"}  # none of the task itself
    assert table.loc["ten", "distance"] == 0
    images = trial.base / "datasets" / "digits.safetensors"
    data = TaskData(read_slice(trial.path(LAYOUT.slice)), images, {"fisher": 50})
    f_bb, facts = store.read_tensors(trial.path(LAYOUT.fisher))
    assert facts["samples"] == 50
    for source in ("zero", "six"):
        model, _ = probe.load(trial.path(LAYOUT.probe, task=source))
        f_ab = fisher_task.on_task(model, data, Fisher(samples=50))
        bias = f_ab["head.linear.bias"]
        assert bias.shape == (10,) and (bias[2:] == 0).all()
        a = np.concatenate([f_ab[name].flatten() for name in sorted(f_ab)])
        b = np.concatenate([f_bb[name].flatten() for name in sorted(f_bb)])
        expected = 0.5 * np.sum((np.sqrt(a / a.sum()) - np.sqrt(b / b.sum())) ** 2)
        assert table.loc[source, "squared_distance"] == pytest.approx(expected, rel=1e-9)
        assert table.loc[source, "distance"] == pytest.approx(math.sqrt(expected), rel=1e-6)
        layers = by_layer[by_layer["source"] == source]
        layers = layers.set_index("layer")["contribution"].to_dict()
        assert list(layers) == ["body.0", "body.3", "head.linear"]
        assert sum(layers.values()) == pytest.approx(expected, rel=1e-9)


def test_finished_pairs_are_not_computed_again(trial, monkeypatch):
    trial.column()
    first = trial.path(LAYOUT.column).read_bytes()
    monkeypatch.setattr(distance, "_compute", None)  # calling it would fail
    assert trial.column() == 0
    assert trial.path(LAYOUT.column).read_bytes() == first


def test_a_pair_s_bits_do_not_depend_on_which_others_are_computed(trial):
    trial.column()
    together = trial.tables()
    trial.store.unlink()
    for tasks in (["zero", "ten"], ["six", "ten"]):  # the second before the first
        trial.list(tasks)
        assert trial.column() == 1
    trial.list()
    assert trial.column() == 0
    for found, before in zip(trial.tables(), together, strict=True):
        assert found.equals(before)


def test_a_column_s_batches_are_made_once(trial, monkeypatch):
    made, make = [], TaskData._made
    monkeypatch.setattr(TaskData, "_made", lambda *of: made.append(of) or make(*of))
    trial.column()
    assert len(made) == 1
    first = trial.path(LAYOUT.column).read_bytes()
    trial.store.unlink()
    monkeypatch.setattr(sides, "KEPT", 0)
    assert trial.column() == 2
    assert len(made) == 3 and trial.path(LAYOUT.column).read_bytes() == first


def test_pairs_are_checked_where_a_user_brings_the_code(trial, monkeypatch):
    checks = []

    def diagonal(*of, check, **keys):
        checks.append(check)
        return engine.fisher_diagonal(*of, check=check, **keys)

    monkeypatch.setattr(fisher_task, "fisher_diagonal", diagonal)
    trial.column()
    first = trial.path(LAYOUT.column).read_bytes()
    network = parts.Network(bodies.small_cnn, pooled=False)
    target = replace(parts.TARGETS.get("classes"), make=of_slice)
    brought = ((parts.NETWORKS, "small-cnn", network), (parts.TARGETS, "classes", target))
    for registry, name, entry in brought:
        trial.store.unlink()
        with monkeypatch.context() as patch:
            patch.setitem(registry._entries, name, entry)
            trial.column()
        assert trial.path(LAYOUT.column).read_bytes() == first
    assert checks == [False] * 2 + ["first"] * 4


@pytest.mark.parametrize("change", [{"network": "mine"}, {"target": {"kind": "mine"}}], ids=str)
def test_a_probe_of_a_plugin_that_is_not_loaded_is_named(trial, change):
    path = trial.path(LAYOUT.probe, task="six")
    weights, facts = store.read_tensors(path)
    store.write_tensors(path, weights, facts | change)
    side = Things({"probe": path}, {})
    assert side.brought
    with pytest.raises(UserError, match="mine"):
        probe.network_of(side.probe)


@pytest.mark.parametrize(
    ("network", "brought"), [("small-cnn", False), ("torchvision-vit_b_16", True)]
)
def test_torchvision_s_code_counts_as_a_user_s(trial, network, brought):
    path = trial.path(LAYOUT.probe, task="six")
    weights, facts = store.read_tensors(path)
    store.write_tensors(path, weights, facts | {"network": network})
    assert Things({"probe": path}, {}).brought == brought


def test_a_retrained_probe_invalidates_its_pair_only(trial):
    trial.column()
    before = trial.table()["squared_distance"]
    trial.change("six")
    trial.list()
    assert trial.column() == 1
    after = trial.table()["squared_distance"]
    assert after["zero"] == before["zero"] and after["six"] != before["six"]


def test_a_removed_task_leaves_the_column(trial):
    trial.column()
    trial.list(("zero", "ten"))
    assert trial.column() == 0
    assert sorted(trial.table().index) == ["ten", "zero"]


@pytest.mark.parametrize("layers", [True, False])
def test_a_torn_or_damaged_record_costs_one_pair(trial, layers):
    trial.column(layers=layers)
    first = trial.path(LAYOUT.column).read_bytes()
    whole = trial.store.read_bytes()
    assert len(whole) == 16 * 2 * (3 if layers else 1)
    damaged = bytearray(whole)
    damaged[5] ^= 1
    for content in (whole[:-7], bytes(damaged)):
        trial.store.write_bytes(content)
        assert trial.column(layers=layers) == 1
        assert trial.path(LAYOUT.column).read_bytes() == first


def test_without_layers_the_distance_is_the_same(trial):
    trial.column()
    before, by_layer = trial.tables()
    assert len(by_layer) == 2 * 3
    trial.column(layers=False)  # other settings: computed again, beside the old ones
    after, by_layer = trial.tables()
    assert after.equals(before) and len(by_layer) == 0
    trial.column()
    assert trial.table().equals(before)


def test_a_column_of_another_list_of_sources_is_refused(trial):
    trial.column()
    trial.list(("zero", "ten"))
    with pytest.raises(UserError, match=r"ten\.parquet: made from another list of sources"):
        trial.table()


def test_a_diverged_probe_is_named(trial):
    path = trial.path(LAYOUT.probe, task="six")
    weights, facts = store.read_tensors(path)
    broken = {name: value * float("inf") for name, value in weights.items()}
    store.write_tensors(path, broken, facts)
    trial.list()
    with pytest.raises(UserError, match=r"distance from six to ten, probe six, .*trace is"):
        trial.column()


def joined(experiment):
    distance.assemble(experiment)
    return store.read_table(experiment.output(LAYOUT.distances)).to_pandas()


@pytest.fixture
def two_columns(trial):
    trial.list(("six", "ten"))
    trial.fisher("six")
    for target in ("six", "ten"):
        trial.column(target)
    return trial


def test_the_joined_table_and_its_layers(two_columns):
    experiment = two_columns.of(("ten", "six"))  # in order of arrival
    table = joined(experiment)
    assert list(table.target) == ["six", "six", "ten", "ten"] and list(table.columns)[-1] == (
        "squared_distance"
    )
    assert set(table.measure) == {"fisher"}
    assert (table[table.source == table.target].distance == 0).all()
    pair = table.set_index(["source", "target"])["squared_distance"]
    assert pair["six", "ten"] != pair["ten", "six"]  # not symmetric
    layers = store.read_table(experiment.output(LAYOUT.layers)).to_pandas()
    assert list(layers.columns) == [
        *("measure", "network", "trial", "source", "target", "layer", "contribution")
    ]
    sums = layers.groupby(["source", "target"])["contribution"].sum()
    assert sums.to_dict() == pytest.approx(pair[pair > 0].to_dict())


FACTS = {"measure": "fisher", "measure_version": 1, "samples": 5, "fisher_settings": {}}
FACTS |= {"stage": "distance", "version": 1, "settings": {}, "packages": {}}


def made_up(folder, networks, trials, tasks, parts):
    """Columns of made-up numbers: the experiment, and ``(network, trial, target, source)`` → them.

    Numbers are a list, one for each of the ``parts``.
    """
    listed = {name: {"dataset": "digits", "labels": "all"} for name in tasks}
    experiment = experiment_of(folder, tasks=listed, networks=networks, trials=trials)
    rng, numbers = np.random.default_rng(0), {}
    for network in networks:
        for trial in range(trials):
            place = {"measure": "fisher", "network": network, "trial": trial}
            index = experiment.output(LAYOUT.index, **place)
            store.write_json(index, {name: {} for name in tasks}, {"stage": "index"})
            for target in tasks:
                rows = {s: rng.uniform(0, 0.2, len(parts)).tolist() for s in tasks}
                rows[target] = [0.0] * len(parts)
                facts = place | {"task": target, "layered": parts != [WHOLE]}
                facts |= {"inputs": {"index": store.checksum(index)}}
                path = experiment.output(LAYOUT.column, task=target, **place)
                write_column(path, rows, parts, FACTS | facts)
                numbers |= {(network, trial, target, source): rows[source] for source in tasks}
    return experiment, numbers


@pytest.mark.parametrize("parts", [[WHOLE], ["b.1", "a", "head"]])
def test_the_joined_table_is_the_plain_join(tmp_path, parts):
    cases = (["vgg16", "resnet18"], 11, ["b", "c", "B2", "a-1", "a"], parts)
    experiment, numbers = made_up(tmp_path, *cases)
    distance.assemble(experiment)
    squared = {key: math.fsum(values) for key, values in sorted(numbers.items())}
    table = store.read_table(experiment.output(LAYOUT.distances))
    place = {"measure": "fisher"}
    assert table.to_pylist() == [
        place
        | {"network": n, "trial": t, "source": s, "target": to, "distance": np.float32(d**0.5)}
        | {"squared_distance": d}
        for (n, t, to, s), d in squared.items()
    ]
    layers = store.read_table(experiment.output(LAYOUT.layers))
    assert layers.to_pylist() == [
        place
        | {"network": n, "trial": t, "source": s, "target": to}
        | {"layer": part, "contribution": value}
        for n, t, to, s in squared
        if s != to and parts != [WHOLE]
        for part, value in zip(parts, numbers[n, t, to, s], strict=True)
    ]
    for read in (table, layers):
        assert [field.type for field in read.schema][2:4] == [pa.int64(), pa.string()]


def test_a_pair_takes_few_bytes(tmp_path):
    tasks = [f"task-{number:03}" for number in range(200)]
    experiment, _ = made_up(tmp_path, ["small-cnn"], 1, tasks, [WHOLE])
    distance.assemble(experiment)
    size = experiment.output(LAYOUT.distances).stat().st_size
    assert size < 16 * 200**2  # two numbers, and little else
    rows = {
        f"task-{n:04}": [value] for n, value in enumerate(np.random.default_rng(0).random(1000))
    }
    facts = (
        FACTS
        | {"inputs": dict.fromkeys(("index", "fisher", "data"), 64 * "a")}
        | provenance.record("distance", 1, FISHER.settings())
    )
    write_column(tmp_path / "column.parquet", rows, [WHOLE], facts)
    assert (tmp_path / "column.parquet").stat().st_size <= 2 * 4096  # blocks


def test_columns_of_different_settings_are_not_joined(two_columns):
    two_columns.column("ten", layers=False)
    with pytest.raises(UserError, match=r"ten\.parquet: made with other settings"):
        joined(two_columns.of(("six", "ten")))


def test_a_missing_column_is_named(trial):
    with pytest.raises(UserError, match=r"columns/.*six\.parquet: no such file; make it by: ftd"):
        joined(trial.of())


def test_a_probe_that_changed_since_it_was_listed_is_refused(trial):
    trial.change("six")
    with pytest.raises(UserError, match=r"six\.safetensors: changed since this job or its list"):
        trial.column()
    assert not trial.path(LAYOUT.column).exists()


def test_a_probe_that_changes_while_a_column_is_computed_gives_no_pair(trial, monkeypatch):
    """A job that outlived its run must not keep new probes' distances under old keys."""
    network_of = probe.network_of

    def changing(file):
        if file.path.stem == "zero":
            trial.change("zero")
        return network_of(file)

    monkeypatch.setattr(probe, "network_of", changing)
    with pytest.raises(UserError, match=r"zero\.safetensors: changed since this job"):
        trial.column()
    assert not trial.path(LAYOUT.column).exists()
    assert trial.store.stat().st_size == 3 * 16  # six, which came before: one for each layer


def test_a_diagonal_that_changes_before_it_is_loaded_gives_no_pair(trial, monkeypatch):
    read = store.TensorFile.tensors

    def changing(self):
        if self.path.parts[-4] == "fisher":
            trial.change("ten")
            trial.fisher("ten")
        return read(self)

    monkeypatch.setattr(store.TensorFile, "tensors", changing)
    with pytest.raises(UserError, match=r"fisher/.*ten\.safetensors: changed since this job"):
        trial.column()
    assert trial.store.stat().st_size == 0


def test_columns_of_different_packages_are_joined(two_columns, monkeypatch):
    """An update of a package in between is no reason to compute all columns again."""
    monkeypatch.setattr(provenance, "packages", lambda: {"pandas": "another"})
    two_columns.column("ten")
    joined(two_columns.of(("six", "ten")))


def test_a_diagonal_of_another_probe_or_slice_is_refused(trial):
    trial.change("ten")
    trial.list()
    with pytest.raises(UserError, match="made from another probe"):
        trial.column()
    trial.train("ten")
    trial.list()
    sliced = trial.path(LAYOUT.slice)
    table = store.read_table(sliced)
    store.write_table(sliced, table.slice(0, len(table) - 1), store.table_facts(table))
    with pytest.raises(UserError, match="made from another slice"):
        trial.column()


# Made otherwise than the configuration asks for ---------------------------------------------------

OTHERWISE = {
    "probe of other settings": (
        {"probe": {"epochs": 2}},
        r"made with other probe settings",
    ),
    "probe of another seed": ({"seed": 5}, r"made with the experiment's seed 5"),
}


@pytest.mark.parametrize(("sections", "message"), OTHERWISE.values(), ids=OTHERWISE)
def test_probes_are_not_mixed(trial, sections, message, monkeypatch):
    """By hand, or where Snakemake does not see that settings changed."""
    monkeypatch.setattr(task, "expect_asked", lambda *_: None)  # the slice's seed comes first
    probe.run(trial.of(**sections), task="six", **PLACE)
    listed = trial.path(LAYOUT.index).read_bytes()
    with pytest.raises(UserError, match=rf"six\.safetensors: {message}.*, which is not what the"):
        trial.list()
    assert trial.path(LAYOUT.index).read_bytes() == listed


def test_a_probe_of_other_labels_is_not_listed(trial):
    other = {"dataset": "digits", "labels": {"other": "rest", "six": [5]}}
    tasks = {name: {"dataset": "digits", "labels": labels} for name, labels in TASKS.items()}
    experiment = experiment_of(trial.folder, trial.base, tasks=tasks | {"six": other})
    with pytest.raises(UserError, match=r"six\.safetensors: trained on another slice than"):
        distance.index(experiment, measure="fisher", **PLACE)
    task.run(experiment, task="six")  # and its probe is not
    with pytest.raises(UserError, match=r"six\.safetensors: trained on another slice than .*six"):
        fisher.run(experiment, task="six", **PLACE)


def test_a_column_is_of_the_fisher_information_that_is_asked_for(trial):
    with pytest.raises(UserError, match=r"ten\.safetensors: made with other fisher .*\(samples\)"):
        trial.column(fisher={"samples": 10})


def test_fewer_images_than_a_micro_batch_has(trial):
    with pytest.raises(UserError, match=r"^tasks\.ten: 50 images .* no micro-batch of 60; lower"):
        trial.fisher("ten", fisher={"samples": 50, "microbatch": 60})


# Each input once ----------------------------------------------------------------------------------

_opened: list[str] = []


def _note(event, arguments):
    if event == "open" and str(arguments[1]).startswith("r"):
        _opened.append(os.path.normpath(str(arguments[0])))


@pytest.fixture(scope="module")
def listening():
    """Files that Python opens to read; what hashes a file does it by Python."""
    sys.addaudithook(_note)


def opened_by(job, *roots):
    """The inputs below some folders that a job opens, and how often."""
    _opened.clear()
    job()
    found = [
        path.relative_to(root).as_posix()
        for path in map(Path, _opened)
        for root in roots
        if path.is_relative_to(root) and not path.name.startswith(".")  # those are written
    ]
    return {path: found.count(path) for path in found}


def test_a_column_reads_and_hashes_each_input_once(trial, listening):
    inputs = {
        "index/fisher/small-cnn/0.json": 1,
        "fisher/small-cnn/0/ten.safetensors": 1,
        "tasks/ten.parquet": 1,
    }
    of_pairs = {
        "probes/small-cnn/0/six.safetensors": 1,
        "probes/small-cnn/0/zero.safetensors": 1,
        "datasets/digits.safetensors": 1,
    }
    assert opened_by(trial.column, trial.folder, trial.base) == inputs | of_pairs
    assert opened_by(trial.column, trial.folder, trial.base) == inputs  # no pair is missing


# Any measure --------------------------------------------------------------------------------------


class OnFacts:
    """Of accuracies: not symmetric, below 0, not 0 to itself; of one whole."""

    def prepare(self, target, settings):
        return target.facts["val_accuracy"] + 1

    def compare(self, source, prepared):
        with pytest.raises(AttributeError, match="does not declare that it needs weights"):
            source.weights  # noqa: B018
        return {"difference": source.facts["val_accuracy"] - 2 * prepared}


class OnFeatures:
    """Of what both bodies make of their own images, by their means; and of both starts."""

    def prepare(self, target, settings):
        width = target.weights.body(torch.zeros(1, 1, 8, 8)).numel()
        assert target.features.shape == (target.fisher_settings.samples, width)
        return target

    def compare(self, source, prepared):
        starts = source.start.body.state_dict(), prepared.start.body.state_dict()
        assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
        assert source.data.count("fisher") == prepared.fisher_settings.samples
        pair = source.features.mean(0), prepared.features.mean(0)
        return {"whole": 1 - float(torch.cosine_similarity(*pair, dim=0))}


ON_FACTS = Measure(OnFacts, ("facts",), ("facts",), -math.inf, 0.0)
ALL = ("weights", "start", "data", "features")
ON_FEATURES = Measure(OnFeatures, ALL, ALL, 0.0, 2.0, zero_to_itself=True)


def test_a_measure_of_facts_without_range_and_symmetry(trial, registered):
    registered(parts.MEASURES, "facts", ON_FACTS)
    trial.list(measure="facts")
    assert trial.column(measure="facts") == 3  # itself included
    table, by_layer = trial.tables("facts")
    accuracy = {
        name: store.read_json(trial.path(LAYOUT.probe_facts, task=name))["val_accuracy"]
        for name in TASKS
    }
    for name in TASKS:
        expected = accuracy[name] - 2 * (accuracy["ten"] + 1)
        assert table.loc[name, "distance"] == pytest.approx(expected) and expected < -1
    assert table["squared_distance"].isna().all() and len(by_layer) == 0
    assert trial.column(measure="facts") == 0


def test_a_measure_of_facts_does_not_depend_on_what_it_does_not_declare(trial, registered):
    registered(parts.MEASURES, "facts", ON_FACTS)
    trial.list(measure="facts")
    trial.column(measure="facts")
    first = trial.path(LAYOUT.column, measure="facts").read_bytes()
    weights, facts = store.read_tensors(trial.path(LAYOUT.probe))
    store.write_tensors(trial.path(LAYOUT.probe), weights, facts | {"more": 1})
    trial.fisher("ten", fisher={"samples": 10})
    trial.list(measure="facts")
    assert trial.column(measure="facts", fisher={"samples": 10}) == 0
    assert trial.path(LAYOUT.column, measure="facts").read_bytes() == first


def test_a_measure_of_features_and_starts_reads_images_once(trial, registered, listening):
    registered(parts.MEASURES, "features", ON_FEATURES)
    trial.list(measure="features")
    column = functools.partial(trial.column, measure="features")
    found = opened_by(column, trial.folder, trial.base)
    assert set(found.values()) == {1} and "datasets/digits.safetensors" in found
    assert {f"probes/small-cnn/0/{name}.safetensors" for name in TASKS} < set(found)
    assert {f"tasks/{name}.parquet" for name in TASKS} < set(found)
    table = trial.table("features")
    assert table.loc["ten", "distance"] == 0 and 0 < table.loc["zero", "distance"] < 2
    index = functools.partial(trial.list, measure="features")
    assert set(opened_by(index, trial.folder, trial.base).values()) == {1}
    assert column() == 0 and column(fisher={"samples": 40}) == 2


def test_a_start_of_other_weights_is_refused(trial, registered):
    registered(parts.MEASURES, "features", ON_FEATURES)
    path = trial.path(LAYOUT.probe, task="zero")
    weights, facts = store.read_tensors(path)
    store.write_tensors(path, weights, facts | {"pretrained": 64 * "a"})
    trial.list(measure="features")
    with pytest.raises(UserError, match=r"zero\.safetensors: was not trained from the trial's"):
        trial.column(measure="features")


def test_a_number_out_of_the_measure_s_range_is_refused(trial, registered):
    registered(parts.MEASURES, "facts", replace(ON_FACTS, lowest=0.0, highest=1.0))
    trial.list(measure="facts")
    with pytest.raises(UserError, match=r"measure facts, probe six, .* on ten: -\d.* from 0 to 1"):
        trial.column(measure="facts")


def test_another_version_of_a_measure_is_another_number(trial, registered):
    for version in (1, 2):
        registered(parts.MEASURES, "facts", replace(ON_FACTS, version=version))
        trial.list(measure="facts")
        assert trial.column(measure="facts") == 3


def test_a_combination_is_made_of_finished_columns(trial, registered):
    """One baseline, and one of two measures; rows are in the configuration's order."""
    registered(parts.MEASURES, "facts", ON_FACTS)
    mean = Combination(
        ("fisher",), lambda of: np.broadcast_to(of["fisher"].mean(1)[:, None], (3, 3)), 0.0, 1.0
    )
    both = Combination(("fisher", "facts"), lambda of: of["fisher"] + of["facts"], -math.inf, 1.0)
    registered(parts.MEASURES, "mean", mean)
    registered(parts.MEASURES, "both", both)
    for name in TASKS:
        trial.fisher(name)
    for measure in ("fisher", "facts"):
        trial.list(measure=measure)
        for name in TASKS:
            trial.column(name, measure)
    experiment = trial.of(measures=["mean", "fisher", "both", "facts"])
    table = joined(experiment).set_index(["source", "target"])
    assert list(dict.fromkeys(table["measure"])) == ["mean", "fisher", "both", "facts"]
    of = dict(iter(table.groupby("measure")))
    for place, row in of["both"].iterrows():
        expected = of["fisher"].loc[place, "squared_distance"] + of["facts"].loc[place, "distance"]
        assert row["distance"] == pytest.approx(expected) and math.isnan(row["squared_distance"])
    averages = of["fisher"].groupby("source")["squared_distance"].mean()
    for (source, _), row in of["mean"].iterrows():
        assert row["distance"] == pytest.approx(averages[source])


class Large:
    """Numbers that float32 cannot tell apart."""

    def prepare(self, target, settings):
        return None

    def compare(self, source, prepared):
        return {"whole": 1e8 + list(TASKS).index(source.name)}


@pytest.mark.parametrize("highest", [1e8 + 2, math.nextafter(1e8 + 2, 0)])  # within rounding
def test_numbers_that_are_no_squares_are_kept_as_they_are(trial, registered, highest):
    registered(parts.MEASURES, "large", Measure(Large, ("facts",), (), 0.0, highest))
    both = Combination(("large",), lambda of: of["large"], 0.0, highest)
    registered(parts.MEASURES, "both", both)
    for name in TASKS:
        trial.fisher(name)
        trial.column(name)
    trial.list(measure="large")
    for name in TASKS:
        trial.column(name, "large")
    experiment = trial.of(measures=["fisher", "large", "both"])
    table = joined(experiment)
    for measure in ("large", "both"):
        rows = table[table["measure"] == measure]
        found = rows.set_index(["source", "target"])["distance"].astype(float)
        assert found["zero", "ten"] == 1e8 and found["six", "ten"] == 1e8 + 1
        assert found["ten", "ten"] == highest
    squares = table[table["measure"] == "fisher"]
    assert (squares["distance"] == squares["distance"].astype(np.float32)).all()
    path, library = experiment.output(LAYOUT.distances), Library(trial.folder, experiment)
    assert list(distance._check_distances(path, {}, library)) == []


def test_a_start_depends_on_all_that_it_follows_from(trial):
    path = trial.path(LAYOUT.probe, task="six")
    weights, facts = store.read_tensors(path)
    digests = set()
    for changes in ({}, {"seed": 9}, {"version": 99}, {"parts": {"network x": 64 * "a"}}):
        store.write_tensors(path, weights, facts | changes)
        digests.add(Things({"probe": path}, {}).digest("start"))
    store.write_tensors(path, {name: value + 1 for name, value in weights.items()}, facts)
    assert len(digests) == 4 and Things({"probe": path}, {}).digest("start") in digests


def test_a_combination_has_no_columns(trial, registered):
    registered(parts.MEASURES, "mean", Combination(("fisher",), max, 0.0, 1.0))
    experiment = trial.of(measures=["fisher", "mean"])
    message = "measure 'mean' combines numbers of others: .* make those of fisher, then run dist"
    with pytest.raises(UserError, match=message):
        distance.index(experiment, measure="mean", **PLACE)
    with pytest.raises(UserError, match=message):
        distance.run(experiment, measure="mean", task="ten", **PLACE)


def test_a_list_of_other_things_than_the_measure_needs_is_refused(trial, registered):
    registered(parts.MEASURES, "facts", replace(ON_FACTS, source=("start",)))
    trial.list(measure="facts")
    before = distance.declares("facts")
    registered(parts.MEASURES, "facts", replace(ON_FACTS, source=("weights",)))
    assert distance.declares("facts") != before
    with pytest.raises(
        UserError, match=r"0\.json: lists start of each source, the measure needs w"
    ):
        trial.column(measure="facts")


def giving(found):
    """A measure whose ``compare`` gives this."""
    return lambda: SimpleNamespace(prepare=lambda *_: None, compare=lambda *_: found)


WRONG = {
    "nothing": (giving(None), {}, "measure x, probe six, .* on ten: compare gave None; expected a"),
    "a number": (giving(0.5), {}, "measure x, probe six, .*: compare gave 0.5; expected a mapping"),
    "texts": (giving({"whole": "much"}), {}, "measure x, .*: compare gave {'whole': 'much'}; "),
    "no parts": (giving({}), {}, "measure x, .*: compare gave {}; expected a mapping of numbers"),
    "vectors": (
        giving({"whole": torch.ones(2)}),
        {},
        "measure x, .*: compare gave .*expected a ma",
    ),
    "other layers": (
        giving({"body.0": 0.1, "tail": 0.2}),
        {"layers": True, "target": ("fisher",)},
        r"measure x, .*: compare gave the parts body\.0, tail; expected the layers body\.0,",
    ),
    "an object without methods": (dict, {}, "measure 'x': makes {}, which has no method 'prepare'"),
    "half an object": (
        lambda: SimpleNamespace(prepare=max),
        {},
        "measure 'x': makes .*, which has no method 'compare'",
    ),
    "no such place": ("nowhere:Thing", {}, "nowhere:Thing: cannot be found"),
}


@pytest.mark.parametrize(("make", "keys", "message"), WRONG.values(), ids=WRONG)
def test_a_measure_that_does_not_do_as_told_is_named(make, keys, message, trial, registered):
    registered(parts.MEASURES, "x", replace(ON_FACTS, make=make, highest=1.0, **keys))
    trial.list(measure="x")
    with pytest.raises(UserError, match=f"^{message}"):
        trial.column(measure="x")
