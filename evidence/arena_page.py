"""The page of the arena of published tables, ``docs/arena.md``, and a figure beside each table."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from evidence import arena_cells
from evidence.transfer_page import line
from ftd import store
from ftd.drawing.style import drawing

BARS = {"micro": 12.0, "macro": 4.0}
"""Mean rank after ``AT`` queries that was to be reached without an oracle; the goal is 8.5."""
FIRST = {"micro": 7.5, "macro": 4.6}
"""What a first run gave, which chose the surrogate's settings by each table alone."""
AT = 50
_SHOWN = (10, 25, 50, 100)
_OURS = ("surrogate", "queries")
_DRAWN = (
    ("random", "nothing"),
    ("evolution", "nothing"),
    ("all tasks' ranking", "nothing"),
    ("nearest's ranking", "the table"),
    ("surrogate without learned tasks", "nothing"),
    ("surrogate", "nothing"),
    ("surrogate", "queries"),
)
_ANSWER = (
    ("surrogate", "nothing"),
    ("surrogate", "queries"),
    ("nearest's ranking", "the table"),
    ("all tasks' ranking", "nothing"),
    ("evolution", "nothing"),
    ("surrogate without learned tasks", "nothing"),
    ("random", "nothing"),
)
_ASKED = """\
# Which architectures to try first on a new task

**What was asked.** A new task arrives, and of the tasks learned before it is known how well
architectures do. Which ones should be tried first, and must it be known which learned task is near?
"""
_HOW = """\
**Settings.** The tables hold every architecture of a space, trained by others on each of several
tasks, so that a search is a look-up. Every task is the target once; all others are learned tasks. A
search tries one architecture after another; what counts is the **rank**, among all of the table, of
the best one tried so far: 1 is the best of all. Where chance takes part, numbers are means over
repetitions. The tables and figures below are made by

    python -m evidence arena --micro transnas_micro.parquet --macro transnas_macro.parquet \\
      --nb201 nb201.parquet --out docs --page docs/arena.md

*Nearness* is what a search knows of which learned task is near. `nothing`: it weighs all alike.
`queries`: it tries five random architectures on the target first, which count. `the table`: it
knows the rank correlation of all results, the target's own among them. No search has that: it is
an oracle, to show what nearness can be worth.

The **surrogate** (`ftd.search.surrogate`), which `ftd-nas` searches by, is a Gaussian process:
the target's score is a weighted sum of the learned tasks' scores, whose weights are uncertain,
and of what alike architectures share; after each trial it tries what it expects most of. Its
weights are equal beforehand, but with `the table`, where they are in proportion to the rank
correlation, as in *weighted ranking*. *Mutations* go on with untried neighbours of the best so
far, *local search* does from the first.

**Limits.** The learned tasks' results are known for all architectures here; a real library knows
those that its searches tried. Every architecture of these tables was trained, by others, in one
way. Whether the same holds for searches that train their networks is not measured yet.

**How it was chosen.** The surrogate, and the 12 settings that it may take, were arrived at by
trying variants on TransNAS-Bench-101's two tables. For each target, the setting is the best of
the 12 on the other tasks of both tables (least mean logarithm of the rank after 50 queries, five
random ones first; the target's results are nowhere in it). A first run chose it by each table
alone and missed a bar; only then was it decided to choose over both. NAS-Bench-201 had no part in
any of this: there the surrogate is as it comes.
"""


def write(files: list[Path], out: Path) -> None:
    """The page and the figures, from what ``evidence.arena.run`` wrote.

    Raises:
        UserError: a file that cannot be read.
    """
    sections, means = [], {}
    for file in files:
        read = store.read_table(file)
        table, facts = read.to_pandas(), store.table_facts(read)
        figure = file.with_suffix(".svg")
        _draw(table, figure)
        sections += ["", *_section(table, facts, figure)]
        means[f"{facts['kind']}, of {facts['architectures']:,}"] = _means_of(table)
    lines = [*_ASKED.splitlines(), "", *_answer(means), "", *_HOW.splitlines(), *sections, ""]
    store.write_bytes(out, "\n".join(lines).encode())


def _means_of(table: pd.DataFrame) -> pd.Series:
    """Mean rank over targets, by way, nearness and number of queries."""
    return table.groupby(["way", "nearness", "queries"], sort=False)["rank"].mean()


