"""Probes: the common start, what is recorded, equal runs, and a missed ε."""

import json

import pytest
import torch

from ftd import artifacts, networks, probe
from ftd.config import Probe
from ftd.errors import UserError


def start(labels: int, seed: int = 5):
    return networks.build("small-cnn", channels=1, size=8, labels=labels, seed=seed)


def test_common_start_across_head_sizes():
    two, ten = start(2).state_dict(), start(10).state_dict()
    for name in two:
        rows = len(two[name])
        assert torch.equal(two[name], ten[name][:rows]), name
    assert not torch.equal(two["body.0.weight"], start(2, seed=6).state_dict()["body.0.weight"])
    assert not torch.equal(ten["head.weight"][0], ten["head.weight"][1])


def test_head_has_pytorch_s_initial_spread():
    head = start(64).head
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
        networks.build("vgg", channels=1, size=8, labels=2, seed=0)


@pytest.fixture
def train(make_slice, digits, tmp_path):
    def run(folder="a", trial=0, **settings):
        out = tmp_path / folder
        task = make_slice("zero", {"other": "rest", "zero": [0]})
        probe.run(
            task,
            digits / "digits.safetensors",
            network="small-cnn",
            trial=trial,
            seed=0,
            settings=Probe(**settings),
            weights_out=out / "zero.safetensors",
            facts_out=out / "zero.json",
        )
        return out

    return run


def test_a_probe_records_what_made_it_and_loads_again(train):
    out = train(epochs=15)
    facts = artifacts.read_json(out / "zero.json")
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


def test_a_missed_epsilon_is_recorded_or_an_error(train):
    out = train(epochs=1, learning_rate=1e-6, epsilon=0.01)
    facts = json.loads((out / "zero.json").read_text())
    assert facts["reached"] is False
    with pytest.raises(UserError, match=r"probe zero, .*wanted 0\.99.*on_miss"):
        train("b", epochs=1, learning_rate=1e-6, epsilon=0.01, on_miss="error")
    assert not (out.parent / "b").exists()


def test_a_loss_that_is_not_finite_stops_the_probe(train):
    with pytest.raises(UserError, match=r"probe zero, .* loss became .*lower its learning_rate"):
        train("d", epochs=2, learning_rate=1e30)
    assert not (train().parent / "d").exists()


def test_damaged_weights_are_named(train, tmp_path):
    path = train(epochs=1) / "zero.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"zero\.safetensors: cannot be read, perhaps truncated"):
        probe.load(path)
    with pytest.raises(UserError, match="no such file; run the stage"):
        probe.load(tmp_path / "none.safetensors")
