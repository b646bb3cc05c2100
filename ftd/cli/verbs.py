"""The verbs of the stages, and of what is done with a finished library.

Verbs import what they call when they are called: ``--help`` pays for none of it.
"""

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftd.cli.options import (
    PATH,
    Configs,
    Dataset,
    Measure,
    Measures,
    Method,
    Modality,
    Network,
    Plugins,
    Repeat,
    Results,
    Seed,
    Settings,
    Task,
    Trial,
    Truth,
    experiment,
)

if TYPE_CHECKING:
    from ftd.stages.experiment import Experiment

app = typer.Typer(
    name="ftd",
    help="Fisher task distance: nearest learned tasks, and the network to use for a new one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take [default: …] for markup
)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A verb of an experiment: ``function(experiment, …)`` with the options that name it."""
    own = list(inspect.signature(function).parameters.values())[1:]
    kinds = {"config": Configs, "set": Settings, "results": Results}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in kinds.items()
    ]

    @functools.wraps(function)
    def command(config=None, set=None, results=None, **names) -> None:
        from ftd.runtime import usage  # tqdm: as verbs import

        began = time.monotonic()
        function(experiment(config, set, results), **names)
        usage.say(began)

    command.__signature__ = inspect.Signature([*own, *common])
    command.__annotations__ = {p.name: p.annotation for p in [*own, *common]}
    return app.command()(command)


@verb
def dataset(experiment: "Experiment", dataset: Dataset) -> None:
    """Decode a data set once and cut it into train, fisher, val and test."""
    from ftd.stages import dataset as stage

    stage.run(experiment, dataset=dataset)


@verb
def derive(experiment: "Experiment", dataset: Dataset, modality: Modality) -> None:
    """Derive a modality of a data set's frames out of their colours and depths."""
    from ftd.stages import derive as stage

    stage.run(experiment, dataset=dataset, modality=modality)


@verb
def task(experiment: "Experiment", task: Task) -> None:
    """Slice a task out of its data set's cut: which images it has, and their labels."""
    from ftd.stages import task as stage

    stage.run(experiment, task=task)


@verb
def probe(experiment: "Experiment", task: Task, network: Network = None, trial: Trial = 0) -> None:
    """Train a task's ε-approximation network."""
    from ftd.stages import probe as stage

    stage.run(experiment, network=network or experiment.network, trial=trial, task=task)


@verb
def fisher(experiment: "Experiment", task: Task, network: Network = None, trial: Trial = 0) -> None:
    """Extract the Fisher diagonal of a probe on its own task."""
    from ftd.stages import fisher as stage

    stage.run(experiment, network=network or experiment.network, trial=trial, task=task)


@verb
def embedding(
    experiment: "Experiment", task: Task, network: Network = None, trial: Trial = 0
) -> None:
    """Embed a task by its trial's common start, for the measure task2vec."""
    from ftd.stages import embedding as stage

    stage.run(experiment, network=network or experiment.network, trial=trial, task=task)


@verb
def index(
    experiment: "Experiment", measure: Measure = None, network: Network = None, trial: Trial = 0
) -> None:
    """List what a measure needs of one trial's sources, with digests."""
    from ftd.stages import distance as stage

    names = {"measure": measure or experiment.measures[0], "trial": trial}
    stage.index(experiment, network=network or experiment.network, **names)


@verb
def distance(
    experiment: "Experiment",
    task: Task,
    measure: Measures = None,
    network: Network = None,
    trial: Trial = 0,
) -> None:
    """Compute columns: what each measure says of every listed source and one target."""
    from ftd.stages import distance as stage

    names = {"measures": measure or experiment.measures[:1], "trial": trial, "task": task}
    stage.run_together(experiment, network=network or experiment.network, **names)


@verb
def distances(experiment: "Experiment") -> None:
    """Join columns into the table of all distances."""
    from ftd.stages import distance as stage

    stage.assemble(experiment)


@verb
def selection(experiment: "Experiment") -> None:
    """Rank each task's sources and choose its nearest learned tasks."""
    from ftd.stages import selection as stage

    stage.run(experiment)


@verb
def search(
    experiment: "Experiment", task: Task, method: Method = "ftd-nas", seed: Seed = 0
) -> None:
    """Search an architecture for a task in the space of its nearest learned tasks'."""
    from ftd.stages import search as stage

    stage.run(experiment, method=method, task=task, seed=seed)


@verb
def training(
    experiment: "Experiment", task: Task, method: Method = "ftd-nas", seed: Seed = 0
) -> None:
    """Train a found architecture from scratch and test it."""
    from ftd.stages import training as stage

    stage.run(experiment, method=method, task=task, seed=seed)


@verb
def transfer(
    experiment: "Experiment", task: Task, trial: Trial = 0, network: Network = None
) -> None:
    """Fine-tune the probes of all other tasks on a few images of a task."""
    from ftd.stages import transfer as stage

    stage.run(experiment, network=network or experiment.network, trial=trial, task=task)


@verb
def few(experiment: "Experiment", task: Task, trial: Trial = 0, network: Network = None) -> None:
    """Compute what measures say of all other tasks and a task seen through a few images alone."""
    from ftd.stages import few as stage

    stage.run(experiment, network=network or experiment.network, trial=trial, task=task)


@verb
def comparison(experiment: "Experiment") -> None:
    """Join the metrics of all trained networks into one table."""
    from ftd.stages import comparison as stage

    stage.run(experiment)


