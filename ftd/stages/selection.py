"""Stage *selection*: rank the other tasks of each task, and choose its nearest learned ones."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.runtime.seeds import seed_of
from ftd.stages.checking import Library, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pandas as pd

VERSION = 4


def decides(experiment: Experiment) -> dict[str, Any]:
    """All that decides the selection, besides the distances."""
    return {
        "settings": experiment.config.select.model_dump(mode="json"),
        "order": list(experiment.config.tasks),
        "networks": experiment.config.networks,
        "measures": experiment.config.measures,
        "version": VERSION,
    }


def run(experiment: Experiment) -> None:
    """Write ``nearest.parquet`` and ``selection.json`` from ``distances.parquet``.

    Tasks arrive in the configuration's order; its first measure and first network decide the
    selection.

    Raises:
        UserError: unreadable distances, or a pair of tasks without one.
    """
    # pandas: what reading this module does not cost.
    import pyarrow as pa

    from ftd.measures.ranking import COLUMNS, NEEDED, nearest

    made, path = decides(experiment), experiment.input(LAYOUT.distances)
    read = store.read_table(path, NEEDED, stage="distance")
    table = nearest(read.to_pandas(), made["order"])
    first = made["measures"][0], made["networks"][0]
    rows = table[(table["measure"] == first[0]) & (table["network"] == first[1])]
    if rows.empty and len(made["order"]) > 1:
        raise UserError(f"{path}: no distances by {first[0]!r} of network {first[1]!r}")
    about = {key: made[key] for key in ("order", "networks", "measures")}
    about |= {"distances": store.table_facts(read)["sha256"]}
    facts = about | record("selection", VERSION, experiment.config.select)
    ranked = pa.Table.from_pandas(table[COLUMNS], preserve_index=False)
    store.write_table(experiment.output(LAYOUT.nearest), ranked, facts)
    chosen = choose(table, made["order"], *first, nearest=experiment.config.select.nearest)
    store.write_json(experiment.output(LAYOUT.selection), chosen, facts)


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


def summary(nearest_file: Path) -> str:
    """Each task's nearest source, over all tasks and among the learned ones, as text."""
    from ftd.measures.ranking import COLUMNS  # pandas, as above

    read = store.read_table(nearest_file, COLUMNS, stage="selection")
    facts, table = store.table_facts(read), read.to_pandas()
    lines = []
    for measure in facts["measures"]:
        for network in facts["networks"]:
            rows = table[(table["measure"] == measure) & (table["network"] == network)]
            asked = facts["settings"]["nearest"]
            chosen = choose(table, facts["order"], measure, network, nearest=asked)
            lines.append(
                f"nearest source of each task ({measure}, {network}, mean over trials ± std)"
            )
            for row in rows[rows["rank"] == 1].itertuples():
                learned = ", ".join(chosen[row.target]["nearest"]) or "none yet"
                lines.append(
                    f"  {row.target}: {row.source} ({row.mean:.3f} ± {row.std:.3f}, first in "
                    f"{row.agreement:.0%} of trials); nearest learned: {learned}"
                )
    return "\n".join(lines)


# Checks -----------------------------------------------------------------------------------------


def _check_nearest(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.measures.ranking import COLUMNS, nearest  # a check's alone

    read = store.read_table(path, COLUMNS, stage="selection")
    table, facts = read.to_pandas(), store.table_facts(read)
    yield from library.made_by(facts, VERSION, decides)
    source = library.path(LAYOUT.distances)
    yield from library.same(source, facts["distances"], "table")
    if source.exists():
        wanted = nearest(store.read_table(source).to_pandas(), facts["order"])[COLUMNS]
        yield from must(table.equals(wanted), f"does not follow from {source}")


def _check_selection(path: Path, _: Mapping[str, str], library: Library) -> Iterator[str]:
    found, facts = store.read_document(path)
    store.expect_stage(path, facts, "selection")
    yield from library.made_by(facts, VERSION, decides)
    yield from library.same(library.path(LAYOUT.distances), facts["distances"], "table")
    source = library.path(LAYOUT.nearest)
    if source.exists():
        wanted = choose(
            store.read_table(source).to_pandas(),
            facts["order"],
            facts["measures"][0],
            facts["networks"][0],
            nearest=facts["settings"]["nearest"],
        )
        yield from must(found == wanted, f"does not follow from {source}")


CHECKS = [(LAYOUT.nearest, _check_nearest), (LAYOUT.selection, _check_selection)]
