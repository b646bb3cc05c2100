"""Stage *report*: the record of what was run; the report itself is Snakemake's, of the figures."""

from typing import Any

from ftd import store
from ftd.layout import LAYOUT
from ftd.stages.experiment import Experiment


def decides(experiment: Experiment) -> dict[str, Any]:
    """The configuration, as far as it was given."""
    return experiment.config.model_dump(mode="json", exclude_unset=True)


def record(experiment: Experiment) -> None:
    """Keep the configuration as it was run, overrides included, beside the artifacts (JSON).

    In its order: tasks arrive, and labels count, in theirs.
    """
    store.write_json(experiment.output(LAYOUT.config), decides(experiment), sort_keys=False)
