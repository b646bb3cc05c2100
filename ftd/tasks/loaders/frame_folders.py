"""Frames in files: a picture and its modalities, matched by name."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL.Image import Image

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import listed
from ftd.tasks.frames import Frame, Values
from ftd.tasks.loaders import DAMAGED, Counted, Splits, check_each_once, read_picture
from ftd.tasks.loaders.modalities import about, read_map, source_of
from ftd.tasks.loaders.turned import check_upright
from ftd.tasks.loaders.walking import Real, Walk
from ftd.tasks.modality_keys import Modality

Files = dict[str, Path]
"""By what a frame is called: a file of it."""


def open_frame_folders(name: str, settings: Dataset, root: Path) -> Splits:
    """A folder of pictures and one for each modality, in ``train`` and, if given, ``test``.

    Raises:
        UserError: a folder that is none, is given twice or holds no picture; a modality that
            lacks a picture's file.
    """
    folders = [root / folder for folder in (settings.train, settings.test) if folder]
    check_each_once(name, folders)
    splits = [_split(name, settings, folder) for folder in folders]
    return splits[0], splits[1] if len(splits) > 1 else None, {}


def _split(name: str, settings: Dataset, folder: Path) -> Counted:
    walk = Walk(folder / settings.image)
    pictures = _files(name, walk)
    modalities = settings.described()
    sources = {key: folder / source_of(key, each) for key, each in modalities.items()}
    files = {key: _files(name, Walk(source)) for key, source in sources.items()}
    pictures = _once(pictures, walk)
    groups = {key: os.path.dirname(key) for key in pictures} if settings.group else None

    def expected(modality: str, key: str) -> str:
        suffix = next(iter(files[modality].values())).suffix
        return f"{sources[modality] / key}{suffix}"

    return frames(name, pictures, files, modalities, expected, groups, walk.left_out)


def _files(name: str, walk: Walk) -> Files:
    """The pictures at any depth, by path without suffix, sorted."""
    found: Files = {}
    folder = Path(walk.folder)
    if not folder.is_dir():
        raise UserError(f"data set {name}: {folder} is no folder; check it and data_root")
    for path in map(Path, walk.images(walk.folder)):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise UserError(
                f"data set {name}: {found[key]} and {path} differ in their suffix alone; "
                "frames are matched by name, remove one"
            )
        found[key] = path
    if not found:
        there = listed(walk.left_out) or "nothing"
        raise UserError(f"data set {name}: {folder} holds no picture (left out there: {there})")
    return found


def _once(pictures: Files, walk: Walk) -> Files:
    """The pictures without those that links lead to once more: they would be frames twice."""
    real_path, firsts = Real(walk.links), {}
    for key, path in pictures.items():
        firsts.setdefault(real_path(str(path)), key)
    walk.left_out["another link to the same file"] += len(pictures) - len(firsts)
    return {key: pictures[key] for key in firsts.values()}


def frames(
    name: str,
    pictures: Files,
    files: Mapping[str, Files],
    modalities: Mapping[str, Modality],
    expected: Callable[[str, str], str],
    groups: Mapping[str, str] | None,
    left_out: Counter[str],
    mended: Callable[[Frame], Frame] = lambda frame: frame,
) -> Counted:
    """The frames of a split, in the order of ``pictures``.

    Args:
        files: by modality; what no picture belongs to is left out.
        expected: says of a modality and a picture, where it has none, the path that is missing.
        groups: of each picture.
        left_out: it grows.
        mended: of a frame as its files hold it, what it is meant to be.

    Raises:
        UserError: a modality that lacks a picture's file; while they are read, a file that cannot
            be, or has another size than its picture, or a picture that lies on its side.
    """
    for modality, own in files.items():
        if missing := [key for key in pictures if key not in own]:
            path = expected(modality, missing[0])
            raise UserError(
                f"data set {name}: {len(missing)} of {len(pictures)} pictures have no {modality}: "
                f"{path} is missing, of {pictures[missing[0]]}; add the files, or remove the "
                "pictures"
            )
        left_out[f"{modality} without a picture"] += len(own.keys() - pictures.keys())
    noted: Counter[str] = Counter()

    def read(keys: list[str]) -> Iterator[tuple[Image, Frame]]:
        for key in keys:
            path = pictures[key]
            try:
                with about(path):
                    picture = read_picture(path, noted)
                    check_upright(picture)
                found: dict[str, Values] = {}
                for modality, settings in modalities.items():
                    with about(files[modality][key]):
                        found[modality] = read_map(files[modality][key], settings, picture.size)
            except DAMAGED as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"data set {name}: cannot be read: {reason}") from error
            yield picture, mended(Frame(None, found, groups[key] if groups else None))

    every = list(pictures)

    def only(rows: np.ndarray) -> Counted:
        left_out["in no part"] += len(every) - len(rows)
        return Counted(read([every[row] for row in rows]), len(rows), left_out, noted)

    of = [groups[key] for key in every] if groups else None
    return Counted(read(every), len(every), left_out, noted, only, of)
