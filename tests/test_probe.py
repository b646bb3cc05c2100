"""Probes: the common start, what is recorded, equal runs, and a missed ε."""

import json

import pytest
import torch
from conftest import TINY, experiment_of
from safetensors.torch import load_file, save_file

from ftd import store
from ftd.config import Probe
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Measure
from ftd.models import fitting, networks
from ftd.parts import MEASURES, NETWORKS, Network
from ftd.stages import probe, task
from ftd.store import resume
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice
from ftd.tasks.targets.classes import Classes

ZERO = {"zero": TINY["tasks"]["zero"]}


def start(labels: int, seed: int = 5):
    target = Classes(labels)
    return networks.build("small-cnn", image_shape=(1, 8, 8), target=target, seed=seed)


def test_common_start_across_head_sizes():
    two, ten = start(2).state_dict(), start(10).state_dict()
    for name in two:
        rows = len(two[name])
        assert torch.equal(two[name], ten[name][:rows]), name
    assert not torch.equal(two["body.0.weight"], start(2, seed=6).state_dict()["body.0.weight"])
    rows = ten["head.linear.weight"]
    assert not torch.equal(rows[0], rows[1])


def test_head_has_pytorch_s_initial_spread():
    head = start(64).head.linear
    bound = head.in_features**-0.5
    assert head.weight.abs().max() <= bound
    assert head.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    start(3)
    assert torch.equal(torch.rand(1), expected)


def test_unknown_network():
    with pytest.raises(UserError, match="unknown network 'vgg'; did you mean 'vgg16'"):
        networks.build("vgg", image_shape=(1, 8, 8), target=Classes(2), seed=0)


@pytest.fixture
def train(digits, tmp_path):
    """A function (folder, trial, sections, settings of probes) → the folder of the probe."""

    def run(folder="a", trial=0, sections=None, **settings):
        given = {"trials": 2, "tasks": ZERO, "probe": settings} | (sections or {})
        experiment = experiment_of(tmp_path / folder, digits.parent, **given)
        task.run(experiment, task="zero")
        place = {"network": "small-cnn", "trial": trial, "task": "zero"}
        probe.run(experiment, **place)
        return experiment.output(LAYOUT.probe, **place).parent

    run.folder = lambda name: tmp_path / name / "probes" / "small-cnn" / "0"
    return run


def test_a_probe_records_what_made_it_and_loads_again(train):
    out = train(epochs=15)
    facts = store.read_json(out / "zero.json")
    assert facts["val_accuracy"] >= 0.9 and facts["reached"] is True
    assert facts["epochs"] == 15 and facts["seed"] == 0 and facts["seconds"] > 0
    assert facts["settings"]["learning_rate"] == 1e-3 and facts["packages"]["torch"]
    model, stored = probe.load(out / "zero.safetensors")
    assert stored["labels"] == ["other", "zero"] and not model.training
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 2)


def test_equal_runs_give_equal_weights_and_trials_differ(train):
    first = (train("a", epochs=1) / "zero.safetensors").read_bytes()
    assert (train("b", epochs=1) / "zero.safetensors").read_bytes() == first
    assert (train("c", trial=1, epochs=1) / "zero.safetensors").read_bytes() != first


def test_a_cache_that_cannot_be_written_costs_no_probe(train, tmp_path, capfd):
    (tmp_path / "cache").write_text("no folder")
    out = train(epochs=1, sections={"cache": str(tmp_path / "cache")})
    assert probe.load(out / "zero.safetensors") and (out / "zero.json").exists()
    assert (
        "cache: cannot be written (Not a directory), nothing is kept there"
        in capfd.readouterr().err
    )


def test_a_damaged_entry_of_the_cache_is_replaced(train, tmp_path, capfd):
    for damage in (True, False):
        train(epochs=1, sections={"cache": str(tmp_path / "cache")})
        entry = next((tmp_path / "cache").rglob("0.safetensors"))
        if damage:
            entry.write_bytes(entry.read_bytes()[:-1])
    assert "It is not used" in capfd.readouterr().err
    train("b", epochs=1, sections={"cache": str(tmp_path / "cache")})
    assert "taken from" in capfd.readouterr().err


def test_a_missed_epsilon_is_recorded_or_an_error(train):
    out = train(epochs=1, learning_rate=1e-6, epsilon=0.01)
    facts = json.loads((out / "zero.json").read_text())
    assert facts["reached"] is False
    with pytest.raises(UserError, match=r"probe zero, .*wanted 0\.99.*on_miss"):
        train("b", epochs=1, learning_rate=1e-6, epsilon=0.01, on_miss="error")
    assert not train.folder("b").exists()


