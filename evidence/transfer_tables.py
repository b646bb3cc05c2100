"""How well measures agree with gains, over all sets of tasks that are kept: tables and a page.

The truths of a target and trial, shots by scopes, are averaged before any other mean. The *gate*:
the tables are made of all truths, and of those alone by which a target's sources differ by more
than the trials' noise (``ftd.transfer.gains``), over all its sources. Where a list of measures is
frozen, sets that were not used for choosing are looked at by that list and ``REFERENCES`` alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from evidence import frozen, kept_transfer, transfer_figures, transfer_page, transfer_trust
from evidence.frozen import HELD_OUT, Frozen
from evidence.kept_transfer import Kept
from evidence.transfer_trust import ALL
from ftd import store
from ftd.errors import UserError
from ftd.runtime.progress import log
from ftd.transfer import agreement, gains
from ftd.transfer.agreement import AVERAGE, DRAWS, RANDOM
from ftd.transfer.trust import CHOOSING

OUT = Path("docs/transfer/agreement.parquet")
REFERENCES = ("fisher", "task2vec", "classes", "source-accuracy")
"""Measures that are looked at everywhere: what a good one must beat."""
AGAINST = ("fisher", "task2vec", RANDOM, AVERAGE)
"""What every measure is compared with."""
_TRUTH = ["network", "target", "shots", "scope"]


@dataclass(frozen=True)
class Pool:
    """Sets that are averaged, each counting alike.

    Attributes:
        name: a set's own, or what several are called.
        sets: their names.
        role: ``CHOOSING`` or ``HELD_OUT``; ``None``: nothing was frozen.
        measures: those that are looked at besides both baselines; ``None``: all.
    """

    name: str
    sets: list[str]
    role: str | None
    measures: list[str] | None


def run(draws: int = DRAWS, fixed: Path = frozen.PLACE) -> list[str]:
    """Write ``docs/transfer/agreement.parquet``, and its main table into ``docs/transfer.md``.

    What measures are to be trusted with follows from it: see ``evidence.transfer_trust``.

    Columns (Parquet): ``set`` (or what several are called), ``sets`` (how many have such rows),
    ``role``, ``arm`` (the target's side of measures: ``all`` its data, or as ``few`` images a class
    as the truth), ``gate`` (whether only truths with signal count), and those of
    ``ftd.transfer.agreement.summary``. Differences are of the means over truths alone.

    Args:
        fixed: the frozen list. Of another than the page's, such as an earlier one, there is the
            table alone: ``frozen-first.yaml`` makes ``agreement-first.parquet``.

    Returns:
        The lines of the page that it wrote, or would have.

    Raises:
        UserError: nothing kept, unreadable tables, a frozen list that does not fit them, or a page
            without its marks.
    """
    current = fixed.resolve() == frozen.PLACE.resolve()
    if not current and not fixed.exists():
        raise UserError(f"{fixed}: no such file")
    names = kept_transfer.names()
    if not names:
        raise UserError(
            f"{kept_transfer.TABLES}: no set is kept; add one by: python -m evidence keep-transfer"
        )
    if current:
        marks = (transfer_page.BEGIN, transfer_trust.BEGIN, transfer_figures.BEGIN)
        transfer_page.expect_marks(*marks)
    listed = frozen.load(fixed)
    sets = {name: _loaded(name) for name in _judged(fixed, listed, names)}
    signals = {name: gains.signal(each.gains) for name, each in sets.items()}
    gate = {name: passed(each) for name, each in signals.items()}
    table = _table(sets, signals, listed, draws)
    facts = {
        "sets": {name: each.facts["sha256"] for name, each in sets.items()},
        "frozen": listed and listed.model_dump(),
        "gate": gate,
        "draws": draws,
    }
    out = OUT if current else OUT.parent / fixed.with_suffix(OUT.suffix).name.replace(*_NAMES)
    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    if not current:
        return transfer_page.fragment(table, gate)
    transfer_trust.write(table, store.checksum(OUT))
    _draw(sets, listed)
    return transfer_page.write(table, gate)


_NAMES = frozen.PLACE.stem, OUT.stem
"""What a list's file and its table's are called."""


def _loaded(name: str) -> Kept:
    log(f"set {name}")
    return kept_transfer.load(name)


def _judged(path: Path, listed: Frozen | None, names: list[str]) -> list[str]:
    """The sets that a list was chosen on, and those that judge it; without one, all.

    Raises:
        UserError: one of these is not kept.
    """
    if listed is None:
        return names
    for key in ("choosing", "held_out"):
        if strange := [name for name in getattr(listed, key) or () if name not in names]:
            raise UserError(f"{path}: {key}: the set {strange[0]!r} is not kept")
    return names if listed.held_out is None else [*listed.choosing, *listed.held_out]


def _table(
    sets: Mapping[str, Kept],
    signals: Mapping[str, pd.DataFrame],
    listed: Frozen | None,
    draws: int,
) -> pd.DataFrame:
    """The summaries of all pools."""
    cells = {name: cells_of(each, signals[name]) for name, each in sets.items()}
    found = [summaries(pool, cells, draws) for pool in pools(cells, listed)]
    table = pd.concat(found, ignore_index=True)
    numbers = dict.fromkeys(["value", "low", "high"], "float32")
    return table.astype(numbers).astype({"role": "string"})


def _draw(sets: Mapping[str, Kept], fixed: Frozen | None) -> None:
    """Figures of the frozen measures and ``REFERENCES``; points of the first and the paper's."""
    mapped = list(dict.fromkeys([*(fixed.measures if fixed else []), *REFERENCES]))
    transfer_figures.write(sets.values(), mapped, list(dict.fromkeys([mapped[0], REFERENCES[0]])))


