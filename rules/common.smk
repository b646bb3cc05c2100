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
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

from ftd import config as configuration, layout, store
from ftd.cli import launch
from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT, TABLES
from ftd.parts import MEASURES
from ftd.stages import agreement as agreement_stage
from ftd.stages import comparison as comparison_stage
from ftd.stages import dataset as dataset_stage
from ftd.stages import derive as derive_stage
from ftd.stages import distance as distance_stage
from ftd.stages import embedding as embedding_stage
from ftd.stages import few as few_stage
from ftd.stages import figures as figures_stage
from ftd.stages import fisher as fisher_stage
from ftd.stages import genotypes as genotypes_stage
from ftd.stages import overview as overview_stage
from ftd.stages import probe as probe_stage
from ftd.stages import report as report_stage
from ftd.stages import search as search_stage
from ftd.stages import selection as selection_stage
from ftd.stages import task as task_stage
from ftd.stages import training as training_stage
from ftd.stages import transfer as transfer_stage
from ftd.stages.experiment import Experiment, modality_of
from ftd.stages.sides import artifacts_of

HANDED_ON = "FTD_CONFIG"  # an environment variable: the configurations that this run started with
KEPT = Path(".snakemake", "ftd")


def kept(settings):
    """A file that holds the whole configuration, overrides included; its name is its digest."""
    text = json.dumps(settings)
    path = KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if not path.exists():
        store.write_bytes(path, text.encode())
    return str(path)


try:
    EXPERIMENT = Experiment.of(
        configuration.of_workflow(
            config,
            # those of `configfile:` lie below those of the command line
            sorted(
                workflow.configfiles,
                key=workflow.config_settings.configfiles.__contains__,
            ),
            dict(workflow.config_settings.config),
        )
    )
    # A damaged selection is named here, not from inside the graph, where it would be a traceback.
    if EXPERIMENT.output(LAYOUT.selection).exists():
        store.read_json(EXPERIMENT.output(LAYOUT.selection))
    changed = report_stage.changed_elsewhere(EXPERIMENT)
    if changed and workflow.is_main_process:
        logger.warning(
            f"{EXPERIMENT.root}: made by another path, and with other settings ({', '.join(changed)}), "
            "which start nothing here: call it as before, or use -F (see docs/reruns.md)"
        )
    # Jobs on a cluster read the files again: not to mix two configurations. A workflow that uses
    # this one as a module twice has two.
    CONFIG = kept(report_stage.decides(EXPERIMENT))
    handed_on = os.environ.get(HANDED_ON, "").split()
    if handed_on and not workflow.is_main_process and CONFIG not in handed_on:
        raise UserError("the configuration was changed during the run; run again")
    os.environ[HANDED_ON] = " ".join({*handed_on, CONFIG})
except UserError as error:
    raise WorkflowError(str(error))


REPOSITORY = Path(workflow.current_basedir).resolve().parent


def program(name, start):
    """A function of the shell that starts a module of this folder, or else of the jobs' Python."""
    path = f'{shlex.quote(str(REPOSITORY))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    return f'{name}() {{ PYTHONPATH={path} {start} {name} "$@"; }}; '


# Jobs run in the Python that runs Snakemake, or in environment.yml's, with
# --software-deployment-method conda. No module that lies where Snakemake was started is taken (-P).
deployed = workflow.deployment_settings.deployment_method
python = "python" if DeploymentMethod.CONDA in deployed else shlex.quote(sys.executable)
plain = f"{python} -P -m"
# On one machine, jobs are forked from a process that has imported what they need.
alone = workflow.is_main_process and workflow.resource_settings.nodes is None
forked = alone and not deployed and sys.platform == "linux"
if forked and not os.environ.get(launch.VARIABLE, "").startswith(f"{os.getpid()}-"):
    os.environ[launch.VARIABLE] = (
        f"{os.getpid()}-{secrets.token_hex(8)}-{secrets.token_hex(16)}"
    )
fork = f"{python} -ISE {shlex.quote(launch.__file__)}"

# Before every command of the workflow, behind what stands there already: Snakemake's strict mode,
# or the prefix of a workflow that uses this one, whose own commands need it.
programs = program("ftd", fork if forked else plain) + program("snakemake", plain)
before = getattr(shell, "_get_process_prefix", str)()
if programs not in before:
    shell.prefix((before + programs).replace("{", "{{").replace("}", "}}"))


# As long as a rate limits the starts of jobs (by default 100 a second), Snakemake 9 looks for jobs to
# start once more a second for every job that has ended: hours of CPU for a thousand jobs.
onstart:
    limiter = getattr(workflow.scheduler, "job_rate_limiter", None)
    if alone and limiter and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None
    if not workflow.output_settings.verbose:
        say_briefly()


# A job that finds no room for an artifact may find none for saying so in its log.
onerror:
    if said := store.full_disk(EXPERIMENT.root):
        logger.error(said)