@verb
def genotypes(experiment: "Experiment", task: Task, repeat: Repeat = 0) -> None:
    """Train the same random architectures on a task as on all others."""
    from ftd.stages import genotypes as stage

    stage.run(experiment, task=task, repeat=repeat)


@verb
def architectures(experiment: "Experiment") -> None:
    """Join the genotypes' tables of all tasks, and compare the tasks by them."""
    from ftd.stages import genotypes as stage

    stage.assemble(experiment)


@verb
def agreement(experiment: "Experiment", truth: Truth = "weights") -> None:
    """Hold the measures against what sources are truly worth, with tables and figures."""
    from ftd.stages import agreement as stage

    stage.run(experiment, truth=truth)


@verb
def weighted(experiment: "Experiment") -> None:
    """Say what rankings of architectures are worth that the measures weigh, as tables."""
    from ftd.stages import agreement as stage

    stage.weigh(experiment)


@verb
def figure(
    experiment: "Experiment",
    figure: Annotated[
        str,
        typer.Argument(
            help="Of pairs: matrix, atlas, shares, asymmetry, consistency, graph; weights; of "
            "searches: trace, cells, candidates, spaces; scores, examples, scatter; or a page: "
            "explorer, datasets, probes, nearest, comparison, run."
        ),
    ],
    measure: Annotated[str | None, typer.Option(help="Of figures of pairs.")] = None,
    network: Annotated[str | None, typer.Option(help="Of figures of pairs, and examples.")] = None,
    task: Annotated[str | None, typer.Option(help="Of examples.")] = None,
    statistic: Annotated[
        str | None, typer.Option(help="Of matrix: mean or std, over trials.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Of figures of searches.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of figures of searches.")] = None,
) -> None:
    """Draw a figure and write its table beside it, or write a page."""
    from ftd.stages import figures as stage

    names = {"measure": measure, "network": network, "task": task, "statistic": statistic}
    names |= {"method": method, "seed": seed}
    given = {name: value for name, value in names.items() if value is not None}
    stage.run(experiment, figure, **given)


@verb
def overview(experiment: "Experiment") -> None:
    """Write one page of what was found for each task."""
    from ftd.stages import overview as stage

    stage.run(experiment)


@verb
def record(experiment: "Experiment") -> None:
    """Keep the configuration as it was run, overrides included, beside the artifacts."""
    from ftd.stages import report as stage

    stage.record(experiment)


@app.command()
def measures() -> None:
    """List the measures that there are: direction, range, what a pair takes, source."""
    from ftd.parts import MEASURES

    for name in MEASURES.names():
        kind = MEASURES.get(name)
        about = [f"{kind.nearer} is nearer", f"[{kind.lowest:g}, {kind.highest:g}]"]
        about += [getattr(kind, "cost", ""), kind.reference]
        print(f"{name}: {'; '.join(filter(None, about))}")


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="Of a folder of images for each class.", metavar="FOLDER")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. [default: config.yaml]", **PATH)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over another file.")] = False,
) -> None:
    """Write a commented configuration for your own images, which runs as it is."""
    from ftd.library import own_images

    print(own_images.run(folder, out or Path("config.yaml"), force=force))


# What is done with a finished library -----------------------------------------------------------

Library = Annotated[
    Path, typer.Argument(help="An experiment's folder, e.g. results/digits.", **PATH)
]


@app.command()
def recommend(
    library: Annotated[Path, typer.Option(help="Folder of a finished experiment.", **PATH)],
    task: Annotated[
        Path, typer.Option(help="YAML: one task, in the configuration's form.", **PATH)
    ],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the raw data. [default: the library's]", **PATH)
    ] = None,
    searching: Annotated[
        bool, typer.Option("--search", help="Search and train an architecture as well.")
    ] = False,
    add: Annotated[bool, typer.Option("--add", help="Keep the task in the library.")] = False,
    plugins: Plugins = False,
) -> None:
    """Place one new task among the learned tasks; name the architecture to start from."""
    from ftd.library import recommend

    done = recommend.run(
        library, task, data_root=data_root, searching=searching, add=add, plugins=plugins
    )
    print(done.text())


@app.command()
def leftovers(
    library: Library,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them.")] = False,
    plugins: Plugins = False,
) -> None:
    """List the files of tasks, methods and seeds that the experiment names no more."""
    from ftd.library import leftovers

    found = leftovers.find(library, plugins=plugins)
    if delete:
        leftovers.delete(library, found)
    print("".join(f"{path}\n" for path in found), end="")
    print(f"{len(found)} files {'deleted' if delete else 'left over; --delete deletes them'}")


@app.command()
def show(
    library: Library,
    measure: Annotated[str | None, typer.Option(help="[default: the one that decides]")] = None,
    network: Network = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="All numbers, mean ± std.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object, nothing else.")] = False,
) -> None:
    """Print each task's nearest tasks, the architecture found for it, and what it cost."""
    from ftd.library import printing, showing

    found = showing.shown(library, measure=measure, network=network, matrix=matrix)
    if as_json:
        print(json.dumps(found))
    else:
        printing.show(found)


@app.command()
def verify(library: Library, plugins: Plugins = False) -> None:
    """Check every artifact of a library, and that they belong together; change nothing."""
    from ftd.library import verify

    report = verify.run(library, plugins=plugins)
    print(report.text())
    if report.problems:
        sys.exit(1)
