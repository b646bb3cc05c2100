"""Figures of searches, and of the networks that they found.

Functions import pandas and matplotlib by ``ftd.drawing``, as those of ``ftd.stages.figures`` do.
Each draws into ``out`` and returns the table that the figure is of.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages.experiment import Experiment

if TYPE_CHECKING:
    import pandas as pd


def tasks_of(experiment: Experiment) -> list[str]:
    """The tasks whose searches are shown, in order of arrival if none are listed."""
    return experiment.config.search.tasks or list(experiment.config.tasks)


def trace(experiment: Experiment, out: Path, *, method: str, seed: Any) -> "pd.DataFrame":
    from ftd.drawing import searches

    traces = {}
    for task in tasks_of(experiment):
        path = experiment.input(LAYOUT.trace, method=method, task=task, seed=seed)
        traces[task] = store.read_table(path, stage="search").to_pandas()
    searches.trace(traces, out, title=f"Searches by {method}, seed {seed}")
    table = _by_task(traces)
    for name in table.columns[table.map(lambda value: hasattr(value, "tolist")).any()]:
        table[name] = table[name].map(lambda value: " ".join(map(str, value)), na_action="ignore")
    return table


def cells(experiment: Experiment, out: Path, *, method: str, seed: Any) -> "pd.DataFrame":
    import pandas as pd  # as in ftd.drawing

    from ftd.drawing import diagram

    found = [facts for _, facts in _architectures(experiment, method, seed)]
    diagram.cells(found, out, title=f"Cells found by {method}, seed {seed}")
    rows = [
        (facts["task"], kind, node, source, operation)
        for facts in found
        for kind in ("normal", "reduction")
        for node, edges in enumerate(facts["genotype"][kind])
        for operation, source in edges
    ]
    return pd.DataFrame(rows, columns=["task", "cell", "node", "state", "operation"])


def candidates(experiment: Experiment, out: Path, *, method: str, seed: Any) -> "pd.DataFrame":
    from ftd.drawing import searches

    compared = {}
    for task, facts in _architectures(experiment, method, seed):
        path = experiment.input(LAYOUT.candidates, method=method, task=task, seed=seed)
        table = store.read_table(path, stage="search").to_pandas()
        chosen = table["genotype"] == store.canonical(facts["genotype"])
        compared[task] = table.drop(columns="genotype").assign(chosen=chosen)
    searches.candidates(compared, out, title=f"Candidates of {method}, seed {seed}")
    return _by_task(compared)


def spaces(experiment: Experiment, out: Path, *, method: str, seed: Any) -> "pd.DataFrame":
    import pandas as pd  # as in ftd.drawing

    from ftd.drawing import strips

    rows = [
        (task, facts["full_space_log10"], facts["space_log10"])
        for task, facts in _architectures(experiment, method, seed)
    ]
    sizes = pd.DataFrame(rows, columns=["task", "full", "searched"])
    strips.spaces(sizes, out, title=f"Spaces of {method}, seed {seed}")
    return sizes


def scatter(experiment: Experiment, out: Path) -> "pd.DataFrame":
    from ftd.drawing import searches

    table = comparison(experiment)
    searches.scatter(table, out)
    return table


def comparison(experiment: Experiment) -> "pd.DataFrame":
    """The table of trained networks, in the tasks' order of arrival."""
    from ftd.stages.comparison import COLUMNS

    read = store.read_table(experiment.input(LAYOUT.comparison), list(COLUMNS)).to_pandas()
    arrival = list(experiment.config.tasks)
    return read.sort_values("task", key=lambda names: names.map(arrival.index), kind="stable")


def _architectures(experiment: Experiment, method: str, seed: Any) -> list[tuple[str, dict]]:
    """Tasks and the facts of what their searches found."""
    found = []
    for task in tasks_of(experiment):
        path = experiment.input(LAYOUT.genotype, method=method, task=task, seed=seed)
        facts = store.read_json(path)
        store.expect_stage(path, facts, "search")
        if not facts.get("genotype"):
            raise UserError(f"{path}: no cells to draw; give a method that searches")
        found.append((task, facts))
    return found


def _by_task(tables: "dict[str, pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd  # as in ftd.drawing

    return pd.concat(tables, names=["task"]).reset_index(level="task").reset_index(drop=True)
