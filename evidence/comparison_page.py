"""The search methods side by side, and whether the bars of the restricted search are met.

The tables that ``snakemake compare`` made are kept under ``docs/comparison/``; the page is
written from them.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from evidence import kept, running
from ftd import config, store
from ftd.config import HAND_DESIGNED, LIBRARY, method_of
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.models import networks
from ftd.models.macs import BACKWARD, forward_macs
from ftd.parts import SEARCHERS
from ftd.stages.experiment import Experiment
from ftd.tasks.slices import Slice, read_slice

TABLES = Path("docs/comparison")
PAGE = Path("docs/comparison.md")
FILES = {
    "digits": ["config", "overlays/compare"],
    "mnist": ["mnist", "overlays/compare", "overlays/mnist-compare"],
    "cifar10": ["cifar10", "overlays/compare", "overlays/cifar10-compare"],
}
"""By data set: its files in ``config/``, each over those before it."""
SEEN = 3
"""Seeds below this one had been read on ``test`` before FUSE was last changed."""
_ASKED = """\
# Do learned tasks help a search that trains its networks?

**What was asked.** The paper restricts the search on a new task to what the nearest learned
task's architecture suggests. Is that as accurate as a search of the full space, cheaper than
DARTS, and are the networks as small? Does it matter that the learned task is the *nearest* one?
"""
_HOW = """\
**Settings.** `python -m evidence comparison --dataset digits` (or `mnist`, `cifar10`) makes the
tables and this page. The task is the third to arrive, with two learned before it. Accuracy is on
`test`, mean ± standard deviation over seeds; parameters are those of the trained networks;
multiply-accumulates (MACs) and seconds are of a search, as evaluated: forward 1, backward 2, or 1
where α's gradient alone is asked for. A table's own settings stand around it. `ftd-nas` and its
variants are, in these tables, FUSE in the neighbourhood of a learned task's architecture, which
is `fuse-nearest` now; it took the smallest of the candidates that scored alike.

**Limits.** All searches are short, and with two learned tasks the nearest and the farthest are
the two that there are. What learned tasks cost before is not counted, nor in the tables what it
takes to find the nearest one: the new task's probes and distances, named below each table, cost
more than the search. How much FUSE spends follows from its number of generations, which was set
for its cost; of all methods it alone chooses its winner by size too, among candidates that score
alike. All runs were on CPUs, two searches at once and some beside other work, so the seconds are
rough.

**How the tables came about.** Seeds 0 to 2 had been read on `test` before: digits twice, MNIST and
CIFAR-10 once, with a FUSE whose α was trained on logits in running statistics and that took the
candidate with the largest α, or a smaller one of nearly equal α. That one met accuracy and size on
CIFAR-10, and neither on digits and MNIST. FUSE was then changed and its settings chosen anew, on
`val` of another cut of the data (base seed 7), and the same seeds were run again: accuracy met on
digits and MNIST, not on CIFAR-10, size on CIFAR-10 alone. Three seeds say little, so three more
were run with nothing changed in between; what they say alone stands below each table.
"""
_ANSWER = {
    LIBRARY: "nearest task's",
    f"{LIBRARY}-farthest": "farthest task's",
    f"{LIBRARY}-random": "a random task's",
    "fuse-full": "the full space",
}
"""The methods of the first table, and whose space each searches."""
SECTIONS = ("sequential", "fuse", "fuse_paper", "random", "evolution", "darts", "pc_darts")
SECTIONS += ("enas", "te_nas", "zero_cost")
METHODS = sorted(SEARCHERS.names(), key=lambda name: SECTIONS.index(SEARCHERS.get(name).section))
"""The methods in the order of the page."""
BASELINES = [name for name in METHODS if SEARCHERS.get(name).source is None]
SUPERNETS = [name for name in BASELINES if SEARCHERS.get(name).section in ("darts", "pc_darts")]


def run(dataset: str, *, configs: list[Path], settings: list[str], cores: int) -> None:
    """Run ``snakemake compare`` for a key of `FILES`; keep its table; write the page.

    Args:
        configs: further configuration files, e.g. with another loader.
        settings: ``key=value`` for Snakemake's ``--config``, e.g. ``data_root=…``.

    Raises:
        UserError: an unknown data set, another folder, or a workflow that failed.
    """
    if dataset not in FILES:
        raise UserError(f"no comparison of {dataset!r}; known: {', '.join(FILES)}")
    name = f"{dataset}-compare"
    files = [Path("config") / f"{file}.yaml" for file in FILES[dataset]]
    running.run(["compare"], [*files, *configs], [*settings, f"experiment={name}"], cores)
    _keep(Path("results") / name, dataset)
    write_page()


def _keep(results: Path, dataset: str) -> None:
    """Copy the table, with the settings of searches and trainings and the sizes of the parts."""
    experiment = Experiment.of(config.parse(config.recorded(results)), results)
    table = store.read_table(experiment.input(LAYOUT.comparison))
    row = table.select(["method", "task", "seed"]).to_pylist()[0]
    trained = store.read_json(experiment.input(LAYOUT.metrics, **row))
    searched = {
        method_of(method).section: store.read_json(
            experiment.input(LAYOUT.genotype, **row | {"method": method})
        )["settings"]
        for method in sorted(set(table["method"].to_pylist()))
        if method_of(method) is not HAND_DESIGNED
    }
    task = read_slice(experiment.input(LAYOUT.slice, **row))
    parts = {str(part): int((task.part == part).sum()) for part in sorted(set(task.part))}
    facts = {
        "search": searched,
        "train": trained["settings"],
        "packages": trained["packages"],
        "parts": parts,
        "preparation_macs": preparation_macs(experiment, task),
    }
    store.write_table(TABLES / f"{dataset}.parquet", table, facts)


def preparation_macs(experiment: Experiment, task: Slice) -> int:
    """What finding the nearest task costs: probes, and all tasks' Fisher diagonals on the new."""
    counts = {part: int((task.part == part).sum()) for part in ("train", "fisher")}
    samples = min(experiment.config.fisher.samples or counts["fisher"], counts["fisher"])
    known, total = experiment.known(), 0
    for network in known["network"]:
        model = networks.build(network, image_shape=task.image_shape, target=task.target, seed=0)
        names = {"network": network, "task": task.name}
        facts = [
            store.read_json(experiment.input(LAYOUT.probe_facts, trial=trial, **names))
            for trial in known["trial"]
        ]
        images = sum(f["epochs"] * counts["train"] + len(known["task"]) * samples for f in facts)
        total += images * (1 + BACKWARD) * forward_macs(model, task.image_shape)
    return total


