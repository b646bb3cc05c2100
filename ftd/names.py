"""Paths and names that become some, those that look alike, suggestions for misspelt ones."""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(name: str) -> str:
    """``name``, if it can be one part of a path on any system; ``ValueError`` otherwise."""
    if not _SAFE_NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f"expected a name of letters, digits, '.', '_' and '-' that starts with a letter or "
            f"digit (it becomes part of a path), got {name!r}"
        )
    return name


def expanded(path: str) -> str:
    """A path with ``~``, ``~user``, ``$NAME`` and ``${NAME}`` replaced; a relative one stays one.

    The one rule for every key and every option that names a file or folder.

    Raises:
        ValueError: there is no such user or variable, or no file can be named so.
    """

    def value(match: re.Match) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise ValueError(f"{path!r}: the variable {name} is not set, or empty")
        return os.environ[name]

    if not path.strip():
        raise ValueError(f"expected a path, got {path!r}")
    found = os.path.expanduser(_VARIABLE.sub(value, path))
    if "$" in found or found.startswith("~"):
        raise ValueError(
            f"{path!r}: '$' begins the name of a variable, '~' that of a user; a folder with such "
            "a name needs another, by a link"
        )
    if any(ord(sign) < 32 or 0xD800 <= ord(sign) < 0xDC80 for sign in found):
        raise ValueError(f"{path!r}: holds characters that no path may have")
    if any(len(os.fsencode(part)) > 255 for part in PurePath(found).parts):
        raise ValueError("a name in the path is longer than 255 bytes")
    found = str(PurePath(found))
    return f"./{found}" if found.startswith("~") else found  # which is expanded again in each job


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, or the words there are."""
    known = [str(item) for item in known]
    near = difflib.get_close_matches(str(word), known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def one_form(name: str) -> str:
    """A name in the Unicode form NFC: names that look the same, such as macOS' and others', are."""
    return unicodedata.normalize("NFC", name)


def alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that differ, but for case and spaces do not."""
    first: dict[str, str] = {}
    for name in names:
        known = first.setdefault(" ".join(name.casefold().split()), name)
        if known != name:
            yield known, name


def listed(counts: Mapping[str, int]) -> str:
    """Numbers by what they count, as text."""
    return ", ".join(f"{what}: {count}" for what, count in counts.items())


def counted(count: int, noun: str) -> str:
    """So many of what a regular noun names: ``1 trial``, ``3 trials``."""
    return f"{count:,} {noun if count == 1 else f'{noun}s'}"
