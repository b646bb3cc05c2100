"""Tables as Parquet (zstd), with their facts as canonical JSON under one metadata key.

Functions import pyarrow (0.2 s): a checksum needs none, nor does what reads no table.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

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
    verified,
    without_digest,
    write_bytes,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MAX_TABLE = 4 << 30  # bytes of a table in memory


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
        about = {} if facts is None else {KEY: canonical(without_digest(facts))}
        writer.add_key_value_metadata(about | {CHECKSUM: BLANK.decode()})
    content = sink.getvalue().to_pybytes()
    at = digits_at(content, _footer_at(content))
    checksum = checksum_of(content, at).encode()
    write_bytes(path, content[:at] + checksum + content[at + len(checksum) :])


def read_table(
    path: Path, columns: list[str] | None = None, *, stage: str | None = None
) -> "pa.Table":
    """A table that ``write_table`` wrote, or some of its columns; see ``table_facts``.

    Raises:
        UserError: missing or damaged file, no checksum, a file of another stage, or no such
            columns.
    """
    with reading(path):
        content, checksum = _whole(path)
        file = _open(content)
        facts = file.metadata.metadata.get(KEY.encode())
        if stage:
            expect_stage(path, json.loads(facts or b"{}"), stage)
        table = _columns(path, file, columns)
    about = {} if facts is None else {KEY: facts}
    return table.replace_schema_metadata(about | {CHECKSUM: checksum})


def table_checksum(path: Path) -> str:
    """The checksum of a table that ``write_table`` wrote; nothing is decoded.

    Raises:
        UserError: missing or damaged file, or no checksum.
    """
    with reading(path):
        return _whole(path)[1]


def read_foreign_table(path: Path) -> "pa.Table":
    """A table that the user brings: it carries no checksum.

    Raises:
        UserError: missing or damaged file.
    """
    with reading(path, BRING):
        return _columns(path, _open(Path(path).read_bytes()), None)


def table_facts(table: "pa.Table") -> dict:
    """The facts that were stored with a table that ``read_table`` read.

    Beside them, as ``sha256``, the checksum of that file.
    """
    metadata = table.schema.metadata or {}
    facts = json.loads(metadata.get(KEY.encode(), b"{}"))
    checksum = metadata.get(CHECKSUM.encode())
    return facts | ({} if checksum is None else {DIGEST: checksum.decode()})


def _whole(path: Path) -> tuple[bytes, str]:
    """A file's content and its checksum, compared."""
    content = Path(path).read_bytes()
    return content, verified(path, content, _footer_at(content))


def _footer_at(content: bytes) -> int:
    """Where the footer of a Parquet file begins; 0 if it has no end."""
    return max(0, len(content) - 8 - int.from_bytes(content[-8:-4], "little"))


def _open(content: bytes) -> "pq.ParquetFile":
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(content))


def _columns(path: Path, file: "pq.ParquetFile", columns: list[str] | None) -> "pa.Table":
    """What a file holds, without metadata, after a look at how much that is."""
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
    return file.read(columns=columns).replace_schema_metadata(None)
