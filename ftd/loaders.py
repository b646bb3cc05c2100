"""Loaders: where a data set's images and class numbers come from."""

import inspect
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import DecompressionBombError, Image, fromarray
from PIL.Image import open as open_image

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import did_you_mean

_MAX_GROUP = 1 << 30  # bytes that a row group may unpack to, if that is much more than it takes
_MAX_RATIO = 20  # encoded images hardly become smaller
_MAX_BATCH = 64 << 20  # bytes of a batch of rows
# What PIL raises, and what a label raises that is no number of 64 bits.
_DAMAGED = (OSError, ValueError, SyntaxError, DecompressionBombError, OverflowError)


@dataclass(frozen=True)
class Source:
    """Decodable images of one official split: an iterable of (image, class) and its length."""

    images: Iterable[tuple[Image, int]]
    count: int


@dataclass(frozen=True)
class Splits:
    """What a loader finds: official splits and the names of the classes."""

    train: Source
    test: Source | None
    names: dict[int, str]


def open_splits(name: str, settings: Dataset, root: Path) -> Splits:
    """Find the images of data set ``name`` below ``root`` (its own files are not decoded yet).

    Raises:
        UserError: unknown torchvision class, missing or damaged files, wrong columns.
    """
    kind, _, member = settings.loader.partition(":")
    if kind == "sklearn-digits":
        return _sklearn_digits()
    if kind == "torchvision":
        return _torchvision(name, member, root)
    if kind == "imagefolder":
        return _imagefolder(name, settings, root)
    return _parquet(name, settings, root)


