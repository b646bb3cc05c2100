"""torchvision's data sets."""

import inspect
from pathlib import Path

from torchvision import datasets

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import did_you_mean
from ftd.tasks.loaders import Splits, indexed


def open_torchvision(name: str, settings: Dataset, root: Path) -> Splits:
    """A torchvision data set by class name, read below ``root`` or downloaded there.

    Raises:
        UserError: an unknown class, or one without train and test split; damaged files.
    """
    member = settings.loader.partition(":")[2]
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
    return indexed(name, train), indexed(name, test), names


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
