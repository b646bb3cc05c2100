"""Folders of images: order, links, what is hidden or unknown, and names that look alike."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from PIL import Image as PIL
from test_dataset import make

from ftd.drawing import pages
from ftd.errors import UserError
from ftd.tasks.loaders import counts
from ftd.tasks.loaders.folders import ClassFolders
from ftd.tasks.loaders.walking import Real, Walk

KEYS = {"loader": "imagefolder", "train": "p", "parts": {"fisher": 0.25, "val": 0.2}}


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 20 images."""
    write_images(tmp_path / "p", {"a": 20, "b": 20})
    return tmp_path / "p"


def read(folder: Path, **keys) -> tuple[list[int], dict, dict]:
    """Images by class, what was left out of train, and the facts."""
    _, table, facts = make(folder, **KEYS | keys)
    classes = np.bincount(table["class"].to_numpy()).tolist()
    return classes, facts["read"]["train"]["left out"], facts


def test_the_order_is_that_of_paths_as_torchvision_has_it(photos):
    from torchvision.datasets import ImageFolder

    for folder in ("sub", "sub-x", "sub/deeper", "Upper"):
        write_images(photos / "a" / folder, {"z": 2})
    (photos / "a" / "0.png").rename(photos / "a" / "0.PNG")
    (photos / "b" / "more.txt").touch()
    split = ClassFolders("own", "train", photos)
    found = [(path, split.numbers[label]) for path, label in split.files]
    assert found == ImageFolder(photos).samples and len(split) == len(found) == 48


# Links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "target"),
    [("a/up", ".."), ("a/here", "."), ("a/root", "/"), ("c", "."), ("c", "../p")],
)
def test_a_link_upwards_is_left_out(photos, tmp_path, link, target):
    (photos / link).symlink_to(target)
    assert read(tmp_path)[:2] == ([20, 20], {"a link to a folder above": 1})


def test_a_link_back_from_elsewhere_ends(photos, tmp_path):
    write_images(tmp_path / "elsewhere", {"x": 3})
    (photos / "a" / "more").symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "elsewhere" / "x" / "back").symlink_to(photos)
    (tmp_path / "elsewhere" / "x" / "up").symlink_to("..")
    classes, left_out, facts = read(tmp_path)
    assert classes == [23, 20] and left_out == {"a link to a folder above": 2}
    assert facts["noted"] == {"through a link out of the folder": 3}


def test_links_to_folders_and_files_elsewhere_are_followed_and_counted(photos, tmp_path):
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "a").symlink_to(photos / "a")
    (tmp_path / "q" / "b").mkdir()
    for number in range(10):
        (tmp_path / "q" / "b" / f"{number}.png").symlink_to(photos / "b" / f"{number}.png")
    classes, left_out, facts = read(tmp_path, train="q")
    assert classes == [20, 10] and not left_out
    assert facts["noted"] == {"through a link out of the folder": 30}
    (tmp_path / "whole").symlink_to(photos)
    assert read(tmp_path, train="whole")[2]["noted"] == {}


def test_each_file_is_read_once(photos, tmp_path):
    write_images(photos / "a", {"sub": 5})
    (photos / "a" / "again").symlink_to("sub")
    (photos / "b" / "again.png").symlink_to("0.png")
    assert read(tmp_path)[:2] == ([25, 20], {"another link to the same file": 6})


@pytest.mark.parametrize(
    ("link", "target"), [("a/x", "../b"), ("a/x.png", "../b/0.png"), ("c", "b")]
)
def test_a_file_in_two_classes_is_refused(photos, tmp_path, link, target):
    (photos / link).symlink_to(target)
    with pytest.raises(
        UserError, match=r"p/\S+ and \S+/p/\S+ are one file, by a link, in two classe"
    ):
        read(tmp_path)


def test_a_link_to_nothing_is_named_if_it_is_to_be_an_image(photos, tmp_path):
    (photos / "a" / "circle").symlink_to("circle")
    (photos / "a" / "gone.txt").symlink_to("nowhere")
    assert read(tmp_path)[:2] == ([20, 20], {"no suffix": 1, "suffix .txt": 1})
    (photos / "a" / "gone.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"p/a/gone\.png: .*No such file"):
        read(tmp_path)


@pytest.mark.parametrize("target", ["nowhere", "c", "../p/nowhere/x"])
@pytest.mark.parametrize("link", ["c", "c.v2"])
def test_a_link_to_nothing_among_class_folders_is_named(photos, tmp_path, link, target):
    (photos / link).symlink_to(target)
    said = rf"p/{link}, among the class folders, is a link to nothing \({target}\)"
    with pytest.raises(UserError, match=f"own: .*{said}"):
        read(tmp_path)


def test_folders_are_resolved_once_and_links_to_the_same_files(photos, monkeypatch):
    write_images(photos.parent / "elsewhere", {"x": 30})
    for number in range(10):
        (photos / f"a/l{number}.png").symlink_to(f"../../elsewhere/x/{number}.png")
        (photos / f"b/l{number}.png").symlink_to(photos.parent / f"elsewhere/x/2{number}.png")
    (photos / "a" / "folder").symlink_to("../../elsewhere")  # its files have been met
    (photos / "a" / "chain.png").symlink_to("l0.png")
    (photos / "a" / "through.png").symlink_to("folder/x/11.png")
    (photos / "b" / "gone.png").symlink_to("../nowhere/gone.png")
    (photos / "a" / "folder" / "x" / "20.png").unlink()
    walk = Walk(photos)
    found = [file for path in walk.class_folders() for file in walk.images(path)]
    calls, really = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: calls.append(path) or really(path))
    real = Real(walk.links)
    assert [real(path) for path in found] == [really(path) for path in found]
    assert len(found) > 80 and len(calls) < 10


