"""Command line: one verb per stage, each calling the stage's function."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from ftd import artifacts, config
from ftd.errors import UserError

app = typer.Typer(
    name="ftd",
    help="Fisher task distance: nearest learned tasks, and the network to use for a new one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SliceFile = Annotated[Path, typer.Option("--slice", help="The task's slice (Parquet).")]
ImagesFile = Annotated[Path, typer.Option("--images", help="The data set's images (safetensors).")]
Out = Annotated[Path, typer.Option("--out", help="File to write.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Base seed of the experiment.")]
Settings = Annotated[
    str, typer.Option("--settings", help="JSON with keys of the stage's configuration section.")
]

SomeTasks = Annotated[str, typer.Option("--tasks", help="JSON: tasks, if not all of them.")]


def _tasks(tasks: str, selection: Path) -> list[str]:
    """The tasks given, or all of the selection."""
    return _json(tasks, "--tasks") or list(artifacts.read_json(selection))


def _json(text: str, option: str, kind: type = str) -> list:
    """A list of strings or of another kind, or ``null`` for none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{option}: expected JSON ({error})") from error
    if not isinstance(value, list | None) or any(type(item) is not kind for item in value or ()):
        raise UserError(f"{option}: expected a list of {kind.__name__} in JSON, got {text}")
    return value or []


@app.command()
def dataset(
    name: Annotated[str, typer.Option(help="Name of the data set.")],
    settings: Annotated[str, typer.Option(help="JSON: the data set's configuration.")],
    image: Annotated[str, typer.Option(help='JSON: {"size": …, "channels": …}.')],
    images_out: Annotated[Path, typer.Option(help="Images to write (safetensors).")],
    table_out: Annotated[Path, typer.Option(help="Cut to write (Parquet).")],
    seed: Seed = 0,
    data_root: Annotated[
        Path, typer.Option(envvar="FTD_DATA_ROOT", help="Folder of the raw data.")
    ] = Path("data"),
) -> None:
    """Decode a data set once and cut it into train, fisher, val and test."""
    from ftd import dataset

    dataset.run(
        name,
        config.settings_from_json(config.Dataset, settings),
        config.settings_from_json(config.Image, image),
        seed=seed,
        data_root=data_root,
        images_out=images_out,
        table_out=table_out,
    )


@app.command()
def slice(
    task: Annotated[str, typer.Option(help="Name of the task.")],
    settings: Annotated[str, typer.Option(help='JSON: {"dataset": …, "labels": …}.')],
    table: Annotated[Path, typer.Option(help="The data set's cut (Parquet).")],
    out: Out,
    seed: Seed = 0,
) -> None:
    """Filter and relabel a data set's cut as a task says."""
    from ftd import slice

    task_settings = config.settings_from_json(config.Task, settings)
    slice.run(task, task_settings, seed=seed, table=table, out=out)


@app.command()
def probe(
    slice: SliceFile,
    images: ImagesFile,
    weights_out: Annotated[Path, typer.Option(help="Weights to write (safetensors).")],
    facts_out: Annotated[Path, typer.Option(help="Facts to write (JSON).")],
    network: Annotated[str, typer.Option(help="Network of the probe.")] = "small-cnn",
    trial: Annotated[int, typer.Option(min=0, help="Common initialisation to start from.")] = 0,
    seed: Seed = 0,
    settings: Settings = "{}",
    pretrained: Annotated[
        Path | None, typer.Option(help="Weights of the body to start from (safetensors).")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(envvar="FTD_CACHE", help="Folder in which experiments share their probes."),
    ] = None,
) -> None:
    """Train a task's ε-approximation network."""
    from ftd import probe

    probe.run(
        slice,
        images,
        network=network,
        trial=trial,
        seed=seed,
        settings=config.settings_from_json(config.Probe, settings),
        weights_out=weights_out,
        facts_out=facts_out,
        pretrained=pretrained,
        cache=cache,
    )


