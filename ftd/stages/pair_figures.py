"""Figures of pairs of tasks: distances, layers, nearest sources, weights.

Functions import pandas and matplotlib by ``ftd.drawing``, as those of ``ftd.stages.figures`` do.
Each draws into ``out`` and returns the table that the figure is of.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT, Artifact
from ftd.names import counted
from ftd.parts import MEASURES
from ftd.stages.experiment import Experiment

if TYPE_CHECKING:
    import pandas as pd

_STATISTICS = {"mean": "mean", "std": "standard deviation"}


def matrix(
    experiment: Experiment, out: Path, *, measure: str, network: str, statistic: str
) -> "pd.DataFrame":
    from ftd.drawing import heatmaps

    tables, trials = _over_trials(experiment, measure, network)
    values = dict(zip(_STATISTICS, tables, strict=True))[statistic]
    title, digits = f"{measure}, {_STATISTICS[statistic]}", ".3g"
    if _squared(measure):
        title = f"Squared distance, {_STATISTICS[statistic]}"
        digits = ".2f" if statistic == "mean" else ".3f"
    elif statistic == "mean":
        title += f" ({_nearer(measure)}: nearer)"
    order = heatmaps.arranged(tables[0], higher=_higher(measure))
    shown = values.loc[order, order]
    heatmaps.matrix(
        shown, out, title=f"{title}\n{network}, {counted(trials, 'trial')}", digits=digits
    )
    return _long({statistic: values})


def atlas(experiment: Experiment, out: Path, *, measure: str, network: str) -> "pd.DataFrame":
    from ftd.drawing import atlas as maps

    (mean, _), trials = _over_trials(experiment, measure, network)
    title = f"Nearest tasks by {measure}\n{network}, {counted(trials, 'trial')}"
    maps.atlas(mean, out, title=title, higher=_higher(measure))
    return _long({"mean": mean})


def asymmetry(experiment: Experiment, out: Path, *, measure: str, network: str) -> "pd.DataFrame":
    from ftd.drawing import strips

    (mean, std), trials = _over_trials(experiment, measure, network)
    title = f"Pairs of tasks both ways\n{network}, {counted(trials, 'trial')}"
    strips.asymmetry(mean, std, out, title=title, number=_number(measure))
    return _long({"mean": mean, "std": std})


def consistency(experiment: Experiment, out: Path, *, measure: str, network: str) -> "pd.DataFrame":
    from ftd.drawing import strips
    from ftd.measures.ranking import ranked

    order, ranks = _ranks(experiment, measure, network)
    pairs = _pairs(
        experiment, LAYOUT.distances, order, measure, network, "distance", "squared_distance"
    )
    pairs = pairs.assign(number=ranked(pairs))[["target", "source", "trial", "number"]]
    pairs = pairs[(pairs["source"] != pairs["target"]) & pairs["source"].isin(order)]
    nearest = {target: list(ranks.loc[ranks["target"] == target, "source"]) for target in order}
    trials = counted(pairs["trial"].nunique(), "trial")
    title = f"Sources of each task over trials\n{network}, {trials}"
    strips.consistency(pairs, nearest, out, title=title, number=_number(measure))
    return pairs


def shares(experiment: Experiment, out: Path, *, measure: str, network: str) -> "pd.DataFrame":
    from ftd.drawing import heatmaps

    order, ranks = _ranks(experiment, measure, network)
    parts = _pairs(experiment, LAYOUT.layers, order, measure, network, "layer", "contribution")
    pair = ["target", "source"]
    ranks = ranks.loc[ranks["rank"] <= heatmaps.sources_shown(len(order)), pair]
    mean = parts.groupby([*pair, "layer"], sort=False)["contribution"].mean().reset_index()
    shown = ranks.merge(mean, on=pair)
    of = "the squared distance" if _squared(measure) else measure
    heatmaps.shares(shown, out, of=of)
    return shown


def graph(experiment: Experiment, out: Path, *, measure: str, network: str) -> "pd.DataFrame":
    from ftd.drawing import arrivals

    order, ranks = _ranks(experiment, measure, network)
    first = ranks.loc[ranks["rank"] == 1, ["target", "source", "mean", "std", "agreement"]]
    title = f"Nearest source of each task by {measure}\n{network}"
    arrivals.nearest_graph(first, out, order=order, title=title)
    return first


def weights(experiment: Experiment, out: Path) -> "pd.DataFrame":
    import pandas as pd  # as in ftd.drawing

    from ftd.drawing import heatmaps

    path = experiment.input(LAYOUT.selection)
    found, facts = store.read_document(path)
    store.expect_stage(path, facts, "selection")
    order = facts["order"]
    by_target = {task: found[task]["weights"] or {} for task in order}
    if not any(by_target.values()):
        raise UserError(f"{path}: weights are equal, and not listed; give select.temperature")
    values = pd.DataFrame(by_target, dtype=float).reindex(index=order, columns=order)
    heatmaps.weights(values, out)
    return _long({"weight": values})


def explorer(experiment: Experiment, out: Path) -> None:
    """A page, which holds its table."""
    from ftd.drawing import explorer as pages
    from ftd.measures.ranking import COLUMNS

    read = store.read_table(experiment.input(LAYOUT.nearest), COLUMNS)
    higher = [measure for measure in experiment.config.measures if _higher(measure)]
    pages.page(read.to_pandas(), out, order=store.table_facts(read)["order"], higher=higher)


def _long(values: "dict[str, pd.DataFrame]") -> "pd.DataFrame":
    """Matrices [source, target] as columns; a row a pair that has a number."""
    import pandas as pd  # as in ftd.drawing

    columns = {name: each.rename_axis("source").stack() for name, each in values.items()}
    table = pd.DataFrame(columns).rename_axis(["source", "target"])
    return table.dropna(how="all").reset_index()


def _over_trials(
    experiment: Experiment, measure: str, network: str
) -> "tuple[tuple[pd.DataFrame, pd.DataFrame], int]":
    """Mean and standard deviation of what sources are ranked by; the number of trials."""
    from ftd.drawing import heatmaps
    from ftd.measures.ranking import ranked

    read = store.read_table(experiment.input(LAYOUT.nearest), ["rank"])
    order = store.table_facts(read)["order"]
    table = _pairs(
        experiment, LAYOUT.distances, order, measure, network, "distance", "squared_distance"
    )
    return heatmaps.matrices(table, ranked(table), order), table["trial"].nunique()


def _ranks(experiment: Experiment, measure: str, network: str) -> "tuple[list[str], pd.DataFrame]":
    """The order of arrival, and each target's sources by one measure and network, in order."""
    from ftd.measures.ranking import COLUMNS

    read = store.read_table(experiment.input(LAYOUT.nearest), COLUMNS)
    ranks = read.to_pandas()
    rows = (ranks["measure"] == measure) & (ranks["network"] == network)
    return store.table_facts(read)["order"], ranks[rows]


