"""Frames in files: a picture and its modalities, matched by name."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL.Image import Image, registered_extensions

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import listed
from ftd.tasks.frames import Frame, Values
from ftd.tasks.loaders import DAMAGED, Counted, Splits, check_each_once, printable, read_picture
from ftd.tasks.loaders.modalities import about, read_map, source_of
from ftd.tasks.modality_keys import Modality

Files = dict[str, Path]
"""By what a frame is called: a file of it."""


def open_frame_folders(name: str, settings: Dataset, root: Path) -> Splits:
    """A folder of pictures and one for each modality, in ``train`` and, if given, ``test``.

    Raises:
        UserError: a folder that is none, is given twice or holds no picture; a modality that is
            read from numbers in a table, or that lacks a picture's file.
    """
    folders = [root / folder for folder in (settings.train, settings.test) if folder]
    check_each_once(name, folders)
    splits = [_split(name, settings, folder) for folder in folders]
    return splits[0], splits[1] if len(splits) > 1 else None, {}


def _split(name: str, settings: Dataset, folder: Path) -> Counted:
    pictures, left_out = _files(name, folder / settings.image)
    modalities = settings.described()
    files = {}
    for key, modality in modalities.items():
        if modality.kind == "intrinsics":
            raise UserError(
                f"datasets.{name}.modalities.{key}: intrinsics are read from tables (parquet)"
            )
        files[key] = _files(name, folder / source_of(key, modality))[0]
    groups = {key: os.path.dirname(key) for key in pictures} if settings.group else None
    return frames(name, pictures, files, modalities, groups, left_out)


def _files(name: str, folder: Path) -> tuple[Files, Counter[str]]:
    """The pictures at any depth, by path without suffix, sorted; and what is left out."""
    found: Files = {}
    left_out: Counter[str] = Counter()
    suffixes = registered_extensions()
    if not folder.is_dir():
        raise UserError(f"data set {name}: {folder} is no folder; check it and data_root")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name.startswith("."):
            left_out["hidden"] += 1
        elif path.suffix.lower() not in suffixes:
            left_out[f"suffix {printable(path.suffix)}" if path.suffix else "no suffix"] += 1
        else:
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                raise UserError(
                    f"data set {name}: {found[key]} and {path} differ in their suffix alone; "
                    "frames are matched by name, remove one"
                )
            found[key] = path
    if not found:
        there = listed(left_out) or "nothing"
        raise UserError(f"data set {name}: {folder} holds no picture (left out there: {there})")
    return found, left_out


def frames(
    name: str,
    pictures: Files,
    files: Mapping[str, Files],
    modalities: Mapping[str, Modality],
    groups: Mapping[str, str] | None,
    left_out: Counter[str],
) -> Counted:
    """The frames of a split, in the order of ``pictures``.

    Args:
        files: by modality; what no picture belongs to is left out.
        groups: of each picture.
        left_out: it grows.

    Raises:
        UserError: a modality that lacks a picture's file; while they are read, a file that cannot
            be, or has another size than its picture.
    """
    for modality, own in files.items():
        if missing := [key for key in pictures if key not in own]:
            raise UserError(
                f"data set {name}: {len(missing)} of {len(pictures)} pictures have no "
                f"{modality}, such as {pictures[missing[0]]}; add the files, or remove the pictures"
            )
        left_out[f"{modality} without a picture"] += len(own.keys() - pictures.keys())
    noted: Counter[str] = Counter()

    def read(keys: list[str]) -> Iterator[tuple[Image, Frame]]:
        for key in keys:
            path = pictures[key]
            try:
                with about(path):
                    picture = read_picture(path, noted)
                found: dict[str, Values] = {}
                for modality, settings in modalities.items():
                    with about(files[modality][key]):
                        found[modality] = read_map(files[modality][key], settings, picture.size)
            except DAMAGED as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"data set {name}: cannot be read: {reason}") from error
            yield picture, Frame(None, found, groups[key] if groups else None)

    every = list(pictures)

    def only(rows: np.ndarray) -> Counted:
        left_out["in no part"] += len(every) - len(rows)
        return Counted(read([every[row] for row in rows]), len(rows), left_out, noted)

    of = [groups[key] for key in every] if groups else None
    return Counted(read(every), len(every), left_out, noted, only, of)
