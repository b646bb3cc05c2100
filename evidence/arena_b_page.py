"""The page of arena B, ``docs/arena-b.md``: its plan, its gates, what was found."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from evidence import arena_b_contrasts, arena_b_gate, arena_b_plan, contrasts
from evidence.arena_b import ROWS
from evidence.arena_b_gate import AMONG, Decision
from evidence.arena_b_plan import BUDGETS, FOLDER, Plan
from evidence.transfer_page import line
from ftd import config, store
from ftd.config import method_of
from ftd.config.search_keys import search_schema

PAGE = Path("docs/arena-b.md")
_INTRODUCTION = """\
Made by `python -m evidence arena-page`, from [plan.yaml](arena-b/plan.yaml), which was written
before any search ran, and the tables beside it. [arena.md](arena.md) has the methods on published
tables, where a search is a look-up; here every architecture is trained.

## The plan

A set is a new task and its learned tasks, which come before it and are of other data sets. Learned
tasks are searched by `surrogate`, each on its own and in the full space, under the same budget as
the new one. The **nearest** (farthest) one is that of the smallest (largest) mean Fisher distance.
"""
_RULES = """\
A base seed decides everything: the cut of a data set, whose published training and test parts are
pooled for it, the probes and so the selection, searches and trainings. `test` is read by the final
evaluation alone, and kept for the seeds that are confirmed; methods and settings may be changed by
what development seeds say on `val`.

A budget is `search.max_macs`, of multiply-accumulates that a search evaluates; B is worth at most
90 seconds of a core by ordinary training. A search ends at the first look after its budget is
spent: between batches (DARTS), trials, edges (TE-NAS), epochs (ENAS) or alternations (FUSE). All
architectures have one skeleton, so that all methods search one space, of which no network has more
parameters than the plan allows."""
_TESTS = """\
Differences are paired by seed. Intervals are of a bootstrap that draws seeds anew within each set;
sets count alike in pooled numbers. p-values are one-sided, of the same bootstrap, and adjusted
(Holm) for the number of pooled contrasts.

What a search costs is counted in three ways: the search; with the new task's probes and distances,
where the method asks for the nearest; with the searches of the learned tasks that it starts from,
all of them on the one task that does so here. Where n tasks do, each bears the n-th part."""


def write() -> None:
    """Write the page.

    Raises:
        UserError: a plan, configuration or table that is damaged.
    """
    plan = arena_b_plan.load()
    decisions = {name: arena_b_gate.read(name, plan.gate) for name in plan.sets}
    rows = pd.DataFrame(store.read_table(ROWS).to_pandas()) if ROWS.exists() else None
    text = ["# Search methods by real trainings", "", _INTRODUCTION, *_plan(plan), ""]
    text += ["## The gate", "", *_gates(plan, decisions), "", "## What was found", ""]
    passed = [name for name, each in decisions.items() if each and each.goes_on]
    text += [*_found(rows, plan, passed)] if rows is not None else ["Nothing was run yet."]
    store.write_bytes(PAGE, ("\n".join(text) + "\n").encode())


# The plan ---------------------------------------------------------------------------------------


def _plan(plan: Plan) -> Iterator[str]:
    yield line(["set", "new task", "learned tasks", "training images", "B, B/4 (GMACs)"])
    yield line(["---"] * 5)
    of = {name: config.load(*arena_b_plan.files_of(name, "B")) for name in plan.sets}
    for name, one in plan.sets.items():
        tasks = of[name].tasks
        learned = ", ".join(task for task in tasks if task != one.target)
        train = of[name].datasets[tasks[one.target].dataset].parts.train
        budgets = ", ".join(f"{macs / 1e9:g}" for macs in one.max_macs)
        yield line([name, one.target, learned, f"{train:,}", budgets])
    yield from ["", _RULES, "", *_contrasts(plan), "", _TESTS, ""]
    described = config.load(*arena_b_plan.files_of(next(iter(of)), "B", described=True))
    others = [name for name in described.search.methods if name not in plan.contrasted]
    seeds = plan.seeds
    yield (
        f"Seeds: {_listed(seeds.development)} for development, {_listed(seeds.confirmation)} to "
        f"confirm, on sets that pass the gate; the first {seeds.described} of these have the "
        f"methods that are no part of a contrast, too: {', '.join(others)}."
    )
    yield from ["", "Bars:", ""]
    yield from (f"- {bar.text}." for bar in arena_b_contrasts.bars(_NONE, plan, []))
    yield (
        "\nThe first is met if the intervals of these contrasts lie above the margin, and of the "
        "methods that few seeds have, the mean differences do. Whatever is missed is reported with "
        "its interval.\n"
    )
    yield from ["Where a published schedule does not fit, it is cut by the method's own keys:", ""]
    yield from _cuts(next(iter(plan.sets)))


_NONE = pd.DataFrame(columns=["set", "seed", "budget", "method", "accuracy", "parameters"])


def _contrasts(plan: Plan) -> Iterator[str]:
    yield "Contrasts:"
    yield ""
    for budget in BUDGETS:
        for test in ("not worse", "better"):
            own = [
                contrast.text
                for contrast in arena_b_contrasts.planned(plan)
                if (contrast.budget, contrast.test) == (budget, test)
            ]
            margin = f" by {100 * plan.margin:g} point" if test == "not worse" else ""
            yield f"- at {budget}, {test}{margin}: {'; '.join(own)}"


def _listed(seeds: list[int]) -> str:
    whole = seeds == [*range(seeds[0], seeds[-1] + 1)]
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _cuts(name: str) -> Iterator[str]:
    """What differs from the methods' defaults, by section; of the first set."""
    by = {budget: config.load(*arena_b_plan.files_of(name, budget)).search for budget in BUDGETS}
    yield line(["section", "default", *BUDGETS])
    yield line(["---"] * 4)
    for section, field in search_schema().model_fields.items():
        if not hasattr(field.default, "model_dump") or section == "space":
            continue
        default = field.default.model_dump()
        own = [getattr(each, section).model_dump() for each in by.values()]
        keys = [key for key in default if any(each[key] != default[key] for each in own)]
        if keys:
            cells = [", ".join(f"{key} {of[key]:g}" for key in keys) for of in (default, *own)]
            yield line([f"`search.{section}`", *cells])


