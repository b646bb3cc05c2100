"""The stage *transfer*: what every other task's probe gains on a task, by few images of it."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, TINY, Workflow, experiment_of, jobs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ftd import store
from ftd.config.transfer_keys import Tuning
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages import probe, task, transfer
from ftd.stages.checking import Library
from ftd.stages.experiment import Experiment
from ftd.transfer import finetuning
from ftd.transfer.gains import signal

FEW = {"shots": [2, 5], "batch_size": 4, "head": {"steps": 6}, "whole": {"steps": 3}}
NAMES = {"network": "small-cnn", "trial": 0, "task": "zero"}


@pytest.fixture
def made(digits, tmp_path):
    """A function (folder's name, more settings) → the tiny experiment there, with its probes."""

    def make(name: str = "one", tasks=TINY["tasks"], **own):
        experiment = experiment_of(tmp_path / name, digits.parent, tasks=tasks, transfer=FEW | own)
        for each in tasks:
            if not experiment.output(LAYOUT.probe, **NAMES | {"task": each}).exists():
                task.run(experiment, task=each)
                probe.run(experiment, **NAMES | {"task": each})
        return experiment

    return make


def read(experiment, **names):
    """A table, and its facts but for the seconds."""
    table = store.read_table(experiment.output(LAYOUT.transfer, **NAMES | names))
    facts = store.table_facts(table)
    return table.to_pandas(), {k: v for k, v in facts.items() if k not in ("seconds", "sha256")}


@pytest.fixture
def tuned(monkeypatch):
    """The heads trained at once, and the whole networks, by number."""
    found = {"heads": [], "whole": 0}
    heads, whole = finetuning.tune_heads, finetuning.tune_whole

    def of_heads(features, *rest):
        found["heads"].append(len(features))
        return heads(features, *rest)

    def of_whole(*all):
        found["whole"] += 1
        whole(*all)

    monkeypatch.setattr(finetuning, "tune_heads", of_heads)
    monkeypatch.setattr(finetuning, "tune_whole", of_whole)
    return found


# Images and their order -------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 5), st.data())
def test_shots_are_so_many_of_each_class_and_more_hold_fewer(sizes, seed, data):
    labels = np.random.default_rng(seed).permutation(np.repeat(range(len(sizes)), sizes))
    shots = data.draw(st.integers(1, 9))
    rows = finetuning.drawn(labels, shots, seed)
    if shots > min(sizes):
        assert rows is None
        return
    assert (np.bincount(labels[rows]) == shots).all() and (np.diff(rows) > 0).all()
    for fewer in range(1, shots):
        assert set(finetuning.drawn(labels, fewer, seed)) < set(rows)


def test_another_seed_draws_other_shots():
    labels = np.arange(100) % 2
    draws = [finetuning.drawn(labels, 5, seed) for seed in (0, 1)]
    assert not np.array_equal(*draws) and np.array_equal(draws[0], finetuning.drawn(labels, 5, 0))


@pytest.mark.parametrize(("count", "size", "steps"), [(10, 4, 7), (3, 64, 5), (8, 4, 2)])
def test_every_image_comes_once_before_one_comes_again(count, size, steps):
    order = finetuning.order_of(count, size, steps, 3)
    assert order.shape == (steps, min(size, count))
    for epoch in order.flatten().split(count):
        assert len(set(epoch.tolist())) == len(epoch)


# Training ---------------------------------------------------------------------------------------


def heads_of(sources: int, seed: int = 0):
    """Features of so many sources, labels, where heads start, and an order."""
    torch.manual_seed(seed)
    features, labels = torch.randn(sources, 30, 70), torch.arange(30) % 3
    return features, labels, nn.Linear(70, 3), finetuning.order_of(30, 8, 25, 1)


def test_heads_trained_at_once_are_those_of_a_plain_loop():
    features, labels, start, order = heads_of(3)
    found = finetuning.tune_heads(features, labels, start, order, Tuning(learning_rate=0.01))
    for number, own in enumerate(features):
        linear = nn.Linear(70, 3)
        linear.load_state_dict(start.state_dict())
        adam = torch.optim.Adam(linear.parameters(), 0.01)
        for rows in order:
            adam.zero_grad()
            F.cross_entropy(linear(own[rows]), labels[rows]).backward()
            adam.step()
        torch.testing.assert_close(found[0][number], linear.weight.detach())
        torch.testing.assert_close(found[1][number], linear.bias.detach())


def test_a_head_does_not_depend_on_its_company():
    features, *rest = heads_of(15)
    together = finetuning.tune_heads(features, *rest, Tuning())
    for chosen in ([0], [14], [3, 9]):
        apart = finetuning.tune_heads(features[chosen], *rest, Tuning())
        assert all(torch.equal(a, b[chosen]) for a, b in zip(apart, together, strict=True))


# The table --------------------------------------------------------------------------------------


def test_a_table_has_every_other_task_and_the_start(made):
    experiment = made()
    assert transfer.run(experiment, **NAMES) == 12
    table, facts = read(experiment)
    keys = [*zip(table["source"].fillna("start"), table["shots"], table["scope"], strict=True)]
    wanted = [
        (s, k, scope)
        for k in (2, 5)
        for scope in ("head", "whole")
        for s in ("start", "six", "three")
    ]
    assert keys == wanted and set(table["target"]) == {"zero"}
    assert table["steps"].tolist() == [6, 6, 6, 3, 3, 3] * 2
    starts = table[table["source"].isna()].set_index(["shots", "scope"])["accuracy"]
    for row in table.itertuples():
        assert row.gain == pytest.approx(row.accuracy - starts[row.shots, row.scope], abs=1e-6)
    assert facts["left_out"] == [] and table["gain"].dtype == "float32"


def test_all_tables_are_gathered_in_order(made):
    experiment = made(shots=[2], scopes=["head"])
    for each in TINY["tasks"]:
        transfer.run(experiment, **NAMES | {"task": each})
    table = transfer.gather(experiment)
    assert table["target"].tolist() == ["zero"] * 3 + ["six"] * 3 + ["three"] * 3
    with pytest.raises(UserError, match="made with other transfer settings"):
        transfer.gather(made(shots=[3], scopes=["head"]))


def test_accuracies_are_those_of_fine_tuning_by_hand(made):
    """A source's body under the start's own head, on images of train; judged on val."""
    from ftd.models import networks
    from ftd.runtime.seeds import seed_of
    from ftd.tasks.data import TaskData
    from ftd.tasks.slices import read_slice

    experiment = made(shots=[5])
    transfer.run(experiment, **NAMES)
    table, _ = read(experiment)
    sliced = read_slice(experiment.output(LAYOUT.slice, task="zero"))
    data = TaskData(sliced, experiment.images_of("zero"), {"train": None, "val": None})
    seed = seed_of("transfer", 0, 0, "zero")
    images, labels = next(data.batches("train", data.count("train")))
    rows = finetuning.drawn(labels.numpy(), 5, seed)
    images, labels = images[rows], labels[rows]
    source, _ = probe.load(experiment.output(LAYOUT.probe, **NAMES | {"task": "three"}))
    trial = seed_of("trial", 0, 0)
    for scope, steps in (("head", 6), ("whole", 3)):
        model = networks.build("small-cnn", image_shape=(1, 8, 8), target=data.target, seed=trial)
        model.body.load_state_dict(source.body.state_dict())
        weights = model.head.parameters() if scope == "head" else model.parameters()
        adam = torch.optim.Adam(weights, 1e-3)
        for chosen in finetuning.order_of(10, 4, steps, seed_of("order", seed, 5)):
            adam.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            adam.step()
        val, truth = next(data.batches("val", data.count("val")))
        wanted = (model(val).argmax(1) == truth).float().mean().item()
        found = table[(table["source"] == "three") & (table["scope"] == scope)]["accuracy"]
        assert found.item() == pytest.approx(wanted, abs=1.5 / len(truth))


def test_shots_above_a_class_s_supply_are_left_out_and_said(made, capfd):
    experiment = made(shots=[2, 5000], scopes=["head"])
    assert transfer.run(experiment, **NAMES) == 3
    table, facts = read(experiment)
    assert set(table["shots"]) == {2} and facts["left_out"] == [5000]
    assert "5000 shots left out, a class has" in "".join(capfd.readouterr())
    none = made("none", shots=[5000])
    assert transfer.run(none, **NAMES) == 0 and len(read(none)[0]) == 0
    assert [
        *transfer._check(none.output(LAYOUT.transfer, **NAMES), texts(), Library(none.root, none))
    ] == []


def texts():
    return {key: str(value) for key, value in NAMES.items()}


# Runs again -------------------------------------------------------------------------------------


def test_what_is_finished_is_not_made_again_and_company_changes_nothing(made, tuned):
    experiment = made(shots=[2])
    transfer.run(experiment, **NAMES)
    assert tuned == {"heads": [3], "whole": 3}
    first = read(experiment)
    assert transfer.run(experiment, **NAMES) == 0 and tuned["whole"] == 3
    again = read(experiment)
    assert again[0].equals(first[0]) and again[1] == first[1]
    more = made(shots=[2], tasks=TINY["tasks"] | {"two": TINY["tasks"]["six"]})
    assert transfer.run(more, **NAMES) == 2 and tuned == {"heads": [3, 1], "whole": 4}
    longer = made(shots=[2, 5])
    assert transfer.run(longer, **NAMES) == 6
    made("other", shots=[5, 2])
    fresh = made("other", shots=[2, 5])
    transfer.run(fresh, **NAMES)
    assert read(fresh)[0].equals(read(longer)[0])


def test_a_stop_costs_what_was_not_finished(made, tuned, monkeypatch):
    experiment, whole = made(shots=[2]), finetuning.tune_whole

    def stops(*all):
        if tuned["whole"] == 2:
            raise KeyboardInterrupt
        whole(*all)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetuning, "tune_whole", stops)
        transfer.run(experiment, **NAMES)
    assert not experiment.output(LAYOUT.transfer, **NAMES).exists()
    assert transfer.run(experiment, **NAMES) == 1 and tuned == {"heads": [3], "whole": 3}


