"""The pair store: finished distances of one target, kept across runs and kills.

One JSON line a pair, appended as soon as it is known. It is no declared output of the
workflow, so nothing deletes it; a line is used only if its key, a digest of all that decides
the distance, is the one asked for.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ftd.artifacts import canonical
from ftd.errors import UserError
from ftd.progress import log


def pair_key(**decides: object) -> str:
    """A digest of everything that decides a distance."""
    return hashlib.sha256(canonical(decides).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Pair:
    """A squared distance, and its contributions by layer (empty where they are not kept)."""

    squared_distance: float
    layers: dict[str, float]


class PairStore:
    """An open, locked store: ``get`` what is known, ``add`` what was computed."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._known: dict[str, Pair] = {}
        good = 0
        for line in file:
            try:
                entry = json.loads(line)
                value = float(entry["squared_distance"])
                self._known[entry["key"]] = Pair(value, dict(entry.get("layers", [])))
            except (ValueError, KeyError, TypeError):
                break  # torn by a kill: what follows it is not trusted
            if not line.endswith(b"\n"):
                break
            good += len(line)
        file.seek(good)
        file.truncate()

    def get(self, key: str) -> Pair | None:
        """The pair stored under ``key``."""
        return self._known.get(key)

    def add(self, key: str, source: str, squared_distance: float, layers: dict[str, float]) -> None:
        """Append one pair and make it durable."""
        entry = {"key": key, "source": source, "squared_distance": squared_distance}
        if layers:
            entry["layers"] = list(layers.items())  # canonical JSON would sort a mapping
        self._file.write(canonical(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._known[key] = Pair(squared_distance, layers)


def _lock(file: BinaryIO, path: Path) -> None:
    """A killed run can leave a job behind that still writes."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log(f"{path}: waiting for another process that writes it")
        fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def open_store(path: Path) -> Iterator[PairStore]:
    """Open a store for reading and appending; waits while another process holds it.

    Raises:
        UserError: it cannot be opened or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            _lock(file, path)
            file.seek(0)
            yield PairStore(file)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or check "
            "permissions, then run again: finished pairs are kept"
        ) from error
