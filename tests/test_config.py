"""Configuration: everything wrong is said at once, with place and remedy."""

import copy

import pytest
import yaml
from conftest import ROOT, TINY

from ftd import config
from ftd.errors import UserError


def changed(path: str, value) -> dict:
    raw = copy.deepcopy(TINY)
    *parents, last = path.split("/")
    place = raw
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return raw


@pytest.mark.parametrize("name", ["config", "mnist"])
def test_shipped_configurations_are_valid(name):
    experiment = config.load(ROOT / "config" / f"{name}.yaml")
    assert list(experiment.tasks) == ["zero", "six", "zero-to-three", "ten-digits"]
    assert [task.is_indicator for task in experiment.tasks.values()] == [True, True, False, False]
    assert experiment.trials == 5 and experiment.probe.epsilon == 0.1


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


@pytest.mark.parametrize("text", ["- a list", "a: [1", "!!python/object/apply:os.system [ls]"])
def test_unreadable_files(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        config.load(path)


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
