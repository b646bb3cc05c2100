"""Distances: the formula and its properties; columns, the pair store, the joined table."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ftd import artifacts, distance, fisher, networks, probe, training, versions
from ftd.config import Distance, Fisher, Probe
from ftd.distance import WHOLE, on_common_ground, squared_distance
from ftd.errors import UserError
from ftd.resume import Resume

NOTHING = Resume(None, {})

values = arrays(np.int64, 12, elements=st.integers(0, 10**9)).map(lambda a: a / 1000)
nonzero = values.filter(lambda a: a.sum() > 0)


def distance_between(a, b, what):
    return squared_distance(*on_common_ground(a, b, what))


def diagonal(array: np.ndarray, outputs: int = 3) -> dict[str, torch.Tensor]:
    """Twelve numbers as a body of 12 − 2·outputs weights and a head of ``outputs`` rows."""
    body = torch.from_numpy(array[: 12 - 2 * outputs])
    rest = torch.from_numpy(array[12 - 2 * outputs :])
    return {"body": body, "head.bias": rest[:outputs], "head.weight": rest[outputs:, None]}


@settings(deadline=None)
@given(nonzero, nonzero)
def test_formula_and_range(a, b):
    found = distance_between(diagonal(a), diagonal(b), "x")
    expected = 0.5 * np.sum((np.sqrt(a / a.sum()) - np.sqrt(b / b.sum())) ** 2)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found <= 1


@settings(deadline=None)
@given(nonzero, st.floats(1e-6, 1e6))
def test_identity_and_scale(a, scale):
    assert distance_between(diagonal(a), diagonal(a * scale), "x") == pytest.approx(0, abs=1e-12)


def test_disjoint_supports_are_at_distance_one():
    a, b = np.zeros(12), np.zeros(12)
    a[:3], b[3:6] = 1, 7
    assert distance_between(diagonal(a), diagonal(b), "x") == pytest.approx(1)


@settings(deadline=None, max_examples=25)
@given(nonzero)
def test_equals_the_matrix_formula(a):
    """d² = ½ Tr(A + B − 2 (A^½ B A^½)^½) with SciPy's matrix roots."""
    from scipy.linalg import sqrtm

    a = a + 1  # SciPy's root wants regular matrices
    b = np.roll(a, 1)
    first, second = np.diag(a / a.sum()), np.diag(b / b.sum())
    root = sqrtm(first)
    full = 0.5 * np.trace(first + second - 2 * sqrtm(root @ second @ root)).real
    assert distance_between(diagonal(a), diagonal(b), "x") == pytest.approx(full, abs=1e-6)


