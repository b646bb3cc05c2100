"""Names of classes, as the metadata of Parquet files give them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftd.errors import UserError
from ftd.names import did_you_mean, one_form
from ftd.runtime.progress import log

_BAD_JSON = (ValueError, RecursionError)
_WANTED = (
    "expected a JSON list of names, or a mapping of class numbers to names or of names to class "
    "numbers"
)


def common_names(
    name: str, files: Mapping[Path, Mapping[bytes, bytes]], key: str | None, label: str
) -> dict[int, str]:
    """The names of a data set's classes by number; none if no file says any.

    Args:
        files: the metadata of each file.
        key: of the metadata, where the names are; ``None``: those of Hugging Face's features.
        label: the column of class numbers.

    Raises:
        UserError: two files that differ, what is no list of names, or no file that has ``key``.
    """
    found = {}
    for path, metadata in files.items():
        if key is None:
            names = _of_features(name, path, metadata, label)
        else:
            names = _under(name, path, metadata, key)
        if names:
            found[path] = names
    if not found and key is not None:
        path, metadata = next(iter(files.items()))
        known = [name.decode(errors="replace") for name in metadata]
        raise UserError(
            f"datasets.{name}.names: {path} has no such list of names{did_you_mean(key, known)}"
        )
    if not found:
        if silent := [path for path, metadata in files.items() if b"huggingface" in metadata]:
            log(
                f"data set {name}: the huggingface metadata of {silent[0]} name no classes of "
                f"{label!r}; their numbers are their names"
            )
        return {}
    first, names = next(iter(found.items()))
    for path, other in found.items():
        if other != names:
            raise UserError(f"data set {name}: {_difference(first, names, path, other)}")
    if silent := [path for path in files if path not in found]:
        log(
            f"data set {name}: {len(silent)} files, such as {silent[0]}, name no classes; those of "
            f"{first} are taken for theirs"
        )
    return names


def _difference(first: Path, names: dict[int, str], path: Path, other: dict[int, str]) -> str:
    number = min(n for n in names.keys() | other.keys() if names.get(n) != other.get(n))
    one, another = (repr(of[number]) if number in of else "not there" for of in (names, other))
    return (
        f"class {number} is {one} in {first} and {another} in {path}; give all files the same "
        "names in the same order"
    )


def _under(
    name: str, path: Path, metadata: Mapping[bytes, bytes], key: str
) -> dict[int, str] | None:
    """The names under a key of the metadata, if it is there."""
    text = metadata.get(key.encode())
    if text is None:
        return None
    try:
        return _by_number(json.loads(text))
    except _BAD_JSON as error:
        reason = _WANTED if isinstance(error, json.JSONDecodeError | UnicodeError) else error
        raise UserError(f"datasets.{name}.names: {key!r} of {path}: {reason}") from error


def _of_features(
    name: str, path: Path, metadata: Mapping[bytes, bytes], label: str
) -> dict[int, str] | None:
    """The names of Hugging Face's features, if there are such; what else is there names nothing."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))
    except _BAD_JSON:
        found = None
    for step in ("info", "features", label):
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not found.get("names"):
        return None
    try:
        return _by_number(found["names"])
    except ValueError as error:
        raise UserError(
            f"data set {name}: {path}: names of {label!r} in its huggingface metadata: {error}"
        ) from error


def _by_number(found: Any) -> dict[int, str]:
    """Names by class number out of a list, or of a mapping that can mean but one thing.

    Raises:
        ValueError: anything else.
    """
    if isinstance(found, list):
        pairs = list(enumerate(found))
    elif isinstance(found, dict):
        by_name = all(type(value) is int for value in found.values())
        by_number = all(key.isascii() and key.isdecimal() for key in found)
        alike = by_name and all(key == str(value) for key, value in found.items())
        if by_name == by_number and not alike:
            raise ValueError(f"{_WANTED}, got a mapping that can be read both ways or none")
        pairs = [(n, k) for k, n in found.items()] if by_name else [*found.items()]
        pairs = [(int(number), text) for number, text in pairs]
    else:
        raise ValueError(f"{_WANTED}, got {type(found).__name__}")
    for number, text in pairs:
        if type(text) not in (str, int) or number < 0:
            raise ValueError(f"{_WANTED}, got {text!r} for class {number}")
    names = {number: one_form(str(text)) for number, text in pairs}
    if not names or len(names) < len(pairs):
        raise ValueError(f"{_WANTED}, got {'two names of one class' if names else 'an empty one'}")
    return names
