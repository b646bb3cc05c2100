"""Published tables of every architecture of a small space, searched by look-up.

A layout says how a table writes its architectures and results. Both spaces are one dense cell of
three nodes, whose six edges 0→1 | 0→2 1→2 | 0→3 1→3 2→3 are those of ``ftd.search.space``.
"""

import functools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from ftd import store
from ftd.errors import UserError
from ftd.measures.ranking import NEEDED, nearest
from ftd.models.genotype import Genotype, Skeleton
from ftd.names import did_you_mean
from ftd.runtime.seeds import seed_of
from ftd.search.enas import Enas
from ftd.search.enas.controller import TANH, Controller, Reinforce
from ftd.search.space import Space, restrict

SKELETON = Skeleton(cells=1, nodes=3, channels=1, reductions=())


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes:
        origin: name and source of the tables.
        operations: the table's word for an operation → its name.
        cell: pattern of the column ``arch``; its groups are the six edges' words.
        final: pattern of a column of results; its group is the task.
        seen: the column that a search sees, with ``{task}``; ``None``: ``final`` itself.
    """

    origin: str
    operations: dict[str, str]
    cell: re.Pattern
    final: re.Pattern
    seen: str | None = None

    @property
    def space(self) -> Space:
        """All architectures of a table."""
        return Space(tuple(self.operations.values()), (SKELETON,))

    def genotype(self, arch: str) -> Genotype | None:
        """The architecture that ``arch`` stands for; ``None`` if it is none of this space."""
        match = self.cell.fullmatch(arch)
        words = match.groups() if match else ("",)
        if not set(words) <= set(self.operations):
            return None
        edges = (self.operations[word] for word in words)
        nodes = (
            tuple((next(edges), source) for source in range(SKELETON.inputs(node)))
            for _, node in SKELETON.slots
        )
        return Genotype.of(SKELETON, nodes)


_NB201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_TRANSNAS = ("none", "skip_connect", "conv_1x1", "conv_3x3")
LAYOUTS = {
    "nas-bench-201": Layout(
        "NAS-Bench-201 (Dong and Yang 2020; data MIT)",
        {name: name for name in _NB201},
        re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|"),
        re.compile(r"(.+)_test"),
        "{task}_val",
    ),
    "transnas-micro": Layout(
        "TransNAS-Bench-101, micro level (Duan et al. 2021; data MIT)",
        {str(digit): name for digit, name in enumerate(_TRANSNAS)},
        re.compile(r"64-41414-(\d)_(\d)(\d)_(\d)(\d)(\d)"),
        re.compile(r"(.+?)_valid_.+"),
    ),
}


@dataclass(frozen=True, eq=False)
class Table:
    """Every architecture of a space with its results, which are higher for better ones.

    Attributes:
        layout: a name in ``LAYOUTS``.
        tasks: in the order of the file's columns.
        seen: what a search may choose by [architecture, task], in the table's units;
            architectures in the order of the space.
        final: what counts in the end, likewise; the same array where a table has only one.
    """

    layout: str
    tasks: tuple[str, ...]
    seen: np.ndarray
    final: np.ndarray

    @functools.cached_property
    def space(self) -> Space:
        """All its architectures."""
        return LAYOUTS[self.layout].space

    @functools.cached_property
    def genotypes(self) -> tuple[Genotype, ...]:
        """The architectures, a row each."""
        return tuple(self.space)

    @functools.cached_property
    def _rows(self) -> dict[Genotype, int]:
        return {genotype: row for row, genotype in enumerate(self.genotypes)}

    @functools.cached_property
    def percentiles(self) -> np.ndarray:
        """Rank percentiles of ``final`` [architecture, task]: 1 the best, 0 the worst."""
        return percentiles(self.final)

    @functools.cached_property
    def rewards(self) -> np.ndarray:
        """Rank percentiles of ``seen`` [architecture, task]."""
        return percentiles(self.seen)

    def in_order(self, archs: pd.Series, values: np.ndarray) -> np.ndarray:
        """Values of a file's lines, of its column ``arch``, in the order of the space."""
        layout, found = LAYOUTS[self.layout], np.empty(len(values))
        found[[self.row(layout.genotype(str(arch))) for arch in archs]] = values
        return found

    def row(self, genotype: Genotype) -> int:
        """The row of an architecture.

        Raises:
            UserError: it is none of this table's.
        """
        try:
            return self._rows[genotype]
        except KeyError as error:
            raise UserError(f"no architecture of a {self.layout} table: {genotype}") from error

    def column(self, task: str) -> int:
        """The column of a task.

        Raises:
            UserError: no such task.
        """
        if task not in self.tasks:
            raise UserError(f"unknown task {task!r}{did_you_mean(task, self.tasks)}")
        return self.tasks.index(task)

    def optimum(self, task: str) -> Genotype:
        """The best architecture of a task by what a search sees; the first of equal ones."""
        return self.genotypes[int(self.seen[:, self.column(task)].argmax())]


