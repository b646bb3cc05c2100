"""Arena B: search methods by real trainings, a base seed at a time, each finished cell kept.

A seed's experiment has its own cut of the pooled official splits, probes, selection, searches and
trainings; one for each budget. ``docs/arena-b/rows.parquet`` has a row for every set, seed, budget
and method.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from evidence import arena_b_gate, arena_b_plan, running
from evidence.arena_b_plan import BUDGETS, FOLDER, Plan
from evidence.comparison_page import preparation_macs
from ftd import config, store
from ftd.config import method_of
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.models.genotype import Genotype, edges_changed
from ftd.stages.comparison import metrics_of
from ftd.stages.experiment import Experiment
from ftd.stages.search import read_architecture
from ftd.store.locks import lock_file
from ftd.tasks.slices import read_slice

ROWS = FOLDER / "rows.parquet"
KEY = ("set", "seed", "budget", "method")
COLUMNS = {
    "set": "string",
    "seed": "int64",
    "budget": "string",
    "method": "string",
    "accuracy": "float64",
    "val_accuracy": "float64",
    "most_frequent": "float64",
    "parameters": "int64",
    "macs": "int64",
    "train_seconds": "float64",
    "search_macs": "int64",
    "search_seconds": "float64",
    "preparation_macs": "int64",
    "learned_macs": "int64",
    "donors": "string",
    "edges": "int64",
    "genotype": "string",
}
"""``accuracy`` on ``test``, none of a development seed's; ``macs`` of an image;
``preparation_macs``: the new task's probes and distances, where the method asks for the nearest;
``learned_macs``: the searches of the learned tasks that it starts from, ``donors``; ``edges``, in
which the first one's architecture differs from the nearest one's."""


def run(name: str, seed: int, *, configs: list[Path], settings: list[str], cores: int) -> None:
    """Run a seed of a set at both budgets; keep what is finished, also if it is stopped.

    Args:
        configs: further configuration files, e.g. with other loaders.
        settings: ``key=value`` for Snakemake's ``--config``, e.g. ``data_root=…``.

    Raises:
        UserError: a set or seed that the plan does not have; one to be confirmed, where the set's
            gate is missing or is not passed; a workflow that failed.
    """
    plan = arena_b_plan.load()
    _expect_planned(plan, name, seed)
    described = seed in plan.seeds.confirmation[: plan.seeds.described]
    for budget in BUDGETS:
        experiment = arena_b_plan.experiment_of(name, budget, seed)
        files = [*arena_b_plan.files_of(name, budget, described=described), *configs]
        targets = [
            f"results/{experiment}/{artifact.pattern}"
            for artifact in (LAYOUT.config, LAYOUT.comparison)
        ]
        # Probes and distances of both budgets are the same.
        own = [f"seed={seed}", f"experiment={experiment}", "cache=results/arena-cache"]
        try:
            running.run(targets, files, [*settings, *own], cores)
        finally:
            keep([Path("results") / experiment])


def _expect_planned(plan: Plan, name: str, seed: int) -> None:
    plan.of(name)
    if seed in plan.seeds.development:
        return
    if seed not in plan.seeds.confirmation:
        raise UserError(
            f"{arena_b_plan.PLACE}: seed {seed} is neither of development nor to confirm"
        )
    decision = arena_b_gate.read(name, plan.gate)
    if decision is None:
        raise UserError(
            f"set {name}: no gate yet; first: python -m evidence arena-gate --set {name}"
        )
    if not decision.goes_on:
        missed = ", ".join(key for key, met in decision.passes.items() if not met)
        raise UserError(f"set {name}: its gate is not passed ({missed}), so no seed is confirmed")


def keep(results: list[Path]) -> int:
    """Put the finished cells of some experiments into the table, in place of the same ones.

    Returns:
        How many rows these are.

    Raises:
        UserError: a folder that is no seed's experiment, artifacts that are damaged or were made
            otherwise than the configuration asks for, a network that is too large.
    """
    plan = arena_b_plan.load()
    new = [row for folder in results for row in _rows(folder, plan)]
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    with open(arena_b_plan.PLACE) as plan_file:  # several seeds may run at once
        lock_file(plan_file)
        old = store.read_table(ROWS).to_pylist() if ROWS.exists() else []
        joined = {tuple(row[key] for key in KEY): row for row in [*old, *new]}
        if new:
            rows = [joined[key] for key in sorted(joined)]
            store.write_table(ROWS, pa.Table.from_pylist(rows, schema=schema))
    return len(new)


def _rows(results: Path, plan: Plan) -> Iterator[dict[str, Any]]:
    """The finished cells of an experiment's folder; none, where it has not begun."""
    if not LAYOUT.config.path(results).exists():
        return
    experiment = Experiment.of(config.parse(config.recorded(results)), results)
    name, budget = _place(experiment, plan)
    nearest = None
    if experiment.output(LAYOUT.selection).exists():
        nearest = store.read_json(experiment.output(LAYOUT.selection))
    for names in experiment.searched():
        if not experiment.output(LAYOUT.metrics, **names).exists():
            continue
        row = {"set": name, "seed": experiment.config.seed, "budget": budget}
        row |= _cell(experiment, names, nearest)
        if row["seed"] in plan.seeds.development:
            row["accuracy"] = None
        if row["parameters"] > plan.max_parameters:
            raise UserError(
                f"{results}: {row['method']} has {row['parameters']} parameters, more than the "
                f"plan's {plan.max_parameters}"
            )
        yield row


