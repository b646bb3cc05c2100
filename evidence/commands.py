"""The verbs, each calling its module's function.

Verbs import what they call when they are called: ``--help`` pays for none of it.
"""

from pathlib import Path
from typing import Annotated

import typer

from evidence import arena_commands
from evidence.shared_options import Cores, MoreConfig, Setting

app = typer.Typer(
    name="python -m evidence",
    help="Measure speed and searches; run the published task sets and write docs/.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(arena_commands.app)

Out = Annotated[Path, typer.Option(help="Output file.")]


# Pages of reference -----------------------------------------------------------------------------


@app.command()
def reference() -> None:
    """Write docs/keys.md, artifacts.md and catalogue.md: what the code says of itself."""
    from evidence import artifact_page, key_page, measure_page
    from ftd import store

    for page in (key_page, artifact_page, measure_page):
        store.write_bytes(page.PAGE, ("\n".join(page.lines()) + "\n").encode())
        print(page.PAGE)


@app.command()
def pages() -> None:
    """Write the pages of evidence anew from the tables that are kept; nothing is measured."""
    from evidence import arena_page, comparison_page, distance_pages, tabular_search

    docs = Path("docs")
    distance_pages.write_distances_page()
    distance_pages.write_consistency_page()
    comparison_page.write_page()
    arena_page.write(sorted(docs.glob("arena-*.parquet")), docs / "arena.md")
    tabular_search.page_of(sorted(docs.glob("bench-tabular-*.parquet")), docs / "tabular.md")


@app.command("overview-picture")
def overview_picture(
    results: Annotated[Path, typer.Argument(help="A finished experiment's folder.")],
    out: Out,
) -> None:
    """Draw the first lines of an experiment's overview.html (needs Chromium): docs/overview.png."""
    from evidence import overview_picture

    overview_picture.draw(results, out)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


# Benchmarks -------------------------------------------------------------------------------------


@app.command("fisher-speed")
def fisher_speed(
    out: Out,
    batches: Annotated[int, typer.Option(min=1, help="Batches of ours; the others get two.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds of all methods.")] = 4,
    network: Annotated[
        list[str] | None, typer.Option(help="Network to measure; again: more. If none: all.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Method beside the floor; again: more. If none: all.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; if not given: OMP_NUM_THREADS, or 1.")
    ] = None,
) -> None:
    """Time the Fisher diagonal against the floor and other ways to it."""
    from evidence import fisher_speed

    table = fisher_speed.run(
        out,
        batches=batches,
        rounds=rounds,
        cases=network or [],
        methods=method or [],
        threads=threads,
    )
    formats = {"ratio": "{:.2f}", "images_per_second": "{:.0f}", "peak_mib": "{:.0f}"}
    formats |= {"error": "{:.0e}"}
    print(table.to_string(index=False, formatters={k: v.format for k, v in formats.items()}))


@app.command("search-speed")
def search_speed(
    out: Out, rounds: Annotated[int, typer.Option(min=1, help="Rounds to time.")] = 3
) -> None:
    """Seconds per multiply-accumulate of every search method, beside ordinary training."""
    from evidence import search_speed

    table = search_speed.run(out, rounds=rounds)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


@app.command("score-repeats")
def score_repeats(
    out: Out,
    genotypes: Annotated[int, typer.Option(min=3, help="Random architectures.")] = 20,
    draws: Annotated[int, typer.Option(min=6, help="Draws of weights and images.")] = 6,
) -> None:
    """Whether TE-NAS' scores rank architectures and operations alike from draw to draw."""
    from evidence import score_repeats

    table = score_repeats.run(out, genotypes=genotypes, draws=draws)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


@app.command()
def scale(
    out: Out,
    size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of tasks; again: more. If none: 10, 100, 1000."),
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Train and measure; else numbers are made up.")
    ] = False,
    cores: Annotated[int, typer.Option(min=1, help="CPU cores of a real run.")] = 2,
) -> None:
    """The workflow's own cost at many tasks: dry runs, tables, disk; or a real run's split."""
    from evidence import scale

    sizes = size or [10, 100, 1000]
    table = scale.real(out, sizes=sizes, cores=cores) if real else scale.run(out, sizes=sizes)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}", na_rep=""))


@app.command("column-speed")
def column_speed(
    out: Out,
    folder: Annotated[Path, typer.Option(help="Where the libraries are made, and kept.")],
    tasks: Annotated[int, typer.Option(min=2, help="Tasks of a library.")] = 101,
    network: Annotated[str, typer.Option(help="Network of the probes.")] = "small-cnn",
    samples: Annotated[
        list[int] | None, typer.Option(min=1, help="Images a Fisher; again: more. If none: 100.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measured columns, after one to warm up.")] = 5,
) -> None:
    """CPU time of a pair of a distance column, by network and samples."""
    from evidence import column_speed

    table = column_speed.run(
        out,
        folder=folder,
        tasks=tasks,
        network=network,
        samples=samples or [100],
        rounds=rounds,
    )
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


@app.command("measure-cost")
def measure_cost(
    out: Out,
    network: Annotated[str, typer.Option(help="Network of the probes.")] = "small-cnn",
    images: Annotated[int, typer.Option(min=10, help="Images of the target.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds, after one to warm up.")] = 3,
    measure: Annotated[
        list[str] | None, typer.Option(help="Measure to time; again: more. If none: all.")
    ] = None,
) -> None:
    """Time measures against a forward and a backward pass of a pair."""
    from evidence import measure_cost

    table = measure_cost.run(out, network=network, images=images, rounds=rounds, measures=measure)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


