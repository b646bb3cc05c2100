"""Searches of published tables, in the full space and in near and far tasks' spaces."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from evidence import nas_tables as tables
from ftd import store
from ftd.runtime.progress import progress
from ftd.runtime.seeds import seed_of
from ftd.runtime.threads import setup
from ftd.search.enas import Enas
from ftd.search.space import Space
from ftd.store.provenance import packages

DRAWS = (4, 8, 16, 32, 64, 128, 256)
CONTROLLER_STEPS = 64
CONTROLLER = Enas(controller_samples=1)


def run(
    out: Path,
    *,
    table: Path,
    layout: str,
    distances: Path | None = None,
    repetitions: int = 1000,
    controller_seeds: int = 5,
    page: Path | None = None,
) -> pd.DataFrame:
    """Search a published table in the full space and in near and far tasks' spaces; as Parquet.

    A row per target, space, method and number of evaluations ``n``: mean and half width of the
    mean's 95% interval (Student's t over repetitions) of the ``percentile`` [0, 1] and
    ``value`` (the table's units) of what was found. For all ``n``, random search takes the first
    ones of the same draws, and targets that share a space share its draws.

    Args:
        table, layout: as ``nas_tables.read`` takes them.
        distances: which sources are near, as in ``nas_tables.ranked_sources``.
        repetitions: random searches of a space, at least 2.
        controller_seeds: searches by ENAS's controller of a target and space; 0: none.
        page: Markdown page to write of every ``bench-tabular-*.parquet`` beside ``out``.

    Returns:
        A row per target and space: its size, and the mean percentile after so many draws.

    Raises:
        UserError: a table or distances that cannot be used.
    """
    setup()
    read = tables.read(table, layout)
    ranked = tables.ranked_sources(read, distances)
    results = pd.DataFrame(_searched(read, ranked, repetitions, controller_seeds))
    facts = {
        "layout": layout,
        "table": {"name": table.name, "sha256": store.digest(table)},
        "distances": distances and distances.name,
        "sources": ranked[["target", "source", "mean"]].to_dict("records"),
        "controller": CONTROLLER.model_dump(mode="json"),
        "packages": packages(),
    }
    store.write_table(out, pa.Table.from_pandas(results, preserve_index=False), facts)
    if page:
        page_of(sorted(out.parent.glob("bench-tabular-*.parquet")), page)
    by = ["target", "space", "architectures", "n"]
    chosen = results[results["method"] == "random"].set_index(by)
    return chosen["percentile"].unstack(sort=False).reset_index()


def _searched(
    table: tables.Table, ranked: pd.DataFrame, repetitions: int, controller_seeds: int
) -> list[dict]:
    """The rows of all targets and spaces."""
    rng = random.Random(seed_of("bench tabular", table.layout))
    drawn: dict[Space, np.ndarray] = {}
    cases = [(task, case) for task in table.tasks for case in tables.spaces(table, task, ranked)]
    rows = []
    for target, (name, source, space) in progress(cases, f"tabular, {table.layout}"):
        if space not in drawn:
            samples = [tables.draw_rows(table, space, DRAWS[-1], rng) for _ in range(repetitions)]
            drawn[space] = np.array(samples)
        about = {"target": target, "space": name, "source": source}
        about |= {"architectures": space.size, "size_log10": space.size_log10}
        found = _random_searches(table, target, drawn[space])
        found += _controller_searches(table, target, space, controller_seeds)
        rows += [about | result for result in found]
    return rows


def _random_searches(table: tables.Table, target: str, drawn: np.ndarray) -> list[dict]:
    return [
        {"method": "random", "n": n}
        | _found(table, target, tables.best_rows(table, target, drawn[:, :n]))
        for n in DRAWS
    ]


def _controller_searches(table: tables.Table, target: str, space: Space, seeds: int) -> list[dict]:
    found = [
        tables.controller_search(table, target, space, CONTROLLER_STEPS, CONTROLLER, seed)[0]
        for seed in range(seeds)
    ]
    if not found:
        return []
    best = np.array([table.row(genotype) for genotype in found])
    return [{"method": "controller", "n": CONTROLLER_STEPS} | _found(table, target, best)]


def _found(table: tables.Table, target: str, rows: np.ndarray) -> dict[str, float]:
    """Mean and its interval's half width, of percentiles and values of what searches found."""
    found: dict[str, float] = {"repetitions": len(rows)}
    column = table.column(target)
    for name, matrix in (("percentile", table.percentiles), ("value", table.final)):
        values = matrix[rows, column]
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        found[name] = float(values.mean())
        found[f"{name}_ci95"] = float(stats.t.ppf(0.975, len(values) - 1) * error)
    return found


def page_of(files: list[Path], out: Path) -> None:
    """Results of ``tabular`` as a Markdown page, a section a table.

    Raises:
        UserError: a file that cannot be read.
    """
    read = {file: store.read_table(file) for file in files}
    found = {file: (table.to_pandas(), store.table_facts(table)) for file, table in read.items()}
    lines = [*_ASKED.splitlines(), "", *_answer(found.values()), *_HOW.splitlines()]
    for file, (table, facts) in found.items():
        lines += _section(file, table, facts)
    store.write_bytes(out, "\n".join(lines).encode())


_SHOWN = (4, 16, 64, 256)
FEW = 16
"""The number of evaluations after which spaces are compared in short."""
_ASKED = """\
# Is it worth restricting a search to what suits a near task?

**What was asked.** A search on a new task can be restricted to a space that a learned task's best
architecture suggests. What does that gain, by how near that task is and how it restricts?
"""
_HOW = """\
**How to read it.** A near source's space makes a few evaluations go further. A far one's can be
worse than none, and what a space lacks, no number of evaluations finds. Keeping the *operations*
that the source's architecture uses (Le et al. 2022, section IV) restricts nothing where it uses
them all; a *neighbourhood*, what differs from it in at most two edges, always restricts. Where
all tasks rank the architectures almost alike, even the farthest is near.

**Settings.** Tables hold every architecture of a small space, trained by others, with its result
per task, so that a search is a look-up. A number is the rank percentile, in the whole table, of
what a search found (1: the best of all architectures, 0: the worst), as the mean over searches ±
the half width of its 95% interval. A random search takes *n* different architectures, all if
there are fewer, and chooses by what a search may see: the validation accuracy where a test
accuracy is kept for the end, else the one value there is. ENAS's controller (Pham et al. 2018)
learns from the rank percentile of what a search sees; its steps may repeat an architecture, and
its searches are few.

**Limits.** Without `--distances`, a source is near by the table itself, which takes the target's
own results: this shows what nearness can be worth, not what the Fisher task distance finds.
"""


def _answer(found: Iterable[tuple[pd.DataFrame, dict]]) -> Iterator[str]:
    """How many targets each space serves better and worse than the full one, by table."""
    rows = []
    for table, facts in found:
        drawn = table[table["method"] == "random"]
        origin = tables.LAYOUTS[facts["layout"]].origin.partition(" (")[0]
        for space, (gain, clear) in _gains(drawn).items():
            counts = [(clear & side).loc[FEW].sum() for side in (gain > 0, gain < 0)]
            rows.append([origin, space, drawn["target"].nunique(), *counts])
    every = pd.DataFrame(rows, columns=["table", "space", "targets", "better", "worse"])
    total = every.groupby("space")[["targets", "better", "worse"]].sum()
    near, far = (total.loc[f"{which} neighbourhood"] for which in ("nearest", "farthest"))
    yield (
        f"**The answer.** Much, if the task is near and the space is its neighbourhood: after "
        f"{FEW} evaluations that is better than the full space on {near['better']} of "
        f"{near['targets']} targets and worse on {near['worse']}. The farthest task's is better on "
        f"{far['better']} and worse on {far['worse']}. Beside the full space, by random search:"
    )
    yield ""
    yield from _markdown(list(every), every.astype(str).to_numpy().tolist())


def _gains(drawn: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """By space: its gain over the full one by ``n`` and target, and whether that is clear.

    Clear is what lies beyond the 95 % interval of the difference.
    """
    found = drawn.set_index(["space", "n", "target"])
    full, gains = found.loc["full"], {}
    for space in [name for name in dict.fromkeys(drawn["space"]) if name != "full"]:
        here = found.loc[space]
        gain = here["percentile"] - full["percentile"]
        clear = gain.abs() > np.hypot(here["percentile_ci95"], full["percentile_ci95"])
        gains[space] = gain, clear
    return gains


def _section(file: Path, results: pd.DataFrame, facts: dict) -> list[str]:
    targets = list(dict.fromkeys(results["target"]))
    more = f" --distances {facts['distances']}" if facts["distances"] else ""
    measure = "the mean squared distance" if more else "1 − Spearman's rank correlation"
    counts = [f"{how} {n}" for how, n in results.groupby("method")["repetitions"].max().items()]
    return [
        "",
        f"## {tables.LAYOUTS[facts['layout']].origin}",
        "",
        f"`python -m evidence tabular --table {facts['table']['name']} "
        f"--layout {facts['layout']}{more} --out docs/{file.name} --page docs/tabular.md`: "
        "searches of each space: "
        f"{', '.join(counts)}. In brackets behind a source, its distance: {measure}.",
        "",
        *_reading(results[results["method"] == "random"], targets),
        *(
            line
            for target in targets
            for line in _target_table(results[results["target"] == target], target, facts)
        ),
    ]


def _reading(results: pd.DataFrame, targets: list[str]) -> list[str]:
    """For which targets a space restricts nothing, and for how many it helps or hurts."""
    sizes = results.set_index(["space", "n", "target"])["architectures"].xs(_SHOWN[0], level="n")
    rows, worse = [], []
    for space, (gain, clear) in _gains(results).items():
        better, lost = clear & (gain > 0), clear & (gain < 0)
        same = sizes.loc[space] == sizes.loc["full"]
        counts = [f"{better.loc[n].sum()} better, {lost.loc[n].sum()} worse" for n in _SHOWN]
        rows.append([space, str(same.sum()), *counts])
        worse += [f"{t} ({space}, {gain[FEW, t]:+.3f})" for t in targets if lost[FEW, t]]
    return [
        f"Of {len(targets)} targets, how many a space leaves unrestricted, and how many it serves "
        "better or worse than the full space, beyond the 95% interval of the difference, by random "
        "search:",
        "",
        *_markdown(["space", "restricts nothing", *(f"n = {n}" for n in _SHOWN)], rows),
        f"Worse at n = {FEW}: {', '.join(worse) or 'none'}.",
        "",
    ]


def _target_table(results: pd.DataFrame, target: str, facts: dict) -> list[str]:
    """One target's spaces, and what searches of so many evaluations found in them."""
    distance = {s["source"]: s["mean"] for s in facts["sources"] if s["target"] == target}
    searched = [("random", n) for n in _SHOWN]
    if (results["method"] == "controller").any():
        searched.append(("controller", CONTROLLER_STEPS))
    rows = []
    for space, group in results.groupby("space", sort=False):
        first, found = group.iloc[0], group.set_index(["method", "n"])
        source = "–" if space == "full" else f"{first['source']} ({distance[first['source']]:.2f})"
        size = f"{first['architectures']:,} ({first['size_log10']:.2f})"
        rows.append([space, source, size, *(_interval(found.loc[key]) for key in searched)])
    heads = [
        "space",
        "source",
        "architectures (log10)",
        *(f"{how}, n = {n}" for how, n in searched),
    ]
    return [f"### {target}", "", *_markdown(heads, rows)]


def _interval(found: pd.Series) -> str:
    return f"{found['percentile']:.3f} ± {found['percentile_ci95']:.3f}"


def _markdown(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table, and an empty one."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
