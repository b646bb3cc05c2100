"""Files written whole and read with care, and the checksum that each artifact carries.

Every file is written to a temporary neighbour and renamed, so that a reader sees the old file or
the new one and an interrupted job leaves nothing behind.

Every artifact carries its own SHA-256, taken with a placeholder in place of its 64 digits: of all
bytes of tables and tensors, of the canonical text of JSON. Reading compares it before anything
else is made of the content, so a damaged file reaches no decoder. It is no signature.
"""

import errno
import glob
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError

from ftd.errors import UserError
from ftd.store.locks import lock_file

if TYPE_CHECKING:
    import numpy as np

ROOM = 2**20  # bytes: with less, a disk is full
KEY = "ftd"  # of the facts, in the metadata of tables and tensors
CHECKSUM = "ftd-sha256"  # of the digits, beside them
DIGEST = "sha256"  # of the digits, in the facts that readers return
BLANK = hashlib.sha256(CHECKSUM.encode()).hexdigest().encode()  # stands where the digits will
AGAIN = "delete it and run again"  # what to do about a file that a stage makes
BRING = "check the file that was given"  # and about one that the user brings
# In Parquet's footer, a key and its value's length; in a safetensors header, JSON within JSON.
_DIGITS = re.compile(rb'ftd-sha256(?:\x18@|\\":\\")([0-9a-f]{64})')
_UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError),
    *(RecursionError, MemoryError, NotImplementedError, OverflowError),
)  # what the decoders raise for files of any content


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(path: Path) -> str:
    """SHA-256 of the content of a file that the user brings, hexadecimal."""
    with reading(path, BRING), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` atomically, creating its folder."""
    with replacing(Path(path)) as file:
        file.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` that takes its place once it is written and safe on disk."""
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        lock, name = _neighbour(path)
        with lock:
            yield Path(name)
            with open(name, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); free space "
            "or check the folder's permissions, then run again: finished files are kept"
        ) from error
    finally:
        if name and os.path.exists(name):
            os.unlink(name)


def _neighbour(path: Path) -> tuple[IO, str]:
    """A new file beside ``path`` and its name; locked while open, so that it is no leftover."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        file = open(handle)  # noqa: SIM115, closed by the caller
        with suppress(OSError):  # a file system without locks: leftovers stay there
            lock_file(file)
        if os.fstat(handle).st_nlink:  # else it was taken for a leftover a moment ago
            return file, name
        file.close()


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of ``path``: half-written neighbours that none holds."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with suppress(OSError), open(old, "r+b") as file:  # NFS locks no file open to read
            lock_file(file, wait=False)
            old.unlink()


@contextmanager
def scratch_array(
    folder: Path, shape: tuple[int, ...], kind: str = "uint8"
) -> Iterator["np.ndarray"]:
    """An array on disk, gone afterwards: memory holds only what is being used of it.

    Args:
        kind: of its numbers, as numpy calls it.

    Raises:
        UserError: no space below ``folder``.
    """
    import numpy as np  # it would be most of the time that reading a JSON file takes

    size = math.prod(shape) * np.dtype(kind).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed below
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # or a full disk would kill the process
    except OSError as error:
        raise UserError(
            f"{folder}: no room for {size / 2**20:.0f} MiB of decoded images "
            f"({error.strerror or error}); free space, then run again"
        ) from error
    with file:
        yield np.memmap(file, kind, "r+", shape=shape)


def full_disk(folder: Path) -> str | None:
    """What to say of a folder whose disk has no room for a message, else ``None``."""
    if not folder.exists() or shutil.disk_usage(folder).free >= ROOM:
        return None
    return f"{folder}: {os.strerror(errno.ENOSPC)}, not even for logs; free space, then run again"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def reading(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Turns a missing or damaged file into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        todo = "run the stage that makes it" if remedy == AGAIN else remedy
        raise UserError(f"{path}: no such file; {todo}") from error
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read, perhaps truncated ({reason}); {remedy}"
        ) from error


def expect_stage(path: Path, facts: dict, stage: str) -> None:
    """Raises a ``UserError`` if the facts of ``path`` are not those of a stage."""
    if facts.get("stage") != stage:
        found = f"one of the stage {facts['stage']}" if "stage" in facts else "another"
        raise UserError(f"{path}: expected a file of the stage {stage}, this is {found}")


# Checksums --------------------------------------------------------------------------------------


def without_digest(facts: dict | None) -> dict:
    """Facts as writers store them: a reader's hold the checksum of the file that it read."""
    return {key: value for key, value in (facts or {}).items() if key != DIGEST}


def compare(path: Path, found: str | None, recorded: str | None) -> None:
    """Raises a ``UserError`` if a file is not what its checksum says, or says nothing."""
    if recorded is None:
        raise UserError(
            f"{path}: carries no checksum: truncated, or made by an older version or another "
            "program; delete it and run again"
        )
    if found != recorded:
        raise UserError(
            f"{path}: damaged, it is not what its checksum says; delete it and run again"
        )


def verified(path: Path, head: bytes, start: int = 0, rest: Iterable[bytes] = ()) -> str:
    """The checksum of a table or of tensors, after comparing it with all of the file.

    Args:
        head: the first bytes of the file, with the digits.
        start: where in ``head`` to look for them.
        rest: the other bytes, piece by piece.

    Raises:
        UserError: no checksum, or another one than the file has.
    """
    at = digits_at(head, start)
    recorded = None if at is None else head[at : at + len(BLANK)].decode()
    compare(path, None if at is None else checksum_of(head, at, rest), recorded)
    return recorded


def checksum_of(head: bytes, at: int, rest: Iterable[bytes] = ()) -> str:
    """SHA-256 of ``head`` and ``rest`` with the placeholder where the digits are."""
    view = memoryview(head)
    found = hashlib.sha256(view[:at])
    for part in itertools.chain((BLANK, view[at + len(BLANK) :]), rest):
        found.update(part)
    return found.hexdigest()


def digits_at(head: bytes, start: int = 0) -> int | None:
    """Where the checksum's digits lie in a Parquet footer or a safetensors header."""
    match = _DIGITS.search(head, start)
    return match and match.start(1)
