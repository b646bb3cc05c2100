"""Arena of published tables: how soon each way to search finds a target's best architectures.

Every task of a table is the target once; the others are learned tasks, of which all results are
known. A way tries one architecture after another; what counts is the rank, among all of the
table, of the best one tried. Settings of the surrogate are chosen on the other targets alone.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import rankdata

from evidence import arena_cells, arena_page, arena_ways
from evidence.arena_cells import Cells
from ftd import store
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.runtime.threads import setup
from ftd.search.surrogate import Surrogate
from ftd.store.provenance import packages

QUERIES = 100
CHOOSING = ("micro", "macro")
"""Kinds of tables by which settings are chosen; others take the surrogate as it is."""
CHOICE, CHOICE_REPEATS = 50, 10
"""Settings are chosen by the rank after so many queries, over so many draws of first queries."""
SETTINGS = [
    Surrogate(doubt=doubt, residual=residual, noise=noise)
    for doubt, residual, noise in itertools.product((0.05, 0.2), (0.0, 0.3, 1.0), (0.3, 1.0))
]
NOTHING, TABLE, QUERIED = "nothing", "the table", "queries"
"""What a way knows of nearness; the table's own is an oracle's."""
Way = Callable[[np.random.Generator], np.ndarray]


def run(
    out: Path, *, tables: Mapping[str, Path], repetitions: int, page: Path | None
) -> pd.DataFrame:
    """Run the arena on tables; ranks as Parquet, one file a table, and the page of all.

    A row a target, way and number of queries: ``rank``, the mean over repetitions of the best
    one's (1 the best of all), ``std`` and ``median`` over these, ``repetitions`` (1 where nothing
    is drawn) and ``nearness``, what the way knows of it.

    Args:
        out: a folder; ``arena-<kind>.parquet`` is written there.
        tables: by kind.
        repetitions: of ways that draw.

    Returns:
        All rows, with the table's ``kind``.

    Raises:
        UserError: a table that cannot be used.
    """
    setup()
    read = {kind: arena_cells.read(path, kind) for kind, path in tables.items()}
    chosen = chosen_settings([read[kind] for kind in CHOOSING if kind in read])
    found = []
    for kind, cells in read.items():
        rows = pd.DataFrame(_of_table(cells, chosen, repetitions))
        facts = {
            "kind": kind,
            "table": {"name": tables[kind].name, "sha256": store.digest(tables[kind])},
            "architectures": len(cells.codes),
            "surrogates": {task: vars(chosen.get(task, Surrogate())) for task in cells.tasks},
            "packages": packages(),
        }
        file = out / f"arena-{kind}.parquet"
        store.write_table(file, pa.Table.from_pandas(rows, preserve_index=False), facts)
        found.append(rows.assign(kind=kind))
    if page:
        arena_page.write(sorted(out.glob("arena-*.parquet")), page)
    return pd.concat(found, ignore_index=True)


def _of_table(cells: Cells, chosen: Mapping[str, Surrogate], repetitions: int) -> Iterator[dict]:
    """The rows of all targets and ways."""
    every = [
        (target, way)
        for target in cells.tasks
        for way in ways(cells, target, chosen.get(target, Surrogate()))
    ]
    for target, (name, nearness, way, drawn) in progress(every, f"arena, {cells.kind}"):
        about = {"target": target, "way": name, "nearness": nearness}
        yield from _rows(cells, about, way, repetitions if drawn else 1)


def _rows(cells: Cells, about: dict, way: Way, repetitions: int) -> Iterator[dict]:
    """A way's ranks on a target, by number of queries."""
    paths = [
        way(np.random.default_rng(seed_of("arena", about["target"], about["way"], number)))
        for number in range(repetitions)
    ]
    ranks = np.array([best_ranks(cells, about["target"], path) for path in paths])
    for number in range(ranks.shape[1]):
        own = ranks[:, number]
        numbers = {"rank": own.mean(), "std": own.std(), "median": np.median(own)}
        numbers |= {"repetitions": repetitions}
        yield about | {"queries": number + 1} | numbers


def best_ranks(cells: Cells, target: str, path: np.ndarray) -> np.ndarray:
    """After each query, the final rank of the best by what the search sees, [n]."""
    column = cells.tasks.index(target)
    final = rankdata(-cells.final[:, column])
    seen = cells.seen[path, column]
    best = [int(np.argmax(seen[: number + 1])) for number in range(len(path))]
    return final[path[best]]


def ways(cells: Cells, target: str, surrogate: Surrogate) -> Iterator[tuple[str, str, Way, bool]]:
    """(name, what it knows of nearness, the way, whether it draws) for a target."""
    others = [number for number, task in enumerate(cells.tasks) if task != target]
    own, sources = cells.seen[:, cells.tasks.index(target)], cells.seen[:, others]
    yield "random", NOTHING, lambda rng: arena_ways.at_random(cells, QUERIES, rng), True
    yield "evolution", NOTHING, lambda rng: arena_ways.evolved(cells, own, QUERIES, rng), True
    for name, size in cells.sizes.items():
        yield name, NOTHING, _ranking(size), False
    for (name, task), scores in cells.scores.items():
        if task == target:
            yield name, NOTHING, _ranking(scores), False
    yield from _from_sources(cells, own, sources)
    yield from _by_surrogate(cells, own, sources, surrogate)