def cells_of(kept: Kept, signal: pd.DataFrame) -> pd.DataFrame:
    """A set's cells, with ``arm`` and ``enough``, whether the truth passes the gate.

    In the arm ``few``, a truth of k shots is held against numbers made of k images a class.
    """
    whole, few = (kept.numbers[kept.numbers["shots"].isna() == own] for own in (True, False))
    whole = whole.drop(columns="shots")
    cells = agreement.cells(whole, kept.gains, kept.higher, kept.classes, few)
    enough = signal[[*_TRUTH, "enough"]].astype({"shots": "Int64"})
    joined = cells.merge(enough, on=_TRUTH, how="left")
    return joined.assign(enough=joined["enough"].fillna(False).astype(bool))


def passed(signal: pd.DataFrame) -> dict[str, list[int]]:
    """By network: how many truths of targets pass the gate, and of how many."""
    found = signal.groupby("network")["enough"].agg(["sum", "size"])
    return {network: [int(each) for each in row] for network, *row in found.itertuples()}


def pools(cells: Mapping[str, pd.DataFrame], fixed: Frozen | None) -> list[Pool]:
    """Each set alone, and those that are taken together.

    Raises:
        UserError: a set that is held out lacks a frozen measure.
    """
    if fixed is None:
        alone = [Pool(name, [name], None, None) for name in cells]
        return [*alone, Pool(ALL, list(cells), None, None)]
    held = [name for name in cells if name not in fixed.choosing]
    for name in held:
        known = {*cells[name].query("arm == 'all'")["measure"]}
        if missing := [each for each in fixed.measures if each not in known]:
            raise UserError(f"set {name}: no numbers of {missing[0]!r}, which is frozen")
    listed = list(dict.fromkeys([*fixed.measures, *REFERENCES]))
    roles = [(CHOOSING, fixed.choosing, None), (HELD_OUT, held, listed)]
    alone = [Pool(name, [name], role, of) for role, sets, of in roles for name in sets]
    return alone + [Pool(role, sets, role, of) for role, sets, of in roles if sets]


def summaries(pool: Pool, cells: Mapping[str, pd.DataFrame], draws: int) -> pd.DataFrame:
    """All tables of a pool: by arm, gate, network and kind of pairs; of all truths and of each."""
    log(f"{pool.name}: intervals")
    found = []
    for gate in (False, True):
        sets = [cells[name] for name in pool.sets]
        sets = [each[each["enough"]] if gate else each for each in sets]
        for (arm, *_), tables in _alike(sets, ["arm", "network", "disjoint"]):
            about = {"set": pool.name, "sets": len(tables), "role": pool.role}
            about |= {"arm": arm, "gate": gate}
            means = [agreement.pooled(each) for each in tables]
            found.append(_summary(pool, means, AGAINST, draws).assign(**about))
            for _, truths in _alike(tables, ["shots", "scope"]):
                of = about | {"sets": len(truths)}
                found.append(_summary(pool, truths, (), draws).assign(**of))
    table = pd.concat(found, ignore_index=True)
    table = table[table["against"].isna() | (table["scope"] == agreement.EVERY)]
    first = ["set", "sets", "role", "arm", "gate"]
    return table[[*first, *(name for name in table if name not in first)]]


def _alike(
    tables: list[pd.DataFrame], keys: list[str]
) -> Iterator[tuple[tuple, list[pd.DataFrame]]]:
    """The rows of equal keys, of the tables that have any."""
    groups = [dict(iter(each.groupby(keys))) for each in tables]
    for key in dict.fromkeys(key for each in groups for key in each):
        yield key, [each[key] for each in groups if key in each]


def _summary(
    pool: Pool, tables: list[pd.DataFrame], against: tuple[str, ...], draws: int
) -> pd.DataFrame:
    wanted = pool.measures
    if wanted is not None:  # with few images, some measures have no number
        everywhere = set.intersection(*({*each["measure"]} for each in tables))
        wanted = [name for name in wanted if name in everywhere]
    return agreement.summary(*tables, measures=wanted, against=against, draws=draws)
