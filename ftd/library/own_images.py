"""``ftd init``: a configuration for a folder of one's own images, which runs as it is."""

import json
import math
import os
import re
import shlex
import shutil
import statistics
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import combining

import numpy as np
import yaml
from PIL.Image import open as open_image

import ftd
from ftd import config, store
from ftd.config import Parts
from ftd.errors import UserError
from ftd.library.template import TEMPLATE
from ftd.names import listed, safe_name
from ftd.runtime.progress import progress
from ftd.tasks.cut import PARTS, parts_of
from ftd.tasks.decoding import is_grey
from ftd.tasks.loaders import DAMAGED, read_picture, remember_depth, stand_in
from ftd.tasks.loaders.folders import SPLITS, ClassFolders
from ftd.tasks.loaders.walking import Walk

SIZES = (64, 32, 16, 8)
_DECODED = 200  # images; of all others the head of the file is read
_MANY = 10_000  # images, from which on a part is a number: probes' time grows with it
_PARTS = {"fisher": 0.25, "val": 0.15, "test": 0.2}  # the schema's own, and what is left to train
_PARTS_OF_MANY = {"train": 5000, "fisher": 2000, "val": 1500, "test": 1500}
_ENOUGH = 20  # images of a class, for every part to get some
_INDICATORS = 4  # tasks of one class against the rest
_NAMED = 12  # classes in a comment
_STEPS = 100  # of a final training, of the smallest task
_EPOCHS = (10, 100)  # at least and at most


@dataclass(frozen=True)
class Images:
    """What a folder of images holds.

    Attributes:
        name: of the data set, and of the experiment.
        root: the folder above it; ``train``, ``test``: the folders of classes, below ``root``.
        names: of the classes, in order.
        classes: of every image, int64 [N], those of ``test`` last.
        trained: how many of them are in ``train``; ``None``: there is no ``test``.
        sides: the shorter side of every image, in pixels.
        grey: whether all are.
        left_out: files that are no images, by reason.
    """

    name: str
    root: str
    train: str
    test: str | None
    names: list[str]
    classes: np.ndarray
    trained: int | None
    sides: list[int]
    grey: bool
    left_out: Mapping[str, int]


def run(folder: Path, out: Path, *, force: bool = False) -> str:
    """Write a configuration for a folder of class folders; returns what to say of it.

    Args:
        folder: of a folder of images for each class; or of one or several such folders, of which
            ``train`` is one.
        out: the file that is written; ``force``: in place of another.

    Raises:
        UserError: no such folder, no or too few images of a class, one that cannot be read, or a
            file in the way.
    """
    if folder.is_dir() and out.exists() and not force:  # of no folder, its own name is said first
        raise UserError(f"{out}: there is one; --force writes over it, --out names another")
    found = look(folder)
    parts = fitting(found)
    command = _command(out)
    text = written(found, parts, str(folder), command)
    config.parse(yaml.safe_load(text))
    store.write_bytes(out, text.encode())
    size, channels = size_of(found), 1 if found.grey else 3
    said = [
        f"{folder}: {len(found.classes)} images of {len(found.names)} classes; each becomes "
        f"{channels} × {size} × {size}"
    ]
    if found.left_out:
        said.append(f"left out: {listed(found.left_out)}")
    return "\n".join([*said, f"{out}: written", f"next: {command}"])


def _command(out: Path) -> str:
    """That which runs the workflow, as it can be called from here."""
    program = "snakemake"
    if shutil.which(program) is None:  # the environment is not activated
        program = os.path.relpath(Path(sys.executable).with_name(program))
    words = [program, "--configfile", str(out), "--cores", "all"]
    snakefile = Path(ftd.__file__).parents[1] / "Snakefile"
    if not Path("Snakefile").exists() and snakefile.exists():
        words += ["--snakefile", str(snakefile)]
    return shlex.join(words)


# What there is ------------------------------------------------------------------------------------