def test_a_smaller_head_is_padded_with_zeros():
    small = {"body": torch.ones(4), "head.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}
    large = {"body": torch.ones(4), "head.weight": torch.ones(5, 3), "head.bias": torch.ones(5)}
    expected = 0.5 * (
        12 * (12**-0.5 - 24**-0.5) ** 2 + 12 * (1 / 24)
    )  # common entries, and those that only the larger head has
    for a, b in ((small, large), (large, small)):
        assert distance_between(a, b, "x") == pytest.approx(expected)


@settings(deadline=None)
@given(nonzero)
def test_padding_a_head_with_zero_rows_changes_nothing(a):
    two, three = diagonal(a, 2), diagonal(a, 2)
    three["head.bias"] = torch.cat([three["head.bias"], torch.zeros(1).double()])
    three["head.weight"] = torch.cat([three["head.weight"], torch.zeros(1, 1).double()])
    assert distance_between(two, three, "x") == pytest.approx(0, abs=1e-12)


# Columns ----------------------------------------------------------------------------------------

TASKS = {
    "zero": {"other": "rest", "zero": [0]},
    "six": {"other": "rest", "six": [6]},
    "ten": "all",
}


class Trial:
    """Probes and diagonals of three tasks in a folder, and a column of them."""

    def __init__(self, folder, images, slices):
        self.folder, self.images, self.slices = folder, images, slices
        for task in TASKS:
            self.train(task)
        self.fisher("ten")
        self.list()

    def train(self, task, trial=0):
        probe.run(
            self.slices[task],
            self.images,
            network="small-cnn",
            trial=trial,
            seed=0,
            settings=Probe(epochs=1),
            weights_out=self.folder / f"{task}.safetensors",
            facts_out=self.folder / f"{task}.json",
        )

    def fisher(self, task):
        fisher.run(
            self.folder / f"{task}.safetensors",
            self.slices[task],
            self.images,
            settings=Fisher(samples=50),
            out=self.folder / "fisher" / f"{task}.safetensors",
        )

    def list(self, tasks=tuple(TASKS)):
        distance.index(
            [self.folder / f"{task}.safetensors" for task in tasks], self.folder / "index.json"
        )

    def column(self, target="ten", out="column.parquet", **settings):
        return distance.run(
            self.folder / "index.json",
            self.folder / "fisher" / f"{target}.safetensors",
            self.slices[target],
            self.images,
            settings=Distance(**settings),
            store=self.store,
            out=self.folder / out,
        )

    @property
    def store(self):
        return self.folder / "pairs" / "ten.pairs"

    def tables(self):
        """The column's pairs, by source, and their contributions."""
        read = distance.read_columns(self.folder / "index.json", [self.folder / "column.parquet"])
        pairs, layers, _ = next(read)
        return pairs.to_pandas().set_index("source"), layers.to_pandas()

    def table(self):
        return self.tables()[0]


@pytest.fixture
def trial(tmp_path, make_slice, digits):
    slices = {name: make_slice(name, labels) for name, labels in TASKS.items()}
    return Trial(tmp_path, digits / "digits.safetensors", slices)


def test_a_column_is_the_formula_on_the_target_s_ground(trial):
    assert trial.column() == 2
    table, by_layer = trial.tables()
    assert list(table.columns) == ["network", "trial", "target", "distance", "squared_distance"]
    assert set(by_layer["source"]) == {"zero", "six"}  # none of the task itself
    assert table.loc["ten", "distance"] == 0
    from ftd.slice import TaskData, read

    data = TaskData(read(trial.slices["ten"]), trial.images, {"fisher": 50})
    f_bb, facts = artifacts.read_tensors(trial.folder / "fisher" / "ten.safetensors")
    assert facts["samples"] == 50
    for source in ("zero", "six"):
        model, _ = probe.load(trial.folder / f"{source}.safetensors")
        f_ab = fisher.on_task(model, data, Fisher(samples=50))
        assert f_ab["head.bias"].shape == (10,) and (f_ab["head.bias"][2:] == 0).all()
        a = np.concatenate([f_ab[name].flatten() for name in sorted(f_ab)])
        b = np.concatenate([f_bb[name].flatten() for name in sorted(f_bb)])
        expected = 0.5 * np.sum((np.sqrt(a / a.sum()) - np.sqrt(b / b.sum())) ** 2)
        assert table.loc[source, "squared_distance"] == pytest.approx(expected, rel=1e-9)
        assert table.loc[source, "distance"] == pytest.approx(math.sqrt(expected), rel=1e-6)
        layers = by_layer[by_layer["source"] == source]
        layers = layers.set_index("layer")["contribution"].to_dict()
        assert list(layers) == ["body.0", "body.3", "head"]
        assert sum(layers.values()) == pytest.approx(expected, rel=1e-9)


def test_micro_batches_mix_the_classes_of_sorted_files(trial):
    from dataclasses import replace

    from ftd.slice import TaskData, read

    ten = read(trial.slices["ten"])
    rows = np.argsort(ten.label, kind="stable")
    by_class = replace(ten, index=ten.index[rows], label=ten.label[rows], part=ten.part[rows])
    model, _ = probe.load(trial.folder / "ten.safetensors")
    traces = []
    for task in (ten, by_class):
        data = TaskData(task, trial.images, {"fisher": None})
        found = fisher.on_task(model, data, Fisher(microbatch=20))
        traces.append(sum(float(value.sum()) for value in found.values()))
    assert traces[1] == pytest.approx(traces[0], rel=0.5)  # of one class only: many times as much


@pytest.mark.parametrize(("size", "images"), [(8, 256), (32, 256), (224, 5), (1000, 1)])
def test_batches_of_large_images_are_small(size, images):
    data = SimpleNamespace(
        device=torch.device("cpu"), task=SimpleNamespace(image_shape=(3, size, size))
    )
    assert fisher._batch_size(data) == images


def test_finished_pairs_are_not_computed_again(trial, monkeypatch):
    trial.column()
    first = (trial.folder / "column.parquet").read_bytes()
    monkeypatch.setattr(distance, "_contributions", None)  # calling it would fail
    assert trial.column() == 0
    assert (trial.folder / "column.parquet").read_bytes() == first


def test_a_retrained_probe_invalidates_its_pair_only(trial):
    trial.column()
    before = trial.table()["squared_distance"]
    trial.train("six", trial=1)
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
    first = (trial.folder / "column.parquet").read_bytes()
    whole = trial.store.read_bytes()
    assert len(whole) == 16 * 2 * (3 if layers else 1)
    damaged = bytearray(whole)
    damaged[5] ^= 1
    for content in (whole[:-7], bytes(damaged)):
        trial.store.write_bytes(content)
        assert trial.column(layers=layers) == 1
        assert (trial.folder / "column.parquet").read_bytes() == first


def test_without_layers_the_distance_is_the_same(trial):
    trial.column()
    before, by_layer = trial.tables()
    assert len(by_layer) == 2 * 3
    trial.column(layers=False)  # other settings: computed again, beside the old ones
    after, by_layer = trial.tables()
    assert after.equals(before) and len(by_layer) == 0
    trial.column()
    assert trial.table().equals(before)


def test_a_column_of_another_list_of_probes_is_refused(trial):
    trial.column()
    trial.list(("zero", "ten"))
    with pytest.raises(UserError, match=r"column\.parquet: made from another list of probes"):
        trial.table()


def test_a_diverged_probe_is_named(trial):
    weights, facts = artifacts.read_tensors(trial.folder / "six.safetensors")
    broken = {name: value * float("inf") for name, value in weights.items()}
    artifacts.write_tensors(trial.folder / "six.safetensors", broken, facts)
    trial.list()
    with pytest.raises(UserError, match=r"distance from six to ten, probe .*trace is"):
        trial.column()


def joined(trial, folder, indexes):
    distance.assemble(
        indexes, trial.folder / "columns", folder / "distances.parquet", folder / "layers.parquet"
    )
    return artifacts.read_table(folder / "distances.parquet").to_pandas()


@pytest.fixture
def two_columns(trial):
    trial.list(("six", "ten"))
    (trial.folder / "index" / "small-cnn").mkdir(parents=True)
    trial.fisher("six")
    for target in ("six", "ten"):
        trial.column(target, f"columns/small-cnn/0/{target}.parquet")
    return trial


def test_the_joined_table_and_its_layers(two_columns):
    index = two_columns.folder / "index" / "small-cnn" / "0.json"
    index.write_bytes((two_columns.folder / "index.json").read_bytes())
    table = joined(two_columns, two_columns.folder, [index])
    assert list(table.target) == ["six", "six", "ten", "ten"] and list(table.columns)[-1] == (
        "squared_distance"
    )
    assert (table[table.source == table.target].distance == 0).all()
    pair = table.set_index(["source", "target"])["squared_distance"]
    assert pair["six", "ten"] != pair["ten", "six"]  # not symmetric
    layers = artifacts.read_table(two_columns.folder / "layers.parquet").to_pandas()
    assert list(layers.columns) == [
        *("network", "trial", "source", "target", "layer", "contribution")
    ]
    sums = layers.groupby(["source", "target"])["contribution"].sum()
    assert sums.to_dict() == pytest.approx(pair[pair > 0].to_dict())


FACTS = {"samples": 5, "fisher_settings": {}} | {"stage": "distance", "version": 1, "packages": {}}


def made_up(folder, networks, trials, tasks, parts):
    """Columns of made-up numbers: indexes, and ``(network, trial, target, source)`` to numbers."""
    rng = np.random.default_rng(0)
    indexes, numbers = [], {}
    for network in networks:
        for trial in trials:
            index = folder / "index" / network / f"{trial}.json"
            indexes.append(index)
            artifacts.write_json(index, {task: {"path": "", "sha256": ""} for task in tasks})
            for target in tasks:
                rows = {s: rng.uniform(0, 0.2, len(parts)).tolist() for s in tasks}
                rows[target] = [0.0] * len(parts)
                facts = {"network": network, "trial": trial, "task": target}
                facts |= {
                    "inputs": {"index": artifacts.digest(index)},
                    "settings": {"layers": parts != [WHOLE]},
                }
                path = folder / "columns" / network / str(trial) / f"{target}.parquet"
                distance.write_column(path, rows, parts, FACTS | facts)
                numbers |= {(network, trial, target, source): rows[source] for source in tasks}
    return indexes, numbers


@pytest.mark.parametrize("parts", [[WHOLE], ["b.1", "a", "head"]])
def test_the_joined_table_is_the_plain_join(tmp_path, parts):
    cases = (["n2", "n1"], [10, 2], ["b", "c", "B", "a-1", "a"], parts)
    indexes, numbers = made_up(tmp_path, *cases)
    folder = tmp_path / "out"
    distance.assemble(
        indexes, tmp_path / "columns", folder / "distances.parquet", folder / "layers.parquet"
    )
    squared = {key: math.fsum(values) for key, values in sorted(numbers.items())}
    table = artifacts.read_table(folder / "distances.parquet")
    assert table.to_pylist() == [
        {"network": n, "trial": t, "source": s, "target": to, "distance": np.float32(d**0.5)}
        | {"squared_distance": d}
        for (n, t, to, s), d in squared.items()
    ]
    layers = artifacts.read_table(folder / "layers.parquet")
    assert layers.to_pylist() == [
        {"network": n, "trial": t, "source": s, "target": to, "layer": part, "contribution": value}
        for n, t, to, s in squared
        if s != to and parts != [WHOLE]
        for part, value in zip(parts, numbers[n, t, to, s], strict=True)
    ]
    for read in (table, layers):
        assert [field.type for field in read.schema][1:3] == [pa.int64(), pa.string()]


def test_a_pair_takes_few_bytes(tmp_path):
    tasks = [f"task-{number:03}" for number in range(200)]
    indexes, _ = made_up(tmp_path, ["n"], [0], tasks, [WHOLE])
    out = tmp_path / "distances.parquet"
    distance.assemble(indexes, tmp_path / "columns", out, tmp_path / "layers.parquet")
    assert out.stat().st_size < 16 * 200**2  # two numbers, and little else
    rows = {
        f"task-{n:04}": [value] for n, value in enumerate(np.random.default_rng(0).random(1000))
    }
    facts = (
        FACTS
        | {"inputs": dict.fromkeys(("index", "fisher", "slice"), 64 * "a")}
        | versions.record("distance", Distance())
    )
    distance.write_column(tmp_path / "column.parquet", rows, [WHOLE], facts)
    assert (tmp_path / "column.parquet").stat().st_size <= 2 * 4096  # blocks


def test_columns_of_different_settings_are_not_joined(two_columns):
    index = two_columns.folder / "index" / "small-cnn" / "0.json"
    index.write_bytes((two_columns.folder / "index.json").read_bytes())
    two_columns.column("ten", "columns/small-cnn/0/ten.parquet", layers=False)
    with pytest.raises(UserError, match=r"ten\.parquet: made with other settings"):
        joined(two_columns, two_columns.folder, [index])


def test_no_columns(trial):
    with pytest.raises(UserError, match="no column"):
        joined(trial, trial.folder, [])


def test_a_probe_that_changed_since_it_was_listed_is_refused(trial):
    trial.train("six", trial=1)
    with pytest.raises(UserError, match=r"six\.safetensors: changed since this job or its list"):
        trial.column()
    assert not (trial.folder / "column.parquet").exists()


def test_a_probe_that_changes_while_a_column_is_computed_gives_no_pair(trial, monkeypatch):
    """A job that outlived its run must not keep new probes' distances under old keys."""
    load = probe.load

    def changing(path):
        if path.stem == "zero":
            trial.train("zero", trial=1)
        return load(path)

    monkeypatch.setattr(probe, "load", changing)
    with pytest.raises(UserError, match=r"zero\.safetensors: changed since this job"):
        trial.column()
    assert not (trial.folder / "column.parquet").exists()
    assert trial.store.stat().st_size == 3 * 16  # six, which came before: one for each layer


def test_a_diagonal_that_changes_before_it_is_loaded_gives_no_pair(trial, monkeypatch):
    read = artifacts.read_tensors

    def changing(path, **keys):
        if path.parent.name == "fisher":
            trial.train("ten", trial=1)
            trial.fisher("ten")
        return read(path, **keys)

    monkeypatch.setattr(artifacts, "read_tensors", changing)
    with pytest.raises(UserError, match=r"fisher/ten\.safetensors: changed since this job"):
        trial.column()
    assert trial.store.stat().st_size == 0


def test_columns_of_different_packages_are_joined(two_columns, monkeypatch):
    """An update of a package in between is no reason to compute all columns again."""
    index = two_columns.folder / "index" / "small-cnn" / "0.json"
    index.write_bytes((two_columns.folder / "index.json").read_bytes())
    monkeypatch.setattr(versions, "packages", lambda: {"pandas": "another"})
    two_columns.column("ten", "columns/small-cnn/0/ten.parquet")
    joined(two_columns, two_columns.folder, [index])


def test_a_diagonal_of_another_probe_or_slice_is_refused(trial):
    trial.train("ten", trial=1)
    trial.list()
    with pytest.raises(UserError, match="made from another probe"):
        trial.column()


# Label spaces -----------------------------------------------------------------------------------


def permuted(model, order):
    """A probe whose output *l* is the old output ``order[l]``."""
    copy = networks.build("small-cnn", channels=1, size=8, labels=len(order), seed=0)
    weights = model.state_dict()
    for name in ("head.weight", "head.bias"):
        weights[name] = weights[name][order]
    copy.load_state_dict(weights)
    return copy.eval()


@pytest.mark.parametrize("estimator", ["empirical", "expected"])
@pytest.mark.parametrize("source", ["zero", "ten"])
@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_matching_does_not_see_the_order_of_labels(column_parts, source, estimator, data):
    models, task_data = column_parts
    labels = data.draw(st.permutations(range(10)))
    outputs = data.draw(st.permutations(range(models[source].head.out_features)))

    def distance_of(a, b, order):
        relabelled = task_data(order)
        f_ab = fisher.on_task(a, relabelled, Fisher(estimator=estimator), "matching")
        return distance_between(
            f_ab, fisher.on_task(b, relabelled, Fisher(estimator=estimator)), "x"
        )

    plain = distance_of(models[source], models["ten"], list(range(10)))
    changed = distance_of(
        permuted(models[source], outputs), permuted(models["ten"], labels), labels
    )
    assert changed == pytest.approx(plain, rel=1e-4)


@pytest.fixture(scope="module")
def column_parts(make_slice, digits):
    """Probes on two and ten labels, and the ten digits with labels in any order."""
    from ftd.slice import TaskData, read

    task = read(make_slice("ten", "all"))
    images = digits / "digits.safetensors"
    models = {}
    for name, labels in (("zero", TASKS["zero"]), ("ten", "all")):
        own = TaskData(read(make_slice(name, labels)), images, {"train": None})
        model = networks.build(
            "small-cnn", channels=1, size=8, labels=own.task.target.outputs, seed=1
        )
        training.fit(
            model, own, epochs=3, batch_size=32, learning_rate=3e-3, seed=0, what="", resume=NOTHING
        )
        models[name] = model

    def relabelled(order):
        """Label *l* of the new task is label ``order[l]`` of the old one."""
        label = np.argsort(order)[task.label]
        return TaskData(dataclasses.replace(task, label=label), images, {"fisher": None})

    return models, relabelled
