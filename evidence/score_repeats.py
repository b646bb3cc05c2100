"""Whether TE-NAS' scores rank alike from one draw of weights and images to another."""

import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import spearmanr

from evidence.search_speed import digits
from ftd import store
from ftd.runtime.progress import log
from ftd.runtime.seeds import seed_of
from ftd.runtime.threads import setup
from ftd.search.ledger import Ledger
from ftd.search.space import Space
from ftd.search.supernet import skeleton_of
from ftd.search.te_nas import TeNas, measuring
from ftd.search.te_nas.pruning import Pruning
from ftd.store.provenance import packages
from ftd.tasks.data import TaskData

EVERY = 3
"""Of the supernet's edges, the first of so many have their operations measured."""


def run(out: Path, *, genotypes: int, draws: int, settings: TeNas | None = None) -> pd.DataFrame:
    """Spearman's ρ between draws of κ and R, on the digits and the default space; kept as Parquet.

    Returns:
        What ``measured`` does.
    """
    setup()
    settings = settings or TeNas()
    with tempfile.TemporaryDirectory() as folder:
        data, search = digits(Path(folder), {})
        space = Space.full(search.space)
        table = measured(data, space, settings, genotypes=genotypes, draws=draws)
    facts = {"settings": settings.model_dump(mode="json"), "draws": draws, "packages": packages()}
    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    return table


def measured(
    data: TaskData, space: Space, settings: TeNas, *, genotypes: int, draws: int
) -> pd.DataFrame:
    """Spearman's ρ between draws of κ and R, of a task and a space.

    Of ``genotypes`` random architectures, and of operations that the whole supernet goes without,
    by relative changes, as TE-NAS ranks them first.

    Args:
        draws: at least twice ``settings.repeats``.

    Returns:
        A row per ``what`` and ``measure``: ``one``, the mean of ρ over pairs of draws;
        ``averaged``, over pairs of means of ``settings.repeats`` draws each.
    """
    skeleton = skeleton_of(space)
    draw = measuring.drawing(skeleton, space, data, settings)
    drawn = space.sample(genotypes, random.Random(0))
    found: dict[tuple[str, str], list[list[float]]] = {}
    for number in range(draws):
        one = draw(seed_of("repeats", number))
        for what, values in (
            ("architectures", _of_architectures(one, drawn)),
            ("operations", _of_operations(one, Pruning(space, skeleton, 1))),
        ):
            for measure, of in zip(("κ", "R"), values, strict=True):
                found.setdefault((what, measure), []).append(list(of))
        log(f"draw {number + 1} of {draws} done")
    rows = []
    for (what, measure), values in found.items():
        groups = np.array(values)[: draws - draws % settings.repeats]
        means = groups.reshape(-1, settings.repeats, groups.shape[1]).mean(1)
        row = {"what": what, "measure": measure, "count": groups.shape[1]}
        rows.append(row | {"one": _agreement(np.array(values)), "averaged": _agreement(means)})
    return pd.DataFrame(rows)


def _of_architectures(draw: measuring.Draw, drawn: list) -> Iterator[list[float]]:
    """log κ, which spans magnitudes, and R."""
    paths = [draw.net.path(genotype) for genotype in drawn]
    kappas = [measuring.ntk_condition(draw.net, draw.images, path) for path in paths]
    yield np.log(np.minimum(kappas, 1e12))
    yield [measuring.linear_regions(draw.thin, draw.points, path) for path in paths]


def _of_operations(draw: measuring.Draw, pruned: Pruning) -> Iterator[list[float]]:
    """Relative changes of κ and R without each operation of some edges."""
    path, ledger = pruned.path, Ledger()
    whole = measuring.measure([draw], path, None, ledger)
    edges = pruned.edges[::EVERY]
    parts = [measuring.measure([draw], path, edge, ledger) for edge in edges]
    for position, ((of,),) in enumerate(whole):
        yield [change for each in parts for change in measuring.changes([of], each[position])]


def _agreement(values: np.ndarray) -> float:
    """The mean of ρ over pairs of rows; where all of a row are equal, it ranks nothing: 0."""
    pairs = list(itertools.combinations(values, 2))
    found = [
        spearmanr(*pair).statistic if all(np.ptp(row) for row in pair) else 0 for pair in pairs
    ]
    return float(np.mean(found))
