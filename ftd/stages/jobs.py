"""What an experiment's jobs took, by their logs."""

from collections.abc import Iterator
from pathlib import Path

from ftd.layout import LOGS, log_of
from ftd.runtime import usage
from ftd.stages.experiment import Experiment

_TABLES = {"distance": ("distances", "selection"), "training": ("comparison",)}
"""Rules of one job, whose logs have their names, by the rule that they follow."""


def taken(experiment: Experiment) -> Iterator[tuple[str, str, float, int]]:
    """Rule, job, seconds and megabytes of the jobs whose logs are there, in the stages' order."""
    for rule in LOGS:
        if rule == "figures":  # they are drawn side by side with the page that lists this
            continue
        for job, path in _logs(experiment, rule):
            if found := usage.read(path):
                yield rule, job, *found
        for table in _TABLES.get(rule, ()):
            path = experiment.root / "logs" / f"{table}.log"
            if path.exists() and (found := usage.read(path)):
                yield table, table, *found


def _logs(experiment: Experiment, rule: str) -> Iterator[tuple[str, Path]]:
    """The logs of a rule's jobs of this configuration."""
    known = experiment.known()
    for path, names in log_of(rule).find(experiment.root):
        if all(name in known[kind] for kind, name in names.items()):
            yield " ".join(names.values()), path
