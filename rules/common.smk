import functools
import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from ftd import versions
from ftd.artifacts import read_json, write_json
from ftd.config import (
    check_recorded,
    expect_unchanged,
    parse as parse_config,
    read as read_config,
    resolve,
    settings_json,
)
from ftd.errors import UserError
from ftd.names import LIBRARY, method_of

try:
    for path in workflow.configfiles:
        check_recorded(path)
    # Of several files the first has the efforts; later ones and the command line win over them.
    above = [read_config(path) for path in workflow.configfiles[1:]]
    config = resolve(config, [*above, dict(workflow.config_settings.config)])
    EXPERIMENT = parse_config(config, workflow.configfiles)
    # A damaged selection is named here, not from inside the graph, where it would be a traceback.
    selection = Path(EXPERIMENT.results) / EXPERIMENT.experiment / "selection.json"
    if selection.exists():
        read_json(selection)
    # Jobs on a cluster, and jobs of ``run:``, read the files again: not to mix two configurations.
    expect_unchanged(config, first=workflow.is_main_process)
except UserError as error:
    raise WorkflowError(str(error))

METHODS = EXPERIMENT.search.methods


pathvars:
    results=f"{EXPERIMENT.results}/{EXPERIMENT.experiment}",
    logs=f"{EXPERIMENT.results}/{EXPERIMENT.experiment}/logs",


# The `ftd` of the Python that runs Snakemake comes first. Where the raw data and the shared cache
# lie is no parameter: it does not decide a result, so moving them must rerun nothing.
def quoted(text):
    return shlex.quote(str(text)).replace("{", "{{").replace("}", "}}")


shell.prefix(
    f'export PATH={quoted(Path(sys.executable).parent)}:"$PATH" '
    f"FTD_DATA_ROOT={quoted(EXPERIMENT.data_root)} FTD_CACHE={quoted(EXPERIMENT.cache or '')}; "
)


def one_of(names):
    return "|".join(re.escape(str(name)) for name in names)


wildcard_constraints:
    dataset=one_of(EXPERIMENT.datasets),
    task=one_of(EXPERIMENT.tasks),
    network=one_of(EXPERIMENT.networks),
    method=one_of({*METHODS, LIBRARY}),
    trial=r"\d+",
    seed=r"\d+",


def images_of(wildcards):
    """The images of a task's data set."""
    return f"<results>/datasets/{EXPERIMENT.tasks[wildcards.task].dataset}.safetensors"


def cut_of(wildcards):
    """The cut of a task's data set."""
    return f"<results>/datasets/{EXPERIMENT.tasks[wildcards.task].dataset}.parquet"


def growing(megabytes):
    """Memory of a job: as much again with every attempt."""
    return lambda wildcards, attempt: attempt * megabytes


def results_above(levels):
    """The folder of results, so many levels above a rule's first output."""
    return lambda wildcards, output: str(Path(output[0]).parents[levels])


def for_all(pattern, **chosen):
    """A path for every combination of network, trial and task, by name and not by arrival."""
    return sorted(
        collect(
            pattern,
            **(
                {
                    "network": EXPERIMENT.networks,
                    "trial": range(EXPERIMENT.trials),
                    "task": EXPERIMENT.tasks,
                }
                | chosen
            ),
        )
    )


def indexes(wildcards):
    """Every trial's list of probes: what is passed in place of a long list of files."""
    return collect(
        "<results>/index/{network}/{trial}.json",
        network=EXPERIMENT.networks,
        trial=range(EXPERIMENT.trials),
    )


def after_selection(pattern):
    """An input that is known only once the selection is, else it would keep old reasons."""

    def path(wildcards):
        checkpoints.select.get()
        return pattern.format(**wildcards)

    return path


@functools.lru_cache
def selection_at(path, modified):
    return read_json(Path(path))


def sources(wildcards):
    """The learned tasks that a task's search by a method starts from."""
    path = checkpoints.select.get().output.selection
    kind, task = method_of(wildcards.method), wildcards.task
    if kind.source is None:
        return []
    if kind.source == "random":
        # pandas, which it imports, takes a moment that few experiments need
        from ftd.select import drawn

        return drawn(
            list(EXPERIMENT.tasks),
            task,
            nearest=EXPERIMENT.select.nearest,
            seed=EXPERIMENT.seed,
            search_seed=int(wildcards.seed),
        )
    return selection_at(str(path), os.stat(path).st_mtime_ns)[task][kind.source]


def donors(wildcards):
    """The architectures whose space a task's search starts from."""
    return [
        f"<results>/search/{LIBRARY}/{source}/{wildcards.seed}/genotype.json"
        for source in sources(wildcards)
    ]


def donor_weights(wildcards):
    """The first donor's trained weights, where the method takes them over."""
    if method_of(wildcards.method).start != "weights":
        return []
    return [
        f"<results>/final/{LIBRARY}/{source}/{wildcards.seed}/weights.safetensors"
        for source in sources(wildcards)[:1]
    ]


def searched(pattern):
    """A path for every searched task, method and seed, known only once the selection is."""

    def paths(wildcards):
        checkpoints.select.get()
        return collect(
            pattern,
            method=METHODS,
            task=EXPERIMENT.search.tasks or EXPERIMENT.tasks,
            seed=EXPERIMENT.search.seeds,
        )

    return paths
