"""Configuration: everything wrong is said at once, with place and remedy."""

import copy
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, experiment_of

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures import Combination, Measure
from ftd.parts import MEASURES, NETWORKS, Network
from ftd.stages import report, search


def changed(path: str, value) -> dict:
    raw = copy.deepcopy(TINY)
    *parents, last = path.split("/")
    place = raw
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return raw


CONFIG = ROOT / "config"
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
    several = list(tasks.values())[2]
    rests = [task.rest for task in experiment.tasks.values()]
    assert rests == [0, 0, len(several) - 1, None]
    assert all(task.balance for task in experiment.tasks.values())
    assert experiment.trials == 5


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "imagenet", "tiny-imagenet"])
def test_every_paper_overlay_is_valid(name):
    file, overlay = CONFIG / f"{name}.yaml", CONFIG / "overlays" / f"{name}-paper.yaml"
    small, paper = config.load(file), config.load(file, overlay)
    assert small.experiment == name and paper.experiment == f"{name}-paper"
    assert len(small.tasks) == 4 and small.tasks == paper.tasks
    assert small.trials == 5 and paper.trials == 10 and len(paper.networks) == 3
    assert small.seed == paper.seed


def test_the_ten_dense_tasks_are_the_same_on_either_data_set():
    """In the order of the published matrix, of the same kinds and scores."""
    derived, files = (
        config.load(CONFIG / f"{name}.yaml") for name in ("taskonomy", "taskonomy-files")
    )
    kinds = [
        {name: (own.target, getattr(own, "score", None)) for name, own in each.tasks.items()}
        for each in (derived, files)
    ]
    assert list(kinds[0]) == list(kinds[1]) and kinds[0] == kinds[1] and len(kinds[0]) == 10
    assert derived.measures == files.measures and derived.trials == files.trials == 5
    epsilons = [
        {name: own.epsilon for name, own in each.tasks.items()} for each in (derived, files)
    ]
    assert epsilons[0] == epsilons[1]
    constants = dict.fromkeys(kinds[0], 0.14) | {"normals": 0.78, "autoencoding": 0.75}
    constants |= dict.fromkeys(("euclidean-distance", "z-depth"), 0.47)
    for name, epsilon in epsilons[0].items():  # what the best constant answer scores on NYU's val
        assert constants[name] + 0.05 < 1 - epsilon < 1


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "overlays").glob("*.yaml")))
def test_every_overlay_is_valid_over_its_experiment(path):
    """Over the file that its name begins with; two of them over several files."""
    of_transfer = path.stem.endswith("-architectures") or path.stem == "batchnorm"
    folder = CONFIG / "transfer" if of_transfer else CONFIG
    names = [file.stem for file in folder.glob("*.yaml") if path.stem.startswith(f"{file.stem}-")]
    if path.stem == "compare":
        names = ["config", "mnist"]
    if path.stem == "batchnorm":
        names = ["mnist", "cifar10"]
    if path.stem == "darts-evaluation":
        names = ["cifar10"]
    assert names
    for name in names:
        base = [folder / f"{name}.yaml"]
        if path.stem.endswith("-compare"):
            base.append(CONFIG / "overlays" / "compare.yaml")
        found = config.load(*base, path)
        assert found.tasks == config.load(base[0]).tasks
        own = yaml.safe_load(path.read_text()).get("experiment", config.load(base[0]).experiment)
        assert found.experiment == own


@pytest.mark.parametrize("name", ["mnist", "cifar10", "grey"])
def test_overlays_for_architectures_make_images_and_measures_small(name):
    files = CONFIG / "transfer" / f"{name}.yaml", CONFIG / "overlays" / f"{name}-architectures.yaml"
    whole, small = config.load(files[0]), config.load(*files)
    assert small.image.size <= whole.image.size / 2 and small.image.channels == whole.image.channels
    assert {data.fit for data in small.datasets.values()} == {"resize"}
    parts = [{key: data.parts for key, data in each.datasets.items()} for each in (whole, small)]
    assert parts[0] == parts[1] and small.trials == whole.trials and small.seed == whole.seed
    assert small.experiment == f"{name}-architectures"
    assert not {"fisher-refit", "task-affinity", "fisher-matching"} & {*small.measures}  # slow
    assert small.genotypes.count >= 60 and small.genotypes.repeats >= 2


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "parquet").glob("*.yaml")))
def test_every_other_loader_is_valid(path):
    found = config.load(CONFIG / path.name.replace("transfer-", "transfer/"), path)
    assert {data.loader for data in found.datasets.values()} == {"parquet"}


