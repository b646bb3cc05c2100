"""How far each measure is to be trusted, out of the table of agreement.

Two files: the one that is installed, ``ftd/transfer/trust.json``, and a table in
``docs/transfer.md``. Both are of one pool of sets: those held out, if measures were fixed, else
all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from evidence import transfer_page
from evidence.frozen import HELD_OUT
from evidence.transfer_page import line
from ftd import store
from ftd.parts import MEASURES
from ftd.transfer import trust
from ftd.transfer.agreement import EVERY
from ftd.transfer.trust import CHOOSING

OUT = Path("ftd/transfer/trust.json")
BEGIN = "<!-- begin: trust, written by python -m evidence transfer-tables -->"
ALL = "all sets"
"""What all sets are called together; a set's own name has no blank."""
_STATISTICS = ("top1", "spearman", "regret")
_DECIMALS = 4


def write(table: pd.DataFrame, digest: str) -> None:
    """Write both.

    Args:
        table: as ``evidence.transfer_tables.run`` writes it.
        digest: its checksum.

    Raises:
        UserError: a page without its marks.
    """
    rows = pooled(table)
    found = by_measure(rows)
    store.write_json(OUT, found, {"agreement": digest} | about(rows))
    transfer_page.put(BEGIN, fragment(found, about(rows)))


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that count: of the pool, truths with signal, all the target's data, one network.

    That is the network that most of the pool's sets have.
    """
    own = table[table["gate"] & ~table["disjoint"] & (table["scope"] == EVERY)]
    own = own[own["against"].isna() & (own["arm"] == "all")]
    pool = next((name for name in (HELD_OUT, ALL, CHOOSING) if name in {*own["set"]}), None)
    own = own[own["set"] == pool]
    most = own.groupby("network", sort=False)["sets"].max()
    return own[own["network"] == most.idxmax()] if len(most) else own


def about(rows: pd.DataFrame) -> dict[str, str]:
    """The pool and the network of ``pooled`` rows; nothing of none."""
    return {key: str(rows[key].iloc[0]) for key in ("set", "network") if len(rows)}


def by_measure(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Of ``pooled`` rows, by measure and of a random choice: the fields of ``ftd.transfer.trust``.

    A measure that lacks a number or an end of an interval is left out.
    """
    found = {}
    for measure in (*MEASURES.names(), trust.RANDOM):
        own = rows[rows["measure"] == measure].set_index("statistic")
        numbers = own[["value", "low", "high"]].reindex(list(_STATISTICS))
        if numbers.notna().all(axis=None):
            each = numbers.astype(float).round(_DECIMALS).T.to_dict("list")
            found[measure] = each | {"sets": int(own["sets"].iloc[0])}
    return found


def fragment(found: Mapping[str, Mapping], facts: Mapping[str, str]) -> list[str]:
    """Lines of Markdown: a row a measure, those of the lowest regret first."""
    if not found:
        return ["Not measured yet.", ""]
    heads = ["measure", "probe of the target", "best source named", "Spearman", "regret, points"]
    lines = [f"Network {facts['network']}, {facts['set']}:", ""]
    lines += [line(heads), "|---" * len(heads) + "|"]
    for measure in sorted(found, key=lambda name: found[name]["regret"][0]):
        own = found[measure]
        probed = transfer_page.takes(measure, {})[0]
        best, rho = trust.percent(own["top1"]), trust.number(own["spearman"], 2)
        lines.append(line([measure, probed, best, rho, trust.number(own["regret"], 1)]))
    return [*lines, ""]