@app.command()
def index(
    probes: Annotated[list[Path], typer.Argument(help="Weights of the probes (safetensors).")],
    out: Out,
) -> None:
    """List one trial's probes with their digests."""
    from ftd import distance

    distance.index(probes, out)


@app.command()
def fisher(
    probe: Annotated[Path, typer.Option(help="Weights of the task's probe (safetensors).")],
    slice: SliceFile,
    images: ImagesFile,
    out: Out,
    settings: Settings = "{}",
) -> None:
    """Extract the Fisher diagonal of a probe on its own task."""
    from ftd import fisher

    fisher_settings = config.settings_from_json(config.Fisher, settings)
    fisher.run(probe, slice, images, settings=fisher_settings, out=out)


@app.command()
def distance(
    index: Annotated[Path, typer.Option(help="The trial's list of probes (JSON).")],
    fisher: Annotated[Path, typer.Option(help="The target's Fisher diagonal (safetensors).")],
    slice: SliceFile,
    images: ImagesFile,
    store: Annotated[Path, typer.Option(help="Store of the target's finished pairs.")],
    out: Out,
    settings: Settings = "{}",
) -> None:
    """Compute a column: the distances from every probe of the list to one target."""
    from ftd import distance

    distance.run(
        index,
        fisher,
        slice,
        images,
        settings=config.settings_from_json(config.Distance, settings),
        store=store,
        out=out,
    )


@app.command()
def assemble(
    indexes: Annotated[list[Path], typer.Argument(help="Lists of probes (JSON), one a trial.")],
    columns: Annotated[Path, typer.Option(help="Folder of the columns.")],
    out: Out,
    layers_out: Annotated[Path, typer.Option(help="Contributions by layer to write (Parquet).")],
) -> None:
    """Join columns into the table of all distances."""
    from ftd import distance

    distance.assemble(indexes, columns, out, layers_out)


@app.command()
def select(
    distances: Annotated[Path, typer.Option(help="The table of all distances (Parquet).")],
    order: Annotated[str, typer.Option(help="JSON: task names as they arrive.")],
    networks: Annotated[str, typer.Option(help="JSON: probe networks; the first decides.")],
    nearest_out: Annotated[Path, typer.Option(help="Ranked sources to write (Parquet).")],
    selection_out: Annotated[Path, typer.Option(help="Selection to write (JSON).")],
    settings: Settings = "{}",
) -> None:
    """Rank each task's sources and choose its nearest learned tasks."""
    from ftd import select

    select.run(
        distances,
        order=_json(order, "--order"),
        networks=_json(networks, "--networks"),
        settings=config.settings_from_json(config.Select, settings),
        nearest_out=nearest_out,
        selection_out=selection_out,
    )


@app.command()
def search(
    slice: SliceFile,
    images: ImagesFile,
    genotype_out: Annotated[Path, typer.Option(help="Architecture to write (JSON).")],
    trace_out: Annotated[Path, typer.Option(help="Trace to write (Parquet).")],
    donors: Annotated[
        list[Path] | None, typer.Argument(help="Genotypes of the selected learned tasks.")
    ] = None,
    method: Annotated[str, typer.Option(help="Search method, or a hand-designed network.")] = (
        "ftd-nas"
    ),
    weights: Annotated[
        Path | None, typer.Option(help="The first donor's trained weights (safetensors).")
    ] = None,
    search_seed: Annotated[int, typer.Option(min=0, help="Seed of this search.")] = 0,
    seed: Seed = 0,
    settings: Settings = "{}",
) -> None:
    """Search an architecture for a task in the space of the donors' architectures."""
    from ftd import search

    search.run(
        slice,
        images,
        donors or [],
        method=method,
        weights=weights,
        seed=seed,
        search_seed=search_seed,
        settings=config.settings_from_json(config.Search, settings),
        genotype_out=genotype_out,
        trace_out=trace_out,
    )