def test_cifar100_s_task_sizes():
    tasks = config.load(ROOT / "config" / "cifar100.yaml").tasks
    assert [len(task.labels) for task in tasks.values()] == [2, 2, 11, 21]
    vehicles = tasks["vehicles"].labels["vehicle"]
    assert [*tasks["each-vehicle"].labels] == [*vehicles, "other"]
    assert [*tasks["each-of-twenty"].labels] == [
        *vehicles, *tasks["household"].labels["household"], "other",
    ]  # fmt: skip


def test_equal_data_sets_are_equal():
    """Also those of loaders with keys of their own, however often they are read."""
    raw = changed("datasets/own", {"loader": "imagefolder", "train": "photos"})
    assert config.parse(raw).datasets == config.parse(raw).datasets
    other = changed("datasets/own", {"loader": "imagefolder", "train": "other"})
    assert config.parse(raw).datasets != config.parse(other).datasets
    assert config.parse(raw).tasks == config.parse(other).tasks


# Files over files ---------------------------------------------------------------------------------


def test_later_files_and_settings_win_key_by_key(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(TINY, sort_keys=False))
    own = {"trials": 2, "networks": ["vgg16"], "probe": {"epochs": 7, "epsilon": 0.5}}
    second.write_text(yaml.safe_dump(own))
    found = config.load(first, second, settings=["probe.epochs=3", "search.samples=null"])
    assert found.probe.epochs == 3 and found.probe.epsilon == 0.5  # merged
    assert found.trials == 2 and found.networks == ["vgg16"]  # a list is replaced
    assert found.fisher.samples == 40 and list(found.tasks) == list(TINY["tasks"])  # all else stays
    assert found.search.samples is None and found.search.fuse.alternations == 1
    found = config.load(first, settings=["trials=3", "networks=[vgg16, resnet18]", "trials=4"])
    assert found.trials == 4 and found.networks == ["vgg16", "resnet18"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("probe.epoch=3", "probe.epoch: unknown key; did you mean 'epochs'?"),
        ("probe.epochs=many", "probe.epochs: input should be a valid integer"),
        ("probe.epochs", "--set probe.epochs: expected key=value, as in probe.epochs=3"),
        ("probe..epochs=3", "--set probe..epochs=3: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("probe={epoch: 3", "--set probe={epoch: 3: the value is no YAML"),
        ("probe=3", "probe: input should be a valid dictionary"),
    ],
)
def test_bad_settings_name_the_key(tmp_path, setting, message):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False))
    with pytest.raises(UserError) as error:
        config.load(path, settings=[setting])
    assert message in str(error.value)


def test_an_error_in_an_overlay_names_both_files(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(TINY, sort_keys=False))
    second.write_text("trails: 2")
    message = (
        r"first\.yaml, .*second\.yaml: 1 error.*\n  trails: unknown key; did you mean 'trials'"
    )
    with pytest.raises(UserError, match=message):
        config.load(first, second)


