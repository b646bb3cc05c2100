"""Stage *report*: the record of what was run; the report itself is Snakemake's, of the figures."""

from collections.abc import Collection
from typing import Any

from ftd import store
from ftd.layout import LAYOUT
from ftd.stages.experiment import Experiment

_FIGURES, _ROWS = 100, 2000
"""A page has no more figures, and no table with more rows, of about 600 bytes each."""
_RANKS = 20  # of each target in a table


def decides(experiment: Experiment) -> dict[str, Any]:
    """The configuration, as far as it was given."""
    return experiment.config.model_dump(mode="json", exclude_unset=True)


def is_packed(experiment: Experiment) -> bool:
    """Whether the report is a packed folder: as one page it would be too large for a browser.

    Chromium shows no page of more than 2 MB that lies in another one, as tables do in a report.
    """
    known = experiment.known()
    probes = len(known["network"]) * len(known["trial"]) * len(known["task"])
    ranks = len(known["network"]) * len(known["measure"]) * len(known["task"])
    ranks *= min(_RANKS, len(known["task"]) - 1)
    return len(experiment.figures()) > _FIGURES or max(probes, ranks) > _ROWS


def changed_elsewhere(experiment: Experiment) -> list[str]:
    """The settings that differ from those recorded, if these results were made by another path.

    Snakemake knows how a file was made by its path: it sees no change then.
    """
    path = experiment.output(LAYOUT.config)
    if not path.exists():
        return []
    before, now = store.read_json(path), decides(experiment)
    if before.get("results", "results") == now.get("results", "results"):
        return []
    apart = {"results", "data_root", "cache", "plugins", store.JSON_KEY}
    return sorted(key for key in {*before, *now} - apart if before.get(key) != now.get(key))


def held(experiment: Experiment) -> tuple[dict[str, int], list[str]]:
    """The pages of measures held against what sources are worth that the report shows.

    They are made when they are asked for, and then by themselves. Of an experiment whose distances
    were made since, they may be of other tasks.

    Returns:
        Their paths below the experiment's folder, with the time when each was made (ns); and the
        paths of those that are older than the distances.
    """
    distances = experiment.output(LAYOUT.distances)
    if not distances.exists():
        return {}, []
    made = {
        path.relative_to(experiment.root).as_posix(): path.stat().st_mtime_ns
        for artifact in (LAYOUT.agreement_page, LAYOUT.weighted_page)
        for path, _ in artifact.find(experiment.root)
    }
    since = distances.stat().st_mtime_ns
    fresh = {page: time for page, time in made.items() if time >= since}
    return fresh, sorted(made.keys() - fresh)


def section(experiment: Experiment, held: Collection[str]) -> str:
    """What the report's section is called that shows them, and dense tasks."""
    if not experiment.pictured:
        return "7 Transfer"
    return "7 Transfer and dense tasks" if held else "7 Dense tasks"


def record(experiment: Experiment) -> None:
    """Keep the configuration as it was run, overrides included, beside the artifacts (JSON).

    In its order: tasks arrive, and labels count, in theirs.
    """
    store.write_json(experiment.output(LAYOUT.config), decides(experiment), sort_keys=False)
