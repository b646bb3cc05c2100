"""A folder of images per class."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL.Image import Image

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import listed, one_form
from ftd.tasks.loaders import DAMAGED, Splits, check_each_once, indexed, read_picture
from ftd.tasks.loaders.walking import Real, Walk

SPLITS = {
    *("train", "training", "test", "testing", "val", "valid", "validation"),
    *("dev", "eval", "evaluation"),
}
"""Names of folders that hold classes, in small letters, and are none."""


def open_folders(name: str, settings: Dataset, root: Path) -> Splits:
    """Folders of images, one a class; ``train`` and, if given, ``test`` are such folders.

    Raises:
        UserError: a folder that is none, is given twice or holds splits; a class without an image
            or whose name another has, a file in two classes, or classes that differ between the
            two.
    """
    if settings.test:
        check_each_once(name, [root / settings.train, root / settings.test])
    train = ClassFolders(name, "train", root / settings.train)
    test = ClassFolders(name, "test", root / settings.test) if settings.test else None
    if test:
        if test.numbers.keys() != train.numbers.keys():
            only = "; ".join(filter(None, (_only(train, test), _only(test, train))))
            raise UserError(
                f"data set {name}: train and test folders have different classes: {only}"
            )
        test.numbers = train.numbers  # in two Unicode forms their order may differ
    names = {number: text for text, number in train.numbers.items()}
    return indexed(name, train), indexed(name, test) if test else None, names


def _only(one: "ClassFolders", other: "ClassFolders") -> str:
    """The classes that but one of two folders has."""
    found = [name for name in one.numbers if name not in other.numbers]
    shown = ", ".join(map(repr, found[:5])) + (", …" if len(found) > 5 else "")
    return f"{shown} only in {one.folder}" if found else ""


class ClassFolders:
    """The images of a folder of class folders, in the order of their paths: (picture, class).

    Attributes:
        files: the paths, each with its class's name.
        numbers: of the classes, by name in one Unicode form.
        left_out, noted: as in ``Counted``.
    """

    def __init__(self, name: str, key: str, folder: Path):
        self.name, self.folder = name, folder
        self.left_out: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self.numbers: dict[str, int] = {}
        self.files: list[tuple[str, str]] = []
        walk = Walk(folder)
        try:
            classes = walk.class_folders()
            self._check_links(walk.broken)
            self._check_no_splits(key, [os.path.basename(path) for path in classes])
            for path in classes:
                self._add(path, walk)
        except OSError as error:
            raise UserError(
                f"data set {name}: {error.filename or folder} is no folder of class folders "
                f"({error.strerror or error}); check datasets.{name}.{key} and data_root"
            ) from error
        self.left_out.update(walk.left_out)
        if walk.links:
            self.files = list(self._each_once(Real(walk.links)))

    def _check_no_splits(self, key: str, folders: list[str]) -> None:
        """Raises a ``UserError`` if the folders are those of splits, by their names."""
        if SPLITS.issuperset(map(str.lower, folders)):
            inner = f"{os.path.basename(self.folder)}/{folders[0]}"
            raise UserError(
                f"data set {self.name}: {self.folder} holds splits, no classes "
                f"({', '.join(folders)}); give the folder of one split, such as …/{inner}, for "
                f"datasets.{self.name}.{key}"
            )

    def _check_links(self, broken: list[str]) -> None:
        """Raises a ``UserError`` if a class may be missing: the numbers of others would shift."""
        if broken:
            raise UserError(
                f"data set {self.name}: {broken[0]}, among the class folders, is a link to nothing "
                f"({os.readlink(broken[0])}); mend or remove it"
            )

    def _add(self, path: str, walk: "Walk") -> None:
        """A class folder's images."""
        label, before = one_form(os.path.basename(path)), walk.left_out.copy()
        if label in self.numbers:
            raise UserError(
                f"data set {self.name}: {self.folder} has two folders named {label!r}, in two "
                "Unicode forms; rename one, or put all their images in one"
            )
        files = walk.images(path)
        if not files:
            there = listed(walk.left_out - before) or "nothing"
            raise UserError(
                f"data set {self.name}: class folder {path} holds no image (left out there: "
                f"{there}); add images, or remove the folder"
            )
        self.numbers[label] = len(self.numbers)
        self.files += [(file, label) for file in files]

    def _each_once(self, real_path: "Real") -> Iterator[tuple[str, str]]:
        """The files, where links may lead to one by several paths."""
        inside = os.path.join(os.path.realpath(self.folder), "")
        seen: dict[str, tuple[str, str]] = {}
        for path, label in self.files:
            real = real_path(path)
            first, known = seen.setdefault(real, (path, label))
            if known != label:
                raise UserError(
                    f"data set {self.name}: {first} and {path} are one file, by a link, in two "
                    "classes; remove the link that is wrong"
                )
            if first != path:
                self.left_out["another link to the same file"] += 1
                continue
            self.noted["through a link out of the folder"] += not real.startswith(inside)
            yield path, label

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Image, int]:
        path, label = self.files[row]
        try:
            return read_picture(path, self.noted), self.numbers[label]
        except DAMAGED as error:
            raise ValueError(f"{path}: {error}") from error
