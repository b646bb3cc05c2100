"""The verbs of the arenas: on published tables, and with searches that train.

Verbs import what they call when they are called.
"""

from pathlib import Path
from typing import Annotated

import typer

from evidence.shared_options import Cores, MoreConfig, Setting
from ftd.errors import UserError

app = typer.Typer()


@app.command()
def arena(
    out: Annotated[Path, typer.Option(help="Folder for arena-<kind>.parquet.")],
    micro: Annotated[Path | None, typer.Option(help="TransNAS-Bench-101, micro level.")] = None,
    macro: Annotated[Path | None, typer.Option(help="The same, macro level.")] = None,
    nb201: Annotated[Path | None, typer.Option(help="NAS-Bench-201.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Of ways that draw.")] = 100,
    page: Annotated[
        Path | None, typer.Option(help="Page to write of every arena-*.parquet in the folder.")
    ] = None,
) -> None:
    """Learned tasks' architectures on a new task, looked up in published tables (Parquet)."""
    from evidence import arena

    given = {"micro": micro, "macro": macro, "nas-bench-201": nb201}
    tables = {kind: path for kind, path in given.items() if path}
    if not tables:
        raise UserError("no table: give --micro, --macro or --nb201")
    found = arena.run(out, tables=tables, repetitions=repetitions, page=page)
    last = found[found["queries"] == arena.CHOICE]
    means = last.groupby(["way", "nearness", "kind"])["rank"].mean().unstack()
    print(means.to_string(float_format=lambda value: f"{value:.1f}"))


@app.command("arena-gate")
def arena_gate(
    name: Annotated[str, typer.Option("--set", help="A set of docs/arena-b/plan.yaml.")],
    config_file: MoreConfig = None,
    setting: Setting = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Whether DARTS' and TE-NAS' scores repeat, instead.")
    ] = False,
) -> None:
    """Whether a set tells architectures apart; kept in docs/arena-b/."""
    given = {"configs": config_file or [], "settings": setting or []}
    if scores:
        from evidence import arena_b_scores

        table = arena_b_scores.run(name, **given)
        print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
        return
    from evidence import arena_b_gate, arena_b_page

    print("\n".join(arena_b_page.gate_lines(name, arena_b_gate.run(name, **given))))


@app.command("arena-seed")
def arena_seed(
    name: Annotated[str, typer.Option("--set", help="A set of docs/arena-b/plan.yaml.")],
    seed: Annotated[int, typer.Option(min=0, help="One of the plan's base seeds.")],
    config_file: MoreConfig = None,
    setting: Setting = None,
    cores: Cores = 2,
) -> None:
    """Search and train a set's new task by all methods at both budgets; keep what is finished."""
    from evidence import arena_b

    arena_b.run(name, seed, configs=config_file or [], settings=setting or [], cores=cores)


@app.command("keep-arena")
def keep_arena(
    results: Annotated[
        list[Path], typer.Option(help="A folder of arena-seed, finished or not; again: more.")
    ],
) -> None:
    """Keep the finished cells of seeds' experiments in docs/arena-b/rows.parquet."""
    from evidence import arena_b

    print(f"{arena_b.keep(results)} rows")


@app.command("arena-page")
def arena_page() -> None:
    """Write docs/arena-b.md from its plan, gates and rows."""
    from evidence import arena_b_page

    arena_b_page.write()
