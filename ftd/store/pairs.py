"""The pair store: finished distances of one target, kept across runs and kills.

A file of 16-byte records, each a number (float64) under a key, a digest of all that decides it.
It is no declared output of the workflow, so nothing deletes it. A record holds 3 bytes of its
key, to find it by, and 5 bytes of a digest of the whole key and the number, to trust it by: a
torn, damaged or outdated record agrees with no key that is asked for, wherever it stands.
"""

import hashlib
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ftd.errors import UserError
from ftd.runtime.progress import log
from ftd.store.files import canonical
from ftd.store.locks import lock_file

_RECORD = struct.Struct("8s3s5s")  # number, part of the key, check
_NUMBER = struct.Struct("<d")
SYNC_EVERY = 1.0  # seconds: what a power cut can cost; a killed process loses nothing written


def pair_key(**decides: object) -> bytes:
    """A digest of everything that decides a number."""
    return hashlib.sha256(canonical(decides).encode()).digest()


def _check(key: bytes, number: bytes) -> bytes:
    return hashlib.sha256(key + number).digest()[:5]


class PairStore:
    """An open store: ``get`` what is known, and, if it is locked, ``add`` what was computed."""

    def __init__(self, file: BinaryIO):
        data = file.read()
        whole = len(data) - len(data) % _RECORD.size  # the rest was torn by a kill
        self._file = file
        self._synced = time.monotonic()
        self._known: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for number, part, check in _RECORD.iter_unpack(memoryview(data)[:whole]):
            self._known.setdefault(part, []).append((number, check))

    def get(self, key: bytes) -> float | None:
        """The number stored under ``key``."""
        for number, check in self._known.get(key[:3], ()):
            if check == _check(key, number):
                return _NUMBER.unpack(number)[0]
        return None

    def add(self, numbers: Iterable[tuple[bytes, float]]) -> None:
        """Append numbers by key; they survive the process, and a power cut soon after."""
        for key, value in numbers:
            number = _NUMBER.pack(value)
            check = _check(key, number)
            self._file.write(_RECORD.pack(number, key[:3], check))
            self._known.setdefault(key[:3], []).append((number, check))
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Make all that was added durable."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _lock(file: BinaryIO, path: Path) -> None:
    """A killed run can leave a job behind that still writes."""
    try:
        lock_file(file, wait=False)
    except BlockingIOError:
        log(f"{path}: waiting for another process that writes it")
        lock_file(file)
    except OSError as error:
        log(f"{path}: not locked, this file system has no locks ({error.strerror})")


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
            size = file.seek(0, os.SEEK_END)
            file.truncate(size - size % _RECORD.size)
            file.seek(0)
            store = PairStore(file)
            yield store
            store.sync()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or check "
            "permissions, then run again: finished pairs are kept"
        ) from error


def read_store(path: Path) -> PairStore:
    """A store for reading alone; changes nothing.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return PairStore(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