# The gate ---------------------------------------------------------------------------------------


def _gates(plan: Plan, decisions: dict[str, Decision | None]) -> Iterator[str]:
    gate = plan.gate
    yield (
        f"{gate.architectures} random architectures, each trained {gate.repeats} times as a "
        f"search's trials are (early) and as winners are (final), on the first development seed's "
        f"cut and judged on `val`. A set goes on if the deviation between architectures is at "
        f"least {gate.ratio:g} times that between trainings of one, the median "
        f"{100 * gate.above:g} points above the most frequent label's share, and Spearman's ρ of "
        f"early and final accuracy at least {gate.correlation:g}. *Detectable*: what "
        f"{len(plan.seeds.confirmation)} seeds show with a power of {plan.statistics.power:g}, if "
        f"a method finds the best of {AMONG} random architectures by one early training; *seeds*: "
        f"so many show {100 * plan.margin:g} point. Made by `python -m evidence arena-gate`."
    )
    yield ""
    yield line(_GATE_HEADS)
    yield line(["---"] * len(_GATE_HEADS))
    for name, decision in decisions.items():
        yield _gate_row(name, decision, plan)
    yield ""
    yield from _scores(plan)


_GATE_HEADS = [
    "set",
    "between",
    "within",
    "ratio",
    "median",
    "most frequent",
    "ρ",
    "goes on",
    "detectable",
    "seeds",
]


def _gate_row(name: str, decision: Decision | None, plan: Plan) -> str:
    if decision is None:
        return line([name, "not run yet", *[""] * (len(_GATE_HEADS) - 2)])

    def marked(key: str, text: str) -> str:
        return text if decision.passes[key] else f"**{text}**"

    chosen, of = 2**0.5 * decision.spread, (plan.statistics.confidence, plan.statistics.power)
    detectable = contrasts.detectable(chosen, len(plan.seeds.confirmation), *of)
    return line(
        [
            name,
            f"{100 * decision.between:.2f}",
            f"{100 * decision.within:.2f}",
            marked("ratio", f"{decision.ratio:.2f}"),
            marked("above", f"{100 * decision.median:.1f}"),
            f"{100 * decision.most_frequent:.1f}",
            marked("correlation", f"{decision.correlation:.2f}"),
            "yes" if decision.goes_on else "**no**",
            f"{100 * detectable:.1f}",
            str(contrasts.seeds_for(plan.margin, chosen, *of)),
        ]
    )


def gate_lines(name: str, decision: Decision) -> list[str]:
    """A set's row, with its heads."""
    heads = [line(_GATE_HEADS), line(["---"] * len(_GATE_HEADS))]
    return [*heads, _gate_row(name, decision, arena_b_plan.load())]