BAD = {
    "unknown key": ("trails", 3, "trails: unknown key; did you mean 'trials'?"),
    "unknown nested key": ("probe/epoch", 3, "probe.epoch: unknown key; did you mean 'epochs'?"),
    "unknown task key": ("tasks/zero/label", [], "tasks.zero.label: unknown key"),
    "missing key": ("tasks/zero", {"dataset": "digits"}, "tasks.zero.labels: missing"),
    "unknown data set": ("tasks/zero/dataset", "digts", "did you mean 'digits'?"),
    "unknown loader": ("datasets/digits/loader", "sklearn", "unknown loader 'sklearn'"),
    "loader without path": (
        "datasets/own",
        {"loader": "imagefolder"},
        "datasets.own.train: missing",
    ),
    "path without loader for it": (
        "datasets/digits/train",
        "x",
        "datasets.digits.train: unknown key; known: loader, fit, background, parts",
    ),
    "key that the loader does not take": (
        "datasets/digits/names",
        "x",
        "datasets.digits.names: unknown key; known: loader, fit, background, parts",
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
    "label that is no text": (
        "tasks/zero/labels",
        {False: "rest", True: [0]},
        "tasks.zero.labels: a name that YAML reads as False; write it in quotes",
    ),
    "task that is no text": (
        "tasks",
        {None: TINY["tasks"]["zero"]},
        "tasks: a name that YAML reads as None; write it in quotes",
    ),
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
    "seed of no table": ("search/seeds", [2**63], "search.seeds.0: input should be less than"),
    "no trials": ("trials", 0, "trials: input should be greater than or equal to 1"),
    "channels": ("image/channels", 2, "image.channels: input should be 1 or 3"),
    "unknown operation": (
        "search/space/operations",
        ["sep_conv_3x4"],
        "did you mean 'sep_conv_3x3'?",
    ),
    "too few cells": ("search/space/cells", [2], "search.space.cells.0"),
    "library by a network": (
        "search/library",
        "resnet18-x0.05",
        "search.library: expected a method that searches, got the network 'resnet18-x0.05'",
    ),
    "library by no method": ("search/library", "surogate", "did you mean 'surrogate'"),
    "no tasks": ("tasks", {}, "tasks: "),
    "epsilon": ("probe/epsilon", 1, "probe.epsilon: input should be less than 1"),
    "endless rate": ("probe/learning_rate", float("inf"), "probe.learning_rate: input should be a"),
    "momentum of another optimiser": ("train/momentum", 0.9, "train: momentum is SGD's; set"),
    "unknown optimiser": ("train/optimizer", "SGD", "train.optimizer: input should be 'adam' or"),
    "crop of a whole image": ("train/crop", 8, "train.crop: 8 pixels, but the side of images has"),
    "cutout of a whole image": ("train/cutout", 9, "train.cutout: 9 pixels, but the side of"),
    "paths that are always dropped": (
        "train/drop_path",
        1,
        "train.drop_path: input should be less",
    ),
    "two cells for evaluation": ("train/cells", 2, "train.cells: input should be greater than or"),
    "clip at nothing": ("train/clip", 0, "train.clip: input should be greater than 0"),
    "unknown option of training": ("train/cut_out", 4, "train.cut_out: unknown key; did you mean"),
    "layers of a million pairs": ("trials", 200_000, "distance.layers: 1800000 pairs are too many"),
}


@pytest.mark.parametrize(("path", "value", "message"), BAD.values(), ids=BAD)
def test_bad_value_is_named(path, value, message):
    with pytest.raises(UserError) as error:
        config.parse(changed(path, value))
    assert message in str(error.value)
    assert "1 error\n" in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("trials", True, "trials"),
        ("image/channels", True, "image.channels"),
        ("probe/learning_rate", True, "probe.learning_rate"),
        ("datasets/digits/parts", {"val": True}, "datasets.digits.parts.val"),
        ("search/seeds", [True], "search.seeds.0"),
        ("search/space/feeds", True, "search.space.feeds"),
        ("train/cutout", True, "train.cutout"),
        ("search/fuse/alpha_learning_rate", False, "search.fuse.alpha_learning_rate"),
        ("search/max_macs", True, "search.max_macs"),
    ],
)
def test_a_boolean_is_no_number(tmp_path, path, value, where):
    """In a file, in whichever words, as in JSON and in Python."""
    raw = changed(path, value)
    with pytest.raises(UserError, match=rf"1 error\n  {where}: (input should be|expected) "):
        config.parse(raw)
    text = yaml.safe_dump(raw, sort_keys=False).replace("true", "yes").replace("false", "off")
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"1 error\n  {where}: (input should be|expected) "):
        config.load(tmp_path / "own.yaml")


def test_a_boolean_is_one_where_it_can_be():
    for value in (True, False):
        found = config.parse(changed("probe/average", value) | {"distance": {"layers": value}})
        assert found.probe.average is value and found.distance.layers is value


def test_two_figures_of_one_name(registered):
    registered(MEASURES, "fisher-small", OF_FACTS)
    registered(NETWORKS, "cnn", Network("nowhere:build"))
    both = {"measures": ["fisher", "fisher-small"], "networks": ["small-cnn", "cnn"]}
    with pytest.raises(UserError, match="two of their figures would be named 'fisher-small-cnn'"):
        config.parse(TINY | both)
    config.parse(TINY | both | {"networks": ["small-cnn"]})


def test_all_errors_at_once():
    raw = changed("trails", 3)
    raw["tasks"]["zero"]["dataset"] = "nowhere"
    raw["tasks"]["a/b"] = raw["tasks"]["six"]
    raw["seed"] = "many"
    with pytest.raises(UserError) as error:
        config.parse(raw)
    text = str(error.value)
    assert "4 errors\n" in text
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


# Records ------------------------------------------------------------------------------------------


