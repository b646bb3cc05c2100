"""The cache between experiments: what one has made, another with equal inputs takes over.

An entry is a folder of artifacts, named by a digest of all that decides their content. It holds
copies, so an experiment may be deleted or changed without harm to another.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from ftd import store
from ftd.errors import UserError
from ftd.runtime.progress import log


def take(cache: Path, decides: dict, files: list[Path]) -> bool:
    """Copy an entry's artifacts to ``files``; False, with nothing written, if none is there.

    A damaged entry is none; it is removed, so that a new one can take its place.
    """
    entry = _entry(cache, decides)
    if not os.path.isdir(entry):
        return False
    kept = _names(entry, files)
    try:
        for path in kept:
            store.checksum(path)
        contents = [path.read_bytes() for path in kept]
    except (UserError, OSError) as error:
        log(f"{error}. It is not used")
        shutil.rmtree(entry, ignore_errors=True)
        return False
    for content, path in zip(contents, files, strict=True):
        store.write_bytes(path, content)
    log(f"taken from {entry}")
    return True


def give(cache: Path, decides: dict, files: list[Path]) -> None:
    """Keep copies of artifacts; the first of several that give the same entry wins.

    A cache that cannot be written is no reason to lose what was made: it is said, no more.
    """
    entry = _entry(cache, decides)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".") as folder:
            new = Path(folder) / "entry"
            new.mkdir()
            for path, copy in zip(files, _names(new, files), strict=True):
                shutil.copyfile(path, copy)
            if not entry.exists():
                os.rename(new, entry)
    except OSError as error:
        if entry.exists():  # another process was first
            return
        log(
            f"{cache}: cannot be written ({error.strerror or error}), nothing is kept there; check "
            "the configuration's cache, its space and permissions"
        )


def _entry(cache: Path, decides: dict) -> Path:
    key = hashlib.sha256(store.canonical(decides).encode()).hexdigest()
    return cache / key[:2] / key


def _names(entry: Path, files: list[Path]) -> list[Path]:
    return [entry / f"{number}{path.suffix}" for number, path in enumerate(files)]
