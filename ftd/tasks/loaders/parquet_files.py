"""Parquet files of encoded images, in the layout of Hugging Face."""

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types
from PIL.Image import Image

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import did_you_mean
from ftd.tasks.frames import Frame, values_of
from ftd.tasks.loaders import (
    DAMAGED,
    Annotation,
    Counted,
    Splits,
    check_each_once,
    read_picture,
    stand_in,
)
from ftd.tasks.loaders.class_names import common_names
from ftd.tasks.loaders.modalities import about, read_map, source_of
from ftd.tasks.loaders.turned import check_upright

_MAX_GROUP = 1 << 30  # bytes that a row group may unpack to, if that is much more than it takes
_MAX_RATIO = 20  # encoded images hardly become smaller
_MAX_BATCH = 64 << 20  # bytes of a batch of rows


def open_parquet(name: str, settings: Dataset, root: Path) -> Splits:
    """Parquet files with a struct column of encoded images (``bytes``) and an integer label.

    Raises:
        UserError: missing or damaged files, one given twice, wrong columns, or other classes in
            one file than in another.
    """
    train = _ParquetSplit(name, settings, root, settings.train)
    test = _ParquetSplit(name, settings, root, settings.test) if settings.test else None
    check_each_once(name, train.paths + (test.paths if test else []))
    metadata = train.metadata() | (test.metadata() if test else {})
    names = {}
    if settings.label is not None:
        names = common_names(name, metadata, settings.names, settings.label)
    return train.counted(), test.counted() if test else None, names