def look(folder: Path) -> Images:
    """What a folder holds; see ``run``."""
    real = folder if folder.name not in ("", "..") else folder.resolve()
    if "$" in str(real) or str(real).startswith("~"):
        raise UserError(f"{real}: '$' and '~' begin variables in a configuration; give a link")
    train, test = _splits(real)
    name = _slug(real.name, "photos")
    of_train = ClassFolders(name, "train", train)
    files, numbers = list(of_train.files), of_train.numbers
    left_out = Counter(of_train.left_out)
    if test is not None:
        of_test = ClassFolders(name, "test", test)
        _expect_equal(of_train, of_test)
        files += of_test.files
        left_out += of_test.left_out
    if len(numbers) < 2:
        raise UserError(f"{train}: holds the class {min(numbers)!r} alone; two are needed at least")
    sides, grey = _measured([path for path, _ in files])
    root = real.parent
    return Images(
        name=name,
        root=str(root),
        train=os.path.relpath(train, root),
        test=None if test is None else os.path.relpath(test, root),
        names=list(numbers),
        classes=np.array([numbers[label] for _, label in files]),
        trained=None if test is None else len(of_train),
        sides=sides,
        grey=grey,
        left_out=+left_out,
    )


def _splits(folder: Path) -> tuple[Path, Path | None]:
    """The folders of classes: the folder itself, or those of splits in it, by their names."""
    try:
        inner = [Path(path) for path in Walk(folder).class_folders()]
    except OSError as error:
        reason = error.strerror or "there is no folder in it"
        raise UserError(
            f"{folder}: no folder of class folders ({reason}); put the images of each class into "
            f"a folder of its name, such as {folder / 'cat'}"
        ) from error
    by_name = {path.name.lower(): path for path in inner}
    if not SPLITS.issuperset(by_name):
        return folder, None
    train = by_name.get("train", by_name.get("training"))
    if train is None:
        there = ", ".join(path.name for path in inner)
        raise UserError(f"{folder}: holds splits, none of them called train ({there})")
    return train, by_name.get("test", by_name.get("testing"))


def _expect_equal(train: ClassFolders, test: ClassFolders) -> None:
    """Raises a ``UserError`` if a class is in one of the two alone."""
    for one, other in ((train, test), (test, train)):
        if only := [name for name in one.numbers if name not in other.numbers]:
            raise UserError(f"{one.folder}: class {only[0]!r} is not in {other.folder}; add it")