def percentiles(values: np.ndarray) -> np.ndarray:
    """Ranks in each column, scaled to [0, 1] with 1 for the largest; equal values share theirs."""
    return (rankdata(values, axis=0) - 1) / (len(values) - 1)


def read(path: Path, layout: str) -> Table:
    """A table (Parquet): ``arch`` and a task's columns as the layout names them.

    ``nas-bench-201``: a search sees ``<task>_val``; ``<task>_test`` is final.
    ``transnas-micro``: ``<task>_valid_<metric>`` is both.

    Raises:
        UserError: an unknown layout, an unreadable file, missing columns, two results of one
            task, an architecture that is unknown, missing or given twice, or values that are not
            finite numbers or all equal.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}{did_you_mean(layout, LAYOUTS)}")
    frame = store.read_foreign_table(path).to_pandas()
    columns = columns_of(path, LAYOUTS[layout], list(frame))
    rows = _rows(path, layout, frame["arch"])
    seen, final = (
        matrix(path, frame, names, rows) for names in zip(*columns.values(), strict=True)
    )
    return Table(layout, tuple(columns), seen, final)


def columns_of(path: Path, layout: Layout, names: list[str]) -> dict[str, tuple[str, str]]:
    """task → its (seen, final) columns.

    Raises:
        UserError: none, a missing one, or two of one task.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        if match := layout.final.fullmatch(name):
            task = match[1]
            if task in found:
                raise UserError(
                    f"{path}: two results of {task}: {found[task][1]}, {name}; keep one"
                )
            found[task] = (layout.seen.format(task=task) if layout.seen else name, name)
    wanted = ["arch", *(seen for seen, _ in found.values())]
    if missing := [name for name in wanted if name not in names]:
        raise UserError(f"{path}: no column {', '.join(missing)}; is this the layout's table?")
    if not found:
        raise UserError(f"{path}: no column of results, like {layout.final.pattern}")
    return found


def _rows(path: Path, layout: str, archs: pd.Series) -> np.ndarray:
    """The place of every line's architecture in the space, each exactly once."""
    place = {genotype: row for row, genotype in enumerate(LAYOUTS[layout].space)}
    rows = np.array([place.get(LAYOUTS[layout].genotype(str(arch)), -1) for arch in archs])
    if (rows < 0).any():
        raise UserError(f"{path}: no {layout} architecture: {archs[int((rows < 0).argmax())]!r}")
    if (twice := pd.Series(rows).duplicated()).any():
        raise UserError(f"{path}: architecture given twice: {archs[int(twice.argmax())]}")
    if len(rows) < len(place):
        raise UserError(
            f"{path}: {len(place) - len(rows)} of {len(place)} architectures are missing; "
            "take the whole table"
        )
    return rows