@app.command()
def train(
    genotype: Annotated[Path, typer.Option(help="The architecture (JSON).")],
    slice: SliceFile,
    images: ImagesFile,
    weights_out: Annotated[Path, typer.Option(help="Weights to write (safetensors).")],
    metrics_out: Annotated[Path, typer.Option(help="Metrics to write (JSON).")],
    seed: Seed = 0,
    settings: Settings = "{}",
) -> None:
    """Train a found architecture from scratch and test it."""
    from ftd import train

    train.run(
        genotype,
        slice,
        images,
        seed=seed,
        settings=config.settings_from_json(config.Train, settings),
        weights_out=weights_out,
        metrics_out=metrics_out,
    )


@app.command()
def compare(
    final: Annotated[Path, typer.Argument(help="Folder of the trained networks.")],
    selection: Annotated[Path, typer.Option(help="The selection (JSON): the tasks there are.")],
    methods: Annotated[str, typer.Option(help="JSON: search methods.")],
    seeds: Annotated[str, typer.Option(help="JSON: search seeds.")],
    out: Out,
    tasks: SomeTasks = "null",
) -> None:
    """Join the metrics of all trained networks into one table."""
    from ftd import compare

    names = _tasks(tasks, selection)
    compare.run(final, names, _json(methods, "--methods"), _json(seeds, "--seeds", int), out)


figure = typer.Typer(help="Draw figures and tables.", no_args_is_help=True)
app.add_typer(figure, name="figure")


@figure.command("matrix")
def figure_matrix(
    distances: Annotated[Path, typer.Option(help="The table of all distances (Parquet).")],
    nearest: Annotated[Path, typer.Option(help="Ranked sources (Parquet).")],
    network: Annotated[str, typer.Option(help="Network of the probes.")],
    out: Out,
    statistic: Annotated[str, typer.Option(help="mean or std, over trials.")] = "mean",
) -> None:
    """Heat map of the distances (rows: source, columns: target)."""
    from ftd import figure

    figure.matrix(distances, nearest, network=network, statistic=statistic, out=out)


@figure.command("layers")
def figure_layers(
    layers: Annotated[Path, typer.Option(help="Contributions by layer (Parquet).")],
    nearest: Annotated[Path, typer.Option(help="Ranked sources (Parquet).")],
    network: Annotated[str, typer.Option(help="Network of the probes.")],
    out: Out,
) -> None:
    """Contributions to the squared distance by layer."""
    from ftd import figure

    figure.layers(layers, nearest, network=network, out=out)


@figure.command("trace")
def figure_trace(
    searches: Annotated[Path, typer.Argument(help="Folder of one method's searches.")],
    selection: Annotated[Path, typer.Option(help="The selection (JSON): the tasks there are.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the searches.")],
    out: Out,
    tasks: SomeTasks = "null",
) -> None:
    """Losses and candidate weights of searches."""
    from ftd import figure

    names = _tasks(tasks, selection)
    figure.trace([searches / task / str(seed) / "trace.parquet" for task in names], out)


@figure.command("cells")
def figure_cells(
    searches: Annotated[Path, typer.Argument(help="Folder of one method's searches.")],
    selection: Annotated[Path, typer.Option(help="The selection (JSON): the tasks there are.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the searches.")],
    out: Out,
    tasks: SomeTasks = "null",
) -> None:
    """Drawings of the cells that searches found."""
    from ftd import figure

    names = _tasks(tasks, selection)
    figure.cells([searches / task / str(seed) / "genotype.json" for task in names], out)


@figure.command("scatter")
def figure_scatter(comparison: Path, out: Out) -> None:
    """Accuracy against search cost and parameters, with the Pareto front."""
    from ftd import figure

    figure.scatter(comparison, out)


@figure.command("probes")
def figure_probes(
    indexes: Annotated[list[Path], typer.Argument(help="Lists of probes (JSON), one a trial.")],
    out: Out,
) -> None:
    """Page with the accuracy of every probe."""
    from ftd import figure

    figure.probe_table(indexes, out)


