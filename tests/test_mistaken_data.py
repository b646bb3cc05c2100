"""What is given in place of a data set's files, classes, labels or splits, and what is said."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_images
from test_dataset import encoded, make, rows_of, write_parquet
from torchvision import datasets

from ftd.config import Image
from ftd.errors import UserError

COLOUR = Image(size=8, channels=3)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
INSTEAD = {
    "Git LFS": (POINTER, "it is a pointer of Git LFS: fetch the file itself, git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s9--4d.png\n", "git annex get"),
    "a web page": (b"\n<!DOCTYPE html>\n<html>", "it is a web page: download the file itself"),
    "a bare web page": (b"<HTML><body>", "it is a web page"),
}


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "message"), INSTEAD.values(), ids=INSTEAD)
def test_what_lies_in_place_of_a_file_is_named(tmp_path, content, message):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9})
    (tmp_path / "photos" / "dog" / "3.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"image 12 .*dog/3\.png: .*{message}"):
        make(tmp_path, loader="imagefolder", train="photos")
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.parquet cannot be read \(.*{message}"):
        make(tmp_path, loader="parquet", train="a.parquet")
    pq.write_table(rows_of([encoded(), content], [0, 1]), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=rf"b\.parquet, row 1 cannot be read \(.*{message}"):
        make(tmp_path, loader="parquet", train="b.parquet")


@pytest.mark.parametrize(
    "keys",
    [
        {"train": ["a.parquet", "a.parquet"]},
        {"train": ["a.parquet", "./b.parquet"], "test": "c/../b.parquet"},
        {"train": "a.parquet", "test": "link.parquet"},
    ],
    ids=str,
)
def test_a_parquet_file_that_is_given_twice(tmp_path, keys):
    (tmp_path / "c").mkdir()
    for name in "ab":
        write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "link.parquet").symlink_to("a.parquet")
    with pytest.raises(UserError, match=r"\S+parquet and \S+parquet are one; give each once"):
        make(tmp_path, COLOUR, loader="parquet", **keys)


def test_a_folder_that_is_train_and_test(tmp_path):
    write_images(tmp_path / "photos", {"cat": 9, "dog": 9})
    (tmp_path / "link").symlink_to("photos")
    for test in ("photos", "photos/cat/..", "link"):
        with pytest.raises(UserError, match=r"photos and \S+ are one; give each once"):
            make(tmp_path, loader="imagefolder", train="photos", test=test)


@pytest.mark.parametrize("key", ["train", "test"])
def test_no_file_at_all(tmp_path, key):
    write_parquet(tmp_path / "a.parquet")
    keys = {"train": "a.parquet"} | {key: []}
    message = rf"datasets\.own\.{key}: expected a file, or a list of at least one, got \[\]"
    with pytest.raises(UserError, match=message):
        make(tmp_path, COLOUR, loader="parquet", **keys)


# Classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "splits", [("test", "train"), ("Training", "Validation"), ("dev",), ("test", "train", "val")]
)
def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path, splits):
    for split in splits:
        write_images(tmp_path / "photos" / split, {"cat": 9, "dog": 9})
    message = rf"photos holds splits, no classes .*such as …/photos/{splits[0]}, for \S+own\.train"
    with pytest.raises(UserError, match=message):
        make(tmp_path, loader="imagefolder", train="photos")
    with pytest.raises(UserError, match=r"holds splits, .* for datasets\.own\.test"):
        make(tmp_path, loader="imagefolder", train=f"photos/{splits[0]}", test="photos")


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    write_images(tmp_path / "vehicles", {"car": 20, "train": 20})
    facts = make(tmp_path, loader="imagefolder", train="vehicles")[2]
    assert facts["classes"] == {"0": "car", "1": "train"}


# Rows -------------------------------------------------------------------------------------------

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS = {
    "a path alone": ({"bytes": None, "path": "x.png"}, 1, r"only the path 'x\.png': write the fi"),
    "no path either": ({"bytes": None, "path": None}, 1, "it has no image: give it one"),
    "no image": (None, 1, "it has no image: give it one"),
    "no bytes": ({"bytes": b"", "path": None}, 1, "it has no image: give it one"),
    "no label": ({"bytes": encoded(), "path": None}, None, "it has no label: give it one"),
    "a text": ({"bytes": b"some", "path": None}, 1, "no picture of a format that Pillow reads"),
}


@pytest.mark.parametrize(("image", "label", "message"), ROWS.values(), ids=ROWS)
def test_what_a_row_lacks_is_said(tmp_path, image, label, message):
    images = pa.array([{"bytes": encoded(), "path": None}, image], STRUCT)
    table = pa.table({"image": images, "label": pa.array([0, label], pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"row 1 cannot be read \(.*{message}") as error:
        make(tmp_path, loader="parquet", train="a.parquet")
    assert " at 0x" not in str(error.value)  # an address, another one in every run


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (pa.array(["a", "b"]), "string"),
        (pa.array(["a", "b"]).dictionary_encode(), "dictionary<values=string"),
        (pa.array([True, False]), "bool"),
        (pa.array([0.0, None]), "double"),
    ],
    ids=["texts", "categories", "booleans", "numbers with gaps"],
)
def test_labels_of_another_type_have_a_remedy(tmp_path, labels, kind):
    pq.write_table(rows_of([encoded()] * 2, labels), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"numbers, but {kind}.*; write the classes' numbers the"):
        make(tmp_path, loader="parquet", train="a.parquet")


# torchvision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("EMNIST", "'train' for argument split"),
        ("OxfordIIITPet", "'train' for argument split"),
        ("Places365", "'train' for argument split"),
        ("ImageNet", "'test' for argument split"),
        ("Imagenette", "'test' for argument split"),
        ("Kinetics", "'frames_per_clip'"),
        ("PhotoTour", "'name'"),
    ],
)
def test_other_splits_and_arguments_are_said_before_any_file(tmp_path, kind, reason):
    message = f"{kind} is not opened by train and test .*{reason}.*; use the loader imagefolder"
    with pytest.raises(UserError, match=message):
        make(tmp_path, loader=f"torchvision:{kind}")
    assert not list(tmp_path.glob("[!o]*"))


class Missing:
    """A data set of torchvision's that is not there until it is downloaded."""

    error: Exception

    def __init__(self, root, train=True, download=False):
        if not download:
            raise self.error
        (root / "downloaded").touch()


@pytest.mark.parametrize(
    "error", [RuntimeError("Dataset not found."), FileNotFoundError(2, "No such file", "x.bz2")]
)
def test_what_is_missing_is_downloaded_however_the_class_takes_the_argument(
    tmp_path, monkeypatch, error
):
    class Handed(Missing):
        def __init__(self, root, train=True, **options):
            super().__init__(root, train, **options)

        def __len__(self):
            return 0

    Handed.error = error
    monkeypatch.setattr(datasets, "Handed", Handed, raising=False)
    with pytest.raises(UserError, match="no images found"):
        make(tmp_path, loader="torchvision:Handed")
    assert (tmp_path / "downloaded").exists()


def test_what_cannot_be_downloaded_is_not_promised(tmp_path):
    with pytest.raises(UserError, match=re.escape("complete or delete its files there, or set")):
        make(tmp_path, loader="torchvision:FER2013")