@pytest.mark.parametrize(
    ("own", "count"),
    [
        ({"head": {"steps": 7}}, 3),
        ({"whole": {"learning_rate": 0.1, "steps": 3}}, 3),
        ({"batch_size": 3}, 6),
    ],
)
def test_a_setting_changes_what_follows_from_it_alone(made, own, count):
    transfer.run(made(shots=[2]), **NAMES)
    assert transfer.run(made(shots=[2], **own), **NAMES) == count


def test_trials_have_images_of_their_own(made, monkeypatch):
    experiment, images = made(shots=[2]), []
    monkeypatch.setattr(transfer._Job, "_probe", lambda *_: None)
    for trial in (0, 1):
        job = transfer._Job(experiment, NAMES | {"trial": trial})
        images.append(job.few.rows[2].tolist())
    assert images[0] != images[1]


# What is wrong ----------------------------------------------------------------------------------


def test_weights_that_do_not_stay_finite_are_said(made, monkeypatch):
    experiment = made(shots=[2], whole={"steps": 9, "learning_rate": 1e30})
    with pytest.raises(UserError, match=r"lower transfer\.whole\.learning_rate"):
        transfer.run(experiment, **NAMES)
    nan = torch.full((3, 2), float("nan"))
    monkeypatch.setattr(finetuning, "tune_heads", lambda *_: (nan, nan))
    with pytest.raises(UserError, match=r"lower transfer\.head\.learning_rate"):
        transfer.run(made("other", shots=[2]), **NAMES)


