"""Tasks: data sets, their cut, slices of them, and targets. Registers the loaders and targets."""

from typing import Annotated, Any

from pydantic import field_validator, model_validator

from ftd.config.base import Expanded, PathText, Section
from ftd.parts import register_loader, register_target
from ftd.tasks.dense_keys import LabelsOfPixels, Numbers, Vectors, YesOrNo
from ftd.tasks.labels import ClassLabels
from ftd.tasks.modality_keys import FrameFolders, Modal, TaskonomyFiles


class Folders(Section):
    """Folders, below ``data_root``, of a folder for each class."""

    train: PathText
    test: PathText | None = None

    @field_validator("train", "test", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise ValueError("expected one folder, got a list")
        return value


class ParquetFiles(Modal):
    """Files, below ``data_root``, and their columns; ``names``: a metadata key with a list.

    ``label``: ``None`` where frames have no class, but modalities alone. ``group``: the column
    that tells scenes apart, of which none is in two parts.
    """

    train: Annotated[str | list[str], Expanded]
    test: Annotated[str | list[str], Expanded] | None = None
    image: str = "image"
    label: str | None = "label"
    group: str | None = None
    names: str | None = None

    @field_validator("train", "test")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("expected a file, or a list of at least one, got []")
        return value

    @model_validator(mode="after")
    def _something(self) -> "ParquetFiles":
        if self.label is None and not self.modalities:
            raise ValueError("label: none, and no modalities: the images mean nothing")
        return self


register_loader("sklearn-digits", "ftd.tasks.loaders.digits:open_digits")
register_loader("torchvision", "ftd.tasks.loaders.torchvision_sets:open_torchvision")
register_loader("imagefolder", "ftd.tasks.loaders.folders:open_folders", settings=Folders)
register_loader("parquet", "ftd.tasks.loaders.parquet_files:open_parquet", settings=ParquetFiles)
register_loader(
    "frame-folders", "ftd.tasks.loaders.frame_folders:open_frame_folders", settings=FrameFolders
)
register_loader("taskonomy", "ftd.tasks.loaders.taskonomy:open_taskonomy", settings=TaskonomyFiles)
register_target(
    "classes",
    "ftd.tasks.targets.classes:of_slice",
    settings=ClassLabels,
    slice="ftd.tasks.class_slices:slice_classes",
)
register_target(
    "regression",
    "ftd.tasks.dense_slices:regression",
    settings=Numbers,
    describe="ftd.tasks.dense_slices:moments",
)
register_target(
    "unit-vectors",
    "ftd.tasks.dense_slices:unit_vectors",
    settings=Vectors,
)
register_target(
    "binary-maps",
    "ftd.tasks.dense_slices:binary_maps",
    settings=YesOrNo,
    describe="ftd.tasks.dense_slices:channels",
)
register_target(
    "pixel-classes",
    "ftd.tasks.dense_slices:pixel_classes",
    settings=LabelsOfPixels,
    describe="ftd.tasks.dense_slices:classes",
)