def test_a_loss_that_is_not_finite_stops_the_probe(train):
    with pytest.raises(UserError, match=r"probe zero, .* loss became .*lower its learning_rate"):
        train("d", epochs=2, learning_rate=1e30)
    assert not train.folder("d").exists()


def test_damaged_weights_are_named(train, tmp_path):
    path = train(epochs=1) / "zero.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"zero\.safetensors: damaged, it is not what"):
        probe.load(path)
    with pytest.raises(UserError, match="no such file; run the stage"):
        probe.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("average", [False, True], ids=["", "averaging"])
def test_a_stopped_training_goes_on_to_the_same_weights(train, monkeypatch, average):
    folder = train("a", epochs=4, average=average)
    whole = (folder / "zero.safetensors").read_bytes()
    curve = store.read_json(folder / "zero.json")["curve"]
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    epoch, calls = fitting.train_epoch, []

    def stop_in_the_fourth(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(fitting, "train_epoch", stop_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train("b", epochs=4, average=average)
    folder = train.folder("b")
    assert [path.name for path in folder.iterdir()] == ["zero.resume"]
    train("b", epochs=4, average=average)
    assert len(calls) == 5  # one more epoch was left
    assert (folder / "zero.safetensors").read_bytes() == whole
    assert not (folder / "zero.resume").exists()
    assert store.read_json(folder / "zero.json")["curve"] == curve
    assert len(curve["losses"]) == 4 and curve["scores"] == [None] * 4


def test_a_state_without_scores_is_taken_up_too(train, monkeypatch):
    """Of an older version."""
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    monkeypatch.setattr(resume.Resume, "done", lambda self: None)
    keys = {"epochs": 3, "stop_early": True, "learning_rate": 1e-6}
    folder = train("a", **keys)
    curve = store.read_json(folder / "zero.json")["curve"]
    tensors, facts = store.read_tensors(folder / "zero.resume")
    done = {"losses": facts["done"]["losses"][:2]}
    facts = {"decides": facts["decides"], "done": done}
    store.write_tensors(folder / "zero.resume", tensors, facts)
    train("a", **keys)
    found = store.read_json(folder / "zero.json")["curve"]
    assert found["scores"][:2] == [None, None] and 0 <= found["scores"][2] <= 1
    assert found["losses"][:2] == curve["losses"][:2] and None not in curve["scores"]


def test_a_state_of_other_settings_or_a_damaged_one_is_not_taken_up(train, monkeypatch, capfd):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    monkeypatch.setattr(resume.Resume, "done", lambda self: None)
    folder = train("a", epochs=2)
    assert store.read_json(train("a", epochs=1) / "zero.json")["epochs"] == 1
    (folder / "zero.resume").write_bytes(b"torn")
    first = (train("a", epochs=2) / "zero.safetensors").read_bytes()
    assert "starting anew" in capfd.readouterr().err
    assert (train("b", epochs=2) / "zero.safetensors").read_bytes() == first


@pytest.mark.parametrize("part", ["model model.", "optimizer adam.", "random_cpu"])
def test_a_state_whose_shapes_do_not_fit_changes_nothing(train, monkeypatch, capfd, part):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    monkeypatch.setattr(resume.Resume, "done", lambda self: None)
    folder = train("a", epochs=2)
    first = (folder / "zero.safetensors").read_bytes()
    tensors, facts = store.read_tensors(folder / "zero.resume")
    name = max(name for name in tensors if name.startswith(part) and tensors[name].dim())
    store.write_tensors(folder / "zero.resume", tensors | {name: torch.zeros(7, 3)}, facts)
    assert (train("a", epochs=2) / "zero.safetensors").read_bytes() == first
    assert "not a state of this job" in capfd.readouterr().err


def test_averaging_is_the_mean_of_the_late_steps(make_slice, digits):
    sliced = read_slice(make_slice("zero", {"other": "rest", "zero": [0]}))
    data = TaskData(sliced, digits / "digits.safetensors", {"train": None})

    def fit(average):
        model = start(2)
        bias = model.head.linear.bias
        keys = {"epochs": 3, "batch_size": 50, "learning_rate": 1e-3, "seed": 0, "what": ""}
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.optim.Adam,
                "step",
                lambda self: (
                    handle_step(self),
                    seen.append(model.head.linear.bias.detach().clone()),
                ),
            )
            fitting.fit(model, data, **keys, resume=resume.Resume(None, {}), average=average)
        return bias.detach(), seen

    handle_step = torch.optim.Adam.step
    plain, seen = fit(False)
    assert torch.equal(plain, seen[-1])
    averaged, again = fit(True)
    late = again[len(again) // 3 :]  # of three epochs, the second and the third
    torch.testing.assert_close(averaged, torch.stack(late).mean(0))


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        (lambda outputs, targets: -outputs[:, 0].abs(), "356 that are not"),
        (lambda outputs, targets: outputs[:, 0] * torch.nan, "356 that are not"),
        (lambda outputs, targets: outputs, r"\[356, 2\] of 356 images"),
        (lambda outputs, targets: 0.5, r"\[\] of 356 images"),
    ],
    ids=["negative", "nan", "by output", "a mean"],
)
def test_scores_that_are_none_are_refused(make_slice, digits, monkeypatch, scores, found):
    sliced = read_slice(make_slice("zero", ZERO["zero"]["labels"]))
    data = TaskData(sliced, digits / "digits.safetensors", {"test": None})
    monkeypatch.setattr(data.target, "scores", scores)
    count = data.count("test")
    message = rf"target 'classes': expected scores \[B\] in \[0, 1\], got {found}"
    with pytest.raises(UserError, match=message.replace("356", str(count))):
        fitting.accuracy(start(2), data, "test")


