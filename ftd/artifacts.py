"""Reading and writing artifacts: Parquet, safetensors and JSON, atomically, with their facts.

Every file is written whole to a temporary neighbour and renamed, so that a reader sees the old
file or the new one and an interrupted job leaves nothing behind. Tables and tensors carry one
metadata key, ``ftd``, that holds canonical JSON (one key: safetensors does not keep an order).
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ftd.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

KEY = "ftd"


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
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
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


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns a missing or damaged file into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that makes it") from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read, perhaps truncated ({reason}); delete it and run again"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write small facts as indented JSON with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    with _reading(path):
        return json.loads(Path(path).read_text())


def write_table(path: Path, table: "pa.Table", facts: dict | None = None) -> None:
    """Write a table as Parquet (zstd); ``facts`` become its metadata.

    Numbers of float64 are split into their bytes, which compresses them better than a dictionary.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [field.name for field in table.schema if field.type == pa.float64()]
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
        writer.add_key_value_metadata({KEY: canonical(facts or {})})
    write_bytes(path, sink.getvalue().to_pybytes())


def read_table(path: Path, columns: list[str] | None = None) -> "pa.Table":
    import pyarrow.parquet as pq

    with _reading(path):
        return pq.ParquetFile(path).read(columns=columns)


def table_facts(table: "pa.Table") -> dict:
    """The facts that ``write_table`` stored; empty if there are none."""
    return json.loads((table.schema.metadata or {}).get(KEY.encode(), b"{}"))


def write_tensors(path: Path, tensors: dict[str, "torch.Tensor"], facts: dict) -> None:
    """Write named tensors and their facts as safetensors."""
    from safetensors.torch import save_file

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(Path(path)) as file:
        save_file(content, file, metadata={KEY: canonical(facts)})


def read_tensors(path: Path) -> tuple[dict[str, "torch.Tensor"], dict]:
    """Named tensors (memory-mapped, CPU) and the facts stored with them."""
    with _reading(path), safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get(KEY, "{}"))
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, facts


def read_tensor_facts(path: Path) -> dict:
    """The facts stored with tensors, without reading or importing any tensor library."""
    with _reading(path), safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get(KEY, "{}"))
