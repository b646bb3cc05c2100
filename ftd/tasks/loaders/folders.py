"""A folder of images per class."""

from pathlib import Path

from PIL.Image import open as open_image
from torchvision.datasets import ImageFolder

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.tasks.loaders import DAMAGED, Splits, indexed


def open_folders(name: str, settings: Dataset, root: Path) -> Splits:
    """Folders of images, one a class; ``train`` and, if given, ``test`` are such folders.

    Raises:
        UserError: a folder that is none, or whose classes differ from the other's.
    """

    def load(path: str):
        try:
            with open_image(path) as picture:
                picture.load()
                return picture
        except DAMAGED as error:
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

    train = folder("train")
    test = folder("test") if settings.test else None
    if test and test.class_to_idx != train.class_to_idx:
        raise UserError(f"data set {name}: train and test folders have different classes")
    names = dict(enumerate(train.classes))
    return indexed(name, train), indexed(name, test) if test else None, names