def write_page() -> None:
    """``docs/comparison.md`` from the tables that are kept."""
    paths = {dataset: TABLES / f"{dataset}.parquet" for dataset in FILES}
    tables = {name: store.read_table(path) for name, path in paths.items() if path.exists()}
    before = any(_MOST_FREQUENT not in table.column_names for table in tables.values())
    text = [*_ASKED.splitlines(), "", *_answer(tables), "", *_HOW.splitlines(), ""]
    text += kept.unbalanced(before)
    for dataset, table in tables.items():
        text += _section(dataset, table)
    store.write_bytes(PAGE, "\n".join(text).encode())


_MOST_FREQUENT = "most_frequent"


def _answer(tables: dict[str, pa.Table]) -> list[str]:
    """In how many data sets each bar is met, and accuracy by whose space was searched."""
    met, rows, leads = [], [], []
    for dataset, table in tables.items():
        facts, found = store.table_facts(table), table.to_pandas()
        met.append([own for _, own in bars(found, facts["preparation_macs"])])
        own = [found[found["method"] == method]["accuracy"] for method in _ANSWER]
        cells = ["" if each.empty else f"{each.mean():.3f} ± {each.std():.3f}" for each in own]
        leads += [] if own[1].empty else [f"{own[0].mean() - own[1].mean():z.4f}"]
        said = ", ".join("yes" if each else "**no**" for each in met[-1])
        rows.append(f"| {dataset} | {' | '.join(cells)} | {_constant(table):.3f} | {said} |")
    accurate, cheap, small = (sum(each) for each in zip(*met, strict=True))
    return [
        "**The answer.** As accurate as the best of the full space, less its standard deviation, "
        f"on {accurate} of {len(met)} data sets; at half of first-order DARTS' cost or less on "
        f"{cheap}; as small as the networks of DARTS and PC-DARTS on {small}. But whose space it "
        "is hardly matters: the nearest task's leads the farthest's by "
        f"{', '.join(leads) or 'nothing known'}.",
        "",
        f"| FUSE in the space of | {' | '.join(_ANSWER.values())} | most frequent label "
        "| met: accuracy, cost, size |",
        "|---" * (len(_ANSWER) + 3) + "|",
        *rows,
    ]


def _constant(table: pa.Table) -> float:
    """Accuracy of always saying the most frequent label; earlier tables have it as a fact."""
    if _MOST_FREQUENT in table.column_names:
        return table[_MOST_FREQUENT][0].as_py()
    return store.table_facts(table)["largest_label"]