@figure.command("nearest")
def figure_nearest(nearest: Path, out: Out) -> None:
    """Page with the ranked sources of every task."""
    from ftd import figure

    figure.nearest_table(nearest, out)


@figure.command("comparison")
def figure_comparison(comparison: Path, out: Out) -> None:
    """Page with all trained networks."""
    from ftd import figure

    figure.comparison_table(comparison, out)


@figure.command("seeds")
def figure_seeds(
    results: Annotated[list[Path], typer.Argument(help="Folders of results, one a seed.")],
    out: Out,
) -> None:
    """Markdown page with the distances of several base seeds (folders of results)."""
    from ftd import figure

    figure.seeds_page(results, out)


bench = typer.Typer(
    help="Measure speed and searches; not part of the workflow.", no_args_is_help=True
)
app.add_typer(bench, name="bench")


@bench.command("fisher")
def bench_fisher(
    out: Out,
    batches: Annotated[int, typer.Option(min=1, help="Batches of each call.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds of all methods.")] = 3,
) -> None:
    """Time the Fisher diagonal against the floor and other ways to it."""
    from ftd.bench import fisher

    table = fisher.run(out, batches=batches, rounds=rounds)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


@bench.command("search")
def bench_search(
    out: Out, rounds: Annotated[int, typer.Option(min=1, help="Rounds to time.")] = 3
) -> None:
    """Seconds per multiply-accumulate of every search method, beside ordinary training."""
    from ftd.bench import search

    table = search.run(out, rounds=rounds)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


@bench.command("scale")
def bench_scale(
    out: Out,
    sizes: Annotated[str, typer.Option(help="JSON: numbers of tasks.")] = "[10, 100, 1000]",
    real: Annotated[
        bool, typer.Option("--real", help="Train and measure; else numbers are made up.")
    ] = False,
    cores: Annotated[int, typer.Option(min=1, help="CPU cores of a real run.")] = 2,
) -> None:
    """The workflow's own cost at many tasks: dry runs, tables, disk; or a real run's split."""
    from ftd.bench import scale

    numbers = _json(sizes, "--sizes", int)
    table = scale.real(out, sizes=numbers, cores=cores) if real else scale.run(out, sizes=numbers)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}", na_rep=""))


