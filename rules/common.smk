import functools
import hashlib
import json
import os
import re
import secrets
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from ftd import config as configuration, layout, store
from ftd.config import LIBRARY
from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT
from ftd.parts import MEASURES
from ftd.stages import comparison as comparison_stage
from ftd.stages import dataset as dataset_stage
from ftd.stages import distance as distance_stage
from ftd.stages import figures as figures_stage
from ftd.stages import fisher as fisher_stage
from ftd.stages import probe as probe_stage
from ftd.stages import report as report_stage
from ftd.stages import search as search_stage
from ftd.stages import selection as selection_stage
from ftd.stages import task as task_stage
from ftd.stages import training as training_stage
from ftd.stages.experiment import Experiment
from ftd.stages.sides import artifacts_of

HANDED_ON = "FTD_CONFIG"  # an environment variable: the configurations that this run started with
KEPT = Path(".snakemake", "ftd")


def kept(config):
    """A file that holds the whole configuration, overrides included; its name is its digest."""
    text = json.dumps({k: v for k, v in config.items() if k != store.JSON_KEY})
    path = KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if not path.exists():
        store.write_bytes(path, text.encode())
    return str(path)


try:
    overrides = dict(workflow.config_settings.config)
    for path in workflow.configfiles:
        configuration.check_recorded(path, overrides)
    EXPERIMENT = Experiment.of(configuration.parse(config, workflow.configfiles))
    # A damaged selection is named here, not from inside the graph, where it would be a traceback.
    if EXPERIMENT.output(LAYOUT.selection).exists():
        store.read_json(EXPERIMENT.output(LAYOUT.selection))
    # Jobs on a cluster read the files again: not to mix two configurations. A workflow that uses
    # this one as a module twice has two.
    CONFIG = kept(config)
    handed_on = os.environ.get(HANDED_ON, "").split()
    if handed_on and not workflow.is_main_process and CONFIG not in handed_on:
        raise UserError("the configuration was changed during the run; run again")
    os.environ[HANDED_ON] = " ".join({*handed_on, CONFIG})
except UserError as error:
    raise WorkflowError(str(error))


pathvars:
    results=EXPERIMENT.root.as_posix(),
    logs=f"{EXPERIMENT.root.as_posix()}/logs",


# Jobs run this folder's `ftd` in the Python that runs Snakemake, or in that of environment.yml, with
# --software-deployment-method conda.
def quoted(text):
    return shlex.quote(str(text)).replace("{", "{{").replace("}", "}}")


def program(name):
    """A function of the shell that runs a module; not one that lies where Snakemake was started."""
    return f'{name}() {{{{ {python} -P -m {name} "$@"; }}}}; '


deployed = workflow.deployment_settings.deployment_method
python = "python" if DeploymentMethod.CONDA in deployed else quoted(sys.executable)
folder = Path(workflow.current_basedir).resolve().parent
in_path = f'export PYTHONPATH={quoted(folder)}"${{{{PYTHONPATH:+:$PYTHONPATH}}}}"; '
jobs = program("ftd")
# On one machine, jobs are forked from a process that has imported what they need.
alone = workflow.is_main_process and workflow.resource_settings.nodes is None
if alone and not deployed and sys.platform == "linux":
    launch = quoted(folder / "ftd" / "cli" / "launch.py")
    jobs = f'ftd() {{{{ {python} -ISE {launch} ftd "$@"; }}}}; '
    os.environ["FTD_WARM"] = f"{os.getpid()}-{secrets.token_hex(16)}"
shell.prefix(in_path + jobs + program("snakemake"))


# As long as a rate limits the starts of jobs (by default 100 a second), Snakemake 9 looks for jobs to
# start once more a second for every job that has ended: hours of CPU for a thousand jobs.
onstart:
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def one_of(names):
    return "|".join(re.escape(str(name)) for name in names)


KNOWN = EXPERIMENT.known()


wildcard_constraints:
    **{kind: one_of(names) for kind, names in KNOWN.items()},


# Patterns of all artifacts, figures and logs
at = SimpleNamespace(
    **{name: f"<results>/{getattr(LAYOUT, name).pattern}" for name in vars(LAYOUT)}
)
figure_at = {name: f"<results>/figures/{file}" for name, file in FIGURES.items()}
log_at = {rule: f"<results>/{layout.log_of(rule).pattern}" for rule in layout.LOGS}
FIGURE_FILES = [f"<results>/figures/{file}" for file in EXPERIMENT.figures()]


