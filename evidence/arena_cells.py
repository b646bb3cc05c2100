"""Published tables as what an arena takes: codes, neighbours, results and scores of architectures.

A code is a string of digits. In ``micro`` and ``nas-bench-201`` each digit is an edge's operation;
in ``macro``, which is no space of cells, a layer's change of channels and resolution, and codes
differ in length.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evidence.nas_tables import LAYOUTS, Layout, columns_of, matrix
from ftd import store
from ftd.errors import UserError
from ftd.names import did_you_mean

_MICRO = LAYOUTS["transnas-micro"]
KINDS = {
    "micro": _MICRO,
    "macro": replace(
        _MICRO,
        origin="TransNAS-Bench-101, macro level (Duan et al. 2021; data MIT)",
        operations={},
        cell=re.compile(r"64-([1-4]+)-basic"),
    ),
    "nas-bench-201": LAYOUTS["nas-bench-201"],
}
"""How each kind of table is written; without operations, a cell's pattern has the code."""
_SIZES = ("flops_m", "params_m")
_SCORE = re.compile(r"zc_(.+)")


@dataclass(frozen=True, eq=False)
class Cells:
    """All architectures of a table.

    Attributes:
        kind: in ``KINDS``.
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
        UserError: an unknown kind, a file that is none of its tables, fewer than three tasks, or
            values that are not finite numbers or all equal.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of table {kind!r}{did_you_mean(kind, KINDS)}")
    frame = store.read_foreign_table(path).to_pandas()
    results = columns_of(path, KINDS[kind], list(frame))
    if len(results) < 3:
        raise UserError(f"{path}: results of {len(results)} tasks; an arena takes three at least")
    lines = np.arange(len(frame))

    def numbers(names: Sequence[str]) -> np.ndarray:
        return matrix(path, frame, names, lines)

    keys = {name: key for name in frame if (key := _score_of(name, results))}
    seen, final = map(numbers, zip(*results.values(), strict=True))
    return Cells(
        kind,
        tuple(_code(path, KINDS[kind], str(arch)) for arch in frame["arch"]),
        tuple(results),
        seen,
        final,
        {name: numbers([name])[:, 0] for name in _SIZES if name in frame},
        {key: numbers([name])[:, 0] for name, key in keys.items()},
    )


def _code(path: Path, layout: Layout, arch: str) -> str:
    """An architecture's code: its operations by number, or what the pattern finds."""
    match, words = layout.cell.fullmatch(arch), list(layout.operations)
    if match is None or (words and not set(match.groups()) <= set(words)):
        raise UserError(f"{path}: {arch!r} is no architecture of {layout.origin}")
    return "".join(str(words.index(word)) if words else word for word in match.groups())


def _score_of(name: str, tasks: Iterable[str]) -> tuple[str, str] | None:
    """(zero-cost score, task) of a column's name, if it is of one."""
    if match := _SCORE.fullmatch(name):
        for task in tasks:
            if match[1].endswith(f"_{task}"):
                return match[1].removesuffix(f"_{task}"), task
    return None
