"""The pair store: finished distances of one target, kept across runs and kills.

One JSON line a pair with its own checksum, appended as soon as it is known. It is no declared
output of the workflow, so nothing deletes it; a line is used only if its key, a digest of all
that decides the distance, is the one asked for. A damaged line is blanked and its pair computed
again.
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

    def __init__(self, file: BinaryIO, path: Path):
        self._file = file
        self._known, damaged = _scan(file)
        for start, line in damaged:
            self._blank(start, line)
        if damaged:
            log(f"{path}: {len(damaged)} damaged line(s) dropped, their pairs are computed again")
        file.seek(0, os.SEEK_END)

    def _blank(self, start: int, line: bytes) -> None:
        """Make a line white space, in place: what stands behind it is kept; a torn end goes."""
        self._file.seek(start)
        if line.endswith(b"\n"):
            self._file.write(b" " * (len(line) - 1))
            self._file.flush()
        else:
            self._file.truncate()

    def get(self, key: str) -> Pair | None:
        """The pair stored under ``key``."""
        return self._known.get(key)

    def add(self, key: str, source: str, squared_distance: float, layers: dict[str, float]) -> None:
        """Append one pair and make it durable."""
        entry = {"key": key, "source": source, "squared_distance": squared_distance}
        if layers:
            entry["layers"] = list(layers.items())  # canonical JSON would sort a mapping
        entry["check"] = _check(entry)
        self._file.write(canonical(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._known[key] = Pair(squared_distance, layers)


def _check(entry: dict) -> str:
    """Checksum of a line's content."""
    return hashlib.sha256(canonical(entry).encode()).hexdigest()[:16]


def _scan(file: BinaryIO) -> tuple[dict[str, Pair], list[tuple[int, bytes]]]:
    """The pairs of a store by key, and its damaged lines with where they begin."""
    known: dict[str, Pair] = {}
    damaged = []
    start = 0
    for line in file:
        try:
            if line.strip():
                key, pair = _parse(line)
                known[key] = pair
        except ValueError:
            damaged.append((start, line))
        start += len(line)
    return known, damaged


def _parse(line: bytes) -> tuple[str, Pair]:
    """The key and the pair of a line; ``ValueError`` if it is not as it was written."""
    try:
        entry = json.loads(line)
        if not line.endswith(b"\n") or entry.pop("check") != _check(entry):
            raise ValueError("damaged")
        pair = Pair(float(entry["squared_distance"]), dict(entry.get("layers", [])))
        return entry["key"], pair
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("damaged") from error


def read_store(path: Path) -> tuple[dict[str, Pair], int]:
    """The pairs of a store, and how many of its lines are damaged; changes nothing.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            known, damaged = _scan(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    return known, len(damaged)


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
        path.touch()
        with open(path, "r+b") as file:
            _lock(file, path)
            yield PairStore(file, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or check "
            "permissions, then run again: finished pairs are kept"
        ) from error
