"""Tables as pages of HTML, and as lines of Markdown."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ftd.drawing.findings import large, seconds, with_spread
from ftd.drawing.thumbnails import Samples
from ftd.drawing.webpage import Column, Table, page, shown, spread
from ftd.measures.ranking import side_by_side
from ftd.names import counted, listed
from ftd.transfer.trust import RANDOM, Trust, number, percent

_RANKS_LISTED = 20
_OF_PROBES = (
    *("network", "trial", "task", "val_accuracy", "val_most_frequent", "reached", "epochs"),
    *("seconds", "seed"),
)
_IN_OTHER_TERMS = ("metric", "val_metric", "val_metric_constant")
"""Of probes whose score has a name of its own: those of targets other than classes."""
_HEADS = {
    "val_accuracy": "score on val",
    "val_most_frequent": "constant answer",
    "reached": "reached 1 − ε",
    "val_metric": "metric: probe",
    "val_metric_constant": "metric: constant",
}
"""How columns are called on pages; in data they keep the names of facts."""
_NOTHING = "NO BETTER THAN A CONSTANT ANSWER"


def datasets(
    facts: Sequence[dict],
    out: Path,
    *,
    counts: pd.DataFrame | None = None,
    samples: Sequence[Samples] = (),
) -> None:
    """The facts of cuts as a page: what was read of each data set, and what was left out.

    Args:
        counts: images of every ``task`` and ``label``, by part, a column each.
        samples: images of tasks.
    """
    rows = []
    for about in facts:
        left_out = {split: found["left out"] for split, found in about["read"].items()}
        rows.append(
            {
                "data set": about["dataset"],
                "images read": listed({s: found["images"] for s, found in about["read"].items()}),
                "left out": "; ".join(f"{s}: {listed(n)}" for s, n in left_out.items() if n)
                or "none",
                "changed": listed(about["noted"]) or "none",
                "equal images": listed(about["equal images"]) or "none",
            }
        )
    note = (
        "Images by official split; files that were left out, by reason; images that were changed "
        "to be read, and how; images that are equal in two parts or classes."
    )
    tables = [_table("Data sets", pd.DataFrame(rows), note)]
    data = {"datasets": pd.DataFrame(rows)}
    if counts is not None:
        note = "Images of every label, by part; test is used for nothing but final accuracies."
        tables.append(_table("Tasks", counts, note))
        data["tasks"] = counts
    lead = "What networks see: images by data set, task and label."
    page(out, "Data", lead, tables, pictures=samples, data=data)


def nearest(table: pd.DataFrame, known: Mapping[str, Trust], out: Path) -> None:
    """Each target's first sources as a page, from a table with ``measure`` and ``rank``.

    Of several measures, the nearest source by each stands side by side first. How far each is to
    be trusted, where that is ``known`` of any, is a table before the ranks.
    """
    ranks, measures = table[table["rank"] <= _RANKS_LISTED], list(dict.fromkeys(table["measure"]))
    tables = []
    if len(measures) > 1:
        note = "The task that each measure says is nearest to the target."
        tables.append(_table("Nearest by each measure", side_by_side(table), note))
    if set(measures) & set(known):
        tables.append(_trusted(measures, known))
    note = (
        f"The first {_RANKS_LISTED} sources of each target, by the measure's mean over trials ± "
        "standard deviation; agreement: the share of trials in which the source ranks first; "
        "learned: it arrived before the target."
    )
    tables.append(_table("Ranks", ranks, note, {"agreement": lambda share: f"{share:.0%}"}))
    lead = "Which task is nearest to each, and how sure that is."
    page(out, "Nearest tasks", lead, tables, data={"nearest": ranks})


def _trusted(measures: list[str], known: Mapping[str, Trust]) -> Table:
    """A row for each measure, and a random choice; empty cells where nothing was measured."""
    names = [*measures, RANDOM]
    own = [known.get(name) for name in names]

    def interval(key: str, text: Callable) -> dict:
        found = [each and getattr(each, key) for each in own]
        empty = "not measured" if key == "top1" else ""
        return {
            "values": [each and each[0] for each in found],
            "texts": [text(each) if each else empty for each in found],
        }

    sets = [each and f"{each.sets}{' (chosen on)' * each.chosen}" for each in own]
    columns = [
        Column("measure", names),
        Column("best source named", **interval("top1", percent)),
        Column("Spearman", **interval("spearman", lambda each: number(each, 2))),
        Column("regret, points", **interval("regret", lambda each: number(each, 1))),
        Column("task sets", sets),
    ]
    note = (
        "On the project's own task sets, with 95 % intervals: of how many targets a measure named "
        "the truly best source, its rank correlation with what sources were worth, and what its "
        "choice gained less than the best."
    )
    return Table("How far to trust a measure", columns, note)


def comparison(table: pd.DataFrame, out: Path) -> None:
    """A page with a row for each task and method (as Le et al. 2022, IV); see ``summary``."""
    found, seeds = summary(table), table["seed"].nunique()
    texts = {"search MACs": large, "MACs": large, "search time": seconds}
    columns = [
        Column(name, *_cells(found[name], texts.get(name)))
        for name in found
        if not name.startswith(("accuracy", "most frequent"))
    ]
    means = table.groupby(["task", "method"], sort=False)[["accuracy", "most_frequent"]].mean()
    columns[3:3] = [
        Column("accuracy %", means["accuracy"].tolist(), found["accuracy %"].tolist()),
        Column("most frequent %", means["most_frequent"].tolist(), [*found["most frequent %"]]),
    ]
    note = (
        f"Accuracy on test, mean ± standard deviation over {counted(seeds, 'seed')}; most "
        "frequent: what always giving the most frequent label scores. MACs: multiply-accumulates, "
        "of the network those of an image, forward; k, M, G, T: 10³, 10⁶, 10⁹, 10¹²; space: how "
        "many architectures were searched among, as log10."
    )
    lead = "Every method on every task: how accurate its network is, how large, and what it cost."
    tables = [Table("Trained networks", columns, note)]
    page(out, "Comparison", lead, tables, data={"comparison": table})


def summary(comparison: pd.DataFrame) -> pd.DataFrame:
    """Accuracy mean ± standard deviation over seeds (%), parameters, search cost, by method.

    ``most frequent %`` is the accuracy of always saying the most frequent label; ``MACs`` are an
    image's, forward.
    """
    rows = []
    for (task, method), group in comparison.groupby(["task", "method"], sort=False):
        rows.append(
            {
                "task": task,
                "method": method,
                "seeds": len(group),
                "accuracy %": spread(100 * group["accuracy"], 2),
                "most frequent %": f"{100 * group['most_frequent'].mean():.2f}",
                "parameters": round(group["parameters"].mean()),
                "MACs": group["macs"].mean(),
                "search MACs": group["search_macs"].mean(),
                "search time": group["search_seconds"].mean(),
                "space (log10)": group["space_log10"].mean(),
            }
        )
    return pd.DataFrame(rows)


def probes(facts: list[dict], out: Path) -> None:
    """The facts of probes as a page: a row a task and network, then a row a probe.

    Of these first those that learned nothing, then who missed 1 − ε. The columns of other terms,
    and of remarks, are there where a probe has some.
    """
    table = _probes(facts)
    tables = [_over_trials(table)]
    nothing = table["nothing"]
    table = table.drop(columns=["wanted", "nothing"])
    if nothing.any():
        table.insert(0, "remark", np.where(nothing, _NOTHING, ""))
    order = ["learned", "reached", "network", "trial", "task"]
    found = table.assign(learned=~nothing).sort_values(order).drop(columns="learned")
    note = "First those that are no better than a constant answer, then those that missed 1 − ε."
    texts = dict.fromkeys(("score on val", "constant answer"), "{:.4f}".format)
    texts["seconds"] = "{:.1f}".format
    tables.append(_table("Probes", found.rename(columns=_HEADS), note, texts))
    lead = (
        "The networks that tasks are compared by: trained on train, measured here on val. A "
        "distance says little where probes miss 1 − ε."
    )
    page(out, "Probes", lead, tables, data={"probes": found})


def dense(facts: list[dict], out: Path) -> None:
    """The same of the probes of dense tasks alone, a row a task and network."""
    table = _probes(facts)
    lead = (
        "How well probes learn tasks whose targets are maps, beside the best map that is the same "
        "for every frame: what is no better than that has learned nothing."
    )
    data = {"dense": table.drop(columns=["wanted", "nothing"])}
    page(out, "Dense tasks", lead, [_over_trials(table)], data=data)


def _probes(facts: list[dict]) -> pd.DataFrame:
    """A row a probe: its facts, ``wanted`` (1 − ε), whether it has learned ``nothing``."""
    own = _IN_OTHER_TERMS if any("metric" in about for about in facts) else ()
    table = pd.DataFrame(facts, columns=[*_OF_PROBES, *own])
    wanted = [1 - about["settings"]["epsilon"] for about in facts]
    nothing = table["val_accuracy"] <= table["val_most_frequent"]
    return table.assign(wanted=wanted, nothing=nothing)


def _over_trials(table: pd.DataFrame) -> Table:
    """A row a network and task, in their order."""
    groups = table.groupby(["network", "task"], sort=False)
    rows, firsts = [group for _, group in groups], groups.first()
    trials = [len(group) for group in rows]

    def means(name: str, digits: int) -> Column:
        mean = [float(group[name].mean()) for group in rows]
        texts = [spread(group[name], digits) for group in rows]
        return Column(_HEADS.get(name, name), mean, texts)

    def share(name: str, column: str) -> Column:
        hits = [int(group[column].sum()) for group in rows]
        return Column(name, hits, [f"{n} of {m}" for n, m in zip(hits, trials, strict=True)])

    columns = [
        Column("network", [network for network, _ in groups.groups]),
        Column("task", [task for _, task in groups.groups]),
        Column("trials", trials),
        means("val_accuracy", 4),
        Column("constant answer", *_cells(firsts["val_most_frequent"], "{:.4f}".format)),
        Column("1 − ε", [float(group["wanted"].mean()) for group in rows]),
        share("reached 1 − ε", "reached"),
    ]
    if table["nothing"].any():
        columns.append(share("learned nothing", "nothing"))
    if "metric" in table:
        columns += [
            Column("metric", *_cells(firsts["metric"], str)),
            Column(_HEADS["val_metric"], *_cells(groups["val_metric"].mean())),
            Column(_HEADS["val_metric_constant"], *_cells(firsts["val_metric_constant"])),
        ]
    columns.append(means("epochs", 1))
    note = (
        "Mean ± standard deviation over trials, which are common starts of all tasks' probes. "
        "Scores are accuracies, or of maps what their metric gives in [0, 1]; constant answer: "
        "the best one that is the same for all images; learned nothing: no better than that."
    )
    return Table("Tasks over trials", columns, note)


def run(jobs: pd.DataFrame, packages: Mapping[str, str], configuration: str, out: Path) -> None:
    """How an experiment was made, as a page: what rules took, versions, configuration.

    Args:
        jobs: ``rule``, ``seconds`` and ``megabytes`` of every job whose log says them.
        packages: versions.
        configuration: as it was given, YAML.
    """
    groups = jobs.groupby("rule", sort=False)
    found = groups.agg(
        jobs=("seconds", "size"),
        total=("seconds", "sum"),
        longest=("seconds", "max"),
        memory=("megabytes", "max"),
    ).reset_index()
    texts = {"total": seconds, "longest": seconds, "memory": lambda size: f"{size:,.0f} MB"}
    note = (
        "A row a rule: its jobs, their time together, that of the longest, and the memory of the "
        "largest (of the main memory, what was imported included). Each is that of the job's last "
        "run, by its log; jobs whose logs are gone are not counted."
    )
    tables = [_table("Rules", found, note, texts)]
    versions = pd.DataFrame({"package": [*packages], "version": [*packages.values()]})
    tables.append(_table("Versions", versions, "Of what decides results."))
    lead = "How these results were made: what each rule took, by which versions, from what."
    page(out, "Run", lead, tables, texts={"Configuration": configuration}, data={"jobs": jobs})


def _table(
    title: str,
    frame: pd.DataFrame,
    note: str = "",
    texts: Mapping[str, Callable[[float], str]] | None = None,
) -> Table:
    """A table of a frame's columns; ``mean`` and ``std`` become one."""
    columns = []
    for name in frame:
        if name == "std" and "mean" in frame:
            continue
        if name == "mean" and "std" in frame:
            pairs = zip(frame["mean"], frame["std"], strict=True)
            count = 2 if frame["std"].any() else 1
            shown_as = [with_spread(mean, std, count) for mean, std in pairs]
            columns.append(Column("mean ± std", frame["mean"].tolist(), shown_as))
        else:
            columns.append(Column(str(name), *_cells(frame[name], (texts or {}).get(name))))
    return Table(title, columns, note)


def _cells(values: pd.Series, text: Callable[[float], str] | None = None) -> tuple[list, list[str]]:
    """A column's values, ``None`` where one is missing, and how they read."""
    found = [None if value is None or value != value else value for value in values.tolist()]
    return found, [(text or shown)(value) if value is not None else "" for value in found]


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