def _ranking(scores: np.ndarray) -> Way:
    return lambda rng: arena_ways.in_order(scores, QUERIES)


def _from_sources(
    cells: Cells, own: np.ndarray, sources: np.ndarray
) -> Iterator[tuple[str, str, Way, bool]]:
    """Ways that take learned tasks' rankings as they are."""
    alike, ranked = arena_ways.alike, rankdata(sources, axis=0)
    likeness = alike(sources, own)
    near, far = sources[:, likeness.argmax()], sources[:, likeness.argmin()]
    best = int(near.argmax())
    yield "nearest's ranking", TABLE, _ranking(near), False
    yield "farthest's ranking", TABLE, _ranking(far), False
    yield (
        "nearest's best, local search",
        TABLE,
        lambda rng: arena_ways.climbed(cells, own, best, QUERIES, rng),
        True,
    )
    yield (
        "nearest's 25, mutations",
        TABLE,
        lambda rng: arena_ways.mutated(cells, own, arena_ways.in_order(near, 25), QUERIES, rng),
        True,
    )
    yield "weighted ranking", TABLE, _ranking(ranked @ arena_ways.shares(likeness)), False
    yield (
        "a task's ranking",
        NOTHING,
        lambda rng: arena_ways.in_order(sources[:, rng.integers(sources.shape[1])], QUERIES),
        True,
    )
    yield "all tasks' ranking", NOTHING, _ranking(ranked.mean(1)), False

    def nearest_by(rows: np.ndarray) -> np.ndarray:
        return sources[:, alike(sources[rows], own[rows]).argmax()]

    def weighted_by(rows: np.ndarray) -> np.ndarray:
        return ranked @ arena_ways.shares(alike(sources[rows], own[rows]))

    after = arena_ways.after_probes
    for name, by in (("nearest's ranking", nearest_by), ("weighted ranking", weighted_by)):
        yield name, QUERIED, lambda rng, by=by: after(cells, QUERIES, rng, by), True
    yield (
        "weighted ranking to 25, mutations",
        QUERIED,
        lambda rng: arena_ways.mutated(
            cells, own, after(cells, 25, rng, weighted_by), QUERIES, rng
        ),
        True,
    )


def _by_surrogate(
    cells: Cells, own: np.ndarray, sources: np.ndarray, surrogate: Surrogate
) -> Iterator[tuple[str, str, Way, bool]]:
    count = sources.shape[1]
    equal, none = np.full(count, 1 / count), np.empty(0, int)
    known = arena_ways.shares(arena_ways.alike(sources, own))

    def way(sources: np.ndarray, weights: np.ndarray, probes: int) -> Way:
        return lambda rng: arena_ways.expected_best(
            surrogate,
            cells,
            sources,
            own,
            weights,
            QUERIES,
            arena_ways.at_random(cells, probes, rng) if probes else none,
        )

    yield "surrogate", TABLE, way(sources, known, 0), False
    yield "surrogate", NOTHING, way(sources, equal, 0), False
    yield "surrogate", QUERIED, way(sources, equal, arena_ways.PROBES), True
    alone = way(sources[:, :0], equal[:0], arena_ways.PROBES)
    yield "surrogate without learned tasks", NOTHING, alone, True


def chosen_settings(tables: Sequence[Cells]) -> dict[str, Surrogate]:
    """By target: of ``SETTINGS``, the best on the other tasks, each of which is a target once.

    Sources are those that are left then: of no use is made of the target's results, in any of the
    tables. The best: the least mean logarithm of the rank after ``CHOICE`` queries, the first ones
    drawn, over all other tasks and all tables.
    """
    pairs = [
        (cells, out, target)
        for cells in tables
        for out in cells.tasks
        for target in cells.tasks
        if target != out
    ]
    logs: dict[str, list[list[float]]] = {}
    for cells, out, target in progress(pairs, "arena, settings"):
        rows = [_log_rank(cells, out, target, own) for own in SETTINGS]
        logs.setdefault(out, []).append(rows)
    return {out: SETTINGS[int(np.mean(rows, axis=0).argmin())] for out, rows in logs.items()}


def _log_rank(cells: Cells, out: str, target: str, surrogate: Surrogate) -> float:
    """Of a target, with neither it nor ``out`` among the sources."""
    keep = [number for number, task in enumerate(cells.tasks) if task not in (out, target)]
    own, weights = cells.seen[:, cells.tasks.index(target)], np.full(len(keep), 1 / len(keep))
    logs = []
    for number in range(CHOICE_REPEATS):
        rng = np.random.default_rng(seed_of("arena, settings", target, number))
        first = arena_ways.at_random(cells, arena_ways.PROBES, rng)
        path = arena_ways.expected_best(
            surrogate, cells, cells.seen[:, keep], own, weights, CHOICE, first
        )
        logs.append(np.log(best_ranks(cells, target, path)[-1]))
    return float(np.mean(logs))