def test_an_edited_record_says_what_to_do(tmp_path):
    path = LAYOUT.config.path(tmp_path)
    store.write_json(path, TINY, sort_keys=False)
    config.load(path)
    path.write_text(path.read_text().replace('"trials": 1', '"trials": 2'))
    with pytest.raises(UserError, match=r"config\.json: .* take the key _ftd out of it"):
        config.load(path)


def test_a_record_keeps_the_order_of_tasks_and_labels(tmp_path):
    labels = {"z": [1], "a": "rest", 3: [2]}
    tasks = {name: {"dataset": "digits", "labels": labels} for name in ("y", "x")}
    experiment = experiment_of(tmp_path, tasks=tasks)
    report.record(experiment)
    again = config.parse(config.recorded(tmp_path))
    assert list(again.tasks) == ["y", "x"] and list(again.tasks["y"].labels) == ["z", "a", "3"]
    assert again == experiment.config
    assert config.load(LAYOUT.config.path(tmp_path)) == again  # it is a configuration as well


@pytest.fixture
def record_with_plugins(tmp_path, monkeypatch):
    """A record that names a plugin which says so when it is imported."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    store.write_json(LAYOUT.config.path(tmp_path), TINY | {"plugins": ["mine.py"]})
    return LAYOUT.config.path(tmp_path)


def test_a_library_s_plugins_are_not_imported_unasked(record_with_plugins, tmp_path):
    message = r"config\.json: names the plugins \['mine\.py'\], .*add --plugins"
    with pytest.raises(UserError, match=message):
        config.recorded(tmp_path)
    assert config.recorded(tmp_path, plugins=True)["plugins"] == ["mine.py"]
    assert not Path("imported").exists()


def test_plugins_of_a_record_that_is_run_again_are_not_imported_unasked(record_with_plugins):
    message = r"config\.json: names the plugins \['mine\.py'\], .*: --set\) 'plugins=\['mine"
    read = TINY | {"plugins": ["mine.py"]}
    with pytest.raises(UserError, match=message):
        config.of_workflow(read, [record_with_plugins], {"seed": 1})
    assert not Path("imported").exists()
    config.of_workflow(read, [record_with_plugins], {"plugins": ["mine.py"]})
    assert Path("imported").exists()
    own = record_with_plugins.with_name("own.yaml")
    own.write_text(yaml.safe_dump(read))
    config.load(own)  # the user's own


def test_a_record_that_is_read_by_hand_is_checked_too(record_with_plugins):
    with pytest.raises(UserError, match=r"names the plugins .* --set\) 'plugins=\['mine"):
        config.load(record_with_plugins)
    assert not Path("imported").exists()
    config.load(record_with_plugins, settings=["plugins=[mine.py]"])
    assert Path("imported").exists()
    text = record_with_plugins.read_text()
    record_with_plugins.write_text(text.replace('"trials": 1', '"trials": 2'))
    with pytest.raises(UserError, match="not as it was recorded"):
        config.load(record_with_plugins, settings=["plugins=[mine.py]"])


# What decides what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key", "own"),
    [
        ("darts", "epochs", ["darts-1st", "darts-2nd"]),
        ("darts", "learning_rate", ["darts-1st", "darts-2nd"]),
        ("pc_darts", "epochs", ["pc-darts-1st", "pc-darts-2nd"]),
        ("pc_darts", "warm_up", ["pc-darts-1st", "pc-darts-2nd"]),
        ("pc_darts", "partial", ["pc-darts-1st", "pc-darts-2nd"]),
        ("enas", "epochs", ["enas"]),
        ("te_nas", "repeats", ["te-nas"]),
        ("random", "candidates", ["random"]),
        ("fuse", "patience", ["fuse-nearest", "fuse-full"]),
        ("fuse_paper", "patience", ["fuse-paper"]),
        ("sequential", "epochs", ["ftd-nas", "ftd-nas-nearest"]),
        ("evolution", "population", ["evolution"]),
    ],
)
def test_a_method_s_settings_decide_its_searches_alone(tmp_path, section, key, own):
    methods = ["ftd-nas", "ftd-nas-nearest", "fuse-nearest", "fuse-full", "fuse-paper"]
    methods += [
        "evolution",
        "random",
        "darts-1st",
        "darts-2nd",
        "pc-darts-1st",
        "pc-darts-2nd",
        "enas",
        "te-nas",
        "vgg16",
    ]

    def decided(value):
        experiment = experiment_of(tmp_path, search={"methods": methods, section: {key: value}})
        names = {"task": "zero", "seed": 0}
        return {m: search.decides(experiment, method=m, **names) for m in methods}

    before, after = decided(17), decided(18)
    assert [method for method in methods if before[method] != after[method]] == own


@pytest.mark.parametrize(
    ("key", "values", "without"),
    [
        ("radius", (1, 2), ["ftd-nas", "fuse-paper", "random", "te-nas", "darts-1st", "vgg16"]),
        (
            "learning_rate",
            (0.1, 0.2),
            ["fuse-nearest", "fuse-paper", "te-nas", "darts-1st", "vgg16"],
        ),
        ("batch_size", (8, 16), ["te-nas", "darts-1st", "vgg16"]),
        ("samples", (50, 60), ["vgg16"]),
    ],
)
def test_common_settings_decide_the_searches_that_use_them(key, values, without):
    methods = ["ftd-nas", "fuse-nearest", "fuse-paper", "random", "te-nas", "darts-1st", "vgg16"]
    first, second = (config.parse(changed(f"search/{key}", v)).search.decides for v in values)
    assert [method for method in methods if first(method) == second(method)] == without


# Measures and tasks -------------------------------------------------------------------------------

OF_FACTS = Measure(dict, ("facts",), ("facts",), 0.0, 1.0)


def test_trained_networks_are_refused_by_measures_of_one_start(registered):
    own = changed("tasks/zero/weights", "own.safetensors")
    with pytest.raises(UserError, match=r"tasks\.zero\.weights: the measure 'fisher' compares"):
        config.parse(own)
    registered(MEASURES, "facts", OF_FACTS)
    config.parse(own | {"measures": ["facts"]})
    with pytest.raises(UserError, match=r"tasks\.zero\.weights: the measure 'fisher' compares"):
        config.parse(own | {"measures": ["facts", "fisher"]})
    registered(MEASURES, "starts", Measure(dict, ("start",), ("facts",), 0.0, 1.0))
    with pytest.raises(UserError, match=r"tasks\.zero\.weights: the measure 'starts' compares"):
        config.parse(own | {"measures": ["starts"]})


def test_weights_are_given_for_every_network(registered):
    registered(MEASURES, "facts", OF_FACTS)
    two = {"measures": ["facts"], "networks": ["small-cnn", "vgg16"]}
    with pytest.raises(UserError, match=r"zero\.weights: expected a file for each of small-cnn, v"):
        config.parse(changed("tasks/zero/weights", "one.safetensors") | two)
    files = {"small-cnn": "one.safetensors", "vgg16": "two.safetensors"}
    found = config.parse(changed("tasks/zero/weights", files) | two)
    assert found.tasks["zero"].weights_of("vgg16") == "two.safetensors"
    assert found.tasks["six"].weights_of("vgg16") is None


def test_a_measure_that_does_not_fit_a_task_s_target_names_both(registered):
    other = Measure(dict, ("facts",), ("facts",), 0.0, 1.0, kinds=("boxes", "masks"))
    registered(MEASURES, "other", other)
    message = "'other' takes targets of the kind boxes or masks, task 'zero' is of the kind 'cl"
    with pytest.raises(UserError, match=message):
        config.parse(TINY | {"measures": ["fisher", "other"]})


def test_a_combination_comes_after_those_that_it_combines(registered):
    registered(MEASURES, "mean", Combination(("fisher",), max, 0.0, 1.0))
    registered(MEASURES, "more", Combination(("mean",), max, 0.0, 1.0))
    registered(MEASURES, "own", Combination(("own",), max, 0.0, 1.0))
    for listed in (["mean", "fisher", "more"], ["mean", "more", "fisher"]):
        assert config.parse(TINY | {"measures": listed}).measures == listed
    for listed, of in ((["fisher", "more", "mean"], "mean"), (["own"], "own")):
        with pytest.raises(UserError, match=f"combines '{of}', itself a combination, which must"):
            config.parse(TINY | {"measures": listed})


def test_a_combination_needs_its_measures(registered):
    registered(MEASURES, "mean", Combination(("fisher",), dict, 0.0, 1.0))
    assert config.parse(TINY | {"measures": ["mean", "fisher"]}).measures == ["mean", "fisher"]
    with pytest.raises(UserError, match="'mean' combines 'fisher', which is not listed"):
        config.parse(TINY | {"measures": ["mean"]})
    with pytest.raises(UserError, match="unknown measure 'fischer'; did you mean 'fisher'"):
        config.parse(TINY | {"measures": ["fischer"]})
