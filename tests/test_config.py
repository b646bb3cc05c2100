"""Configuration: everything wrong is said at once, with place and remedy."""

import copy
import datetime

import pytest
import yaml
from conftest import ROOT, TINY

from ftd import artifacts, config
from ftd.errors import UserError


def changed(path: str, value) -> dict:
    raw = copy.deepcopy(TINY)
    *parents, last = path.split("/")
    place = raw
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return raw


MNIST_TASKS = {
    "zero": {"other": "rest", "zero": [0]},
    "six": {"other": "rest", "six": [6]},
    "zero-to-three": {"zero": [0], "one": [1], "two": [2], "three": [3], "other": "rest"},
    "ten-digits": "all",
}
CIFAR10_TASKS = {
    "car-cat-ship": {"other": "rest", "car-cat-ship": [1, 3, 8]},
    "cat-ship-truck": {"other": "rest", "cat-ship-truck": [3, 8, 9]},
    "bird-frog-horse": {"bird": [2], "frog": [6], "horse": [7], "other": "rest"},
    "ten-classes": "all",
}


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("config", MNIST_TASKS), ("mnist", MNIST_TASKS), ("cifar10", CIFAR10_TASKS)],
)
def test_shipped_configurations_hold_the_published_tasks(name, tasks):
    experiment = config.load(ROOT / "config" / f"{name}.yaml")
    assert {task: keys.labels for task, keys in experiment.tasks.items()} == tasks
    assert [list(labels) for labels in tasks.values()] == [
        list(task.labels) for task in experiment.tasks.values()
    ]
    assert [task.is_indicator for task in experiment.tasks.values()] == [True, True, False, False]
    assert experiment.trials == 5


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "imagenet", "tiny-imagenet"])
def test_every_effort_is_valid(name):
    raw = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    small, paper = (config.parse(config.resolve(raw | {"effort": e})) for e in ("small", "paper"))
    assert small.experiment == name and paper.experiment == f"{name}-paper"
    assert len(small.tasks) == 4 and small.tasks == paper.tasks
    assert small.trials == 5 and paper.trials == 10 and len(paper.networks) == 3


def test_cifar100_s_task_sizes():
    tasks = config.load(ROOT / "config" / "cifar100.yaml").tasks
    assert [len(task.labels) for task in tasks.values()] == [2, 2, 11, 21]
    vehicles = tasks["vehicles"].labels["vehicle"]
    assert [*tasks["each-vehicle"].labels] == [*vehicles, "other"]
    assert [*tasks["each-of-twenty"].labels] == [
        *vehicles, *tasks["household"].labels["household"], "other",
    ]  # fmt: skip


# Efforts ----------------------------------------------------------------------------------------

EFFORTS = {"effort": "small", "efforts": {"small": {"trials": 2, "probe": {"epochs": 7}}}}


def test_an_effort_changes_the_file_and_the_command_line_both():
    raw = TINY | EFFORTS | {"trials": 9}
    experiment = config.parse(config.resolve(raw))
    assert experiment.trials == 2 and experiment.probe.epochs == 7
    assert experiment.effort is None and experiment.fisher.samples == 40  # all else stays
    experiment = config.parse(
        config.resolve(raw, [{"trials": 3, "seed": 5}, {"trials": 4, "effort": "small"}])
    )
    assert experiment.trials == 4 and experiment.probe.epochs == 7


def test_an_unknown_effort_is_named():
    with pytest.raises(UserError, match=r"effort: unknown effort 'smal'; did you mean 'small'"):
        config.parse(config.resolve(TINY | EFFORTS | {"effort": "smal"}))


def test_an_error_in_an_effort_is_an_error_of_the_key():
    raw = TINY | {"effort": "small", "efforts": {"small": {"trails": 2}}}
    with pytest.raises(UserError, match="trails: unknown key; did you mean 'trials'"):
        config.parse(config.resolve(raw))