def matrix(path: Path, frame: pd.DataFrame, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Columns of numbers [architecture, column], each line in the place that ``rows`` gives it.

    Raises:
        UserError: values that are not finite numbers or all equal.
    """
    values = np.empty((len(rows), len(names)))
    for column, name in enumerate(names):
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
        if not np.isfinite(numbers).all():
            arch = frame["arch"][int((~np.isfinite(numbers)).argmax())]
            raise UserError(f"{path}: {name} of {arch} is not a finite number")
        if numbers.min() == numbers.max():
            raise UserError(f"{path}: {name} is the same for all architectures")
        values[rows, column] = numbers
    return values


def ranked_sources(table: Table, distances: Path | None = None) -> pd.DataFrame:
    """Every other task as a source of each target, from the nearest to the farthest.

    Args:
        distances: a ``distances.parquet``; its first measure and network count, and the mean
            over trials. ``None``: 1 − Spearman's rank correlation of what a search sees.

    Returns:
        As ``ftd.measures.ranking.nearest``: ``target``, ``source``, ``rank`` (from 1), ``mean``
        (the distance).

    Raises:
        UserError: fewer than two tasks, unreadable distances, or a pair without one.
    """
    if len(table.tasks) < 2:
        raise UserError("a nearest task takes a table of at least two tasks")
    if distances is None:
        correlation = np.corrcoef(table.rewards, rowvar=False)
        pairs = [
            {"source": source, "target": target, "distance": 1 - correlation[i, j]}
            for i, source in enumerate(table.tasks)
            for j, target in enumerate(table.tasks)
        ]
        about = {"measure": "table", "network": "table", "trial": 0, "squared_distance": np.nan}
        frame = pd.DataFrame(pairs).assign(**about)
    else:
        frame = _first_rows(distances)
    ranked = nearest(frame, list(table.tasks))
    if missing := [task for task in table.tasks if task not in set(ranked["target"])]:
        raise UserError(f"{distances}: no distances to {', '.join(missing)} from the table's tasks")
    return ranked


def _first_rows(path: Path) -> pd.DataFrame:
    """The rows of the first measure and network."""
    frame = store.read_foreign_table(path).to_pandas()
    if missing := sorted(set(NEEDED) - set(frame)):
        raise UserError(f"{path}: no column {', '.join(missing)}; give a distances.parquet")
    for name in ("measure", "network"):
        frame = frame[frame[name] == frame[name].iloc[0]] if len(frame) else frame
    return frame


def spaces(
    table: Table, target: str, ranked: pd.DataFrame
) -> Iterator[tuple[str, str | None, Space]]:
    """(name, source, space): the full one, and those that a near and a far task restrict.

    A source stands for a learned task: its best architecture is what restricts.
    """
    yield "full", None, table.space
    sources = ranked[ranked["target"] == target].sort_values("rank")["source"].tolist()
    for which, source in (("nearest", sources[0]), ("farthest", sources[-1])):
        for how in ("operations", "neighbourhood"):
            yield f"{which} {how}", source, restrict(table.space, [table.optimum(source)], how, 2)


def draw_rows(table: Table, space: Space, draws: int, rng: random.Random) -> np.ndarray:
    """Rows of different architectures, uniformly from a space; all of it if there are fewer.

    The first *n* of them are such a sample of *n*.
    """
    return np.array([table.row(genotype) for genotype in space.sample(draws, rng)])


def best_rows(table: Table, task: str, rows: np.ndarray) -> np.ndarray:
    """[…]: the best of ``rows`` […, draws] by what a search sees, the first of equal ones."""
    choice = table.seen[rows, table.column(task)].argmax(-1)
    return np.take_along_axis(rows, choice[..., None], -1)[..., 0]


def random_search(
    table: Table, task: str, space: Space, draws: int, rng: random.Random
) -> tuple[Genotype, float]:
    """The best of ``draws`` different uniform draws by what a search sees, and its final value.

    Raises:
        UserError: an unknown task, or a space that is not of this table.
    """
    row = int(best_rows(table, task, draw_rows(table, space, draws, rng)))
    return table.genotypes[row], float(table.final[row, table.column(task)])


class _Within(Controller):
    """ENAS's controller given that what it draws lies in a neighbourhood, exactly.

    No restriction of single edges does that. A neighbourhood in these tables has a few hundred
    members: each draw is from all of their probabilities, divided by their sum.
    """

    def __init__(self, space: Space):
        super().__init__(Space(space.operations, space.skeletons))
        self.members = list(space)
        self.codes = torch.tensor(
            [
                [self.operations.index(operation) for node in member.nodes for operation, _ in node]
                for member in self.members
            ]
        )

    def log_probabilities(self) -> torch.Tensor:
        """[members]: as the unrestricted controller draws them."""
        state, x, total = None, self.first.expand(len(self.codes), -1), torch.zeros(())
        for code in self.codes.T:
            state = self.lstm(x, state)
            logits = TANH * torch.tanh(self.heads["operation"](state[0]))
            total = total + logits.log_softmax(1).gather(1, code[:, None])[:, 0]
            x = self.embeddings["operation"](code)
        return total

    def sample(self, generator: torch.Generator) -> tuple[Genotype, torch.Tensor, torch.Tensor]:
        """A member, its log-probability among the members, and their entropy."""
        logs = self.log_probabilities().log_softmax(0)
        number = int(torch.multinomial(logs.detach().exp(), 1, generator=generator))
        return self.members[number], logs[number], -(logs.exp() * logs).sum()


def controller_search(
    table: Table, task: str, space: Space, steps: int, settings: Enas, seed: int
) -> tuple[Genotype, float, list[dict[str, Any]]]:
    """ENAS's controller (Pham et al. 2018) by REINFORCE, with the table in place of a supernet.

    The reward is the rank percentile, in the whole table, of what a search sees: one scale for
    all tasks. A step evaluates one architecture, perhaps one that it had before.

    Args:
        settings: with one ``controller_samples``.

    Returns:
        The best evaluated by what a search sees, its final value, and a row per step: ``step``,
        ``candidate`` (name), ``score`` (what a search sees), ``reward``.

    Raises:
        UserError: an unknown task, or a space that is not of this table.
    """
    column = table.column(task)

    def reward_of(genotype: Genotype) -> float:
        return float(table.rewards[table.row(genotype), column])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("controller", seed))
        controller = _Within(space) if space.centres else Controller(space)
    learner = Reinforce(controller, settings)
    generator = torch.Generator().manual_seed(seed_of("draws", seed))
    rows, trace = [], []
    for step in range(steps):
        ((genotype, reward),) = learner.step(reward_of, generator)
        rows.append(table.row(genotype))
        score, name = float(table.seen[rows[-1], column]), genotype.name
        trace.append({"step": step, "candidate": name, "score": score, "reward": reward})
    row = int(best_rows(table, task, np.array(rows)))
    return table.genotypes[row], float(table.final[row, column]), trace