def _measured(paths: list[str]) -> tuple[list[int], bool]:
    """The shorter sides of images, and whether all are grey; some are decoded to see if they can.

    Raises:
        UserError: images that cannot be read: the first, and how many.
    """
    step = max(1, len(paths) // _DECODED)
    sides, grey, damaged = [], True, []
    for row, path in enumerate(progress(paths, "look at images")):
        try:
            with open_image(path) as picture:
                remember_depth(picture)
                sides.append(min(picture.size))
                grey = grey and is_grey(picture)
            if row % step == 0:
                read_picture(path, Counter())
        except DAMAGED as error:
            damaged.append(f"{path} ({stand_in(path) or error})")
    if damaged:
        more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise UserError(f"{damaged[0]}: cannot be read{more}; mend or remove it")
    return sides, grey


# What is suggested --------------------------------------------------------------------------------


def size_of(found: Images) -> int:
    """The largest of ``SIZES`` that most images have; of one small square's images, that."""
    if len(set(found.sides)) == 1 and SIZES[-1] <= found.sides[0] <= SIZES[0]:
        return found.sides[0]
    usual = statistics.median(found.sides)
    return next((size for size in SIZES if size <= usual), SIZES[-1])


def fitting(found: Images) -> Parts:
    """Parts of which each gets images of every class.

    Raises:
        UserError: a class has too few images for any.
    """
    many = len(found.classes) > _MANY
    smallest = np.bincount(found.classes, minlength=len(found.names))
    for amounts in (_PARTS_OF_MANY, _PARTS) if many else (_PARTS,):
        parts = Parts(**amounts | ({"test": None} if found.trained is not None else {}))
        try:
            smallest = counted(found, parts).min(axis=0)
        except UserError:
            continue
        if smallest.all():
            return parts
    worst = int(smallest.argmin())
    name, count = found.names[worst], int((found.classes == worst).sum())
    raise UserError(
        f"{os.path.join(found.root, found.train)}: class {name!r} has {count} images, too few for "
        f"the parts {', '.join(PARTS)}; {_ENOUGH} are enough: add some, or move its folder away"
    )


def counted(found: Images, parts: Parts) -> np.ndarray:
    """Images by part, in the order of ``PARTS``, and class: int64 [4, classes]."""
    part = parts_of("images", parts, found.classes, found.trained, seed=0)
    classes = len(found.names)
    return np.stack([np.bincount(found.classes[part == name], minlength=classes) for name in PARTS])


def written(found: Images, parts: Parts, folder: str, command: str) -> str:
    """The configuration's text; ``command``: what is to be called next."""
    counts = np.bincount(found.classes, minlength=len(found.names))
    shown = [f"{quoted(n)} {c}" for n, c in zip(found.names, counts, strict=True)]
    each = counted(found, parts).min(axis=1)
    amounts = parts.model_dump(exclude_none=True)
    split = f"\n    test: {quoted(found.test)}" if found.test is not None else ""
    return TEMPLATE.format(
        folder=quoted(folder),
        command=command,
        name=found.name,
        images=f"{len(found.classes):,}",
        classes=", ".join(shown[:_NAMED]) + (", …" if len(shown) > _NAMED else ""),
        sides=" to ".join(map(str, sorted({min(found.sides), max(found.sides)}))),
        root=quoted(found.root),
        train=quoted(found.train),
        test=split,
        size=size_of(found),
        channels=1 if found.grey else 3,
        parts=", ".join(f"{part}: {amount}" for part, amount in amounts.items()),
        each=", ".join(f"{part} {count}" for part, count in zip(PARTS, each, strict=True)),
        tasks="\n".join(_tasks(found, counts)),
        epochs=epochs_of(2 * int(each[PARTS.index("train")])),
    )


def epochs_of(images: int) -> int:
    """Passes over so many training images that make ``_STEPS`` steps, within ``_EPOCHS``."""
    steps = math.ceil(images / config.Train().batch_size)
    least, most = _EPOCHS
    return min(most, max(least, math.ceil(_STEPS / steps)))


def _tasks(found: Images, counts: np.ndarray) -> Iterable[str]:
    """Lines of the tasks: the largest classes against the rest, in order; then all classes."""
    largest = sorted(np.argsort(-counts, kind="stable")[:_INDICATORS].tolist())
    if len(found.names) == 2:
        largest = largest[1:]  # the other one is the same task
    taken = {"every-class"}
    for number in largest:
        name = found.names[number]
        task = _slug(name, f"class-{number}")
        while task.lower() in taken:
            task += "-too"
        taken.add(task.lower())
        rest = "other" if name.lower() != "other" else "remaining"
        label = quoted(name)
        yield f"  {quoted(task)}:\n    dataset: {found.name}"
        yield f"    labels: {{{rest}: rest, {label}: [{label}]}}"
    yield f"  every-class:\n    dataset: {found.name}\n    labels: all"


def _slug(name: str, otherwise: str) -> str:
    """A name that can be part of a path: that which ``name`` is without accents and signs."""
    letters = [sign for sign in unicodedata.normalize("NFKD", name) if not combining(sign)]
    found = re.sub(r"[^A-Za-z0-9_-]+", "-", "".join(letters)).strip("-_")[:40]
    foreign = any(sign.isalnum() and not sign.isascii() for sign in letters)
    try:
        return otherwise if foreign else safe_name(found)
    except ValueError:
        return otherwise


def quoted(text: str) -> str:
    """A text as YAML has it: plain where that is the same, else in quotes."""
    if re.fullmatch(r"[A-Za-z./][A-Za-z0-9_./-]*", text) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