BAD = {
    "unknown key": ("trails", 3, "trails: unknown key; did you mean 'trials'?"),
    "unknown nested key": ("probe/epoch", 3, "probe.epoch: unknown key; did you mean 'epochs'?"),
    "unknown task key": ("tasks/zero/label", [], "tasks.zero.label: unknown key"),
    "missing key": ("tasks/zero", {"dataset": "digits"}, "tasks.zero.labels: missing"),
    "unknown data set": ("tasks/zero/dataset", "digts", "did you mean 'digits'?"),
    "unknown loader": ("datasets/digits/loader", "sklearn", "unknown loader 'sklearn'"),
    "loader without path": ("datasets/own", {"loader": "imagefolder"}, "needs the key 'train'"),
    "path without loader for it": (
        "datasets/digits/train",
        "x",
        "loader sklearn-digits takes no 'train'",
    ),
    "key that the loader does not take": (
        "datasets/digits/names",
        "x",
        "loader sklearn-digits takes no 'names'",
    ),
    "data set as a list": ("tasks/zero/dataset", ["digits"], "tasks.zero.dataset"),
    "unknown key of a task named dataset": (
        "tasks/dataset",
        {"dataset": "digits", "labels": "all", "lables": 1},
        "tasks.dataset.lables: unknown key; did you mean 'labels'?",
    ),
    "unknown key of a data set named image": (
        "datasets/image",
        {"loader": "sklearn-digits", "lodaer": 1},
        "datasets.image.lodaer: unknown key; did you mean 'loader'?",
    ),
    "class twice in a label": ("tasks/three/labels/a", [0, 0], "listed twice in label 'a'"),
    "pretrained network that is not used": (
        "pretrained",
        {"vgg16": "x"},
        "pretrained.vgg16: no such network",
    ),
    "estimator": ("fisher/estimator", "exact", "fisher.estimator: input should be"),
    "micro-batches of an expectation": (
        "fisher",
        {"estimator": "expected", "microbatch": 5},
        "microbatch goes with neither",
    ),
    "width of nothing": ("networks", ["resnet18-x0"], "width must lie in (0, 16]"),
    "unknown network": ("networks", ["small-cn"], "did you mean 'small-cnn'?"),
    "network twice": ("networks", ["small-cnn", "small-cnn"], "'small-cnn' is listed twice"),
    "empty label": ("tasks/zero/labels/zero", [], "label 'zero' is empty"),
    "class in two labels": (
        "tasks/three/labels/b",
        [0, 2],
        "class 0 is in two labels, 'a'",
    ),
    "one label": ("tasks/zero/labels", {"zero": [0]}, "at least two labels"),
    "two rests": ("tasks/three/labels/a", "rest", "only one label may be 'rest'"),
    "labels no mapping": ("tasks/zero/labels", 3, "tasks.zero.labels: expected 'all' or a mapping"),
    "label no list": ("tasks/zero/labels/zero", 0, "expected a list of classes"),
    "unsafe task": ("tasks/..%2Fx", TINY["tasks"]["zero"], "it becomes part of a path"),
    "task beside the results": ("tasks/..", TINY["tasks"]["zero"], "it becomes part of a path"),
    "absolute task": ("tasks/C:\\etc", TINY["tasks"]["zero"], "it becomes part of a path"),
    "hidden task": ("tasks/.hidden", TINY["tasks"]["zero"], "it becomes part of a path"),
    "task as an option": ("tasks/-rf", TINY["tasks"]["zero"], "it becomes part of a path"),
    "task of two lines": ("tasks/a\nb", TINY["tasks"]["zero"], "it becomes part of a path"),
    "endless task": ("tasks/" + "a" * 300, TINY["tasks"]["zero"], "it becomes part of a path"),
    "unsafe data set": (
        "datasets/..\\x",
        {"loader": "sklearn-digits"},
        "it becomes part of a path",
    ),
    "absolute experiment": ("experiment", "\x00", "it becomes part of a path"),
    "unsafe experiment": ("experiment", "../elsewhere", "it becomes part of a path"),
    "task names that differ in case": ("tasks/Zero", TINY["tasks"]["zero"], "differ only in case"),
    "share out of range": ("datasets/digits/parts", {"val": 1.5}, "expected a share in (0, 1]"),
    "share of nothing": ("datasets/digits/parts", {"val": 0}, "expected a share in (0, 1]"),
    "negative seed": ("seed", -1, "seed: input should be greater than or equal to 0"),
    "no trials": ("trials", 0, "trials: input should be greater than or equal to 1"),
    "channels": ("image/channels", 2, "image.channels: input should be 1 or 3"),
    "unknown operation": (
        "search/space/operations",
        ["sep_conv_3x4"],
        "did you mean 'sep_conv_3x3'?",
    ),
    "too few cells": ("search/space/cells", [2], "search.space.cells.0"),
    "no tasks": ("tasks", {}, "tasks: "),
    "epsilon": ("probe/epsilon", 1, "probe.epsilon: input should be less than 1"),
    "endless rate": ("probe/learning_rate", float("inf"), "probe.learning_rate: input should be a"),
    "layers of a million pairs": ("trials", 200_000, "distance.layers: 1800000 pairs are too many"),
}