@bench.command("tabular")
def bench_tabular(
    table: Annotated[Path, typer.Option(help="Every architecture's results (Parquet).")],
    layout: Annotated[str, typer.Option(help="nas-bench-201 or transnas-micro.")],
    out: Out,
    distances: Annotated[
        Path | None, typer.Option(help="Distances that say which task is near (Parquet).")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=2, help="Random searches of a space.")] = 1000,
    controller_seeds: Annotated[
        int, typer.Option(min=0, help="Searches by ENAS's controller of a target and space.")
    ] = 5,
    page: Annotated[
        Path | None,
        typer.Option(help="Page to write of every bench-tabular-*.parquet beside the output."),
    ] = None,
) -> None:
    """Search a published table in the full space and in near and far tasks' spaces."""
    from ftd.bench import tabular

    found = tabular.run(
        out,
        table=table,
        layout=layout,
        distances=distances,
        repetitions=repetitions,
        controller_seeds=controller_seeds,
        page=page,
    )
    print(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


reproduce = typer.Typer(help="Run the published task sets; write docs/.", no_args_is_help=True)
app.add_typer(reproduce, name="reproduce")
Cores = Annotated[int, typer.Option(min=1, help="Cores for the workflow.")]


MoreConfig = Annotated[
    list[Path] | None,
    typer.Option("--config-file", help="Further configuration, e.g. another loader."),
]
Setting = Annotated[
    list[str] | None, typer.Option("--setting", help="key=value, e.g. data_root=/data.")
]


@reproduce.command("distances")
def reproduce_distances(
    dataset: Annotated[str, typer.Option(help="A file in config/, e.g. mnist or cifar10.")],
    effort: Annotated[str, typer.Option(help="Effort of the configuration.")] = "small",
    seeds: Annotated[str, typer.Option(help="JSON: base seeds.")] = "[0]",
    config_file: MoreConfig = None,
    setting: Setting = None,
    note: Annotated[
        str, typer.Option(help="A sentence for the page, e.g. how these images differ.")
    ] = "",
    cores: Cores = 2,
) -> None:
    """Distances of a published task set beside the published ones."""
    from ftd.reproduce import distances

    distances.distances(
        dataset,
        effort=effort,
        seeds=_json(seeds, "--seeds", int),
        configs=config_file or [],
        settings=setting or [],
        cores=cores,
        note=note,
    )


@reproduce.command("consistency")
def reproduce_consistency(
    dataset: Annotated[str, typer.Option(help="A file in config/: config or cifar10.")] = "config",
    config_file: MoreConfig = None,
    setting: Setting = None,
    cores: Cores = 2,
) -> None:
    """Spread of the distances against training length, samples and averaging."""
    from ftd.reproduce import distances

    distances.consistency(dataset, configs=config_file or [], settings=setting or [], cores=cores)


@reproduce.command("comparison")
def reproduce_comparison(
    dataset: Annotated[str, typer.Option(help="digits, mnist or cifar10.")] = "digits",
    config_file: MoreConfig = None,
    setting: Setting = None,
    cores: Cores = 2,
) -> None:
    """All search methods and ablations on a task, six seeds."""
    from ftd.reproduce import comparison

    comparison.run(dataset, configs=config_file or [], settings=setting or [], cores=cores)


@app.command()
def recommend(
    library: Annotated[Path, typer.Option(help="Folder of a finished experiment.")],
    task: Annotated[Path, typer.Option(help="YAML: one task, in the configuration's form.")],
    data_root: Annotated[
        Path, typer.Option(envvar="FTD_DATA_ROOT", help="Folder of the raw data.")
    ] = Path("data"),
    searching: Annotated[
        bool, typer.Option("--search", help="Search and train an architecture as well.")
    ] = False,
    add: Annotated[bool, typer.Option("--add", help="Keep the task in the library.")] = False,
) -> None:
    """Place one new task among the learned tasks; name the architecture to start from."""
    from ftd import recommend

    done = recommend.run(library, task, data_root=data_root, searching=searching, add=add)
    print(done.text())


@app.command()
def leftovers(
    library: Annotated[Path, typer.Argument(help="An experiment's folder, results/<experiment>.")],
    delete: Annotated[bool, typer.Option("--delete", help="Delete them.")] = False,
) -> None:
    """List the files of tasks, methods and seeds that the experiment names no more."""
    from ftd import leftovers

    found = leftovers.find(library)
    if delete:
        leftovers.delete(library, found)
    print("".join(f"{path}\n" for path in found), end="")
    print(f"{len(found)} files {'deleted' if delete else 'left over; --delete deletes them'}")


@app.command()
def show(
    results: Annotated[Path, typer.Argument(help="An experiment's folder, e.g. results/digits.")],
) -> None:
    """Print the nearest source of each task and where the report lies."""
    from ftd import select

    print(select.summary(results / "nearest.parquet"))
    report = results / "report.html"
    print(f"report: {report.resolve()}" if report.exists() else "report: not made yet")


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="An experiment's folder, e.g. results/digits.")],
) -> None:
    """Check every artifact of a library, and that they belong together; change nothing."""
    from ftd import verify

    report = verify.run(results)
    print(report.text())
    if report.problems:
        sys.exit(1)


def main() -> None:
    """Entry point: user errors end in one message and status 1, never in a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
    except SystemExit as end:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if end.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            print("interrupted: finished artifacts are kept, run again to go on", file=sys.stderr)
        raise


def _stop(number: int, _frame: object) -> None:
    """Unwind, so that nothing half-written stays; again in a second, if an import swallowed it."""
    signal.signal(signal.SIGALRM, lambda *_: _stop(number, None))
    signal.setitimer(signal.ITIMER_REAL, 1)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
