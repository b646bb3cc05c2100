"""Slices: disjoint parts shared by all tasks, balance, label order, stability."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import experiment_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd import store
from ftd.config import Task
from ftd.config.datasets import with_own
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import TARGETS, TargetKind
from ftd.stages import task as task_stage
from ftd.tasks import ClassLabels, class_slices
from ftd.tasks.cut import PARTS
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice, slice_cut
from ftd.tasks.targets.classes import Classes

TASKS = {
    "zero": {"other": "rest", "zero": [0]},
    "six": {"other": "rest", "six": [6]},
    "zero-to-three": {"zero": [0], "one": [1], "two": [2], "three": [3], "other": "rest"},
    "ten": "all",
}


@pytest.fixture(scope="module")
def classes(digits):
    return store.read_table(digits / "digits.parquet")["class"].to_numpy()


def test_no_image_is_in_two_parts_of_any_tasks(make_slice):
    part_of: dict[int, str] = {}
    for name, labels in TASKS.items():
        task = read_slice(make_slice(name, labels))
        assert set(task.part) == set(PARTS)
        assert len(set(task.index)) == len(task.index)
        for index, part in zip(task.index, task.part, strict=True):
            assert part_of.setdefault(index, part) == part


def test_labels_follow_the_mapping(make_slice, classes):
    task = read_slice(make_slice("zero-to-three", TASKS["zero-to-three"]))
    assert task.labels == ["zero", "one", "two", "three", "other"]
    assert (task.label == np.minimum(classes[task.index], 4)).all()
    ten = read_slice(make_slice("ten", "all"))
    assert ten.labels == [str(c) for c in range(10)]
    assert (ten.label == classes[ten.index]).all() and len(ten.index) == 1797


def test_an_indicator_is_balanced_in_every_part_and_evenly_over_the_rest(make_slice, classes):
    task = read_slice(make_slice("zero", TASKS["zero"]))
    assert task.labels == ["other", "zero"]
    for part in PARTS:
        here = task.part == part
        rest, zero = (np.sum(here & (task.label == label)) for label in (0, 1))
        assert rest == zero == np.sum(here & (classes[task.index] == 0)) > 0
        counts = np.bincount(classes[task.index[here & (task.label == 0)]], minlength=10)[1:]
        assert counts.max() - counts.min() <= 1


def test_a_wide_indicator_thins_out_the_indicated_classes(make_slice, classes):
    task = read_slice(make_slice("most", {"other": "rest", "most": list(range(2, 10))}))
    for part in PARTS:
        here = task.part == part
        assert np.sum(here & (task.label == 0)) == np.sum(here & (task.label == 1))


def test_a_rest_is_as_large_as_one_named_class_and_evenly_drawn(make_slice, classes):
    labels = {"zero": [0], "small": [1, 2], "rest": "rest"}
    task, whole = (
        read_slice(make_slice(f"some-{balance}", labels, balance=balance))
        for balance in (True, False)
    )
    assert task.facts["settings"]["balance"] and not whole.facts["settings"]["balance"]
    for part in PARTS:
        here, all_here = task.part == part, whole.part == part
        sizes = np.bincount(task.label[here])
        assert sizes[2] == np.floor((sizes[0] + sizes[1]) / 3 + 0.5) < np.sum(all_here) / 4
        for label in (0, 1):  # of the others nothing is left out
            named = task.index[here & (task.label == label)]
            assert (named == whole.index[all_here & (whole.label == label)]).all()
        counts = np.bincount(classes[task.index[here & (task.label == 2)]], minlength=10)[3:]
        assert counts.max() - counts.min() <= 1
        assert set(task.index[here]) < set(whole.index[all_here])
    other = read_slice(make_slice("some-True", labels, seed=1))
    assert set(other.index[other.label == 2]) != set(task.index[task.label == 2])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=4, max_size=4), min_size=2, max_size=5),
    st.integers(0, 4),
)
def test_balance(sizes, rest):
    """Sizes by label and part; a label is a source class here."""
    rest %= len(sizes)
    label, part = (
        np.repeat(np.tile(values, repeats), np.ravel(sizes))
        for values, repeats in (
            (np.repeat(np.arange(len(sizes)), 4), 1),
            (np.array(PARTS), len(sizes)),
        )
    )
    mask = class_slices._balanced(label, label, part, np.ones(len(label), bool), rest, 0)
    for column, name in enumerate(PARTS):
        before = np.array(sizes)[:, column]
        after = np.bincount(label[mask & (part == name)], minlength=len(sizes))
        others = np.delete(np.arange(len(sizes)), rest)
        mean = int(np.floor(before[others].mean() + 0.5))
        assert after[rest] == min(before[rest], mean)
        kept = before[others] if len(sizes) > 2 else np.minimum(before[others], before[rest])
        assert (after[others] == kept).all()


def test_stable_under_its_seed_and_changed_by_another(make_slice):
    path = make_slice("zero", TASKS["zero"])
    first = path.read_bytes()
    assert make_slice("zero", TASKS["zero"]).read_bytes() == first
    other = read_slice(make_slice("zero", TASKS["zero"], seed=1))
    assert set(other.index) != set(read_slice(path).index)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 100))
def test_even_choice(sizes, count):
    source = np.repeat(np.arange(len(sizes)), sizes)
    rows = class_slices._evenly(source, np.arange(len(source)), count, np.random.default_rng(0))
    assert len(set(rows)) == min(count, len(source))
    taken = np.bincount(source[rows], minlength=len(sizes))
    for a, size in enumerate(sizes):  # a class has fewer than another only if it has no more
        assert all(taken[a] == size or taken[a] >= other - 1 for other in taken)


BAD = {
    "unknown class": ({"a": [0], "b": [12]}, r"tasks\.bad\.labels\.b: .* no class 12"),
    "unknown name": ({"a": [0], "b": ["tne"]}, r"no class 'tne'"),
    "one class by number and name": ({"a": [3], "b": ["3"]}, "class '3' is listed before, in 'a'"),
    "all at once": ({"a": [0], "b": [12, 13]}, r"no class 12.*\n.*no class 13"),
    "no rest": ({"a": [0, 1, 2, 3, 4], "b": [5, 6, 7, 8, 9], "c": "rest"}, "no class is left"),
}


@pytest.mark.parametrize(("labels", "message"), BAD.values(), ids=BAD)
def test_bad_labels(make_slice, labels, message):
    task = with_own(Task, ClassLabels, "Task").model_construct(dataset="digits", labels=labels)
    with pytest.raises(UserError, match=message):
        class_slices._members("bad", task, {c: str(c) for c in range(10)}, True)


@pytest.mark.parametrize(("loader", "hinted"), [("imagefolder", True), ("sklearn-digits", False)])
def test_reading_again_is_said_to_help_only_data_that_can_grow(loader, hinted):
    task = with_own(Task, ClassLabels, "Task").model_construct(
        dataset="own", labels={"a": [7], "b": [0]}
    )
    cut, part = pa.table({"class": [0, 1]}), np.array(["train", "train"])
    facts = {"classes": {"0": "0", "1": "1"}, "settings": {"loader": loader}}
    with pytest.raises(UserError, match="has no class 7") as error:
        class_slices.slice_classes("bad", task, cut, facts, part, 0)
    assert ("-R dataset" in str(error.value)) is hinted


CLASSES = {0: "crane", 1: "2", 2: "crane", 3: "owl"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("crane", "has 2 classes named 'crane', 0 and 2: give the number"),
        (2, "has a class of number 2, 'crane', and another of name '2', number 1"),
        (7, "has no class 7"),
    ],
)
def test_an_ambiguous_class_is_refused(item, message):
    with pytest.raises(ValueError, match=message):
        class_slices._class_number(item, CLASSES)


def test_a_class_is_found_by_number_and_by_name():
    assert [class_slices._class_number(item, CLASSES) for item in (0, "2", "owl", 3)] == [
        0,
        1,
        3,
        3,
    ]


CAFE = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]


@pytest.mark.parametrize("folder", CAFE)
@pytest.mark.parametrize("item", CAFE)
def test_a_class_is_found_in_either_unicode_form(folder, item):
    assert CAFE[0] != CAFE[1]
    assert class_slices._class_number(item, {0: "cafe", 1: folder}) == 1


@pytest.fixture
def sliced(tmp_path):
    """A function that slices a task of a data set of such classes; its experiment."""

    def run(names: str, labels, dataset: str = "own"):
        folder = {"loader": "imagefolder", "train": "x"}
        tasks = {"dogs": {"dataset": dataset, "labels": labels}}
        experiment = experiment_of(tmp_path, datasets={dataset: folder}, tasks=tasks)
        classes = np.arange(40) % len(names.split())
        columns = {"index": np.arange(40), "class": classes, "part": np.repeat(PARTS, 10)}
        facts = {"dataset": dataset, "classes": {str(n): c for n, c in enumerate(names.split())}}
        facts |= {"stage": "dataset", "image": {}, "images": "", "mean": [], "std": []}
        store.write_table(experiment.output(LAYOUT.cut, dataset=dataset), pa.table(columns), facts)
        task_stage.run(experiment, task="dogs")
        return experiment

    return run


BY_NUMBER = {"other": "rest", "dogs": [2]}


def test_a_number_that_means_another_class_than_before_is_refused(sliced):
    experiment = sliced("bird cat dog", BY_NUMBER)
    path, kept = (experiment.output(a, task="dogs") for a in (LAYOUT.slice, LAYOUT.meant))
    before = path.read_bytes()
    path.unlink()  # as Snakemake does before a job
    message = r"labels: class 2 of data set 'own' was 'dog' .* is 'cat' now; .*meant/dogs\.json to"
    with pytest.raises(UserError, match=rf"tasks\.dogs\.{message}"):
        sliced("ant bird cat dog", BY_NUMBER)
    assert not path.exists()
    sliced("bird cat dog owl", BY_NUMBER)  # the number that is used means what it meant
    sliced("bird cat dog", BY_NUMBER)
    assert path.read_bytes() == before
    kept.unlink()
    sliced("ant bird cat dog", BY_NUMBER)


@pytest.mark.parametrize(
    ("names", "labels", "kept"),
    [
        ("ant bird cat dog", {"other": "rest", "dogs": ["dog"]}, False),
        ("ant bird cat dog", {"other": "rest", "dogs": [3]}, True),
        ("0 1 2 3", BY_NUMBER, False),  # no names
        ("ant bird cat dog", "all", False),
    ],
)
def test_what_the_task_says_otherwise_is_taken(sliced, names, labels, kept):
    path = sliced("bird cat dog", BY_NUMBER).output(LAYOUT.meant, task="dogs")
    assert store.read_json(path) == {"dataset": "own", "classes": {"2": "dog"}}
    sliced(names, labels)
    assert path.exists() is kept
    sliced("dog cat bird", BY_NUMBER, dataset="another")
    assert store.read_json(path) == {"dataset": "another", "classes": {"2": "bird"}}


def test_a_part_without_a_label_is_an_error():
    label, part = np.array([0, 1, 0, 1, 0, 1, 0]), np.repeat(PARTS, [2, 2, 2, 1])
    with pytest.raises(UserError, match="no image is left for part 'test' of 'b'"):
        class_slices._check_filled("bad", ["a", "b"], label, part)


def test_task_data_loads_only_the_parts_asked_for(make_slice, digits):
    task = read_slice(make_slice("zero", TASKS["zero"]))
    data = TaskData(task, digits / "digits.safetensors", {"train": None, "val": 10})
    assert data.count("val") == 10
    with pytest.raises(KeyError):
        next(data.batches("test", 8))
    images, labels = next(data.batches("train", 10_000))
    assert images.shape == (data.count("train"), 1, 8, 8) and labels.shape == images.shape[:1]
    raw = store.read_tensors(digits / "digits.safetensors")[0]["images"].numpy()
    rows = task.index[task.part == "train"]
    expected = (raw[rows] / 255 - task.facts["mean"][0]) / task.facts["std"][0]
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-5)
    assert (labels.numpy() == task.label[task.part == "train"]).all()


def test_batches_that_are_kept_are_the_same_and_each_one_s_own(make_slice, digits, monkeypatch):
    task = read_slice(make_slice("zero", TASKS["zero"]))
    made, make = [], TaskData._made
    monkeypatch.setattr(TaskData, "_made", lambda *of: made.append(of) or make(*of))

    def of(kept):
        return TaskData(task, digits / "digits.safetensors", {"val": 50}, kept=kept)

    def shuffled():
        return torch.Generator().manual_seed(0)

    plain, keeping = of(0), of(2 * 20 * (64 * 4 + 8))  # of three batches, the first two
    for generator in (None, None, shuffled, shuffled):
        pairs = (data.batches("val", 20, generator and generator()) for data in (plain, keeping))
        for one, other in zip(*pairs, strict=True):
            for expected, found in zip(one, other, strict=True):
                assert torch.equal(expected, found) and expected.stride() == found.stride()
                assert expected.dtype == found.dtype
                found.zero_()
    assert len(made) == 4 * 3 + (3 + 1) + 2 * 3


def test_images_of_another_reading_of_the_data_set_are_refused(make_slice, digits, tmp_path):
    task = read_slice(make_slice("zero", TASKS["zero"]))
    tensors, facts = store.read_tensors(digits / "digits.safetensors")
    path = tmp_path / "digits.safetensors"
    store.write_tensors(path, {"images": tensors["images"].flip(0)}, facts)
    with pytest.raises(
        UserError, match=r"digits\.safetensors: not the images that .*zero\.parquet"
    ):
        TaskData(task, path, {"train": None})


class NoScores(Classes):
    scores = property()  # hasattr: False


def fails(*_):
    raise KeyError("tags")


def test_one_class_is_no_task(digits):
    cut = store.read_table(digits / "digits.parquet")
    settings = with_own(Task, ClassLabels, "Task")(dataset="digits", labels="all")
    with pytest.raises(UserError, match=r"^tasks\.mine\.labels: .*has the class 'cat' alone; a"):
        slice_cut("mine", settings, cut, {"classes": {"3": "cat"}}, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (fails, r"target 'classes' failed \(KeyError: 'tags'\)"),
        (lambda about: None, "expected an ftd.Target, got NoneType without outputs, metric, head"),
        (lambda about: NoScores(2), "expected an ftd.Target, got NoScores without scores$"),
    ],
)
def test_a_part_that_gives_no_target_is_named(make_slice, registered, make, message):
    task = read_slice(make_slice("zero", TASKS["zero"]))
    registered(TARGETS, "classes", TargetKind(make))
    with pytest.raises(
        UserError, match=rf"zero\.parquet: {message}" if "'" in message else message
    ):
        task.target  # noqa: B018


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (fails, r"the slice of target 'own' failed \(KeyError: 'tags'\)"),
        (lambda *_: ([], []), "the slice of target 'own': expected a Sliced, got tuple"),
    ],
)
def test_a_part_that_gives_no_slice_is_named(digits, registered, make, message):
    registered(TARGETS, "own", TargetKind("no:where", slice=make))
    cut = store.read_table(digits / "digits.parquet")
    with pytest.raises(UserError, match=rf"^tasks\.mine: {message}"):
        slice_cut("mine", Task(dataset="digits", target="own"), cut, {}, 0)