def _answer(means: Mapping[str, pd.Series]) -> Iterator[str]:
    """What the page says in short; ``means`` by what a table is called."""
    yield (
        "**The answer.** Those that learned tasks rank highest, and then those of which a model "
        "expects most that weighs these tasks by the trials so far. Nearness need not be known "
        "beforehand: trials tell. Where tasks rank architectures alike (NAS-Bench-201), any "
        f"learned task's ranking does as well. Mean rank of the best of {AT} architectures tried; "
        "1 would be the best of all:"
    )
    yield ""
    yield line(["way", "nearness known by", *means])
    yield "|---" * (2 + len(means)) + "|"
    for way, nearness in _ANSWER:
        yield line([way, nearness, *(f"{own[way, nearness, AT]:,.1f}" for own in means.values())])


def _section(table: pd.DataFrame, facts: dict, figure: Path) -> Iterator[str]:
    kind = facts["kind"]
    means = _means_of(table)
    yield f"## {arena_cells.KINDS[kind].origin}"
    yield ""
    yield (
        f"{facts['architectures']:,} architectures, {table['target'].nunique()} targets, "
        f"{table['repetitions'].max()} repetitions."
    )
    yield ""
    yield f"![Mean rank of the best architecture against the number of queries]({figure.name})"
    yield ""
    if kind in BARS:
        found, error = means[(*_OURS, AT)], _error(table)
        yield (
            f"Bar: without an oracle, after five random queries, a mean rank of at most "
            f"{BARS[kind]:g} after {AT}: {_said(found, BARS[kind])}, {found:.1f} ± {error:.1f} "
            "(95 % of the draws). The first run, with settings chosen by each table alone: "
            f"{_said(FIRST[kind], BARS[kind])}, {FIRST[kind]}."
        )
        yield ""
    yield "Mean rank over all targets, after so many queries:"
    yield ""
    yield from _means(means)
    yield ""
    yield f"By target, after {AT} queries: mean and, where it differs, (median)."
    yield ""
    yield from _by_target(table[table["queries"] == AT])


def _said(found: float, bar: float) -> str:
    return "met" if found <= bar else "**missed**"


def _error(table: pd.DataFrame) -> float:
    """Half of the 95 % interval of our mean rank over targets, by the draws of repetitions."""
    way, nearness = _OURS
    rows = table[(table["way"] == way) & (table["nearness"] == nearness) & (table["queries"] == AT)]
    return 1.96 * ((rows["std"] ** 2 / rows["repetitions"]).sum() ** 0.5) / len(rows)


def _means(means: pd.Series) -> Iterator[str]:
    yield line(["way", "nearness", *(f"{number} queries" for number in _SHOWN)])
    yield "|---" * (2 + len(_SHOWN)) + "|"
    rows = means.unstack("queries")[list(_SHOWN)].sort_values(AT)
    for (way, nearness), numbers in rows.iterrows():
        yield line([way, nearness, *(f"{number:,.1f}" for number in numbers)])


def _by_target(rows: pd.DataFrame) -> Iterator[str]:
    targets = list(dict.fromkeys(rows["target"]))
    yield line(["way", "nearness", *targets])
    yield "|---" * (2 + len(targets)) + "|"
    order = rows.groupby(["way", "nearness"], sort=False)["rank"].mean().sort_values().index
    found = rows.set_index(["way", "nearness", "target"])
    for way, nearness in order:
        cells = []
        for target in targets:
            if (way, nearness, target) not in found.index:
                cells.append("")
                continue
            own = found.loc[(way, nearness, target)]
            median = "" if own["median"] == own["rank"] else f" ({own['median']:,.0f})"
            cells.append(f"{own['rank']:,.1f}".removesuffix(".0") + median)
        yield line([way, nearness, *cells])


def _draw(table: pd.DataFrame, out: Path) -> None:
    means = table.groupby(["way", "nearness", "queries"])["rank"].mean()
    with drawing(out, height=4.4, title="The best of so many queries") as (figure, panels):
        axes = panels[0, 0]
        for way, nearness in _DRAWN:
            if (way, nearness) in means.index.droplevel("queries"):
                own = means[way, nearness]
                style = "--" if nearness == "the table" else "-"
                axes.plot(own.index, own, style, label=f"{way} ({nearness})")
        axes.set(xscale="log", yscale="log", xlabel="queries", ylabel="mean rank of the best")
        figure.legend(loc="outside lower left", ncols=2)