def _section(dataset: str, table: pa.Table) -> list[str]:
    facts, rows = store.table_facts(table), table.to_pandas()
    tasks = ", ".join(sorted(set(rows["task"])))
    common = next(iter(facts["search"].values()))  # what all methods share
    space, new = common["space"], rows[rows["seed"] >= SEEN]
    return [
        f"## {dataset}: {tasks}",
        "",
        f"{rows['seed'].nunique()} seeds. Searches: {_images(common)} of `train` and of "
        f"`val`; {space['cells'][0]} cells of {space['nodes'][0]} nodes, {space['channels'][0]} "
        f"channels. Final training: {_images(facts['train'])} of `train`, "
        f"{facts['train']['epochs']} epochs. Parts: "
        f"{', '.join(f'{n} {size}' for n, size in facts['parts'].items())}. Always saying the most "
        f"frequent label is right for {_constant(table):.3f} of `test`. torch "
        f"{facts['packages']['torch']}.",
        "",
        "| method | accuracy | parameters | search GMACs | search seconds | log10 of the space |",
        "|---|---|---|---|---|---|",
        *(_row(method, rows[rows["method"] == method]) for method in _order(rows)),
        "",
        *(f"- {line}" for line, _ in bars(rows, facts["preparation_macs"])),
        "",
        *_of_new_seeds(new, facts["preparation_macs"]),
        "Settings of the methods:",
        "",
        *(f"- {line}" for line in _own_settings(facts["search"])),
        "",
    ]


def _of_new_seeds(rows: pd.DataFrame, preparation_macs: int) -> list[str]:
    """The bars by the seeds that no earlier run used."""
    if rows.empty:
        return []
    seeds = ", ".join(map(str, sorted(set(rows["seed"]))))
    lines = [f"- {line}" for line, _ in bars(rows, preparation_macs)]
    return [f"Seeds {seeds} alone:", "", *lines, ""]


def _own_settings(settings: dict[str, dict]) -> list[str]:
    """The settings of each method's own section."""
    return [
        f"`search.{section}`: "
        + ", ".join(f"{key} {value}" for key, value in sorted(own[section].items()))
        for section, own in sorted(settings.items())
        if own.get(section)
    ]


def _images(settings: dict) -> str:
    return f"at most {settings['samples']} images" if settings["samples"] else "all images"


def _order(rows: pd.DataFrame) -> list[str]:
    """Methods in the order of `METHODS`, hand-designed networks last."""
    known = [name for name in METHODS if name in set(rows["method"])]
    return known + sorted(set(rows["method"]) - set(known))


def _row(method: str, rows: pd.DataFrame) -> str:
    return (
        f"| {method} | {rows['accuracy'].mean():.4f} ± {rows['accuracy'].std():.4f} "
        f"| {rows['parameters'].mean():,.0f} | {rows['search_macs'].mean() / 1e9:.1f} "
        f"| {rows['search_seconds'].mean():.0f} | {rows['space_log10'].mean():.1f} |"
    )


def bars(rows: pd.DataFrame, preparation_macs: int) -> list[tuple[str, bool]]:
    """What ``ftd-nas`` should reach, each with its numbers, and whether it does.

    Accuracy: the best full-space method's mean less its standard deviation (of equally good ones
    the smallest). Cost: half of first-order DARTS' multiply-accumulates. Size: the median of the
    parameters of all DARTS and PC-DARTS results, and a tenth more.
    """
    mean = rows.groupby("method")[["accuracy", "search_macs", "parameters"]].mean()
    spread = rows.groupby("method")["accuracy"].std()
    others = mean.index[mean.index.isin(BASELINES)]
    best = max(others, key=lambda name: (round(mean.loc[name, "accuracy"], 9), -spread[name]))
    wanted = mean.loc[best, "accuracy"] - spread[best]
    ours = mean.loc[LIBRARY]
    cost = ours["search_macs"] / mean.loc["darts-1st", "search_macs"]
    limit = 1.1 * rows[rows["method"].isin(SUPERNETS)]["parameters"].median()
    accurate, cheap, small = ours["accuracy"] >= wanted, cost <= 0.5, ours["parameters"] <= limit
    return [
        (
            f"Accuracy of {LIBRARY} {ours['accuracy']:.4f}; best of the full space: {best} "
            f"{mean.loc[best, 'accuracy']:.4f} ± {spread[best]:.4f}, so at least {wanted:.4f}: "
            f"{_said(accurate)}.",
            accurate,
        ),
        (
            f"Cost: {cost:.2f} of darts-1st's MACs, at most 0.50: {_said(cheap)}. The new task's "
            f"probes and distances took {preparation_macs / 1e9:.1f} GMACs more, with which it is "
            f"{cost * (1 + preparation_macs / ours['search_macs']):.2f}.",
            cheap,
        ),
        (
            f"Parameters: {ours['parameters']:,.0f}, at most {limit:,.0f} (the median of DARTS and "
            f"PC-DARTS and a tenth): {_said(small)}.",
            small,
        ),
    ]


def _said(met: bool) -> str:
    return "**met**" if met else "**missed**"
