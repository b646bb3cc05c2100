"""Ranking sources: which task is nearest to each, by every measure and network."""

from collections.abc import Collection

import pandas as pd

from ftd.errors import UserError

COLUMNS = [
    *("measure", "network", "target", "source", "rank", "mean", "std", "agreement", "learned")
]
NEEDED = ["measure", "network", "trial", "source", "target", "distance", "squared_distance"]
_NUMBERS = ["mean", "std", "agreement"]


def ranked(table: pd.DataFrame) -> pd.Series:
    """What sources are ranked by: the square of a distance, if it has one.

    Args:
        table: with ``distance`` and ``squared_distance``.
    """
    return table["squared_distance"].fillna(table["distance"].astype(float))


def nearest(
    distances: pd.DataFrame, order: list[str], higher: Collection[str] = ()
) -> pd.DataFrame:
    """Every other task as a source of each target, by its mean number over trials.

    Args:
        distances: the columns ``NEEDED``.
        order: task names as they arrive.
        higher: the measures whose larger number is the nearer source's; of others, the smaller.

    Targets without any distance are left out; those there are need all their sources.

    Returns:
        ``measure``, ``network``, ``target``, ``source``, ``rank`` (from 1), ``mean``, ``std``
        (ddof 1; 0 for one trial), ``agreement`` (share of trials in which the source ranks
        first), ``learned`` (it arrived before the target); sorted by measure (as in
        ``distances``), network, arrival and rank, which is taken before the numbers are rounded
        to float32.
    """
    arrival = {task: position for position, task in enumerate(order)}
    measures = list(dict.fromkeys(distances["measure"]))
    names = ["measure", "network", "source", "target"]
    by = ["measure", "network"]
    pairs = distances[distances["source"] != distances["target"]]
    pairs = pairs[pairs["source"].isin(order) & pairs["target"].isin(order)]
    signs = pairs["measure"].isin([*higher]).map({True: -1.0, False: 1.0})
    pairs = pairs.assign(number=ranked(pairs), key=signs * ranked(pairs))
    pairs = pairs[["trial", "number", "key", *names]]
    pairs = pairs.astype(dict.fromkeys(names, "category"))  # many rows of few names
    _expect_all_pairs(pairs, len(order))
    first = pairs.sort_values(["key", "source"]).drop_duplicates([*by, "trial", "target"])
    pairs = pairs.assign(agreement=pairs.index.isin(first.index).astype(float))
    table = pairs.groupby([*by, "target", "source"], as_index=False, observed=True).agg(
        mean=("number", "mean"),
        std=("number", "std"),
        agreement=("agreement", "mean"),
        key=("key", "mean"),
    )
    table["std"] = table["std"].fillna(0.0)
    table["arrival"] = table["target"].map(arrival).astype(int)
    table["learned"] = table["source"].map(arrival).astype(int) < table["arrival"]
    table["listed"] = table["measure"].map(measures.index).astype(int)
    table = table.sort_values(["listed", "network", "arrival", "key", "source"], ignore_index=True)
    table["rank"] = table.groupby([*by, "target"], observed=True).cumcount() + 1
    table = table.astype(dict.fromkeys(names, str) | dict.fromkeys(_NUMBERS, "float32"))
    return table[COLUMNS]


def nearest_on_average(distances: pd.DataFrame, *, higher: bool) -> list[str]:
    """The tasks that are nearest to all others on average, by their mean rank as sources.

    Args:
        distances: the columns ``NEEDED``, of one measure and network.
        higher: whether the larger number is the nearer source's.

    Returns:
        One task; several, sorted, that tie; none, if there is no pair of two tasks. Among a
        target's sources, equal means over trials share their mean rank.
    """
    pairs = distances[distances["source"] != distances["target"]]
    pairs = pairs.assign(number=ranked(pairs))
    means = pairs.groupby(["source", "target"], as_index=False)["number"].mean()
    means["rank"] = means.groupby("target")["number"].rank(ascending=not higher)
    ranks = means.groupby("source")["rank"].mean()
    return sorted(ranks.index[ranks == ranks.min()])


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """What each measure says is nearest: a row a network and target, a column a measure.

    Args:
        table: what ``nearest`` gives.
    """
    first = table[table["rank"] == 1]
    beside = first.pivot(index=["network", "target"], columns="measure", values="source")
    beside = beside.reindex(
        index=pd.MultiIndex.from_frame(first[["network", "target"]].drop_duplicates()),
        columns=list(dict.fromkeys(first["measure"])),
    )
    return beside.reset_index().rename_axis(columns=None)


def _expect_all_pairs(pairs: pd.DataFrame, tasks: int) -> None:
    """Raises a ``UserError`` where a target lacks a source."""
    by = ["measure", "network"]
    sources = pairs.groupby([*by, "trial", "target"], observed=True)["source"].nunique()
    targets = sources.groupby([*by, "trial"], observed=True).size()
    for measure, network in targets.groupby(by, observed=True).size().index:
        place = (measure, network)
        if (sources[place] != tasks - 1).any() or targets[place].nunique() > 1:
            raise UserError(
                f"distances: pairs are missing for measure {measure}, network {network}; run "
                "distances"
            )
