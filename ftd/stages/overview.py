"""Stage *overview*: one page of what was found for each task, which stands alone.

Functions import pandas and the drawing's packages: what reading this module does not cost.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ftd import config, store
from ftd.config import HAND_DESIGNED
from ftd.layout import LAYOUT
from ftd.parts import MEASURES
from ftd.stages import search
from ftd.stages import task as slices
from ftd.stages.checking import expect_asked
from ftd.stages.comparison import metrics_of
from ftd.stages.experiment import Experiment
from ftd.transfer import trust

if TYPE_CHECKING:
    import pandas as pd

    from ftd.drawing.findings import Finding, Trained
    from ftd.tasks.slices import Slice

VERSION = 2
_SOURCES, _IMAGES, _LABELS = 3, 8, 10
"""So many nearest tasks are shown, images of a label, labels of a task at most."""


def decides(experiment: Experiment) -> dict[str, Any]:
    """All that decides the page, besides the artifacts that it shows."""
    known = trust.measured(experiment.config.measures)
    return {
        "experiment": experiment.config.experiment,
        "tasks": list(experiment.config.tasks),
        "searched": [[s["task"], s["method"], s["seed"]] for s in experiment.searched()],
        "trust": {name: asdict(own) for name, own in known.items()},
        "version": VERSION,
    }


def run(experiment: Experiment) -> None:
    """Write ``overview.html``: for each task its images, nearest tasks, network, and their cost.

    Raises:
        UserError: unreadable artifacts, or such that were made otherwise than the configuration
            asks for.
    """
    from ftd.drawing.overview import overview
    from ftd.stages.pictures import samples

    sliced = [slices.read(experiment, task=task) for task in experiment.config.tasks]
    pictures = samples(experiment, sliced, images=_IMAGES, labels=_LABELS)
    known = trust.measured(experiment.config.measures)
    found = _findings(experiment, sliced)
    out = experiment.output(LAYOUT.overview)
    overview(experiment.config.experiment, found, pictures, known, out)


def findings(experiment: Experiment) -> "list[Finding]":
    """What was found for each task, in order of arrival; see ``run``."""
    sliced = [slices.read(experiment, task=task) for task in experiment.config.tasks]
    return _findings(experiment, sliced)


def _findings(experiment: Experiment, sliced: "list[Slice]") -> "list[Finding]":
    from ftd.drawing.findings import Finding
    from ftd.measures.ranking import COLUMNS
    from ftd.tasks.cut import PARTS

    path = experiment.input(LAYOUT.nearest)
    read = store.read_table(path, COLUMNS, stage="selection")
    table, measure = read.to_pandas(), experiment.config.deciding
    table = table[table["network"] == experiment.network]
    squared = getattr(MEASURES.get(measure), "squared", False)  # a combination has no such key
    chosen = store.read_json(experiment.input(LAYOUT.selection))
    found = []
    for before, own in enumerate(sliced):
        ranks = table[table["target"] == own.name]
        first = ranks[ranks["rank"] == 1]
        found.append(
            Finding(
                task=own.name,
                dataset=own.facts["dataset"],
                about=_about(own),
                counts={part: int((own.part == part).sum()) for part in PARTS},
                before=before,
                measure=measure,
                number=f"squared {measure} distance" if squared else measure,
                higher=measure in experiment.higher(),
                trials=experiment.config.trials,
                sources=_sources(ranks[ranks["measure"] == measure], chosen[own.name]["nearest"]),
                chosen=chosen[own.name]["nearest"],
                by_measure=dict(zip(first["measure"], first["source"], strict=True)),
                trained=list(_trained(experiment, own.name)),
            )
        )
    return found


def _about(sliced: "Slice") -> str:
    kind = sliced.facts["target"]["kind"]
    return kind if sliced.label is None else f"{len(sliced.labels)} labels"


def _sources(ranks: "pd.DataFrame", chosen: list[str]) -> list:
    """The nearest tasks, and those that were chosen, in order of their ranks."""
    from ftd.drawing.findings import Source

    rows = ranks[(ranks["rank"] <= _SOURCES) | ranks["source"].isin(chosen)].sort_values("rank")
    keys = ["source", "mean", "std", "agreement", "learned"]
    return [Source(*values) for values in rows[keys].itertuples(index=False, name=None)]


def _trained(experiment: Experiment, task: str) -> "Iterator[Trained]":
    """What each method came to on a task, from the metrics of its finished networks."""
    from ftd.drawing.findings import Trained

    for method in experiment.config.search.methods:
        places = [s for s in experiment.searched() if (s["task"], s["method"]) == (task, method)]
        if not places:
            continue
        metrics = [metrics_of(experiment, **names)[0] for names in places]
        path = experiment.input(LAYOUT.genotype, **places[0])
        found = store.read_json(path)
        expect_asked(path, found, search.decides(experiment, **places[0]))
        each = {
            key: [own[key] for own in metrics]
            for key in ("accuracy", "parameters", "macs", "search_macs", "search_seconds")
        }
        yield Trained(
            method=method,
            searched=config.method_of(method) is not HAND_DESIGNED,
            most_frequent=metrics[0]["most_frequent"],
            donors=found.get("donors", ()),
            genotype=found["genotype"],
            **each,
        )