def test_a_probe_made_otherwise_is_refused(made, digits, tmp_path):
    made()
    other = experiment_of(tmp_path / "one", digits.parent, transfer=FEW, probe={"epochs": 2})
    with pytest.raises(UserError, match=r"six.*made with other probe settings"):
        transfer.run(other, **NAMES)


def test_verify_tells_gains_that_are_none(made):
    experiment = made(shots=[2])
    transfer.run(experiment, **NAMES)
    path, library = (
        experiment.output(LAYOUT.transfer, **NAMES),
        Library(experiment.root, experiment),
    )
    assert [*transfer._check(path, texts(), library)] == []
    table = store.read_table(path)
    facts = store.table_facts(table)
    wrong = table.set_column(7, "gain", [[0.5] * len(table)])
    store.write_table(path, wrong, facts)
    assert "gains are not over" in "".join(transfer._check(path, texts(), library))
    store.write_table(path, table.slice(1), facts)
    assert "5 rows, expected 6" in "".join(transfer._check(path, texts(), library))


# The signal -------------------------------------------------------------------------------------


def gains_of(values: np.ndarray) -> pd.DataFrame:
    """A table of gains [trials, sources] of one target, with its starts."""
    rows = [
        {
            "network": "n",
            "target": "t",
            "shots": 5,
            "scope": "head",
            "trial": trial,
            "gain": gain,
            "source": None if source < 0 else f"s{source}",
        }
        for trial, of in enumerate(values)
        for source, gain in [(-1, 0.0), *enumerate(of)]
    ]
    return pd.DataFrame(rows)


