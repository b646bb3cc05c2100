"""What is known of an experiment so far, as one JSON object (``ftd show``) of these keys:

- ``experiment``: the folder's name; ``order``: the tasks as they arrived (by name, as
  long as there is no selection); ``measures``, ``networks``: those with distances;
- ``measure``, ``network``: those shown; ``number``: what the numbers are,
  ``squared distance`` or the measure's name; ``trials``: over how many they are means
  (``None``: the distances are gone);
- ``decides``: the measure that selects, ``None`` as long as there is no selection;
- ``trust``: by each measure, and for ``random``, a random choice: ``top1``, ``spearman``,
  ``regret`` ([value, lower, upper]), ``sets`` and ``chosen``
  (``ftd.transfer.trust.Trust``), or ``None`` where that was not measured;
- ``tasks``: for each, ``task``; ``nearest``, its first sources and the selected ones
  (``source``, ``rank``, ``mean``, ``std``, ``agreement``, ``learned``); ``selected``,
  the learned tasks that its search starts from (``None``: no selection);
  ``by_measure``, the nearest source by each measure; ``architectures``, a trained
  network each (``method``, ``seed``, ``network``, ``parameters``, ``macs``,
  ``accuracy``, ``most_frequent``, ``search_macs``, ``search_seconds``,
  ``training_seconds``);
- ``matrix``, if asked for: ``mean`` and ``std``, rows: source, columns: target, in
  ``order``; ``None`` where there is no number;
- ``report``: the report's path, ``None``: not made yet.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.measures.ranking import COLUMNS, NEEDED, nearest, ranked
from ftd.names import did_you_mean
from ftd.parts import MEASURES
from ftd.transfer import trust

_NEAREST = 3  # sources of a task that are named, besides those that are selected
_OF_METRICS = (
    *("method", "seed", "network", "parameters", "macs", "accuracy", "most_frequent"),
    *("search_macs", "search_seconds"),
)


def shown(
    library: Path,
    *,
    measure: str | None = None,
    network: str | None = None,
    matrix: bool = False,
) -> dict[str, Any]:
    """What there is of an experiment's answers, whichever stage it has reached.

    Args:
        library: the experiment's folder.
        measure: ``None``: the one that decides the selection, or else the first.
        network: of the probes; ``None``: the first.
        matrix: with ``matrix``, all numbers of that measure and network.

    Returns:
        The object that the module describes.

    Raises:
        UserError: no distances, a measure or network without any, or damaged artifacts.
    """
    ranks, facts = _ranks(library)
    chosen = _chosen("measure", measure or facts["measure"] or facts["measures"][0], facts)
    network = _chosen("network", network or facts["networks"][0], facts)
    rows = ranks[ranks["network"] == network]
    pairs = _pairs(library, chosen, network)
    reports = [artifact.path(library) for artifact in (LAYOUT.report, LAYOUT.packed)]
    report = next((path for path in reports if path.exists()), None)
    found = {
        "experiment": library.resolve().name,
        **{key: facts[key] for key in ("order", "measures", "networks")},
        "measure": chosen,
        "network": network,
        "number": "squared distance" if _is_squared(chosen) else chosen,
        "trials": None if pairs is None else int(pairs["trial"].nunique()),
        "decides": facts["measure"],
        "trust": _trust(facts["measures"]),
        "tasks": _tasks(library, rows, facts, chosen),
        "report": report and str(report.resolve()),
    }
    if matrix:
        found["matrix"] = _matrix(library, pairs, facts["order"])
    return found


def _ranks(library: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rankings, those of the selection or else made here, and what they are of."""
    path = LAYOUT.nearest.path(library)
    if path.exists():
        read = store.read_table(path, COLUMNS, stage="selection")
        return read.to_pandas(), store.table_facts(read)
    path = LAYOUT.distances.path(library)
    if not path.exists():
        missing = "no distances there" if library.is_dir() else "no such folder"
        raise UserError(
            f"{library}: {missing}; give the folder of an experiment, such as "
            "results/digits, that was run to its distances at least"
        )
    pairs = store.read_table(path, NEEDED, stage="distance").to_pandas()
    measures = list(dict.fromkeys(pairs["measure"]))
    if unknown := set(measures) - {*MEASURES.names()}:
        raise UserError(f"{path}: measure {min(unknown)!r} is a plugin's; run the selection first")
    higher = [name for name in measures if MEASURES.get(name).nearer == "higher"]
    facts = {"order": sorted(set(pairs["target"])), "measures": measures, "measure": None}
    facts["networks"] = list(dict.fromkeys(pairs["network"]))
    return nearest(pairs, facts["order"], higher), facts