# What is left out -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_no_classes_and_hidden_files_no_images(photos, tmp_path, name):
    write_images(photos, {name: 3})
    write_images(photos / "a", {name: 3})
    (photos / "b" / "._0.png").write_bytes(b"of another system")
    (photos / ".DS_Store").touch()
    classes, left_out, facts = read(tmp_path)
    assert facts["classes"] == {"0": "a", "1": "b"}
    assert classes == [20, 20] and left_out == {"hidden": 4}


def test_what_pillow_reads_is_read_and_the_rest_counted(photos, tmp_path, capsys):
    kinds = {"jfif": "JPEG", "gif": "GIF", "JPE": "JPEG", "tga": "TGA", "jp2": "JPEG2000"}
    for suffix, kind in kinds.items():
        PIL.open(photos / "a" / "0.png").save(photos / "a" / f"more.{suffix}", kind)
    for name in ("a/list.csv", "a/README", "b/film.mpg", "b/cloud.pcd", "b/x.h5", "loose.png"):
        (photos / name).write_text("no image")
    os.mkfifo(photos / "b" / "pipe.png")  # it would be waited for
    left = {"suffix .csv": 1, "no suffix": 1, "suffix .mpg": 1, "suffix .pcd": 1, "suffix .h5": 1}
    left |= {"in no class folder": 1, "no file": 1}
    assert read(tmp_path)[:2] == ([25, 20], left)
    said = capsys.readouterr().err
    assert (
        "data set own, train: 45 images read; left out: in no class folder: 1, no file: 1" in said
    )


def test_names_of_bytes_that_are_no_text(photos, tmp_path):
    (photos / "a" / "x.\udcff").touch()
    _, left_out, facts = read(tmp_path)
    assert left_out == {r"suffix .\xff": 1}
    pages.datasets([facts], tmp_path / "page.html")
    assert r"suffix .\xff: 1" in (tmp_path / "page.html").read_text()
    write_images(photos, {"c\udcff": 2})
    with pytest.raises(UserError, match=r"own: the name of class 2, 'c\\udcff', is no text in UT"):
        read(tmp_path)


def test_a_loaders_reasons_become_printable():
    reasons = {"\ud800": 1, "é\udcff": 2, "日本": 3}
    assert counts("own", [reasons]) == {r"\ud800": 1, r"é\xff": 2, "日本": 3}


def test_a_class_without_an_image_says_what_is_in_it(photos, tmp_path):
    (photos / "c").mkdir()
    with pytest.raises(UserError, match=r"p/c holds no image \(left out there: nothing\)"):
        read(tmp_path)
    for name in ("x.heics", "y.heics", ".z"):
        (photos / "c" / name).touch()
    with pytest.raises(
        UserError, match=r"c holds no image \(left out there: (suffix .heics: 2|, |h\S+ 1){3}\)"
    ):
        read(tmp_path)


def test_images_without_class_folders(tmp_path):
    (tmp_path / "p").mkdir()
    PIL.new("L", (8, 8)).save(tmp_path / "p" / "0.png")
    with pytest.raises(
        UserError, match=r"p is no folder of class folders \(it has no folder in it"
    ):
        read(tmp_path)
    with pytest.raises(UserError, match=r"0\.png is no folder of class folders \(Not a directory"):
        read(tmp_path, train="p/0.png")


def test_a_folder_that_cannot_be_listed_is_named(photos, tmp_path, monkeypatch):
    def scandir(path):
        if str(path).endswith("/a/sub"):
            raise PermissionError(13, "Permission denied", path)
        return really(path)

    really = os.scandir
    write_images(photos / "a", {"sub": 2})
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"p/a/sub is no folder .*\(Permission denied\)"):
        read(tmp_path)


# Names ------------------------------------------------------------------------------------------

NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def test_classes_are_joined_by_name_whatever_its_unicode_form(tmp_path):
    write_images(tmp_path / "p", {NFD: 20, "f": 20})  # sorted before f
    write_images(tmp_path / "q", {NFC: 2, "f": 3})  # and after it
    _, table, facts = make(tmp_path, **KEYS, test="q")
    assert facts["classes"] == {"0": NFC, "1": "f"}
    assert Counter(table["class"].to_pylist()[40:]) == {0: 2, 1: 3}


def test_two_classes_of_one_name_in_two_unicode_forms(tmp_path):
    write_images(tmp_path / "p", {NFD: 9, NFC: 9})
    with pytest.raises(UserError, match=r"p has two folders named 'é', in two Unicode forms"):
        read(tmp_path)


def test_classes_of_one_split_alone_are_named(photos, tmp_path):
    write_images(tmp_path / "q", {"a": 2, "b ": 2, "c": 2})
    with pytest.raises(
        UserError, match=r"different classes: 'b' only in \S+/p; 'b ', 'c' only in \S+/q"
    ):
        read(tmp_path, test="q")
    many = {f"more-{number}": 1 for number in range(7)}
    write_images(tmp_path / "r", {"a": 2, "b": 2} | many)
    with pytest.raises(UserError, match=r"different classes: ('more-\d', ){5}… only in \S+/r$"):
        read(tmp_path, test="r")


def test_names_that_differ_in_case_or_spaces_alone_are_said(tmp_path, capsys):
    write_images(tmp_path / "p", {"Cat": 20, "cat": 20, "dog": 20})
    assert read(tmp_path)[0] == [20, 20, 20]
    said = capsys.readouterr().err
    assert "data set own: classes 'Cat' and 'cat' differ in case or spaces alone\n" in said
