"""Taskonomy's files: ``<domain>/<building>/point_<p>_view_<v>_domain_<domain>.png``.

Zamir et al., *Taskonomy: Disentangling Task Transfer Learning*, CVPR 2018.
"""

import csv
import functools
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import did_you_mean, listed
from ftd.tasks.frames import Frame, seen
from ftd.tasks.loaders import Counted, Splits
from ftd.tasks.loaders.frame_folders import Files, frames
from ftd.tasks.loaders.modalities import source_of
from ftd.tasks.modality_keys import DEPTH, OF_THE_MESH

_FILE = re.compile(r"point_(?P<point>\d+)_view_(?P<view>\d+)_domain_(?P<domain>\w+)\.png")
_RGB = "rgb"
_OTHER_NAMES = {"segment_semantic": "segmentsemantic"}
"""Of domains, in the names of their files."""
_SPLITS = ("train", "val", "test")


def open_taskonomy(name: str, settings: Dataset, root: Path) -> Splits:
    """The frames of the buildings to be trained on, and of those of the official test split.

    Files belong together by building, point and view.

    Raises:
        UserError: a folder or file of splits that is missing or none; a building of the splits
            that no domain has; a picture that lacks a domain; a file of another domain's name, or
            two of one view.
    """
    folder = root / settings.folder
    pictures, left_out = _files(name, folder, _RGB)
    modalities = settings.described()
    sources = {key: source_of(key, each) for key, each in modalities.items()}
    files = {key: _files(name, folder, source)[0] for key, source in sources.items()}
    buildings = sorted({_building(key) for key in pictures})
    trained, tested = buildings, []
    if settings.split:
        trained, tested = _buildings(name, root / settings.split, buildings)

    def expected(modality: str, key: str) -> str:
        building, point, view = key.split("/")
        other = _FILE.fullmatch(next(iter(files[modality].values())).name)
        file = f"point_{point}_view_{view}_domain_{other['domain']}.png"
        return str(folder / sources[modality] / building / file)

    def split(of: list[str], unused: Counter[str]) -> Counted:
        there = {*of}
        own = {key: path for key, path in pictures.items() if _building(key) in there}
        theirs = {
            key: {frame: path for frame, path in found.items() if _building(frame) in there}
            for key, found in files.items()
        }
        groups = {key: _building(key) for key in own}
        masked = OF_THE_MESH.intersection(settings.domains) if DEPTH in settings.domains else ()
        mended = functools.partial(_measured, names=masked)
        return frames(name, own, theirs, modalities, expected, groups, unused, mended)

    strange = {*buildings} - {*trained, *tested}
    left_out["in a building of no split"] += sum(_building(key) in strange for key in pictures)
    return split(trained, left_out), split(tested, Counter()) if tested else None, {}


def _measured(frame: Frame, names: Collection[str]) -> Frame:
    """Modalities are unmeasured where the depth is: not all have a code for that."""
    found = dict(frame.modalities)
    for name in names:
        nothing = ~seen(found[DEPTH].array[0])
        array = np.where(nothing, np.float32(np.nan), found[name].array)
        found[name] = replace(found[name], array=array)
    return replace(frame, modalities=found)


def _building(key: str) -> str:
    return key.partition("/")[0]


def _files(name: str, folder: Path, domain: str) -> tuple[Files, Counter[str]]:
    """A domain's files by building, point and view, sorted by these."""
    found: dict[tuple[str, int, int], Path] = {}
    left_out: Counter[str] = Counter()
    if not (folder / domain).is_dir():
        raise UserError(
            f"data set {name}: {folder / domain} is no folder; expected one for each domain, with "
            "a folder for each building in it"
        )
    for path in (folder / domain).glob("*/*"):
        match = _FILE.fullmatch(path.name)
        if match is None:
            left_out[f"in {domain}, of another name"] += 1
            continue
        if match["domain"] not in (domain, _OTHER_NAMES.get(domain)):
            raise UserError(
                f"data set {name}: {path} is of the domain {match['domain']}, in the folder of "
                f"{domain}; move it"
            )
        of = path.parent.name, int(match["point"]), int(match["view"])
        if of in found:
            raise UserError(f"data set {name}: {found[of]} and {path} are of one view; remove one")
        found[of] = path
    if not found:
        there = listed(left_out) or "nothing"
        raise UserError(
            f"data set {name}: {folder / domain} has no file <building>/point_…_view_…_domain_"
            f"{domain}.png (left out there: {there})"
        )
    return {"/".join(map(str, of)): found[of] for of in sorted(found)}, left_out


def _buildings(name: str, path: Path, there: list[str]) -> tuple[list[str], list[str]]:
    """The buildings of train and val, and of test, of those that are there."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"datasets.{name}.split: {path} cannot be read ({error})") from error
    if not rows or not {"id", *_SPLITS} <= rows[0].keys():
        raise UserError(
            f"datasets.{name}.split: {path}: expected the columns id, {', '.join(_SPLITS)} and a "
            "row for each building"
        )
    known = {row["id"]: [key for key in _SPLITS if row[key] == "1"] for row in rows}
    if unknown := [building for building in there if building not in known]:
        hint = did_you_mean(unknown[0], known)
        raise UserError(
            f"datasets.{name}.split: {path} has no building {unknown[0]!r}, which the folder has"
            f"{hint}"
        )
    found = [building for building in there if known[building]]
    tested = [building for building in found if "test" in known[building]]
    if not (trained := [building for building in found if building not in tested]):
        raise UserError(f"datasets.{name}.split: {path}: no building that is there is in train")
    return trained, tested
