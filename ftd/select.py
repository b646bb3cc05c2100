"""Stage *select*: rank the other tasks of each task, and choose its nearest learned ones."""

from pathlib import Path

import pandas as pd

from ftd import artifacts, versions
from ftd.errors import UserError


def run(
    distances: Path,
    *,
    order: list[str],
    networks: list[str],
    nearest_out: Path,
    selection_out: Path,
) -> None:
    """Write ``nearest.parquet`` and ``selection.json`` from ``distances.parquet``.

    The selection, ``{task: [source]}``, holds the nearest task among those that arrived before
    it, by the first network; nothing for the first task.

    Args:
        order: task names as they arrive.
        networks: probe networks; the first decides the selection.

    Raises:
        UserError: unreadable distances, or a pair of tasks without one.
    """
    import pyarrow as pa

    table = nearest(artifacts.read_table(distances).to_pandas(), order)
    facts = {"order": order, "networks": networks, "version": versions.STAGES["select"]}
    artifacts.write_table(nearest_out, pa.Table.from_pandas(table, preserve_index=False), facts)
    artifacts.write_json(selection_out, selection(table, order, networks[0]))


def nearest(distances: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Every other task as a source of each target, by its mean squared distance over trials.

    Args:
        distances: columns ``network``, ``trial``, ``source``, ``target``, ``squared_distance``.
        order: task names as they arrive.

    Returns:
        ``network``, ``target``, ``source``, ``rank`` (from 1), ``mean``, ``std`` (ddof 1; 0 for
        one trial), ``agreement`` (share of trials in which the source ranks first), ``learned``
        (it arrived before the target); sorted by network, arrival and rank.
    """
    arrival = {task: position for position, task in enumerate(order)}
    pairs = distances[distances["source"] != distances["target"]]
    pairs = pairs[pairs["source"].isin(order) & pairs["target"].isin(order)]
    for network, group in pairs.groupby("network"):
        found = group.groupby("trial").size()
        if (found != len(order) * (len(order) - 1)).any():
            raise UserError(f"distances: pairs are missing for network {network}; run distances")
    first = pairs.sort_values(["squared_distance", "source"]).drop_duplicates(
        ["network", "trial", "target"]
    )
    pairs = pairs.assign(agreement=pairs.index.isin(first.index).astype(float))
    table = pairs.groupby(["network", "target", "source"], as_index=False).agg(
        mean=("squared_distance", "mean"),
        std=("squared_distance", "std"),
        agreement=("agreement", "mean"),
    )
    table["std"] = table["std"].fillna(0.0)
    table["arrival"] = table["target"].map(arrival)
    table["learned"] = table["source"].map(arrival) < table["arrival"]
    table = table.sort_values(["network", "arrival", "mean", "source"], ignore_index=True)
    table["rank"] = table.groupby(["network", "target"]).cumcount() + 1
    columns = ["network", "target", "source", "rank", "mean", "std", "agreement", "learned"]
    return table[columns]


def selection(table: pd.DataFrame, order: list[str], network: str) -> dict[str, list[str]]:
    """The nearest learned task of every task, by one network's ``nearest`` table."""
    learned = table[(table["network"] == network) & table["learned"]]
    best = learned.sort_values("rank").drop_duplicates("target").set_index("target")["source"]
    return {task: [best[task]] if task in best.index else [] for task in order}


def summary(nearest_file: Path) -> str:
    """Each task's nearest source, over all tasks and among the learned ones, as text."""
    read = artifacts.read_table(nearest_file)
    facts = artifacts.table_facts(read)
    table = read.to_pandas()
    lines = []
    for network in facts["networks"]:
        rows = table[table["network"] == network]
        chosen = selection(table, facts["order"], network)
        lines.append(f"nearest source of each task ({network}, mean squared distance ± std)")
        for row in rows[rows["rank"] == 1].itertuples():
            learned = ", ".join(chosen[row.target]) or "none yet"
            lines.append(
                f"  {row.target}: {row.source} ({row.mean:.3f} ± {row.std:.3f}, first in "
                f"{row.agreement:.0%} of trials); nearest learned: {learned}"
            )
    return "\n".join(lines)
