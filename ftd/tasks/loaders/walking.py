"""Walking through folders of images: links are followed, but never upwards."""

import os
from collections import Counter
from pathlib import Path

from PIL.Image import registered_extensions

from ftd.tasks.loaders import printable

_HIDDEN = ("__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "JXL", "PNG", "PPM"),
    *("QOI", "TGA", "TIFF", "WEBP"),
)
"""Of pixels, where Pillow or a plugin of it reads them."""


class Real:
    """``os.path.realpath`` of files, which asks the file system once for each of their folders."""

    def __init__(self, links: set[str]):
        self._links = links
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if path in self._links:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
            if os.path.islink(path):
                return os.path.realpath(path)
        folder, file = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], file)


class Walk:
    """A walk through a folder, such as one of class folders: links are followed, but not upwards.

    Attributes:
        left_out: how many files and folders, by reason.
        links: the paths of those that it met.
        broken: those of them among the class folders that lead nowhere.
    """

    def __init__(self, folder: Path):
        self.folder = str(folder)
        self.left_out: Counter[str] = Counter()
        self.links: set[str] = set()
        self.broken: list[str] = []
        kinds = registered_extensions().items()
        self._suffixes = {suffix for suffix, kind in kinds if kind in _FORMATS}

    def class_folders(self) -> list[str]:
        """Sorted by name.

        Raises:
            OSError: no folder, or no folder in it.
        """
        found, files = self._entries(self.folder, (os.path.realpath(self.folder),))
        paths = sorted(os.path.join(self.folder, file) for file in files)
        self.broken = [p for p in paths if p in self.links and not os.path.exists(p)]
        if not found:
            raise OSError(None, "it has no folder in it", self.folder)
        self.left_out["in no class folder"] += len(files)
        return sorted(found)

    def images(self, path: str) -> list[str]:
        """The images of the folder or of one in it, at any depth, by folder and name."""
        start = os.path.realpath(self.folder), os.path.realpath(path)
        found, pending = [], [(path, start)]
        while pending:
            here, chain = pending.pop()
            folders, files = self._entries(here, chain)
            pending += [(folder, (*chain, os.path.realpath(folder))) for folder in folders]
            found += [(here, file) for file in files if self._is_image(file)]
        return [os.path.join(*pair) for pair in sorted(found)]

    def _entries(self, path: str, chain: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Folders, by path, and names of files, without what is hidden, or a link upwards."""
        folders, files = [], []
        with os.scandir(path) as entries:
            for entry in entries:
                link = entry.is_symlink()
                if link:
                    self.links.add(entry.path)
                if entry.name.startswith(".") or entry.name in _HIDDEN:
                    self.left_out["hidden"] += 1
                elif os.path.isdir(entry.path) if link else entry.is_dir():
                    if link and _is_above(os.path.realpath(entry.path), chain):
                        self.left_out["a link to a folder above"] += 1
                    else:
                        folders.append(entry.path)
                elif link or entry.is_file():  # what a broken one stands for is missed when read
                    files.append(entry.name)
                else:
                    self.left_out["no file"] += 1
        return folders, files

    def _is_image(self, file: str) -> bool:
        suffix = os.path.splitext(file)[1].lower()
        if suffix in self._suffixes:
            return True
        self.left_out[f"suffix {printable(suffix)}" if suffix else "no suffix"] += 1
        return False


def _is_above(real: str, chain: tuple[str, ...]) -> bool:
    """Whether a folder is, or holds, one of those that the walk has come through."""
    return any(os.path.commonpath([real, each]) == real for each in chain)
