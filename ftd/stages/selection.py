"""Stage *selection*: rank the other tasks of each task, and choose its nearest learned ones."""

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.softmax import softmax
from ftd.runtime.seeds import seed_of
from ftd.stages.checking import Library, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pandas as pd

VERSION = 6


def decides(experiment: Experiment) -> dict[str, Any]:
    """All that decides the selection, besides the distances."""
    return {
        "settings": experiment.config.select.model_dump(mode="json"),
        "order": list(experiment.config.tasks),
        "networks": experiment.config.networks,
        "measures": experiment.config.measures,
        "higher": experiment.higher(),
        "version": VERSION,
    }


def run(experiment: Experiment) -> None:
    """Write ``nearest.parquet`` and ``selection.json`` from ``distances.parquet``.

    Tasks arrive in the configuration's order; ``select.measure``, or else the first measure, and
    the first network decide the selection.

    Raises:
        UserError: unreadable distances, or a pair of tasks without one.
    """
    # pandas: what reading this module does not cost.
    import pyarrow as pa

    from ftd.measures.ranking import COLUMNS, NEEDED, nearest

    made, path = decides(experiment), experiment.input(LAYOUT.distances)
    read = store.read_table(path, NEEDED, stage="distance")
    table = nearest(read.to_pandas(), made["order"], made["higher"])
    for measure in made["measures"]:
        rows = (table["measure"] == measure) & (table["network"] == experiment.network)
        if not rows.any() and len(made["order"]) > 1:
            raise UserError(
                f"{path}: no distances by {measure!r} of network {experiment.network!r}"
            )
    about = {key: made[key] for key in ("order", "networks", "measures", "higher")}
    about |= {"measure": experiment.config.deciding}
    about |= {"distances": store.table_facts(read)["sha256"]}
    facts = about | record("selection", VERSION, experiment.config.select)
    ranked = pa.Table.from_pandas(table[COLUMNS], preserve_index=False)
    store.write_table(experiment.output(LAYOUT.nearest), ranked, facts)
    store.write_json(experiment.output(LAYOUT.selection), selected(table, facts), facts)


def selected(table: "pd.DataFrame", facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is chosen for each task among those that arrived before it.

    Args:
        table: that of ``nearest.parquet``, whose ``facts`` they are.

    Returns:
        ``{task: {"nearest": …, "farthest": …, "heaviest": …, "weights": …, "by_measure": …}}``: see
        ``choose``; by the measure that decides, so many of the learned tasks with the largest
        weights, which are the nearest ones, and each learned task's weight, all of which sum to 1
        (``None``: they are equal); and what each measure would have chosen as the nearest.
    """
    order, settings, network = facts["order"], facts["settings"], facts["networks"][0]
    by = {
        measure: choose(table, order, measure, network, nearest=settings["nearest"])
        for measure in facts["measures"]
    }
    measure, temperature = facts["measure"], settings["temperature"]
    most = choose(table, order, measure, network, nearest=settings["sources"])
    rows = (table["measure"] == measure) & (table["network"] == network) & table["learned"]
    sign = -1 if measure in facts["higher"] else 1
    weights = {}
    if temperature != "inf":  # equal ones would be most of a large library's file
        weights = {
            target: weights_of(ranks["source"], sign * ranks["mean"], temperature)
            for target, ranks in table[rows].sort_values("rank").groupby("target")
        }
    return {
        task: by[measure][task]
        | {"heaviest": most[task]["nearest"]}
        | {"weights": weights.get(task)}
        | {"by_measure": {name: found[task]["nearest"] for name, found in by.items()}}
        for task in order
    }


def weights_of(
    sources: Iterable[str], numbers: Iterable[float], temperature: float
) -> dict[str, float]:
    """What ``softmax`` gives each source.

    Six decimals: the last digits of an exponential are a machine's own.
    """
    shares = softmax([*numbers], temperature)
    return {name: round(share, 6) for name, share in zip(sources, shares, strict=True)}


def choose(
    table: "pd.DataFrame", order: list[str], measure: str, network: str, *, nearest: int = 1
) -> dict[str, dict[str, list[str]]]:
    """The learned tasks that each task's search may start from, by one measure and network.

    Returns:
        ``{task: {"nearest": …, "farthest": …}}``, so many of the tasks that arrived before it,
        the nearest (farthest) first; the farthest are for ablations.
    """
    rows = (table["measure"] == measure) & (table["network"] == network) & table["learned"]
    learned = table[rows].sort_values("rank")
    by_target = dict(iter(learned.groupby("target")["source"]))
    found = {}
    for task in order:
        ranked = list(by_target.get(task, ()))
        found[task] = {"nearest": ranked[:nearest], "farthest": ranked[::-1][:nearest]}
    return found


def drawn(experiment: Experiment, task: str, seed: int) -> list[str]:
    """As many of the tasks that arrived before ``task``, at random, anew for every search."""
    order = list(experiment.config.tasks)
    learned = sorted(order[: order.index(task)])
    rng = random.Random(seed_of("select", experiment.config.seed, task, seed))
    return rng.sample(learned, min(experiment.config.select.nearest, len(learned)))


# Checks -----------------------------------------------------------------------------------------


def _check_nearest(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.measures.ranking import COLUMNS, nearest  # a check's alone

    read = store.read_table(path, COLUMNS, stage="selection")
    table, facts = read.to_pandas(), store.table_facts(read)
    yield from library.made_by(facts, VERSION, decides)
    source = library.path(LAYOUT.distances)
    yield from library.same(source, facts["distances"], "table")
    if source.exists():
        pairs = store.read_table(source).to_pandas()
        wanted = nearest(pairs, facts["order"], facts["higher"])[COLUMNS]
        yield from must(table.equals(wanted), f"does not follow from {source}")


def _check_selection(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    found, facts = store.read_document(path)
    store.expect_stage(path, facts, "selection")
    yield from library.made_by(facts, VERSION, decides)
    yield from library.same(library.path(LAYOUT.distances), facts["distances"], "table")
    source = library.path(LAYOUT.nearest)
    if source.exists():
        wanted = selected(store.read_table(source).to_pandas(), facts)
        yield from must(found == wanted, f"does not follow from {source}")


CHECKS = [(LAYOUT.nearest, _check_nearest), (LAYOUT.selection, _check_selection)]
