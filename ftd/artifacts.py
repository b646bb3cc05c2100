"""Reading and writing artifacts: Parquet, safetensors and JSON, atomically, with their facts.

Every file is written whole to a temporary neighbour and renamed, so that a reader sees the old
file or the new one and an interrupted job leaves nothing behind. Tables and tensors carry a
metadata key, ``ftd``, that holds canonical JSON (one key: safetensors does not keep an order);
JSON has a key ``_ftd``, which no task can be called.

Every file carries its own SHA-256, taken with a placeholder in place of its 64 digits: of all
bytes of tables and tensors, of the canonical text of JSON. Reading compares it before anything
else is made of the content, so a damaged file reaches no decoder. It is no signature.
"""

import fcntl
import glob
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from safetensors import SafetensorError, safe_open

from ftd.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

KEY = "ftd"
JSON_KEY = "_ftd"
_CHECKSUM = "ftd-sha256"
_BLANK = hashlib.sha256(_CHECKSUM.encode()).hexdigest().encode()  # stands where the digits will
# In Parquet's footer, a key and its value's length; in a safetensors header, JSON within JSON.
_DIGITS = re.compile(rb'ftd-sha256(?:\x18@|\\":\\")([0-9a-f]{64})')
_CHUNK = 1 << 20
_MAX_HEADER = 100_000_000  # bytes, safetensors' own limit
_MAX_TABLE = 4 << 30  # bytes of a table in memory


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with _reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` atomically, creating its folder."""
    with _replacing(Path(path)) as file:
        file.write_bytes(content)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
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
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # else it was taken for a leftover a moment ago
            return file, name
        file.close()


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of ``path``: half-written neighbours that none holds."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with suppress(OSError), open(old, "r+b") as file:  # NFS locks no file open to read
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old.unlink()


@contextmanager
def scratch_array(folder: Path, shape: tuple[int, ...]) -> Iterator["np.ndarray"]:
    """A uint8 array on disk, gone afterwards: memory holds only what is being used of it.

    Raises:
        UserError: no space below ``folder``.
    """
    import numpy as np

    size = math.prod(shape)
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
        yield np.memmap(file, np.uint8, "r+", shape=shape)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_BRING = "check the file that was given"
_UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError),
    *(RecursionError, MemoryError, NotImplementedError, OverflowError),
)  # what the decoders raise for files of any content


@contextmanager
def _reading(path: Path, remedy: str = "delete it and run again") -> Iterator[None]:
    """Turns a missing or damaged file into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that makes it") from error
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read, perhaps truncated ({reason}); {remedy}"
        ) from error


def _compare(path: Path, found: str, recorded: str | None) -> None:
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


def expect_stage(path: Path, facts: dict, stage: str) -> None:
    """Raises a ``UserError`` if the facts of ``path`` are not those of a stage."""
    if facts.get("stage") != stage:
        found = f"one of the stage {facts['stage']}" if "stage" in facts else "another"
        raise UserError(f"{path}: expected a file of the stage {stage}, this is {found}")


def write_json(
    path: Path, value: dict, facts: dict | None = None, *, sort_keys: bool = True
) -> None:
    """Write a mapping as indented JSON; ``facts`` go under a key of their own."""
    about = (facts or {}) | {"sha256": _json_checksum(value, facts or {})}
    text = json.dumps({JSON_KEY: about} | value, indent=2, sort_keys=sort_keys, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict:
    """The mapping that ``write_json`` wrote, without the facts."""
    return _read_json(path)[0]


def read_json_facts(path: Path) -> dict:
    """The facts that ``write_json`` stored; empty if there are none."""
    return _read_json(path)[1]


def _read_json(path: Path) -> tuple[dict, dict]:
    with _reading(path):
        value = json.loads(Path(path).read_bytes())
        facts = value.pop(JSON_KEY, {}) if isinstance(value, dict) else {}
        recorded = facts.pop("sha256", None)
        _compare(path, _json_checksum(value, facts), recorded)
    return value, facts


def _json_checksum(value: Any, facts: dict) -> str:
    return hashlib.sha256(canonical([value, facts]).encode()).hexdigest()


def write_table(path: Path, table: "pa.Table", facts: dict | None = None) -> None:
    """Write a table as Parquet (zstd); ``facts`` become its metadata.

    Floats are split into their bytes, which compresses them better than a dictionary.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    table = table.replace_schema_metadata(None)  # it would be written twice
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in numbers],
        use_byte_stream_split=numbers,
        write_statistics=False,
    ) as writer:
        writer.write_table(table)
        about = {} if facts is None else {KEY: canonical(facts)}
        writer.add_key_value_metadata(about | {_CHECKSUM: _BLANK.decode()})
    content = sink.getvalue().to_pybytes()
    at = _digits_at(content, _footer_at(content))
    checksum = hashlib.sha256(content).hexdigest().encode()
    write_bytes(path, content[:at] + checksum + content[at + len(checksum) :])


def read_table(path: Path, columns: list[str] | None = None) -> "pa.Table":
    """A table that ``write_table`` wrote, or some of its columns.

    Raises:
        UserError: missing or damaged file, no checksum, or no such columns.
    """
    with _reading(path):
        content = Path(path).read_bytes()
        at = _digits_at(content, _footer_at(content))
        recorded = None
        if at is not None:
            recorded = content[at : at + len(_BLANK)].decode()
            content = content[:at] + _BLANK + content[at + len(_BLANK) :]
        _compare(path, hashlib.sha256(content).hexdigest(), recorded)
        return _parse_table(path, content, columns)


def read_foreign_table(path: Path) -> "pa.Table":
    """A table that the user brings: it carries no checksum.

    Raises:
        UserError: missing or damaged file.
    """
    with _reading(path, _BRING):
        return _parse_table(path, Path(path).read_bytes(), None)


def _parse_table(path: Path, content: bytes, columns: list[str] | None) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(content))
    names = file.schema_arrow.names
    if missing := [name for name in columns or () if name not in names]:
        raise UserError(f"{path}: no column {', '.join(missing)}; give the right table")
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    size = sum(8 * group.num_rows * len(names) + group.total_byte_size for group in groups)
    if size > _MAX_TABLE:
        raise UserError(
            f"{path}: unpacks to {size / 2**30:.0f} GiB, more than {_MAX_TABLE >> 30} GiB; "
            "this is no table for this program"
        )
    table = file.read(columns=columns)
    facts = (table.schema.metadata or {}).get(KEY.encode())
    return table.replace_schema_metadata(None if facts is None else {KEY: facts})


def _footer_at(content: bytes) -> int:
    """Where the footer of a Parquet file begins; 0 if it has no end."""
    return max(0, len(content) - 8 - int.from_bytes(content[-8:-4], "little"))


def _digits_at(content: bytes, start: int = 0) -> int | None:
    """Where the checksum's digits lie in a Parquet footer or a safetensors header."""
    match = _DIGITS.search(content, start)
    return match and match.start(1)


def table_facts(table: "pa.Table") -> dict:
    """The facts that ``write_table`` stored; empty if there are none."""
    return json.loads((table.schema.metadata or {}).get(KEY.encode(), b"{}"))


def write_tensors(path: Path, tensors: dict[str, "torch.Tensor"], facts: dict) -> None:
    """Write named tensors and their facts as safetensors."""
    from safetensors.torch import save_file

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(Path(path)) as name:
        save_file(content, name, metadata={KEY: canonical(facts | {_CHECKSUM: _BLANK.decode()})})
        with open(name, "r+b") as file:
            at = _digits_at(_header(file))
            checksum = _checksum_of(file, b"").encode()
            file.seek(at)
            file.write(checksum)


def read_tensors(path: Path, *, stage: str | None = None) -> tuple[dict[str, "torch.Tensor"], dict]:
    """Named tensors (memory-mapped, CPU) and the facts stored with them.

    Raises:
        UserError: missing or damaged file, no checksum, or a file of another stage.
    """
    facts = read_tensor_facts(path, stage=stage)
    with _reading(path):
        return _map_tensors(path), facts


def read_foreign_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """Named tensors of a file that the user brings: it carries no checksum.

    Raises:
        UserError: missing or damaged file.
    """
    with _reading(path, _BRING):
        return _map_tensors(path)


def _map_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}


def read_tensor_facts(path: Path, *, stage: str | None = None) -> dict:
    """The facts stored with tensors, without importing any tensor library.

    Raises:
        UserError: missing or damaged file, no checksum, or a file of another stage.
    """
    with _reading(path):
        with open(path, "rb") as file:
            header = _header(file)
            at = _digits_at(header)
            recorded = None if at is None else header[at : at + len(_BLANK)].decode()
            if at is not None:
                header = header[:at] + _BLANK + header[at + len(_BLANK) :]
            _compare(path, _checksum_of(file, header), recorded)
        facts = json.loads(json.loads(header[8:])["__metadata__"][KEY])
    del facts[_CHECKSUM]
    if stage:
        expect_stage(path, facts, stage)
    return facts


def _header(file: BinaryIO) -> bytes:
    """The first bytes of a safetensors file, with their length; ``ValueError`` if it has none."""
    file.seek(0)
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if not 2 <= size <= _MAX_HEADER:
        raise ValueError("no safetensors file")
    return length + file.read(size)


def _checksum_of(file: BinaryIO, head: bytes) -> str:
    """SHA-256 of a file that begins with ``head`` in place of its own first bytes."""
    found = hashlib.sha256(head)
    file.seek(len(head))
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    return found.hexdigest()
