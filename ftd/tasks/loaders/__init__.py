"""Loaders: where a data set's images and their annotations come from."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError
from PIL.Image import DecompressionBombError, Image
from PIL.Image import open as open_image

from ftd.config import Dataset
from ftd.config.datasets import loader_of
from ftd.errors import UserError
from ftd.names import alike, one_form
from ftd.parts import resolve
from ftd.runtime.progress import log
from ftd.tasks.foreign import named
from ftd.tasks.frames import Frame

# What PIL raises, and what a label raises that is no number of 64 bits.
DAMAGED = (OSError, ValueError, SyntaxError, DecompressionBombError, OverflowError)

DEEP = "\0raw mode"  # no file's own key can have this name

Annotation = int | np.ndarray | Frame
_STAND_INS = {
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself, git lfs pull",
    b"/annex/objects/": "it is a pointer of git-annex: fetch the file itself, git annex get",
    b"<!doctype html": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
}
"""How texts begin, in small letters, that lie in place of a file, and what to do about them."""

Splits = tuple["Counted", "Counted | None", dict[int, str]]
"""The training split, the official test split, and the names of the classes by number."""


class Counted:
    """Images of one official split, to be read once: (image, annotation), and their number.

    Attributes:
        left_out: files or rows that are not among them, by reason; it may grow while they are read.
        noted: what is to be said of how many of them, likewise.
        only: (their rows, int64) → some of them, without reading the others, where they are known
            to have no classes; else ``None``.
        groups: as of ``ftd.tasks.frames.Frame``, one each, where ``only`` is given and there are
            some; else ``None``.
    """

    def __init__(
        self,
        images: Iterable[tuple[Image | np.ndarray, Annotation]],
        count: int,
        left_out: Mapping[str, int] | None = None,
        noted: Mapping[str, int] | None = None,
        only: "Callable[[np.ndarray], Counted] | None" = None,
        groups: list[str] | None = None,
    ):
        self.only, self.groups = only, groups
        self.images, self.count = images, count
        self.left_out = {} if left_out is None else left_out  # not a copy: it may grow
        self.noted = {} if noted is None else noted

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Image | np.ndarray, Annotation]]:
        return iter(self.images)


def open_splits(name: str, settings: Dataset, root: Path) -> Splits:
    """Find the images of data set ``name`` below ``root`` (its own files are not decoded yet).

    Names may be a list as well, from class 0 on; they come back in one Unicode form.

    Raises:
        UserError: what the loader says is wrong, or a loader that fails or gives something else;
            so do its splits when they are read, if they give more or fewer images than they say.
    """
    kind, loader = loader_of(settings.loader)
    what = f"data set {name}: loader {kind!r}"
    with named(f"{what} failed"):
        found = resolve(loader.open)(name, settings, root)
    with named(f"{what}: expected (train, test or None, names by class), splits with a length"):
        train, test, names = found
        names = dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names)
        names = {int(number): one_form(str(text)) for number, text in names.items()}
        for number, text in names.items():
            if text != printable(text):
                raise UserError(
                    f"data set {name}: the name of class {number}, {text!r}, is no text in UTF-8; "
                    "rename it"
                )
        for first, other in alike(names.values()):
            log(f"data set {name}: classes {first!r} and {other!r} differ in case or spaces alone")
        return _checked(what, train), None if test is None else _checked(what, test), names


def _checked(what: str, split: Any) -> Counted:
    """A loader's split: as many (image, annotation) as its length says."""
    count = len(split)

    def images() -> Iterator[tuple[Image | np.ndarray, Annotation]]:
        row = -1
        with named(f"{what} failed"):
            for row, pair in enumerate(islice(split, count + 1)):
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise UserError(f"{what}: image {row}: expected (image, annotation)")
                if row < count:
                    yield tuple(pair)
        if row + 1 != count:
            found = "more" if row == count else row + 1
            raise UserError(f"{what}: a split of length {count} gives {found} images")

    found = _counted(images(), count, split)
    if isinstance(split, Counted) and split.only:
        found.only = lambda rows: _checked(what, split.only(rows))
        found.groups = split.groups
    return found


