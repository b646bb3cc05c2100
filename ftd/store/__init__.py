"""Artifacts on disk: Parquet, safetensors and JSON, whole, checked, and with their facts.

What reads an artifact returns its content, its facts and, among them as ``sha256``, its checksum,
from one pass over the file. Facts so read may be handed to a writer: it leaves that key out.

This package imports no torch, no pyarrow and no pandas, nor numpy.
"""

from pathlib import Path

from ftd.errors import UserError
from ftd.store.documents import JSON_KEY, read_document, read_json, read_json_facts, write_json
from ftd.store.files import (
    canonical,
    digest,
    expect_stage,
    full_disk,
    scratch_array,
    write_bytes,
)
from ftd.store.tables import (
    read_foreign_table,
    read_table,
    table_checksum,
    table_facts,
    write_table,
)
from ftd.store.tensors import (
    TensorFile,
    read_foreign_tensors,
    read_tensor_facts,
    read_tensors,
    write_tensors,
)

__all__ = [
    "JSON_KEY",
    "TensorFile",
    "canonical",
    "checksum",
    "digest",
    "expect_stage",
    "full_disk",
    "read_document",
    "read_foreign_table",
    "read_foreign_tensors",
    "read_json",
    "read_json_facts",
    "read_table",
    "read_tensor_facts",
    "read_tensors",
    "scratch_array",
    "table_facts",
    "write_bytes",
    "write_json",
    "write_table",
    "write_tensors",
]


def checksum(path: Path) -> str:
    """An artifact's own SHA-256, hexadecimal, compared with its content; nothing is decoded.

    Raises:
        UserError: no artifact by its suffix, missing or damaged, or without a checksum.
    """
    suffix = Path(path).suffix
    if suffix == ".parquet":
        return table_checksum(path)
    if suffix == ".safetensors":
        return read_tensor_facts(path)["sha256"]
    if suffix == ".json":
        return read_json_facts(path)["sha256"]
    raise UserError(f"{path}: expected a .parquet, .safetensors or .json file")