def test_signal_is_the_spread_of_sources_against_the_error_of_their_means():
    true = np.random.default_rng(0).normal(0, 0.1, 40)
    noise = np.random.default_rng(1).normal(0, 0.03, (200, 40))
    shifts = np.random.default_rng(2).normal(0, 0.5, (200, 1))
    found = signal(gains_of(true + noise + shifts)).iloc[0]
    assert found["spread"] == pytest.approx(true.std(ddof=1), rel=0.02)
    assert found["error"] == pytest.approx(0.03 / 200**0.5, rel=0.03)
    assert found["ratio"] == pytest.approx(found["spread"] / found["error"]) and found["enough"]
    lone = signal(gains_of(noise[:3, :])).iloc[0]
    assert not lone["enough"] and lone["ratio"] < 2


@pytest.mark.parametrize("shape", [(1, 5), (3, 1)])
def test_one_trial_or_source_tells_nothing(shape):
    found = signal(gains_of(np.random.default_rng(0).random(shape))).iloc[0]
    assert np.isnan(found["ratio"]) and not found["enough"]


def test_without_noise_any_spread_is_enough_and_none_is_not():
    assert signal(gains_of(np.tile([0.25, 0.5], (3, 1)))).iloc[0]["enough"]
    assert not signal(gains_of(np.full((3, 2), 0.5))).iloc[0]["enough"]


# Workflow and task sets -------------------------------------------------------------------------


def test_the_workflow_makes_all_tables_of_gains(tmp_path):
    workflow = Workflow(tmp_path, TINY | {"transfer": FEW | {"shots": [2]}})
    output = workflow.run("transfer", "-n")
    assert jobs(output)["finetuning"] == 3 and "selection" not in jobs(output)
    assert "finetuning" not in jobs(workflow.run("-n"))


@pytest.mark.parametrize("file", sorted((ROOT / "config" / "transfer").glob("*.yaml")), ids=str)
def test_task_sets_are_large_and_have_disjoint_pairs(file):
    config = Experiment.load(file).config
    assert len(config.tasks) >= (8 if "tiny" in file.stem else 12) and config.trials >= 3
    assert config.search.tasks is None and config.results == "results"