def test_stopping_early_at_epsilon(train):
    facts = store.read_json(train(epochs=60, stop_early=True) / "zero.json")
    assert facts["reached"] and facts["epochs"] < 60
    assert facts["curve"]["scores"][-1] == facts["val_accuracy"]
    assert all(score < 0.9 for score in facts["curve"]["scores"][:-1])
    with pytest.raises(ValueError, match="exclude each other"):
        Probe(stop_early=True, average=True)


def test_a_pretrained_body_is_the_start(train, tmp_path):
    body = start(2, seed=9).body.state_dict()
    store.write_tensors(tmp_path / "body.safetensors", body, {})
    path = tmp_path / "body.safetensors"
    start_from = {"pretrained": {"small-cnn": str(path)}}
    out = train("p", sections=start_from, epochs=1, learning_rate=1e-12)
    weights, facts = store.read_tensors(out / "zero.safetensors")
    torch.testing.assert_close(weights["body.0.weight"], body["0.weight"])
    assert facts["pretrained"] == store.digest(path)
    store.write_tensors(path, {"0.weight": torch.zeros(2)}, {})
    with pytest.raises(UserError, match=r"body\.safetensors: not the body of small-cnn: "):
        train("q", sections=start_from, epochs=1)


def test_dropout_goes_on_to_the_same_weights_too(train, monkeypatch):
    build = networks.build

    def with_dropout(*arguments, **keys):
        model = build(*arguments, **keys)
        model.body.append(torch.nn.Dropout(0.5))
        return model

    monkeypatch.setattr(networks, "build", with_dropout)
    whole = (train("a", epochs=3) / "zero.safetensors").read_bytes()
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    epoch, calls = fitting.train_epoch, []

    def stop_in_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(fitting, "train_epoch", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        train("b", epochs=3)
    torch.manual_seed(77)  # whatever the process drew before
    assert (train("b", epochs=3) / "zero.safetensors").read_bytes() == whole


class Normed(torch.nn.Module):
    """A batch norm over the images alone."""

    def __init__(self, channels, size, width):
        super().__init__()
        self.linear = torch.nn.Linear(channels * size**2, 4)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, images):
        return self.norm(self.linear(images.flatten(1)))


def test_batch_norm_and_one_image_at_a_time(train, registered):
    registered(NETWORKS, "small-cnn", Network(Normed))
    with pytest.raises(UserError, match=r"^probe zero, .*: batch norm cannot train on one image"):
        train("a", epochs=1, batch_size=1)
    assert not train.folder("a").exists()


def test_statistics_that_are_not_finite_are_no_result(train, registered, monkeypatch):
    registered(NETWORKS, "small-cnn", Network(Normed))
    norm = torch.nn.BatchNorm1d.forward

    def overflowing(self, values):
        self.running_var.fill_(torch.inf)
        return norm(self, values)

    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", overflowing)
    with pytest.raises(UserError, match=r"^probe zero, .*: its weights are no longer finite"):
        train("a", epochs=1)


def test_outputs_that_are_no_numbers_have_no_accuracy(train, registered):
    """The first of such outputs would count as the largest."""

    def broken(*arguments):
        body = Normed(*arguments)
        body.norm.running_var.fill_(-2.0)  # its root is NaN
        body.norm.momentum = 0.0
        return body

    registered(NETWORKS, "small-cnn", Network(broken))
    with pytest.raises(UserError, match=r"^task zero: the network's outputs on val are NaN"):
        train("a", epochs=1)