@app.command()
def tabular(
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
    from evidence import tabular_search

    found = tabular_search.run(
        out,
        table=table,
        layout=layout,
        distances=distances,
        repetitions=repetitions,
        controller_seeds=controller_seeds,
        page=page,
    )
    print(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


# The published task sets ------------------------------------------------------------------------


@app.command()
def distances(
    dataset: Annotated[str, typer.Option(help="A file in config/, e.g. mnist or cifar10.")],
    overlay: Annotated[
        str | None,
        typer.Option(help="What follows <dataset>- in config/overlays/, e.g. paper."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Base seed; again: more. If none: 0.")
    ] = None,
    epochs: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Epochs of the probes, and the released Fisher too; again: more."),
    ] = None,
    config_file: MoreConfig = None,
    setting: Setting = None,
    note: Annotated[
        str, typer.Option(help="A sentence for the page, e.g. how these images differ.")
    ] = "",
    cores: Cores = 2,
) -> None:
    """Distances of a published task set beside the published ones."""
    from evidence import distance_pages

    distance_pages.distances(
        dataset,
        overlay=overlay,
        seeds=seed or [0],
        epochs=epochs or [],
        configs=config_file or [],
        settings=setting or [],
        cores=cores,
        note=note,
    )


@app.command()
def consistency(
    dataset: Annotated[str, typer.Option(help="A file in config/: config or cifar10.")] = "config",
    config_file: MoreConfig = None,
    setting: Setting = None,
    cores: Cores = 2,
) -> None:
    """Spread of the distances against training length, samples and averaging."""
    from evidence import distance_pages

    distance_pages.consistency(
        dataset, configs=config_file or [], settings=setting or [], cores=cores
    )


@app.command()
def comparison(
    dataset: Annotated[str, typer.Option(help="digits, mnist or cifar10.")] = "digits",
    config_file: MoreConfig = None,
    setting: Setting = None,
    cores: Cores = 2,
) -> None:
    """All search methods and ablations on a task, six seeds."""
    from evidence import comparison_page

    comparison_page.run(dataset, configs=config_file or [], settings=setting or [], cores=cores)


@app.command()
def seeds(
    results: Annotated[list[Path], typer.Argument(help="Experiments' folders, one a base seed.")],
    out: Out,
) -> None:
    """Distances of an experiment that was run with several base seeds, as a page."""
    from evidence import seeds_page

    seeds_page.write(results, out)


@app.command()
def taskonomy(
    setting: Setting = None,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Gains of fine-tuning, too: hours.")
    ] = False,
    note: Annotated[str, typer.Option(help="A sentence for the page.")] = "",
    cores: Cores = 2,
) -> None:
    """Ten dense tasks on NYU Depth v2: distances, and gains; writes docs/taskonomy.md."""
    from evidence import dense_tasks

    dense_tasks.run(setting or [], cores, transfer=transfer, note=note)


@app.command("source-choice")
def source_choice(
    out: Out,
    table: Annotated[Path, typer.Option(help="TransNAS-Bench-101, micro level (Parquet).")],
    distances: Annotated[Path, typer.Option(help="distances.parquet of config/transnas.yaml.")],
) -> None:
    """Cells of the source task that distances choose, looked up in a published table."""
    from evidence import source_choice

    print("\n".join(source_choice.run(out, table=table, distances=distances)))


# Which measure tells what a task is worth to another --------------------------------------------


@app.command("keep-transfer")
def keep_transfer(
    results: Annotated[
        list[Path], typer.Option(help="A finished experiment's folder; again: another seed's.")
    ],
    name: Annotated[str, typer.Option(help="What the set of tasks is called, e.g. mnist.")],
) -> None:
    """Keep measures and gains of a set of tasks in docs/transfer/."""
    from evidence import kept_transfer

    for path in kept_transfer.keep(results, name):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


FrozenList = Annotated[
    Path | None, typer.Option(help="Another list of measures. [default: docs/transfer/frozen.yaml]")
]


@app.command("transfer-tables")
def transfer_tables(frozen: FrozenList = None) -> None:
    """Agreement of measures with gains, over all kept sets: docs/transfer/agreement.parquet.

    Of another list than the page's its own table alone, as agreement-first.parquet.
    """
    from evidence import transfer_tables

    given = {"fixed": frozen} if frozen else {}
    print("\n".join(transfer_tables.run(**given)))


@app.command("mean-ranks")
def mean_ranks(
    first: Annotated[int, typer.Option(min=1, help="How many rows of each arm are printed.")] = 12,
    frozen: FrozenList = None,
) -> None:
    """Mean ranks of up to four measures on the sets for choosing, in docs/transfer/."""
    from evidence import mean_ranks

    given = {"fixed": frozen} if frozen else {}
    table = mean_ranks.run(**given).groupby(["arm", "network"]).head(first)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


@app.command("keep-architectures")
def keep_architectures(
    results: Annotated[Path, typer.Option(help="A finished experiment's folder.")],
    name: Annotated[str, typer.Option(help="What the set of tasks is called, e.g. mnist.")],
) -> None:
    """Keep a set's accuracies of all architectures, and its measures, in docs/transfer/."""
    from evidence import kept_architectures

    for path in kept_architectures.keep(results, name):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@app.command("architecture-tables")
def architecture_tables() -> None:
    """What architectures say of measures: docs/transfer/architectures-agreement.parquet."""
    from evidence import architecture_tables

    print("\n".join(architecture_tables.run()))