def _chosen(kind: str, name: str, facts: dict[str, Any]) -> str:
    known = facts[f"{kind}s"]
    if name not in known:
        raise UserError(f"no {kind} {name!r} in this experiment{did_you_mean(name, known)}")
    return name


def _pairs(library: Path, measure: str, network: str) -> pd.DataFrame | None:
    """The distances by a measure and network, if they are there."""
    path = LAYOUT.distances.path(library)
    if not path.exists():
        return None
    pairs = store.read_table(path, NEEDED, stage="distance").to_pandas()
    return pairs[(pairs["measure"] == measure) & (pairs["network"] == network)]


def _is_squared(measure: str) -> bool:
    return measure in MEASURES.names() and getattr(MEASURES.get(measure), "squared", False)


def _trust(measures: list[str]) -> dict[str, Any]:
    known = trust.measured(measures)
    found: dict[str, Any] = dict.fromkeys([*measures, trust.RANDOM])
    for name, own in known.items():
        values = asdict(own).items()
        found[name] = {key: [*v] if isinstance(v, tuple) else v for key, v in values}
    return found


def _tasks(
    library: Path, ranks: pd.DataFrame, facts: dict[str, Any], measure: str
) -> list[dict[str, Any]]:
    """What is known of each task, in order; ``ranks`` are of one network."""
    path = LAYOUT.selection.path(library)
    selection = store.read_json(path) if facts["measure"] and path.exists() else None
    trained = _trained(library)
    own = dict(list(ranks[ranks["measure"] == measure].groupby("target")))
    first = dict(list(ranks[ranks["rank"] == 1].groupby("target")))
    found = []
    for task in facts["order"]:
        selected = None
        if selection is not None:
            selected = selection[task]["by_measure"][measure]
            if measure == facts["measure"]:
                selected = selection[task]["nearest"]
        by_measure = first.get(task, ranks[:0])[["measure", "source"]]
        found.append(
            {
                "task": task,
                "nearest": _sources(own.get(task, ranks[:0]), selected or []),
                "selected": selected,
                "by_measure": dict(by_measure.itertuples(index=False, name=None)),
                "architectures": trained.get(task, []),
            }
        )
    return found


def _sources(ranks: pd.DataFrame, selected: list[str]) -> list[dict[str, Any]]:
    rows = ranks[(ranks["rank"] <= _NEAREST) | ranks["source"].isin(selected)]
    keys = ["source", "rank", "mean", "std", "agreement", "learned"]
    return [
        {key: _plain(value) for key, value in zip(keys, row, strict=True)}
        for row in rows.sort_values("rank")[keys].itertuples(index=False, name=None)
    ]


def _plain(value: Any) -> Any:
    """A number without the digits that single precision, in which tables keep it, lacks."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _trained(library: Path) -> dict[str, list[dict[str, Any]]]:
    """The trained networks of each task, by method and seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, names in LAYOUT.metrics.find(library):
        metrics = store.read_json(path)
        store.expect_stage(path, metrics, "training")
        about = {key: metrics[key] for key in _OF_METRICS}
        about["training_seconds"] = metrics["seconds"]
        found.setdefault(names["task"], []).append(about)
    return found


def _matrix(library: Path, pairs: pd.DataFrame | None, order: list[str]) -> dict[str, Any]:
    if pairs is None:
        raise UserError(f"{LAYOUT.distances.path(library)}: no such file; run the distances")
    from ftd.drawing.heatmaps import matrices  # matplotlib, for this alone

    mean, std = matrices(pairs, ranked(pairs), order)
    return {"mean": _rows(mean), "std": _rows(std)}


def _rows(table: pd.DataFrame) -> list[list[float | None]]:
    """``None`` where there is no number, as JSON has none that is none."""
    return [[None if pd.isna(v) else _plain(float(v)) for v in row] for row in table.to_numpy()]