class _ParquetSplit:
    def __init__(self, name: str, settings: Dataset, root: Path, files: str | list[str]):
        self.name, self.settings = name, settings
        self.noted: Counter[str] = Counter()
        self.paths = [root / file for file in ([files] if isinstance(files, str) else files)]
        self.readers = []
        for path in self.paths:
            try:
                reader = pq.ParquetFile(path)
            except (OSError, ValueError) as error:
                reason = stand_in(path) or str(error).partition("\n")[0]
                raise UserError(f"data set {name}: {path} cannot be read ({reason})") from error
            self._check_columns(path, reader.schema_arrow)
            self._check_sizes(path, reader.metadata)
            self.readers.append(reader)
        self.count = sum(reader.metadata.num_rows for reader in self.readers)

    def _check_columns(self, path: Path, schema: pa.Schema) -> None:
        for key, column in self._columns().items():
            if column not in schema.names:
                hint = did_you_mean(column, schema.names)
                raise UserError(
                    f"datasets.{self.name}.{key}: {path} has no column {column!r}{hint}"
                )
        modalities = self.settings.described().items()
        maps = [source_of(*pair) for pair in modalities if pair[1].kind != "intrinsics"]
        for column in (self.settings.image, *maps):
            kind = schema.field(column).type
            if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise UserError(f"{path}: column {column!r} is no struct with 'bytes'")
        label, group = self.settings.label, self.settings.group
        if label is not None and not types.is_integer(kind := schema.field(label).type):
            raise UserError(
                f"{path}: column {label!r} holds no whole numbers, but {kind}; write the classes' "
                "numbers there, and their names into the file's metadata (see "
                f"datasets.{self.name}.names)"
            )
        if group is not None and not _tells_apart(kind := schema.field(group).type):
            raise UserError(
                f"{path}: column {group!r} holds neither whole numbers nor names, but {kind}; "
                f"write one of these there, or give another column for datasets.{self.name}.group"
            )

    def _columns(self) -> dict[str, str]:
        """The columns that are read, by the keys that name them."""
        found = {key: getattr(self.settings, key) for key in ("image", "label", "group")}
        modalities = self.settings.described().items()
        found |= {f"modalities.{name}": source_of(name, each) for name, each in modalities}
        return {key: column for key, column in found.items() if column is not None}

    def _check_sizes(self, path: Path, metadata) -> None:
        """A row group is unpacked in memory: a small file must not become gigabytes there."""
        for group in range(metadata.num_row_groups):
            size, packed = _sizes(metadata.row_group(group))
            if size > max(_MAX_GROUP, _MAX_RATIO * packed):
                raise UserError(
                    f"data set {self.name}: {path}, row group {group} takes {packed / 2**20:.1f} "
                    f"MiB and unpacks to {size / 2**30:.1f} GiB; these are no encoded images, or "
                    "write the file with smaller row groups"
                )

    def metadata(self) -> dict[Path, dict[bytes, bytes]]:
        """What the files say of themselves."""
        found = (reader.schema_arrow.metadata or {} for reader in self.readers)
        return dict(zip(self.paths, found, strict=True))

    def counted(self) -> Counted:
        return Counted(self.images(), self.count, noted=self.noted)

    def images(self) -> Iterator[tuple[Image, Annotation]]:
        for path, reader in zip(self.paths, self.readers, strict=True):
            row = 0
            try:
                for values in self._rows(reader):
                    yield self._read(values)
                    row += 1
            except DAMAGED as error:
                reason = str(error).partition("\n")[0]
                raise UserError(
                    f"data set {self.name}: {path}, row {row} cannot be read ({reason})"
                ) from error

    def _read(self, values: dict[str, Any]) -> tuple[Image, Annotation]:
        """A row's picture, and its label or the whole frame."""
        settings, label = self.settings, None
        if settings.label is not None:
            label = values[settings.label]
            if label is None:
                raise ValueError("it has no label: give it one, or take the row out")
            label = np.int64(label)
        picture = read_picture(io.BytesIO(_bytes_of(values[settings.image])), self.noted)
        if not settings.described() and settings.group is None:
            return picture, label
        group = None
        if settings.group is not None:
            group = values[settings.group]
            if group is None:
                raise ValueError(f"its {settings.group} is missing: give it one")
        if settings.described():
            check_upright(picture)
        found = {}
        for name, modality in settings.described().items():
            value = values[source_of(name, modality)]
            with about(f"column {source_of(name, modality)}"):
                if modality.kind == "intrinsics":
                    found[name] = values_of(np.asarray(value), modality, picture.size)
                else:
                    content = io.BytesIO(_bytes_of(value))
                    found[name] = read_map(content, modality, picture.size)
        return picture, Frame(label, found, group)

    def _rows(self, reader: pq.ParquetFile) -> Iterator[dict[str, Any]]:
        columns = list(dict.fromkeys(self._columns().values()))
        for group in range(reader.num_row_groups):
            rows = _rows_at_once(reader.metadata.row_group(group))
            for batch in reader.iter_batches(rows, row_groups=[group], columns=columns):
                found = (batch.column(name).to_pylist() for name in columns)
                for values in zip(*found, strict=True):
                    yield dict(zip(columns, values, strict=True))


def _tells_apart(kind: pa.DataType) -> bool:
    """Whether values of a type can be those of groups."""
    own = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(own) or types.is_string(own) or types.is_large_string(own)


def _bytes_of(image: dict | None) -> bytes:
    """An encoded image out of its struct; ``ValueError`` if it is not there."""
    content, path = (image or {}).get("bytes"), (image or {}).get("path")
    if content is None and path is not None:
        raise ValueError(
            f"it holds no bytes, only the path {path!r}: write the file with its images embedded, "
            "as Dataset.push_to_hub does"
        )
    if not content:
        raise ValueError("it has no image: give it one, or take the row out")
    return content


def _sizes(group) -> tuple[int, int]:
    """Bytes that the largest column of a row group unpacks to, and takes, as its metadata say."""
    columns = [group.column(number) for number in range(group.num_columns)]
    return max((c.total_uncompressed_size, c.total_compressed_size) for c in columns)


def _rows_at_once(group) -> int:
    """So few that a batch stays small even if a dictionary gives every row the largest value."""
    return min(1024, max(1, _MAX_BATCH // max(1, _sizes(group)[0])))