def _counted(images: Iterable[Any], count: int, split: Any) -> Counted:
    """The images of a loader's split, with what it says of them."""
    left_out, noted = (getattr(split, key, None) for key in ("left_out", "noted"))
    return Counted(images, count, left_out, noted)


def printable(text: object) -> str:
    """Text that any encoding of Unicode takes: a file's name may hold bytes that are none."""
    try:
        return os.fsencode(str(text)).decode(errors="backslashreplace")
    except UnicodeEncodeError:  # no name of a file
        return str(text).encode(errors="backslashreplace").decode()


def counts(name: str, found: Iterable[Any]) -> dict[str, int]:
    """Numbers by reason, of several mappings in one; those that are 0 are left out.

    Raises:
        UserError: a loader's mapping that is none of numbers.
    """
    with named(f"data set {name}: left_out and noted of a split: expected numbers by reason"):
        total = Counter()
        for mapping in found:
            total.update({printable(reason): int(number) for reason, number in mapping.items()})
    return {reason: number for reason, number in sorted(total.items()) if number}


def read_picture(file: str | io.BytesIO, noted: Counter[str]) -> Image:
    """The first picture of an encoded image, which is all that is read of several.

    Raises:
        One of ``DAMAGED``.
    """
    try:
        with open_image(file) as picture:
            remember_depth(picture)
            picture.load()
            # A GIF loses its pixels as its frames are counted.
            first = picture.copy() if picture.format == "GIF" else picture
            with suppress(Exception):  # of what is damaged after the first
                noted["several frames, the first is read"] += getattr(picture, "is_animated", False)
            return first
    except UnidentifiedImageError as error:  # Pillow's words may hold an address
        raise ValueError(stand_in(file) or "no picture of a format that Pillow reads") from error
    except (*DAMAGED, MemoryError):
        raise
    except Exception as error:  # such as struct.error, of whatever is damaged
        raise ValueError(f"{type(error).__name__}: {error}") from error


def remember_depth(picture: Image) -> None:
    """Put into ``picture.info[DEEP]`` how its file has 16 bits a channel; loading forgets it."""
    for _, _, _, found in getattr(picture, "tile", ()):
        raw = found[0] if isinstance(found, tuple) and found else found
        if ";16" in str(raw):
            picture.info[DEEP] = raw


def stand_in(file: str | Path | io.BytesIO) -> str | None:
    """What a text is that lies in place of a file, and what to do; ``None`` if it is no such."""
    with suppress(OSError), file if isinstance(file, io.BytesIO) else open(file, "rb") as opened:
        opened.seek(0)
        start = opened.read(64).lstrip().lower()
        return next((what for text, what in _STAND_INS.items() if start.startswith(text)), None)
    return None


def check_each_once(name: str, paths: Iterable[Path]) -> None:
    """Raises a ``UserError`` if two of a data set's files, or folders, are one."""
    seen: dict[str, Path] = {}
    for path in paths:
        first = seen.setdefault(os.path.realpath(path), path)
        if first is not path:
            raise UserError(
                f"data set {name}: {first} and {path} are one; give each once, in train or in test"
            )


def indexed(name: str, split: Any) -> Counted:
    """The images of a sequence of (image, class), with errors that say which one it is."""

    def images() -> Iterator[tuple[Image, int]]:
        for row in range(len(split)):
            try:
                picture, label = split[row]
                label = np.int64(label)
            except (*DAMAGED, TypeError) as error:
                reason = str(error).partition("\n")[0]
                raise UserError(
                    f"data set {name}: image {row} or its class cannot be read ({reason})"
                ) from error
            yield picture, label

    return _counted(images(), len(split), split)
