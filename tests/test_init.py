"""``ftd init``: a configuration for a folder of images, which runs as it is written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, jobs, write_images
from PIL import Image
from sklearn.datasets import load_digits

from ftd import config, store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.library import own_images
from ftd.stages import dataset, probe, task
from ftd.stages.experiment import Experiment

STRANGE = ["one: é", "yes", "日本 [x]", 'it\'s "4" #']


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch) -> Path:
    """Where a user would be."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(folder="photos", out="config.yaml", **options):
    """The configuration that is written, and what is said."""
    said = own_images.run(Path(folder), Path(out), **options)
    return config.load(Path(out)), said


def ran() -> Experiment:
    """The stages up to the slices, by the configuration as it is."""
    experiment = Experiment.load("config.yaml")
    for name in experiment.config.datasets:
        dataset.run(experiment, dataset=name)
    for name in experiment.config.tasks:
        task.run(experiment, task=name)
    return experiment


def digits(folder: Path, names: list[str], count: int) -> None:
    """Images of scikit-learn's digits, a folder for each."""
    found = load_digits()
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for row, pixels in enumerate(found.images[found.target == number][:count]):
            Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / name / f"{row}.png")


@pytest.fixture
def following(there) -> str:
    """The command that ``ftd init`` names for images of three digits."""
    digits(there / "my photos", ["cat", STRANGE[0], "yes"], 30)
    command = [sys.executable, "-m", "ftd", "init", "my photos"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[0] == "my photos: 90 images of 3 classes; each becomes 1 × 8 × 8"
    assert said[1] == "config.yaml: written" and len(said) == 3
    assert said[2].startswith("next: ") and f"--snakefile {ROOT / 'Snakefile'}" in said[2]
    return said[2].removeprefix("next: ").replace("--cores all", "--cores 2")


def called(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_workflow_takes_it_and_its_stages_run(following):
    planned = jobs(called(f"{following} --dry-run"))
    assert (planned["task"], planned["probe"]) == (4, 12)
    probe.run(ran(), network="small-cnn", trial=0, task="every-class")


@pytest.mark.slow
def test_the_workflow_runs_to_its_selection(following):
    called(f"{following} selection")
    found, facts = store.read_document(LAYOUT.selection.path(Path("results", "my-photos")))
    assert facts["order"] == ["cat", "one-e", "yes", "every-class"]
    assert facts["measure"] == "logme" and found["every-class"]["nearest"]
    assert "logme" in called(f"{sys.executable} -m ftd show results/my-photos")


# What is suggested -------------------------------------------------------------------------------


def test_names_of_any_signs(there):
    digits(there / "photos", STRANGE, 12)
    found, _ = init()
    assert list(found.tasks) == ["it-s-4", "one-e", "yes", "class-3", "every-class"]
    for each in ran().known()["task"]:
        kept = store.table_facts(store.read_table(there / f"results/photos/tasks/{each}.parquet"))
        assert set(kept["target"]["labels"]) <= {"other", *STRANGE}


def test_signs_that_yaml_does_not_take(there):
    write_images(there / "photos", {"a\x7fb": 12, "c\nd": 12, "null": 12, "1e3": 12, "\u2028": 12})
    found, _ = init()
    assert len(found.tasks) == 5
    ran()


def test_every_task_has_a_name_of_its_own(there):
    names = ["every-class", "Every Class", "class-2", "日"]
    write_images(there / "photos", dict.fromkeys(names, 12))
    tasks = init()[0].tasks
    assert len({name.lower() for name in tasks}) == 5
    assert [yaml.safe_load(name) for name in tasks] == list(tasks)


def test_a_class_called_other(there):
    write_images(there / "photos", {"other": 12, "rest": 12, "z": 12})
    found, _ = init()
    assert list(found.tasks["other"].labels) == ["remaining", "other"]
    ran()


def test_two_classes_are_one_indicator_and_all(there):
    write_images(there / "photos", {"a": 12, "b": 12})
    assert list(init()[0].tasks) == ["b", "every-class"]
    ran()


def test_of_many_classes_the_largest_have_indicators_in_order(there):
    sizes = {f"c{n}": 12 + (n % 5) for n in range(10)}
    write_images(there / "photos", sizes)
    assert list(init()[0].tasks) == ["c3", "c4", "c8", "c9", "every-class"]


@pytest.mark.parametrize(
    ("size", "mode", "wanted"),
    [
        *((28, "L", (28, 1)), (8, "RGB", (8, 3)), (64, "L", (64, 1))),
        *((65, "RGB", (64, 3)), (200, "L", (64, 1)), (5, "L", (8, 1))),
    ],
)
def test_one_size_of_all_images(there, size, mode, wanted):
    write_images(there / "photos", {"a": 12, "b": 12}, size=size, mode=mode)
    image = init()[0].image
    assert (image.size, image.channels) == wanted


def test_images_of_several_sizes_and_kinds(there):
    write_images(there / "photos", {"a": 12, "b": 12}, size=40)
    Image.new("RGB", (300, 10), "red").save(there / "photos" / "a" / "wide.png")
    Image.new("RGB", (10, 300), "blue").convert("P").save(there / "photos" / "a" / "high.gif")
    image = init()[0].image
    assert (image.size, image.channels) == (32, 3)
    ran()


def test_folders_of_train_and_test(there):
    write_images(there / "photos" / "train", {"a": 12, "b": 12})
    write_images(there / "photos" / "Test", {"a": 3, "b": 2})
    found, said = init()
    data = found.datasets["photos"]
    assert (data.train, data.test, data.parts.test) == ("photos/train", "photos/Test", None)
    assert said.startswith("photos: 29 images of 2 classes")
    cut = store.read_table(ran().output(LAYOUT.cut, dataset="photos")).to_pydict()["part"]
    assert cut.count("test") == 5
    (there / "photos" / "Test").rename(there / "photos" / "val")
    assert init(force=True)[0].datasets["photos"].test is None
    ran()


@pytest.mark.parametrize("folder", ["photos/", "./photos", "photos/../photos", "{there}/photos"])
def test_any_way_to_the_folder(there, folder):
    write_images(there / "photos", {"a": 12, "b": 12})
    found, _ = init(folder.format(there=there))
    assert list(found.datasets) == ["photos"]
    ran()


def test_the_folder_one_is_in(there, monkeypatch):
    write_images(there / "photos", {"a": 12, "b": 12})
    monkeypatch.chdir(there / "photos")
    found, _ = init(".", there / "config.yaml")
    assert list(found.datasets) == ["photos"]
    assert (Path(found.data_root) / found.datasets["photos"].train).samefile(there / "photos")


def test_of_many_images_parts_are_numbers(there, monkeypatch):
    monkeypatch.setattr(own_images, "_MANY", 50)
    monkeypatch.setattr(
        own_images, "_PARTS_OF_MANY", {"train": 20, "fisher": 12, "val": 8, "test": 8}
    )
    write_images(there / "photos", {"a": 40, "b": 40})
    parts = init()[0].datasets["photos"].parts
    assert (parts.train, parts.fisher, parts.val, parts.test) == (20, 12, 8, 8)
    cut = store.read_table(ran().output(LAYOUT.cut, dataset="photos")).to_pydict()["part"]
    assert cut.count("train") == 20 and cut.count(None) == 32


def test_the_comments_say_what_the_cut_gives(there):
    write_images(there / "photos", {"a": 40, "b": 20})
    init()
    text = Path("config.yaml").read_text()
    assert "# The smallest numbers of a class: train 8, fisher 5, val 3, test 4." in text
    assert "# 60 images: a 40, b 20\n" in text
    write_images(there / "other", {"a": 12, "b": 12})
    (there / "other" / "a" / "notes.txt").touch()
    assert "left out: suffix .txt: 1" in init("other", "o.yaml")[1]


@pytest.mark.parametrize(
    ("images", "epochs"), [(2, 100), (32, 100), (48, 50), (320, 10), (10_000, 10)]
)
def test_few_images_are_trained_on_for_a_hundred_steps(images, epochs):
    assert own_images.epochs_of(images) == epochs


def test_the_epochs_are_those_of_the_smallest_class(there):
    write_images(there / "photos", {"a": 100, "b": 60})
    assert init()[0].train.epochs == 50  # 24 images of b, and as many others


# Errors -------------------------------------------------------------------------------------------


def fails(match: str, folder="photos", **options) -> None:
    with pytest.raises(UserError, match=match) as raised:
        init(folder, **options)
    assert "\n" not in str(raised.value)


def test_another_file_is_not_written_over(there):
    write_images(there / "photos", {"a": 12, "b": 12})
    Path("config.yaml").write_text("mine")
    fails(r"config\.yaml: there is one; --force writes over it, --out names another")
    fails("fotos: no folder of class folders", "fotos")  # which is said first
    assert Path("config.yaml").read_text() == "mine"
    init(force=True)


def test_too_few_images_of_a_class(there):
    write_images(there / "photos", {"a": 40, "b": 40, "rare": 3})
    fails("photos: class 'rare' has 3 images, too few .*; 20 are enough: add some")
    write_images(there / "few", {"a": 2, "b": 1})
    fails("few: class 'b' has 1 images", "few")


@pytest.mark.parametrize("count", [20, 21, 33])
@pytest.mark.parametrize("classes", [2, 5, 30])
def test_so_many_are_enough(count, classes):
    """What the message promises: for every part of every class, whatever the other classes."""
    rng = np.random.default_rng(0)
    counts = np.r_[count, rng.integers(20, 200, classes - 1)]
    found = own_images.Images(
        name="p", root=".", train="p", test=None, names=[f"c{n}" for n in range(classes)],
        classes=np.repeat(np.arange(classes), counts), trained=None, sides=[8], grey=True,
        left_out={},
    )  # fmt: skip
    assert own_images.counted(found, own_images.fitting(found)).min() > 0


def test_folders_that_are_none_of_classes(there):
    fails("photos: no folder of class folders .No such file or directory.; put the images")
    (there / "photos").mkdir()
    Image.new("L", (8, 8)).save(there / "photos" / "0.png")
    fails("photos: no folder of class folders .*such as photos/cat$")
    fails("0.png: no folder of class folders .Not a directory.", "photos/0.png")
    write_images(there / "photos", {"a": 12})
    fails("photos: holds the class 'a' alone; two are needed at least")
    (there / "photos" / "b").mkdir()
    fails("class folder photos/b holds no image")
    write_images(there / "a$b", {"a": 12, "b": 12})
    fails("a.b: '.' and '~' begin variables in a configuration; give a link", "a$b")
    write_images(there / "splits", {"val": 2, "test": 2})
    fails(r"splits: holds splits, none of them called train \(test, val\)", "splits")


def test_classes_of_one_split_alone(there):
    write_images(there / "photos" / "train", {"a": 12, "b": 12, "c": 12})
    write_images(there / "photos" / "test", {"a": 2, "b": 2})
    fails("photos/train: class 'c' is not in photos/test; add it")


def test_images_that_cannot_be_read(there):
    write_images(there / "photos", {"a": 12, "b": 12})
    (there / "photos" / "a" / "3.png").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    whole = (there / "photos" / "b" / "4.png").read_bytes()
    (there / "photos" / "b" / "4.png").write_bytes(whole[: len(whole) - 30])
    fails(r"a/3\.png \(it is a pointer of Git LFS.*\): cannot be read, and 1 more; mend or remove")


def test_errors_of_the_command_are_one_line(there):
    os.mkdir("empty")
    done = subprocess.run(
        [sys.executable, "-m", "ftd", "init", "empty"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: empty: no folder of class folders")
    assert not Path("config.yaml").exists()