def _scores(plan: Plan) -> Iterator[str]:
    """Whether the scores of DARTS and TE-NAS repeat, of the sets that have it."""
    paths = {name: FOLDER / f"scores-{name}.parquet" for name in plan.sets}
    tables = {name: store.read_table(path) for name, path in paths.items() if path.exists()}
    if not tables:
        yield "Whether the scores of DARTS and TE-NAS repeat (`--scores`): not run yet."
        return
    yield (
        f"Do scores repeat? Spearman's ρ of α between searches of two seeds, and of TE-NAS' scores "
        f"between averaged draws; a method whose ρ is not above {plan.gate.score_repeats:g} "
        "(**bold**) chooses by noise, which its rows below say nothing of. Made by `python -m "
        "evidence arena-gate --scores`."
    )
    yield ""
    yield line(["set", "method", "score", "ρ"])
    yield line(["---"] * 4)
    for name, table in tables.items():
        for row in table.to_pylist():
            rho = f"{row['rho']:.2f}"
            rho = rho if row["rho"] > plan.gate.score_repeats else f"**{rho}**"
            yield line([name, row["method"], row["measure"], rho])


# What was found ---------------------------------------------------------------------------------


def _found(rows: pd.DataFrame, plan: Plan, passed: list[str]) -> Iterator[str]:
    confirmed = rows[rows["seed"].isin(plan.seeds.confirmation)]
    developed = rows[rows["seed"].isin(plan.seeds.development)]
    if len(confirmed):
        for bar in arena_b_contrasts.bars(confirmed, plan, passed):
            met = {None: "open: seeds are missing", True: "met", False: "missed"}[bar.met]
            yield f"- {bar.text}: **{met}**; {bar.why}."
        yield ""
        yield from _contrast_table(confirmed, plan)
    for name in plan.sets:
        for budget in BUDGETS:
            own = confirmed[(confirmed["set"] == name) & (confirmed["budget"] == budget)]
            if len(own):
                yield from ["", f"**{name}, {budget}**", "", *_methods(own, "accuracy", plan)]
    for name in plan.sets:
        for budget in BUDGETS:
            own = developed[(developed["set"] == name) & (developed["budget"] == budget)]
            if len(own):
                yield from ["", f"**{name}, {budget}: development, on `val`**", ""]
                yield from _methods(own, "val_accuracy", plan)


def _contrast_table(rows: pd.DataFrame, plan: Plan) -> Iterator[str]:
    yield (
        f"Differences in points, with {100 * plan.statistics.confidence:g} % intervals; "
        "*detectable*: what as many seeds of such differences show."
    )
    yield ""
    yield line(["contrast", "budget", "of", "seeds", "difference", "detectable", "test", "p"])
    yield line(["---"] * 8)
    statistics = plan.statistics
    for contrast, by_set in arena_b_contrasts.found(rows, plan).items():
        for name, one in by_set.items():
            seen = ""
            if one.deviation is not None:
                of = (one.deviation, one.seeds, statistics.confidence, statistics.power)
                seen = f"{100 * contrasts.detectable(*of):.1f}"
            difference = f"{100 * one.mean:+.2f} ({100 * one.low:+.2f} to {100 * one.high:+.2f})"
            p = f"{one.p:.4f}"
            cells = [contrast.text, contrast.budget, name, str(one.seeds), difference, seen]
            yield line([*cells, contrast.test, f"**{p}**" if name == "pooled" else p])


def _methods(rows: pd.DataFrame, accuracy: str, plan: Plan) -> Iterator[str]:
    """A set's methods at a budget: accuracy, size, and three ways to count what a search costs."""
    heads = ["method", "seeds", "accuracy", "parameters", "search GMACs", "+ probes, distances"]
    heads += ["+ learned tasks' searches", "search seconds", "edges from the nearest's"]
    yield line(heads)
    yield line(["---"] * len(heads))
    order = [*plan.contrasted, *sorted(set(rows["method"]) - set(plan.contrasted))]
    for name in order:
        own = rows[(rows["method"] == name) & rows[accuracy].notna()]
        if own.empty:
            continue
        mean = own.mean(numeric_only=True)
        prepared = mean["search_macs"] + mean["preparation_macs"]
        spread = f" ± {100 * own[accuracy].std():.2f}" if len(own) > 1 else ""
        edges = f"{mean['edges']:.1f}" if method_of(name).source else ""
        yield line(
            [
                name,
                str(len(own)),
                f"{100 * mean[accuracy]:.2f}{spread}",
                f"{mean['parameters']:,.0f}",
                f"{mean['search_macs'] / 1e9:.1f}",
                f"{prepared / 1e9:.1f}",
                f"{(prepared + mean['learned_macs']) / 1e9:.1f}",
                f"{mean['search_seconds']:.0f}",
                edges,
            ]
        )
