"""Probes: the common start, what is recorded, equal runs, and a missed ε."""

import json

import pytest
import torch

from ftd import artifacts, networks, probe, resume, slice, training
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
    def run(folder="a", trial=0, pretrained=None, cache=None, **settings):
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
            pretrained=pretrained,
            cache=cache,
        )
        return out

    run.folder = lambda name: tmp_path / name
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


def test_a_cache_that_cannot_be_written_costs_no_probe(train, tmp_path, capfd):
    (tmp_path / "cache").write_text("no folder")
    out = train(epochs=1, cache=tmp_path / "cache")
    assert probe.load(out / "zero.safetensors") and (out / "zero.json").exists()
    assert (
        "cache: cannot be written (Not a directory), nothing is kept there"
        in capfd.readouterr().err
    )


def test_a_damaged_entry_of_the_cache_is_replaced(train, tmp_path, capfd):
    for damage in (True, False):
        train(epochs=1, cache=tmp_path / "cache")
        entry = next((tmp_path / "cache").rglob("0.safetensors"))
        if damage:
            entry.write_bytes(entry.read_bytes()[:-1])
    assert "It is not used" in capfd.readouterr().err
    train("b", epochs=1, cache=tmp_path / "cache")
    assert "taken from" in capfd.readouterr().err


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
    with pytest.raises(UserError, match=r"zero\.safetensors: damaged, it is not what"):
        probe.load(path)
    with pytest.raises(UserError, match="no such file; run the stage"):
        probe.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("average", [False, True], ids=["", "averaging"])
def test_a_stopped_training_goes_on_to_the_same_weights(train, monkeypatch, average):
    whole = (train("a", epochs=4, average=average) / "zero.safetensors").read_bytes()
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    epoch, calls = training.train_epoch, []

    def stop_in_the_fourth(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(training, "train_epoch", stop_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train("b", epochs=4, average=average)
    folder = train.folder("b")
    assert [path.name for path in folder.iterdir()] == ["zero.resume"]
    train("b", epochs=4, average=average)
    assert len(calls) == 5  # one more epoch was left
    assert (folder / "zero.safetensors").read_bytes() == whole
    assert not (folder / "zero.resume").exists()


def test_a_state_of_other_settings_or_a_damaged_one_is_not_taken_up(train, monkeypatch, capfd):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    monkeypatch.setattr(resume.Resume, "done", lambda self: None)
    folder = train("a", epochs=2)
    assert artifacts.read_json(train("a", epochs=1) / "zero.json")["epochs"] == 1
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
    tensors, facts = artifacts.read_tensors(folder / "zero.resume")
    name = max(name for name in tensors if name.startswith(part) and tensors[name].dim())
    artifacts.write_tensors(folder / "zero.resume", tensors | {name: torch.zeros(7, 3)}, facts)
    assert (train("a", epochs=2) / "zero.safetensors").read_bytes() == first
    assert "not a state of this job" in capfd.readouterr().err


def test_averaging_is_the_mean_of_the_late_steps(make_slice, digits):
    task = slice.read(make_slice("zero", {"other": "rest", "zero": [0]}))
    data = slice.TaskData(task, digits / "digits.safetensors", {"train": None})

    def fit(average):
        model = start(2)
        keys = {"epochs": 3, "batch_size": 50, "learning_rate": 1e-3, "seed": 0, "what": ""}
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.optim.Adam,
                "step",
                lambda self: (handle_step(self), seen.append(model.head.bias.detach().clone())),
            )
            training.fit(model, data, **keys, resume=resume.Resume(None, {}), average=average)
        return model.head.bias.detach(), seen

    handle_step = torch.optim.Adam.step
    plain, seen = fit(False)
    assert torch.equal(plain, seen[-1])
    averaged, again = fit(True)
    late = again[len(again) // 3 :]  # of three epochs, the second and the third
    torch.testing.assert_close(averaged, torch.stack(late).mean(0))


def test_stopping_early_at_epsilon(train):
    facts = artifacts.read_json(train(epochs=60, stop_early=True) / "zero.json")
    assert facts["reached"] and facts["epochs"] < 60
    with pytest.raises(ValueError, match="exclude each other"):
        Probe(stop_early=True, average=True)


def test_a_pretrained_body_is_the_start(train, tmp_path):
    body = start(2, seed=9).body.state_dict()
    artifacts.write_tensors(tmp_path / "body.safetensors", body, {})
    path = tmp_path / "body.safetensors"
    out = train("p", pretrained=path, epochs=1, learning_rate=1e-12)
    weights, facts = artifacts.read_tensors(out / "zero.safetensors")
    torch.testing.assert_close(weights["body.0.weight"], body["0.weight"])
    assert facts["pretrained"] == artifacts.digest(path)
    artifacts.write_tensors(path, {"0.weight": torch.zeros(2)}, {})
    with pytest.raises(UserError, match=r"body\.safetensors: not the body of small-cnn: "):
        train("q", pretrained=path, epochs=1)


def test_dropout_goes_on_to_the_same_weights_too(train, monkeypatch):
    build = networks.build

    def with_dropout(*arguments, **keys):
        model = build(*arguments, **keys)
        model.body.append(torch.nn.Dropout(0.5))
        return model

    monkeypatch.setattr(networks, "build", with_dropout)
    whole = (train("a", epochs=3) / "zero.safetensors").read_bytes()
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    epoch, calls = training.train_epoch, []

    def stop_in_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(training, "train_epoch", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        train("b", epochs=3)
    torch.manual_seed(77)  # whatever the process drew before
    assert (train("b", epochs=3) / "zero.safetensors").read_bytes() == whole
