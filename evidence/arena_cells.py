"""Published tables as what an arena takes: codes, neighbours, results and scores of architectures.

A code is a string of digits. In ``micro`` and ``nas-bench-201`` each digit is an edge's operation;
in ``macro`` a layer's change of channels and resolution, and codes differ in length.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ftd import store
from ftd.errors import UserError
from ftd.names import did_you_mean

_CODES = {
    "micro": ("arch", re.compile(r"64-41414-(\d)_(\d\d)_(\d\d\d)")),
    "macro": ("arch", re.compile(r"64-([1-4]+)-basic")),
    "nas-bench-201": ("op_code", re.compile(r"(\d{6})")),
}
"""By kind of table: the column of architectures, and a pattern whose groups are the digits."""
ORIGINS = {
    "micro": "TransNAS-Bench-101, micro level (Duan et al. 2021)",
    "macro": "TransNAS-Bench-101, macro level (Duan et al. 2021)",
    "nas-bench-201": "NAS-Bench-201 (Dong and Yang 2020)",
}
_RESULT = re.compile(r"(.+?)_(valid_.+|test)")
_SEEN = "{}_val"
"""What a search sees of a task with ``_test``; of ``_valid_…`` it is the result itself."""
_SIZES = ("flops_m", "params_m")
_SCORE = re.compile(r"zc_(.+)")


@dataclass(frozen=True, eq=False)
class Cells:
    """All architectures of a table.

    Attributes:
        kind: in ``ORIGINS``.
        codes: strings of digits, [N].
        tasks: [T].
        seen: what a search may choose by, [N, T], the larger the better.
        final: what counts in the end, likewise.
        sizes: by name, [N].
        scores: zero-cost scores by (name, task), [N].
    """

    kind: str
    codes: tuple[str, ...]
    tasks: tuple[str, ...]
    seen: np.ndarray
    final: np.ndarray
    sizes: dict[str, np.ndarray]
    scores: dict[tuple[str, str], np.ndarray]

    @functools.cached_property
    def digits(self) -> np.ndarray:
        """Codes as numbers, [N, the longest's length]; 0 after the end of a shorter one."""
        longest = max(map(len, self.codes))
        return np.array([[int(digit) for digit in code.ljust(longest, "0")] for code in self.codes])

    def differing(self, row: int) -> np.ndarray:
        """In how many places each architecture's code differs from a row's, [N]."""
        return (self.digits != self.digits[row]).sum(1)

    @functools.cached_property
    def neighbours(self) -> tuple[np.ndarray, ...]:
        """Of every architecture, the rows of those that differ in one place.

        Where lengths differ, a code with a layer more, or less, or moved is a neighbour too.
        """
        place = {code: row for row, code in enumerate(self.codes)}
        letters = sorted(set("".join(self.codes)))
        several = len({len(code) for code in self.codes}) > 1
        found = []
        for code in self.codes:
            near = _changed(code, letters) | (_moved(code, letters) if several else set())
            found.append(np.array(sorted(place[one] for one in near - {code} if one in place)))
        return tuple(found)


def _changed(code: str, letters: list[str]) -> set[str]:
    return {code[:i] + letter + code[i + 1 :] for i in range(len(code)) for letter in letters}


def _moved(code: str, letters: list[str]) -> set[str]:
    shorter = [(code[:i] + code[i + 1 :], code[i]) for i in range(len(code))]
    moved = {less[:i] + out + less[i:] for less, out in shorter for i in range(len(code))}
    longer = {code[:i] + letter + code[i:] for i in range(len(code) + 1) for letter in letters}
    return moved | longer | {less for less, _ in shorter}


def read(path: Path, kind: str) -> Cells:
    """A published table (Parquet).

    Raises:
        UserError: an unknown kind, a file that is none of its tables, values that are no numbers.
    """
    if kind not in _CODES:
        raise UserError(f"unknown kind of table {kind!r}{did_you_mean(kind, _CODES)}")
    column, pattern = _CODES[kind]
    frame = store.read_foreign_table(path).to_pandas()
    if column not in frame:
        raise UserError(f"{path}: no column {column!r}; expected a table of {ORIGINS[kind]}")
    matches = [pattern.fullmatch(str(word)) for word in frame[column]]
    if None in matches:
        wrong = frame[column].iloc[matches.index(None)]
        raise UserError(f"{path}: {wrong!r} is no architecture of {ORIGINS[kind]}")
    results = {match[1]: name for name in frame if (match := _RESULT.fullmatch(name))}
    if len(results) < 3:
        raise UserError(f"{path}: results of {len(results)} tasks; an arena takes three at least")
    seen = [
        _SEEN.format(task) if name.endswith("_test") else name for task, name in results.items()
    ]
    if missing := [name for name in seen if name not in frame]:
        raise UserError(f"{path}: no column {missing[0]!r}")
    scores = {
        key: _numbers(path, frame, [name])[:, 0]
        for name in frame
        if (key := _score_of(name, results))
    }
    sizes = {name: _numbers(path, frame, [name])[:, 0] for name in _SIZES if name in frame}
    return Cells(
        kind,
        tuple("".join(match.groups()) for match in matches),
        tuple(results),
        _numbers(path, frame, seen),
        _numbers(path, frame, list(results.values())),
        sizes,
        scores,
    )


def _score_of(name: str, tasks: Iterable[str]) -> tuple[str, str] | None:
    """(zero-cost score, task) of a column's name, if it is of one."""
    if match := _SCORE.fullmatch(name):
        for task in tasks:
            if match[1].endswith(f"_{task}"):
                return match[1].removesuffix(f"_{task}"), task
    return None


def _numbers(path: Path, frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    try:
        values = frame[names].to_numpy(float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {', '.join(names)}: expected numbers") from error
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {', '.join(names)}: values that are not finite")
    return values