def _sklearn_digits() -> Splits:
    """The 1,797 8×8 digits that scikit-learn ships: 17 grey levels, no official test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pairs = zip((fromarray(p) for p in pixels), bunch.target, strict=True)
    return Splits(Source(pairs, len(pixels)), None, {c: str(c) for c in range(10)})


def _torchvision(name: str, member: str, root: Path) -> Splits:
    """A torchvision data set by class name, read below ``root`` or downloaded there."""
    from torchvision import datasets

    kind = getattr(datasets, member, None)
    if kind is None or not inspect.isclass(kind):
        hint = did_you_mean(member, datasets.__all__)
        raise UserError(f"data set {name}: torchvision has no data set {member!r}{hint}")
    accepted = inspect.signature(kind).parameters
    if "train" in accepted:
        choices = ({"train": True}, {"train": False})
    elif "split" in accepted:
        choices = ({"split": "train"}, {"split": "test"})
    else:
        raise UserError(
            f"data set {name}: torchvision's {member} has no train and test split; "
            "use the loader imagefolder or parquet"
        )
    train, test = (_construct(name, kind, root, choice) for choice in choices)
    names = dict(enumerate(str(item) for item in getattr(train, "classes", [])))
    return Splits(_indexed(name, train), _indexed(name, test), names)


def _construct(name: str, kind: type, root: Path, choice: dict):
    """Read what lies on disk; download only what is missing."""
    can_download = "download" in inspect.signature(kind).parameters
    error: Exception | None = None
    for download in (False, True) if can_download else (None,):
        extra = {} if download is None else {"download": download}
        try:
            return kind(root, **choice, **extra)
        except Exception as problem:  # whatever a third-party reader raises on a damaged file
            error = problem
            if download is False and "not found" not in str(problem).lower():
                break
    reason = str(error).partition("\n")[0] or type(error).__name__
    raise UserError(
        f"data set {name}: torchvision's {kind.__name__} cannot be read below {root} ({reason}); "
        "complete or delete its files there (they are downloaded if missing), or set data_root"
    ) from error


def _indexed(name: str, split) -> Source:
    def images() -> Iterator:
        for row in range(len(split)):
            try:
                picture, label = split[row]
                label = np.int64(label)
            except (*_DAMAGED, TypeError) as error:
                reason = str(error).partition("\n")[0]
                raise UserError(
                    f"data set {name}: image {row} or its class cannot be read ({reason})"
                ) from error
            yield picture, label

    return Source(images(), len(split))


def _imagefolder(name: str, settings: Dataset, root: Path) -> Splits:
    """Folders of images, one a class; ``train`` and, if given, ``test`` are such folders."""
    from torchvision.datasets import ImageFolder

    def load(path: str):
        try:
            with open_image(path) as picture:
                picture.load()
                return picture
        except _DAMAGED as error:
            raise ValueError(f"{path}: {error}") from error

    def folder(key: str) -> ImageFolder:
        path = root / getattr(settings, key)
        try:
            return ImageFolder(path, loader=load)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"data set {name}: {path} is no folder of class folders ({reason}); "
                f"check datasets.{name}.{key} and data_root"
            ) from error

    for key in ("train", "test"):
        if isinstance(getattr(settings, key), list):
            raise UserError(f"datasets.{name}.{key}: expected one folder, got a list")
    train = folder("train")
    test = folder("test") if settings.test else None
    if test and test.class_to_idx != train.class_to_idx:
        raise UserError(f"data set {name}: train and test folders have different classes")
    names = dict(enumerate(train.classes))
    return Splits(_indexed(name, train), _indexed(name, test) if test else None, names)


def _parquet(name: str, settings: Dataset, root: Path) -> Splits:
    """Parquet files with a struct column of encoded images (``bytes``) and an integer label."""
    train = _ParquetSplit(name, settings, root, settings.train)
    test = _ParquetSplit(name, settings, root, settings.test) if settings.test else None
    return Splits(
        Source(train.images(), train.count),
        Source(test.images(), test.count) if test else None,
        train.names(),
    )


class _ParquetSplit:
    def __init__(self, name: str, settings: Dataset, root: Path, files: str | list[str]):
        import pyarrow.parquet as pq

        self.name, self.settings = name, settings
        self.paths = [root / file for file in ([files] if isinstance(files, str) else files)]
        self.readers = []
        for path in self.paths:
            try:
                reader = pq.ParquetFile(path)
            except (OSError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"data set {name}: {path} cannot be read ({reason})") from error
            self._check_columns(path, reader.schema_arrow)
            self._check_sizes(path, reader.metadata)
            self.readers.append(reader)
        self.count = sum(reader.metadata.num_rows for reader in self.readers)

    def _check_columns(self, path: Path, schema) -> None:
        import pyarrow.types as types

        for key in ("image", "label"):
            column = getattr(self.settings, key)
            if column not in schema.names:
                hint = did_you_mean(column, schema.names)
                raise UserError(
                    f"datasets.{self.name}.{key}: {path} has no column {column!r}{hint}"
                )
        kind = schema.field(self.settings.image).type
        if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            raise UserError(f"{path}: column {self.settings.image!r} is no struct with 'bytes'")
        if not types.is_integer(schema.field(self.settings.label).type):
            raise UserError(f"{path}: column {self.settings.label!r} holds no whole numbers")

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

    def names(self) -> dict[int, str]:
        """Class names from the metadata key ``names``, or from the ``huggingface`` features."""
        metadata = self.readers[0].schema_arrow.metadata or {}
        key = self.settings.names
        try:
            if key:
                found = json.loads(metadata[key.encode()])
            else:
                features = json.loads(metadata.get(b"huggingface", b"{}"))
                label = features.get("info", {}).get("features", {}).get(self.settings.label, {})
                found = label.get("names") or []
        except (KeyError, ValueError) as error:
            known = [name.decode() for name in metadata]
            raise UserError(
                f"datasets.{self.name}.names: {self.paths[0]} has no such list of names"
                f"{did_you_mean(key, known)}"
            ) from error
        return dict(enumerate(str(item) for item in found))

    def images(self) -> Iterator[tuple[Image, int]]:
        for path, reader in zip(self.paths, self.readers, strict=True):
            row = 0
            try:
                for content, label in self._rows(reader):
                    with open_image(io.BytesIO(content)) as picture:
                        picture.load()
                    yield picture, np.int64(label)
                    row += 1
            except (*_DAMAGED, TypeError) as error:
                reason = str(error).partition("\n")[0]
                raise UserError(
                    f"data set {self.name}: {path}, row {row} cannot be read ({reason})"
                ) from error

    def _rows(self, reader) -> Iterator[tuple[bytes, int]]:
        columns = [self.settings.image, self.settings.label]
        for group in range(reader.num_row_groups):
            rows = _rows_at_once(reader.metadata.row_group(group))
            for batch in reader.iter_batches(rows, row_groups=[group], columns=columns):
                images = batch.column(self.settings.image).field("bytes").to_pylist()
                yield from zip(images, batch.column(self.settings.label).to_pylist(), strict=True)


def _sizes(group) -> tuple[int, int]:
    """Bytes that the largest column of a row group unpacks to, and takes, as its metadata say."""
    columns = [group.column(number) for number in range(group.num_columns)]
    return max((c.total_uncompressed_size, c.total_compressed_size) for c in columns)


def _rows_at_once(group) -> int:
    """So few that a batch stays small even if a dictionary gives every row the largest value."""
    return min(1024, max(1, _MAX_BATCH // max(1, _sizes(group)[0])))