def one_of(names):
    """What matches these names, and nothing where there are none."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


KNOWN = EXPERIMENT.known()


wildcard_constraints:
    **{kind: one_of(names) for kind, names in KNOWN.items()},


def below(pattern):
    """A pattern below the experiment's folder.

    Not by a pathvar: a workflow that uses this one as a module fills the inputs that it takes over
    (``rules.ftd_all.input``) with its own, and can have only one value for two experiments.
    """
    return f"{EXPERIMENT.root.as_posix()}/{pattern}"


# Patterns of all artifacts, figures and logs
at = SimpleNamespace(
    **{name: below(getattr(LAYOUT, name).pattern) for name in vars(LAYOUT)}
)
figure_at = {name: below(f"figures/{file}") for name, file in FIGURES.items()}
table_at = {
    name: report(
        below(f"figures/{file}"),
        caption="../report/table.rst",
        category="9 Tables of figures",
        labels={"file": file},
    )
    for name, file in TABLES.items()
}
log_at = {rule: below(layout.log_of(rule).pattern) for rule in layout.LOGS}
FIGURE_FILES = [below(f"figures/{file}") for file in EXPERIMENT.figures()]
# The section for what not every experiment has: measures held against what sources are worth, up to
# date with the distances (no part of `all`, see the rule make_report), and dense tasks.
HELD, older = report_stage.held(EXPERIMENT)
if older and workflow.is_main_process:
    logger.warning(
        f"{EXPERIMENT.root}: {', '.join(older)}: older than the distances, so the report leaves it "
        "out; make it again by snakemake agreement, agreement_of_architectures"
    )
MORE = report_stage.section(EXPERIMENT, HELD)
REPORT = at.packed if report_stage.is_packed(EXPERIMENT) else at.report


def labelled(figure, pattern):
    """What a figure is called in the report's lists, and the names that it is told by."""
    names = re.findall(r"{\w+}", pattern)
    told = {name.strip("{}"): name for name in names if name not in figure}
    return {"figure": figure} | told


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


def given_also(**lists):
    """The same, with options that are given several times."""
    more = [f"--{name}={value}" for name, values in lists.items() for value in values]

    def found(wildcards, output):
        return [*given(wildcards, output), *more]

    return found


def in_order(value):
    """JSON in which the order of keys counts, as that of labels and of tasks does."""
    return json.dumps(value, separators=(",", ":"))


def decides(stage, **fixed):
    """What a job's result follows from besides its inputs, as a parameter: a change reruns it.

    Of the job's wildcards, and of what is ``fixed`` for all of the rule's.
    """

    def found(wildcards):
        return in_order(stage.decides(EXPERIMENT, **wildcards, **fixed))

    return found


def of_this_run(wildcards, output):
    """Options of a second Snakemake, for what this one was told of an output's experiment.

    Its folder is where the output lies: a module's may have a prefix. Profiles have been applied.
    """
    results = Path(output[0]).parents[1].as_posix()
    profiles = ["--profile", "none", "--workflow-profile", "none"]
    told = report_stage.decides(EXPERIMENT) | {"results": results}
    return ["--configfile", kept(told), *profiles]


def images_of(wildcards):
    """The images of a task's data set, and the modality that is derived for it."""
    dataset = EXPERIMENT.config.tasks[wildcards.task].dataset
    modality = modality_of(EXPERIMENT.config, wildcards.task)
    names = {"dataset": dataset, "modality": modality}
    return [
        pattern.format(**names)
        for pattern in ([at.images, at.derived] if modality else [at.images])
    ]


def cut_of(wildcards):
    """The cut of a task's data set, and the file of the modality that the task takes."""
    task = EXPERIMENT.config.tasks[wildcards.task]
    files = images_of(wildcards)[-1:] if getattr(task, "of", None) else []
    return [at.cut.format(dataset=task.dataset), *files]


def brought(wildcards):
    """Files of weights that the user brings for a probe."""
    files = probe_stage.files_of(
        EXPERIMENT, network=wildcards.network, task=wildcards.task
    )
    return list(files.values())


def pretrained(wildcards):
    """The body that the trial's common start has, where the user brings one."""
    return probe_stage.pretrained_of(EXPERIMENT, wildcards.network) or []


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
    """The learned tasks that a task's search by a method starts from, with their weights."""
    path = checkpoints.selection.get().output.selection
    return search_stage.sources(
        EXPERIMENT, selection_at(str(path), os.stat(path).st_mtime_ns), **wildcards
    )


def donors(wildcards):
    """Their architectures or candidates, whichever the method takes."""
    pattern = getattr(at, configuration.method_of(wildcards.method).takes)
    return [
        pattern.format(
            method=EXPERIMENT.config.search.library,
            task=source,
            seed=wildcards.seed,
        )
        for source in donors_of(wildcards)
    ]


def counted(wildcards):
    """How much each of them counts, as a parameter: a change reruns the search."""
    return in_order(donors_of(wildcards))


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


def of_measure(pattern, measure):
    """A pattern of one measure's files."""
    return pattern.replace("{measure}", measure)


def targets_needs(measures):
    """What some measures declare of a column's target."""
    return {need for measure in measures for need in MEASURES.get(measure).target}


def truths_of(wildcards):
    """The tables of a truth."""
    return for_all(at.transfer) if wildcards.truth == "weights" else at.affinities


# What measures say of targets seen through a few images, where that is asked for.
FEW = for_all(at.few) if EXPERIMENT.config.transfer.few else []


def few_of(wildcards):
    """The same, of the truth that such images are drawn for."""
    return FEW if wildcards.truth == "weights" else []