def given(wildcards, output):
    """A job's options: the configuration, the folder of results, and its wildcards.

    No reason to run again: what decides a result is told by ``decides``. The folder is where the
    outputs lie, which in a storage is not where the configuration has it.
    """
    root = EXPERIMENT.root.relative_to(EXPERIMENT.root.anchor).parts
    above = reversed(Path(output[0]).parents)
    results = next(folder for folder in above if folder.parts[-len(root) :] == root)
    options = {"config": CONFIG, "results": results.as_posix(), **wildcards}
    return [f"--{name}={value}" for name, value in options.items()]


def in_order(value):
    """JSON in which the order of keys counts, as that of labels and of tasks does."""
    return json.dumps(value, separators=(",", ":"))


def decides(stage, **fixed):
    """What a job's result follows from besides its inputs, as a parameter: a change reruns it.

    Of the job's wildcards, or of what is ``fixed`` for all of the rule's.
    """

    def found(wildcards):
        return in_order(stage.decides(EXPERIMENT, **(fixed or wildcards)))

    return found


def asked_for(plugins):
    """Options of Snakemake that let a recorded configuration's plugins be imported."""
    return ["--config", f"plugins={in_order(plugins)}"] if plugins else []


def images_of(wildcards):
    """The images of a task's data set."""
    return at.images.format(dataset=EXPERIMENT.config.tasks[wildcards.task].dataset)


def cut_of(wildcards):
    """The cut of a task's data set."""
    return at.cut.format(dataset=EXPERIMENT.config.tasks[wildcards.task].dataset)


def brought(wildcards):
    """Files of weights that the user brings for a probe."""
    files = probe_stage.files_of(
        EXPERIMENT, network=wildcards.network, task=wildcards.task
    )
    return list(files.values())


# The measures that compare pairs: the others combine finished columns, and have none.
COMPARING = one_of(EXPERIMENT.measures)


def declared(wildcards):
    """What decides a list of sources, as ``decides`` tells it."""
    return in_order(distance_stage.declares(wildcards.measure))


def of_needs(needs):
    """The artifacts that a measure's needs of a task are read from, but for its images."""
    return [getattr(at, name) for name in sorted(artifacts_of(needs) - {"images"})]


def sources_of(wildcards):
    """What a measure declares of every source."""
    needs = MEASURES.get(wildcards.measure).source
    return [
        path
        for pattern in of_needs(needs)
        for path in for_all(pattern, network=wildcards.network, trial=wildcards.trial)
    ]


def target_of(wildcards):
    """What a measure declares of a column's target."""
    return of_needs(MEASURES.get(wildcards.measure).target)


def target_images(wildcards):
    """The target's images, if a measure looks at them."""
    files = artifacts_of(MEASURES.get(wildcards.measure).target)
    return images_of(wildcards) if "images" in files else []


def growing(megabytes):
    """Memory of a job: as much again with every attempt."""
    return lambda wildcards, attempt: attempt * megabytes


def for_all(pattern, **chosen):
    """A path for every combination of measure, network, trial and task, by name."""
    names = {kind: KNOWN[kind] for kind in ("network", "trial", "task")}
    names["measure"] = EXPERIMENT.measures
    return sorted(collect(pattern, **(names | chosen)))


def after_selection(pattern):
    """An input that is known only once the selection is, else it would keep old reasons."""

    def path(wildcards):
        checkpoints.selection.get()
        return pattern.format(**wildcards)

    return path


@functools.lru_cache
def selection_at(path, modified):
    return store.read_json(Path(path))


def donors_of(wildcards):
    """The learned tasks that a task's search by a method starts from."""
    path = checkpoints.selection.get().output.selection
    return search_stage.sources(
        EXPERIMENT, selection_at(str(path), os.stat(path).st_mtime_ns), **wildcards
    )


def donors(wildcards):
    """The architectures whose space a task's search starts from."""
    return [
        at.genotype.format(method=LIBRARY, task=source, seed=wildcards.seed)
        for source in donors_of(wildcards)
    ]


def donor_weights(wildcards):
    """The first donor's trained weights, where the method takes them over."""
    if configuration.method_of(wildcards.method).start != "weights":
        return []
    return [
        at.weights.format(method=LIBRARY, task=source, seed=wildcards.seed)
        for source in donors_of(wildcards)[:1]
    ]


def searched(pattern):
    """A path for every searched task, method and seed, known only once the selection is."""

    def paths(wildcards):
        checkpoints.selection.get()
        given = {
            key: value for key, value in wildcards.items() if f"{{{key}}}" in pattern
        }
        return sorted(
            {
                pattern.format(**names)
                for names in EXPERIMENT.searched()
                if all(names[key] == value for key, value in given.items())
            }
        )

    return paths