def _place(experiment: Experiment, plan: Plan) -> tuple[str, str]:
    """The set and the budget of an experiment."""
    search, seed = experiment.config.search, experiment.config.seed
    known = [*plan.seeds.development, *plan.seeds.confirmation]
    for name, one in plan.sets.items():
        for budget, macs in zip(BUDGETS, one.max_macs, strict=True):
            named = experiment.config.experiment == arena_b_plan.experiment_of(name, budget, seed)
            asked = search.max_macs == macs and search.tasks == [one.target]
            if named and asked and seed in known:
                return name, budget
    raise UserError(f"{experiment.root}: no experiment of arena-seed, by {arena_b_plan.PLACE}")


def _cell(
    experiment: Experiment, names: Mapping[str, str], selected: Mapping[str, Any] | None
) -> dict[str, Any]:
    metrics, _ = metrics_of(experiment, **names)
    found = read_architecture(experiment.input(LAYOUT.genotype, **names))
    kind, donors = method_of(names["method"]), found["donors"]
    same = {"method": experiment.config.search.library, "seed": names["seed"]}
    learned = {
        donor: read_architecture(experiment.input(LAYOUT.genotype, task=donor, **same))
        for donor in donors
    }
    asks = kind.source not in (None, "random")
    sliced = read_slice(experiment.input(LAYOUT.slice, **names))
    edges = None
    if donors and selected:
        nearest = selected[names["task"]]["nearest"][0]
        place = experiment.output(LAYOUT.genotype, task=nearest, **same)
        if place.exists():  # else its search is not finished
            pair = learned[donors[0]]["genotype"], read_architecture(place)["genotype"]
            edges = edges_changed(*map(Genotype.from_json, pair))
    return {
        "method": names["method"],
        **{key: metrics[key] for key in ("accuracy", "val_accuracy", "most_frequent")},
        **{key: metrics[key] for key in ("parameters", "macs", "search_macs", "search_seconds")},
        "train_seconds": metrics["seconds"],
        "preparation_macs": preparation_macs(experiment, sliced) if asks else 0,
        "learned_macs": sum(each["search_macs"] for each in learned.values()),
        "donors": " ".join(donors),
        "edges": edges,
        "genotype": store.canonical(found["genotype"]),
    }