def _higher(measure: str) -> bool:
    return MEASURES.get(measure).nearer == "higher"


def _nearer(measure: str) -> str:
    return "larger" if _higher(measure) else "smaller"


def _number(measure: str) -> str:
    """What sources are ranked by."""
    return "squared distance" if _squared(measure) else f"{measure} ({_nearer(measure)}: nearer)"


def _squared(measure: str) -> bool:
    return getattr(MEASURES.get(measure), "squared", False)  # a combination has no such key


def _pairs(
    experiment: Experiment,
    artifact: Artifact,
    order: list[str],
    measure: str,
    network: str,
    *values: str,
) -> "pd.DataFrame":
    """A measure's rows of one network in a table of pairs with the columns ``values``."""
    import pyarrow.compute as pc  # half a second

    path = experiment.input(artifact)
    columns = ["measure", "network", "trial", "source", "target", *values]
    rows = (pc.field("measure") == measure) & (pc.field("network") == network)
    table = store.read_table(path, columns).filter(rows).to_pandas()
    if table.empty:
        raise UserError(
            f"{path}: no distances by {measure!r} of network {network!r}; run distances"
        )
    if strange := set(order) - set(table["target"]):
        nearest = experiment.input(LAYOUT.nearest)
        raise UserError(f"{path}: no distances to {min(strange)}, a task of {nearest}; run both")
    return table
