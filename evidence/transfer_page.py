"""The main table of agreement in ``docs/transfer.md``, between two marks, and other such tables."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from evidence.frozen import HELD_OUT
from evidence.kept_transfer import TABLES
from ftd import store
from ftd.errors import UserError
from ftd.measures import Combination
from ftd.parts import MEASURES
from ftd.transfer.agreement import EVERY

PAGE = Path("docs/transfer.md")
COSTS = TABLES / "cost.parquet"
"""What ``python -m evidence measure-cost`` found; without it, the page has the registered words."""
BEGIN = "<!-- begin: written by python -m evidence transfer-tables -->"
END = "<!-- end -->"
ARMS = {"all": "the target has all its data", "few": "the target has only the shots"}
_OWN = {"weights", "fisher", "features", "facts"}
"""What a measure may need of the target that takes a probe of it."""
_SHOWN = ("spearman", "regret")
Gate = Mapping[str, Mapping[str, list[int]]]
"""By set and network: how many truths pass, and of how many."""


def expect_marks(*begins: str, page: Path = PAGE) -> None:
    """Raises a ``UserError`` if a page lacks any of these marks, or is not there."""
    for begin in begins:
        _around(begin, page)


def write(table: pd.DataFrame, gate: Gate) -> list[str]:
    """Put the fragment between the page's marks; returns its lines.

    Raises:
        UserError: a page without its marks.
    """
    lines = fragment(table, gate)
    put(BEGIN, lines)
    return lines


def put(begin: str, lines: list[str], page: Path = PAGE) -> None:
    """Put lines between a mark of a page and the next ``END``.

    Raises:
        UserError: a page without these.
    """
    before, after = _around(begin, page)
    store.write_bytes(page, "\n".join([before + begin, "", *lines, END + after]).encode())


def _around(begin: str, page: Path) -> tuple[str, str]:
    """What stands before and after the marks."""
    try:
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    except OSError as error:
        raise UserError(f"{page}: cannot be read ({error}); run from the repository") from error
    between, mark, after = rest.partition(END)
    if not mark or "<!-- begin" in between:
        raise UserError(f"{page}: expected the lines {begin!r} and, below it, {END!r}")
    return before, after


def fragment(table: pd.DataFrame, gate: Gate) -> list[str]:
    """Lines of Markdown: a table for each arm and network, those of most sets first.

    Measures are sorted by the regret over all sets together, or over those held out, then over
    those for choosing.

    Args:
        table: as ``evidence.transfer_tables.run`` returns it.
    """
    own = table[table["gate"] & ~table["disjoint"] & (table["scope"] == EVERY)]
    own = own[own["against"].isna() & own["statistic"].isin(_SHOWN)]
    lines = []
    for arm, title in ARMS.items():
        rows = own[own["arm"] == arm]
        sets = rows.groupby("network", sort=False)["set"].nunique()
        for network in sets.sort_values(ascending=False, kind="stable").index:
            lines += [f"**{network}, {title}**", ""]
            lines += [*_table(rows[rows["network"] == network], network, gate), ""]
    return lines or ["No set has signal yet.", ""]


def _table(rows: pd.DataFrame, network: str, gate: Gate) -> list[str]:
    names = list(dict.fromkeys(rows["set"]))
    alone, together = ([name for name in names if (name in gate) is own] for own in (True, False))
    known = rows[rows["value"].notna()]
    cells = {(row.measure, row.set, row.statistic): row for row in known.itertuples()}
    regret = rows[rows["statistic"] == "regret"].pivot(
        index="measure", columns="set", values="value"
    )
    order = regret.sort_values(together[::-1], kind="stable").index  # those held out come first
    held = {*rows.loc[rows["role"] == HELD_OUT, "set"]}
    heads = ["measure", *(f"{name} (held out)" if name in held else name for name in alone)]
    heads += [f"{name}: {what}" for name in together for what in ("Spearman", "regret")]
    costs = _costs()
    heads += [
        "probe of the target",
        "a pair takes" + (", in passes (once a target)" if costs else ""),
    ]
    lines = [line(heads), "|---" * len(heads) + "|"]
    for measure in order:
        found = [_both(cells, measure, name) for name in alone]
        found += [_held(cells.get((measure, name, each))) for name in together for each in _SHOWN]
        lines.append(line([measure, *found, *takes(measure, costs)]))
    counts = ["{} of {}".format(*gate[name][network]) for name in alone]
    blank = [""] * (len(heads) - len(counts) - 1)
    return [*lines, line(["*targets, shots and scopes with signal*", *counts, *blank])]


def line(cells: list[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def _both(cells: Mapping, measure: str, name: str) -> str:
    """Spearman / regret of one set; nothing where there is none."""
    rows = [cells.get((measure, name, each)) for each in _SHOWN]
    return "" if None in rows else f"{rows[0].value:z.2f} / {rows[1].value:z.2f}"


def _held(row: object) -> str:
    """A value with its interval; nothing where there is none."""
    return "" if row is None else f"{row.value:z.2f} [{row.low:z.2f}, {row.high:z.2f}]"


def _costs() -> dict[str, str]:
    """By measure: what a pair takes, and in brackets a target, in passes forward and backward."""
    if not COSTS.exists():
        return {}
    rows = store.read_table(COSTS, ["measure", "prepare", "compare"]).to_pylist()
    return {row["measure"]: f"{row['compare']:.2f} ({row['prepare']:.2f})" for row in rows}


def takes(measure: str, costs: Mapping[str, str]) -> list[str]:
    """Whether a measure needs a probe of the target, and what a pair takes."""
    if measure not in MEASURES.names():
        return ["", ""]
    kind = MEASURES.get(measure)
    if isinstance(kind, Combination):
        probed = "yes" in [takes(of, costs)[0] for of in kind.of]
        return ["yes" if probed else "no", " + ".join(kind.of)]
    return ["yes" if _OWN & {*kind.target} else "no", costs.get(measure, kind.cost)]
