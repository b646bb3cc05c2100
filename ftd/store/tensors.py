"""Named tensors as safetensors, with their facts as canonical JSON under one metadata key.

One key, checksum and all: safetensors does not keep an order of keys.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from safetensors import safe_open

from ftd.errors import UserError
from ftd.store.files import (
    BLANK,
    BRING,
    CHECKSUM,
    DIGEST,
    KEY,
    canonical,
    checksum_of,
    digits_at,
    expect_stage,
    reading,
    replacing,
    verified,
    without_digest,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

_OTHERS = {
    b"PK\x03\x04": "it looks like a file of torch.save: write it by safetensors.torch.save_file",
    b"\x80": "it looks like a file of torch.save: write it by safetensors.torch.save_file",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself, git lfs pull",
}
"""How files of other formats begin that are taken for safetensors, and what to do about them."""
_CHUNK = 1 << 20
_MAX_HEADER = 100_000_000  # bytes, safetensors' own limit


def write_tensors(path: Path, tensors: dict[str, "torch.Tensor"], facts: dict) -> None:
    """Write named tensors and their facts as safetensors."""
    from safetensors.torch import save_file  # it imports torch (2 s), which readers of facts spare

    content = _apart({name: tensor.detach().cpu() for name, tensor in tensors.items()})
    about = without_digest(facts) | {CHECKSUM: BLANK.decode()}
    with replacing(Path(path)) as name:
        save_file(content, name, metadata={KEY: canonical(about)})
        with open(name, "r+b") as file:
            header = _header(file)
            at = digits_at(header)
            checksum = checksum_of(header, at, _rest(file))
            file.seek(at)
            file.write(checksum.encode())


def _apart(tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Contiguous tensors of which no two share memory, as tied weights and views do.

    The format has no names for one thing: each gets its own copy, which a network that ties them
    takes in one after another.
    """
    found, taken = {}, set()
    for name, tensor in tensors.items():
        value = tensor.contiguous()
        memory = value.untyped_storage().data_ptr()
        found[name] = value.clone() if memory in taken else value
        taken.add(memory)
    return found


class TensorFile:
    """A safetensors file that is read and compared with its checksum once, its tensors later.

    Opening it imports no tensor library.

    Attributes:
        path: where it lies.
        facts: those stored with its tensors, and, as ``sha256``, its checksum.

    Raises:
        UserError: missing or damaged file, no checksum, or a file of another stage.
    """

    def __init__(self, path: Path, *, stage: str | None = None):
        self.path = Path(path)
        with reading(path):
            with open(path, "rb") as file:
                self._seen = _identity(os.fstat(file.fileno()))
                header = _header(file)
                checksum = verified(path, header, rest=_rest(file))
            facts = json.loads(json.loads(header[8:])["__metadata__"][KEY])
        del facts[CHECKSUM]
        if stage:
            expect_stage(path, facts, stage)
        self.facts = facts | {DIGEST: checksum}

    def tensors(self) -> dict[str, "torch.Tensor"]:
        """Its tensors by name, memory-mapped, on the CPU.

        Raises:
            UserError: the file has changed since it was opened.
        """
        with reading(self.path):
            found = _map(self.path)
        self._expect_the_same()
        return found

    def rows(self, name: str, index: Iterable[int]) -> "np.ndarray":
        """Some rows of a tensor, as numpy's array: no other is read, nor torch imported.

        Raises:
            UserError: no such tensor, or the file has changed since it was opened.
        """
        import numpy as np  # readers of facts spare it

        with reading(self.path), safe_open(self.path, framework="numpy") as file:
            tensor = file.get_slice(name)
            found = np.stack([tensor[int(row)] for row in index])
        self._expect_the_same()
        return found

    def _expect_the_same(self) -> None:
        """Raises a ``UserError`` if the file has changed since it was opened."""
        with reading(self.path):
            same = _identity(os.stat(self.path)) == self._seen
        if not same:
            raise UserError(f"{self.path}: changed since this job began; run again")


def _identity(of: os.stat_result) -> tuple[int, ...]:
    """What tells a file from one that took its place."""
    return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns


def read_tensors(path: Path, *, stage: str | None = None) -> tuple[dict[str, "torch.Tensor"], dict]:
    """Named tensors (memory-mapped, CPU) and the facts stored with them; see ``TensorFile``.

    Raises:
        UserError: missing or damaged file, no checksum, or a file of another stage.
    """
    file = TensorFile(path, stage=stage)
    return file.tensors(), file.facts


def read_tensor_facts(path: Path, *, stage: str | None = None) -> dict:
    """The facts of ``read_tensors``, without importing any tensor library.

    Raises:
        UserError: missing or damaged file, no checksum, or a file of another stage.
    """
    return TensorFile(path, stage=stage).facts


def read_foreign_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """Named tensors of a file that the user brings: it carries no checksum.

    Raises:
        UserError: missing or damaged file, or one of another format.
    """
    remedy = BRING
    if os.path.isfile(path):
        with reading(path, BRING), open(path, "rb") as file:
            start = file.read(64)
        found = [what for mark, what in _OTHERS.items() if start.startswith(mark)]
        remedy = found[0] if found else BRING
    with reading(path, remedy):
        return _map(path)


def _map(path: Path) -> dict[str, "torch.Tensor"]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}


def _header(file: BinaryIO) -> bytes:
    """The first bytes of a safetensors file, with their length; ``ValueError`` if it has none."""
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if not 2 <= size <= _MAX_HEADER:
        raise ValueError("no safetensors file")
    return length + file.read(size)


def _rest(file: BinaryIO) -> Iterator[bytes]:
    """What was not read yet, piece by piece."""
    return iter(lambda: file.read(_CHUNK), b"")
