"""Stage *select*: rank the other tasks of each task, and choose its nearest learned ones."""

import random
from pathlib import Path

import pandas as pd

from ftd import artifacts, versions
from ftd.config import Select
from ftd.errors import UserError
from ftd.seeds import seed_of

COLUMNS = ["network", "target", "source", "rank", "mean", "std", "agreement", "learned"]
_NUMBERS = ["mean", "std", "agreement"]
_NEEDED = ["network", "trial", "source", "target", "squared_distance"]


def run(
    distances: Path,
    *,
    order: list[str],
    networks: list[str],
    settings: Select,
    nearest_out: Path,
    selection_out: Path,
) -> None:
    """Write ``nearest.parquet`` and ``selection.json`` from ``distances.parquet``.

    Args:
        order: task names as they arrive.
        networks: probe networks; the first decides the selection.

    Raises:
        UserError: unreadable distances, or a pair of tasks without one.
    """
    import pyarrow as pa

    pairs = artifacts.read_table(distances, _NEEDED).to_pandas()
    if not order or not networks:
        raise UserError("select: expected at least one task in the order, and one network")
    table = nearest(pairs, order)
    if networks[0] not in set(table["network"]) and len(order) > 1:
        raise UserError(f"{distances}: no distances of network {networks[0]!r}")
    facts = {
        "order": order,
        "networks": networks,
        "distances": artifacts.digest(distances),
    } | versions.record("select", settings)
    artifacts.write_table(nearest_out, pa.Table.from_pandas(table, preserve_index=False), facts)
    chosen = selection(table, order, networks[0], nearest=settings.nearest)
    artifacts.write_json(selection_out, chosen, facts)


def nearest(distances: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Every other task as a source of each target, by its mean squared distance over trials.

    Args:
        distances: columns ``network``, ``trial``, ``source``, ``target``, ``squared_distance``.
        order: task names as they arrive.

    Targets without any distance are left out; those there are need all their sources.

    Returns:
        ``network``, ``target``, ``source``, ``rank`` (from 1), ``mean``, ``std`` (ddof 1; 0 for
        one trial), ``agreement`` (share of trials in which the source ranks first), ``learned``
        (it arrived before the target); sorted by network, arrival and rank, which is taken before
        the numbers are rounded to float32.
    """
    arrival = {task: position for position, task in enumerate(order)}
    names = ["network", "source", "target"]
    pairs = distances[distances["source"] != distances["target"]]
    pairs = pairs[pairs["source"].isin(order) & pairs["target"].isin(order)]
    pairs = pairs.astype(dict.fromkeys(names, "category"))  # many rows of few names
    sources = pairs.groupby(["network", "trial", "target"], observed=True)["source"].nunique()
    targets = sources.groupby(["network", "trial"], observed=True).size()
    for network in targets.index.unique("network"):
        if (sources[network] != len(order) - 1).any() or targets[network].nunique() > 1:
            raise UserError(f"distances: pairs are missing for network {network}; run distances")
    first = pairs.sort_values(["squared_distance", "source"]).drop_duplicates(
        ["network", "trial", "target"]
    )
    pairs = pairs.assign(agreement=pairs.index.isin(first.index).astype(float))
    table = pairs.groupby(["network", "target", "source"], as_index=False, observed=True).agg(
        mean=("squared_distance", "mean"),
        std=("squared_distance", "std"),
        agreement=("agreement", "mean"),
    )
    table["std"] = table["std"].fillna(0.0)
    table["arrival"] = table["target"].map(arrival).astype(int)
    table["learned"] = table["source"].map(arrival).astype(int) < table["arrival"]
    table = table.sort_values(["network", "arrival", "mean", "source"], ignore_index=True)
    table["rank"] = table.groupby(["network", "target"], observed=True).cumcount() + 1
    table = table.astype(dict.fromkeys(names, str) | dict.fromkeys(_NUMBERS, "float32"))
    return table[COLUMNS]


def selection(
    table: pd.DataFrame, order: list[str], network: str, *, nearest: int = 1
) -> dict[str, dict[str, list[str]]]:
    """The learned tasks that each task's search may start from, by one network's table.

    Returns:
        ``{task: {"nearest": …, "farthest": …}}``, so many of the tasks that arrived before it,
        the nearest (farthest) first; the farthest are for ablations.
    """
    learned = table[(table["network"] == network) & table["learned"]].sort_values("rank")
    by_target = dict(iter(learned.groupby("target")["source"]))
    found = {}
    for task in order:
        ranked = list(by_target.get(task, ()))
        found[task] = {"nearest": ranked[:nearest], "farthest": ranked[::-1][:nearest]}
    return found


def drawn(order: list[str], task: str, *, nearest: int, seed: int, search_seed: int) -> list[str]:
    """So many of the tasks that arrived before ``task``, at random, anew for every search."""
    learned = sorted(order[: order.index(task)])
    rng = random.Random(seed_of("select", seed, task, search_seed))
    return rng.sample(learned, min(nearest, len(learned)))


def summary(nearest_file: Path) -> str:
    """Each task's nearest source, over all tasks and among the learned ones, as text."""
    read = artifacts.read_table(nearest_file, COLUMNS)
    facts = artifacts.table_facts(read)
    table = read.to_pandas()
    lines = []
    for network in facts["networks"]:
        rows = table[table["network"] == network]
        chosen = selection(table, facts["order"], network)
        lines.append(f"nearest source of each task ({network}, mean squared distance ± std)")
        for row in rows[rows["rank"] == 1].itertuples():
            learned = ", ".join(chosen[row.target]["nearest"]) or "none yet"
            lines.append(
                f"  {row.target}: {row.source} ({row.mean:.3f} ± {row.std:.3f}, first in "
                f"{row.agreement:.0%} of trials); nearest learned: {learned}"
            )
    return "\n".join(lines)
