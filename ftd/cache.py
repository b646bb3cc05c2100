"""The cache between experiments: what one has made, another with equal inputs takes over.

An entry is a folder of files and their digests, named by a digest of all that decides their
content. It holds copies, so an experiment may be deleted or changed without harm to another.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from ftd import artifacts
from ftd.errors import UserError
from ftd.progress import log

DIGESTS = "digests.json"


def take(cache: Path, stage: str, decides: dict, files: list[Path]) -> bool:
    """Copy an entry's files to ``files``; False, with nothing written, if there is no whole one."""
    entry = _entry(cache, stage, decides)
    if not entry.exists():
        return False
    try:
        wanted = artifacts.read_json(entry / DIGESTS)
        contents = [(entry / name).read_bytes() for name in wanted]
        found = [hashlib.sha256(content).hexdigest() for content in contents]
    except (OSError, UserError):
        wanted, found = {}, []
    if len(found) != len(files) or found != list(wanted.values()):
        log(f"{entry}: damaged; delete it. It is not used")
        return False
    for path, content in zip(files, contents, strict=True):
        artifacts.write_bytes(path, content)
    log(f"taken from {entry}")
    return True


def give(cache: Path, stage: str, decides: dict, files: list[Path]) -> None:
    """Keep copies of ``files``; the first of several that give the same entry wins.

    Raises:
        UserError: the cache cannot be written.
    """
    entry = _entry(cache, stage, decides)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".") as folder:
            new = Path(folder) / "entry"
            new.mkdir()
            names = [f"{number}{path.suffix}" for number, path in enumerate(files)]
            for name, path in zip(names, files, strict=True):
                shutil.copyfile(path, new / name)
            digests = {name: artifacts.digest(new / name) for name in names}
            artifacts.write_json(new / DIGESTS, digests)
            if not entry.exists():
                os.rename(new, entry)
    except OSError as error:
        if entry.exists():  # another process was first
            return
        raise UserError(
            f"{cache}: cannot be written ({error.strerror or error}); check the configuration's "
            "cache, its space and permissions"
        ) from error


def _entry(cache: Path, stage: str, decides: dict) -> Path:
    key = hashlib.sha256(artifacts.canonical(decides).encode()).hexdigest()
    return cache / stage / key[:2] / key