@pytest.mark.parametrize(("path", "value", "message"), BAD.values(), ids=BAD)
def test_bad_value_is_named(path, value, message):
    with pytest.raises(UserError) as error:
        config.parse(changed(path, value))
    assert message in str(error.value)
    assert "1 error(s)" in str(error.value)


def test_all_errors_at_once():
    raw = changed("trails", 3)
    raw["tasks"]["zero"]["dataset"] = "nowhere"
    raw["tasks"]["a/b"] = raw["tasks"]["six"]
    raw["seed"] = "many"
    with pytest.raises(UserError) as error:
        config.parse(raw)
    text = str(error.value)
    assert "4 error(s)" in text
    assert all(part in text for part in ("trails", "nowhere", "a/b", "seed"))


def test_duplicate_task_names_are_found_in_the_file(tmp_path):
    path = tmp_path / "twice.yaml"
    text = yaml.safe_dump(TINY, sort_keys=False)
    path.write_text(text.replace("  six:", "  zero:"))
    with pytest.raises(UserError, match=r"tasks\.zero: given twice \(lines \d+ and \d+\)"):
        config.load(path)


UNREADABLE = {
    "list": "- a list",
    "open bracket": "a: [1",
    "nothing": "",
    "a call": "!!python/object/apply:os.system [touch owned]",
    "a call within": "tasks: !!python/object/new:os.system [touch owned]",
    "a module": "a: !!python/module:os",
    "an unknown tag": "a: !secret b",
    "nested without end": "[" * 5000,
    "a control character": "a: \x07",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_files(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        config.load(path)
    assert not (tmp_path / "owned").exists()


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match=r"bad\.yaml: cannot be read"):
        config.load(path)


def test_aliases_that_multiply_without_end_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "bad.yaml"
    path.write_text("\n".join([*lines, "trials: *a11", "self: &self [*self]"]))
    with pytest.raises(UserError, match=r"trials: .*got \[\[") as error:
        config.load(path)
    assert len(str(error.value)) < 10_000


def test_an_effort_that_is_not_chosen_is_left_out():
    """It may hold what JSON, in which configurations are recorded, does not know."""
    raw = changed("efforts", {"late": {"probe": {"epochs": datetime.date(2024, 1, 1)}}})
    assert config.resolve(raw) == TINY
    with pytest.raises(UserError, match=r"probe\.epochs: "):
        config.parse(config.resolve(raw | {"effort": "late"}))


def test_an_edited_record_says_what_to_do(tmp_path):
    path = tmp_path / config.RECORD
    artifacts.write_json(path, TINY, sort_keys=False)
    config.check_recorded(path)
    path.write_text(path.read_text().replace('"trials": 1', '"trials": 2'))
    with pytest.raises(UserError, match=r"config\.json: .* take the key _ftd out of it"):
        config.check_recorded(path)


def test_settings_round_trip_keeps_the_order_of_labels():
    task = config.Task(dataset="d", labels={"z": [1], "a": "rest", 3: ["x"]})
    again = config.settings_from_json(config.Task, config.settings_json(task))
    assert list(again.labels) == ["z", "a", "3"]
    assert again == task


def test_bad_settings_name_the_key():
    with pytest.raises(UserError, match=r"probe settings: .*epoch"):
        config.settings_from_json(config.Probe, '{"epoch": 3}')
    with pytest.raises(UserError, match="probe settings"):
        config.settings_from_json(config.Probe, "{")
