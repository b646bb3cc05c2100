"""torchvision's data sets."""

import inspect
import tempfile
from collections.abc import Iterable
from pathlib import Path

from torchvision import datasets

from ftd.config import Dataset
from ftd.errors import UserError
from ftd.names import did_you_mean
from ftd.tasks.loaders import Splits, indexed


def open_torchvision(name: str, settings: Dataset, root: Path) -> Splits:
    """A torchvision data set by class name, read below ``root`` or downloaded there.

    Raises:
        UserError: an unknown class, or one that is opened otherwise than by train and test split;
            damaged files.
    """
    member = settings.loader.partition(":")[2]
    kind = getattr(datasets, member, None)
    if kind is None or not inspect.isclass(kind):
        hint = did_you_mean(member, datasets.__all__)
        raise UserError(f"data set {name}: torchvision has no data set {member!r}{hint}")
    accepted = inspect.signature(kind).parameters
    remedy = "use the loader imagefolder or parquet, or one of your own"
    if "train" in accepted:
        choices = ({"train": True}, {"train": False})
    elif "split" in accepted:
        choices = ({"split": "train"}, {"split": "test"})
    else:
        raise UserError(
            f"data set {name}: torchvision's {member} has no train and test split; {remedy}"
        )
    if reason := _misfit(kind, choices):
        raise UserError(
            f"data set {name}: torchvision's {member} is not opened by train and test split alone "
            f"({reason}); {remedy}"
        )
    train, test = (_construct(name, kind, root, choice) for choice in choices)
    names = dict(enumerate(str(item) for item in getattr(train, "classes", [])))
    return indexed(name, train), indexed(name, test), names


def _misfit(kind: type, choices: Iterable[dict]) -> str | None:
    """What is wrong with the arguments; where no file is, a wrong value can be but one of them.

    Asked before anything is read or downloaded for one split that the other has not.
    """
    for choice in choices:
        with tempfile.TemporaryDirectory() as nowhere:
            try:
                kind(nowhere, **choice)
            except (TypeError, ValueError) as problem:
                return str(problem).partition("\n")[0]
            except Exception:  # the files that are missing
                continue
    return None


def _construct(name: str, kind: type, root: Path, choice: dict):
    """Read what lies on disk; download only what is missing."""
    makers = [inspect.signature(base.__init__).parameters for base in kind.__mro__]
    can_download = any("download" in accepted for accepted in makers)  # QMNIST hands it on
    error: Exception | None = None
    for download in (False, True) if can_download else (None,):
        extra = {} if download is None else {"download": download}
        try:
            return kind(root, **choice, **extra)
        except Exception as problem:  # whatever a third-party reader raises on a damaged file
            error = problem
            missing = isinstance(problem, FileNotFoundError)
            if download is False and not missing and "not found" not in str(problem).lower():
                break
    reason = str(error).partition("\n")[0] or type(error).__name__
    hint = " (they are downloaded if missing)" if can_download else ""
    raise UserError(
        f"data set {name}: torchvision's {kind.__name__} cannot be read below {root} ({reason}); "
        f"complete or delete its files there{hint}, or set data_root"
    ) from error
