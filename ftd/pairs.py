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
from pathlib import Path

from ftd.artifacts import canonical
from ftd.errors import UserError


def pair_key(**decides: object) -> str:
    """A digest of everything that decides a distance."""
    return hashlib.sha256(canonical(decides).encode()).hexdigest()[:32]


class PairStore:
    """An open, locked store: ``get`` what is known, ``add`` what was computed."""

    def __init__(self, file):
        self._file = file
        self._known: dict[str, float] = {}
        good = 0
        for line in file:
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = float(entry["squared_distance"])
            except (ValueError, KeyError, TypeError):
                break  # torn by a kill: what follows it is not trusted
            if not line.endswith(b"\n"):
                break
            good += len(line)
        file.seek(good)
        file.truncate()

    def get(self, key: str) -> float | None:
        """The squared distance stored under ``key``."""
        return self._known.get(key)

    def add(self, key: str, source: str, squared_distance: float) -> None:
        """Append one pair and make it durable."""
        entry = {"key": key, "source": source, "squared_distance": squared_distance}
        self._file.write(canonical(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._known[key] = squared_distance


@contextmanager
def open_store(path: Path) -> Iterator[PairStore]:
    """Open a store for reading and appending; waits while another process holds it.

    Raises:
        UserError: it cannot be opened or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a killed run can leave a job behind
            file.seek(0)
            yield PairStore(file)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or check "
            "permissions, then run again: finished pairs are kept"
        ) from error
