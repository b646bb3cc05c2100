"""Stage *figure*: heat maps, traces and tables of an experiment."""

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "ftd"  # equal figures are equal files
matplotlib.rcParams["svg.fonttype"] = "none"

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from ftd import artifacts, compare, distance, select  # noqa: E402
from ftd.errors import UserError  # noqa: E402

_SOURCES_SHOWN = 5
_RANKS_LISTED = 20
_CELLS_WITH_VALUES = 30  # tasks: a larger heat map has colours only, and names here and there
STATISTICS = {"mean": "mean", "std": "standard deviation"}


def matrix(distances: Path, nearest: Path, *, network: str, statistic: str, out: Path) -> None:
    """Heat map of the squared distances over trials, rows: source, columns: target.

    In the style of Le et al. 2022, figures 1 to 4, with the value in every cell (of few tasks).

    Raises:
        UserError: unreadable tables, an unknown network or statistic.
    """
    if statistic not in STATISTICS:
        raise UserError(f"unknown statistic {statistic!r}; known: {', '.join(STATISTICS)}")
    order = _order(nearest)
    table = _of_network(distances, network, "squared_distance")
    if strange := set(order) - set(table["target"]):
        raise UserError(f"{distances}: no distances to {min(strange)}, a task of {nearest}")
    values = dict(zip(("mean", "std"), matrices(table, order), strict=True))[statistic].to_numpy()

    trials = table["trial"].nunique()
    shown = min(len(order), _CELLS_WITH_VALUES)
    side = 1.6 + 0.75 * shown
    figure, axes = plt.subplots(figsize=(side + 1.2, side))
    top = values.max() or 1.0
    picture = axes.imshow(values, cmap="Blues", vmin=0, vmax=top)
    for (row, column), value in np.ndenumerate(values if shown == len(order) else np.empty(0)):
        colour = "white" if value > 0.6 * top else "black"
        axes.text(
            column,
            row,
            f"{value:.2f}" if statistic == "mean" else f"{value:.3f}",
            ha="center",
            va="center",
            color=colour,
        )
    step = -(-len(order) // shown)
    axes.set_xticks(range(0, len(order), step), order[::step], rotation=30, ha="right")
    axes.set_yticks(range(0, len(order), step), order[::step])
    axes.set_xlabel("target task")
    axes.set_ylabel("source task")
    axes.set_title(f"Squared distance, {STATISTICS[statistic]}\n{network}, {trials} trial(s)")
    figure.colorbar(picture, ax=axes, shrink=0.8)
    _save(figure, out)


def matrices(distances: pd.DataFrame, order: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (ddof 1; 0 for one trial) of one network's squared distances.

    Both have ``order`` as rows (source) and columns (target).
    """
    groups = distances.groupby(["source", "target"])["squared_distance"]
    mean, std = groups.mean().unstack(), groups.std().fillna(0.0).unstack()
    return mean.loc[order, order], std.loc[order, order]


def markdown_table(order: list[str], cell: Callable[[str, str], str]) -> list[str]:
    """Lines of a Markdown table, rows: source, columns: target, of ``cell(source, target)``."""
    lines = ["| | " + " | ".join(order) + " |", "|---|" + "---|" * len(order)]
    for source in order:
        cells = [cell(source, target) for target in order]
        lines.append(f"| {source} | " + " | ".join(cells) + " |")
    return lines


def markdown_matrix(mean: pd.DataFrame, std: pd.DataFrame, nearest: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table, mean ± std, with each target's nearest source below."""
    order = list(mean.columns)
    best = nearest[nearest["rank"] == 1].set_index("target")
    lines = markdown_table(order, lambda s, t: f"{mean.loc[s, t]:.4f} ± {std.loc[s, t]:.4f}")
    chosen = [f"{best.loc[t, 'source']} ({best.loc[t, 'agreement']:.0%} of trials)" for t in order]
    return [*lines, "| **nearest source** | " + " | ".join(chosen) + " |", ""]


def _order(nearest: Path) -> list[str]:
    """Task names as they arrive."""
    return artifacts.table_facts(artifacts.read_table(nearest, select.COLUMNS))["order"]


def _of_network(path: Path, network: str, *values: str) -> pd.DataFrame:
    """One network's rows of a table of pairs with the columns ``values``."""
    columns = ["network", "trial", "source", "target", *values]
    table = artifacts.read_table(path, columns).to_pandas()
    table = table[table["network"] == network]
    if table.empty:
        raise UserError(f"{path}: no distances of network {network!r}")
    return table


def layers(contributions: Path, nearest: Path, *, network: str, out: Path) -> None:
    """Contributions to the squared distance by layer, a panel a target, its nearest sources.

    Raises:
        UserError: unreadable tables, or no contributions of this network.
    """
    table = _of_network(contributions, network, "layer", "contribution")
    ranks = artifacts.read_table(nearest, select.COLUMNS).to_pandas()
    ranks = ranks[(ranks["network"] == network) & (ranks["rank"] <= _SOURCES_SHOWN)]
    names = list(dict.fromkeys(table["layer"]))
    mean = table.groupby(["target", "source", "layer"])["contribution"].mean()
    order = _order(nearest)
    figure, panels = plt.subplots(
        len(order),
        1,
        figsize=(3 + 0.25 * len(names), 1.8 * len(order)),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for target, axes in zip(order, panels[:, 0], strict=True):
        for source in ranks[ranks["target"] == target]["source"]:
            axes.plot(range(len(names)), mean[target, source][names], ".-", lw=0.8, label=source)
        axes.set_title(f"to {target}", loc="left")
        axes.set_ylim(0)
        axes.legend(fontsize="small", title="from", loc="center left", bbox_to_anchor=(1, 0.5))
    panels[-1, 0].set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    figure.supylabel("share of the squared distance")
    _save(figure, out)


def trace(traces: list[Path], out: Path) -> None:
    """Losses of searches, and what they choose by, one row of panels a search.

    At right: FUSE's candidate weights softmax(α), TE-NAS' condition numbers, or the accuracy on
    ``val`` of what other methods measure.

    Raises:
        UserError: unreadable traces.
    """
    figure, panels = plt.subplots(
        len(traces), 2, figsize=(9, 2.4 * len(traces)), squeeze=False, layout="constrained"
    )
    for (losses, chosen), path in zip(panels, traces, strict=True):
        table = artifacts.read_table(path)
        artifacts.expect_stage(path, artifacts.table_facts(table), "search")
        rows = table.to_pandas()
        with_loss = rows[rows["loss"].notna()]
        for number, (phase, part) in enumerate(with_loss.groupby("phase", sort=False)):
            losses.plot(part["step"], part["loss"], ".-", ms=3, lw=0.8, c=f"C{number}", label=phase)
        if "val_loss" in rows:
            losses.plot(rows["step"], rows["val_loss"], ".-", ms=3, lw=0.8, c="C1", label="val")
        losses.set_title(artifacts.table_facts(table)["task"], loc="left")
        losses.set_ylabel("loss")
        if losses.lines:
            losses.legend(fontsize="small")
        if "alpha" in rows:
            _candidate_weights(chosen, rows)
        elif "kappa" in rows:
            chosen.plot(rows["step"], rows["kappa"], ".-", ms=3)
            chosen.set_ylabel("κ of the supernet")
        else:
            chosen.plot(rows["step"], rows["score"], ".", ms=3)
            chosen.set_ylabel("accuracy on val")
            chosen.set_ylim(0, 1)
    for axes in panels[-1]:
        axes.set_xlabel("search step")
    _save(figure, out)


def _candidate_weights(axes: plt.Axes, rows: pd.DataFrame) -> None:
    for _, generation in rows.groupby("generation"):
        for candidate, values in enumerate(np.stack(generation["alpha"]).T):
            axes.plot(generation["step"], values, lw=1, color=f"C{candidate}")
        axes.axvline(generation["step"].iloc[0] - 0.5, color="0.8", lw=0.8)
    axes.set_ylabel("softmax(α)")
    axes.set_ylim(0, 1)


def cells(genotypes: list[Path], out: Path) -> None:
    """Drawings of found cells, a row for each architecture, a column for each kind of cell.

    Raises:
        UserError: unreadable genotypes, or a hand-designed network, which has no cells.
    """
    found = [artifacts.read_json(path) for path in genotypes]
    for path, facts in zip(genotypes, found, strict=True):
        if not facts.get("genotype"):
            raise UserError(f"{path}: no cells to draw")
    figure, panels = plt.subplots(
        len(found), 2, figsize=(11, 3.2 * len(found)), squeeze=False, layout="constrained"
    )
    for row, facts in zip(panels, found, strict=True):
        genotype = facts["genotype"]
        for axes, kind in zip(row, ("normal", "reduction"), strict=True):
            axes.axis("off")
            axes.set_title(f"{facts['task']}, {facts['method']}: {kind} cell", loc="left")
            _cell(axes, genotype[kind], genotype["skeleton"]["feeds"])
    _save(figure, out)


def _cell(axes: plt.Axes, cell: list, feeds: int) -> None:
    """States from left to right; an arc for every operation but ``none``."""
    names = [f"in {number}" for number in range(feeds)] + [str(n) for n in range(len(cell))]
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-1.2, 1.2)
    for position, name in enumerate(names):
        axes.text(
            position, 0, name, ha="center", va="center", bbox={"boxstyle": "round", "fc": "w"}
        )
    for node, edges in enumerate(cell):
        for side, (operation, source) in enumerate(edges):
            if operation == "none":
                continue
            end, up = feeds + node, 1 if (node + side) % 2 else -1
            style = {
                "arrowstyle": "->",
                "connectionstyle": f"arc3,rad={-0.45 * up}",
                "color": "0.5",
            }
            ends = {"shrinkA": 14, "shrinkB": 14}
            axes.annotate("", (end, 0), (source, 0), arrowprops=style | ends)
            height = up * 0.24 * (end - source)
            label = axes.text((source + end) / 2, height, operation, ha="center", size=7)
            label.set(va="center", bbox={"fc": "w", "ec": "none", "pad": 1})


def scatter(comparison: Path, out: Path) -> None:
    """Mean accuracy against search cost and parameters, a row of panels a task.

    The line is the Pareto front: no other method is at least as accurate at no more cost.

    Raises:
        UserError: unreadable table.
    """
    table = artifacts.read_table(comparison, list(compare.COLUMNS)).to_pandas()
    means = table.groupby(["task", "method"], as_index=False)[
        ["accuracy", "search_macs", "parameters"]
    ].mean()
    tasks = list(means["task"].unique())
    figure, panels = plt.subplots(
        len(tasks), 2, figsize=(10, 3.4 * len(tasks)), squeeze=False, layout="constrained"
    )
    costs = {"search_macs": "multiply-accumulates of the search", "parameters": "parameters"}
    for row, task in zip(panels, tasks, strict=True):
        rows = means[means["task"] == task]
        for axes, (cost, label) in zip(row, costs.items(), strict=True):
            shown = rows[rows[cost] > 0]  # hand-designed networks are not searched
            front = shown[pareto(shown[cost].to_numpy(), shown["accuracy"].to_numpy())]
            front = front.sort_values(cost)
            axes.step(front[cost], front["accuracy"], where="post", color="0.7", lw=1)
            for number, point in enumerate(shown.itertuples()):
                x, y = getattr(point, cost), point.accuracy
                axes.plot(x, y, "o", ms=4, color=f"C{number % 10}")
                axes.annotate(point.method, (x, y), (3, 3), textcoords="offset points", size=7)
            axes.set_xscale("log")
            axes.set_title(task, loc="left")
            axes.set_xlabel(label)
            axes.set_ylabel("test accuracy")
    _save(figure, out)


def pareto(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mask [N] of the points that no other one beats: none has less cost or more value for it."""
    cheaper, better = cost[:, None] <= cost, value[:, None] >= value
    strictly = (cost[:, None] < cost) | (value[:, None] > value)
    return ~(cheaper & better & strictly).any(0)


def _save(figure: plt.Figure, out: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    artifacts.write_bytes(out, buffer.getvalue())


def nearest_table(nearest: Path, out: Path) -> None:
    """``nearest.parquet`` as a page, each target's first sources."""
    table = artifacts.read_table(nearest, select.COLUMNS).to_pandas()
    _page(table[table["rank"] <= _RANKS_LISTED], out)


def comparison_table(comparison: Path, out: Path) -> None:
    """``comparison.parquet`` as a page, a row for each task and method (as Le et al. 2022, IV)."""
    table = artifacts.read_table(comparison, list(compare.COLUMNS)).to_pandas()
    _page(summary(table), out)


def summary(comparison: pd.DataFrame) -> pd.DataFrame:
    """Accuracy mean ± standard deviation over seeds (%), parameters, search cost, by method."""
    rows = []
    for (task, method), group in comparison.groupby(["task", "method"], sort=False):
        accuracy = 100 * group["accuracy"]
        rows.append(
            {
                "task": task,
                "method": method,
                "seeds": len(group),
                "accuracy %": f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}"
                if len(group) > 1
                else f"{accuracy.mean():.2f}",
                "parameters": round(group["parameters"].mean()),
                "search MACs": group["search_macs"].mean(),
                "search seconds": group["search_seconds"].mean(),
                "space (log10)": group["space_log10"].mean(),
            }
        )
    return pd.DataFrame(rows)


def probe_table(indexes: list[Path], out: Path) -> None:
    """The facts of all probes of all indexes as a page, those that missed 1 − ε first."""
    columns = ["network", "trial", "task", "val_accuracy", "reached", "epochs", "seconds", "seed"]
    rows = [facts for index in indexes for facts in _probe_facts(index)]
    table = pd.DataFrame(rows)[columns]
    _page(table.sort_values(["reached", "network", "trial", "task"]), out)


def _probe_facts(index: Path) -> list[dict]:
    """The facts of every probe that an index lists."""
    return [
        artifacts.read_json((index.parent / entry["path"]).with_suffix(".json"))
        for entry in distance.read_index(index).values()
    ]


def seeds_page(results: list[Path], out: Path) -> None:
    """Distances of one experiment run with several base seeds, as a Markdown page.

    Raises:
        UserError: a folder without finished distances.
    """
    text = ["# Distances by base seed", ""]
    for folder in results:
        nearest = artifacts.read_table(folder / "nearest.parquet")
        facts = artifacts.table_facts(nearest)
        distances = artifacts.read_table(folder / "distances.parquet").to_pandas()
        for network in facts["networks"]:
            text += _seed_section(folder, network, facts["order"], distances, nearest.to_pandas())
    artifacts.write_bytes(out, ("\n".join(text) + "\n").encode())


def _seed_section(
    folder: Path, network: str, order: list[str], distances: pd.DataFrame, nearest: pd.DataFrame
) -> list[str]:
    distances = distances[distances["network"] == network]
    trials = sorted(distances["trial"].unique())
    probes = [
        facts for t in trials for facts in _probe_facts(folder / "index" / network / f"{t}.json")
    ]
    first = probes[0]
    mean, std = matrices(distances, order)
    settings = ", ".join(f"{key} {value}" for key, value in first["settings"].items())
    lines = [
        f"## Base seed {first['seed']}, {network}",
        "",
        f"{len(trials)} trials; probes: {settings}; mean `val` accuracy by task: "
        + ", ".join(
            f"{task} {np.mean([p['val_accuracy'] for p in probes if p['task'] == task]):.3f}"
            for task in order
        )
        + f". torch {first['packages']['torch']}.",
        "",
        "Squared distance, mean ± standard deviation over trials (rows: source, columns: target):",
        "",
        *markdown_matrix(mean, std, nearest[nearest["network"] == network]),
    ]
    return lines


_STYLE = """
body { font: 14px sans-serif; margin: 1.5em; }
table { border-collapse: collapse; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; }
"""


def _page(table: pd.DataFrame, out: Path) -> None:
    body = table.to_html(index=False, border=0, float_format=lambda value: f"{value:.4g}")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{out.stem}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    artifacts.write_bytes(out, page.encode())