# A trained network in place of a probe ------------------------------------------------------------

ACCURACY = Measure(dict, ("facts",), ("facts",), 0.0, 1.0)


@pytest.fixture
def brought(train, registered, tmp_path):
    """A trained network's file without facts, and a function that gives it to the task."""
    registered(MEASURES, "accuracy", ACCURACY)
    out = train("a", epochs=5)
    path = tmp_path / "own.safetensors"
    save_file(store.read_tensors(out / "zero.safetensors")[0], path)

    def give(folder="b", weights=path, **sections):
        tasks = {"zero": ZERO["zero"] | {"weights": str(weights)}}
        sections = {"measures": ["accuracy"], "tasks": tasks} | sections
        return train(folder, sections=sections, epochs=5)

    give.path, give.probe = path, out
    return give


def test_a_trained_network_is_measured_and_not_trained(brought, monkeypatch):
    monkeypatch.setattr(fitting, "fit", None)  # calling it would fail
    out = brought()
    trained, facts = (store.read_json(folder / "zero.json") for folder in (brought.probe, out))
    assert facts["val_accuracy"] == trained["val_accuracy"] > facts["val_most_frequent"]
    assert (facts["epochs"], facts["train_loss"], facts["seconds"]) == (0, None, 0.0)
    assert facts["weights"] == store.digest(brought.path) and trained["weights"] is None
    own, found = (probe.load(folder / "zero.safetensors")[0] for folder in (brought.probe, out))
    for name, value in own.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_another_file_of_weights_is_another_probe_of_the_cache(brought, tmp_path, capfd):
    cache = str(tmp_path / "cache")
    brought("b", cache=cache)
    other = {name: value + 1 for name, value in load_file(brought.path).items()}
    save_file(other, tmp_path / "other.safetensors")
    out = brought("c", tmp_path / "other.safetensors", cache=cache)
    assert "taken from" not in capfd.readouterr().err
    weights = store.read_tensors(out / "zero.safetensors")[0]
    assert torch.equal(weights["head.linear.bias"], other["head.linear.bias"])
    brought("d", cache=cache)
    assert "taken from" in capfd.readouterr().err


def test_a_measure_of_networks_of_one_start_refuses_it(brought):
    with pytest.raises(UserError, match=r"tasks\.zero\.weights: the measure 'fisher' compares"):
        brought(measures=["fisher"])


BAD_WEIGHTS = {
    "other names": ({"weight": torch.zeros(2)}, "Missing key"),
    "other shapes": (
        {"head.linear.bias": torch.zeros(7)},
        "size mismatch for head",
    ),
    "one too many": ({"more": torch.zeros(1)}, "Unexpected key"),
    "a wrapper's names": ("module.", "Missing key.*; the names that fit begin with 'module\\.'"),
    "two wrappers' names": ("_orig_mod.module.", "Missing key.*begin with '_orig_mod\\.module\\.'"),
}
NO_NUMBERS = {
    "none": (torch.tensor([0.0, float("nan")]), "not finite"),
    "endless": (torch.tensor([0.0, 1e300]).double(), "not finite"),
    "whole": (torch.zeros(2, dtype=torch.int64), "expected floating-point numbers, got int64"),
}


@pytest.mark.parametrize(("change", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_one_error(brought, tmp_path, change, message):
    whole = load_file(brought.path)
    if isinstance(change, str):
        whole, change = {change + name: value for name, value in whole.items()}, {}
    elif "weight" in change:
        whole = {}
    save_file(whole | change, tmp_path / "bad.safetensors")
    what = rf"^{tmp_path}/bad\.safetensors: not a network small-cnn for task zero: {message}"
    with pytest.raises(UserError, match=what):
        brought(weights=tmp_path / "bad.safetensors")


@pytest.mark.parametrize(("value", "message"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_weights_that_are_no_numbers_are_one_error(brought, tmp_path, value, message):
    save_file(load_file(brought.path) | {"head.linear.bias": value}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=rf"bad\.safetensors: head\.linear\.bias: {message}"):
        brought(weights=tmp_path / "bad.safetensors")


def test_weights_that_are_none(brought, tmp_path):
    with pytest.raises(UserError, match=r"none\.safetensors: no such file; check the file that"):
        brought(weights=tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UserError, match=r"text\.safetensors: cannot be read, .*check the file"):
        brought(weights=tmp_path / "text.safetensors")
